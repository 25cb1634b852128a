package upstream

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/portcullis-id/portcullis/authn"
	"github.com/portcullis-id/portcullis/once"
	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/tenant"
)

const (
	callbackPath = "login/callback" // Auth0's
	stateTTL     = 10 * time.Minute
	cookieName   = "__Host-portcullis-upstream"
	maxProviders = 1000
	providerTTL  = time.Hour
)

// Service speaks to the providers of all tenants' connections.
type Service struct {
	docs   tenant.Docs
	dir    *tenant.Directory
	client *http.Client
	check  func(url string) error
	now    func() time.Time

	mu        sync.Mutex
	providers map[string]cachedProvider // by issuer
}

type cachedProvider struct {
	provider *provider
	until    time.Time
}

// New makes a Service. The client makes all calls out (row social of the
// contract); check refuses URLs that it would refuse, when a connection is
// stored.
func New(docs tenant.Docs, dir *tenant.Directory, client *http.Client, check func(url string) error, now func() time.Time) *Service {
	return &Service{docs: docs, dir: dir, client: client, check: check, now: now, providers: map[string]cachedProvider{}}
}

// options of a connection, as Auth0 names them.
type options struct {
	ClientID     string `json:"client_id"`
	ClientSecret string `json:"client_secret"`
	Scope        any    `json:"scope"` // text, or a list of texts
	// OpenID Connect
	Issuer       string        `json:"issuer"`
	DiscoveryURL string        `json:"discovery_url"`
	Metadata     *oidcMetadata `json:"oidc_metadata"`
	AuthURL      string        `json:"authorization_endpoint"`
	TokenURL     string        `json:"token_endpoint"`
	UserinfoURL  string        `json:"userinfo_endpoint"`
	JWKSURL      string        `json:"jwks_uri"`
	// OAuth 2
	OAuth2AuthURL  string `json:"authorizationURL"`
	OAuth2TokenURL string `json:"tokenURL"`
	// ProfileMap says where the profile's values are in the answer of the userinfo
	// endpoint: {"user_id": "id", "email": "contact.mail"}.
	ProfileMap map[string]string `json:"profile_map"`
	// Microsoft
	TenantDomain string `json:"tenant_domain"`
}

type oidcMetadata struct {
	Issuer      string   `json:"issuer"`
	AuthURL     string   `json:"authorization_endpoint"`
	TokenURL    string   `json:"token_endpoint"`
	UserinfoURL string   `json:"userinfo_endpoint"`
	JWKSURL     string   `json:"jwks_uri"`
	Algorithms  []string `json:"id_token_signing_alg_values_supported"`
	ResponseIss bool     `json:"authorization_response_iss_parameter_supported"`
}

// provider is the other side, ready to be spoken to.
type provider struct {
	oidcMetadata
	openID   bool
	verifier *oidc.IDTokenVerifier
	profile  func(ctx context.Context, s *Service, token *oauth2.Token, p *provider, o options) (authn.Profile, error)
	scopes   []string
}

const (
	googleIssuer    = "https://accounts.google.com"
	microsoftIssuer = "https://login.microsoftonline.com/common/v2.0"
)

// Supported reports whether there is a way to log in through a strategy.
func (s *Service) Supported(strategy string) bool {
	switch strategy {
	case "oidc", "oauth2", "google-oauth2", "github", "windowslive":
		return true
	}
	return false
}

func read(raw json.RawMessage) (options, error) {
	var o options
	if len(raw) == 0 {
		return o, nil
	}
	if err := json.Unmarshal(raw, &o); err != nil {
		return o, problem.Wrap(problem.Invalid, "invalid_body", err, "options: a value is of another type than this strategy wants")
	}
	return o, nil
}

// CheckOptions judges the options of a connection when they are stored. It fails
// with problem.Invalid and names the option.
func (s *Service) CheckOptions(strategy string, raw json.RawMessage) error {
	if !s.Supported(strategy) {
		return nil // stored as it is; nothing runs it
	}
	o, err := read(raw)
	if err != nil {
		return err
	}
	urls := map[string]string{}
	switch strategy {
	case "oidc":
		urls = map[string]string{"issuer": o.Issuer, "discovery_url": o.DiscoveryURL, "authorization_endpoint": o.AuthURL, "token_endpoint": o.TokenURL,
			"userinfo_endpoint": o.UserinfoURL, "jwks_uri": o.JWKSURL}
	case "oauth2":
		urls = map[string]string{"authorizationURL": o.OAuth2AuthURL, "tokenURL": o.OAuth2TokenURL, "userinfo_endpoint": o.UserinfoURL}
	}
	for name, u := range urls {
		if u == "" || s.check == nil {
			continue
		}
		if err := s.check(u); err != nil {
			return problem.Wrap(problem.Invalid, "invalid_body", err, "options.%s: %s", name, problem.From(err).Message)
		}
	}
	return nil
}

// Hosts lists the outside hosts that the connections of tenants are at, sorted
// and without doubles: the peers of the contract's row social.
func (s *Service) Hosts(ctx context.Context, tenants []string) ([]string, error) {
	var out []string
	add := func(raw string) {
		if u, err := url.Parse(raw); err == nil && u.Host != "" {
			out = append(out, u.Hostname())
		}
	}
	for _, t := range tenants {
		all, err := s.dir.Connections(ctx, t)
		if err != nil {
			return nil, err
		}
		for _, c := range all {
			if !s.Supported(c.Strategy) {
				continue
			}
			o, err := read(c.Options)
			if err != nil {
				continue
			}
			switch c.Strategy {
			case "google-oauth2":
				out = append(out, "accounts.google.com", "oauth2.googleapis.com", "openidconnect.googleapis.com", "www.googleapis.com")
			case "github":
				out = append(out, "github.com", "api.github.com")
			case "windowslive":
				out = append(out, "login.microsoftonline.com", "graph.microsoft.com")
			}
			for _, u := range []string{o.Issuer, o.DiscoveryURL, o.AuthURL, o.TokenURL, o.UserinfoURL, o.JWKSURL, o.OAuth2AuthURL, o.OAuth2TokenURL} {
				add(u)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// ctx lets the libraries use our client.
func (s *Service) ctx(ctx context.Context) context.Context {
	return oidc.ClientContext(ctx, s.client)
}

func unreachable(err error) error {
	return problem.Wrap(problem.Unavailable, "upstream_unavailable", err, "The other login provider does not answer as it should. Try again, or log in another way")
}

// provider prepares the other side of a connection.
func (s *Service) provider(ctx context.Context, c *tenant.Connection, o options) (*provider, error) {
	switch c.Strategy {
	case "google-oauth2":
		return s.discover(ctx, googleIssuer, googleIssuer, o, []string{"openid", "profile", "email"})
	case "windowslive":
		return s.discover(ctx, microsoftIssuer, microsoftIssuer, o, []string{"openid", "profile", "email"})
	case "github":
		return &provider{oidcMetadata: oidcMetadata{AuthURL: "https://github.com/login/oauth/authorize", TokenURL: "https://github.com/login/oauth/access_token"}, // #nosec G101 -- addresses
			scopes: []string{"read:user", "user:email"}, profile: githubProfile}, nil
	case "oauth2":
		if o.OAuth2AuthURL == "" || o.OAuth2TokenURL == "" || o.UserinfoURL == "" {
			return nil, problem.New(problem.Invalid, "connection_incomplete", "The connection %s wants authorizationURL, tokenURL and userinfo_endpoint", c.Name)
		}
		return &provider{oidcMetadata: oidcMetadata{AuthURL: o.OAuth2AuthURL, TokenURL: o.OAuth2TokenURL, UserinfoURL: o.UserinfoURL}, profile: userinfoProfile}, nil
	}
	if m := o.Metadata; m != nil && m.Issuer != "" && m.AuthURL != "" && m.TokenURL != "" && m.JWKSURL != "" {
		return s.fixed(*m, o), nil
	}
	if o.Issuer != "" && o.AuthURL != "" && o.TokenURL != "" && o.JWKSURL != "" {
		return s.fixed(oidcMetadata{Issuer: o.Issuer, AuthURL: o.AuthURL, TokenURL: o.TokenURL, UserinfoURL: o.UserinfoURL, JWKSURL: o.JWKSURL}, o), nil
	}
	from, issuer := o.DiscoveryURL, o.Issuer
	if from == "" {
		from = o.Issuer
	}
	if from == "" {
		return nil, problem.New(problem.Invalid, "connection_incomplete", "The connection %s wants an issuer or a discovery_url", c.Name)
	}
	if issuer == "" {
		issuer = strings.TrimSuffix(from, "/.well-known/openid-configuration")
	}
	return s.discover(ctx, from, issuer, o, []string{"openid", "profile", "email"})
}

// fixed is a provider whose endpoints are all in the connection.
func (s *Service) fixed(m oidcMetadata, o options) *provider {
	p := &provider{oidcMetadata: m, openID: true, scopes: []string{"openid", "profile", "email"}}
	p.verifier = s.verify(m, o)
	return p
}

// asymmetric are the algorithms that an ID token may be signed with: never none,
// and never a secret that both sides hold.
var asymmetric = []string{oidc.RS256, oidc.RS384, oidc.RS512, oidc.PS256, oidc.PS384, oidc.PS512, oidc.ES256, oidc.ES384, oidc.ES512, oidc.EdDSA}

// algorithms are those of the announced ones that may sign; without any, RS256, as
// every provider has it (Core section 15.1).
func algorithms(announced []string) []string {
	var out []string
	for _, a := range announced {
		if slices.Contains(asymmetric, a) {
			out = append(out, a)
		}
	}
	if len(out) == 0 {
		return []string{oidc.RS256}
	}
	return out
}

func (s *Service) verify(m oidcMetadata, o options) *oidc.IDTokenVerifier {
	// The key set keeps what it fetched and asks again for a key that it does not
	// know. Its context lives longer than a request.
	keys := oidc.NewRemoteKeySet(s.ctx(context.Background()), m.JWKSURL)
	cfg := &oidc.Config{ClientID: o.ClientID, SupportedSigningAlgs: algorithms(m.Algorithms), Now: s.now, SkipIssuerCheck: m.Issuer == microsoftTemplate}
	return oidc.NewVerifier(m.Issuer, keys, cfg)
}

// microsoftTemplate is the issuer in Microsoft's common discovery document: each
// token has its own tenant in the place of the braces.
const microsoftTemplate = "https://login.microsoftonline.com/{tenantid}/v2.0"

// discover reads OpenID Connect Discovery 1.0, and keeps it for a while.
func (s *Service) discover(ctx context.Context, from, issuer string, o options, scopes []string) (*provider, error) {
	key := from + "\x00" + issuer + "\x00" + o.ClientID
	s.mu.Lock()
	have, ok := s.providers[key]
	s.mu.Unlock()
	if ok && s.now().Before(have.until) {
		return have.provider, nil
	}
	wellKnown := from
	if !strings.HasSuffix(from, "/.well-known/openid-configuration") {
		wellKnown = strings.TrimSuffix(from, "/") + "/.well-known/openid-configuration"
	}
	var m oidcMetadata
	if err := s.getJSON(ctx, wellKnown, "", &m); err != nil {
		return nil, unreachable(fmt.Errorf("discovery: %w", err))
	}
	common := issuer == microsoftIssuer && m.Issuer == microsoftTemplate
	if strings.TrimSuffix(m.Issuer, "/") != strings.TrimSuffix(issuer, "/") && !common {
		return nil, unreachable(fmt.Errorf("discovery at %s names the issuer %q, not %q", wellKnown, m.Issuer, issuer))
	}
	if m.AuthURL == "" || m.TokenURL == "" || m.JWKSURL == "" {
		return nil, unreachable(errors.New("discovery lacks an endpoint"))
	}
	for _, endpoint := range []string{m.AuthURL, m.TokenURL, m.JWKSURL, m.UserinfoURL} {
		// The browser is sent to the first of them, past the guard of our own calls.
		if endpoint == "" || s.check == nil {
			continue
		}
		if err := s.check(endpoint); err != nil {
			return nil, unreachable(fmt.Errorf("discovery at %s: %w", wellKnown, err))
		}
	}
	p := s.fixed(m, o)
	p.scopes = scopes
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.providers) >= maxProviders {
		clear(s.providers) // rare: they are read again as they are needed
	}
	s.providers[key] = cachedProvider{p, s.now().Add(providerTTL)}
	return p, nil
}

// getJSON asks for a JSON document, with a bearer token if there is one. The
// client bounds time and size.
func (s *Service) getJSON(ctx context.Context, from, token string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "portcullis")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %d", req.URL.Host, resp.StatusCode)
	}
	return decode(resp.Body, into)
}

// decode keeps numbers as they were written: ids of users are among them.
func decode(r io.Reader, into any) error {
	dec := json.NewDecoder(r)
	dec.UseNumber()
	return dec.Decode(into)
}

// pending is what a browser that is away at a provider is to come back with.
type pending struct {
	ConnectionID string `json:"connection_id"`
	Browser      string `json:"browser"`
	State        string `json:"state"` // of the login pages
	Nonce        string `json:"nonce"`
	Verifier     string `json:"verifier"`
	Issuer       string `json:"issuer,omitempty"`
}

func (s *Service) config(t string, p *provider, o options) *oauth2.Config {
	scopes := p.scopes
	switch v := o.Scope.(type) {
	case string:
		if f := strings.Fields(v); len(f) > 0 {
			scopes = f
		}
	case []any:
		scopes = nil
		for _, e := range v {
			if str, ok := e.(string); ok {
				scopes = append(scopes, str)
			}
		}
	}
	if p.openID && !slices.Contains(scopes, "openid") {
		scopes = append([]string{"openid"}, scopes...)
	}
	return &oauth2.Config{ClientID: o.ClientID, ClientSecret: o.ClientSecret, RedirectURL: s.dir.URL(t) + callbackPath, Scopes: scopes,
		Endpoint: oauth2.Endpoint{AuthURL: p.AuthURL, TokenURL: p.TokenURL}}
}

// Begin sends the browser to the provider of a connection. State comes back from
// Finish, in the same browser, once.
func (s *Service) Begin(w http.ResponseWriter, r *http.Request, c *tenant.Connection, state, loginHint string) error {
	t := tenant.FromContext(r.Context()).Name
	o, err := read(c.Options)
	if err != nil {
		return err
	}
	p, err := s.provider(r.Context(), c, o)
	if err != nil {
		return err
	}
	value, browser := once.New(), once.New()
	pend := pending{ConnectionID: c.ID, Browser: hashed(browser), State: state, Nonce: once.New(), Verifier: oauth2.GenerateVerifier(), Issuer: p.Issuer}
	err = s.docs.Write(r.Context(), t, func(tx tenant.Tx) error {
		return once.Put(tx, once.UpstreamState, value, c.ID, pend, stateTTL)
	})
	if err != nil {
		return err
	}
	params := []oauth2.AuthCodeOption{oauth2.S256ChallengeOption(pend.Verifier)}
	if p.openID {
		params = append(params, oauth2.SetAuthURLParam("nonce", pend.Nonce))
	}
	if loginHint != "" {
		params = append(params, oauth2.SetAuthURLParam("login_hint", loginHint))
	}
	// None, because some providers answer with a form from their own site.
	http.SetCookie(w, &http.Cookie{Name: cookieName, Value: browser, Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteNoneMode, MaxAge: int(stateTTL / time.Second)}) // #nosec G124 -- SameSite=None: see above
	w.Header().Set("Cache-Control", "no-store")
	http.Redirect(w, r, s.config(t, p, o).AuthCodeURL(value, params...), http.StatusFound)
	return nil
}

func hashed(v string) string {
	sum := sha256.Sum256([]byte(v))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func restart(cause error) error {
	return problem.Wrap(problem.Invalid, "invalid_upstream_answer", cause,
		"This login cannot go on: the answer of the other provider belongs to another browser, came twice, or took too long. Go back to the application and log in again.")
}

// Finish reads the provider's answer: it belongs to this browser, works once, and
// comes from the provider that was asked. The state comes with an error too, once
// the browser has proved to be the same.
func (s *Service) Finish(w http.ResponseWriter, r *http.Request) (state string, c *tenant.Connection, profile authn.Profile, err error) {
	fail := func(err error) (string, *tenant.Connection, authn.Profile, error) {
		return "", nil, authn.Profile{}, err
	}
	if err := r.ParseForm(); err != nil {
		return fail(problem.Wrap(problem.Invalid, "invalid_request", err, "The form cannot be read"))
	}
	for name, v := range r.Form {
		if len(v) > 1 || len(v[0]) > 16<<10 {
			return fail(problem.New(problem.Invalid, "invalid_request", "The parameter %.32q stands twice or is too long", name))
		}
	}
	t := tenant.FromContext(r.Context()).Name
	var pend pending
	err = s.docs.Write(r.Context(), t, func(tx tenant.Tx) error { return once.Take(tx, once.UpstreamState, r.Form.Get("state"), &pend) })
	if code := problem.From(err).Code; code == once.CodeUnknown || code == once.CodeUsed {
		return fail(restart(err))
	}
	if err != nil {
		return fail(err)
	}
	cookie, err := r.Cookie(cookieName)
	if err != nil || subtle.ConstantTimeCompare([]byte(hashed(cookie.Value)), []byte(pend.Browser)) != 1 {
		return fail(restart(errors.New("the browser is another one")))
	}
	http.SetCookie(w, &http.Cookie{Name: cookieName, Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteNoneMode, MaxAge: -1}) // #nosec G124 -- it takes the cookie away
	// What cannot be believed stops the login on a page. After everything else it can go
	// on in another way: the pages get their state back.
	stop := fail
	fail = func(err error) (string, *tenant.Connection, authn.Profile, error) {
		return pend.State, nil, authn.Profile{}, err
	}
	if c, err = s.dir.Connection(r.Context(), t, pend.ConnectionID); err != nil {
		return fail(err)
	}
	o, err := read(c.Options)
	if err != nil {
		return fail(err)
	}
	p, err := s.provider(r.Context(), c, o)
	if err != nil {
		return fail(err)
	}
	// RFC 9207: an answer that names its issuer has to name the one that was asked,
	// and one that announces to do so has to do so.
	if iss := r.Form.Get("iss"); p.Issuer != "" && p.Issuer != microsoftTemplate && (iss != "" && iss != p.Issuer || iss == "" && p.ResponseIss) {
		return stop(restart(fmt.Errorf("the answer names the issuer %.200q, not %q", iss, p.Issuer)))
	}
	if code := r.Form.Get("error"); code != "" {
		return fail(problem.New(problem.Forbidden, "upstream_refused", "The other provider did not log you in (%.64s). Go back and try again, or log in another way.", printable(code)))
	}
	if r.Form.Get("code") == "" {
		return stop(restart(errors.New("the answer has no code")))
	}
	token, err := s.config(t, p, o).Exchange(s.ctx(r.Context()), r.Form.Get("code"), oauth2.VerifierOption(pend.Verifier))
	if err != nil {
		return fail(unreachable(fmt.Errorf("exchange the code: %w", redact(err))))
	}
	if p.openID {
		profile, err = s.idTokenProfile(r.Context(), token, p, o, pend.Nonce)
	} else {
		profile, err = p.profile(r.Context(), s, token, p, o)
	}
	if problem.From(err).Code == codeUntrusted {
		return stop(err)
	}
	if err != nil {
		return fail(err)
	}
	return pend.State, c, profile, nil
}

// printable keeps what a stranger wrote to one line of plain text.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, s)
}

// redact keeps the answer's body, which may hold tokens, out of the log.
func redact(err error) error {
	var re *oauth2.RetrieveError
	if errors.As(err, &re) {
		return fmt.Errorf("the token endpoint answered %d %s", re.Response.StatusCode, printable(re.ErrorCode))
	}
	return err
}
