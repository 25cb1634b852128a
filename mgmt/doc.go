// Package mgmt is the Management API v2, wire-compatible with Auth0's. Every
// resource is declared once (properties, defaults, rules, scopes, filters) and
// served by one generic handler, so that paging, field filters, errors and scopes
// are the same everywhere.
//
// It owns the wire form and the rules of what may be stored. Storing is the
// store's business, users' passwords and mails are authn's, tokens oauth's.
package mgmt
