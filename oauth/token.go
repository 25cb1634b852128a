package oauth

import (
	"bytes"
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/tenant"
	"github.com/portcullis-id/portcullis/web"
)

// The grant types.
const (
	grantCode              = "authorization_code"
	grantClientCredentials = "client_credentials"
	grantRefresh           = "refresh_token"
	grantPassword          = "password"
	grantPasswordRealm     = "http://auth0.com/oauth/grant-type/password-realm" // #nosec G101 -- the name of a grant
)

// form is the parameters of a token request.
type form map[string]string

func (f form) get(name string) string { return f[name] }

// readForm reads a form, or the JSON object that Auth0 takes in its place.
func readForm(r *http.Request) (form, error) {
	if r.Header.Get("Content-Type") == "" {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded") // without it, net/http would drop the body
	}
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if kind == "application/json" {
		return readJSONForm(r.Body)
	}
	if kind != "application/x-www-form-urlencoded" {
		return nil, problem.New(problem.Invalid, "invalid_request", "Content-Type %q is not supported; allowed are application/x-www-form-urlencoded and application/json", clip(kind, 64))
	}
	if err := r.ParseForm(); err != nil {
		return nil, problem.Wrap(problem.Invalid, "invalid_request", err, "The form cannot be read")
	}
	f := form{}
	for k, v := range r.PostForm {
		if len(v) > 1 {
			return nil, twice(k)
		}
		if !storable(k) || !storable(v[0]) {
			return nil, notText(k)
		}
		f[k] = v[0]
	}
	return f, nil
}

// readJSONForm reads one object of texts. It goes name by name, as a map would
// keep the last of two values in silence.
func readJSONForm(body io.Reader) (form, error) {
	raw, err := io.ReadAll(body)
	if err != nil {
		return nil, problem.Wrap(problem.Invalid, "invalid_request", err, "The body cannot be read")
	}
	bad := problem.New(problem.Invalid, "invalid_request", "The body is no JSON object")
	if !json.Valid(raw) || !utf8.Valid(raw) {
		return nil, bad
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, bad
	}
	f, seen := form{}, map[string]bool{}
	for dec.More() {
		t, err := dec.Token()
		k, ok := t.(string)
		if err != nil || !ok {
			return nil, bad
		}
		if seen[k] {
			return nil, twice(k)
		}
		seen[k] = true
		v, err := dec.Token()
		if err != nil {
			return nil, bad
		}
		switch v := v.(type) {
		case string:
			if !storable(k) || !storable(v) {
				return nil, notText(k)
			}
			f[k] = v
		case nil:
		default:
			return nil, problem.New(problem.Invalid, "invalid_request", "%s wants a text", clip(k, 64))
		}
	}
	return f, nil
}

// storable: text that every engine keeps as it is.
func storable(s string) bool { return utf8.ValidString(s) && !strings.ContainsRune(s, 0) }

func twice(name string) error {
	return problem.New(problem.Invalid, "invalid_request", "The parameter %q stands more than once; allowed is once (RFC 6749 section 3.2)", clip(name, 64))
}

func notText(name string) error {
	return problem.New(problem.Invalid, "invalid_request", "The parameter %q is not UTF-8, or has a NUL character", clip(name, 64))
}

// described keeps an error's text to the characters of RFC 6749 (sections 4.1.2.1
// and 5.2), which leave quotes, backslashes and all but ASCII out.
func described(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '"':
			return '\''
		case r == '\\':
			return '/'
		case r < ' ' || r > '~':
			return '?'
		}
		return r
	}, s)
}

// TokenResponse is RFC 6749 section 5.1.
type tokenResponse struct {
	AccessToken  string `json:"access_token"`
	RefreshToken string `json:"refresh_token,omitempty"`
	IDToken      string `json:"id_token,omitempty"`
	Scope        string `json:"scope,omitempty"`
	ExpiresIn    int    `json:"expires_in"`
	TokenType    string `json:"token_type"`
}

// token serves RFC 6749 section 3.2.
func (p *Provider) token(w http.ResponseWriter, r *http.Request) error {
	f, err := readForm(r)
	if err != nil {
		return err
	}
	grant := f.get("grant_type")
	handle := map[string]func(*http.Request, form, *tenant.Client) (*tokenResponse, error){
		grantCode: p.exchangeCode, grantClientCredentials: p.clientCredentials, grantRefresh: p.refresh,
		grantPassword: p.password, grantPasswordRealm: p.password,
	}[grant]
	if grant == "" {
		return problem.New(problem.Invalid, "invalid_request", "Missing required parameter: grant_type")
	}
	if handle == nil {
		return problem.New(problem.Invalid, "unsupported_grant_type", "Unsupported grant type: %s", clip(grant, 128))
	}
	client, err := p.authenticateClient(r, f)
	if err != nil {
		return err
	}
	web.EventFrom(r.Context()).Set("client_id", client.ID)
	web.EventFrom(r.Context()).Set("grant_type", grant)
	if !client.Grants(grant) {
		return problem.New(problem.Forbidden, "unauthorized_client", "Grant type '%s' not allowed for the client.", grant)
	}
	resp, err := handle(r, f, client)
	if err != nil {
		return err
	}
	w.Header().Set("Pragma", "no-cache")
	return web.JSON(w, http.StatusOK, resp)
}

// failed writes the log event of a grant that was refused, and passes the error
// on. Errors of our own are in the node's log instead.
func (p *Provider) failed(r *http.Request, typ tenant.LogType, client *tenant.Client, userID string, err error) error {
	if e := problem.From(err); e.Kind != problem.Internal {
		ev := p.event(r, typ, client)
		ev.UserID, ev.Description = userID, e.Message
		p.log.Append(tenantOf(r.Context()), ev)
	}
	return err
}

func invalidGrant(format string, args ...any) *problem.Error {
	return problem.New(problem.Forbidden, "invalid_grant", format, args...)
}

// cors lets a client's own web origins call an endpoint from a browser.
func (p *Provider) cors(next web.HandlerFunc) web.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		p.allowOrigin(w, r)
		return next(w, r)
	}
}

// allowOrigin answers every origin: the endpoints take no cookies, so a page of a
// stranger can do here only what its server could do as well.
func (p *Provider) allowOrigin(w http.ResponseWriter, r *http.Request) {
	if origin := r.Header.Get("Origin"); origin != "" {
		w.Header().Set("Access-Control-Allow-Origin", "*")
		w.Header().Set("Access-Control-Expose-Headers", "X-Request-Id, WWW-Authenticate, Retry-After")
	}
}

func (p *Provider) preflight(w http.ResponseWriter, r *http.Request) error {
	p.allowOrigin(w, r)
	h := w.Header()
	h.Set("Access-Control-Allow-Methods", "GET, POST, OPTIONS")
	h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, Auth0-Client, DPoP")
	h.Set("Access-Control-Max-Age", "7200")
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// scopeOf joins scopes as they travel.
func scopeOf(s []string) string { return strings.Join(s, " ") }

// addQuery adds parameters to a URL that was checked before.
func addQuery(raw string, v url.Values) string {
	if len(v) == 0 {
		return raw
	}
	if strings.Contains(raw, "?") {
		return raw + "&" + v.Encode()
	}
	return raw + "?" + v.Encode()
}
