// Package web is the thin rim of every HTTP surface: handlers that return
// errors, the one event that a request leaves in the log, request ids, the
// client's address behind trusted proxies, and bounds on what is read.
//
// It knows no tenant, no protocol and no page. How an error looks is the
// surface's own choice (a Renderer).
package web
