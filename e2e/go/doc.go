// Package e2e holds the end-to-end tests with Go's own clients: golang.org/x/oauth2
// and coreos/go-oidc as the application, auth0/go-jwt-middleware as the API.
// scripts/e2e starts the node that they speak to.
package e2e
