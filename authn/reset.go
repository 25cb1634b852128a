package authn

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/portcullis-id/portcullis/mail"
	"github.com/portcullis-id/portcullis/once"
	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/tenant"
)

// ResetRequest asks for a link to choose a new password.
type ResetRequest struct {
	Origin
	Tenant     string
	Client     *tenant.Client
	Connection *tenant.Connection
	Email      string
}

// resetTopic marks requests for a new password in the outbox.
const resetTopic = "password_reset"

// resetEntry is a request that waits. It is sealed: it says who asked.
type resetEntry struct {
	Topic  string    `json:"topic"`
	DueAt  time.Time `json:"due_at"`
	Secret string    `json:"secret"`
}

type resetWork struct {
	Origin
	ClientID     string `json:"client_id,omitempty"`
	ConnectionID string `json:"connection_id"`
	Email        string `json:"email"`
}

// RequestReset notes the request and looks at nothing else: whether there is such
// a user shows neither in the answer nor in the time that it takes. SendResets
// does the rest.
func (s *Service) RequestReset(ctx context.Context, r ResetRequest) error {
	if err := CheckEmail(r.Email); err != nil {
		e := event(tenant.LogFailedPwdChangeRequest, r.Origin, r.Client, r.Connection)
		e.UserName, e.Description = clip(r.Email), "the email is not valid"
		s.log.Append(r.Tenant, e)
		return nil
	}
	w := resetWork{Origin: r.Origin, ConnectionID: r.Connection.ID, Email: r.Email}
	if r.Client != nil {
		w.ClientID = r.Client.ID
	}
	raw, err := json.Marshal(w)
	if err != nil {
		return fmt.Errorf("encode a request for a new password: %w", err)
	}
	err = s.docs.Write(ctx, r.Tenant, func(tx tenant.Tx) error {
		return tenant.Add(tx, tenant.KindOutbox, tenant.NewID("rst"), &resetEntry{Topic: resetTopic, DueAt: tx.Now(), Secret: string(raw)})
	})
	if err != nil {
		return err
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return nil
}

// Run answers requests for new passwords until ctx ends. It waits a moment of no
// fixed length before each round: the work on one request would else show in the
// time of the next.
func (s *Service) Run(ctx context.Context, tenants func(ctx context.Context) ([]string, error)) error {
	for {
		if err := s.sendAll(ctx, tenants); err != nil && ctx.Err() == nil {
			s.logger.ErrorContext(ctx, "requests for new passwords wait for the store", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
		case <-time.After(time.Minute): // those that another node took, or that a stop left
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(200*time.Millisecond + rand.N(800*time.Millisecond)): // #nosec G404 -- it blurs a time and keeps no secret
		}
	}
}

func (s *Service) sendAll(ctx context.Context, tenants func(ctx context.Context) ([]string, error)) error {
	names, err := tenants(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		errs = append(errs, s.SendResets(ctx, name))
	}
	return errors.Join(errs...)
}

// SendResets puts a mail with a link into the outbox for each request of a tenant
// that has a user, and drops the others.
func (s *Service) SendResets(ctx context.Context, tenantID string) error {
	for {
		var events []tenant.LogEvent
		// Taking a request and answering it is one write: of several nodes one does it.
		err := s.docs.Write(ctx, tenantID, func(tx tenant.Tx) error {
			events = nil
			page, err := tx.Find(tenant.KindOutbox, tenant.Query{Limit: 20, Where: []tenant.Cond{
				{Column: "topic", Value: resetTopic}, {Column: "due_at", Op: tenant.Le, Value: tx.Now()},
			}})
			if err != nil {
				return err
			}
			for _, rec := range page.Records {
				e, err := s.answerReset(ctx, tx, tenantID, rec)
				if err != nil {
					return err
				}
				events = append(events, e)
			}
			return nil
		})
		if err != nil || len(events) == 0 {
			return err
		}
		for _, e := range events {
			s.log.Append(tenantID, e)
		}
		s.outbox.Wake()
	}
}

// answerReset takes one request out of the outbox, and writes the mail if there is
// somebody to write to.
func (s *Service) answerReset(ctx context.Context, tx tenant.Tx, tenantID string, rec tenant.Record) (tenant.LogEvent, error) {
	var e resetEntry
	var w resetWork
	if err := json.Unmarshal(rec.Doc, &e); err != nil {
		return tenant.LogEvent{}, fmt.Errorf("decode a request for a new password: %w", err)
	}
	if err := json.Unmarshal([]byte(e.Secret), &w); err != nil {
		return tenant.LogEvent{}, fmt.Errorf("decode a request for a new password: %w", err)
	}
	if _, err := tx.Delete(tenant.KindOutbox, rec.ID); err != nil {
		return tenant.LogEvent{}, err
	}
	ev := event(tenant.LogPasswordChangeRequest, w.Origin, nil, nil)
	ev.UserName, ev.ClientID, ev.ConnectionID = clip(w.Email), w.ClientID, w.ConnectionID
	refuse := func(why string) (tenant.LogEvent, error) {
		ev.Type, ev.Description = tenant.LogFailedPwdChangeRequest, why
		return ev, nil
	}
	c, err := s.dir.Connection(ctx, tenantID, w.ConnectionID)
	if problem.Is(err, problem.NotFound) {
		return refuse("the connection was deleted meanwhile")
	}
	if err != nil {
		return ev, err
	}
	ev.Connection, ev.Strategy, ev.StrategyType = c.Name, c.Strategy, "database"
	var cl *tenant.Client
	if w.ClientID != "" {
		if cl, err = s.dir.Client(ctx, tenantID, w.ClientID); err != nil && !problem.Is(err, problem.NotFound) {
			return ev, err
		}
		if cl != nil {
			ev.ClientName = cl.Name
		}
	}
	u, err := tenant.UserByIdentifier(tx, c, tenant.ByEmail, w.Email)
	if problem.Is(err, problem.NotFound) || err == nil && u.IsBlocked() {
		return refuse("there is no such user, or the user is blocked")
	}
	if err != nil {
		return ev, err
	}
	ev.UserID = u.ID
	content, err := s.content(ctx, tenantID, cl, u)
	if errors.Is(err, errNoMail) {
		return refuse("the user has no email address")
	}
	if err != nil {
		return ev, err
	}
	t := Ticket{UserID: u.ID, ConnectionID: c.ID, Email: u.Email, MarkVerified: true, ClientID: w.ClientID}
	if content.Link, err = s.link(tx, tenantID, once.PasswordReset, t, publicTTL); err != nil {
		return ev, err
	}
	content.ValidFor = validFor(publicTTL)
	return ev, enqueue(tx, mail.ResetPassword, tenantID, u, content)
}
