package mgmt

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/tenant"
)

var clientFields = declare(`name description:?string logo_uri:?string callbacks:?strings allowed_origins:?strings web_origins:?strings
client_aliases:?strings allowed_clients:?strings allowed_logout_urls:?strings session_transfer:?object oidc_logout:?object grant_types:?strings
token_endpoint_auth_method:?string is_token_endpoint_ip_header_trusted:boolean app_type:?string is_first_party:boolean oidc_conformant:boolean
jwt_configuration:?object encryption_key:?object sso:boolean cross_origin_authentication:boolean cross_origin_auth:boolean cross_origin_loc:?string sso_disabled:boolean
custom_login_page_on:boolean custom_login_page:?string custom_login_page_preview:?string form_template:?string addons:?object client_metadata:?object
mobile:?object initiate_login_uri:?string native_social_login:?object refresh_token:?object default_organization:?object organization_usage:?string
organization_require_behavior:?string organization_discovery_methods:?strings client_authentication_methods:?object require_pushed_authorization_requests:boolean
require_proof_of_possession:boolean signed_request_object:?object compliance_level:?string skip_non_verifiable_callback_uri_confirmation_prompt:?boolean
token_exchange:?object par_request_expiry:?integer token_quota:?object resource_server_identifier:string express_configuration:?object
my_organization_configuration:?object async_approval_notification_channels:?strings fedcm_login:?object token_vault_privileged_access:?object
third_party_security_mode:string redirection_policy:string identity_assertion_authorization_grant:?object oidc_backchannel_logout:?object
client_id:string client_secret:string tenant:string signing_keys:array global:boolean`)

var grantTypes = strings.Fields(`authorization_code implicit refresh_token client_credentials password
http://auth0.com/oauth/grant-type/password-realm http://auth0.com/oauth/grant-type/mfa-oob http://auth0.com/oauth/grant-type/mfa-otp
http://auth0.com/oauth/grant-type/mfa-recovery-code http://auth0.com/oauth/grant-type/passwordless/otp
urn:ietf:params:oauth:grant-type:device_code urn:openid:params:grant-type:ciba urn:ietf:params:oauth:grant-type:token-exchange
urn:auth0:params:oauth:grant-type:token-exchange:federated-connection-access-token urn:ietf:params:oauth:grant-type:jwt-bearer
urn:ietf:params:oauth:grant-type:saml2-bearer`)

func clients() *resource {
	return &resource{
		path: "clients", kind: tenant.KindClient, id: "client_id", newID: tenant.NewClientID, fields: clientFields,
		filters:       map[string]string{"app_type": "app_type", "is_first_party": "is_first_party", "is_global": "is_global", "name": "name", "client_ids": "id"},
		missing:       notFound("inexistent_client", "The client does not exist"),
		createdStatus: http.StatusCreated, deletedStatus: http.StatusNoContent,
		create: func(a *API, c *call, d doc) error {
			for _, ours := range []string{"client_id", "global", "tenant", "signing_keys"} {
				delete(d, ours)
			}
			if err := required(d, "name"); err != nil {
				return err
			}
			if err := judgeClient(d); err != nil {
				return err
			}
			completeClient(d)
			// Keys that come along are stored as credentials of their own.
			return nil
		},
		update: func(a *API, c *call, old, patch, merged doc) error {
			if old["global"] == true && len(patch) > 0 {
				for k := range patch {
					if !strings.HasPrefix(k, "custom_login_page") {
						return invalidBody("'%s cannot be changed on the global client'.", k)
					}
				}
			}
			for _, ours := range []string{"client_id", "global", "tenant", "signing_keys"} {
				merged[ours] = old[ours]
				if old[ours] == nil {
					delete(merged, ours)
				}
			}
			if err := judgeClient(patch); err != nil {
				return err
			}
			return a.judgeCredentials(c, text(old, "client_id"), merged)
		},
		merge: mergeClient,
		onCreate: func(a *API, c *call, tx tenant.Tx, id string, d doc) error {
			if api := text(d, "resource_server_identifier"); api != "" {
				if err := linkClient(tx, api, id); err != nil {
					return err
				}
			}
			return a.storeInlineCredentials(tx, id, d)
		},
		onDelete: func(_ *API, _ *call, tx tenant.Tx, id string) error {
			for _, k := range []tenant.Kind{tenant.KindClientCredential, tenant.KindClientGrant, tenant.KindRefreshToken, tenant.KindConsent} {
				if _, err := tx.DeleteWhere(k, []tenant.Cond{{Column: "client_id", Value: id}}); err != nil {
					return err
				}
			}
			return nil
		},
		view:   viewClient,
		always: []string{"tenant", "signing_keys"},
	}
}

// linkClient notes at an API which application stands for it.
func linkClient(tx tenant.Tx, identifier, clientID string) error {
	page, err := tx.Find(tenant.KindResourceServer, tenant.Query{Where: []tenant.Cond{{Column: "identifier", Value: identifier}}, Limit: 1})
	if err != nil {
		return err
	}
	if len(page.Records) == 0 {
		return notFound("inexistent_resource_server", "The resource server does not exist")
	}
	_, err = tenant.Change(tx, tenant.KindResourceServer, page.Records[0].ID, func(d *doc) error { (*d)["client_id"] = clientID; return nil })
	return err
}

func judgeClient(d doc) error {
	checks := []error{
		nonEmpty(d, "name", 256), within(d, "description", 0, 140),
		oneOf(d, "app_type", "native", "spa", "regular_web", "non_interactive", "resource_server", "express_configuration", "rms", "box", "cloudbees",
			"concur", "dropbox", "mscrm", "echosign", "egnyte", "newrelic", "office365", "salesforce", "sentry", "sharepoint", "slack", "springcm",
			"zendesk", "zoom", "sso_integration", "oag"),
		oneOf(d, "token_endpoint_auth_method", "none", "client_secret_post", "client_secret_basic"),
		oneOf(d, "organization_usage", "deny", "allow", "require"),
		oneOf(d, "organization_require_behavior", "no_prompt", "pre_login_prompt", "post_login_prompt"),
		checkURLs(d, "callbacks", true), checkURLs(d, "allowed_logout_urls", true),
	}
	for _, err := range checks {
		if err != nil {
			return err
		}
	}
	for _, name := range []string{"web_origins", "allowed_origins"} {
		if err := checkURLs(d, name, true); err != nil {
			return err
		}
	}
	if s, ok := d["name"].(string); ok && strings.ContainsAny(s, "<>") {
		return invalidBody("'String does not match pattern: ^[^<>]+$: %s' on property name (The name of the client. Cannot contain < or >).", clip(s, 64))
	}
	list, _ := d["grant_types"].([]any)
	for _, g := range list {
		if s, _ := g.(string); !slices.Contains(grantTypes, s) {
			return invalidBody("'No enum match for: %s' on property grant_types (allowed are: %s).", clip(s, 64), strings.Join(grantTypes, ", "))
		}
	}
	if j, ok := d["jwt_configuration"].(doc); ok {
		for _, err := range []error{oneOf(j, "alg", "HS256", "RS256", "RS512", "PS256", "ES256", "EdDSA"), within(j, "lifetime_in_seconds", 1, 2592000)} {
			if err != nil {
				return err
			}
		}
	}
	if rt, ok := d["refresh_token"].(doc); ok {
		for _, err := range []error{
			oneOf(rt, "rotation_type", "rotating", "non-rotating"), oneOf(rt, "expiration_type", "expiring", "non-expiring"),
			within(rt, "leeway", 0, 60), within(rt, "token_lifetime", 1, 157788000), within(rt, "idle_token_lifetime", 1, 157788000),
		} {
			if err != nil {
				return err
			}
		}
	}
	if o, ok := d["default_organization"].(doc); ok {
		if err := required(o, "organization_id", "flows"); err != nil {
			return err
		}
	}
	if m, ok := d["client_metadata"].(doc); ok {
		if len(m) > 10 {
			return invalidBody("'client_metadata has more than the 10 properties that are allowed'.")
		}
		for k, v := range m {
			if s, ok := v.(string); v != nil && (!ok || len(s) > 255 || len(k) > 255) {
				return invalidBody("'client_metadata wants texts of at most 255 characters' on property %s.", clip(k, 64))
			}
		}
	}
	if s := text(d, "client_secret"); d["client_secret"] != nil && (len(s) < 16 || len(s) > 255) {
		return invalidBody("'client_secret wants 16 to 255 characters'.")
	}
	return nil
}

// completeClient gives a new client what it did not say, as Auth0 does.
func completeClient(d doc) {
	set := func(name string, v any) {
		if cur, ok := d[name]; !ok || cur == nil {
			d[name] = v
		}
	}
	set("client_secret", tenant.NewSecret())
	set("is_first_party", true)
	set("is_token_endpoint_ip_header_trusted", false)
	set("oidc_conformant", false)
	set("sso_disabled", false)
	set("cross_origin_authentication", false)
	set("cross_origin_auth", d["cross_origin_authentication"])
	if d["is_first_party"] == false {
		set("third_party_security_mode", "permissive")
	}
	if text(d, "app_type") == "express_configuration" {
		set("organization_usage", "require")
		set("client_authentication_methods", doc{"private_key_jwt": doc{"credentials": []any{}}})
		set("grant_types", []any{"authorization_code", "client_credentials"})
	}
	set("custom_login_page_on", true)
	set("jwt_configuration", doc{})
	jwt := d["jwt_configuration"].(doc)
	for k, v := range map[string]any{"alg": "RS256", "secret_encoded": false, "lifetime_in_seconds": 36000} {
		if _, ok := jwt[k]; !ok {
			jwt[k] = v
		}
	}
	switch text(d, "app_type") {
	case "spa", "native":
		set("token_endpoint_auth_method", "none")
		set("grant_types", []any{"authorization_code", "implicit", "refresh_token"})
	case "non_interactive":
		// Auth0's answer is the same list for all applications that have a secret.
		set("grant_types", []any{"authorization_code", "implicit", "refresh_token", "client_credentials"})
	default:
		set("grant_types", []any{"authorization_code", "implicit", "refresh_token", "client_credentials"})
	}
	rt, _ := d["refresh_token"].(doc)
	if rt == nil {
		rt = doc{}
		d["refresh_token"] = rt
	}
	defaults := doc{"rotation_type": "non-rotating", "expiration_type": "non-expiring", "leeway": 0, "token_lifetime": 31557600, "idle_token_lifetime": 2592000,
		"infinite_token_lifetime": true, "infinite_idle_token_lifetime": true}
	if text(d, "token_endpoint_auth_method") == "none" {
		// RFC 9700 section 2.2.2: without a secret refresh tokens rotate.
		defaults["rotation_type"], defaults["expiration_type"] = "rotating", "expiring"
		defaults["infinite_token_lifetime"], defaults["infinite_idle_token_lifetime"] = false, false
		defaults["token_lifetime"], defaults["idle_token_lifetime"] = 2592000, 1296000
	}
	if text(rt, "expiration_type") == "expiring" {
		defaults["infinite_token_lifetime"], defaults["infinite_idle_token_lifetime"] = false, false
	}
	for k, v := range defaults {
		if _, ok := rt[k]; !ok {
			rt[k] = v
		}
	}
	if m := text(d, "token_endpoint_auth_method"); m == "" {
		delete(d, "token_endpoint_auth_method")
	}
	for k, v := range d {
		if v == nil {
			delete(d, k)
		}
	}
}

// mergeClient replaces properties, but puts jwt_configuration, refresh_token and
// client_metadata together: a patch of one value keeps the others.
func mergeClient(old, patch doc) doc {
	out := shallow(old, patch)
	for _, name := range []string{"jwt_configuration", "refresh_token", "client_metadata"} {
		before, ok1 := old[name].(doc)
		after, ok2 := patch[name].(doc)
		if ok1 && ok2 {
			out[name] = shallow(before, after)
		}
	}
	// A client authenticates with a method of one of the two families.
	if patch["client_authentication_methods"] != nil {
		delete(out, "token_endpoint_auth_method")
	} else if patch["token_endpoint_auth_method"] != nil {
		delete(out, "client_authentication_methods")
	}
	return out
}

func viewClient(a *API, c *call, d doc) doc {
	delete(d, "created_at")
	if _, ok := d["signing_keys"]; !ok {
		keys, err := a.Keys.List(c.ctx(), c.tenant)
		list := []any{}
		if err == nil {
			for _, k := range keys {
				if k.Current && k.Type == "RSA" {
					list = append(list, doc{"cert": k.Cert, "pkcs7": k.PKCS7, "subject": "/CN=" + a.Directory.Hosts.Host(c.tenant)})
				}
			}
		}
		d["signing_keys"] = list
	}
	if !slices.Contains(c.claims.Scopes, "read:client_keys") && c.Method == http.MethodGet {
		delete(d, "client_secret")
		delete(d, "signing_keys")
		delete(d, "encryption_key")
	}
	d["tenant"] = c.tenant
	if _, ok := d["global"]; !ok {
		d["global"] = false
	}
	return d
}

func (a *API) registerClientParts(mux *http.ServeMux) {
	a.handle(mux, "POST clients/{id}/rotate-secret", []string{"update:client_keys"}, a.rotateSecret)
	a.handle(mux, "GET clients/{id}/credentials", []string{"read:client_credentials"}, a.listCredentials)
	a.handle(mux, "POST clients/{id}/credentials", []string{"create:client_credentials"}, a.createCredential)
	a.handle(mux, "GET clients/{id}/credentials/{credential}", []string{"read:client_credentials"}, a.getCredential)
	a.handle(mux, "PATCH clients/{id}/credentials/{credential}", []string{"update:client_credentials"}, a.updateCredential)
	a.handle(mux, "DELETE clients/{id}/credentials/{credential}", []string{"delete:client_credentials"}, a.deleteCredential)
}

func (a *API) rotateSecret(c *call) (int, any, error) {
	r := clients()
	if _, _, err := a.load(c, r, c.PathValue("id")); err != nil {
		return 0, nil, err
	}
	err := a.docs.Write(c.ctx(), c.tenant, func(tx tenant.Tx) error {
		_, err := tenant.Change(tx, r.kind, c.PathValue("id"), func(d *doc) error { (*d)["client_secret"] = tenant.NewSecret(); return nil })
		return err
	})
	if err != nil {
		return 0, nil, err
	}
	d, _, err := a.load(c, r, c.PathValue("id"))
	if err != nil {
		return 0, nil, err
	}
	return http.StatusOK, viewClient(a, c, d), nil
}

var credentialFields = declare(`credential_type name:?string subject_dn:?string pem:?string alg:?string parse_expiry_from_cert:?boolean expires_at:?string kid:?string`)

var missingCredential = notFound("inexistent_client_credential", "The credential does not exist")

// newCredential judges what a client sent and makes a credential of it.
func newCredential(clientID string, d doc) (doc, error) {
	if err := credentialFields.check(d); err != nil {
		return nil, err
	}
	if err := required(d, "credential_type"); err != nil {
		return nil, err
	}
	for _, err := range []error{oneOf(d, "credential_type", "public_key", "cert_subject_dn", "x509_cert"),
		oneOf(d, "alg", "RS256", "RS384", "PS256", "ES256"), within(d, "name", 0, 128)} {
		if err != nil {
			return nil, err
		}
	}
	out := doc{"id": tenant.NewID("cred"), "client_id": clientID, "credential_type": d["credential_type"]}
	if s := text(d, "name"); s != "" {
		out["name"] = s
	}
	var cert *x509.Certificate
	var der []byte
	var public any
	kept := "" // the one block, without what may stand around it, such as a private key
	if p := text(d, "pem"); p != "" {
		block, _ := pem.Decode([]byte(strings.TrimSpace(p)))
		if block == nil {
			return nil, invalidBody("'pem wants a public key or a certificate in PEM'.")
		}
		var err error
		der = block.Bytes
		switch block.Type {
		case "CERTIFICATE":
			if cert, err = x509.ParseCertificate(block.Bytes); err == nil {
				public = cert.PublicKey
				der, err = x509.MarshalPKIXPublicKey(cert.PublicKey)
			}
		case "RSA PUBLIC KEY":
			public, err = x509.ParsePKCS1PublicKey(block.Bytes)
		case "PUBLIC KEY":
			public, err = x509.ParsePKIXPublicKey(block.Bytes)
		default:
			err = errors.New("another kind of PEM")
		}
		if err != nil {
			return nil, invalidBody("'pem wants a public key or a certificate in PEM'.")
		}
		kept = strings.TrimSpace(string(pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes})))
	}
	switch d["credential_type"] {
	case "public_key":
		if der == nil {
			return nil, invalidBody("'Missing required property: pem'.")
		}
		alg := text(d, "alg")
		if alg == "" {
			alg = "RS256"
		}
		if err := fits(public, alg); err != nil {
			return nil, err
		}
		sum := sha256.Sum256(der)
		out["alg"], out["public_key"], out["kid"] = alg, kept, base64.RawURLEncoding.EncodeToString(sum[:])
		if s := text(d, "kid"); s != "" {
			out["kid"] = s
		}
	case "cert_subject_dn":
		dn := text(d, "subject_dn")
		if cert != nil && dn == "" {
			dn = cert.Subject.String()
		}
		if dn == "" {
			return nil, invalidBody("'Missing required property: subject_dn or pem'.")
		}
		out["subject_dn"] = dn
	case "x509_cert":
		if cert == nil {
			return nil, invalidBody("'pem wants a certificate'.")
		}
		sum := sha256.Sum256(cert.Raw)
		out["thumbprint_sha256"], out["public_key"] = hex.EncodeToString(sum[:]), kept
		out["expires_at"] = timestamp(cert.NotAfter)
	}
	if d["parse_expiry_from_cert"] == true && cert != nil {
		out["expires_at"] = timestamp(cert.NotAfter)
	}
	if s := text(d, "expires_at"); s != "" {
		at, err := time.Parse(time.RFC3339, s)
		if err != nil {
			return nil, invalidBody("'expires_at wants a time such as 2026-01-31T12:00:00Z'.")
		}
		out["expires_at"] = timestamp(at)
	}
	return out, nil
}

// fits reports whether a key is one that its algorithm takes (RFC 7518 sections
// 3.3 and 3.4). Another one could never prove anything, or anybody could.
func fits(key any, alg string) error {
	switch k := key.(type) {
	case *rsa.PublicKey:
		if alg != "ES256" && k.N.BitLen() >= 2048 {
			return nil
		}
	case *ecdsa.PublicKey:
		if alg == "ES256" && k.Curve == elliptic.P256() {
			return nil
		}
	}
	return invalidBody("'pem wants a key for %s: RSA of 2048 bits or more for RS256, RS384 and PS256, P-256 for ES256'.", alg)
}

func viewCredential(d doc) doc {
	delete(d, "client_id")
	delete(d, "public_key")
	return d
}

// credentialsOf lists the stored credentials of a client.
func (a *API) credentialsOf(c *call) ([]doc, error) {
	if _, _, err := a.load(c, clients(), c.PathValue("id")); err != nil {
		return nil, err
	}
	page, err := a.docs.Find(c.ctx(), c.tenant, tenant.KindClientCredential, tenant.Query{
		Where: []tenant.Cond{{Column: "client_id", Value: c.PathValue("id")}}, Sort: []tenant.Order{{Column: "created_at"}}})
	if err != nil {
		return nil, err
	}
	out := make([]doc, len(page.Records))
	for i, rec := range page.Records {
		if out[i], err = asDoc(rec.Doc); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (a *API) listCredentials(c *call) (int, any, error) {
	all, err := a.credentialsOf(c)
	if err != nil {
		return 0, nil, err
	}
	for _, d := range all {
		viewCredential(d)
	}
	return http.StatusOK, all, nil
}

func (a *API) credential(c *call) (doc, error) {
	rec, err := a.docs.Get(c.ctx(), c.tenant, tenant.KindClientCredential, c.PathValue("credential"))
	if problem.Is(err, problem.NotFound) {
		return nil, missingCredential
	}
	if err != nil {
		return nil, err
	}
	d, err := asDoc(rec.Doc)
	if err == nil && text(d, "client_id") != c.PathValue("id") {
		return nil, missingCredential
	}
	return d, err
}

func (a *API) getCredential(c *call) (int, any, error) {
	d, err := a.credential(c)
	if err != nil {
		return 0, nil, err
	}
	return http.StatusOK, viewCredential(d), nil
}

// maxCredentials is how many credentials a client may have.
const maxCredentials = 20

func (a *API) createCredential(c *call) (int, any, error) {
	have, err := a.credentialsOf(c)
	if err != nil {
		return 0, nil, err
	}
	if len(have) >= maxCredentials {
		return 0, nil, problem.New(problem.Invalid, "too_many_credentials", "A client may have %d credentials", maxCredentials)
	}
	in, err := c.object()
	if err != nil {
		return 0, nil, err
	}
	d, err := newCredential(c.PathValue("id"), in)
	if err != nil {
		return 0, nil, err
	}
	err = a.docs.Write(c.ctx(), c.tenant, func(tx tenant.Tx) error {
		d["created_at"], d["updated_at"] = timestamp(tx.Now()), timestamp(tx.Now())
		return tenant.Add(tx, tenant.KindClientCredential, text(d, "id"), d)
	})
	if err != nil {
		return 0, nil, err
	}
	return http.StatusCreated, viewCredential(d), nil
}

func (a *API) updateCredential(c *call) (int, any, error) {
	in, err := c.object()
	if err != nil {
		return 0, nil, err
	}
	if err := declare("expires_at:?string").check(in); err != nil {
		return 0, nil, err
	}
	if _, err := a.credential(c); err != nil {
		return 0, nil, err
	}
	var expires any
	if s := text(in, "expires_at"); s != "" {
		at, err := time.Parse(time.RFC3339, s)
		if err != nil {
			return 0, nil, invalidBody("'expires_at wants a time such as 2026-01-31T12:00:00Z'.")
		}
		expires = timestamp(at)
	}
	var out *doc
	err = a.docs.Write(c.ctx(), c.tenant, func(tx tenant.Tx) (err error) {
		out, err = tenant.Change(tx, tenant.KindClientCredential, c.PathValue("credential"), func(d *doc) error {
			(*d)["updated_at"] = timestamp(tx.Now())
			if expires == nil {
				delete(*d, "expires_at")
			} else {
				(*d)["expires_at"] = expires
			}
			return nil
		})
		return err
	})
	if err != nil {
		return 0, nil, err
	}
	return http.StatusOK, viewCredential(*out), nil
}

func (a *API) deleteCredential(c *call) (int, any, error) {
	if _, err := a.credential(c); problem.Is(err, problem.NotFound) {
		return http.StatusNoContent, nil, nil
	} else if err != nil {
		return 0, nil, err
	}
	id := c.PathValue("credential")
	client, err := tenant.Get[tenant.Client](c.ctx(), a.docs, c.tenant, tenant.KindClient, c.PathValue("id"))
	if err != nil {
		return 0, nil, err
	}
	if m := client.AuthMethods; m != nil && m.PrivateKeyJWT != nil {
		for _, cred := range m.PrivateKeyJWT.Credentials {
			if cred.ID == id {
				return 0, nil, problem.New(problem.Invalid, "credential_in_use", "The credential is in use by client_authentication_methods; take it out there first")
			}
		}
	}
	err = a.docs.Write(c.ctx(), c.tenant, func(tx tenant.Tx) error {
		_, err := tx.Delete(tenant.KindClientCredential, id)
		return err
	})
	return http.StatusNoContent, nil, err
}

// credentialLists finds every list of credentials in a client document.
func credentialLists(d doc) []doc {
	var out []doc
	methods, _ := d["client_authentication_methods"].(doc)
	for _, name := range []string{"private_key_jwt", "tls_client_auth", "self_signed_tls_client_auth"} {
		if m, ok := methods[name].(doc); ok {
			out = append(out, m)
		}
	}
	for _, name := range []string{"signed_request_object", "token_vault_privileged_access"} {
		if m, ok := d[name].(doc); ok {
			out = append(out, m)
		}
	}
	return out
}

// judgeCredentials refuses ids of credentials that the client has not got.
func (a *API) judgeCredentials(c *call, clientID string, d doc) error {
	for _, m := range credentialLists(d) {
		list, _ := m["credentials"].([]any)
		for _, v := range list {
			cred, _ := v.(doc)
			id := text(cred, "id")
			if id == "" {
				return invalidBody("'Missing required property: id' on property credentials.")
			}
			rec, err := a.docs.Get(c.ctx(), c.tenant, tenant.KindClientCredential, id)
			if problem.Is(err, problem.NotFound) {
				return problem.New(problem.Invalid, "invalid_body", "The credential %s does not exist", clip(id, 64))
			}
			if err != nil {
				return err
			}
			if stored, err := asDoc(rec.Doc); err != nil || text(stored, "client_id") != clientID {
				return problem.New(problem.Invalid, "invalid_body", "The credential %s does not exist", clip(id, 64))
			}
		}
	}
	return nil
}

// storeInlineCredentials turns keys that came with a new client into credentials,
// and leaves their ids in the client.
func (a *API) storeInlineCredentials(tx tenant.Tx, clientID string, d doc) error {
	changed := false
	for _, m := range credentialLists(d) {
		list, _ := m["credentials"].([]any)
		for i, v := range list {
			in, _ := v.(doc)
			if text(in, "id") != "" {
				continue
			}
			cred, err := newCredential(clientID, in)
			if err != nil {
				return err
			}
			cred["created_at"], cred["updated_at"] = timestamp(tx.Now()), timestamp(tx.Now())
			if err := tenant.Add(tx, tenant.KindClientCredential, text(cred, "id"), cred); err != nil {
				return err
			}
			list[i] = doc{"id": cred["id"]}
			changed = true
		}
	}
	if !changed {
		return nil
	}
	_, err := tenant.Change(tx, tenant.KindClient, clientID, func(stored *doc) error {
		for _, name := range []string{"client_authentication_methods", "signed_request_object", "token_vault_privileged_access"} {
			if d[name] != nil {
				(*stored)[name] = d[name]
			}
		}
		return nil
	})
	return err
}

// NewClient is an application that the appliance itself makes.
type NewClient struct {
	Name              string
	AppType           string
	Callbacks         []string
	WebOrigins        []string
	AllowedLogoutURLs []string
}

// CreateClient makes an application, as a POST with these properties would, and
// enables the tenant's database connections for it.
func (a *API) CreateClient(ctx context.Context, tenantID string, c NewClient) (string, error) {
	d := doc{"name": c.Name, "app_type": c.AppType, "callbacks": list(c.Callbacks), "web_origins": list(c.WebOrigins),
		"allowed_logout_urls": list(c.AllowedLogoutURLs), "oidc_conformant": true}
	if err := judgeClient(d); err != nil {
		return "", err
	}
	completeClient(d)
	id := tenant.NewClientID()
	d["client_id"] = id
	err := a.docs.Write(ctx, tenantID, func(tx tenant.Tx) error {
		d["created_at"] = timestamp(tx.Now())
		if err := tenant.Add(tx, tenant.KindClient, id, d); err != nil {
			return err
		}
		page, err := tx.Find(tenant.KindConnection, tenant.Query{Where: []tenant.Cond{{Column: "strategy", Value: tenant.StrategyDatabase}}})
		if err != nil {
			return err
		}
		for _, rec := range page.Records {
			if _, err := tenant.Change(tx, tenant.KindConnection, rec.ID, func(c *doc) error {
				have, _ := (*c)["enabled_clients"].([]any)
				(*c)["enabled_clients"] = append(have, id)
				return nil
			}); err != nil {
				return err
			}
		}
		return nil
	})
	return id, err
}

// SetCallbacks replaces the callback URLs of an application.
func (a *API) SetCallbacks(ctx context.Context, tenantID, clientID string, callbacks []string) error {
	patch := doc{"callbacks": list(callbacks)}
	if err := judgeClient(patch); err != nil {
		return err
	}
	return a.docs.Write(ctx, tenantID, func(tx tenant.Tx) error {
		_, err := tenant.Change(tx, tenant.KindClient, clientID, func(d *doc) error { (*d)["callbacks"] = patch["callbacks"]; return nil })
		return err
	})
}

func list(values []string) []any {
	out := make([]any, len(values))
	for i, v := range values {
		out[i] = v
	}
	return out
}
