// Package page is the look that hosted pages and the set-up share: the layout,
// the stylesheet, the security headers, the languages, and the proof that a
// form came from one of our own pages.
//
// It knows no protocol and no user; login and dashboard fill the pages.
//
// Threat model: names, logos and messages come from tenants, applications and
// strangers, so everything passes html/template and no page runs a script. A
// page of another site may send our forms in a user's browser: each POST has to
// carry a value derived from a cookie that only we can set and read, and must
// not be marked as cross-site by the browser.
package page
