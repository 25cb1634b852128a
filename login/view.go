package login

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"path"
	"strings"

	"github.com/nicksnyder/go-i18n/v2/i18n"
	"golang.org/x/text/language"

	"github.com/portcullis-id/portcullis/authn"
	"github.com/portcullis-id/portcullis/oauth"
	"github.com/portcullis-id/portcullis/password"
	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/tenant"
	"github.com/portcullis-id/portcullis/web"
)

//go:embed templates locales assets
var files embed.FS

// languages have a file each in locales; the first is the one for everybody else.
var languages = []language.Tag{language.English, language.German, language.French, language.Spanish}

// view renders pages.
type view struct {
	pages  map[string]*template.Template
	bundle *i18n.Bundle
	match  language.Matcher
	css    string // name of the stylesheet, with the hash of its content
	styles []byte
}

func newView() (*view, error) {
	v := &view{pages: map[string]*template.Template{}, bundle: i18n.NewBundle(language.English), match: language.NewMatcher(languages)}
	v.bundle.RegisterUnmarshalFunc("json", json.Unmarshal)
	for _, tag := range languages {
		if _, err := v.bundle.LoadMessageFileFS(files, "locales/"+tag.String()+".json"); err != nil {
			return nil, fmt.Errorf("read the texts in %s: %w", tag, err)
		}
	}
	var err error
	if v.styles, err = files.ReadFile("assets/portcullis.css"); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(v.styles)
	v.css = "portcullis-" + base64.RawURLEncoding.EncodeToString(sum[:9]) + ".css"
	names, err := fs.Glob(files, "templates/*.html")
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if path.Base(name) == "layout.html" {
			continue
		}
		t, err := template.ParseFS(files, "templates/layout.html", name)
		if err != nil {
			return nil, fmt.Errorf("read the page %s: %w", name, err)
		}
		v.pages[strings.TrimSuffix(path.Base(name), ".html")] = t
	}
	return v, nil
}

// Stylesheet is the path of the sheet that all pages share.
func (p *Pages) Stylesheet() string { return p.view.stylesheet() }

func (v *view) stylesheet() string { return "/u/assets/" + v.css }

// asset serves the stylesheet. Its name changes with its content, so browsers
// keep it for good.
func (v *view) asset(w http.ResponseWriter, r *http.Request) {
	if r.PathValue("name") != v.css {
		http.NotFound(w, r)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/css; charset=utf-8")
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	h.Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(v.styles)
}

// Headers sets what every page has. The policy lets nothing run and nothing frame
// the page. It says nothing of form-action: browsers hold redirects of a form to
// it too, and a login ends with one to the application, wherever that leads.
func Headers(h http.Header) {
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; img-src 'self' data: https:; base-uri 'none'; frame-ancestors 'none'")
	h.Set("X-Frame-Options", "DENY")
	h.Set("X-Content-Type-Options", "nosniff")
	// Addresses of pages hold tickets, which no other site may learn. "no-referrer"
	// would do more than that: it turns the Origin of our own forms into "null", and
	// browsers without Sec-Fetch-Site could not be told from strangers.
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Strict-Transport-Security", "max-age=31536000")
	h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
}

func (v *view) render(w http.ResponseWriter, _ *http.Request, status int, page string, d *data) error {
	d.CSS = v.stylesheet()
	var b bytes.Buffer
	if err := v.pages[page].ExecuteTemplate(&b, "layout", d); err != nil {
		return fmt.Errorf("render the page %s: %w", page, err)
	}
	Headers(w.Header())
	w.WriteHeader(status)
	_, err := w.Write(b.Bytes())
	return err
}

type button struct{ Name, Strategy, URL string }

type field struct{ Name, Value string }

// data is what pages show.
type data struct {
	localizer *i18n.Localizer

	Lang, CSS      string
	Product, Logo  string // of the tenant
	Application    string
	AppLogo        string
	Support        string
	State          string
	Title, Heading string
	Text           string
	Hint           string
	Fault          string // what was wrong with the last try
	FaultField     string // which field it is about
	Identifier     string
	Email          string
	Username       bool // the connection has usernames
	Password       bool // there is a form for passwords
	Rules          []string
	Buttons        []button
	SignupURL      string
	ResetURL       string
	LoginURL       string
	NextURL        string
	ButtonText     string
	Action         string
	Hidden         []field
	Ticket         string
	Question       *oauth.Question
	RequestID      string
	Code           string
	Message        string
	Todo           string // what to do about it
}

// T is a text in the user's language. Arguments are names and values in turn.
func (d *data) T(id string, args ...any) string {
	values := map[string]any{"Product": d.Product, "Application": d.Application, "Email": d.Email}
	for i := 0; i+1 < len(args); i += 2 {
		if name, ok := args[i].(string); ok {
			values[name] = args[i+1]
		}
	}
	s, err := d.localizer.Localize(&i18n.LocalizeConfig{MessageID: id, TemplateData: values, PluralCount: values["N"]})
	if err != nil && s == "" {
		return id
	}
	return s
}

// Scope is what a scope lets an application do, in words.
func (d *data) Scope(s tenant.Scope) string {
	if s.Description != "" {
		return s.Description
	}
	switch s.Value {
	case "openid", "profile", "email", "phone", "address", "offline_access":
		return d.T("scope." + s.Value)
	}
	return s.Value
}

func (d *data) says(title, text string) *data {
	d.Title, d.Heading, d.Text = title, d.T(title), text
	return d
}

// rules are the policy of a connection in the user's language.
func (d *data) rules(c *tenant.Connection) []string {
	o := c.DatabaseOptions()
	policy := password.NewPolicy(o)
	out := []string{d.T("rule.length", "N", policy.MinLength())}
	switch o.PasswordPolicy {
	case "fair":
		out = append(out, d.T("rule.fair"))
	case "good", "excellent":
		out = append(out, d.T("rule.good"))
	}
	if o.PasswordPolicy == "excellent" {
		out = append(out, d.T("rule.excellent"))
	}
	return out
}

// passwordFaults have words of their own in every language.
var passwordFaults = []struct {
	err error
	id  string
}{
	{password.ErrShort, "fault.password_short"}, {password.ErrWeak, "fault.password_weak"}, {password.ErrCommon, "fault.password_common"},
	{password.ErrPersonal, "fault.password_personal"}, {password.ErrUsed, "fault.password_used"}, {password.ErrCharacters, "fault.password_characters"},
}

// FaultAt is what was wrong with a field, or with field "" what was wrong with
// the form as a whole.
func (d *data) FaultAt(field string) string {
	if d.FaultField != field {
		return ""
	}
	return d.Fault
}

// fault puts an error beside the field that it is about.
func (d *data) fault(err error) {
	if err == nil {
		return
	}
	e := problem.From(err)
	field := ""
	switch e.Code {
	case "invalid_email":
		field = "email"
	case authn.CodeExists:
		field = "email"
	case "invalid_username":
		field = "identifier"
	case authn.CodePassword:
		field = "password"
	case "password_mismatch":
		field = "repeat"
	case "upstream_failed":
		field = "provider"
	}
	d.FaultField = field
	for _, f := range passwordFaults {
		if errors.Is(err, f.err) {
			d.Fault = d.T(f.id)
			return
		}
	}
	d.Fault = d.say("fault."+e.Code, e.Message)
}

// say is a text, or the other one where there is none in any language.
func (d *data) say(id, otherwise string) string {
	if s := d.T(id); s != id {
		return s
	}
	return otherwise
}

// data begins what a page shows: the tenant, the application, the language.
func (p *Pages) data(r *http.Request, s *subject) *data {
	d := &data{}
	var wanted []string
	var settings *tenant.Settings
	if name := tenantName(r.Context()); name != "" {
		d.Product = name
		var err error
		if settings, err = p.dir.Settings(r.Context(), name); err != nil {
			// The page is shown all the same, without the tenant's own look.
			web.EventFrom(r.Context()).Set("settings_error", err.Error())
		} else {
			if settings.FriendlyName != "" {
				d.Product = settings.FriendlyName
			}
			d.Support = settings.SupportURL
			if d.Support == "" && settings.SupportEmail != "" {
				d.Support = "mailto:" + settings.SupportEmail
			}
			d.Logo = httpsOnly(settings.PictureURL)
		}
	}
	if s != nil {
		d.State = s.State
		if s.Client != nil {
			d.Application, d.AppLogo = s.Client.Name, httpsOnly(s.Client.LogoURI)
		}
		if s.Transaction != nil {
			wanted = append(wanted, s.Request.UILocales...)
		}
	}
	wanted = append(wanted, r.Header.Get("Accept-Language"))
	tag := p.view.language(wanted, settings)
	d.localizer = i18n.NewLocalizer(p.view.bundle, tag.String(), language.English.String())
	d.Lang = tag.String()
	return d
}

// language chooses among the languages that there are texts in, those of the
// tenant first when it limits them.
func (v *view) language(wanted []string, settings *tenant.Settings) language.Tag {
	var prefs []language.Tag
	for _, w := range wanted {
		if len(w) > 256 {
			continue
		}
		if tags, _, err := language.ParseAcceptLanguage(w); err == nil {
			prefs = append(prefs, tags...)
		}
	}
	allowed := map[string]bool{}
	if settings != nil {
		for _, l := range settings.EnabledLocales {
			if tag, err := language.Parse(l); err == nil {
				base, _ := tag.Base()
				allowed[base.String()] = true
			}
		}
	}
	for _, pref := range prefs {
		_, i, confidence := v.match.Match(pref)
		base, _ := languages[i].Base()
		if confidence >= language.High && (len(allowed) == 0 || allowed[base.String()]) {
			return languages[i]
		}
	}
	if settings != nil {
		for _, l := range settings.EnabledLocales {
			if tag, err := language.Parse(l); err == nil {
				if _, i, c := v.match.Match(tag); c >= language.High {
					return languages[i]
				}
			}
		}
	}
	return languages[0]
}

func httpsOnly(u string) string {
	if strings.HasPrefix(u, "https://") {
		return u
	}
	return ""
}

// avatar draws one or two initials: pictures of users without a stranger's
// server.
func avatar(w http.ResponseWriter, r *http.Request) {
	letters, ok := strings.CutSuffix(r.PathValue("name"), ".svg")
	if !ok || len(letters) < 1 || len(letters) > 2 || strings.Trim(letters, "abcdefghijklmnopqrstuvwxyz") != "" {
		http.NotFound(w, r)
		return
	}
	hue := (int(letters[0])*37 + int(letters[len(letters)-1])*11) % 360
	h := w.Header()
	h.Set("Content-Type", "image/svg+xml")
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
	h.Set("Access-Control-Allow-Origin", "*")
	// #nosec G705 -- one or two letters from a to z, which were checked above
	fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 96 96" width="96" height="96"><rect width="96" height="96" fill="hsl(%d 45%% 38%%)"/><text x="48" y="50" fill="#fff" font-family="system-ui,sans-serif" font-size="40" font-weight="600" text-anchor="middle" dominant-baseline="central">%s</text></svg>`,
		hue, strings.ToUpper(letters))
}
