package mgmt

import (
	"crypto/sha1" // #nosec G505 -- for thumbprints
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/tenant"
)

var connectionFields = declare(`name display_name:?string strategy options:?object enabled_clients:?strings is_domain_connection:?boolean show_as_button:?boolean
realms:?strings metadata:?object authentication:?object connected_accounts:?object cross_app_access_requesting_app:?object cross_app_access_resource_app:?object
id provisioning_ticket_url:string`)

// strategies are those that Auth0 knows. All of them are stored as they are
// configured; login offers those that this appliance can run.
var strategies = strings.Fields(`ad adfs amazon apple dropbox bitbucket auth0-oidc auth0 baidu bitly box custom daccount dwolla email evernote-sandbox
evernote exact facebook fitbit github google-apps google-oauth2 instagram ip line linkedin oauth1 oauth2 office365 oidc okta paypal paypal-sandbox pingfederate
planningcenter salesforce-community salesforce-sandbox salesforce samlp sharepoint shopify shop sms soundcloud thirtysevensignals twitter untappd
vkontakte waad weibo windowslive wordpress yahoo yandex auth0-adldap miicard renren`)

var connectionName = regexp.MustCompile(`^[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,126}[a-zA-Z0-9])?$`)

func connections() *resource {
	return &resource{
		path: "connections", kind: tenant.KindConnection, id: "id", fields: connectionFields, newID: func() string { return tenant.NewID("con") },
		filters:       map[string]string{"strategy": "strategy", "name": "name"},
		missing:       notFound("inexistent_connection", "The connection does not exist"),
		conflict:      "A connection with the same name already exists",
		createdStatus: http.StatusCreated, deletedStatus: http.StatusAccepted,
		deletedBody: func() any { return doc{"deleted_at": timestamp(time.Now())} },
		create: func(a *API, c *call, d doc) error {
			delete(d, "id")
			delete(d, "provisioning_ticket_url")
			if err := required(d, "name", "strategy"); err != nil {
				return err
			}
			if !connectionName.MatchString(text(d, "name")) {
				return invalidBody("'String does not match pattern: 1 to 128 letters, digits and inner hyphens' on property name.")
			}
			if !slices.Contains(strategies, text(d, "strategy")) {
				return invalidBody("'No enum match for: %s' on property strategy.", clip(text(d, "strategy"), 64))
			}
			if d["options"] == nil {
				d["options"] = doc{}
			}
			completeConnection(d, d["options"].(doc))
			return a.judgeConnection(c, d)
		},
		merge: func(old, patch doc) doc {
			out := shallow(old, patch)
			// Options are replaced as a whole, as at Auth0; what always stands in those of a
			// database is kept.
			if o, ok := patch["options"].(doc); ok && text(old, "strategy") == tenant.StrategyDatabase {
				before, _ := old["options"].(doc)
				for _, name := range []string{"authentication_methods", "passkey_options"} {
					if _, sent := o[name]; !sent && before[name] != nil {
						o[name] = before[name]
					}
				}
			}
			if o, ok := patch["options"].(doc); ok && text(old, "strategy") == "google-apps" {
				if before, _ := old["options"].(doc); o["map_user_id_to_id"] == nil {
					o["map_user_id_to_id"] = before["map_user_id_to_id"]
				}
			}
			return out
		},
		update: func(a *API, c *call, old, patch, merged doc) error {
			for _, fixed := range []string{"name", "strategy"} {
				if v, ok := patch[fixed]; ok && v != old[fixed] {
					return invalidBody("'Additional properties not allowed: %s'.", fixed)
				}
			}
			merged["id"], merged["name"], merged["strategy"] = old["id"], old["name"], old["strategy"]
			if merged["options"] == nil {
				merged["options"] = doc{}
			}
			completeConnection(merged, merged["options"].(doc))
			return a.judgeConnection(c, merged)
		},
		onDelete: func(_ *API, _ *call, tx tenant.Tx, id string) error {
			// The users of a connection go with it.
			for {
				page, err := tx.Find(tenant.KindIdentity, tenant.Query{Where: []tenant.Cond{{Column: "connection_id", Value: id}}, Limit: 500})
				if err != nil || len(page.Records) == 0 {
					return err
				}
				for _, rec := range page.Records {
					var ref struct {
						UserID string `json:"user_id"`
					}
					if err := json.Unmarshal(rec.Doc, &ref); err != nil {
						return err
					}
					if _, err := tx.Delete(tenant.KindIdentity, rec.ID); err != nil {
						return err
					}
					if _, err := tenant.DeleteUser(tx, ref.UserID); err != nil {
						return err
					}
				}
			}
		},
		view:   viewConnection,
		always: []string{"id", "is_domain_connection", "authentication", "connected_accounts"},
	}
}

// completeConnection gives a connection what it did not say, as Auth0 does.
func completeConnection(d, options doc) {
	strategy := text(d, "strategy")
	complete(d, doc{"is_domain_connection": false, "enabled_clients": []any{}, "realms": []any{d["name"]}, "authentication": doc{"active": true},
		"connected_accounts": doc{"active": false}})
	switch strategy {
	case "oidc", "okta", "samlp", "waad", "adfs", "pingfederate", "google-apps":
		complete(d, doc{"show_as_button": false, "display_name": d["name"]})
	}
	if strategy == tenant.StrategyDatabase {
		choosePasswordForm(options)
	}
	complete(options, strategyDefaults()[strategy])
	if strategy == "samlp" {
		readCertificate(options)
	}
	if strategy != tenant.StrategyDatabase {
		return
	}
	attributes, _ := options["attributes"].(doc)
	if email, ok := attributes["email"].(doc); ok {
		complete(email, doc{"unique": true, "verification_method": "link"})
	}
	if p, ok := options["password_options"].(doc); ok {
		complete(p, doc{
			"complexity": doc{"character_type_rule": "all", "identical_characters": "allow", "sequential_characters": "allow", "max_length_exceeded": "error",
				"min_length": 15, "character_types": []any{}},
			"profile_data": doc{"active": false, "blocked_fields": []any{"name", "username", "nickname", "email", "phone_number", "user_metadata.name",
				"user_metadata.first", "user_metadata.last"}},
			"history": doc{"active": false, "size": 3}, "dictionary": doc{"active": false, "custom": []any{}, "default": "en_100k"},
		})
	}
}

// choosePasswordForm: the rules for passwords have an older form (passwordPolicy
// and its kin) and a newer one (password_options). Where the older is used, it
// alone holds; where neither is, the newer is shown with what the older's default
// says.
func choosePasswordForm(options doc) {
	if options["password_options"] != nil {
		return
	}
	for _, name := range []string{"passwordPolicy", "password_complexity_options", "password_history", "password_dictionary", "password_no_personal_info"} {
		if options[name] != nil {
			return
		}
	}
	options["password_options"] = doc{"complexity": doc{"min_length": 8}}
}

// readCertificate shows what is in the certificate of a SAML provider.
func readCertificate(options doc) {
	raw := text(options, "signingCert")
	if raw == "" {
		raw = text(options, "cert")
	}
	der, err := base64.StdEncoding.DecodeString(raw)
	if err != nil || strings.HasPrefix(raw, "-----") {
		if block, _ := pem.Decode([]byte(raw)); block != nil {
			der = block.Bytes
		}
	}
	if block, _ := pem.Decode(der); block != nil {
		der = block.Bytes
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return // the SAML room judges it when it is used
	}
	sum := sha1.Sum(cert.Raw) // #nosec G401 -- a name that Auth0 gives to certificates; it secures nothing
	options["thumbprints"] = []any{hex.EncodeToString(sum[:])}
	options["expires"] = timestamp(cert.NotAfter)
	options["subject"] = doc{"commonName": cert.Subject.CommonName}
	options["cert"] = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}))
}

// complete puts values where there are none, into objects inside of objects too.
func complete(d, values doc) {
	for name, v := range values {
		have, ok := d[name]
		if !ok || have == nil {
			d[name] = v
			continue
		}
		inner, ok1 := have.(doc)
		more, ok2 := v.(doc)
		if ok1 && ok2 {
			complete(inner, more)
		}
	}
}

// strategyDefaults are the options that a connection of a strategy always has.
// They are made anew for each call: the documents keep them.
func strategyDefaults() map[string]doc {
	oidc := doc{"schema_version": "oidc-V4", "attribute_map": doc{"mapping_mode": "bind_all"}, "connection_settings": doc{"pkce": "auto"}}
	return map[string]doc{
		tenant.StrategyDatabase: {
			"mfa": doc{"active": true, "return_enroll_settings": true}, "passwordPolicy": "good", "strategy_version": 2, "brute_force_protection": true,
			"disable_self_service_change_password": false,
			"authentication_methods": doc{"password": doc{"enabled": true, "api_behavior": "required", "signup_behavior": "allow"}, "passkey": doc{"enabled": false},
				"email_otp": doc{"enabled": false}, "phone_otp": doc{"enabled": false}},
			"passkey_options": doc{"challenge_ui": "both", "progressive_enrollment_enabled": true, "local_enrollment_enabled": true},
		},
		"oidc":          oidc,
		"okta":          {"schema_version": "oidc-V4", "type": "back_channel", "attribute_map": doc{"mapping_mode": "basic_profile"}, "connection_settings": doc{"pkce": "auto"}},
		"waad":          {"thumbprints": []any{}, "app_domain": "", "waad_common_endpoint": false},
		"adfs":          {"thumbprints": []any{}},
		"samlp":         {"assertion_decryption_settings": doc{"algorithm_profile": "v2026-1", "algorithm_exceptions": []any{}}},
		"google-apps":   {"email": true, "profile": true, "scope": []any{"email", "profile"}, "handle_login_from_social": true, "map_user_id_to_id": false},
		"google-oauth2": {"email": true, "profile": true, "scope": []any{"email", "profile"}},
		"facebook":      {"scope": "email,public_profile"},
		"line":          {"profile": true},
		"salesforce":    {"scope": []any{}}, "salesforce-community": {"scope": []any{}}, "salesforce-sandbox": {"scope": []any{}},
		"windowslive": {"scope": []any{"openid", "profile", "email"}},
	}
}

func (a *API) judgeConnection(c *call, d doc) error {
	options, ok := d["options"].(doc)
	if !ok {
		return invalidBody("'Expected type object but found type %s' on property options.", kindOf(d["options"]))
	}
	if m, ok := d["metadata"].(doc); ok && len(m) > 10 {
		return invalidBody("'metadata has more than the 10 properties that are allowed'.")
	}
	if err := within(d, "display_name", 0, 128); err != nil {
		return err
	}
	if text(d, "strategy") == tenant.StrategyDatabase {
		return judgeDatabase(options)
	}
	raw, err := json.Marshal(options)
	if err != nil {
		return err
	}
	if a.CheckURL != nil {
		for _, name := range []string{"discovery_url", "issuer", "authorization_endpoint", "token_endpoint", "userinfo_endpoint", "jwks_uri", "authorizationURL", "tokenURL"} {
			if s := text(options, name); s != "" && runs(text(d, "strategy")) {
				if err := a.CheckURL(s); err != nil {
					return invalidBody("'%s' on property options.%s.", problem.From(err).Message, name)
				}
			}
		}
	}
	if a.CheckConnection != nil {
		return a.CheckConnection(text(d, "strategy"), raw)
	}
	return nil
}

// runs reports whether the appliance itself calls out for a strategy.
func runs(strategy string) bool { return strategy == "oidc" || strategy == "oauth2" }

func judgeDatabase(o doc) error {
	types := declare(`passwordPolicy:?string disable_signup:boolean requires_username:boolean brute_force_protection:?boolean import_mode:boolean
password_complexity_options:?object password_history:?object password_dictionary:?object password_no_personal_info:?object validation:?object
attributes:?object precedence:?strings customScripts:?object configuration:?object mfa:?object`)
	for name, typ := range types {
		if v, ok := o[name]; ok {
			if err := checkType("options."+name, typ, v); err != nil {
				return err
			}
		}
	}
	if err := oneOf(o, "passwordPolicy", "none", "low", "fair", "good", "excellent"); err != nil {
		return err
	}
	if p, ok := o["password_complexity_options"].(doc); ok {
		if err := within(p, "min_length", 1, 128); err != nil {
			return err
		}
	}
	if p, ok := o["password_history"].(doc); ok {
		if err := within(p, "size", 0, 24); err != nil {
			return err
		}
	}
	if p, ok := o["password_dictionary"].(doc); ok {
		if err := within(p, "dictionary", 0, 2000); err != nil {
			return err
		}
	}
	attributes, _ := o["attributes"].(doc)
	for _, name := range []string{"email", "phone_number", "username"} {
		attr, ok := attributes[name].(doc)
		if !ok {
			continue
		}
		signup, _ := attr["signup"].(doc)
		status := text(signup, "status")
		if err := oneOf(signup, "status", "required", "optional", "inactive"); err != nil {
			return err
		}
		if attr["profile_required"] == true && status == "inactive" {
			return problem.New(problem.Invalid, "invalid_body", "attribute %s must also be required on signup", name)
		}
	}
	return nil
}

func viewConnection(a *API, c *call, d doc) doc {
	delete(d, "created_at")
	switch text(d, "strategy") {
	case "ad", "adfs", "google-apps", "samlp", "waad", "pingfederate":
		// Where another side's administrator finishes the set-up.
		d["provisioning_ticket_url"] = a.Directory.URL(c.tenant) + "p/" + text(d, "strategy") + "/" + text(d, "id")
	}
	return d
}

func (a *API) registerConnectionParts(mux *http.ServeMux) {
	a.handle(mux, "GET connections/{id}/clients", []string{"read:connections"}, a.connectionClients)
	a.handle(mux, "PATCH connections/{id}/clients", []string{"update:connections"}, a.patchConnectionClients)
	a.handle(mux, "GET connections/{id}/status", []string{"read:connections"}, a.connectionStatus)
	a.handle(mux, "DELETE connections/{id}/users", []string{"delete:users"}, a.deleteConnectionUser)
}

func (a *API) connectionClients(c *call) (int, any, error) {
	d, _, err := a.load(c, connections(), c.PathValue("id"))
	if err != nil {
		return 0, nil, err
	}
	p, err := readPaging(c.URL.Query(), 50, 1000)
	if err != nil {
		return 0, nil, err
	}
	list, _ := d["enabled_clients"].([]any)
	ids := make([]string, 0, len(list))
	for _, v := range list {
		s, _ := v.(string)
		ids = append(ids, s)
	}
	slices.Sort(ids)
	ids = slices.DeleteFunc(ids, func(s string) bool { return s <= p.from })
	out := doc{"clients": []any{}}
	items := []any{}
	for i, id := range ids {
		if i == p.take {
			out["next"] = ids[i-1]
			break
		}
		items = append(items, doc{"client_id": id})
	}
	out["clients"] = items
	return http.StatusOK, out, nil
}

func (a *API) patchConnectionClients(c *call) (int, any, error) {
	v, err := c.json()
	if err != nil {
		return 0, nil, err
	}
	list, ok := v.([]any)
	if !ok || len(list) == 0 || len(list) > 50 {
		return 0, nil, invalidBody("'The body wants an array of 1 to 50 elements'.")
	}
	changes := map[string]bool{}
	for i, e := range list {
		d, ok := e.(doc)
		if !ok {
			return 0, nil, invalidBody("'Expected type object but found type %s' on property [%d].", kindOf(e), i)
		}
		if err := declare("client_id status:boolean").check(d); err != nil {
			return 0, nil, err
		}
		if err := required(d, "client_id", "status"); err != nil {
			return 0, nil, err
		}
		if _, err := a.Directory.Client(c.ctx(), c.tenant, text(d, "client_id")); problem.Is(err, problem.NotFound) {
			return 0, nil, notFound("inexistent_client", "The client does not exist")
		} else if err != nil {
			return 0, nil, err
		}
		changes[text(d, "client_id")] = d["status"] == true
	}
	if _, _, err := a.load(c, connections(), c.PathValue("id")); err != nil {
		return 0, nil, err
	}
	err = a.docs.Write(c.ctx(), c.tenant, func(tx tenant.Tx) error {
		_, err := tenant.Change(tx, tenant.KindConnection, c.PathValue("id"), func(d *doc) error {
			have, _ := (*d)["enabled_clients"].([]any)
			var out []any
			seen := map[string]bool{}
			for _, v := range have {
				id, _ := v.(string)
				if status, named := changes[id]; named && !status {
					continue
				}
				seen[id] = true
				out = append(out, id)
			}
			for id, status := range changes {
				if status && !seen[id] {
					out = append(out, id)
				}
			}
			if out == nil {
				out = []any{}
			}
			(*d)["enabled_clients"] = out
			return nil
		})
		return err
	})
	return http.StatusNoContent, nil, err
}

func (a *API) connectionStatus(c *call) (int, any, error) {
	d, _, err := a.load(c, connections(), c.PathValue("id"))
	if err != nil {
		return 0, nil, err
	}
	if text(d, "strategy") != tenant.StrategyDatabase && !runs(text(d, "strategy")) {
		return 0, nil, notFound("inexistent_status", "The connection has no status")
	}
	return http.StatusOK, nil, nil
}

// deleteConnectionUser deletes a user of a database connection by email.
func (a *API) deleteConnectionUser(c *call) (int, any, error) {
	email := c.URL.Query().Get("email")
	if email == "" {
		return 0, nil, problem.New(problem.Invalid, "invalid_query_string", "Missing required parameter: email")
	}
	conn, err := a.Directory.Connection(c.ctx(), c.tenant, c.PathValue("id"))
	if problem.Is(err, problem.NotFound) {
		return 0, nil, connections().missing
	}
	if err != nil {
		return 0, nil, err
	}
	err = a.docs.Write(c.ctx(), c.tenant, func(tx tenant.Tx) error {
		u, err := tenant.UserByIdentifier(tx, conn, tenant.ByEmail, email)
		if problem.Is(err, problem.NotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		_, err = tenant.DeleteUser(tx, u.ID)
		return err
	})
	return http.StatusNoContent, nil, err
}
