package tenant

// The kinds of documents.
const (
	KindTenant           Kind = "tenants" // the registry; belongs to Authority
	KindSettings         Kind = "settings"
	KindClient           Kind = "clients"
	KindClientCredential Kind = "client_credentials"
	KindResourceServer   Kind = "resource_servers"
	KindClientGrant      Kind = "client_grants"
	KindConnection       Kind = "connections"
	KindRole             Kind = "roles"
	KindRolePermission   Kind = "role_permissions"
	KindUser             Kind = "users"
	KindUserRole         Kind = "user_roles"
	KindUserPermission   Kind = "user_permissions"
	KindIdentity         Kind = "identities"  // "connection id|id at the provider" -> user
	KindIdentifier       Kind = "identifiers" // "connection id|email|…" -> user
	KindPassword         Kind = "passwords"   // hash of a database identity
	KindSigningKey       Kind = "signing_keys"
	KindSession          Kind = "sessions"
	KindRefreshToken     Kind = "refresh_tokens"
	KindConsent          Kind = "consents"
	KindOnce             Kind = "once"     // single-use values, package once
	KindAttempt          Kind = "attempts" // failed logins, package authn
	KindJob              Kind = "jobs"
	KindOutbox           Kind = "outbox" // work to be done after a commit: mails, webhooks
	KindLog              Kind = "logs"
	KindMember           Kind = "members"       // nodes of the cluster; belong to Authority
	KindCluster          Kind = "cluster"       // the cluster's certificate authority, leader and settings; belong to Authority
	KindChange           Kind = "changes"       // what caches of other nodes have to forget
	KindSearchQueue      Kind = "search_queue"  // what a search index does not have yet; belongs to Authority
	KindSearchGroup      Kind = "search_groups" // who fills which part of a search index, and how far; belong to Authority
)

// cached are the kinds that Cached derives from. A write of one of them is told to
// the other nodes of a cluster.
var cached = []Kind{KindTenant, KindSettings, KindClient, KindClientCredential, KindResourceServer, KindClientGrant, KindConnection, KindRolePermission, KindSigningKey}

// Authority owns the registry of tenants. It is no tenant itself: no host leads
// to it.
const Authority = "~authority"

// Collections declares every kind, in the order of their tables.
func Collections() []Collection {
	expires := Column{"expires_at", "expires_at", Time}
	return []Collection{
		{Kind: KindTenant, Columns: []Column{{"created_at", "created_at", Time}}},
		{Kind: KindSettings},
		{Kind: KindClient, Columns: []Column{
			{"name", "name", Text}, {"app_type", "app_type", Text}, {"is_first_party", "is_first_party", Boolean},
			{"is_global", "global", Boolean}, {"created_at", "created_at", Time},
		}, Sealed: []string{"client_secret"}},
		{Kind: KindClientCredential, Columns: []Column{{"client_id", "client_id", Text}, {"created_at", "created_at", Time}}},
		{Kind: KindResourceServer, Columns: []Column{
			{"identifier", "identifier", Text}, {"name", "name", Text}, {"is_system", "is_system", Boolean}, {"created_at", "created_at", Time},
		}, Unique: [][]string{{"identifier"}}, Sealed: []string{"signing_secret"}},
		{Kind: KindClientGrant, Columns: []Column{
			{"client_id", "client_id", Text}, {"audience", "audience", Text}, {"subject_type", "subject_type", Text},
			{"default_for", "default_for", Text}, {"created_at", "created_at", Time},
		}, Unique: [][]string{{"client_id", "audience", "subject_type"}}},
		{Kind: KindConnection, Columns: []Column{
			{"name", "name", Text}, {"strategy", "strategy", Text}, {"created_at", "created_at", Time},
		}, Unique: [][]string{{"name"}}, Sealed: []string{"options.client_secret", "options.twilio_token", "options.app_secret", "options.bindPassword", "options.signing_key", "options.decryption_key"}},
		{Kind: KindRole, Columns: []Column{
			{"name", "name", Text}, {"type", "type", Text}, {"owner_id", "owner_id", Text}, {"created_at", "created_at", Time},
		}},
		{Kind: KindRolePermission, Columns: []Column{
			{"role_id", "role_id", Text}, {"resource_server", "resource_server_identifier", Text}, {"permission", "permission_name", Text},
		}},
		{Kind: KindUser, Columns: []Column{
			{"email", "email", Folded}, {"email_verified", "email_verified", Boolean}, {"username", "username", Folded},
			{"phone_number", "phone_number", Text}, {"name", "name", Folded}, {"nickname", "nickname", Folded},
			{"given_name", "given_name", Folded}, {"family_name", "family_name", Folded}, {"blocked", "blocked", Boolean},
			{"connection", "identities.0.connection", Text}, {"logins_count", "logins_count", Integer}, {"last_ip", "last_ip", Text},
			{"last_login", "last_login", Time}, {"created_at", "created_at", Time}, {"updated_at", "updated_at", Time},
		}},
		{Kind: KindUserRole, Columns: []Column{{"user_id", "user_id", Text}, {"role_id", "role_id", Text}}},
		{Kind: KindUserPermission, Columns: []Column{
			{"user_id", "user_id", Text}, {"resource_server", "resource_server_identifier", Text}, {"permission", "permission_name", Text},
		}},
		{Kind: KindIdentity, Columns: []Column{{"user_id", "user_id", Text}, {"connection_id", "connection_id", Text}}},
		{Kind: KindIdentifier, Columns: []Column{{"user_id", "user_id", Text}, {"connection_id", "connection_id", Text}}},
		{Kind: KindPassword, Columns: []Column{{"user_id", "user_id", Text}}},
		{Kind: KindSigningKey, Columns: []Column{{"use", "use", Text}, {"created_at", "created_at", Time}}, Sealed: []string{"private_key"}},
		{Kind: KindSession, Columns: []Column{{"user_id", "user_id", Text}, expires}},
		{Kind: KindRefreshToken, Columns: []Column{
			{"family", "family", Text}, {"user_id", "user_id", Text}, {"client_id", "client_id", Text},
			{"session_id", "session_id", Text}, expires,
		}},
		{Kind: KindConsent, Columns: []Column{
			{"user_id", "user_id", Text}, {"client_id", "client_id", Text}, {"audience", "audience", Text},
		}, Unique: [][]string{{"user_id", "client_id", "audience"}}},
		{Kind: KindOnce, Columns: []Column{{"type", "type", Text}, {"subject", "subject", Text}, expires}},
		{Kind: KindAttempt, Columns: []Column{{"identifier", "identifier", Folded}, {"ip", "ip", Text}, expires}},
		{Kind: KindJob, Columns: []Column{{"type", "type", Text}, {"status", "status", Text}, {"created_at", "created_at", Time}, expires}, Sealed: []string{"input"}},
		{Kind: KindOutbox, Columns: []Column{{"topic", "topic", Text}, {"due_at", "due_at", Time}}, Sealed: []string{"secret"}},
		{Kind: KindLog, Columns: []Column{
			{"date", "date", Time}, {"type", "type", Text}, {"user_id", "user_id", Text}, {"user_name", "user_name", Folded},
			{"client_id", "client_id", Text}, {"client_name", "client_name", Folded}, {"connection", "connection", Text},
			{"connection_id", "connection_id", Text}, {"ip", "ip", Text}, {"hostname", "hostname", Text}, {"audience", "audience", Text},
		}},
		{Kind: KindMember},
		{Kind: KindCluster, Sealed: []string{"private_key", "secret"}},
		{Kind: KindChange, Columns: []Column{{"at", "at", Time}, expires}},
		{Kind: KindSearchQueue, Columns: []Column{
			{"part", "part", Text}, {"at", "at", Time}, {"due_at", "due_at", Time}, {"tries", "tries", Integer},
		}},
		{Kind: KindSearchGroup},
	}
}
