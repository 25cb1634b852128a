package tenant

import (
	"context"
	"slices"

	"github.com/portcullis-id/portcullis/problem"
)

// Directory answers what the hot paths ask of a tenant's configuration, from the
// cache. What it returns is shared: callers must not change it.
type Directory struct {
	Hosts
	cache *Cache
}

// NewDirectory reads through c.
func NewDirectory(h Hosts, c *Cache) *Directory { return &Directory{Hosts: h, cache: c} }

// Tenant returns an entry of the registry, or problem.NotFound.
func (d *Directory) Tenant(ctx context.Context, name string) (*Tenant, error) {
	return Cached(d.cache, Authority, KindTenant, name, func() (*Tenant, error) {
		return Get[Tenant](ctx, d.cache, Authority, KindTenant, name)
	})
}

// ByHost returns the tenant that a Host header leads to, or problem.NotFound.
func (d *Directory) ByHost(ctx context.Context, host string) (*Tenant, error) {
	unknown := problem.New(problem.NotFound, "unknown_host", "No tenant answers on this host name").About(host)
	name, ok := d.Name(host)
	if !ok {
		return nil, unknown
	}
	t, err := d.Tenant(ctx, name)
	if problem.Is(err, problem.NotFound) || err == nil && t.Pending {
		return nil, unknown
	}
	return t, err
}

// Settings returns a tenant's settings.
func (d *Directory) Settings(ctx context.Context, tenant string) (*Settings, error) {
	return Cached(d.cache, tenant, KindSettings, SettingsID, func() (*Settings, error) {
		return Get[Settings](ctx, d.cache, tenant, KindSettings, SettingsID)
	})
}

// Client returns an application, or problem.NotFound.
func (d *Directory) Client(ctx context.Context, tenant, id string) (*Client, error) {
	return Cached(d.cache, tenant, KindClient, id, func() (*Client, error) {
		return Get[Client](ctx, d.cache, tenant, KindClient, id)
	})
}

// ClientCredentials returns the public keys of a client.
func (d *Directory) ClientCredentials(ctx context.Context, tenant, clientID string) ([]*ClientCredential, error) {
	return Cached(d.cache, tenant, KindClientCredential, clientID, func() ([]*ClientCredential, error) {
		all, _, err := Find[ClientCredential](ctx, d.cache, tenant, KindClientCredential, Query{Where: []Cond{{Column: "client_id", Value: clientID}}})
		return all, err
	})
}

// ResourceServer returns the API with an identifier, or problem.NotFound.
func (d *Directory) ResourceServer(ctx context.Context, tenant, identifier string) (*ResourceServer, error) {
	return Cached(d.cache, tenant, KindResourceServer, identifier, func() (*ResourceServer, error) {
		return first[ResourceServer](ctx, d.cache, tenant, KindResourceServer, "identifier", identifier)
	})
}

// ClientGrants returns the grants that a client has for an API.
func (d *Directory) ClientGrants(ctx context.Context, tenant, clientID, audience string) ([]*ClientGrant, error) {
	return Cached(d.cache, tenant, KindClientGrant, clientID+"|"+audience, func() ([]*ClientGrant, error) {
		all, _, err := Find[ClientGrant](ctx, d.cache, tenant, KindClientGrant, Query{Where: []Cond{
			{Column: "client_id", Value: clientID}, {Column: "audience", Value: audience},
		}})
		return all, err
	})
}

// Connections returns all connections of a tenant, by name.
func (d *Directory) Connections(ctx context.Context, tenant string) ([]*Connection, error) {
	return Cached(d.cache, tenant, KindConnection, "", func() ([]*Connection, error) {
		all, _, err := Find[Connection](ctx, d.cache, tenant, KindConnection, Query{Sort: []Order{{Column: "name"}}})
		return all, err
	})
}

// ConnectionsFor returns the connections that a client may log users in through.
func (d *Directory) ConnectionsFor(ctx context.Context, tenant, clientID string) ([]*Connection, error) {
	all, err := d.Connections(ctx, tenant)
	if err != nil {
		return nil, err
	}
	var out []*Connection
	for _, c := range all {
		if c.EnabledFor(clientID) {
			out = append(out, c)
		}
	}
	return out, nil
}

// Connection returns the connection that has the id or the name, or
// problem.NotFound.
func (d *Directory) Connection(ctx context.Context, tenant, idOrName string) (*Connection, error) {
	all, err := d.Connections(ctx, tenant)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(all, func(c *Connection) bool { return c.ID == idOrName || c.Name == idOrName })
	if i < 0 {
		return nil, problem.New(problem.NotFound, "inexistent_connection", "The connection does not exist").About(idOrName)
	}
	return all[i], nil
}

// UserPermissions returns the permissions for an API that a user holds, directly
// and through roles, in order and without doubles.
func (d *Directory) UserPermissions(ctx context.Context, tenant, userID, audience string) ([]string, error) {
	direct, _, err := Find[UserPermission](ctx, d.cache, tenant, KindUserPermission, Query{Where: []Cond{
		{Column: "user_id", Value: userID}, {Column: "resource_server", Value: audience},
	}})
	if err != nil {
		return nil, err
	}
	roles, _, err := Find[UserRole](ctx, d.cache, tenant, KindUserRole, Query{Where: []Cond{{Column: "user_id", Value: userID}}})
	if err != nil {
		return nil, err
	}
	var out []string
	for _, p := range direct {
		out = append(out, p.Name)
	}
	for _, r := range roles {
		names, err := Cached(d.cache, tenant, KindRolePermission, r.RoleID+"|"+audience, func() ([]string, error) {
			held, _, err := Find[RolePermission](ctx, d.cache, tenant, KindRolePermission, Query{Where: []Cond{
				{Column: "role_id", Value: r.RoleID}, {Column: "resource_server", Value: audience},
			}})
			names := make([]string, len(held))
			for i, p := range held {
				names[i] = p.Name
			}
			return names, err
		})
		if err != nil {
			return nil, err
		}
		out = append(out, names...)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

func first[T any](ctx context.Context, docs Docs, tenant string, k Kind, column, value string) (*T, error) {
	found, _, err := Find[T](ctx, docs, tenant, k, Query{Where: []Cond{{Column: column, Value: value}}, Limit: 1})
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, problem.New(problem.NotFound, "", "no document of %s has this %s", k, column).About(value)
	}
	return found[0], nil
}

// Derived keeps what load makes of documents of one kind until a write touches
// the kind. The key tells values apart.
func (d *Directory) Derived(ctx context.Context, tenant string, k Kind, key string, load func(ctx context.Context) (any, error)) (any, error) {
	return Cached(d.cache, tenant, k, "\x00"+key, func() (any, error) { return load(ctx) })
}
