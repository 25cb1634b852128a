package mgmt

import (
	"net/http"
	"slices"
	"strings"

	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/tenant"
)

// resources lists what the generic handler serves.
func resources() []*resource {
	return []*resource{clients(), resourceServers(), clientGrants(), connections(), roles()}
}

var resourceServerFields = declare(`name identifier scopes:?array signing_alg signing_secret:?string allow_offline_access:boolean allow_online_access:boolean
allow_online_access_with_ephemeral_sessions:boolean token_encryption:?object token_lifetime:integer token_lifetime_for_web:integer token_dialect:string
skip_consent_for_verifiable_first_party_clients:boolean enforce_policies:boolean consent_policy:?string authorization_details:?array
proof_of_possession:?object subject_type_authorization:object verification_key:?string verificationKey:?string verificationLocation:?string`)

func resourceServers() *resource {
	return &resource{
		path: "resource-servers", key: "resource_servers", kind: tenant.KindResourceServer, id: "id", fields: resourceServerFields,
		newID:   func() string { return tenant.RandomHex(24) },
		filters: map[string]string{"identifiers": "identifier"},
		missing: notFound("inexistent_resource_server", "The resource server does not exist"), conflict: "A resource server with the same identifier already exists.",
		createdStatus: http.StatusCreated, deletedStatus: http.StatusNoContent,
		find: func(a *API, c *call, id string) (string, error) {
			api, err := a.Directory.ResourceServer(c.ctx(), c.tenant, id)
			if problem.Is(err, problem.NotFound) {
				return id, nil
			}
			if err != nil {
				return "", err
			}
			return api.ID, nil
		},
		create: func(_ *API, _ *call, d doc) error {
			if err := required(d, "identifier"); err != nil {
				return err
			}
			id := text(d, "identifier")
			if id == "" || len(id) > 600 || strings.ContainsAny(id, " \t\r\n") {
				return invalidBody("'identifier wants 1 to 600 characters without spaces' on property identifier.")
			}
			if _, ok := d["name"]; !ok {
				d["name"] = id
			}
			if err := judgeResourceServer(d); err != nil {
				return err
			}
			for k, v := range map[string]any{"allow_offline_access": false, "skip_consent_for_verifiable_first_party_clients": false,
				"token_lifetime": 86400, "token_lifetime_for_web": 7200, "signing_alg": "RS256", "enforce_policies": false, "token_dialect": "access_token",
				"subject_type_authorization": doc{"client": doc{"policy": "require_client_grant"}, "user": doc{"policy": "allow_all"}}} {
				if cur, ok := d[k]; !ok || cur == nil {
					d[k] = v
				}
			}
			if d["signing_alg"] == "HS256" && text(d, "signing_secret") == "" {
				d["signing_secret"] = tenant.NewSecret()
			}
			d["is_system"] = false
			return nil
		},
		merge: func(old, patch doc) doc {
			out := shallow(old, patch)
			// Null is a value here: it says that the feature is off.
			for _, name := range []string{"authorization_details", "token_encryption", "proof_of_possession", "consent_policy"} {
				if v, ok := patch[name]; ok && v == nil {
					delete(out, name)
				}
			}
			return out
		},
		update: func(_ *API, _ *call, old, patch, merged doc) error {
			if _, ok := patch["identifier"]; ok {
				return invalidBody("'Additional properties not allowed: identifier'.")
			}
			if old["is_system"] == true {
				for k := range patch {
					if k != "token_lifetime" && k != "token_lifetime_for_web" && k != "allow_online_access" && k != "skip_consent_for_verifiable_first_party_clients" && k != "subject_type_authorization" {
						return problem.New(problem.Invalid, "invalid_body", "The property %s of a system API cannot be changed", clip(k, 64))
					}
				}
			}
			if merged["signing_alg"] == "HS256" && text(merged, "signing_secret") == "" {
				merged["signing_secret"] = tenant.NewSecret()
			}
			return judgeResourceServer(patch)
		},
		view: func(_ *API, _ *call, d doc) doc {
			delete(d, "created_at")
			return d
		},
	}
}

func judgeResourceServer(d doc) error {
	for _, err := range []error{nonEmpty(d, "name", 200), oneOf(d, "signing_alg", "HS256", "RS256", "RS512", "PS256", "ES256", "EdDSA"),
		oneOf(d, "token_dialect", "access_token", "access_token_authz", "rfc9068_profile", "rfc9068_profile_authz"),
		within(d, "token_lifetime", 1, 2592000), within(d, "token_lifetime_for_web", 1, 2592000), within(d, "scopes", 0, 3000),
		within(d, "signing_secret", 16, 512)} {
		if err != nil {
			return err
		}
	}
	list, _ := d["scopes"].([]any)
	seen := map[string]bool{}
	for i, v := range list {
		s, ok := v.(doc)
		if !ok {
			return invalidBody("'Expected type object but found type %s' on property scopes[%d].", kindOf(v), i)
		}
		if err := declare("value description:?string").check(s); err != nil {
			return err
		}
		value := text(s, "value")
		if value == "" || len(value) > 280 || strings.ContainsAny(value, " \t\r\n\"\\") {
			return invalidBody("'A scope wants 1 to 280 characters without spaces' on property scopes[%d].value.", i)
		}
		if seen[value] {
			return invalidBody("'The scope %s stands twice' on property scopes[%d].", clip(value, 64), i)
		}
		seen[value] = true
	}
	return nil
}

var clientGrantFields = declare(`client_id:?string audience scope:?strings organization_usage:?string allow_any_organization:?boolean subject_type:?string
authorization_details_types:?strings allow_all_scopes:?boolean default_for:?string`)

func clientGrants() *resource {
	return &resource{
		path: "client-grants", key: "client_grants", kind: tenant.KindClientGrant, id: "id", fields: clientGrantFields,
		newID:   func() string { return tenant.NewID("cgr") },
		filters: map[string]string{"audience": "audience", "client_id": "client_id", "subject_type": "subject_type", "default_for": "default_for"},
		missing: notFound("inexistent_client_grant", "The client grant does not exist"), conflict: "A resource with the same client and audience already exists",
		createdStatus: http.StatusCreated, deletedStatus: http.StatusNoContent,
		create: func(a *API, c *call, d doc) error {
			if err := required(d, "audience"); err != nil {
				return err
			}
			for _, err := range []error{oneOf(d, "subject_type", "client", "user"), oneOf(d, "organization_usage", "deny", "allow", "require"),
				oneOf(d, "default_for", "third_party_clients")} {
				if err != nil {
					return err
				}
			}
			id := text(d, "client_id")
			if id == "" && text(d, "default_for") == "" {
				return invalidBody("'Missing required property: client_id'.")
			}
			if id != "" {
				if _, err := a.Directory.Client(c.ctx(), c.tenant, id); problem.Is(err, problem.NotFound) {
					return notFound("inexistent_client", "The client does not exist")
				} else if err != nil {
					return err
				}
			}
			for k, v := range map[string]any{"subject_type": "client", "scope": []any{}} {
				if d[k] == nil {
					d[k] = v
				}
			}
			for k, v := range d {
				if v == nil {
					delete(d, k)
				}
			}
			return a.judgeGrant(c, text(d, "audience"), d)
		},
		update: func(a *API, c *call, old, patch, merged doc) error {
			for _, fixed := range []string{"client_id", "audience", "subject_type", "default_for"} {
				if _, ok := patch[fixed]; ok {
					return invalidBody("'Additional properties not allowed: %s'.", fixed)
				}
			}
			return a.judgeGrant(c, text(merged, "audience"), patch)
		},
		view: func(_ *API, _ *call, d doc) doc {
			delete(d, "created_at")
			return d
		},
	}
}

// judgeGrant refuses scopes that the API has not got.
func (a *API) judgeGrant(c *call, audience string, d doc) error {
	api, err := a.Directory.ResourceServer(c.ctx(), c.tenant, audience)
	if problem.Is(err, problem.NotFound) {
		return notFound("inexistent_resource_server", "The resource server does not exist")
	}
	if err != nil {
		return err
	}
	list, _ := d["scope"].([]any)
	for _, v := range list {
		s, _ := v.(string)
		if !slices.ContainsFunc(api.Scopes, func(have tenant.Scope) bool { return have.Value == s }) {
			return problem.New(problem.Invalid, "invalid_body", "One or more scopes are not defined in the resource server: %s", clip(s, 128))
		}
	}
	return nil
}

func (a *API) registerGrantParts(mux *http.ServeMux) {
	a.handle(mux, "GET client-grants/{id}/organizations", []string{"read:organization_client_grants"}, a.grantOrganizations)
}

// grantOrganizations lists the organizations that a grant is for: none, as there
// are no organizations yet.
func (a *API) grantOrganizations(c *call) (int, any, error) {
	p, err := readPaging(c.URL.Query(), 50, 100)
	if err != nil {
		return 0, nil, err
	}
	if _, _, err := a.load(c, clientGrants(), c.PathValue("id")); err != nil {
		return 0, nil, err
	}
	return http.StatusOK, p.envelope("organizations", []any{}, nil, 0), nil
}
