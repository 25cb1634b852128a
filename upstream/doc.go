// Package upstream logs users in at other OpenID Connect and OAuth 2 providers:
// it sends browsers there, takes their answers, and reads who they are. Google,
// GitHub and Microsoft are presets of the two protocols.
//
// It keeps no users (authn does) and no sessions (oauth does).
//
// Threat model: the browser, the answer and the provider itself may be hostile.
// An answer belongs to the browser and the connection that asked for it, works
// once, comes from the issuer that was asked (RFC 9207), and what it says is
// believed as far as its signature goes. Addresses are verified only when the
// provider says so.
package upstream
