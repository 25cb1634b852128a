package appliance

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/portcullis-id/portcullis/overload"
	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/ratelimit"
	"github.com/portcullis-id/portcullis/tenant"
	"github.com/portcullis-id/portcullis/web"
)

// asks lists the buckets that a request to a tenant takes a token of, those that fit
// the request most closely first: what they refuse costs the others nothing.
func asks(r *http.Request, t string, ip string) []ratelimit.Request {
	var out []ratelimit.Request
	add := func(bucket string, key ...string) {
		out = append(out, ratelimit.Request{Bucket: bucket, Key: ratelimit.BoundKey(strings.Join(append([]string{t}, key...), "|"))})
	}
	path, post := r.URL.Path, r.Method == http.MethodPost
	if rest, ok := strings.CutPrefix(path, "/api/v2/"); ok {
		parts := strings.Split(rest, "/")
		switch {
		case post && rest == "keys/signing/rotate":
			add(ratelimit.SigningKeyRotation)
		case len(parts) == 3 && parts[0] == "connections" && parts[2] == "status":
			add(ratelimit.ConnectionStatus)
		case post && len(parts) == 3 && parts[0] == "custom-domains" && parts[2] == "verify":
			add(ratelimit.CustomDomainVerify)
		}
		if token := bearer(r); token != "" {
			add(ratelimit.ManagementAPIToken, token)
		}
		add(ratelimit.ManagementAPI)
		return out
	}
	switch {
	case path == "/userinfo":
		if token := bearer(r); token != "" {
			add(ratelimit.UserInfo, token)
		}
	case post && path == "/oauth/token":
		f := peek(r)
		grant := f.Get("grant_type")
		switch {
		case (grant == "password" || strings.HasSuffix(grant, "/password-realm")) && f.Get("username") != "":
			add(ratelimit.Login, folded(f.Get("username")), ip)
		case grant == "urn:ietf:params:oauth:grant-type:token-exchange":
			add(ratelimit.NativeSocial)
		}
		id := f.Get("client_id")
		if user, _, ok := r.BasicAuth(); ok && id == "" {
			id = user
		}
		if id != "" {
			add(ratelimit.TokenClient, id)
		}
	case post && path == "/u/login":
		if user := peek(r).Get("username"); user != "" {
			add(ratelimit.Login, folded(user), ip)
		}
	case post && (path == "/dbconnections/signup" || path == "/u/signup"):
		add(ratelimit.Signup, ip)
	case post && path == "/dbconnections/change_password", post && path == "/u/reset-password":
		f := peek(r)
		mail := f.Get("email")
		if mail == "" {
			mail = f.Get("username")
		}
		if mail != "" {
			add(ratelimit.ChangePassword, folded(mail), ip)
		}
	case post && path == "/passwordless/start":
		add(ratelimit.PasswordlessStart, ip)
	}
	add(ratelimit.AuthenticationAPIIP, ip)
	add(ratelimit.AuthenticationAPI)
	return out
}

func folded(s string) string { return strings.ToLower(strings.TrimSpace(s)) }

// bearer is a short stand-in of the access token that a request brings; empty where
// it brings none. Whose it is nobody has checked yet.
func bearer(r *http.Request) string {
	scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:12])
}

// maxPeek bounds how much of a body is read to find out who it is about, in bytes.
const maxPeek = 64 << 10

// peek reads the form or the JSON object of a request, and leaves the body as it was.
// What cannot be read has no values: its handler says what is wrong.
func peek(r *http.Request) url.Values {
	if r.Body == nil || r.Body == http.NoBody {
		return nil
	}
	rest := r.Body
	head, err := io.ReadAll(io.LimitReader(rest, maxPeek))
	after := io.Reader(rest)
	if err != nil {
		after = failing{err}
	}
	r.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(head), after), rest}
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/json") {
		var m map[string]any
		if json.Unmarshal(head, &m) != nil {
			return nil
		}
		out := url.Values{}
		for _, k := range []string{"grant_type", "username", "email", "client_id"} {
			if s, ok := m[k].(string); ok {
				out.Set(k, s)
			}
		}
		return out
	}
	f, err := url.ParseQuery(string(head))
	if err != nil {
		return nil
	}
	return f
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// place is the address of a client as a key: IPv6 networks of 64 bits belong to one
// host or household.
func place(a netip.Addr) string {
	if a.Is6() && !a.Is4In6() {
		if p, err := a.Prefix(64); err == nil {
			return p.String()
		}
	}
	return a.Unmap().String()
}

// handler counts requests to tenants and answers those that are too many. A request
// of the node's own host over the local socket is not counted.
func (l *limits) handler(next http.Handler) http.Handler {
	if !l.cfg.Enabled {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t, addr := tenant.FromContext(r.Context()), web.ClientIP(r.Context())
		if _, counted := class(r); !counted || t == nil || !addr.IsValid() || r.Method == http.MethodOptions {
			next.ServeHTTP(w, r)
			return
		}
		asked := asks(r, t.Name, place(addr))
		shown, refused := l.take(r.Context(), asked)
		if shown != nil {
			h := w.Header() // not by Set: the names are written as Auth0 writes them
			h["X-RateLimit-Limit"] = []string{strconv.FormatInt(shown.Limit, 10)}
			h["X-RateLimit-Remaining"] = []string{strconv.FormatInt(shown.Remaining, 10)}
			if !shown.Reset.IsZero() {
				h["X-RateLimit-Reset"] = []string{strconv.FormatInt(shown.Reset.Add(time.Second-1).Unix(), 10)}
			}
		}
		if refused {
			l.note(r, t.Name, shown)
			tooMany(w, r, shown)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// take takes all tokens that are asked for, up to the first that is not there. The
// decision to show is that one, or the one that is nearest to its limit.
func (l *limits) take(ctx context.Context, asked []ratelimit.Request) (shown *ratelimit.Decision, refused bool) {
	if l.shared {
		defer overload.Pause(ctx)() // another node may be asked
	}
	for _, req := range asked {
		d, err := l.service.Take(ctx, req)
		if err != nil {
			web.EventFrom(ctx).Set("rate_limit_error", err.Error())
			continue
		}
		if !d.Conformant {
			return &d, true
		}
		if d.Unlimited {
			continue
		}
		if shown == nil || d.Remaining*shown.Limit < shown.Remaining*d.Limit {
			shown = &d
		}
	}
	return shown, false
}

// note writes a log event of the tenant, one a minute for each key.
func (l *limits) note(r *http.Request, t string, d *ratelimit.Decision) {
	web.EventFrom(r.Context()).Set("rate_limit", d.Bucket)
	once, err := l.service.Take(r.Context(), ratelimit.Request{Bucket: ratelimit.LogEvents, Key: ratelimit.BoundKey(d.Bucket + "|" + d.Key)})
	if err != nil || !once.Conformant {
		return
	}
	kind := map[string]tenant.LogType{ratelimit.Login: tenant.LogManyLogins, ratelimit.Signup: tenant.LogIPBlocked}[d.Bucket]
	if kind == "" {
		kind = tenant.LogAPILimit
	}
	agent := r.UserAgent()
	if len(agent) > 512 {
		agent = agent[:512]
	}
	details, err := json.Marshal(map[string]any{"bucket": d.Bucket, "limit": d.Limit, "path": r.URL.Path, "method": r.Method})
	if err != nil {
		return
	}
	l.log.Append(t, tenant.LogEvent{Type: kind, Description: "Too many requests: the limit of the bucket " + d.Bucket + " is reached", IP: web.ClientIP(r.Context()).String(),
		UserAgent: agent, Hostname: r.Host, Details: details})
}

const tooManyText = "Global limit has been reached"

// tooMany answers in the form of the surface.
func tooMany(w http.ResponseWriter, r *http.Request, d *ratelimit.Decision) {
	wait := max(time.Second, d.RetryAfter)
	e := problem.New(problem.Limited, "too_many_requests", "%s", tooManyText)
	web.EventFrom(r.Context()).Fail(e.About(d.Bucket))
	seconds := int64((wait + time.Second - 1) / time.Second)
	w.Header().Set("Retry-After", strconv.FormatInt(seconds, 10))
	if r.Header.Get("Origin") != "" {
		// No cookie and no secret has been looked at: a script may read that it has to wait.
		w.Header().Set("Access-Control-Allow-Origin", "*")
		w.Header().Set("Access-Control-Expose-Headers", "Retry-After, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset")
	}
	status, path := http.StatusTooManyRequests, r.URL.Path
	detail := fmt.Sprintf("Too many requests. Check the X-RateLimit-Limit, X-RateLimit-Remaining and X-RateLimit-Reset headers, and try again in %d s.", seconds)
	switch {
	case strings.HasPrefix(path, "/api/v2/"):
		_ = web.JSON(w, status, map[string]any{"statusCode": status, "error": http.StatusText(status), "message": e.Message, "errorCode": e.Code})
	case strings.HasPrefix(path, "/dbconnections/"):
		_ = web.JSON(w, status, map[string]any{"statusCode": status, "name": "TooManyRequests", "code": e.Code, "description": detail, "error": e.Code, "message": e.Message})
	case isAPI(path) || strings.HasPrefix(path, "/passwordless/") || strings.HasPrefix(path, "/mfa/"):
		_ = web.JSON(w, status, map[string]string{"error": e.Code, "error_description": detail})
	default:
		h := w.Header()
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
		w.WriteHeader(status)
		_, _ = fmt.Fprintf(w, tooManyPage, inWords(wait))
	}
}

// inWords is a wait for people.
func inWords(d time.Duration) string {
	switch {
	case d <= 90*time.Second:
		return fmt.Sprintf("%d seconds", int64((d+time.Second-1)/time.Second))
	case d <= 90*time.Minute:
		return fmt.Sprintf("%d minutes", int64((d+time.Minute-1)/time.Minute))
	}
	return fmt.Sprintf("%d hours", int64((d+time.Hour-1)/time.Hour))
}

const tooManyPage = `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Too many requests</title><style>body{font:1rem/1.5 system-ui,sans-serif;max-width:26rem;margin:20vh auto;padding:0 1.25rem;text-align:center;color:#1f2430}
@media (prefers-color-scheme:dark){body{background:#15171c;color:#e8eaf0}}</style></head>
<body><main><h1>Too many requests</h1><p>This was tried very often in a short time. Go back and try again in %s.</p></main></body></html>
`
