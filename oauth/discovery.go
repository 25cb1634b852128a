package oauth

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/portcullis-id/portcullis/tenant"
	"github.com/portcullis-id/portcullis/web"
)

// metadata is OpenID Connect Discovery section 3 and RFC 8414 section 2.
type metadata struct {
	Issuer                string   `json:"issuer"`
	Authorization         string   `json:"authorization_endpoint"`
	Token                 string   `json:"token_endpoint"`
	Userinfo              string   `json:"userinfo_endpoint"`
	JWKS                  string   `json:"jwks_uri"`
	Revocation            string   `json:"revocation_endpoint"`
	Introspection         string   `json:"introspection_endpoint"`
	EndSession            string   `json:"end_session_endpoint,omitempty"`
	Scopes                []string `json:"scopes_supported"`
	ResponseTypes         []string `json:"response_types_supported"`
	ResponseModes         []string `json:"response_modes_supported"`
	Grants                []string `json:"grant_types_supported"`
	ChallengeMethods      []string `json:"code_challenge_methods_supported"`
	SubjectTypes          []string `json:"subject_types_supported"`
	IDTokenAlgs           []string `json:"id_token_signing_alg_values_supported"`
	TokenAuthMethods      []string `json:"token_endpoint_auth_methods_supported"`
	TokenAuthAlgs         []string `json:"token_endpoint_auth_signing_alg_values_supported"`
	RevocationAuthMethods []string `json:"revocation_endpoint_auth_methods_supported"`
	Claims                []string `json:"claims_supported"`
	Prompts               []string `json:"prompt_values_supported"`
	ResponseIssuer        bool     `json:"authorization_response_iss_parameter_supported"` // RFC 9207
	RequestURI            bool     `json:"request_uri_parameter_supported"`
	Request               bool     `json:"request_parameter_supported"`
	ClaimsParameter       bool     `json:"claims_parameter_supported"`
}

// static is a document that is served as bytes.
type static struct {
	body []byte
	etag string
}

func newStatic(v any) (*static, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(body)
	return &static{body, `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`}, nil
}

func (s *static) serve(w http.ResponseWriter, r *http.Request, maxAge string) error {
	web.EventFrom(r.Context()).Routine()
	h := w.Header()
	h["Content-Type"] = []string{"application/json; charset=utf-8"}
	h["Cache-Control"] = []string{maxAge}
	h["Etag"] = []string{s.etag}
	h["Access-Control-Allow-Origin"] = []string{"*"}
	if match := r.Header.Get("If-None-Match"); match != "" && strings.Contains(match, s.etag) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	_, err := w.Write(s.body)
	return err
}

func (p *Provider) discovery(w http.ResponseWriter, r *http.Request) error {
	t := tenantOf(r.Context())
	doc, err := p.dir.Derived(r.Context(), t, tenant.KindSettings, "discovery", func(ctx context.Context) (any, error) {
		settings, err := p.dir.Settings(ctx, t)
		if err != nil {
			return nil, err
		}
		return newStatic(p.metadata(t, settings))
	})
	if err != nil {
		return err
	}
	return doc.(*static).serve(w, r, "public, max-age=15, stale-while-revalidate=15, stale-if-error=86400")
}

func (p *Provider) metadata(tenantID string, settings *tenant.Settings) metadata {
	base := p.dir.URL(tenantID)
	methods := []string{"client_secret_basic", "client_secret_post", "private_key_jwt", "none"}
	m := metadata{
		Issuer: base, Authorization: base + "authorize", Token: base + "oauth/token", Userinfo: base + "userinfo",
		JWKS: base + ".well-known/jwks.json", Revocation: base + "oauth/revoke", Introspection: base + "oauth/introspect", EndSession: base + "oidc/logout",
		Scopes:        []string{"openid", "profile", "email", "phone", "offline_access"},
		ResponseTypes: []string{"code"}, ResponseModes: []string{"query", "fragment", "form_post", "web_message"},
		Grants:           []string{grantCode, grantClientCredentials, grantRefresh, grantPassword, grantPasswordRealm},
		ChallengeMethods: []string{"S256"}, SubjectTypes: []string{"public"},
		IDTokenAlgs:      append(append([]string{}, tenant.Algorithms...), "HS256"),
		TokenAuthMethods: methods, TokenAuthAlgs: []string{"RS256", "RS384", "PS256", "ES256"}, RevocationAuthMethods: methods,
		Claims: []string{"aud", "auth_time", "amr", "email", "email_verified", "exp", "family_name", "given_name", "iat", "iss", "name", "nickname",
			"nonce", "phone_number", "phone_number_verified", "picture", "preferred_username", "sid", "sub", "updated_at"},
		Prompts:        []string{"none", "login", "consent", "select_account"},
		ResponseIssuer: true,
	}
	if d := settings.OIDCLogout.EndSessionEndpointDiscovery; d != nil && !*d {
		m.EndSession = ""
	}
	return m
}

func (p *Provider) jwks(w http.ResponseWriter, r *http.Request) error {
	t := tenantOf(r.Context())
	doc, err := p.dir.Derived(r.Context(), t, tenant.KindSigningKey, "jwks", func(ctx context.Context) (any, error) {
		set, err := p.keys.Public(ctx, t)
		if err != nil {
			return nil, err
		}
		return newStatic(set)
	})
	if err != nil {
		return err
	}
	return doc.(*static).serve(w, r, "public, max-age=15, stale-while-revalidate=15, stale-if-error=86400")
}
