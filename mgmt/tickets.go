package mgmt

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/portcullis-id/portcullis/authn"
	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/tenant"
)

func (a *API) registerTickets(mux *http.ServeMux) {
	a.handle(mux, "POST tickets/password-change", []string{"create:user_tickets"}, a.passwordTicket)
	a.handle(mux, "POST tickets/email-verification", []string{"create:user_tickets"}, a.verificationTicket)
}

// ticket reads what both kinds have in common.
func (a *API) ticket(c *call, d doc) (authn.Ticket, time.Duration, error) {
	t := authn.Ticket{UserID: text(d, "user_id"), ClientID: text(d, "client_id"), ResultURL: text(d, "result_url"), IncludeEmail: d["includeEmailInRedirect"] == true}
	if t.ResultURL != "" {
		if err := checkURL(t.ResultURL, false); err != nil {
			return t, 0, invalidBody("'%v' on property result_url.", err)
		}
	}
	if t.ClientID != "" {
		if _, err := a.Directory.Client(c.ctx(), c.tenant, t.ClientID); problem.Is(err, problem.NotFound) {
			return t, 0, notFound("inexistent_client", "The client does not exist")
		} else if err != nil {
			return t, 0, err
		}
	}
	ttl := time.Duration(0)
	if n, ok := d["ttl_sec"].(json.Number); ok {
		if err := within(d, "ttl_sec", 0, authn.MaxTTL.Seconds()); err != nil {
			return t, 0, err
		}
		sec, _ := n.Int64()
		ttl = time.Duration(sec) * time.Second
	}
	return t, ttl, nil
}

func (a *API) passwordTicket(c *call) (int, any, error) {
	d, err := c.object()
	if err != nil {
		return 0, nil, err
	}
	if err := declare(`result_url:?string user_id client_id organization_id connection_id email ttl_sec:integer mark_email_as_verified:boolean
includeEmailInRedirect:boolean identity:object`).check(d); err != nil {
		return 0, nil, err
	}
	t, ttl, err := a.ticket(c, d)
	if err != nil {
		return 0, nil, err
	}
	t.MarkVerified = d["mark_email_as_verified"] == true
	if t.UserID == "" {
		if err := required(d, "email", "connection_id"); err != nil {
			return 0, nil, invalidBody("'user_id, or email and connection_id, are needed'.")
		}
		conn, err := a.database(c, text(d, "connection_id"))
		if err != nil {
			return 0, nil, err
		}
		err = a.docs.Write(c.ctx(), c.tenant, func(tx tenant.Tx) error {
			u, err := tenant.UserByIdentifier(tx, conn, tenant.ByEmail, text(d, "email"))
			if err == nil {
				t.UserID, t.ConnectionID = u.ID, conn.ID
			}
			return err
		})
		if problem.Is(err, problem.NotFound) {
			return 0, nil, errNoUser
		}
		if err != nil {
			return 0, nil, err
		}
	}
	link, err := a.Users.PasswordTicket(c.ctx(), c.tenant, t, ttl)
	if problem.Is(err, problem.NotFound) {
		return 0, nil, errNoUser
	}
	return http.StatusCreated, doc{"ticket": link}, err
}

func (a *API) verificationTicket(c *call) (int, any, error) {
	d, err := c.object()
	if err != nil {
		return 0, nil, err
	}
	if err := declare(`result_url:?string user_id client_id organization_id ttl_sec:integer includeEmailInRedirect:boolean identity:object`).check(d); err != nil {
		return 0, nil, err
	}
	if err := required(d, "user_id"); err != nil {
		return 0, nil, err
	}
	t, ttl, err := a.ticket(c, d)
	if err != nil {
		return 0, nil, err
	}
	link, err := a.Users.VerificationTicket(c.ctx(), c.tenant, t, ttl)
	if problem.Is(err, problem.NotFound) {
		return 0, nil, errNoUser
	}
	return http.StatusCreated, doc{"ticket": link}, err
}
