package authn

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/portcullis-id/portcullis/mail"
	"github.com/portcullis-id/portcullis/once"
	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/tenant"
)

// maxFailures is how many failed logins of one user from one address are taken;
// the next one is refused, whatever its password.
const maxFailures = 10

// blockTime is how long a block, and a count of failures, lasts unless it is
// lifted.
const blockTime = 30 * 24 * time.Hour

func itoa(n int) string { return strconv.Itoa(n) }

type attempt struct {
	ConnectionID string    `json:"connection_id"`
	Identifier   string    `json:"identifier"`
	IP           string    `json:"ip"`
	Failures     int       `json:"failures"`
	ExpiresAt    time.Time `json:"expires_at"`
}

// place is what of an address counts: all of IPv4, and of IPv6 the /64 that one
// household has.
func place(ip string) string {
	a, err := netip.ParseAddr(ip)
	if err != nil {
		return ip
	}
	a = a.Unmap()
	if a.Is6() {
		if p, err := a.WithZone("").Prefix(64); err == nil {
			return p.String()
		}
	}
	return a.String()
}

func attemptKey(connectionID, identifier, ip string) string {
	sum := sha256.Sum256([]byte(connectionID + "\x00" + strings.ToLower(identifier) + "\x00" + place(ip)))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// count notes an attempt, and reports whether it is the last one that is taken.
// After that it fails with problem.Limited and CodeTooMany.
func count(tx tenant.Tx, key, connectionID, identifier, ip string) (last bool, err error) {
	a, err := tenant.Load[attempt](tx, tenant.KindAttempt, key)
	if err != nil && !problem.Is(err, problem.NotFound) {
		return false, err
	}
	now := tx.Now()
	if a == nil || !now.Before(a.ExpiresAt) {
		a = &attempt{ConnectionID: connectionID, Identifier: strings.ToLower(identifier), IP: ip}
	}
	if a.Failures >= maxFailures {
		return false, problem.New(problem.Limited, CodeTooMany,
			"Your account has been blocked after multiple consecutive login attempts. We've sent you an email with instructions on how to unblock it.")
	}
	a.Failures++
	a.ExpiresAt = now.Add(blockTime)
	return a.Failures == maxFailures, tenant.Set(tx, tenant.KindAttempt, key, a)
}

// forgiveTime bounds forgive.
const forgiveTime = 2 * time.Second

// forgive takes counts back of a login that failed for a reason of ours, such as a
// disk that is full: a user would be blocked for what nobody tried. Where that cannot
// be written either, the count stays.
func (s *Service) forgive(ctx context.Context, tenantID, key string, guarded bool, counts int) {
	if !guarded {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), forgiveTime)
	defer cancel()
	err := s.docs.Write(ctx, tenantID, func(tx tenant.Tx) error {
		a, err := tenant.Load[attempt](tx, tenant.KindAttempt, key)
		switch {
		case problem.Is(err, problem.NotFound):
			return nil
		case err != nil:
			return err
		case a.Failures <= counts:
			_, err = tx.Delete(tenant.KindAttempt, key)
			return err
		}
		a.Failures -= counts
		return tenant.Set(tx, tenant.KindAttempt, key, a)
	})
	if err != nil {
		s.logger.WarnContext(ctx, "a login that failed for a reason of this server counts as one with a wrong password", "tenant", tenantID, "error", err)
	}
}

// removeBlocks lifts the blocks of everything that a user logs in with.
func removeBlocks(tx tenant.Tx, c *tenant.Connection, u *tenant.User) error {
	for _, identifier := range []string{u.Email, u.Username, u.PhoneNumber} {
		if identifier == "" {
			continue
		}
		if _, err := tx.DeleteWhere(tenant.KindAttempt, []tenant.Cond{{Column: "identifier", Value: identifier}}); err != nil {
			return err
		}
	}
	_, err := once.Revoke(tx, once.Unblock, u.ID)
	return err
}

type unblockTicket struct {
	UserID string `json:"user_id"`
	Key    string `json:"key"`
}

// mailBlocked tells a user of a block, with a link that lifts it.
func (s *Service) mailBlocked(ctx context.Context, a Attempt, u *tenant.User, key string) {
	ticket := once.New()
	content, err := s.content(ctx, a.Tenant, a.Client, u)
	if err == nil {
		content.IP = a.IP
		content.Link = s.dir.URL(a.Tenant) + "u/unblock?ticket=" + ticket
		err = s.docs.Write(ctx, a.Tenant, func(tx tenant.Tx) error {
			if err := once.Put(tx, once.Unblock, ticket, u.ID, unblockTicket{u.ID, key}, blockTime); err != nil {
				return err
			}
			return enqueue(tx, mail.BlockedAccount, a.Tenant, u, content)
		})
	}
	if err != nil {
		// The block holds all the same; the user asks for a new password, which lifts it.
		s.logger.ErrorContext(ctx, "the mail about a block was not written", "tenant", a.Tenant, "user_id", u.ID, "error", err)
		return
	}
	s.outbox.Wake()
}

// Unblock lifts the block that a ticket was sent for. It fails with CodeTicket.
func (s *Service) Unblock(ctx context.Context, tenantID, ticket string) error {
	var t unblockTicket
	err := s.docs.Write(ctx, tenantID, func(tx tenant.Tx) error {
		if err := once.Take(tx, once.Unblock, ticket, &t); err != nil {
			return err
		}
		_, err := tx.Delete(tenant.KindAttempt, t.Key)
		return err
	})
	if err != nil {
		return ticketError(err)
	}
	s.log.Append(tenantID, tenant.LogEvent{Type: tenant.LogUnblocked, UserID: t.UserID})
	return nil
}
