package oauth

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/tenant"
)

// Paths of the pages that oauth sends a browser to, with the transaction in the
// parameter "state". login serves them.
const (
	LoginPath   = "/u/login"
	SignupPath  = "/u/signup"
	ConsentPath = "/u/consent"
)

// Transaction is an authorization request on its way through the pages. It
// travels sealed in the "state" parameter of the pages and is bound to the
// browser by a cookie; nothing is stored until a user has proved who they are.
type Transaction struct {
	ID        string    `json:"id"` // single use, package once
	Tenant    string    `json:"t"`
	Browser   string    `json:"b"` // hash of the browser's binding cookie
	CreatedAt time.Time `json:"c"`
	Request   Request   `json:"r"`
	// SessionID is the session that was authenticated for this transaction; empty
	// until then. A consent page belongs to it.
	SessionID string `json:"s,omitempty"`
}

// Request is a validated authorization request.
type Request struct {
	ClientID      string   `json:"client_id"`
	RedirectURI   string   `json:"redirect_uri"`
	RedirectSent  bool     `json:"redirect_sent,omitempty"` // RFC 6749 section 4.1.3: then the token request repeats it
	ResponseType  string   `json:"response_type"`
	ResponseMode  string   `json:"response_mode,omitempty"`
	Scope         []string `json:"scope,omitempty"`
	State         string   `json:"state,omitempty"`
	Nonce         string   `json:"nonce,omitempty"`
	Audience      string   `json:"audience,omitempty"`
	Connection    string   `json:"connection,omitempty"`
	Prompt        string   `json:"prompt,omitempty"`
	MaxAge        *int     `json:"max_age,omitempty"` // seconds
	LoginHint     string   `json:"login_hint,omitempty"`
	ScreenHint    string   `json:"screen_hint,omitempty"`
	UILocales     []string `json:"ui_locales,omitempty"`
	CodeChallenge string   `json:"code_challenge,omitempty"` // S256
}

// Login says who proved to be whom, and how.
type Login struct {
	UserID       string
	ConnectionID string
	Connection   string // name
	Strategy     string
	Time         time.Time
	Methods      []string // amr of RFC 8176: "pwd", "fed", …
}

// Credentials are what a resource owner gave to a client that asks by password.
type Credentials struct {
	Tenant     string
	Client     *tenant.Client
	Connection *tenant.Connection
	Username   string
	Password   string
}

// Authenticator checks passwords for the password grants; authn implements it.
// The client's address is in ctx. It fails with the codes that the token
// endpoint shows: "invalid_grant" (403), "too_many_attempts" (429),
// "unauthorized" for a blocked user.
type Authenticator interface {
	Authenticate(ctx context.Context, c Credentials) (*tenant.User, error)
}

// Pages shows what oauth has to say to a person; login implements it.
type Pages interface {
	// Error shows an error page with the request id; it never redirects.
	Error(w http.ResponseWriter, r *http.Request, e *problem.Error)
	// ConfirmLogout asks whether to log out, by a POST of the same parameters to
	// /oidc/logout with confirm=yes.
	ConfirmLogout(w http.ResponseWriter, r *http.Request, params url.Values) error
	// LoggedOut says that the session has ended, where no URL to return to was given.
	LoggedOut(w http.ResponseWriter, r *http.Request)
}

// Flow is how pages go back to the authorization request that sent the browser to
// them. Provider implements it.
type Flow interface {
	// Transaction opens the "state" of a page request, and fails with problem.Invalid
	// when it is forged, expired, finished, of another tenant or of another browser.
	Transaction(r *http.Request, state string) (*Transaction, error)
	// Authenticated makes a new session for the browser and goes on with the
	// authorization request: to consent, or back to the client. It uses the
	// transaction up.
	Authenticated(w http.ResponseWriter, r *http.Request, t *Transaction, l Login) error
	// Consented goes on after the consent page.
	Consented(w http.ResponseWriter, r *http.Request, t *Transaction, granted bool) error
	// Fail sends an error of RFC 6749 section 4.1.2.1 back to the client.
	Fail(w http.ResponseWriter, r *http.Request, t *Transaction, e *problem.Error) error
	// ConsentQuestion says what a consent page has to ask.
	ConsentQuestion(r *http.Request, t *Transaction) (Question, error)
}

// Question is what a user is asked to allow.
type Question struct {
	Client *tenant.Client
	User   *tenant.User
	Scopes []tenant.Scope // with descriptions where the tenant shows them
	API    string         // name of the API, or empty
}
