// Package oauth owns OAuth 2 and OpenID Connect: authorization requests, the
// grants of the token endpoint, tokens, browser sessions, consent, discovery,
// JWKS, userinfo, revocation and logout.
//
// It leaves pages to login, and the question who a user is to authn; it calls
// both through the interfaces in seams.go, which appliance fills.
//
// Trust: everything in an authorization request is hostile until the client and
// the redirect URI matched byte for byte; before that no answer redirects. The
// floor is RFC 9700.
package oauth
