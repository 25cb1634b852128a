package mgmt

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/tidwall/gjson"

	"github.com/portcullis-id/portcullis/authn"
	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/tenant"
)

func sameSecret(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return a != "" && subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

// tenantScopes exist at the root tenant alone.
var tenantScopes = []string{"create:tenants", "read:tenants", "delete:tenants"}

// Scopes lists the scopes of a tenant's Management API: those of the resources
// that there are.
func Scopes(rootTenant bool) []string {
	var out []string
	for _, r := range resources() {
		for _, verb := range []string{"read", "create", "update", "delete"} {
			out = append(out, verb+":"+scopeName(r.path))
		}
	}
	out = append(out, "read:client_keys", "update:client_keys", "read:client_credentials", "create:client_credentials", "update:client_credentials",
		"delete:client_credentials", "read:users", "create:users", "update:users", "delete:users", "read:users_app_metadata", "update:users_app_metadata",
		"create:user_tickets", "create:role_members", "delete:role_members", "read:logs", "read:logs_users", "read:signing_keys", "create:signing_keys",
		"update:signing_keys", "read:tenant_settings", "update:tenant_settings", "read:organization_client_grants")
	if rootTenant {
		out = append(out, tenantScopes...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// The connections that a new tenant has.
const (
	DefaultConnection = "Username-Password-Authentication"
	RootConnection    = "Initial-Connection" // holds the administrators; nobody signs up there
)

// Created is a new tenant's own access to its Management API.
type Created struct {
	ClientID     string
	ClientSecret string
}

// CreateTenant makes a tenant with its settings, keys, first connection, its
// Management API and a client for that. All of it is there, or nothing of it is
// reachable: the registry's entry is pending until the end, and no host leads to a
// pending tenant. It fails with problem.Conflict when the name is taken.
func (a *API) CreateTenant(ctx context.Context, name string, owners []string, isRoot bool) (Created, error) {
	check := tenant.CheckName
	if isRoot {
		check = tenant.CheckRootName
	}
	if err := check(name); err != nil {
		return Created{}, err
	}
	for _, o := range owners {
		if err := authn.CheckEmail(o); err != nil {
			return Created{}, problem.Wrap(problem.Invalid, "invalid_body", err, "owners wants mail addresses, got %q", clip(o, 128))
		}
	}
	keys, err := a.Keys.Prepare()
	if err != nil {
		return Created{}, err
	}
	if err := a.reserve(ctx, name, owners, isRoot); err != nil {
		return Created{}, err
	}
	// What a run left behind that did not get to the end goes first.
	if err := a.wipe(ctx, name); err != nil {
		return Created{}, err
	}
	var made Created
	err = a.docs.Write(ctx, name, func(tx tenant.Tx) (err error) {
		made, err = a.furnish(tx, name, isRoot, keys)
		return err
	})
	if err != nil {
		return Created{}, fmt.Errorf("furnish the tenant %s: %w", name, err)
	}
	return made, a.docs.Write(ctx, tenant.Authority, func(tx tenant.Tx) error {
		_, err := tenant.Change(tx, tenant.KindTenant, name, func(t *tenant.Tenant) error { t.Pending = false; return nil })
		return err
	})
}

// abandoned is when a tenant that is still being made counts as left behind by a
// node that died.
const abandoned = time.Minute

// reserve takes a name in the registry, for one maker at a time.
func (a *API) reserve(ctx context.Context, name string, owners []string, isRoot bool) error {
	return a.docs.Write(ctx, tenant.Authority, func(tx tenant.Tx) error {
		t, err := tenant.Load[tenant.Tenant](tx, tenant.KindTenant, name)
		switch {
		case err == nil && !t.Pending:
			return problem.New(problem.Conflict, "tenant_exists", "A tenant with the name %s exists already", name)
		case err == nil && tx.Now().Before(t.CreatedAt.Add(abandoned)):
			return problem.New(problem.Conflict, "tenant_pending", "A tenant with the name %s is being made at this moment", name)
		case err != nil && !problem.Is(err, problem.NotFound):
			return err
		}
		return tenant.Set(tx, tenant.KindTenant, name, tenant.Tenant{Name: name, Root: isRoot, Owners: owners, CreatedAt: tx.Now(), Pending: true})
	})
}

// furnish writes what every tenant has from the start.
func (a *API) furnish(tx tenant.Tx, name string, isRoot bool, keys *tenant.NewKeySet) (Created, error) {
	now := timestamp(tx.Now())
	made := Created{ClientID: tenant.NewClientID(), ClientSecret: tenant.NewSecret()}
	add := func(k tenant.Kind, id string, d doc) error {
		d["created_at"] = now
		return tenant.Add(tx, k, id, d)
	}
	settings := defaultSettings(name)
	if isRoot {
		settings["friendly_name"] = "Portcullis"
	}
	if err := tenant.Add(tx, tenant.KindSettings, tenant.SettingsID, settings); err != nil {
		return made, err
	}
	if err := a.Keys.Ensure(tx, keys); err != nil {
		return made, err
	}
	audience := a.Directory.ManagementAudience(name)
	scopes := []any{}
	granted := []any{}
	for _, s := range Scopes(isRoot) {
		scopes, granted = append(scopes, doc{"value": s, "description": scopeText(s)}), append(granted, s)
	}
	api := doc{"id": tenant.RandomHex(24), "name": "Auth0 Management API", "identifier": audience, "is_system": true, "scopes": scopes,
		"signing_alg": "RS256", "token_lifetime": 86400, "token_lifetime_for_web": 7200, "allow_offline_access": false, "enforce_policies": false,
		"skip_consent_for_verifiable_first_party_clients": false, "token_dialect": "access_token",
		"subject_type_authorization": doc{"client": doc{"policy": "require_client_grant"}, "user": doc{"policy": "allow_all"}}}
	if err := add(tenant.KindResourceServer, text(api, "id"), api); err != nil {
		return made, err
	}
	machine := doc{"client_id": made.ClientID, "client_secret": made.ClientSecret, "name": "Management API client", "app_type": "non_interactive",
		"grant_types": []any{"client_credentials"}, "token_endpoint_auth_method": "client_secret_post"}
	completeClient(machine)
	if err := add(tenant.KindClient, made.ClientID, machine); err != nil {
		return made, err
	}
	// The application that a new tenant of Auth0 has; tools expect one to be there.
	first := doc{"client_id": tenant.NewClientID(), "name": "Default App", "oidc_conformant": true, "callbacks": []any{}}
	completeClient(first)
	if err := add(tenant.KindClient, text(first, "client_id"), first); err != nil {
		return made, err
	}
	global := doc{"client_id": tenant.NewClientID(), "name": "All Applications", "global": true, "grant_types": []any{}, "callbacks": []any{}, "custom_login_page": ""}
	completeClient(global)
	if err := add(tenant.KindClient, text(global, "client_id"), global); err != nil {
		return made, err
	}
	grant := doc{"id": tenant.NewID("cgr"), "client_id": made.ClientID, "audience": audience, "scope": granted, "subject_type": "client"}
	if err := add(tenant.KindClientGrant, text(grant, "id"), grant); err != nil {
		return made, err
	}
	conn := doc{"id": tenant.NewID("con"), "name": DefaultConnection, "strategy": tenant.StrategyDatabase, "options": doc{},
		"enabled_clients": []any{first["client_id"]}}
	if isRoot {
		conn["name"], conn["options"] = RootConnection, doc{"disable_signup": true}
	}
	completeConnection(conn, conn["options"].(doc))
	return made, add(tenant.KindConnection, text(conn, "id"), conn)
}

// scopeText says a scope in words: "read:clients" is "Read clients".
func scopeText(s string) string {
	out := []byte(s)
	for i, c := range out {
		if c == ':' || c == '_' {
			out[i] = ' '
		}
	}
	if len(out) > 0 && out[0] >= 'a' && out[0] <= 'z' {
		out[0] -= 'a' - 'A'
	}
	return string(out)
}

// EnsureTenant makes a tenant unless there is one of the name, and reports
// whether it did.
func (a *API) EnsureTenant(ctx context.Context, name string, isRoot bool) (bool, error) {
	t, err := a.Directory.Tenant(ctx, name)
	if err == nil && !t.Pending {
		return false, a.refreshScopes(ctx, name, isRoot)
	}
	if err != nil && !problem.Is(err, problem.NotFound) {
		return false, err
	}
	_, err = a.CreateTenant(ctx, name, nil, isRoot)
	if problem.From(err).Code == "tenant_exists" {
		return false, a.refreshScopes(ctx, name, isRoot)
	}
	return err == nil, err
}

// refreshScopes gives the Management API of a tenant the scopes that a newer
// program has.
func (a *API) refreshScopes(ctx context.Context, name string, isRoot bool) error {
	api, err := a.Directory.ResourceServer(ctx, name, a.Directory.ManagementAudience(name))
	if problem.Is(err, problem.NotFound) {
		return problem.New(problem.Unavailable, "domain_changed",
			"the tenant %s was made for another domain or port than %s; start with the domain of the first start", name, a.Directory.Hosts.Host(name))
	}
	if err != nil {
		return err
	}
	want := Scopes(isRoot)
	if len(api.Scopes) == len(want) && slices.EqualFunc(api.Scopes, want, func(have tenant.Scope, w string) bool { return have.Value == w }) {
		return nil
	}
	scopes := []any{}
	for _, s := range want {
		scopes = append(scopes, doc{"value": s, "description": scopeText(s)})
	}
	return a.docs.Write(ctx, name, func(tx tenant.Tx) error {
		_, err := tenant.Change(tx, tenant.KindResourceServer, api.ID, func(d *doc) error { (*d)["scopes"] = scopes; return nil })
		return err
	})
}

// Tenants lists the names of all tenants.
func (a *API) Tenants(ctx context.Context) ([]string, error) {
	var out []string
	after := ""
	for {
		page, err := a.docs.Find(ctx, tenant.Authority, tenant.KindTenant, tenant.Query{After: after})
		if err != nil {
			return nil, fmt.Errorf("list tenants: %w", err)
		}
		for _, rec := range page.Records {
			after = rec.ID
			if !gjson.GetBytes(rec.Doc, "pending").Bool() {
				out = append(out, rec.ID)
			}
		}
		if len(page.Records) < 1000 {
			return out, nil
		}
	}
}

// DeleteTenant takes a tenant out of the registry, so that no host leads to it
// any more, and then deletes everything that it had.
func (a *API) DeleteTenant(ctx context.Context, name string) error {
	err := a.docs.Write(ctx, tenant.Authority, func(tx tenant.Tx) error {
		t, err := tenant.Load[tenant.Tenant](tx, tenant.KindTenant, name)
		if problem.Is(err, problem.NotFound) {
			return notFound("inexistent_tenant", "The tenant does not exist")
		}
		if err != nil {
			return err
		}
		if t.Root {
			return problem.New(problem.Invalid, "root_tenant", "The root tenant authority cannot be deleted")
		}
		_, err = tx.Delete(tenant.KindTenant, name)
		return err
	})
	if err != nil {
		return err
	}
	return a.wipe(ctx, name)
}

// wipe deletes all documents of a tenant, in small transactions.
func (a *API) wipe(ctx context.Context, name string) error {
	for _, c := range tenant.Collections() {
		for {
			page, err := a.docs.Find(ctx, name, c.Kind, tenant.Query{Limit: 500})
			if err != nil {
				return fmt.Errorf("delete %s of the tenant: %w", c.Kind, err)
			}
			if len(page.Records) == 0 {
				break
			}
			err = a.docs.Write(ctx, name, func(tx tenant.Tx) error {
				for _, rec := range page.Records {
					if _, err := tx.Delete(c.Kind, rec.ID); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				return fmt.Errorf("delete %s of the tenant: %w", c.Kind, err)
			}
		}
	}
	return nil
}

func (a *API) registerTenants(mux *http.ServeMux) {
	a.handle(mux, "GET tenants", []string{"read:tenants"}, a.listTenants)
	a.handle(mux, "POST tenants", []string{"create:tenants"}, a.postTenant)
	a.handle(mux, "DELETE tenants/{name}", []string{"delete:tenants"}, a.removeTenant)
}

// onlyRoot refuses what other tenants have no business with. Their tokens never
// have the scopes; this holds even if one had.
func onlyRoot(c *call) error {
	if !tenant.FromContext(c.ctx()).Root {
		return problem.New(problem.Forbidden, "root_only", "Tenants are managed at the root tenant authority")
	}
	return nil
}

func (a *API) listTenants(c *call) (int, any, error) {
	if err := onlyRoot(c); err != nil {
		return 0, nil, err
	}
	p, err := readPaging(c.URL.Query(), 50, 100)
	if err != nil {
		return 0, nil, err
	}
	page, err := a.docs.Find(c.ctx(), tenant.Authority, tenant.KindTenant, p.query(tenant.Query{}))
	if err != nil {
		return 0, nil, err
	}
	items, ids := []any{}, []string{}
	for _, rec := range page.Records {
		d, err := asDoc(rec.Doc)
		if err != nil {
			return 0, nil, err
		}
		d["url"] = a.Directory.URL(rec.ID)
		if at, err := time.Parse(time.RFC3339, text(d, "created_at")); err == nil {
			d["created_at"] = timestamp(at)
		}
		items, ids = append(items, d), append(ids, rec.ID)
	}
	return http.StatusOK, p.envelope("tenants", items, ids, page.Total), nil
}

func (a *API) postTenant(c *call) (int, any, error) {
	if err := onlyRoot(c); err != nil {
		return 0, nil, err
	}
	d, err := c.object()
	if err != nil {
		return 0, nil, err
	}
	if err := declare("name owners:?strings").check(d); err != nil {
		return 0, nil, err
	}
	if err := required(d, "name"); err != nil {
		return 0, nil, err
	}
	var owners []string
	list, _ := d["owners"].([]any)
	for _, v := range list {
		owners = append(owners, v.(string))
	}
	name := text(d, "name")
	made, err := a.CreateTenant(c.ctx(), name, owners, false)
	if err != nil {
		return 0, nil, err
	}
	return http.StatusCreated, doc{"name": name, "owners": owners, "url": a.Directory.URL(name), "client_id": made.ClientID, "client_secret": made.ClientSecret}, nil
}

func (a *API) removeTenant(c *call) (int, any, error) {
	if err := onlyRoot(c); err != nil {
		return 0, nil, err
	}
	return http.StatusNoContent, nil, a.DeleteTenant(c.ctx(), c.PathValue("name"))
}
