package login

import (
	"net/http"
	"slices"
	"strings"

	"github.com/portcullis-id/portcullis/authn"
	"github.com/portcullis-id/portcullis/oauth"
	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/tenant"
	"github.com/portcullis-id/portcullis/web"
)

// showReset asks for the address, or with a ticket for the new password.
func (p *Pages) showReset(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	if ticket := q.Get("ticket"); ticket != "" {
		t, err := p.users.PeekReset(r.Context(), tenantName(r.Context()), ticket)
		if err != nil {
			return err
		}
		return p.renderNewPassword(w, r, http.StatusOK, ticket, t, nil)
	}
	s, err := p.openReset(r, q.Get("state"))
	if err != nil {
		return err
	}
	return p.renderReset(w, r, s, http.StatusOK, s.Request.LoginHint, nil)
}

// openReset reads the transaction of a login, if the page was reached from one.
// It is reached without where a link of an old mail no longer works.
func (p *Pages) openReset(r *http.Request, state string) (*subject, error) {
	s := &subject{Transaction: &oauth.Transaction{Tenant: tenantName(r.Context())}}
	if state != "" {
		var err error
		if s, err = p.open(r, state); err != nil {
			return nil, err
		}
	} else {
		all, err := p.dir.Connections(r.Context(), s.Tenant)
		if err != nil {
			return nil, err
		}
		all = slices.DeleteFunc(slices.Clone(all), func(c *tenant.Connection) bool { return !c.Database() })
		if s.Database, err = p.database(r, s.Tenant, all); err != nil {
			return nil, err
		}
	}
	if !s.reset() {
		return nil, problem.New(problem.Forbidden, "reset_disabled", "Users of this connection cannot reset their password here")
	}
	return s, nil
}

// back is the login page that the page was reached from, or empty.
func (s *subject) back() string {
	if s.State == "" {
		return ""
	}
	return s.link(oauth.LoginPath)
}

func (p *Pages) renderReset(w http.ResponseWriter, r *http.Request, s *subject, status int, email string, fault error) error {
	d := p.data(r, s)
	d.Email, d.LoginURL = email, s.back()
	d.fault(fault)
	return p.view.render(w, r, status, "reset", d)
}

func (p *Pages) renderNewPassword(w http.ResponseWriter, r *http.Request, status int, ticket string, t authn.Ticket, fault error) error {
	d := p.data(r, nil)
	d.Ticket, d.Email = ticket, t.Email
	if c, err := p.dir.Connection(r.Context(), tenantName(r.Context()), t.ConnectionID); err == nil {
		d.Rules = d.rules(c)
	}
	d.fault(fault)
	return p.view.render(w, r, status, "newpassword", d)
}

func (p *Pages) postReset(w http.ResponseWriter, r *http.Request) error {
	if err := r.ParseForm(); err != nil {
		return badForm(err)
	}
	if ticket := r.PostForm.Get("ticket"); ticket != "" {
		return p.setPassword(w, r, ticket)
	}
	s, err := p.openReset(r, r.PostForm.Get("state"))
	if err != nil {
		return err
	}
	email := strings.TrimSpace(r.PostForm.Get("email"))
	if err := authn.CheckEmail(email); err != nil {
		return p.renderReset(w, r, s, http.StatusBadRequest, email, err)
	}
	if err := p.users.RequestReset(r.Context(), authn.ResetRequest{Origin: origin(r), Tenant: s.Tenant, Client: s.Client, Connection: s.Database, Email: email}); err != nil {
		return err
	}
	d := p.data(r, s).says("resetsent.title", "resetsent.text")
	d.Email = email
	d.Hint = d.T("resetsent.hint")
	d.NextURL, d.ButtonText = s.back(), d.T("back")
	return p.view.render(w, r, http.StatusOK, "done", d)
}

func (p *Pages) setPassword(w http.ResponseWriter, r *http.Request, ticket string) error {
	tn := tenantName(r.Context())
	plain := r.PostForm.Get("password")
	t, err := p.users.PeekReset(r.Context(), tn, ticket)
	if err != nil {
		return err
	}
	if plain != r.PostForm.Get("repeat") {
		return p.renderNewPassword(w, r, http.StatusBadRequest, ticket, t, problem.New(problem.Invalid, "password_mismatch", "The two passwords differ"))
	}
	t, err = p.users.Reset(r.Context(), tn, ticket, plain, origin(r))
	if e := problem.From(err); err != nil && (e.Code == authn.CodePassword || e.Code == "too_many_logins") {
		web.EventFrom(r.Context()).Fail(err)
		return p.renderNewPassword(w, r, e.HTTPStatus(), ticket, t, err)
	}
	if err != nil {
		return err
	}
	return p.ticketDone(w, r, t, "resetdone.title", "resetdone.text")
}

func (p *Pages) ticketDone(w http.ResponseWriter, r *http.Request, t authn.Ticket, title, text string) error {
	d := p.data(r, nil).says(title, text)
	d.Email = t.Email
	if to := t.Result(d.T(text)); to != "" {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("Referrer-Policy", "no-referrer") // the address holds the ticket
		http.Redirect(w, r, to, http.StatusSeeOther)     // #nosec G710 -- the Management API's caller gave the URL with the ticket
		return nil
	}
	return p.view.render(w, r, http.StatusOK, "done", d)
}

// showVerification asks for a press of the button: programs that look at mails
// follow links, but press no buttons.
func (p *Pages) showVerification(w http.ResponseWriter, r *http.Request) error {
	ticket := r.URL.Query().Get("ticket")
	t, err := p.users.PeekVerification(r.Context(), tenantName(r.Context()), ticket)
	if err != nil {
		return err
	}
	d := p.data(r, nil).says("verify.title", "verify.text")
	d.Email = t.Email
	return p.confirmTicket(w, r, d, "/u/email-verification", ticket, "verify.button")
}

func (p *Pages) confirmTicket(w http.ResponseWriter, r *http.Request, d *data, action, ticket, button string) error {
	d.Action, d.ButtonText = action, d.T(button)
	d.Hidden = []field{{"ticket", ticket}}
	return p.view.render(w, r, http.StatusOK, "confirm", d)
}

func (p *Pages) postVerification(w http.ResponseWriter, r *http.Request) error {
	if err := r.ParseForm(); err != nil {
		return badForm(err)
	}
	t, err := p.users.VerifyEmail(r.Context(), tenantName(r.Context()), r.PostForm.Get("ticket"), origin(r))
	if err != nil {
		return err
	}
	return p.ticketDone(w, r, t, "verified.title", "verified.text")
}

func (p *Pages) showUnblock(w http.ResponseWriter, r *http.Request) error {
	ticket := r.URL.Query().Get("ticket")
	if ticket == "" {
		return problem.New(problem.Invalid, "invalid_request", "Missing required parameter: ticket")
	}
	return p.confirmTicket(w, r, p.data(r, nil).says("unblock.title", "unblock.text"), "/u/unblock", ticket, "unblock.button")
}

func (p *Pages) postUnblock(w http.ResponseWriter, r *http.Request) error {
	if err := r.ParseForm(); err != nil {
		return badForm(err)
	}
	if err := p.users.Unblock(r.Context(), tenantName(r.Context()), r.PostForm.Get("ticket")); err != nil {
		return err
	}
	d := p.data(r, nil).says("unblocked.title", "unblocked.text")
	d.NextURL, d.ButtonText = resetPath, d.T("newpassword.title")
	return p.view.render(w, r, http.StatusOK, "done", d)
}
