package mgmt

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/portcullis-id/portcullis/authn"
	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/search"
	"github.com/portcullis-id/portcullis/tenant"
)

var (
	errNoUser       = notFound("inexistent_user", "The user does not exist.")
	errNoConnection = problem.New(problem.Invalid, "inexistent_connection", "The connection does not exist.")
)

var userCreateFields = declare(`connection email:?string phone_number:?string user_metadata:?object app_metadata:?object blocked:boolean email_verified:boolean
phone_verified:boolean given_name:?string family_name:?string name:?string nickname:?string picture:?string user_id:?string password:?string
verify_email:boolean username:?string custom_password_hash:object`)

var userUpdateFields = declare(`connection client_id email:?string phone_number:?string user_metadata:?object app_metadata:?object blocked:boolean
email_verified:boolean phone_verified:boolean given_name:?string family_name:?string name:?string nickname:?string picture:?string password:?string
verify_email:boolean verify_password:boolean verify_phone_number:boolean username:?string`)

func (a *API) registerUsers(mux *http.ServeMux) {
	read := []string{"read:users", "read:user_idp_tokens"}
	a.handle(mux, "GET users", read, a.listUsers)
	a.handle(mux, "POST users", []string{"create:users"}, a.createUser)
	a.handle(mux, "GET users/{id}", read, a.getUser)
	a.handle(mux, "PATCH users/{id}", []string{"update:users", "update:users_app_metadata"}, a.updateUser)
	a.handle(mux, "DELETE users/{id}", []string{"delete:users"}, a.deleteUser)
	a.handle(mux, "GET users-by-email", []string{"read:users"}, a.usersByEmail)
	a.handle(mux, "POST users/{id}/identities", []string{"update:users"}, a.linkIdentity)
	a.handle(mux, "DELETE users/{id}/identities/{provider}/{identity}", []string{"update:users"}, a.unlinkIdentity)
	a.handle(mux, "GET users/{id}/roles", []string{"read:users", "read:roles"}, a.userRoles)
	a.handle(mux, "POST users/{id}/roles", []string{"update:users", "create:role_members"}, a.addUserRoles)
	a.handle(mux, "DELETE users/{id}/roles", []string{"update:users", "delete:role_members"}, a.removeUserRoles)
	a.handle(mux, "GET users/{id}/permissions", []string{"read:users"}, a.userPermissions)
	a.handle(mux, "POST users/{id}/permissions", []string{"update:users"}, a.addUserPermissions)
	a.handle(mux, "DELETE users/{id}/permissions", []string{"update:users"}, a.removeUserPermissions)
	a.handle(mux, "GET users/{id}/logs", []string{"read:logs", "read:logs_users"}, a.userLogs)
	a.handle(mux, "GET users/{id}/connected-accounts", []string{"read:users"}, a.connectedAccounts)
}

// userView is a user as it goes out. The ids of connections are ours.
func userView(u *tenant.User) (doc, error) {
	d, err := asDoc(u)
	if err != nil {
		return nil, err
	}
	list, _ := d["identities"].([]any)
	for _, v := range list {
		if i, ok := v.(doc); ok {
			delete(i, "connection_id")
		}
	}
	for _, name := range []string{"created_at", "updated_at", "last_login", "last_password_reset"} {
		if t, err := time.Parse(time.RFC3339, text(d, name)); err == nil {
			d[name] = timestamp(t)
		}
	}
	return d, nil
}

func (a *API) user(c *call) (*tenant.User, error) {
	id := c.PathValue("id")
	if len(id) > 512 {
		return nil, errNoUser
	}
	u, err := tenant.Get[tenant.User](c.ctx(), a.docs, c.tenant, tenant.KindUser, id)
	if problem.Is(err, problem.NotFound) {
		return nil, errNoUser
	}
	return u, err
}

func (a *API) getUser(c *call) (int, any, error) {
	cut, err := fieldsOf(c.URL.Query())
	if err != nil {
		return 0, nil, err
	}
	u, err := a.user(c)
	if err != nil {
		return 0, nil, err
	}
	d, err := userView(u)
	if err != nil {
		return 0, nil, err
	}
	return http.StatusOK, cut(d), nil
}

// maxSearch is how far numbered pages of users reach; exports go further.
const maxSearch = 1000

func (a *API) listUsers(c *call) (int, any, error) {
	q := c.URL.Query()
	p, err := readPaging(q, 50, 100)
	if err != nil {
		return 0, nil, err
	}
	if !p.checkpoint && (p.page+1)*p.perPage > maxSearch && p.perPage > 0 {
		return 0, nil, problem.New(problem.Invalid, "invalid_paging", "You can only page through the first %d records. See users-exports for more", maxSearch)
	}
	var query tenant.Query
	if raw := q.Get("q"); raw != "" {
		if query.Search, err = search.Parse(raw); err != nil {
			return 0, nil, err
		}
	}
	if s := q.Get("connection"); s != "" {
		query.Where = append(query.Where, tenant.Cond{Column: "connection", Value: s})
	}
	if s := q.Get("primary_order"); s != "" && s != "true" && s != "false" {
		return 0, nil, problem.New(problem.Invalid, "invalid_query_string", "primary_order wants true or false")
	}
	if query.Sort, err = readSort(q.Get("sort"), map[string]string{"user_id": "id"}); err != nil {
		return 0, nil, err
	}
	if len(query.Sort) == 0 && !p.checkpoint {
		query.Sort = []tenant.Order{{Column: "created_at", Desc: true}}
	}
	return a.findUsers(c, p, query)
}

func (a *API) findUsers(c *call, p paging, query tenant.Query) (int, any, error) {
	cut, err := fieldsOf(c.URL.Query())
	if err != nil {
		return 0, nil, err
	}
	page, err := a.docs.Find(c.ctx(), c.tenant, tenant.KindUser, p.query(query))
	if err != nil {
		return 0, nil, err
	}
	items, ids := []any{}, []string{}
	for _, rec := range page.Records {
		var u tenant.User
		if err := json.Unmarshal(rec.Doc, &u); err != nil {
			return 0, nil, err
		}
		d, err := userView(&u)
		if err != nil {
			return 0, nil, err
		}
		items, ids = append(items, cut(d)), append(ids, rec.ID)
	}
	return http.StatusOK, p.envelope("users", items, ids, page.Total), nil
}

// readSort reads "field:1" or "field:-1".
func readSort(s string, rename map[string]string) ([]tenant.Order, error) {
	if s == "" {
		return nil, nil
	}
	name, dir, ok := strings.Cut(s, ":")
	if !ok || dir != "1" && dir != "-1" {
		return nil, problem.New(problem.Invalid, "invalid_query_string", "sort wants field:1 or field:-1, got %q", clip(s, 64))
	}
	if to, ok := rename[name]; ok {
		name = to
	}
	return []tenant.Order{{Column: name, Desc: dir == "-1"}}, nil
}

func (a *API) usersByEmail(c *call) (int, any, error) {
	email := c.URL.Query().Get("email")
	if email == "" {
		return 0, nil, problem.New(problem.Invalid, "invalid_query_string", "Query validation error: 'Missing required property: email'.")
	}
	return a.findUsers(c, paging{perPage: 100}, tenant.Query{Where: []tenant.Cond{{Column: "email", Value: email}}, Sort: []tenant.Order{{Column: "created_at"}}})
}

// connection finds a database connection by name for users.
func (a *API) database(c *call, name string) (*tenant.Connection, error) {
	conn, err := a.Directory.Connection(c.ctx(), c.tenant, name)
	if problem.Is(err, problem.NotFound) {
		return nil, errNoConnection
	}
	if err != nil {
		return nil, err
	}
	if !conn.Database() {
		return nil, problem.New(problem.Invalid, "invalid_body", "Users of the connection %s are made by logging in, not here", clip(name, 64))
	}
	return conn, nil
}

func (a *API) createUser(c *call) (int, any, error) {
	d, err := c.object()
	if err != nil {
		return 0, nil, err
	}
	if err := userCreateFields.check(d); err != nil {
		return 0, nil, err
	}
	if err := required(d, "connection"); err != nil {
		return 0, nil, err
	}
	conn, err := a.database(c, text(d, "connection"))
	if err != nil {
		return 0, nil, err
	}
	u := &tenant.User{}
	if err := applyUser(u, d, conn); err != nil {
		return 0, nil, err
	}
	if u.Email == "" && u.Username == "" && u.PhoneNumber == "" {
		return 0, nil, invalidBody("'Missing required property: email'.")
	}
	hash, err := importedHash(d)
	if err != nil {
		return 0, nil, err
	}
	if hash == "" && text(d, "password") == "" {
		return 0, nil, invalidBody("'Missing required property: password'.")
	}
	if id := text(d, "user_id"); id != "" {
		id = strings.TrimPrefix(id, tenant.StrategyDatabase+"|")
		if len(id) > 255 || strings.ContainsAny(id, " \t\r\n") {
			return 0, nil, invalidBody("'user_id wants 1 to 255 characters without spaces' on property user_id.")
		}
		u.ID = id
	}
	verify := !u.EmailVerified
	if v, ok := d["verify_email"].(bool); ok {
		verify = v
	}
	made, err := a.Users.CreateUser(c.ctx(), c.tenant, conn, u, text(d, "password"), hash, verify && u.Email != "")
	if err != nil {
		return 0, nil, wireError(err)
	}
	out, err := userView(made)
	return http.StatusCreated, out, err
}

// wireError says authn's errors as the Management API does.
func wireError(err error) error {
	e := problem.From(err)
	switch e.Code {
	case authn.CodeExists:
		return problem.Wrap(problem.Conflict, "auth0_idp_error", err, "The user already exists.")
	case authn.CodePassword:
		return problem.Wrap(problem.Invalid, "invalid_body", err, "PasswordStrengthError: %s", e.Message)
	}
	return err
}

// applyUser writes what a body says of a user's own attributes.
func applyUser(u *tenant.User, d doc, conn *tenant.Connection) error {
	for name, most := range map[string]float64{"given_name": 150, "family_name": 150, "name": 300, "nickname": 300, "picture": 2048} {
		if err := within(d, name, 0, most); err != nil {
			return err
		}
	}
	for name, to := range map[string]*string{"given_name": &u.GivenName, "family_name": &u.FamilyName, "name": &u.Name, "nickname": &u.Nickname, "picture": &u.Picture} {
		if v, ok := d[name]; ok {
			*to, _ = v.(string)
		}
	}
	if v, ok := d["email"]; ok {
		s, _ := v.(string)
		if s != "" {
			lower, err := authn.CanonicalEmail(s)
			if err != nil {
				return invalidBody("'Object didn't pass validation for format email: %s' on property email (The user's email).", clip(strings.ToLower(s), 128))
			}
			s = lower
		}
		u.Email = s
	}
	if v, ok := d["username"]; ok {
		s, _ := v.(string)
		if s != "" {
			if conn != nil && !conn.DatabaseOptions().RequiresUsername {
				// Auth0 takes a username only where the connection has them; the default
				// connection of its test tenant does.
				if err := authn.CheckUsername(s, tenant.DatabaseOptions{}); err != nil {
					return invalidBody("'%s' on property username.", problem.From(err).Message)
				}
			} else if err := authn.CheckUsername(s, conn.DatabaseOptions()); err != nil {
				return invalidBody("'%s' on property username.", problem.From(err).Message)
			}
		}
		u.Username = s
	}
	if v, ok := d["phone_number"]; ok {
		s, _ := v.(string)
		if s != "" && (len(s) < 4 || len(s) > 20 || s[0] != '+' || strings.Trim(s[1:], "0123456789") != "") {
			return invalidBody("'phone_number wants the form +12025550123' on property phone_number.")
		}
		u.PhoneNumber = s
	}
	if v, ok := d["email_verified"].(bool); ok {
		u.EmailVerified = v
	}
	if v, ok := d["phone_verified"].(bool); ok {
		u.PhoneVerified = &v
	}
	if v, ok := d["blocked"].(bool); ok {
		u.Blocked = &v
	}
	var err error
	if u.UserMetadata, err = mergeMetadata(u.UserMetadata, d, "user_metadata"); err != nil {
		return err
	}
	u.AppMetadata, err = mergeMetadata(u.AppMetadata, d, "app_metadata")
	return err
}

// maxMetadata bounds each of the two, in bytes of JSON.
const maxMetadata = 64 << 10

// mergeMetadata merges the first level: a property replaces, null deletes. Null
// in the place of the object empties it.
func mergeMetadata(old json.RawMessage, d doc, name string) (json.RawMessage, error) {
	v, ok := d[name]
	if !ok {
		return old, nil
	}
	merged := doc{}
	if patch, ok := v.(doc); ok {
		if len(old) > 0 {
			before, err := asDoc([]byte(old))
			if err != nil {
				return nil, err
			}
			merged = before
		}
		merged = shallow(merged, patch)
	}
	raw, err := json.Marshal(merged)
	if err != nil {
		return nil, err
	}
	if len(raw) > maxMetadata {
		return nil, invalidBody("'%s is larger than the %d bytes that are allowed'.", name, maxMetadata)
	}
	return raw, nil
}

func (a *API) updateUser(c *call) (int, any, error) {
	d, err := c.object()
	if err != nil {
		return 0, nil, err
	}
	if err := userUpdateFields.check(d); err != nil {
		return 0, nil, err
	}
	if len(d) == 0 {
		return 0, nil, invalidBody("'Too few properties defined (0), minimum 1'.")
	}
	if !slices.Contains(c.claims.Scopes, "update:users") {
		for k := range d {
			if k != "app_metadata" {
				return 0, nil, problem.New(problem.Forbidden, "insufficient_scope", "Insufficient scope, expected any of: update:users")
			}
		}
	}
	u, err := a.user(c)
	if err != nil {
		return 0, nil, err
	}
	var conn *tenant.Connection
	for _, i := range u.Identities {
		if i.Provider == tenant.StrategyDatabase && (text(d, "connection") == "" || text(d, "connection") == i.Connection) {
			if conn, err = a.Directory.Connection(c.ctx(), c.tenant, i.ConnectionID); err != nil {
				return 0, nil, err
			}
			break
		}
	}
	for _, name := range []string{"email", "username", "password", "phone_number", "email_verified"} {
		if _, sent := d[name]; sent && conn == nil {
			return 0, nil, problem.New(problem.Invalid, "operation_not_supported", "Cannot change %s for non-database user", name)
		}
	}
	if plain := text(d, "password"); plain != "" {
		if len(d) > 3 || d["email"] != nil || d["username"] != nil {
			return 0, nil, invalidBody("'Cannot update password and other properties simultaneously'.")
		}
		if err := a.Users.SetPassword(c.ctx(), c.tenant, conn, u.ID, plain); err != nil {
			return 0, nil, wireError(err)
		}
	}
	var changed *tenant.User
	err = a.docs.Write(c.ctx(), c.tenant, func(tx tenant.Tx) (err error) {
		changed, err = tenant.UpdateUser(tx, u.ID, func(u *tenant.User) error {
			before := u.Email
			if err := applyUser(u, d, conn); err != nil {
				return err
			}
			if _, said := d["email_verified"]; u.Email != before && !said {
				u.EmailVerified = false
			}
			return nil
		})
		if err != nil || !changed.IsBlocked() {
			return err
		}
		// A blocked user has no session and no refresh token.
		for _, k := range []tenant.Kind{tenant.KindSession, tenant.KindRefreshToken} {
			if _, err := tx.DeleteWhere(k, []tenant.Cond{{Column: "user_id", Value: u.ID}}); err != nil {
				return err
			}
		}
		return nil
	})
	if problem.Is(err, problem.NotFound) {
		return 0, nil, errNoUser
	}
	if err != nil {
		return 0, nil, wireError(err)
	}
	if d["verify_email"] == true && changed.Email != "" && !changed.EmailVerified {
		if err := a.Users.SendVerification(c.ctx(), c.tenant, changed.ID, nil); err != nil {
			return 0, nil, err
		}
	}
	out, err := userView(changed)
	return http.StatusOK, out, err
}

func (a *API) deleteUser(c *call) (int, any, error) {
	there := false
	err := a.docs.Write(c.ctx(), c.tenant, func(tx tenant.Tx) (err error) {
		there, err = tenant.DeleteUser(tx, c.PathValue("id"))
		return err
	})
	if err == nil && there {
		a.Log.Append(c.tenant, tenant.LogEvent{Type: tenant.LogUserDeleted, UserID: c.PathValue("id"), ClientID: c.claims.ClientID})
	}
	return http.StatusNoContent, nil, err
}

func (a *API) linkIdentity(c *call) (int, any, error) {
	d, err := c.object()
	if err != nil {
		return 0, nil, err
	}
	if err := declare("provider connection_id user_id:any link_with").check(d); err != nil {
		return 0, nil, err
	}
	if d["link_with"] != nil {
		return 0, nil, problem.New(problem.NotImplemented, "feature_not_enabled", "Linking by link_with is not available; send provider and user_id")
	}
	if err := required(d, "provider", "user_id"); err != nil {
		return 0, nil, err
	}
	sub, ok := d["user_id"].(string)
	if !ok {
		return 0, nil, invalidBody("'Expected type string but found type %s' on property user_id.", kindOf(d["user_id"]))
	}
	second := text(d, "provider") + "|" + strings.TrimPrefix(sub, text(d, "provider")+"|")
	var u *tenant.User
	err = a.docs.Write(c.ctx(), c.tenant, func(tx tenant.Tx) (err error) {
		u, err = tenant.LinkIdentity(tx, c.PathValue("id"), second)
		return err
	})
	if problem.Is(err, problem.NotFound) {
		return 0, nil, errNoUser
	}
	if err != nil {
		return 0, nil, err
	}
	out, err := userView(u)
	return http.StatusCreated, out["identities"], err
}

func (a *API) unlinkIdentity(c *call) (int, any, error) {
	var u *tenant.User
	err := a.docs.Write(c.ctx(), c.tenant, func(tx tenant.Tx) (err error) {
		u, err = tenant.UnlinkIdentity(tx, c.PathValue("id"), c.PathValue("provider"), c.PathValue("identity"))
		return err
	})
	if e := problem.From(err); e.Kind == problem.NotFound && e.Code == "" {
		return 0, nil, errNoUser
	}
	if err != nil {
		return 0, nil, err
	}
	out, err := userView(u)
	return http.StatusOK, out["identities"], err
}

func (a *API) userRoles(c *call) (int, any, error) {
	if _, err := a.user(c); err != nil {
		return 0, nil, err
	}
	return a.listAssigned(c, tenant.KindUserRole, "user_id", func(d doc) (doc, error) {
		rec, err := a.docs.Get(c.ctx(), c.tenant, tenant.KindRole, text(d, "role_id"))
		if err != nil {
			return nil, err
		}
		role, err := asDoc(rec.Doc)
		if err != nil {
			return nil, err
		}
		return viewRole(a, c, role), nil
	}, "roles")
}

// changeUser runs fn in a transaction if there is such a user.
func (a *API) changeUser(c *call, fn func(tx tenant.Tx) error) (int, any, error) {
	err := a.docs.Write(c.ctx(), c.tenant, func(tx tenant.Tx) error {
		if _, err := tx.Get(tenant.KindUser, c.PathValue("id")); problem.Is(err, problem.NotFound) {
			return errNoUser
		} else if err != nil {
			return err
		}
		return fn(tx)
	})
	return http.StatusNoContent, nil, err
}

func (a *API) addUserRoles(c *call) (int, any, error) {
	ids, err := c.ids("roles", 500)
	if err != nil {
		return 0, nil, err
	}
	return a.changeUser(c, func(tx tenant.Tx) error {
		for _, id := range ids {
			if _, err := tx.Get(tenant.KindRole, id); problem.Is(err, problem.NotFound) {
				return errNoRole
			} else if err != nil {
				return err
			}
			ur := tenant.UserRole{UserID: c.PathValue("id"), RoleID: id}
			if err := tenant.Set(tx, tenant.KindUserRole, ur.ID(), ur); err != nil {
				return err
			}
		}
		return nil
	})
}

func (a *API) removeUserRoles(c *call) (int, any, error) {
	ids, err := c.ids("roles", 500)
	if err != nil {
		return 0, nil, err
	}
	return a.changeUser(c, func(tx tenant.Tx) error {
		for _, id := range ids {
			if _, err := tx.Delete(tenant.KindUserRole, (tenant.UserRole{UserID: c.PathValue("id"), RoleID: id}).ID()); err != nil {
				return err
			}
		}
		return nil
	})
}

func (a *API) userPermissions(c *call) (int, any, error) {
	if _, err := a.user(c); err != nil {
		return 0, nil, err
	}
	return a.listAssigned(c, tenant.KindUserPermission, "user_id", func(d doc) (doc, error) {
		out, err := a.permissionView(c, text(d, "resource_server_identifier"), text(d, "permission_name"))
		if out != nil {
			out["sources"] = []any{doc{"source_id": "", "source_name": "", "source_type": "DIRECT"}}
		}
		return out, err
	}, "permissions")
}

func (a *API) addUserPermissions(c *call) (int, any, error) {
	perms, err := a.permissions(c, true)
	if err != nil {
		return 0, nil, err
	}
	status, _, err := a.changeUser(c, func(tx tenant.Tx) error {
		for _, perm := range perms {
			up := tenant.UserPermission{UserID: c.PathValue("id"), Permission: perm}
			if err := tenant.Set(tx, tenant.KindUserPermission, up.ID(), up); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		status = http.StatusCreated
	}
	return status, doc{}, err
}

func (a *API) removeUserPermissions(c *call) (int, any, error) {
	perms, err := a.permissions(c, false)
	if err != nil {
		return 0, nil, err
	}
	return a.changeUser(c, func(tx tenant.Tx) error {
		for _, perm := range perms {
			if _, err := tx.Delete(tenant.KindUserPermission, (tenant.UserPermission{UserID: c.PathValue("id"), Permission: perm}).ID()); err != nil {
				return err
			}
		}
		return nil
	})
}

// connectedAccounts is always empty: the appliance keeps no tokens of other
// providers.
func (a *API) connectedAccounts(c *call) (int, any, error) {
	if _, err := a.user(c); err != nil {
		return 0, nil, err
	}
	return http.StatusOK, doc{"connected_accounts": []any{}}, nil
}
