package once

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"

	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/tenant"
)

// Type separates the uses of single-use values.
type Type string

// The types in use.
const (
	AuthorizationCode Type = "code"             // RFC 6749 section 4.1.2
	Transaction       Type = "transaction"      // a login that was completed
	ClientAssertion   Type = "client_assertion" // jti of RFC 7523 section 3
	PasswordReset     Type = "password_reset"
	EmailVerification Type = "email_verification"
	Unblock           Type = "unblock"
	UpstreamState     Type = "upstream_state" // state of a login at another provider
	Setup             Type = "setup"          // the first administrator's link
	RevokedFamily     Type = "revoked_family" // tokens of one login that were revoked
	ClusterJoin       Type = "cluster_join"   // a token with which a node joins
)

// Codes of the errors of Take.
const (
	CodeUnknown = "unknown_or_expired" // problem.NotFound
	CodeUsed    = "already_used"       // problem.Conflict
)

type entry struct {
	Type      Type            `json:"type"`
	Subject   string          `json:"subject,omitempty"`
	Data      json.RawMessage `json:"data,omitempty"`
	ExpiresAt time.Time       `json:"expires_at"`
	TakenAt   *time.Time      `json:"taken_at,omitempty"`
}

// New makes a value with 256 bits of entropy, fit for a URL.
func New() string { return tenant.RandomString(43) }

// id is what the store keeps of a value: its type and hash.
func id(t Type, value string) string {
	sum := sha256.Sum256([]byte(value))
	return string(t) + ":" + base64.RawURLEncoding.EncodeToString(sum[:])
}

// Put stores a value that Take accepts one time until ttl has passed. Subject
// names what the value belongs to, such as a user id, so that Revoke finds it.
func Put(tx tenant.Tx, t Type, value, subject string, data any, ttl time.Duration) error {
	raw, err := json.Marshal(data)
	if err != nil {
		return fmt.Errorf("encode %s: %w", t, err)
	}
	return tenant.Add(tx, tenant.KindOnce, id(t, value), &entry{Type: t, Subject: subject, Data: raw, ExpiresAt: tx.Now().Add(ttl)})
}

// Take uses a value up and decodes its data. Of any number of concurrent calls
// one succeeds. A value that was used before fails with problem.Conflict and
// CodeUsed, and its data is decoded all the same, so that the caller can revoke
// what the first use gave out. A value that is unknown, of another type or
// expired fails with problem.NotFound and CodeUnknown.
func Take(tx tenant.Tx, t Type, value string, data any) error {
	unknown := problem.New(problem.NotFound, CodeUnknown, "the %s is unknown or has expired", t)
	used := false
	_, err := tenant.Change(tx, tenant.KindOnce, id(t, value), func(e *entry) error {
		now := tx.Now()
		if e.Type != t || !now.Before(e.ExpiresAt) {
			return unknown
		}
		if data != nil && len(e.Data) > 0 {
			if err := json.Unmarshal(e.Data, data); err != nil {
				return fmt.Errorf("decode %s: %w", t, err)
			}
		}
		if e.TakenAt != nil {
			used = true
			return problem.New(problem.Conflict, CodeUsed, "the %s was used before", t)
		}
		e.TakenAt = &now
		return nil
	})
	switch {
	case err == nil || used:
		return err
	case problem.Is(err, problem.NotFound):
		return unknown
	case problem.Is(err, problem.Conflict): // another transaction took it at this moment
		return problem.New(problem.Conflict, CodeUsed, "the %s was used before", t)
	}
	return err
}

// Claim records a value that somebody else made, such as a jti, and fails with
// problem.Conflict and CodeUsed when it was claimed before within its ttl.
func Claim(tx tenant.Tx, t Type, value string, ttl time.Duration) error {
	now := tx.Now()
	e := &entry{Type: t, ExpiresAt: now.Add(ttl), TakenAt: &now}
	used := problem.New(problem.Conflict, CodeUsed, "the %s was used before", t)
	old, err := tenant.Load[entry](tx, tenant.KindOnce, id(t, value))
	if err == nil && now.Before(old.ExpiresAt) {
		return used
	}
	if err != nil && !problem.Is(err, problem.NotFound) {
		return err
	}
	if err := tenant.Set(tx, tenant.KindOnce, id(t, value), e); problem.Is(err, problem.Conflict) {
		return used
	} else if err != nil {
		return err
	}
	return nil
}

// Claimed reports whether a value was claimed and its ttl has not passed.
func Claimed(tx tenant.Tx, t Type, value string) (bool, error) {
	e, err := tenant.Load[entry](tx, tenant.KindOnce, id(t, value))
	if problem.Is(err, problem.NotFound) {
		return false, nil
	}
	return err == nil && tx.Now().Before(e.ExpiresAt), err
}

// ClaimedNow is Claimed outside of a transaction.
func ClaimedNow(ctx context.Context, docs tenant.Docs, tenantID string, t Type, value string, now time.Time) (bool, error) {
	e, err := tenant.Get[entry](ctx, docs, tenantID, tenant.KindOnce, id(t, value))
	if problem.Is(err, problem.NotFound) {
		return false, nil
	}
	return err == nil && now.Before(e.ExpiresAt), err
}

// Peek decodes the data of a value that could be taken now, without taking it.
// Errors are those of Take.
func Peek(tx tenant.Tx, t Type, value string, data any) error {
	e, err := tenant.Load[entry](tx, tenant.KindOnce, id(t, value))
	switch {
	case problem.Is(err, problem.NotFound), err == nil && (e.Type != t || !tx.Now().Before(e.ExpiresAt)):
		return problem.New(problem.NotFound, CodeUnknown, "the %s is unknown or has expired", t)
	case err != nil:
		return err
	case e.TakenAt != nil:
		return problem.New(problem.Conflict, CodeUsed, "the %s was used before", t)
	}
	return json.Unmarshal(e.Data, data)
}

// Revoke makes all values of a type that belong to a subject unusable.
func Revoke(tx tenant.Tx, t Type, subject string) (int, error) {
	return tx.DeleteWhere(tenant.KindOnce, []tenant.Cond{
		{Column: "type", Value: string(t)}, {Column: "subject", Value: subject},
	})
}
