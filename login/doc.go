// Package login owns the pages that users see: log in, sign up, reset, verify,
// unblock, consent, log out, and errors; and the two JSON endpoints that stand for
// the same pages (/dbconnections). Pages are rendered on the server and need no
// script.
//
// It decides nothing about who a user is (authn) or what an application gets
// (oauth). Trust: a page belongs to the browser that its transaction was begun
// in; posts of other sites are refused; all that a stranger wrote is escaped, and
// the content security policy lets nothing run.
package login
