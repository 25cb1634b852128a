package authn

import (
	"context"
	"errors"
	"net/url"
	"time"

	"github.com/portcullis-id/portcullis/mail"
	"github.com/portcullis-id/portcullis/once"
	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/tenant"
)

// How long the links live that a person asked for, and those of the Management
// API, in whose requests a ttl may say otherwise.
const (
	publicTTL  = 24 * time.Hour
	DefaultTTL = 5 * 24 * time.Hour
	MaxTTL     = 30 * 24 * time.Hour
)

// Ticket is what a link of the appliance stands for.
type Ticket struct {
	UserID       string `json:"user_id"`
	ConnectionID string `json:"connection_id"`
	Email        string `json:"email"`
	ClientID     string `json:"client_id,omitempty"`
	ResultURL    string `json:"result_url,omitempty"`
	IncludeEmail bool   `json:"include_email,omitempty"`
	MarkVerified bool   `json:"mark_verified,omitempty"`
}

// Result is where a browser goes after a ticket was used, or "" for a page of
// our own.
func (t Ticket) Result(message string) string {
	if t.ResultURL == "" {
		return ""
	}
	u, err := url.Parse(t.ResultURL)
	if err != nil {
		return ""
	}
	q := u.Query()
	q.Set("success", "true")
	q.Set("message", message)
	if t.IncludeEmail {
		q.Set("email", t.Email)
	}
	u.RawQuery = q.Encode()
	return u.String()
}

func ticketError(err error) error {
	if c := problem.From(err).Code; c == once.CodeUnknown || c == once.CodeUsed {
		return problem.Wrap(problem.Invalid, CodeTicket, err, "This link has expired or was used before. Ask for a new one.")
	}
	return err
}

// content fills in what all mails of a tenant say.
func (s *Service) content(ctx context.Context, tenantID string, cl *tenant.Client, u *tenant.User) (mail.Content, error) {
	if u.Email == "" {
		return mail.Content{}, errNoMail
	}
	settings, err := s.dir.Settings(ctx, tenantID)
	if err != nil {
		return mail.Content{}, err
	}
	c := mail.Content{Product: settings.FriendlyName, To: u.Email, Support: settings.SupportEmail}
	if c.Product == "" {
		c.Product = tenantID
	}
	if c.Support == "" {
		c.Support = settings.SupportURL
	}
	if cl != nil {
		c.Application = cl.Name
	}
	return c, nil
}

func enqueue(tx tenant.Tx, k mail.Kind, tenantID string, u *tenant.User, c mail.Content) error {
	m, err := mail.New(k, tenantID, u.ID, c)
	if err != nil {
		return err
	}
	return mail.Enqueue(tx, m)
}

var ticketPages = map[once.Type]string{once.PasswordReset: "u/reset-password", once.EmailVerification: "u/email-verification"}

// link stores a ticket and returns the URL that stands for it.
func (s *Service) link(tx tenant.Tx, tenantID string, typ once.Type, t Ticket, ttl time.Duration) (string, error) {
	value := once.New()
	if err := once.Put(tx, typ, value, t.UserID, t, ttl); err != nil {
		return "", err
	}
	return s.dir.URL(tenantID) + ticketPages[typ] + "?ticket=" + value, nil
}

// PasswordTicket makes a link with which somebody chooses a new password for a
// user. A ttl of 0 means DefaultTTL.
func (s *Service) PasswordTicket(ctx context.Context, tenantID string, t Ticket, ttl time.Duration) (string, error) {
	return s.ticket(ctx, tenantID, once.PasswordReset, t, ttl)
}

// VerificationTicket makes a link that verifies a user's address.
func (s *Service) VerificationTicket(ctx context.Context, tenantID string, t Ticket, ttl time.Duration) (string, error) {
	return s.ticket(ctx, tenantID, once.EmailVerification, t, ttl)
}

func (s *Service) ticket(ctx context.Context, tenantID string, typ once.Type, t Ticket, ttl time.Duration) (string, error) {
	if ttl == 0 {
		ttl = DefaultTTL
	}
	var link string
	err := s.docs.Write(ctx, tenantID, func(tx tenant.Tx) error {
		u, err := tenant.Load[tenant.User](tx, tenant.KindUser, t.UserID)
		if err != nil {
			return err
		}
		t.Email = u.Email
		if t.ConnectionID == "" {
			t.ConnectionID = databaseConnection(u)
		}
		link, err = s.link(tx, tenantID, typ, t, ttl)
		return err
	})
	return link, err
}

func databaseConnection(u *tenant.User) string {
	for _, i := range u.Identities {
		if i.Provider == tenant.StrategyDatabase {
			return i.ConnectionID
		}
	}
	return ""
}

// PeekReset reads a reset ticket without using it, for the page that asks for
// the new password. It fails with CodeTicket.
func (s *Service) PeekReset(ctx context.Context, tenantID, value string) (Ticket, error) {
	return s.peek(ctx, tenantID, once.PasswordReset, value)
}

// PeekVerification reads a verification ticket without using it.
func (s *Service) PeekVerification(ctx context.Context, tenantID, value string) (Ticket, error) {
	return s.peek(ctx, tenantID, once.EmailVerification, value)
}

func (s *Service) peek(ctx context.Context, tenantID string, typ once.Type, value string) (Ticket, error) {
	var t Ticket
	err := s.docs.Write(ctx, tenantID, func(tx tenant.Tx) error { return once.Peek(tx, typ, value, &t) })
	return t, ticketError(err)
}

// Reset uses a reset ticket up and sets the new password. A password that the
// policy refuses leaves the ticket as it is. Sessions and refresh tokens of the
// user end, other reset tickets too, and the user is told by mail.
func (s *Service) Reset(ctx context.Context, tenantID, value, plain string, o Origin) (Ticket, error) {
	t, err := s.PeekReset(ctx, tenantID, value)
	if err != nil {
		return t, err
	}
	e := tenant.LogEvent{Type: tenant.LogPasswordChange, UserID: t.UserID, UserName: t.Email, IP: o.IP, UserAgent: o.UserAgent, ClientID: t.ClientID}
	err = s.reset(ctx, tenantID, value, plain, t)
	if err != nil {
		e.Type, e.Description = tenant.LogFailedPasswordChange, problem.From(err).Message
	}
	s.log.Append(tenantID, e)
	return t, err
}

func (s *Service) reset(ctx context.Context, tenantID, value, plain string, t Ticket) error {
	c, err := s.dir.Connection(ctx, tenantID, t.ConnectionID)
	if err != nil {
		return err
	}
	u, err := tenant.Get[tenant.User](ctx, s.docs, tenantID, tenant.KindUser, t.UserID)
	if problem.Is(err, problem.NotFound) {
		return problem.Wrap(problem.Invalid, CodeTicket, err, "This link has expired or was used before. Ask for a new one.")
	}
	if err != nil {
		return err
	}
	hash, err := s.newHash(ctx, tenantID, c, u, plain)
	if err != nil {
		return err
	}
	content, contentErr := s.content(ctx, tenantID, nil, u)
	err = s.docs.Write(ctx, tenantID, func(tx tenant.Tx) error {
		if err := once.Take(tx, once.PasswordReset, value, nil); err != nil {
			return err
		}
		if err := setPassword(tx, c, u, hash); err != nil {
			return err
		}
		if t.MarkVerified && t.Email == u.Email {
			if _, err := tenant.UpdateUser(tx, u.ID, func(u *tenant.User) error { u.EmailVerified = true; return nil }); err != nil {
				return err
			}
		}
		if _, err := once.Revoke(tx, once.PasswordReset, u.ID); err != nil {
			return err
		}
		if contentErr != nil {
			return nil // no address to write to
		}
		return enqueue(tx, mail.PasswordChanged, tenantID, u, content)
	})
	s.outbox.Wake()
	return ticketError(err)
}

// SendVerification sends a user the mail that verifies their address.
func (s *Service) SendVerification(ctx context.Context, tenantID, userID string, cl *tenant.Client) error {
	err := s.docs.Write(ctx, tenantID, func(tx tenant.Tx) error {
		u, err := tenant.Load[tenant.User](tx, tenant.KindUser, userID)
		if err != nil {
			return err
		}
		clientID := ""
		if cl != nil {
			clientID = cl.ID
		}
		return s.enqueueVerification(ctx, tx, tenantID, u, nil, clientID, cl)
	})
	if errors.Is(err, errNoMail) {
		return problem.Wrap(problem.Invalid, "invalid_body", err, "The user has no email address to verify")
	}
	if err != nil {
		return err
	}
	s.outbox.Wake()
	s.log.Append(tenantID, tenant.LogEvent{Type: tenant.LogVerificationSent, UserID: userID})
	return nil
}

func (s *Service) enqueueVerification(ctx context.Context, tx tenant.Tx, tenantID string, u *tenant.User, c *tenant.Connection, clientID string, cl *tenant.Client) error {
	content, err := s.content(ctx, tenantID, cl, u)
	if err != nil {
		return err
	}
	t := Ticket{UserID: u.ID, Email: u.Email, ClientID: clientID, ConnectionID: databaseConnection(u)}
	if c != nil {
		t.ConnectionID = c.ID
	}
	if content.Link, err = s.link(tx, tenantID, once.EmailVerification, t, DefaultTTL); err != nil {
		return err
	}
	content.ValidFor = validFor(DefaultTTL)
	return enqueue(tx, mail.VerifyEmail, tenantID, u, content)
}

// VerifyEmail uses a verification ticket up and marks the address as verified,
// if the user still has it. It fails with CodeTicket.
func (s *Service) VerifyEmail(ctx context.Context, tenantID, value string, o Origin) (Ticket, error) {
	var t Ticket
	err := s.docs.Write(ctx, tenantID, func(tx tenant.Tx) error {
		if err := once.Take(tx, once.EmailVerification, value, &t); err != nil {
			return err
		}
		_, err := tenant.UpdateUser(tx, t.UserID, func(u *tenant.User) error {
			if u.Email != t.Email {
				return problem.New(problem.Conflict, once.CodeUsed, "the address has changed")
			}
			u.EmailVerified = true
			return nil
		})
		return err
	})
	e := tenant.LogEvent{Type: tenant.LogVerificationEmail, UserID: t.UserID, UserName: t.Email, IP: o.IP, UserAgent: o.UserAgent}
	if err != nil {
		e.Type, e.Description = tenant.LogFailedVerification, problem.From(err).Message
	}
	s.log.Append(tenantID, e)
	return t, ticketError(err)
}
