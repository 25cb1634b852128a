// Package dashboard owns the administrators' pages. So far that is the set-up of
// a new appliance: the first administrator, the first application, and a login
// that proves that both work.
//
// It leaves users, applications and tenants to the rooms behind the interface
// Appliance, the login itself to oauth and login, and the look to login.
//
// Threat model: an appliance that nobody administers yet belongs to whoever holds
// the link that its first start printed. The link's token works once, until it
// has made an administrator or has expired; what follows needs the cookie that
// the same browser got for it. The pages answer on few hosts only, and every
// POST proves that it came from one of them.
package dashboard
