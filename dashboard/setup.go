package dashboard

import (
	"bytes"
	"context"
	"embed"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/portcullis-id/portcullis/login"
	"github.com/portcullis-id/portcullis/once"
	"github.com/portcullis-id/portcullis/password"
	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/tenant"
	"github.com/portcullis-id/portcullis/web"
)

//go:embed templates
var files embed.FS

// Paths of the set-up.
const (
	SetupPath       = "/setup"
	applicationPath = "/setup/application"
	readyPath       = "/setup/ready"
	tryPath         = "/setup/try"
	callbackPath    = "/setup/callback"
)

// Appliance is what the set-up does to the appliance. Errors of kind
// problem.Invalid and problem.Conflict are shown beside the form.
type Appliance interface {
	// CreateAdministrator makes a user who may administer the appliance, in the root
	// tenant's connection Config.Connection. The address counts as verified: who
	// holds the set-up link needs no mail. The connection's password policy holds
	// (code "invalid_password").
	CreateAdministrator(ctx context.Context, email, password string) (userID string, err error)
	// Tenants names the tenants that applications can be made in, the likeliest first.
	Tenants(ctx context.Context) ([]string, error)
	// CreateClient makes an application of a tenant and enables the tenant's database
	// connections for it.
	CreateClient(ctx context.Context, tenantID string, c NewClient) (clientID string, err error)
	// SetCallbacks replaces the callback URLs of an application.
	SetCallbacks(ctx context.Context, tenantID, clientID string, callbacks []string) error
}

// NewClient is the first application.
type NewClient struct {
	Name              string
	AppType           string   // regular_web, spa, native, non_interactive
	Callbacks         []string // empty for non_interactive
	WebOrigins        []string // of a spa
	AllowedLogoutURLs []string
}

// Config of a Setup.
type Config struct {
	Root       string   // the root tenant; it owns the set-up's token
	Hosts      []string // tenants on whose hosts the pages answer; the link names the first
	Connection string   // of administrators in the root tenant: "Initial-Connection"
	// CAFile is the root certificate of `start --dev`, for the settings of programs
	// that have to trust it; empty otherwise.
	CAFile string
}

// Deps are what a Setup works with.
type Deps struct {
	Docs      tenant.Docs
	Directory *tenant.Directory
	Keys      *tenant.Keys
	Appliance Appliance
	// Front serves this node's own requests as the HTTPS listener would: the test
	// login redeems its code there, without a way through the network.
	Front      http.Handler
	Stylesheet string       // path, of login.Pages
	Error      web.Renderer // of login.Pages
	Logger     *slog.Logger
	Now        func() time.Time
}

// Setup serves the first-run pages.
type Setup struct {
	cfg   Config
	deps  Deps
	pages map[string]*template.Template
	guard *http.CrossOriginProtection
	// first is held while an administrator is made: of two uses of one link at the
	// same time, one makes a user.
	first sync.Mutex
}

// New makes a Setup. It fails only when the embedded templates are broken.
func New(cfg Config, d Deps) (*Setup, error) {
	if d.Now == nil {
		d.Now = time.Now
	}
	s := &Setup{cfg: cfg, deps: d, pages: map[string]*template.Template{}, guard: http.NewCrossOriginProtection()}
	for _, name := range []string{"administrator", "application", "ready", "claims"} {
		t, err := template.ParseFS(files, "templates/layout.html", "templates/"+name+".html")
		if err != nil {
			return nil, fmt.Errorf("read the page %s: %w", name, err)
		}
		s.pages[name] = t
	}
	return s, nil
}

// SetFront completes a Setup before it serves, as the front door has the set-up
// behind it in turn.
func (s *Setup) SetFront(h http.Handler) { s.deps.Front = h }

// Register adds the pages to a mux below the host router.
func (s *Setup) Register(mux *http.ServeMux) {
	page := func(pattern string, h web.HandlerFunc) {
		mux.Handle(pattern, web.Handle(func(w http.ResponseWriter, r *http.Request) error {
			if t := tenant.FromContext(r.Context()); t == nil || !slices.Contains(s.cfg.Hosts, t.Name) {
				return problem.New(problem.NotFound, "", "There is no such page")
			}
			if err := s.guard.Check(r); err != nil {
				return problem.Wrap(problem.Forbidden, "cross_site_request", err, "This form was sent from another site. Open the set-up link again.")
			}
			r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
			if err := r.ParseForm(); err != nil {
				return problem.Wrap(problem.Invalid, "invalid_request", err, "The form cannot be read")
			}
			return h(w, r)
		}, s.deps.Error))
	}
	page("GET "+SetupPath, s.showAdministrator)
	page("POST "+SetupPath, s.createAdministrator)
	page("GET "+applicationPath, s.session(s.showApplication))
	page("POST "+applicationPath, s.session(s.createApplication))
	page("GET "+readyPath, s.session(s.showReady))
	page("POST "+tryPath, s.session(s.try))
	page("GET "+callbackPath, s.session(s.callback))
}

// data is what every page shows.
type data struct {
	Stylesheet string
	Title      string
	Step       int
	Form       string // proof of origin, see session.go
	Fault      string // what was wrong with the last try
	FaultField string

	Token, Email, Root string // administrator
	Rules              []string

	Tenants              []string // application
	Tenant, Name, Type   string
	Callback             string
	Types                []appType
	Domain, ClientID     string // ready
	Secret, Discovery    string
	Snippet              string
	Interactive          bool
	Claims               []claim // claims
	Application, Problem string
}

func (s *Setup) show(w http.ResponseWriter, status int, page string, d *data) error {
	d.Stylesheet = s.deps.Stylesheet
	var b bytes.Buffer
	if err := s.pages[page].ExecuteTemplate(&b, "layout", d); err != nil {
		return fmt.Errorf("render the page %s: %w", page, err)
	}
	login.Headers(w.Header())
	w.WriteHeader(status)
	_, err := w.Write(b.Bytes())
	return err
}

// fault shows an error that a person can mend, and reports whether it is one.
func (d *data) fault(err error, field string) bool {
	e := problem.From(err)
	switch {
	case e.Kind == problem.Invalid, e.Kind == problem.Conflict:
	case e.Kind == problem.Unavailable, e.Kind == problem.Limited:
	default:
		return false
	}
	d.Fault, d.FaultField = e.Message, field
	return true
}

// Link makes the link that opens the set-up, and ends those that were made
// before. It is empty when the root tenant has a user already.
func (s *Setup) Link(ctx context.Context) (string, error) {
	token := once.New()
	done := false
	err := s.deps.Docs.Write(ctx, s.cfg.Root, func(tx tenant.Tx) error {
		users, err := tx.Find(tenant.KindUser, tenant.Query{Limit: 1})
		if err != nil {
			return err
		}
		if done = len(users.Records) > 0; done {
			return nil
		}
		if _, err := once.Revoke(tx, once.Setup, linkSubject); err != nil {
			return err
		}
		return once.Put(tx, once.Setup, token, linkSubject, ticket{Use: useLink}, linkTTL)
	})
	if err != nil || done {
		return "", err
	}
	return strings.TrimSuffix(s.deps.Directory.URL(s.cfg.Hosts[0]), "/") + SetupPath + "?token=" + token, nil
}

func errLink(cause error) error {
	return problem.Wrap(problem.Forbidden, "invalid_setup_link", cause,
		"This set-up link is not valid: it was used before, has expired, or a later start of the node printed another. As long as there is no administrator, each start prints a new link.")
}

// peekLink fails unless a token opens the set-up.
func (s *Setup) peekLink(ctx context.Context, token string) error {
	return s.deps.Docs.Write(ctx, s.cfg.Root, func(tx tenant.Tx) error {
		var t ticket
		err := once.Peek(tx, once.Setup, token, &t)
		if c := problem.From(err).Code; c == once.CodeUnknown || c == once.CodeUsed || err == nil && t.Use != useLink {
			return errLink(err)
		}
		return err
	})
}

func (s *Setup) administratorPage(ctx context.Context, token string) *data {
	d := &data{Title: "Create the first administrator", Step: 1, Token: token, Root: s.cfg.Root}
	if c, err := s.deps.Directory.Connection(ctx, s.cfg.Root, s.cfg.Connection); err == nil {
		d.Rules = password.NewPolicy(c.DatabaseOptions()).Rules()
	}
	return d
}

func (s *Setup) showAdministrator(w http.ResponseWriter, r *http.Request) error {
	token := r.URL.Query().Get("token")
	if token == "" {
		if _, _, err := s.open(r); err == nil {
			return seeOther(w, r, applicationPath)
		}
	}
	if err := s.peekLink(r.Context(), token); err != nil {
		return err
	}
	return s.show(w, http.StatusOK, "administrator", s.administratorPage(r.Context(), token))
}

func (s *Setup) createAdministrator(w http.ResponseWriter, r *http.Request) error {
	token := r.PostForm.Get("token")
	s.first.Lock()
	defer s.first.Unlock()
	if err := s.peekLink(r.Context(), token); err != nil {
		return err
	}
	d := s.administratorPage(r.Context(), token)
	d.Email = strings.TrimSpace(r.PostForm.Get("email"))
	plain := r.PostForm.Get("password")
	switch {
	case plain == "":
		// An account without a password is possible (accounts of other providers have
		// none), and would use the link up for nobody.
		d.Fault, d.FaultField = "Choose a password.", "password"
	case plain != r.PostForm.Get("repeat"):
		d.Fault, d.FaultField = "The two passwords differ.", "repeat"
	}
	if d.Fault != "" {
		return s.show(w, http.StatusBadRequest, "administrator", d)
	}
	userID, err := s.deps.Appliance.CreateAdministrator(r.Context(), d.Email, plain)
	if err != nil {
		field := "email"
		if problem.From(err).Code == "invalid_password" {
			field = "password"
		}
		if d.fault(err, field) {
			return s.show(w, problem.From(err).HTTPStatus(), "administrator", d)
		}
		return err
	}
	// The user is there: the link has done its work, whatever happens now. It is
	// taken after the user was made, so that a password that is too weak costs
	// nothing; the lock keeps a second use from coming in between.
	value := once.New()
	err = s.deps.Docs.Write(r.Context(), s.cfg.Root, func(tx tenant.Tx) error {
		if err := once.Take(tx, once.Setup, token, nil); err != nil {
			return err
		}
		return once.Put(tx, once.Setup, value, userID, ticket{Use: useSession}, sessionTTL)
	})
	if err != nil {
		return fmt.Errorf("use up the set-up link: %w", err)
	}
	s.deps.Logger.InfoContext(r.Context(), "the first administrator was created", "tenant", s.cfg.Root, "user_id", userID)
	setCookie(w, value)
	return seeOther(w, r, applicationPath)
}

type appType struct{ Value, Label string }

var appTypes = []appType{
	{"regular_web", "Web application with a server (Express, Django, Spring, Go …)"},
	{"spa", "Single-page application (React, Vue, Angular …)"},
	{"native", "Native: mobile, desktop or command line"},
	{"non_interactive", "Machine to machine: no users, only programs"},
}

func (s *Setup) applicationPage(r *http.Request, value string) (*data, error) {
	d := &data{Title: "Create the first application", Step: 2, Form: formToken(value, applicationPath), Types: appTypes,
		Name: "My application", Type: appTypes[0].Value, Callback: "http://localhost:3000/callback"}
	var err error
	d.Tenants, err = s.deps.Appliance.Tenants(r.Context())
	if len(d.Tenants) > 0 {
		d.Tenant = d.Tenants[0]
	}
	return d, err
}

func (s *Setup) showApplication(w http.ResponseWriter, r *http.Request, value string, _ ticket) error {
	d, err := s.applicationPage(r, value)
	if err != nil {
		return err
	}
	return s.show(w, http.StatusOK, "application", d)
}

func (s *Setup) createApplication(w http.ResponseWriter, r *http.Request, value string, _ ticket) error {
	d, err := s.applicationPage(r, value)
	if err != nil {
		return err
	}
	f := r.PostForm
	d.Name, d.Type, d.Callback = strings.TrimSpace(f.Get("name")), f.Get("type"), strings.TrimSpace(f.Get("callback"))
	c := NewClient{Name: d.Name, AppType: d.Type}
	switch {
	case !slices.Contains(d.Tenants, f.Get("tenant")):
		d.Fault, d.FaultField = "Choose one of the tenants.", "tenant"
	case d.Name == "":
		d.Fault, d.FaultField = "Give the application a name.", "name"
	case !slices.ContainsFunc(appTypes, func(t appType) bool { return t.Value == d.Type }):
		d.Fault, d.FaultField = "Choose one of the types.", "type"
	case d.Type == "non_interactive":
	case d.Callback == "":
		d.Fault, d.FaultField = "Enter the URL to which users come back after they logged in.", "callback"
	default:
		c.Callbacks = []string{d.Callback}
		if o := origin(d.Callback); o != "" {
			c.AllowedLogoutURLs = []string{o}
			if d.Type == "spa" {
				c.WebOrigins = []string{o}
			}
		}
	}
	if d.Fault != "" {
		return s.show(w, http.StatusBadRequest, "application", d)
	}
	d.Tenant = f.Get("tenant")
	id, err := s.deps.Appliance.CreateClient(r.Context(), d.Tenant, c)
	if err != nil {
		if d.fault(err, "callback") {
			return s.show(w, problem.From(err).HTTPStatus(), "application", d)
		}
		return err
	}
	if err := s.move(w, r, value, ticket{Use: useSession, Tenant: d.Tenant, ClientID: id}); err != nil {
		return err
	}
	return seeOther(w, r, readyPath)
}

// origin is scheme and host of a web URL, or empty.
func origin(raw string) string {
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return ""
	}
	return u.Scheme + "://" + u.Host
}

func (s *Setup) showReady(w http.ResponseWriter, r *http.Request, value string, t ticket) error {
	if t.ClientID == "" {
		return seeOther(w, r, applicationPath)
	}
	d, err := s.readyPage(r, value, t)
	if err != nil {
		return err
	}
	return s.show(w, http.StatusOK, "ready", d)
}

func (s *Setup) readyPage(r *http.Request, value string, t ticket) (*data, error) {
	c, err := s.deps.Directory.Client(r.Context(), t.Tenant, t.ClientID)
	if err != nil {
		return nil, err
	}
	base := s.deps.Directory.URL(t.Tenant)
	d := &data{Title: "Your application is ready", Step: 3, Form: formToken(value, tryPath), Application: c.Name, ClientID: c.ID,
		Domain: s.deps.Directory.Host(t.Tenant), Discovery: base + ".well-known/openid-configuration", Interactive: c.Grants("authorization_code")}
	if c.TokenEndpointAuthMethod != "none" {
		d.Secret = c.Secret
	}
	d.Snippet = snippet(c, base, d.Domain, s.deps.Directory.ManagementAudience(t.Tenant), s.cfg.CAFile)
	return d, nil
}

// snippet is what the application's environment needs to know, by the names that
// the SDKs of its type read.
func snippet(c *tenant.Client, base, domain, audience, caFile string) string {
	var lines []string
	add := func(name, value string) { lines = append(lines, name+"="+shellQuote(value)) }
	switch c.AppType {
	case "spa":
		add("VITE_AUTH0_DOMAIN", domain)
		add("VITE_AUTH0_CLIENT_ID", c.ID)
	case "regular_web":
		add("ISSUER_BASE_URL", strings.TrimSuffix(base, "/"))
		add("CLIENT_ID", c.ID)
		add("CLIENT_SECRET", c.Secret)
		if len(c.Callbacks) > 0 {
			add("BASE_URL", origin(c.Callbacks[0]))
		}
		add("SECRET", tenant.NewSecret()) // of the application's own session cookie
	case "non_interactive":
		add("AUTH0_DOMAIN", domain)
		add("AUTH0_CLIENT_ID", c.ID)
		add("AUTH0_CLIENT_SECRET", c.Secret)
		add("AUTH0_AUDIENCE", audience)
	default:
		add("AUTH0_DOMAIN", domain)
		add("AUTH0_CLIENT_ID", c.ID)
	}
	if caFile != "" && c.AppType != "spa" { // browsers have their own list
		add("NODE_EXTRA_CA_CERTS", caFile)
		add("SSL_CERT_FILE", caFile)
	}
	return strings.Join(lines, "\n")
}

// shellQuote leaves plain words alone.
func shellQuote(s string) string {
	if strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:@%+,=") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

func seeOther(w http.ResponseWriter, r *http.Request, to string) error {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Referrer-Policy", "same-origin")
	http.Redirect(w, r, to, http.StatusSeeOther)
	return nil
}
