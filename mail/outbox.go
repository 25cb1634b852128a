package mail

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/tenant"
)

const topic = "mail"

// The retries of one message: the waits grow from 10 seconds to two hours, and
// after a day and a half it is given up.
const (
	firstWait = 10 * time.Second
	maxWait   = 2 * time.Hour
	maxTries  = 25
	lease     = 2 * time.Minute // a message that is being sent is not due for so long
)

// entry is a message in the outbox. It is a secret as a whole: it carries links
// that open accounts.
type entry struct {
	Topic     string    `json:"topic"`
	DueAt     time.Time `json:"due_at"`
	Tries     int       `json:"tries"`
	LastError string    `json:"last_error,omitempty"`
	Secret    string    `json:"secret"`
}

func put(tx tenant.Tx, m Message) error {
	raw, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode mail: %w", err)
	}
	return tenant.Add(tx, tenant.KindOutbox, m.ID, &entry{Topic: topic, DueAt: tx.Now(), Secret: string(raw)})
}

// Transport delivers one message. It may be called with a message that was
// delivered before, when the answer was lost: the message's ID is then the same.
type Transport interface {
	Send(ctx context.Context, m Message) error
}

// Outbox delivers what Enqueue put there.
type Outbox struct {
	docs      tenant.Docs
	tenants   func(ctx context.Context) ([]string, error)
	transport Transport
	log       tenant.Log
	logger    *slog.Logger
	wake      chan struct{}
}

// NewOutbox makes an outbox over all tenants that tenants names. Without a
// transport (nil), messages stay in it.
func NewOutbox(docs tenant.Docs, tenants func(ctx context.Context) ([]string, error), tr Transport, log tenant.Log, logger *slog.Logger) *Outbox {
	return &Outbox{docs: docs, tenants: tenants, transport: tr, log: log, logger: logger, wake: make(chan struct{}, 1)}
}

// Wake lets the outbox look at once, after something was put there.
func (o *Outbox) Wake() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// Run delivers until ctx ends.
func (o *Outbox) Run(ctx context.Context) error {
	if o.transport == nil {
		<-ctx.Done()
		return nil
	}
	tick := time.NewTicker(firstWait)
	defer tick.Stop()
	for {
		if err := o.Deliver(ctx); err != nil && ctx.Err() == nil {
			o.logger.ErrorContext(ctx, "the outbox waits for the store", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-o.wake:
		case <-tick.C:
		}
	}
}

// Deliver tries everything that is due now, once.
func (o *Outbox) Deliver(ctx context.Context) error {
	if o.transport == nil {
		return nil
	}
	names, err := o.tenants(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, t := range names {
		errs = append(errs, o.deliver(ctx, t))
	}
	return errors.Join(errs...)
}

func (o *Outbox) deliver(ctx context.Context, tenantID string) error {
	for {
		var due []tenant.Record
		now := time.Time{}
		// Taking a lease is a write of its own: of several nodes one sends.
		err := o.docs.Write(ctx, tenantID, func(tx tenant.Tx) error {
			now, due = tx.Now(), nil
			page, err := tx.Find(tenant.KindOutbox, tenant.Query{Limit: 20, Where: []tenant.Cond{
				{Column: "topic", Value: topic}, {Column: "due_at", Op: tenant.Le, Value: now},
			}})
			if err != nil {
				return err
			}
			for _, rec := range page.Records {
				var e entry
				if err := json.Unmarshal(rec.Doc, &e); err != nil {
					return fmt.Errorf("decode mail: %w", err)
				}
				e.DueAt = now.Add(lease)
				e.Tries++
				if rec.Doc, err = json.Marshal(e); err != nil { // #nosec G117 -- the store seals the field
					return err
				}
				if err := tx.Replace(tenant.KindOutbox, rec); err != nil {
					return err
				}
				due = append(due, rec)
			}
			return nil
		})
		if err != nil || len(due) == 0 {
			return err
		}
		for _, rec := range due {
			if err := o.send(ctx, tenantID, rec); err != nil {
				return err
			}
		}
	}
}

func (o *Outbox) send(ctx context.Context, tenantID string, rec tenant.Record) error {
	var e entry
	var m Message
	if err := json.Unmarshal(rec.Doc, &e); err != nil {
		return fmt.Errorf("decode mail: %w", err)
	}
	if err := json.Unmarshal([]byte(e.Secret), &m); err != nil {
		return fmt.Errorf("decode mail: %w", err)
	}
	sendErr := o.transport.Send(ctx, m)
	if ctx.Err() != nil {
		return nil // the lease runs out, and somebody sends it later
	}
	given := sendErr != nil && e.Tries >= maxTries
	err := o.docs.Write(ctx, tenantID, func(tx tenant.Tx) error {
		if sendErr == nil || given {
			_, err := tx.Delete(tenant.KindOutbox, rec.ID)
			return err
		}
		_, err := tenant.Change(tx, tenant.KindOutbox, rec.ID, func(e *entry) error {
			e.DueAt = tx.Now().Add(min(firstWait<<min(e.Tries-1, 20), maxWait))
			e.LastError = sendErr.Error()
			return nil
		})
		if problem.Is(err, problem.NotFound) {
			return nil // the user was deleted meanwhile
		}
		return err
	})
	switch {
	case given:
		o.logger.ErrorContext(ctx, "a mail was given up", "tenant", tenantID, "kind", m.Kind, "tries", e.Tries, "error", sendErr)
		o.log.Append(tenantID, tenant.LogEvent{Type: tenant.LogMailFailed, UserID: m.UserID, UserName: m.To, Description: sendErr.Error()})
	case sendErr != nil:
		o.logger.WarnContext(ctx, "a mail could not be sent yet", "tenant", tenantID, "kind", m.Kind, "tries", e.Tries, "error", sendErr)
	}
	return err
}
