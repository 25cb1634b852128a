package login

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/portcullis-id/portcullis/authn"
	"github.com/portcullis-id/portcullis/oauth"
	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/tenant"
	"github.com/portcullis-id/portcullis/web"
)

// Upstream sends browsers to other providers and takes them back; upstream
// implements it.
type Upstream interface {
	// Supported reports whether there is a way to log in through a strategy.
	Supported(strategy string) bool
	// Begin redirects to the provider of a connection. State comes back from Finish.
	Begin(w http.ResponseWriter, r *http.Request, c *tenant.Connection, state, loginHint string) error
	// Finish reads the provider's answer. With an error, state is that of the login
	// that failed, or empty when it is not known.
	Finish(w http.ResponseWriter, r *http.Request) (state string, c *tenant.Connection, p authn.Profile, err error)
}

// Deps are what Pages work with.
type Deps struct {
	Directory *tenant.Directory
	Flow      oauth.Flow
	Users     *authn.Service
	Upstream  Upstream
	Logger    *slog.Logger
}

// Pages serves the hosted pages of all tenants.
type Pages struct {
	dir      *tenant.Directory
	flow     oauth.Flow
	users    *authn.Service
	upstream Upstream
	logger   *slog.Logger
	view     *view
}

var _ oauth.Pages = (*Pages)(nil)

// New makes Pages. It fails when the embedded templates or texts are broken.
func New(d Deps) (*Pages, error) {
	v, err := newView()
	if err != nil {
		return nil, err
	}
	return &Pages{dir: d.Directory, flow: d.Flow, users: d.Users, upstream: d.Upstream, logger: d.Logger, view: v}, nil
}

// Register adds the pages to a mux below the host router.
func (p *Pages) Register(mux *http.ServeMux) {
	// A post that a browser sends for another site is refused before anything looks at
	// it (Sec-Fetch-Site, or Origin in older browsers).
	guard := http.NewCrossOriginProtection()
	guard.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.Error(w, r, problem.New(problem.Forbidden, "cross_site_request", "This form was sent from another site. Go back to the application and begin again."))
	}))
	page := func(pattern string, h web.HandlerFunc) { mux.Handle(pattern, guard.Handler(web.Handle(h, p.Error))) }

	page("GET "+oauth.LoginPath, p.showLogin)
	page("POST "+oauth.LoginPath, p.postLogin)
	page("GET /u/login/connection", p.startUpstream)
	page("GET "+oauth.SignupPath, p.showSignup)
	page("POST "+oauth.SignupPath, p.postSignup)
	page("GET "+oauth.ConsentPath, p.showConsent)
	page("POST "+oauth.ConsentPath, p.postConsent)
	page("GET "+resetPath, p.showReset)
	page("POST "+resetPath, p.postReset)
	page("GET /u/email-verification", p.showVerification)
	page("POST /u/email-verification", p.postVerification)
	page("GET /u/logged-out", func(w http.ResponseWriter, r *http.Request) error { p.LoggedOut(w, r); return nil })
	page("GET /u/unblock", p.showUnblock)
	page("POST /u/unblock", p.postUnblock)
	// Other providers answer from their own sites, some with a form; the state of that
	// login is its own proof.
	mux.Handle("GET /login/callback", web.Handle(p.finishUpstream, p.Error))
	mux.Handle("POST /login/callback", web.Handle(p.finishUpstream, p.Error))
	mux.HandleFunc("GET /u/assets/{name}", p.view.asset)
	mux.HandleFunc("GET /avatars/{name}", avatar)
	p.registerAPI(mux)
}

// origin says where a request came from, for authn.
func origin(r *http.Request) authn.Origin {
	agent := r.UserAgent()
	if len(agent) > 512 {
		agent = agent[:512]
	}
	return authn.Origin{IP: web.ClientIP(r.Context()).String(), UserAgent: agent}
}

// subject is a transaction with what pages show of it.
type subject struct {
	*oauth.Transaction
	State    string
	Client   *tenant.Client
	Database *tenant.Connection   // where passwords are checked; nil for none
	Others   []*tenant.Connection // connections of other providers
}

// open reads the transaction of a page.
func (p *Pages) open(r *http.Request, state string) (*subject, error) {
	t, err := p.flow.Transaction(r, state)
	if err != nil {
		return nil, err
	}
	s := &subject{Transaction: t, State: state}
	if s.Client, err = p.dir.Client(r.Context(), t.Tenant, t.Request.ClientID); err != nil {
		return nil, err
	}
	all, err := p.dir.ConnectionsFor(r.Context(), t.Tenant, s.Client.ID)
	if err != nil {
		return nil, err
	}
	var databases []*tenant.Connection
	for _, c := range all {
		if want := t.Request.Connection; want != "" && c.Name != want && c.ID != want {
			continue
		}
		switch {
		case c.Database():
			databases = append(databases, c)
		case p.upstream != nil && p.upstream.Supported(c.Strategy):
			s.Others = append(s.Others, c)
		}
	}
	s.Database, err = p.database(r, t.Tenant, databases)
	return s, err
}

// database is where a page checks passwords when it may choose: the tenant's
// default directory, or else the first by name. An application whose users are
// in another one names it (parameter connection).
func (p *Pages) database(r *http.Request, tenantID string, all []*tenant.Connection) (*tenant.Connection, error) {
	if len(all) == 0 {
		return nil, nil
	}
	settings, err := p.dir.Settings(r.Context(), tenantID)
	if err != nil {
		return nil, err
	}
	if i := slices.IndexFunc(all, func(c *tenant.Connection) bool { return c.Name == settings.DefaultDirectory }); i >= 0 {
		return all[i], nil
	}
	return all[0], nil
}

func (s *subject) signup() bool {
	return s.Database != nil && !s.Database.DatabaseOptions().DisableSignup
}

func (s *subject) reset() bool {
	return s.Database != nil && !s.Database.DatabaseOptions().DisableSelfServiceChangePassword
}

// link is a page of the same transaction.
func (s *subject) link(path string) string { return path + "?state=" + url.QueryEscape(s.State) }

func (p *Pages) showLogin(w http.ResponseWriter, r *http.Request) error {
	s, err := p.open(r, r.URL.Query().Get("state"))
	if err != nil {
		return err
	}
	switch {
	case s.Database == nil && len(s.Others) == 0:
		return p.flow.Fail(w, r, s.Transaction, problem.New(problem.Forbidden, "unauthorized_client", "No connection that this server can use is enabled for the application"))
	case s.Database == nil && len(s.Others) == 1:
		return p.upstream.Begin(w, r, s.Others[0], s.State, s.Request.LoginHint)
	}
	return p.renderLogin(w, r, s, http.StatusOK, s.Request.LoginHint, nil)
}

func (p *Pages) renderLogin(w http.ResponseWriter, r *http.Request, s *subject, status int, identifier string, fault error) error {
	d := p.data(r, s)
	d.Identifier = identifier
	if s.Database != nil {
		d.Username = s.Database.DatabaseOptions().RequiresUsername
	}
	for _, c := range s.Others {
		name := c.DisplayName
		if name == "" {
			name = providerName(c)
		}
		d.Buttons = append(d.Buttons, button{Name: name, Strategy: c.Strategy,
			URL: "/u/login/connection?state=" + url.QueryEscape(s.State) + "&connection=" + url.QueryEscape(c.Name)})
	}
	d.Password = s.Database != nil
	if s.signup() {
		d.SignupURL = s.link(oauth.SignupPath)
	}
	if s.reset() {
		d.ResetURL = s.link(resetPath)
	}
	d.fault(fault)
	if status == http.StatusUnauthorized {
		status = http.StatusBadRequest // 401 wants a challenge that a browser answers (RFC 9110 section 15.5.2)
	}
	return p.view.render(w, r, status, "login", d)
}

// providerName is what a button says of a connection without a display name.
func providerName(c *tenant.Connection) string {
	switch c.Strategy {
	case "google-oauth2":
		return "Google"
	case "github":
		return "GitHub"
	case "windowslive":
		return "Microsoft"
	}
	return c.Name
}

func (p *Pages) postLogin(w http.ResponseWriter, r *http.Request) error {
	if err := r.ParseForm(); err != nil {
		return badForm(err)
	}
	s, err := p.open(r, r.PostForm.Get("state"))
	if err != nil {
		return err
	}
	if s.Database == nil {
		return problem.New(problem.Invalid, "invalid_request", "This application has no login with a password")
	}
	identifier := strings.TrimSpace(r.PostForm.Get("username"))
	u, err := p.users.Login(r.Context(), authn.Attempt{Origin: origin(r), Tenant: s.Tenant, Client: s.Client, Connection: s.Database,
		Identifier: identifier, Password: r.PostForm.Get("password")})
	if err != nil {
		e := problem.From(err)
		switch e.Code {
		case authn.CodeWrong, authn.CodeBlocked, authn.CodeTooMany, "too_many_logins":
			web.EventFrom(r.Context()).Fail(err)
			return p.renderLogin(w, r, s, e.HTTPStatus(), identifier, err)
		}
		return err
	}
	return p.authenticated(w, r, s.Transaction, u, s.Database, "pwd")
}

func (p *Pages) authenticated(w http.ResponseWriter, r *http.Request, t *oauth.Transaction, u *tenant.User, c *tenant.Connection, method string) error {
	now := *u.LastLogin // noted by authn a moment ago, by the store's clock
	return p.flow.Authenticated(w, r, t, oauth.Login{UserID: u.ID, ConnectionID: c.ID, Connection: c.Name, Strategy: c.Strategy, Time: now, Methods: []string{method}})
}

func badForm(err error) error {
	return problem.Wrap(problem.Invalid, "invalid_request", err, "The form cannot be read")
}

func (p *Pages) startUpstream(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	s, err := p.open(r, q.Get("state"))
	if err != nil {
		return err
	}
	i := slices.IndexFunc(s.Others, func(c *tenant.Connection) bool { return c.Name == q.Get("connection") })
	if i < 0 {
		return problem.New(problem.Forbidden, "unauthorized_client", "The connection is not enabled for this application")
	}
	return p.upstream.Begin(w, r, s.Others[i], s.State, s.Request.LoginHint)
}

func (p *Pages) finishUpstream(w http.ResponseWriter, r *http.Request) error {
	if p.upstream == nil {
		return problem.New(problem.NotFound, "", "No connection of this tenant leads here")
	}
	state, c, profile, fault := p.upstream.Finish(w, r)
	if fault != nil && state == "" {
		return fault
	}
	s, err := p.open(r, state)
	if err != nil {
		return err
	}
	if fault != nil {
		return p.upstreamFailed(w, r, s, fault)
	}
	u, err := p.users.Federated(r.Context(), authn.FederatedLogin{Origin: origin(r), Tenant: s.Tenant, Client: s.Client, Connection: c, Profile: profile})
	if err != nil {
		return err
	}
	return p.authenticated(w, r, s.Transaction, u, c, "fed")
}

// upstreamFailed leads back to the login page, where there may be another way in.
// Where there is none, the application is told, as the page would only lead to
// the same provider again.
func (p *Pages) upstreamFailed(w http.ResponseWriter, r *http.Request, s *subject, fault error) error {
	e := problem.From(fault)
	if e.Kind == problem.Internal {
		return fault
	}
	web.EventFrom(r.Context()).Fail(fault)
	if s.Database == nil && len(s.Others) <= 1 {
		return p.flow.Fail(w, r, s.Transaction, problem.Wrap(problem.Forbidden, "access_denied", fault, "%s", e.Message))
	}
	return p.renderLogin(w, r, s, http.StatusBadRequest, s.Request.LoginHint, problem.Wrap(e.Kind, "upstream_failed", fault, "%s", e.Message))
}

func (p *Pages) showSignup(w http.ResponseWriter, r *http.Request) error {
	s, err := p.open(r, r.URL.Query().Get("state"))
	if err != nil {
		return err
	}
	if !s.signup() {
		http.Redirect(w, r, s.link(oauth.LoginPath), http.StatusSeeOther) // #nosec G710 -- a path of our own, with the state as its query
		return nil
	}
	return p.renderSignup(w, r, s, http.StatusOK, s.Request.LoginHint, "", nil)
}

func (p *Pages) renderSignup(w http.ResponseWriter, r *http.Request, s *subject, status int, email, username string, fault error) error {
	d := p.data(r, s)
	d.Email, d.Identifier = email, username
	d.Username = s.Database.DatabaseOptions().RequiresUsername
	d.Rules = d.rules(s.Database)
	d.LoginURL = s.link(oauth.LoginPath)
	d.fault(fault)
	return p.view.render(w, r, status, "signup", d)
}

func (p *Pages) postSignup(w http.ResponseWriter, r *http.Request) error {
	if err := r.ParseForm(); err != nil {
		return badForm(err)
	}
	s, err := p.open(r, r.PostForm.Get("state"))
	if err != nil {
		return err
	}
	if !s.signup() {
		return problem.New(problem.Forbidden, "public_signup_disabled", "Public sign-up is disabled for this connection")
	}
	email, username, plain := strings.TrimSpace(r.PostForm.Get("email")), strings.TrimSpace(r.PostForm.Get("username")), r.PostForm.Get("password")
	_, err = p.users.SignUp(r.Context(), authn.SignUp{Origin: origin(r), Tenant: s.Tenant, Client: s.Client, Connection: s.Database,
		Email: email, Username: username, Password: plain})
	if err != nil {
		e := problem.From(err)
		if e.Kind == problem.Invalid || e.Kind == problem.Conflict || e.Code == "too_many_logins" {
			web.EventFrom(r.Context()).Fail(err)
			return p.renderSignup(w, r, s, e.HTTPStatus(), email, username, err)
		}
		return err
	}
	// The new account logs in as any other would: count, log and session are the same.
	u, err := p.users.Login(r.Context(), authn.Attempt{Origin: origin(r), Tenant: s.Tenant, Client: s.Client, Connection: s.Database, Identifier: email, Password: plain})
	if err != nil {
		return err
	}
	return p.authenticated(w, r, s.Transaction, u, s.Database, "pwd")
}

func (p *Pages) showConsent(w http.ResponseWriter, r *http.Request) error {
	state := r.URL.Query().Get("state")
	t, err := p.flow.Transaction(r, state)
	if err != nil {
		return err
	}
	q, err := p.flow.ConsentQuestion(r, t)
	if err != nil {
		return err
	}
	d := p.data(r, &subject{Transaction: t, State: state, Client: q.Client})
	d.Question, d.Email = &q, q.User.Name
	return p.view.render(w, r, http.StatusOK, "consent", d)
}

func (p *Pages) postConsent(w http.ResponseWriter, r *http.Request) error {
	if err := r.ParseForm(); err != nil {
		return badForm(err)
	}
	t, err := p.flow.Transaction(r, r.PostForm.Get("state"))
	if err != nil {
		return err
	}
	return p.flow.Consented(w, r, t, r.PostForm.Get("action") == "accept")
}

const resetPath = "/u/reset-password"

// errorTexts are the errors that many people meet; they have a title, a text and
// an advice in every language.
var errorTexts = map[string]bool{"invalid_transaction": true, authn.CodeTicket: true, "cross_site_request": true, "unknown_host": true}

// Error implements oauth.Pages: what happened, what to do, and the request id. It
// never redirects, and shows nothing of a cause that nobody classified.
func (p *Pages) Error(w http.ResponseWriter, r *http.Request, e *problem.Error) {
	d := p.data(r, nil)
	d.RequestID, d.Code = web.RequestID(r.Context()), e.Code
	d.Heading, d.Message, d.Todo = d.T("error.title"), e.Message, d.T("error.what")
	switch e.Kind {
	case problem.Internal:
		d.Code, d.Message, d.Todo = "", d.T("error.internal"), d.T("error.todo_retry")
	case problem.Unavailable, problem.Limited:
		d.Todo = d.T("error.todo_retry")
	case problem.NotFound:
		d.Todo = d.T("error.todo_address")
	}
	if errorTexts[e.Code] {
		d.Heading, d.Message, d.Todo = d.T("error."+e.Code+"_title"), d.T("error."+e.Code), d.T("error."+e.Code+"_todo")
	}
	if e.Code == authn.CodeTicket && r.URL.Path == resetPath {
		d.NextURL, d.ButtonText = resetPath, d.T("reset.title")
	}
	if err := p.view.render(w, r, e.HTTPStatus(), "error", d); err != nil {
		p.logger.ErrorContext(r.Context(), "the error page could not be written", "error", err)
	}
}

// LoggedOut implements oauth.Pages.
func (p *Pages) LoggedOut(w http.ResponseWriter, r *http.Request) {
	if err := p.view.render(w, r, http.StatusOK, "done", p.data(r, nil).says("loggedout.title", "loggedout.text")); err != nil {
		p.logger.ErrorContext(r.Context(), "the page could not be written", "error", err)
	}
}

// ConfirmLogout implements oauth.Pages.
func (p *Pages) ConfirmLogout(w http.ResponseWriter, r *http.Request, params url.Values) error {
	d := p.data(r, nil).says("logout.title", "logout.text")
	d.Action, d.ButtonText = "/oidc/logout", d.T("logout.button")
	for _, name := range []string{"post_logout_redirect_uri", "client_id", "state"} {
		if v := params.Get(name); v != "" {
			d.Hidden = append(d.Hidden, field{name, v})
		}
	}
	d.Hidden = append(d.Hidden, field{"confirm", "yes"})
	return p.view.render(w, r, http.StatusOK, "confirm", d)
}

// tenantName is the tenant of a request, or "" before the host router.
func tenantName(ctx context.Context) string {
	if t := tenant.FromContext(ctx); t != nil {
		return t.Name
	}
	return ""
}
