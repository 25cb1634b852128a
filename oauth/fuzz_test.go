package oauth

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"html"
	"io"
	"mime"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/portcullis-id/portcullis/once"
	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/tenant"
)

type silentLog struct{}

func (silentLog) Append(string, tenant.LogEvent) {}

type plainPages struct{}

func (plainPages) Error(w http.ResponseWriter, _ *http.Request, e *problem.Error) {
	w.WriteHeader(e.HTTPStatus())
}
func (plainPages) ConfirmLogout(http.ResponseWriter, *http.Request, url.Values) error { return nil }
func (plainPages) LoggedOut(http.ResponseWriter, *http.Request)                       {}

type object = map[string]any

// furnished is a provider with an application of every kind.
func furnished(t testing.TB, credentials ...object) *Provider {
	t.Helper()
	p := provider(t)
	p.log, p.pages = silentLog{}, plainPages{}
	var ids []object
	for _, c := range credentials {
		ids = append(ids, object{"id": c["id"]})
	}
	err := p.docs.Write(t.Context(), "acme", func(tx tenant.Tx) error {
		for id, c := range map[string]object{
			"app1": {"client_id": "app1", "name": "App", "callbacks": []string{"https://app.test/cb", "http://127.0.0.1/cb", "https://app.test/cb?x=1"}, "web_origins": []string{"https://app.test"},
				"token_endpoint_auth_method": "none", "grant_types": []string{"authorization_code", "refresh_token"}, "is_first_party": true},
			"app2": {"client_id": "app2", "name": "Key", "grant_types": []string{"client_credentials"},
				"client_authentication_methods": object{"private_key_jwt": object{"credentials": ids}}},
		} {
			if err := tenant.Add(tx, tenant.KindClient, id, c); err != nil {
				return err
			}
		}
		for _, c := range credentials {
			if err := tenant.Add(tx, tenant.KindClientCredential, c["id"].(string), c); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *Provider) handler() http.Handler {
	mux := http.NewServeMux()
	p.Register(mux)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mux.ServeHTTP(w, r.WithContext(tenant.WithTenant(r.Context(), &tenant.Tenant{Name: "acme"})))
	})
}

// plainText reports whether a text is of the characters of RFC 6749's
// error_description (sections 4.1.2.1 and 5.2).
func plainText(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c > 0x7e || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

// FuzzAuthorize: whatever stands in an authorization request, the browser goes to
// a page of ours with a transaction that opens again, or to a registered redirect
// URI with an answer in the form of the RFC, or nowhere.
func FuzzAuthorize(f *testing.F) {
	const good = "client_id=app1&response_type=code&redirect_uri=https%3A%2F%2Fapp.test%2Fcb&scope=openid+email&state=s&code_challenge_method=S256&code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
	for _, s := range []string{good, good + "&prompt=none", good + "&prompt=login+consent&max_age=0", good + "&ui_locales=de+fr&login_hint=a%40b", good + "&screen_hint=signup",
		good + "&audience=x", good + "&response_mode=fragment&request=x", good + "&response_mode=form_post&max_age=-1", good + "&response_mode=web_message&prompt=none", good + "&response_mode=%22",
		good + "&nonce=%FF", good + "&login_hint=%00", strings.Replace(good, "https%3A%2F%2Fapp.test%2Fcb", "http%3A%2F%2F127.0.0.1%3A5%2Fcb", 1),
		strings.Replace(good, "https%3A%2F%2Fapp.test%2Fcb", "https%3A%2F%2Fapp.test%2Fcb%3Fx%3D1&prompt=none", 1), strings.Replace(good, "state=s", "state=%3C%22%27%3E", 1),
		strings.Replace(good, "app1", "app2", 1), good + "&client_id=app2", "client_id=app1", "%zz", "a;b",
		good + "&nonce=" + strings.Repeat("%3C", 2000) + "&login_hint=" + strings.Repeat("%3C", 2000)} {
		f.Add(s, false)
		f.Add(s, true)
	}
	p := furnished(f)
	h := p.handler()
	w := httptest.NewRecorder()
	if h.ServeHTTP(w, httptest.NewRequest("GET", "https://acme.id.test/authorize?"+good, nil)); !strings.HasPrefix(w.Header().Get("Location"), LoginPath) {
		f.Fatalf("a good request: %d", w.Code)
	}
	f.Fuzz(func(t *testing.T, params string, post bool) {
		r := &http.Request{Method: http.MethodGet, URL: &url.URL{Path: "/authorize", RawQuery: params}, Host: "acme.id.test", Header: http.Header{}, Body: http.NoBody}
		if post {
			r.Method, r.URL.RawQuery = http.MethodPost, ""
			r.Body, r.Header["Content-Type"] = io.NopCloser(strings.NewReader(params)), []string{"application/x-www-form-urlencoded"}
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r.WithContext(t.Context()))
		values, err := url.ParseQuery(params)
		if err != nil && w.Code != http.StatusBadRequest {
			t.Fatalf("%d for a request that cannot be read", w.Code)
		}
		to := w.Header().Get("Location")
		switch {
		case w.Code == http.StatusFound && (strings.HasPrefix(to, LoginPath+"?state=") || strings.HasPrefix(to, SignupPath+"?state=")):
			_, state, _ := strings.Cut(to, "=")
			checkTransaction(t, p, w, state, values)
		case w.Code == http.StatusFound:
			if !matchRedirect([]string{"https://app.test/cb", "http://127.0.0.1/cb", "https://app.test/cb?x=1"}, values.Get("redirect_uri"), false) {
				t.Fatalf("the browser goes to %s", to)
			}
			answer, ok := strings.CutPrefix(to, values.Get("redirect_uri"))
			if !ok || answer == "" || !strings.ContainsRune("?&#", rune(answer[0])) {
				t.Fatalf("the browser goes to %s", to)
			}
			v, err := url.ParseQuery(answer[1:])
			if err != nil || v.Get("iss") != p.dir.URL("acme") || v.Get("state") != values.Get("state") || v.Get("code") != "" {
				t.Fatalf("the answer is %s, %v", to, err)
			}
			if v.Get("error") == "" || !plainText(v.Get("error")) || !plainText(v.Get("error_description")) {
				t.Fatalf("the error is not of RFC 6749's characters: %s", to)
			}
		case w.Code == http.StatusOK: // form_post and web_message
			body := html.UnescapeString(w.Body.String())
			if !strings.Contains(body, `action="`+values.Get("redirect_uri")+`"`) && !strings.Contains(body, `,"https://app.test")})()`) {
				t.Fatalf("the page does not lead to the application: %s", w.Body)
			}
			if s := values.Get("state"); s != "" && strings.Contains(s, "<") && strings.Contains(w.Body.String(), s) {
				t.Fatalf("state is on the page as it came: %s", w.Body)
			}
		case w.Code < 400 || w.Code >= 500:
			t.Fatalf("status %d", w.Code)
		}
	})
}

// checkTransaction: what was sealed for the pages opens for the same browser, and
// says what the request said.
func checkTransaction(t *testing.T, p *Provider, w *httptest.ResponseRecorder, state string, v url.Values) {
	t.Helper()
	r := httptest.NewRequest("GET", "https://acme.id.test/u/login", nil)
	r = r.WithContext(tenant.WithTenant(r.Context(), &tenant.Tenant{Name: "acme"}))
	for _, c := range w.Result().Cookies() {
		r.AddCookie(c)
	}
	state, err := url.QueryUnescape(state)
	if err != nil {
		t.Fatal(err)
	}
	tx, err := p.Transaction(r, state)
	if err != nil {
		t.Fatalf("the transaction does not open: %v, %v", err, errors.Unwrap(err))
	}
	q := tx.Request
	if q.ClientID != "app1" || q.State != v.Get("state") || q.Nonce != v.Get("nonce") || q.LoginHint != v.Get("login_hint") || q.CodeChallenge != v.Get("code_challenge") || q.RedirectSent && q.RedirectURI != v.Get("redirect_uri") {
		t.Fatalf("the transaction says otherwise than the request: %+v", q)
	}
	if q.ResponseType != "code" || len(q.CodeChallenge) != 43 || len(q.UILocales) > 10 || q.MaxAge != nil && *q.MaxAge < 0 || !matchRedirect([]string{"https://app.test/cb", "http://127.0.0.1/cb", "https://app.test/cb?x=1"}, q.RedirectURI, false) {
		t.Fatalf("the request should not have passed: %+v", q)
	}
	if again, err := parseScope(scopeOf(q.Scope)); err != nil || !slices.Equal(again, q.Scope) {
		t.Fatalf("scope %q, %v", q.Scope, err)
	}
	r.Header.Del("Cookie")
	if _, err := p.Transaction(r, state); !problem.Is(err, problem.Invalid) {
		t.Fatalf("another browser opens it: %v", err)
	}
}

// FuzzTransaction: a page's state opens whole, and in the browser that it was
// given to.
func FuzzTransaction(f *testing.F) {
	p := furnished(f)
	w := httptest.NewRecorder()
	r := httptest.NewRequest("GET", "https://acme.id.test/authorize", nil)
	ctx := tenant.WithTenant(f.Context(), &tenant.Tenant{Name: "acme"})
	if err := p.begin(w, r.WithContext(ctx), LoginPath, Request{ClientID: "app1"}, ""); err != nil {
		f.Fatal(err)
	}
	state := strings.TrimPrefix(w.Header().Get("Location"), LoginPath+"?state=")
	cookie := w.Result().Cookies()[0].Value
	other := once.New()
	f.Add(state, cookie)
	f.Add(state, other)
	f.Add(state, "")
	f.Add(state+"=", cookie)
	f.Add(state[:len(state)-1], cookie)
	f.Fuzz(func(t *testing.T, s, c string) {
		r := httptest.NewRequest("GET", "https://acme.id.test/u/login", nil)
		r.AddCookie(&http.Cookie{Name: browserCookie, Value: c})
		_, err := p.Transaction(r.WithContext(ctx), s)
		if err == nil && (s != state || strings.Trim(c, "\"") != cookie && !strings.Contains(r.Header.Get("Cookie"), cookie)) {
			t.Errorf("%q opened with the cookie %q", s, c)
		}
		if err != nil && !problem.Is(err, problem.Invalid) {
			t.Errorf("%q: %v", s, err)
		}
	})
}

// FuzzCookies: nothing but the value that was planted is a session, and a browser
// is bound by a value that it was given here, or by one of that length.
func FuzzCookies(f *testing.F) {
	p := furnished(f)
	ctx := tenant.WithTenant(f.Context(), &tenant.Tenant{Name: "acme"})
	value := once.New()
	settings, err := p.dir.Settings(ctx, "acme")
	if err != nil {
		f.Fatal(err)
	}
	err = p.docs.Write(ctx, "acme", func(tx tenant.Tx) error {
		_, err := p.newSession(tx, settings, Login{UserID: "auth0|1", Time: time.Now()}, value)
		return err
	})
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{sessionCookie + "=" + value, sessionCookie + `="` + value + `"`, sessionCookie + "=x; " + sessionCookie + "=" + value, sessionCookie + "=" + value[:10], browserCookie + "=" + value,
		browserCookie + "=" + strings.Repeat("\xff", len(value)), sessionCookie + "=" + strings.Repeat("a", 500), "=;=", ";;;", sessionCookie} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, header string) {
		r := httptest.NewRequest("GET", "https://acme.id.test/", nil).WithContext(ctx)
		r.Header.Set("Cookie", header)
		s, err := p.session(r)
		if err != nil {
			t.Fatalf("%q: %v", header, err)
		}
		if s != nil && !strings.Contains(header, value) {
			t.Fatalf("%q is a session", header)
		}
		w := httptest.NewRecorder()
		got := browser(w, r)
		planted := w.Result().Cookies()
		c, err := r.Cookie(browserCookie)
		kept := err == nil && len(c.Value) == len(value) && got == hashed(c.Value)
		fresh := len(planted) == 1 && planted[0].Name == browserCookie && got == hashed(planted[0].Value) && !strings.Contains(header, planted[0].Value)
		if kept == fresh || kept && len(planted) != 0 {
			t.Fatalf("%q: kept %v, fresh %v, %v", header, kept, fresh, planted)
		}
	})
}

// FuzzForm: a form has what net/url reads of it, each parameter once; a JSON body
// is one object of texts, each name once. Nothing is dropped or chosen in silence.
func FuzzForm(f *testing.F) {
	for _, kind := range []string{"application/x-www-form-urlencoded", "application/json", "application/json; charset=utf-8", "", "text/plain", "multipart/form-data; boundary=x", ";"} {
		for _, body := range []string{"grant_type=password&username=a%40b", "a=1&a=2", "a=%00", "a=%ff", "a;b=c", `{"grant_type":"password","x":null}`, `{"a":"1","a":"2"}`, `{"a":1}`, `{"a":"1"} {"b":"2"}`, `{"a":"\u0000"}`, `{"a":"\ud800"}`, "{\"a\":\"\xff\"}", `null`, `[]`, `{"a":{}}`} {
			f.Add(kind, body)
		}
	}
	f.Fuzz(func(t *testing.T, kind, body string) {
		r := httptest.NewRequest("POST", "https://acme.id.test/oauth/token?grant_type=other", strings.NewReader(body))
		r.Header["Content-Type"] = []string{kind}
		got, err := readForm(r)
		if err != nil {
			if !problem.Is(err, problem.Invalid) || problem.From(err).Code != "invalid_request" {
				t.Fatalf("%v", err)
			}
			return
		}
		for k, v := range got {
			if !utf8.ValidString(k) || !utf8.ValidString(v) || strings.ContainsRune(k+v, 0) {
				t.Fatalf("%q: %q cannot be stored", k, v)
			}
		}
		if media, _, _ := mime.ParseMediaType(kind); media == "application/json" {
			dec := json.NewDecoder(strings.NewReader(body))
			first, _ := dec.Token()
			names := 0
			for dec.More() {
				k, err := dec.Token()
				if err != nil {
					t.Fatalf("%v of %q", err, body)
				}
				v, err := dec.Token()
				if s, isText := v.(string); err != nil || v != nil && !isText || got[k.(string)] != s {
					t.Fatalf("%q: %v is %v, %v", body, k, v, err)
				}
				if v != nil {
					names++
				}
			}
			_, _ = dec.Token()
			if _, err := dec.Token(); first != json.Delim('{') || !errors.Is(err, io.EOF) || names != len(got) {
				t.Fatalf("%q was read as %v", body, got)
			}
			return
		}
		want, err := url.ParseQuery(body)
		if err != nil || len(want) != len(got) {
			t.Fatalf("%q was read as %v; %v", body, got, err)
		}
		for k, v := range want {
			if len(v) != 1 || got[k] != v[0] {
				t.Fatalf("%q was read as %v", body, got)
			}
		}
	})
}

// FuzzTokenErrors: whatever a client sends to the token endpoint, the answer is
// JSON in the form of RFC 6749 section 5.2.
func FuzzTokenErrors(f *testing.F) {
	for _, s := range []string{"grant_type=%22", "grant_type=authorization_code&client_id=app1&code=x", "grant_type=refresh_token&client_id=app1&refresh_token=%22", "grant_type=client_credentials&client_id=%00",
		"grant_type=client_credentials&client_id=%FF&client_secret=x", "grant_type=client_credentials&client_assertion=a.b.c&client_assertion_type=" + url.QueryEscape(assertionType), `a"=1&a"=2`} {
		f.Add(s, "")
		f.Add(s, "Basic "+base64.StdEncoding.EncodeToString([]byte("app1:%zz")))
	}
	h := furnished(f).handler()
	f.Fuzz(func(t *testing.T, body, authorization string) {
		r := httptest.NewRequest("POST", "https://acme.id.test/oauth/token", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Authorization", authorization)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r.WithContext(t.Context()))
		var e errorBody
		if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil || w.Code < 400 || w.Code >= 500 {
			t.Fatalf("%d %s: %v", w.Code, w.Body, err)
		}
		if e.Error == "" || !plainText(e.Error) || !plainText(e.Description) {
			t.Fatalf("the error is not of RFC 6749's characters: %s", w.Body)
		}
	})
}

// FuzzClientAssertion: believed is what a registered key signed, for this server,
// for a short while, once; whatever header and claims it has.
func FuzzClientAssertion(f *testing.F) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		f.Fatal(err)
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	p := furnished(f, object{"id": "cred1", "client_id": "app2", "credential_type": "public_key", "kid": "k1", "alg": "ES256", "public_key": string(public)})
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	p.now = func() time.Time { return now }
	ctx := tenant.WithTenant(f.Context(), &tenant.Tenant{Name: "acme"})

	const header = `{"alg":"ES256","kid":"k1"}`
	exp := "1767323105" // a minute from now
	claims := `{"iss":"app2","sub":"app2","aud":"https://acme.id.test/","jti":"1","exp":` + exp + `}`
	for signer := range byte(4) {
		f.Add(header, claims, signer)
	}
	for _, h := range []string{`{"alg":"none"}`, `{"alg":"HS256"}`, `{"alg":"ES256","jwk":{}}`, `{"alg":"ES256","crit":["b64"],"b64":false}`, `{"alg":"ES256","alg":"none"}`, `{"alg":"ES384"}`, `{}`} {
		f.Add(h, claims, byte(0))
	}
	for _, c := range []string{`{}`, `null`, strings.Replace(claims, exp, "1e300", 1), strings.Replace(claims, exp, "-1", 1), strings.Replace(claims, exp, `"1"`, 1), strings.Replace(claims, `"jti":"1",`, "", 1),
		strings.Replace(claims, "https://acme.id.test/", "https://other.id.test/", 1), strings.Replace(claims, `"https://acme.id.test/"`, `["x","https://acme.id.test"]`, 1), claims + claims,
		strings.Replace(claims, `"sub"`, `"SUB"`, 1), strings.Replace(claims, `"jti":"1"`, `"jti":"1","exp":1`, 1), strings.Replace(claims, `"jti"`, `"nbf":9999999999,"jti"`, 1)} {
		f.Add(header, c, byte(0))
	}
	enc := base64.RawURLEncoding.EncodeToString
	sign := func(k *ecdsa.PrivateKey, text string) []byte {
		sum := sha256.Sum256([]byte(text))
		r, s, err := ecdsa.Sign(rand.Reader, k, sum[:])
		if err != nil {
			return nil
		}
		out := make([]byte, 64)
		r.FillBytes(out[:32])
		s.FillBytes(out[32:])
		return out
	}
	// The seeds are worth something if the first of them is believed.
	text := enc([]byte(header)) + "." + enc([]byte(strings.Replace(claims, `"1"`, `"first"`, 1)))
	text += "." + enc(sign(key, text))
	if c, err := p.assertedClient(httptest.NewRequest("POST", "/oauth/token", nil).WithContext(ctx), form{"client_assertion_type": assertionType}, text); err != nil || c.ID != "app2" {
		f.Fatalf("a good assertion: %v", err)
	}
	f.Fuzz(func(t *testing.T, header, claims string, signer byte) {
		text := enc([]byte(header)) + "." + enc([]byte(claims))
		var sig []byte
		switch signer % 4 {
		case 0:
			sig = sign(key, text)
		case 1:
			sig = sign(stranger, text)
		case 2: // the public key, taken for a secret
			m := hmac.New(crypto.SHA256.New, public)
			m.Write([]byte(text))
			sig = m.Sum(nil)
		}
		assertion := text + "." + enc(sig)
		fm := form{"client_assertion_type": assertionType, "client_assertion": assertion}
		r := httptest.NewRequest("POST", "https://acme.id.test/oauth/token", nil).WithContext(ctx)
		c, err := p.assertedClient(r, fm, assertion)
		if err != nil {
			if k := problem.From(err).Kind; k != problem.Unauthorized && k != problem.Invalid {
				t.Fatalf("%s %s: %v", header, claims, err)
			}
			return
		}
		var want struct {
			Issuer  string  `json:"iss"`
			Subject string  `json:"sub"`
			ID      string  `json:"jti"`
			Expiry  float64 `json:"exp"`
			Before  float64 `json:"nbf"`
		}
		if err := json.Unmarshal([]byte(claims), &want); err != nil || signer%4 != 0 || c.ID != "app2" || want.Issuer != "app2" || want.Subject != "app2" || want.ID == "" ||
			!strings.Contains(claims, "acme.id.test") && !strings.Contains(claims, `\`) || want.Before > float64(now.Unix()+11) || want.Expiry < float64(now.Unix()-11) || want.Expiry > float64(now.Unix()+312) {
			t.Fatalf("%s %s was believed: %v", header, claims, err)
		}
		if _, err := p.assertedClient(r, fm, assertion); !problem.Is(err, problem.Unauthorized) {
			t.Fatalf("%s was believed twice: %v", claims, err)
		}
	})
}

// FuzzPublicKey: what is read as a public key is one, and reads the same when it
// is written again.
func FuzzPublicKey(f *testing.F) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		f.Fatal(err)
	}
	good := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	for _, s := range []string{good, "garbage\n" + good, good + good, strings.ReplaceAll(good, "PUBLIC KEY", "CERTIFICATE"), strings.ReplaceAll(good, "PUBLIC KEY", "RSA PUBLIC KEY"), strings.ReplaceAll(good, "PUBLIC KEY", "PRIVATE KEY"), "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		key, err := publicKey(text)
		if err != nil {
			return
		}
		type comparable interface{ Equal(crypto.PublicKey) bool }
		k, ok := key.(comparable)
		if !ok {
			t.Fatalf("a %T passes for a public key", key)
		}
		der, err := x509.MarshalPKIXPublicKey(key)
		if err != nil {
			t.Fatalf("%T: %v", key, err)
		}
		again, err := publicKey(string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})))
		if err != nil || !k.Equal(again) {
			t.Fatalf("%v and then %v, %v", key, again, err)
		}
	})
}

// FuzzAnswer: an answer in any mode keeps what it says inside: no parameter of it
// becomes markup, script or another parameter.
func FuzzAnswer(f *testing.F) {
	for _, s := range []string{"x", `"><script>`, "</script>", "a&b=c#d", "\u2028", "'", "\r\nSet-Cookie: a=b", "é"} {
		for mode := range byte(4) {
			f.Add(s, mode)
		}
	}
	p := furnished(f)
	ctx := tenant.WithTenant(f.Context(), &tenant.Tenant{Name: "acme"})
	f.Fuzz(func(t *testing.T, state string, mode byte) {
		req := Request{RedirectURI: "https://app.test/cb?x=1", State: state, ResponseMode: []string{"query", "fragment", "form_post", "web_message"}[mode%4]}
		w := httptest.NewRecorder()
		r := httptest.NewRequest("GET", "https://acme.id.test/authorize", nil).WithContext(ctx)
		if err := p.respond(w, r, req, url.Values{"code": {"c0de"}}); err != nil {
			t.Fatal(err)
		}
		if to := w.Header().Get("Location"); to != "" {
			u, err := url.Parse(to)
			if err != nil {
				t.Fatal(err)
			}
			v := u.Query()
			if mode%4 == 1 {
				if v, err = url.ParseQuery(u.EscapedFragment()); err != nil {
					t.Fatal(err)
				}
			}
			if u.Host != "app.test" || v.Get("state") != state || v.Get("code") != "c0de" || len(v) > 4 {
				t.Fatalf("%q became %s", state, to)
			}
			return
		}
		body := w.Body.String()
		if strings.Count(body, "<script") != 1 || strings.Count(body, "</script") != 1 || strings.Count(body, "<input") > 3 {
			t.Fatalf("%q broke out: %s", state, body)
		}
		if mode%4 == 3 && bytes.ContainsAny(w.Body.Bytes(), "\u2028\u2029") {
			t.Fatalf("%q is no JavaScript everywhere: %s", state, body)
		}
	})
}
