// Package tenant owns the tenants of the appliance and what belongs to them:
// settings, applications, APIs, grants, connections, users, roles, signing keys
// and logs.
//
// It declares the store that it needs (Docs) and leaves SQL to the engines. It
// leaves protocols to oauth, pages to login and the wire form of the Management
// API to mgmt.
//
// Trust: every method takes the tenant first, and nothing here reads across
// tenants. The registry of tenants itself belongs to the root authority.
package tenant
