package authn

import (
	"context"
	"errors"
	"log/slog"
	"net/mail"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/portcullis-id/portcullis/password"
	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/tenant"
)

// Codes of the errors that callers tell apart.
const (
	CodeWrong    = "invalid_user_password" // Unauthorized: unknown user or wrong password
	CodeBlocked  = "user_blocked"          // Unauthorized: an administrator blocked the user
	CodeTooMany  = "too_many_attempts"     // Limited: brute-force protection
	CodeExists   = "user_exists"           // Conflict
	CodeSignup   = "invalid_signup"        // Invalid: the same, where a tenant does not say so
	CodePassword = "invalid_password"      // Invalid: the policy refuses it
	CodeTicket   = "invalid_ticket"        // Invalid: unknown, used or expired
)

// Outbox wakes delivery after a commit; mail.Outbox implements it.
type Outbox interface{ Wake() }

// Service authenticates users of all tenants.
type Service struct {
	docs   tenant.Docs
	dir    *tenant.Directory
	hasher *password.Hasher
	outbox Outbox
	log    tenant.Log
	logger *slog.Logger
	wake   chan struct{} // a reset was asked for
}

// New makes a Service.
func New(docs tenant.Docs, dir *tenant.Directory, h *password.Hasher, o Outbox, l tenant.Log, logger *slog.Logger) *Service {
	return &Service{docs: docs, dir: dir, hasher: h, outbox: o, log: l, logger: logger, wake: make(chan struct{}, 1)}
}

// Origin says where a request came from, for logs, mails and the guard against
// guessing.
type Origin struct {
	IP        string
	UserAgent string
}

// Attempt is a login with a password.
type Attempt struct {
	Origin
	Tenant     string
	Client     *tenant.Client // nil outside of an application
	Connection *tenant.Connection
	Identifier string // email, or username where the connection has them
	Password   string
}

func wrong() error {
	return problem.New(problem.Unauthorized, CodeWrong, "Wrong email or password.")
}

func blocked() error {
	return problem.New(problem.Unauthorized, CodeBlocked, "user is blocked")
}

// event begins a log event of an attempt.
func event(t tenant.LogType, o Origin, cl *tenant.Client, c *tenant.Connection) tenant.LogEvent {
	e := tenant.LogEvent{Type: t, IP: o.IP, UserAgent: o.UserAgent}
	if cl != nil {
		e.ClientID, e.ClientName = cl.ID, cl.Name
	}
	if c != nil {
		e.Connection, e.ConnectionID, e.Strategy = c.Name, c.ID, c.Strategy
		e.StrategyType = "social"
		if c.Database() {
			e.StrategyType = "database"
		}
	}
	return e
}

// Login checks a password and notes the login at the user. Unknown users and
// wrong passwords fail alike, with problem.Unauthorized and CodeWrong; a user whom
// an administrator blocked with CodeBlocked, after the right password only; too
// many failures with problem.Limited and CodeTooMany.
func (s *Service) Login(ctx context.Context, a Attempt) (*tenant.User, error) {
	ev := func(t tenant.LogType, u *tenant.User, why string) {
		e := event(t, a.Origin, a.Client, a.Connection)
		e.UserName, e.Description = clip(a.Identifier), why
		if u != nil {
			e.UserID, e.UserName = u.ID, u.Email
		}
		s.log.Append(a.Tenant, e)
	}
	if len(a.Identifier) > 320 || !utf8.ValidString(a.Identifier) || strings.ContainsRune(a.Identifier, 0) {
		ev(tenant.LogFailedUser, nil, "the identifier is no email or username")
		return nil, wrong()
	}
	identifier := strings.TrimSpace(a.Identifier)
	opts := a.Connection.DatabaseOptions()
	guarded := opts.BruteForceProtection == nil || *opts.BruteForceProtection
	key := attemptKey(a.Connection.ID, identifier, a.IP)
	typ := tenant.ByEmail
	if opts.RequiresUsername && !strings.Contains(identifier, "@") {
		typ = tenant.ByUsername
	}

	// The attempt is counted before the password is looked at, so that no number of
	// parallel guesses gets past the limit; a success takes the count away.
	var user *tenant.User
	var hash string
	var last bool
	err := s.docs.Write(ctx, a.Tenant, func(tx tenant.Tx) (err error) {
		user, hash, last = nil, "", false
		if guarded {
			if last, err = count(tx, key, a.Connection.ID, identifier, a.IP); err != nil {
				return err
			}
		}
		u, err := tenant.UserByIdentifier(tx, a.Connection, typ, identifier)
		if problem.Is(err, problem.NotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		h, _, err := tenant.PasswordHash(tx, a.Connection, u)
		if problem.Is(err, problem.NotFound) {
			return nil // an account without a password
		}
		user, hash = u, h
		return err
	})
	if problem.From(err).Code == CodeTooMany {
		ev(tenant.LogUserBlocked, nil, "too many failed logins of this user from this address")
		return nil, err
	}
	if err != nil {
		return nil, err
	}
	if user == nil {
		if err := s.hasher.Pretend(ctx, a.Password); err != nil {
			return nil, err
		}
		ev(tenant.LogFailedUser, nil, "Wrong email or password.")
		if last {
			ev(tenant.LogUserBlocked, nil, "too many failed logins of this user from this address")
		}
		return nil, wrong()
	}
	ok, rehash, err := s.hasher.Verify(ctx, hash, a.Password)
	if err != nil {
		s.forgive(ctx, a.Tenant, key, guarded, 1) // nobody has learnt whether it was right
		return nil, err
	}
	if !ok {
		ev(tenant.LogFailedPassword, user, "Wrong email or password.")
		if last {
			ev(tenant.LogUserBlocked, user, "too many failed logins of this user from this address")
			s.mailBlocked(ctx, a, user, key)
		}
		return nil, wrong()
	}
	if user.IsBlocked() {
		ev(tenant.LogFailedLogin, user, "user is blocked")
		return nil, blocked()
	}
	fresh := ""
	if rehash {
		if fresh, err = s.hasher.Hash(ctx, a.Password); err != nil {
			s.forgive(ctx, a.Tenant, key, guarded, maxFailures)
			return nil, err
		}
	}
	var noted *tenant.User
	err = s.docs.Write(ctx, a.Tenant, func(tx tenant.Tx) error {
		if guarded {
			if _, err := tx.Delete(tenant.KindAttempt, key); err != nil {
				return err
			}
		}
		if fresh != "" {
			if err := tenant.SetPasswordHash(tx, a.Connection, user, fresh, true); err != nil {
				return err
			}
		}
		noted, err = noteLogin(tx, user.ID, a.IP)
		return err
	})
	if err != nil {
		s.forgive(ctx, a.Tenant, key, guarded, maxFailures)
		return nil, err
	}
	user = noted
	if user.IsBlocked() { // while the password was being checked
		ev(tenant.LogFailedLogin, user, "user is blocked")
		return nil, blocked()
	}
	ev(tenant.LogLogin, user, "")
	return user, nil
}

func noteLogin(tx tenant.Tx, id, ip string) (*tenant.User, error) {
	now := tx.Now()
	return tenant.Change(tx, tenant.KindUser, id, func(u *tenant.User) error {
		u.LastLogin, u.LastIP = &now, ip
		u.LoginsCount++
		return nil
	})
}

// clip bounds what a stranger typed before it goes into a log.
func clip(s string) string {
	s = strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", ""), "")
	if len(s) > 320 {
		s = s[:320]
	}
	return strings.ToValidUTF8(s, "")
}

// SignUp is a new account that a person asks for.
type SignUp struct {
	Origin
	Tenant       string
	Client       *tenant.Client
	Connection   *tenant.Connection
	Email        string
	Username     string
	Password     string
	Name         string
	GivenName    string
	FamilyName   string
	Nickname     string
	Picture      string
	UserMetadata []byte // a JSON object, or nil
}

var usernameForm = regexp.MustCompile(`^[\p{L}\p{N}_.+!#$^~@'-]+$`)

// CheckEmail fails with problem.Invalid unless s is one plain address, such as
// ann@example.com.
func CheckEmail(s string) error {
	bad := problem.New(problem.Invalid, "invalid_email", "The email is not valid: allowed is one address such as ann@example.com")
	a, err := mail.ParseAddress(s)
	if err != nil || a.Address != s || len(s) > 254 || strings.ContainsAny(s, " \"\r\n\t") {
		return bad
	}
	if _, domain, _ := strings.Cut(s, "@"); domain == "" || strings.HasPrefix(domain, ".") || strings.HasSuffix(domain, ".") {
		return bad
	}
	return nil
}

// CanonicalEmail is an address in the form in which it is stored and compared, in
// lower case. It fails as CheckEmail does. Letters beyond ASCII whose lower case is
// one of ASCII, such as the Kelvin sign, are refused: they would make one person's
// address of another's.
func CanonicalEmail(s string) (string, error) {
	if err := CheckEmail(s); err != nil {
		return "", err
	}
	for _, r := range s {
		if r > unicode.MaxASCII && unicode.ToLower(r) <= unicode.MaxASCII {
			return "", problem.New(problem.Invalid, "invalid_email", "The email is not valid: the letter %q is not allowed", r)
		}
	}
	lower := strings.ToLower(s)
	return lower, CheckEmail(lower)
}

// CheckUsername fails with problem.Invalid unless the connection allows the
// username.
func CheckUsername(s string, o tenant.DatabaseOptions) error {
	low, high := max(o.Validation.Username.Min, 1), o.Validation.Username.Max
	if high == 0 {
		high = 128
	}
	if n := utf8.RuneCountInString(s); n < low || n > high || !usernameForm.MatchString(s) {
		return problem.New(problem.Invalid, "invalid_username", "The username is not valid: allowed are %d to %d letters, digits and any of _.+-!#$^~@'", low, high)
	}
	return nil
}

// SignUp makes a user of a database connection and sends a mail that verifies
// the address.
func (s *Service) SignUp(ctx context.Context, in SignUp) (*tenant.User, error) {
	in.Email = strings.TrimSpace(in.Email)
	u, err := s.signUp(ctx, in)
	e := event(tenant.LogSignup, in.Origin, in.Client, in.Connection)
	e.UserName = clip(in.Email)
	if err != nil {
		e.Type, e.Description = tenant.LogFailedSignup, problem.From(err).Message
	} else {
		e.UserID = u.ID
	}
	s.log.Append(in.Tenant, e)
	return u, err
}

func (s *Service) signUp(ctx context.Context, in SignUp) (*tenant.User, error) {
	opts := in.Connection.DatabaseOptions()
	if opts.DisableSignup {
		return nil, problem.New(problem.Forbidden, "public_signup_disabled", "Public sign-up is disabled for this connection")
	}
	email, err := CanonicalEmail(in.Email)
	if err != nil {
		return nil, err
	}
	if opts.RequiresUsername {
		if err := CheckUsername(in.Username, opts); err != nil {
			return nil, err
		}
	} else {
		in.Username = ""
	}
	u := &tenant.User{Email: email, Username: in.Username, Name: in.Name, GivenName: in.GivenName, FamilyName: in.FamilyName,
		Nickname: in.Nickname, Picture: in.Picture, UserMetadata: in.UserMetadata}
	made, err := s.CreateUser(ctx, in.Tenant, in.Connection, u, in.Password, "", true)
	if problem.From(err).Code == CodeExists {
		settings, settingsErr := s.dir.Settings(ctx, in.Tenant)
		if settingsErr != nil {
			return nil, settingsErr
		}
		if !settings.Flags.EnablePublicSignupUserExistsError {
			return nil, problem.New(problem.Invalid, CodeSignup, "Invalid sign up")
		}
	}
	return made, err
}

// CreateUser makes a user of a database connection, with a password or with a
// hash that was imported, or with neither. The policy of the connection holds
// for passwords. verify sends the mail that verifies the address.
func (s *Service) CreateUser(ctx context.Context, tenantID string, c *tenant.Connection, u *tenant.User, plain, hash string, verify bool) (*tenant.User, error) {
	if plain != "" || hash == "" && verify {
		if err := password.NewPolicy(c.DatabaseOptions()).Check(plain, u); err != nil {
			return nil, err
		}
		var err error
		if hash, err = s.hasher.Hash(ctx, plain); err != nil {
			return nil, err
		}
	}
	Complete(u, s.dir.URL(tenantID))
	verify = verify && !u.EmailVerified && u.Email != ""
	var made *tenant.User
	err := s.docs.Write(ctx, tenantID, func(tx tenant.Tx) error {
		fresh := *u // the function may run again
		if err := tenant.CreateUser(tx, c, &fresh, hash); err != nil {
			return err
		}
		made = &fresh
		if !verify {
			return nil
		}
		return s.enqueueVerification(ctx, tx, tenantID, &fresh, c, "", nil)
	})
	if err != nil {
		return nil, err
	}
	s.outbox.Wake()
	return made, nil
}

// Complete fills in what a profile shows when nothing else is known: name and
// nickname of the address, and a picture with initials that the appliance draws
// itself, so that no browser asks a stranger for it.
func Complete(u *tenant.User, baseURL string) {
	local, _, _ := strings.Cut(u.Email, "@")
	first := func(values ...string) string {
		for _, v := range values {
			if v != "" {
				return v
			}
		}
		return ""
	}
	u.Nickname = first(u.Nickname, local, u.Username)
	u.Name = first(u.Name, strings.TrimSpace(u.GivenName+" "+u.FamilyName), u.Email, u.Username, u.PhoneNumber)
	if u.Picture == "" {
		letters := ""
		for _, r := range strings.ToLower(u.Name) {
			if r >= 'a' && r <= 'z' {
				letters += string(r)
			}
			if len(letters) == 2 {
				break
			}
		}
		if letters == "" {
			letters = "x"
		}
		u.Picture = baseURL + "avatars/" + letters + ".svg"
	}
}

// SetPassword gives a user of a database connection a new password, ends their
// sessions and refresh tokens, and lifts blocks. It fails with CodePassword when
// the policy refuses the password.
func (s *Service) SetPassword(ctx context.Context, tenantID string, c *tenant.Connection, userID, plain string) error {
	u, err := tenant.Get[tenant.User](ctx, s.docs, tenantID, tenant.KindUser, userID)
	if err != nil {
		return err
	}
	hash, err := s.newHash(ctx, tenantID, c, u, plain)
	if err != nil {
		return err
	}
	return s.docs.Write(ctx, tenantID, func(tx tenant.Tx) error { return setPassword(tx, c, u, hash) })
}

// newHash judges a new password and hashes it.
func (s *Service) newHash(ctx context.Context, tenantID string, c *tenant.Connection, u *tenant.User, plain string) (string, error) {
	policy := password.NewPolicy(c.DatabaseOptions())
	if err := policy.Check(plain, u); err != nil {
		return "", err
	}
	var present string
	var former []string
	err := s.docs.Write(ctx, tenantID, func(tx tenant.Tx) (err error) {
		present, former, err = tenant.PasswordHash(tx, c, u)
		return err
	})
	if err != nil && !problem.Is(err, problem.NotFound) {
		return "", err
	}
	if err := policy.CheckHistory(ctx, s.hasher, plain, present, former); err != nil {
		return "", err
	}
	return s.hasher.Hash(ctx, plain)
}

func setPassword(tx tenant.Tx, c *tenant.Connection, u *tenant.User, hash string) error {
	if err := tenant.SetPasswordHash(tx, c, u, hash, false); err != nil {
		return err
	}
	for _, k := range []tenant.Kind{tenant.KindSession, tenant.KindRefreshToken} {
		if _, err := tx.DeleteWhere(k, []tenant.Cond{{Column: "user_id", Value: u.ID}}); err != nil {
			return err
		}
	}
	return removeBlocks(tx, c, u)
}

// errNoMail is why no mail went out; it never reaches a client.
var errNoMail = errors.New("the user has no address")

// validFor says a duration as a person would.
func validFor(d time.Duration) string {
	switch h := int(d.Hours()); {
	case h >= 48:
		return itoa(h/24) + " days"
	case h >= 2:
		return itoa(h) + " hours"
	case h == 1:
		return "1 hour"
	}
	return itoa(int(d.Minutes())) + " minutes"
}
