package mgmt

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/portcullis-id/portcullis/authn"
	"github.com/portcullis-id/portcullis/oauth"
	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/tenant"
	"github.com/portcullis-id/portcullis/web"
)

// doc is a JSON object. Numbers are json.Number.
type doc = map[string]any

// Verifier checks access tokens; oauth.Provider implements it.
type Verifier interface {
	VerifyAccessToken(ctx context.Context, tenant, raw, audience string) (*oauth.Claims, error)
}

// Deps are what the API works with.
type Deps struct {
	Cache     *tenant.Cache
	Directory *tenant.Directory
	Keys      *tenant.Keys
	Users     *authn.Service
	Tokens    Verifier
	Log       tenant.Log
	Logger    *slog.Logger
	// CheckURL refuses URLs that the appliance would call later and must not; nil
	// allows all.
	CheckURL func(raw string) error
	// CheckConnection refuses options that a strategy cannot work with; nil allows all.
	CheckConnection func(strategy string, options json.RawMessage) error
}

// API serves the Management API of all tenants.
type API struct {
	Deps
	docs tenant.Docs
	wake chan struct{} // jobs are waiting
}

// New makes an API.
func New(d Deps) *API { return &API{Deps: d, docs: d.Cache, wake: make(chan struct{}, 1)} }

// root is where the API stands.
const root = "/api/v2/"

// Register adds the routes to a mux below the host router.
func (a *API) Register(mux *http.ServeMux) {
	for _, r := range resources() {
		a.registerResource(mux, r)
	}
	a.registerSettings(mux)
	a.registerClientParts(mux)
	a.registerGrantParts(mux)
	a.registerConnectionParts(mux)
	a.registerUsers(mux)
	a.registerRoleParts(mux)
	a.registerLogs(mux)
	a.registerKeys(mux)
	a.registerTickets(mux)
	a.registerJobs(mux)
	a.registerTenants(mux)
	mux.Handle(root, web.Handle(a.elsewhere, render))
}

// known are the resources of Auth0 that this appliance has not got yet: a tool
// that asks for one is told so, in the API's form.
var known = strings.Fields(`actions anomaly attack-protection blacklists branding connection-profiles custom-domains
device-credentials email-templates emails event-streams flows forms grants groups guardian hooks log-streams network-acls
organizations prompts refresh-tokens risk-assessments rules rules-configs self-service-profiles sessions stats
supplemental-signals token-exchange-profiles user-attribute-profiles user-blocks verifiable-credentials`)

func (a *API) elsewhere(w http.ResponseWriter, r *http.Request) error {
	name, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, root), "/")
	if slices.Contains(known, name) {
		return problem.New(problem.NotImplemented, "feature_not_enabled", "This feature is not enabled for this tenant.")
	}
	return problem.New(problem.NotFound, "not_found", "There is no such endpoint")
}

// render writes the API's error form.
func render(w http.ResponseWriter, r *http.Request, e *problem.Error) {
	status := e.HTTPStatus()
	body := struct {
		StatusCode int    `json:"statusCode"`
		Error      string `json:"error"`
		Message    string `json:"message"`
		ErrorCode  string `json:"errorCode,omitempty"`
	}{status, http.StatusText(status), e.Message, e.Code}
	if e.Kind == problem.Internal {
		body.Message += ". Request id: " + web.RequestID(r.Context())
	}
	if status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="management"`)
	}
	_ = web.JSON(w, status, body)
}

// call is one authorized request.
type call struct {
	*http.Request
	tenant string
	claims *oauth.Claims
	w      http.ResponseWriter
}

func (c *call) ctx() context.Context { return c.Context() }

// handler answers a call with a status and a value to be written as JSON; nil
// writes no body.
type handler func(c *call) (status int, body any, err error)

// handle adds a route that wants one of the scopes.
func (a *API) handle(mux *http.ServeMux, pattern string, scopes []string, h handler) {
	method, path, _ := strings.Cut(pattern, " ")
	mux.Handle(method+" "+root+path, web.Handle(func(w http.ResponseWriter, r *http.Request) error {
		t := tenant.FromContext(r.Context()).Name
		claims, err := a.authorize(r, t, scopes)
		if err != nil {
			return err
		}
		web.EventFrom(r.Context()).Set("subject", claims.Subject)
		c := &call{Request: r, tenant: t, claims: claims, w: w}
		status, body, err := h(c)
		if method != http.MethodGet {
			a.audit(c, method, err)
		}
		if err != nil {
			return err
		}
		if body == nil {
			w.Header().Set("Cache-Control", "no-store")
			w.WriteHeader(status)
			return nil
		}
		return web.JSON(w, status, body)
	}, render))
}

// audit writes who changed what; bodies stay out, as they may hold secrets.
func (a *API) audit(c *call, method string, err error) {
	e := tenant.LogEvent{Type: tenant.LogAPI, ClientID: c.claims.ClientID, IP: web.ClientIP(c.ctx()).String(), Hostname: c.Host,
		Description: method + " " + c.URL.Path}
	if !strings.HasSuffix(c.claims.Subject, "@clients") {
		e.UserID = c.claims.Subject
	}
	status := http.StatusOK
	if err != nil {
		p := problem.From(err)
		e.Type, status = tenant.LogFailedAPI, p.HTTPStatus()
		e.Description += ": " + p.Message
	}
	if raw, err := json.Marshal(map[string]any{"request": map[string]any{"method": method, "path": c.URL.Path}, "response": map[string]any{"statusCode": status}}); err == nil {
		e.Details = raw
	}
	a.Log.Append(c.tenant, e)
}

func (a *API) authorize(r *http.Request, t string, scopes []string) (*oauth.Claims, error) {
	h := r.Header.Get("Authorization")
	if h == "" {
		return nil, problem.New(problem.Unauthorized, "missing_token", "Missing authentication")
	}
	kind, token, ok := strings.Cut(h, " ")
	if !ok || !strings.EqualFold(kind, "Bearer") {
		return nil, problem.New(problem.Unauthorized, "invalid_token", "Bad HTTP authentication header format: allowed is Bearer TOKEN")
	}
	claims, err := a.Tokens.VerifyAccessToken(r.Context(), t, strings.TrimSpace(token), a.Directory.ManagementAudience(t))
	if err != nil {
		return nil, err
	}
	for _, s := range scopes {
		if slices.Contains(claims.Scopes, s) {
			return claims, nil
		}
	}
	return nil, problem.New(problem.Forbidden, "insufficient_scope", "Insufficient scope, expected any of: %s", strings.Join(scopes, ","))
}

// Bounds of what a request may send.
const (
	maxDepth = 24
	maxText  = 256 << 10
)

func invalidBody(format string, args ...any) *problem.Error {
	return problem.New(problem.Invalid, "invalid_body", "Payload validation error: "+format, args...)
}

// object reads a JSON object.
func (c *call) object() (doc, error) {
	v, err := c.json()
	if err != nil {
		return nil, err
	}
	d, ok := v.(doc)
	if !ok {
		return nil, invalidBody("'Expected type object but found type %s'.", kindOf(v))
	}
	return d, nil
}

func (c *call) json() (any, error) {
	raw, err := io.ReadAll(c.Body)
	if err != nil {
		var tooBig *http.MaxBytesError
		if errors.As(err, &tooBig) {
			return nil, err
		}
		return nil, problem.Wrap(problem.Invalid, "invalid_body", err, "The body could not be read")
	}
	if len(bytes.TrimSpace(raw)) == 0 {
		return doc{}, nil
	}
	v, err := decode(raw)
	if err != nil {
		return nil, problem.Wrap(problem.Invalid, "invalid_body", err, "Invalid request payload JSON format")
	}
	return v, bounded(v, 0)
}

// decode keeps numbers as they were written.
func decode(raw []byte) (any, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, err
	}
	if dec.More() {
		return nil, errors.New("more than one value")
	}
	return v, nil
}

func bounded(v any, depth int) error {
	if depth > maxDepth {
		return invalidBody("'The value is nested deeper than the %d levels that are allowed'.", maxDepth)
	}
	switch v := v.(type) {
	case doc:
		for k, e := range v {
			if strings.ContainsRune(k, 0) {
				return invalidBody("'A property name has a NUL character'.")
			}
			if err := bounded(e, depth+1); err != nil {
				return err
			}
		}
	case []any:
		for _, e := range v {
			if err := bounded(e, depth+1); err != nil {
				return err
			}
		}
	case string:
		if len(v) > maxText || strings.ContainsRune(v, 0) {
			return invalidBody("'A text is longer than %d bytes or has a NUL character'.", maxText)
		}
	}
	return nil
}

// asDoc turns a stored document or a typed value into a doc.
func asDoc(v any) (doc, error) {
	raw, ok := v.([]byte)
	if !ok {
		var err error
		if raw, err = json.Marshal(v); err != nil {
			return nil, err
		}
	}
	out, err := decode(raw)
	if err != nil {
		return nil, fmt.Errorf("decode a document: %w", err)
	}
	d, ok := out.(doc)
	if !ok {
		return nil, errors.New("a document is no object")
	}
	return d, nil
}

func text(d doc, key string) string {
	s, _ := d[key].(string)
	return s
}

func timestamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }
