package mgmt

import (
	"net/http"
	"slices"
	"strings"

	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/tenant"
)

var errNoRole = notFound("inexistent_role", "Role not found")

func roles() *resource {
	return &resource{
		path: "roles", kind: tenant.KindRole, id: "id", newID: func() string { return tenant.NewID("rol") },
		fields: declare(`name description:?string type owner_id`), filters: map[string]string{"name_filter": "name"},
		missing: errNoRole, createdStatus: http.StatusOK, deletedStatus: http.StatusOK,
		deletedBody: func() any { return doc{} },
		create: func(_ *API, _ *call, d doc) error {
			if err := required(d, "name"); err != nil {
				return err
			}
			if _, ok := d["description"]; !ok {
				d["description"] = nil
			}
			return judgeRole(d)
		},
		update: func(_ *API, _ *call, _, patch, _ doc) error {
			for _, fixed := range []string{"type", "owner_id"} {
				if _, ok := patch[fixed]; ok {
					return invalidBody("'Additional properties not allowed: %s'.", fixed)
				}
			}
			return judgeRole(patch)
		},
		onDelete: func(_ *API, _ *call, tx tenant.Tx, id string) error {
			for _, k := range []tenant.Kind{tenant.KindRolePermission, tenant.KindUserRole} {
				if _, err := tx.DeleteWhere(k, []tenant.Cond{{Column: "role_id", Value: id}}); err != nil {
					return err
				}
			}
			return nil
		},
		view: viewRole,
	}
}

func judgeRole(d doc) error {
	for _, err := range []error{nonEmpty(d, "name", 256), within(d, "description", 0, 512), oneOf(d, "type", "tenant", "organization")} {
		if err != nil {
			return err
		}
	}
	return nil
}

func viewRole(_ *API, c *call, d doc) doc {
	delete(d, "created_at")
	// Auth0 answers null to the one who made it, and an empty text later.
	if d["description"] == nil && c.Method == http.MethodGet {
		d["description"] = ""
	}
	if d["type"] == nil {
		d["type"] = "tenant"
	}
	return d
}

func (a *API) registerRoleParts(mux *http.ServeMux) {
	a.handle(mux, "GET roles/{id}/permissions", []string{"read:roles"}, a.rolePermissions)
	a.handle(mux, "POST roles/{id}/permissions", []string{"update:roles"}, a.addRolePermissions)
	a.handle(mux, "DELETE roles/{id}/permissions", []string{"update:roles"}, a.removeRolePermissions)
	a.handle(mux, "GET roles/{id}/users", []string{"read:roles", "read:users"}, a.roleUsers)
	a.handle(mux, "POST roles/{id}/users", []string{"update:roles", "create:role_members"}, a.addRoleUsers)
}

// permissionView shows an assignment with the names of API and scope.
func (a *API) permissionView(c *call, apiID, name string) (doc, error) {
	d := doc{"permission_name": name, "resource_server_identifier": apiID, "resource_server_name": "", "description": ""}
	api, err := a.Directory.ResourceServer(c.ctx(), c.tenant, apiID)
	if problem.Is(err, problem.NotFound) {
		return d, nil
	}
	if err != nil {
		return nil, err
	}
	d["resource_server_name"] = api.Name
	for _, s := range api.Scopes {
		if s.Value == name {
			d["description"] = s.Description
		}
	}
	return d, nil
}

// permissions reads {permissions: [{resource_server_identifier,
// permission_name}]}, and refuses those that no API has when must is set.
func (a *API) permissions(c *call, must bool) ([]tenant.Permission, error) {
	d, err := c.object()
	if err != nil {
		return nil, err
	}
	if err := declare("permissions:array").check(d); err != nil {
		return nil, err
	}
	list, _ := d["permissions"].([]any)
	if len(list) == 0 || len(list) > 1000 {
		return nil, invalidBody("'permissions wants 1 to 1000 elements' on property permissions.")
	}
	var out []tenant.Permission
	for i, v := range list {
		p, ok := v.(doc)
		if !ok {
			return nil, invalidBody("'Expected type object but found type %s' on property permissions[%d].", kindOf(v), i)
		}
		if err := declare("resource_server_identifier permission_name").check(p); err != nil {
			return nil, err
		}
		if err := required(p, "resource_server_identifier", "permission_name"); err != nil {
			return nil, err
		}
		perm := tenant.Permission{ResourceServer: text(p, "resource_server_identifier"), Name: text(p, "permission_name")}
		if must {
			api, err := a.Directory.ResourceServer(c.ctx(), c.tenant, perm.ResourceServer)
			if problem.Is(err, problem.NotFound) {
				return nil, notFound("inexistent_resource_server", "The resource server does not exist")
			}
			if err != nil {
				return nil, err
			}
			if !slices.ContainsFunc(api.Scopes, func(s tenant.Scope) bool { return s.Value == perm.Name }) {
				return nil, problem.New(problem.Invalid, "invalid_body", "The API %s has no permission %s", clip(perm.ResourceServer, 128), clip(perm.Name, 128))
			}
		}
		out = append(out, perm)
	}
	return out, nil
}

func (a *API) rolePermissions(c *call) (int, any, error) {
	if _, _, err := a.load(c, roles(), c.PathValue("id")); err != nil {
		return 0, nil, err
	}
	return a.listAssigned(c, tenant.KindRolePermission, "role_id", func(d doc) (doc, error) {
		return a.permissionView(c, text(d, "resource_server_identifier"), text(d, "permission_name"))
	}, "permissions")
}

// listAssigned serves a list of assignments of one role or user.
func (a *API) listAssigned(c *call, k tenant.Kind, column string, view func(doc) (doc, error), key string) (int, any, error) {
	p, err := readPaging(c.URL.Query(), 50, 100)
	if err != nil {
		return 0, nil, err
	}
	page, err := a.docs.Find(c.ctx(), c.tenant, k, p.query(tenant.Query{Where: []tenant.Cond{{Column: column, Value: c.PathValue("id")}}}))
	if err != nil {
		return 0, nil, err
	}
	items, ids := []any{}, []string{}
	for _, rec := range page.Records {
		d, err := asDoc(rec.Doc)
		if err != nil {
			return 0, nil, err
		}
		shown, err := view(d)
		if problem.Is(err, problem.NotFound) {
			continue // the other side was deleted at this moment
		}
		if err != nil {
			return 0, nil, err
		}
		items, ids = append(items, shown), append(ids, rec.ID)
	}
	return http.StatusOK, p.envelope(key, items, ids, page.Total), nil
}

func (a *API) addRolePermissions(c *call) (int, any, error) {
	perms, err := a.permissions(c, true)
	if err != nil {
		return 0, nil, err
	}
	err = a.docs.Write(c.ctx(), c.tenant, func(tx tenant.Tx) error {
		if _, err := tx.Get(tenant.KindRole, c.PathValue("id")); problem.Is(err, problem.NotFound) {
			return errNoRole
		} else if err != nil {
			return err
		}
		for _, perm := range perms {
			rp := tenant.RolePermission{RoleID: c.PathValue("id"), Permission: perm}
			if err := tenant.Set(tx, tenant.KindRolePermission, rp.ID(), rp); err != nil {
				return err
			}
		}
		return nil
	})
	return http.StatusCreated, doc{}, err
}

func (a *API) removeRolePermissions(c *call) (int, any, error) {
	perms, err := a.permissions(c, false)
	if err != nil {
		return 0, nil, err
	}
	err = a.docs.Write(c.ctx(), c.tenant, func(tx tenant.Tx) error {
		if _, err := tx.Get(tenant.KindRole, c.PathValue("id")); problem.Is(err, problem.NotFound) {
			return errNoRole
		} else if err != nil {
			return err
		}
		for _, perm := range perms {
			if _, err := tx.Delete(tenant.KindRolePermission, (tenant.RolePermission{RoleID: c.PathValue("id"), Permission: perm}).ID()); err != nil {
				return err
			}
		}
		return nil
	})
	return http.StatusNoContent, nil, err
}

func (a *API) roleUsers(c *call) (int, any, error) {
	if _, _, err := a.load(c, roles(), c.PathValue("id")); err != nil {
		return 0, nil, err
	}
	return a.listAssigned(c, tenant.KindUserRole, "role_id", func(d doc) (doc, error) {
		u, err := tenant.Get[tenant.User](c.ctx(), a.docs, c.tenant, tenant.KindUser, text(d, "user_id"))
		if err != nil {
			return nil, err
		}
		out := doc{"user_id": u.ID, "email": u.Email, "name": u.Name, "picture": u.Picture}
		return out, nil
	}, "users")
}

func (a *API) addRoleUsers(c *call) (int, any, error) {
	users, err := c.ids("users", 1000)
	if err != nil {
		return 0, nil, err
	}
	err = a.docs.Write(c.ctx(), c.tenant, func(tx tenant.Tx) error {
		if _, err := tx.Get(tenant.KindRole, c.PathValue("id")); problem.Is(err, problem.NotFound) {
			return errNoRole
		} else if err != nil {
			return err
		}
		for _, u := range users {
			if _, err := tx.Get(tenant.KindUser, u); problem.Is(err, problem.NotFound) {
				return errNoUser
			} else if err != nil {
				return err
			}
			ur := tenant.UserRole{UserID: u, RoleID: c.PathValue("id")}
			if err := tenant.Set(tx, tenant.KindUserRole, ur.ID(), ur); err != nil {
				return err
			}
		}
		return nil
	})
	return http.StatusOK, nil, err
}

// ids reads a body with one list of texts.
func (c *call) ids(name string, most int) ([]string, error) {
	d, err := c.object()
	if err != nil {
		return nil, err
	}
	if err := declare(name + ":strings").check(d); err != nil {
		return nil, err
	}
	list, _ := d[name].([]any)
	if len(list) == 0 || len(list) > most {
		return nil, invalidBody("'%s wants 1 to %d elements' on property %s.", name, most, name)
	}
	var out []string
	for _, v := range list {
		if s := strings.TrimSpace(v.(string)); s != "" {
			out = append(out, s)
		}
	}
	return out, nil
}
