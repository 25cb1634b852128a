package authn

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/tenant"
)

// Profile is what another provider says of a person.
type Profile struct {
	Subject       string
	Email         string
	EmailVerified bool // only when the provider itself says so
	Name          string
	Nickname      string
	GivenName     string
	FamilyName    string
	Picture       string
	Locale        string
	Username      string
	Raw           map[string]any // everything else, for the user's root attributes
}

// FederatedLogin is a login through another provider.
type FederatedLogin struct {
	Origin
	Tenant     string
	Client     *tenant.Client
	Connection *tenant.Connection
	Profile    Profile
}

type federatedOptions struct {
	SetUserRootAttributes string `json:"set_user_root_attributes"` // on_each_login (default), on_first_login, never_on_login
	AccountLinking        string `json:"account_linking"`          // "" or verified_email
}

// Federated finds the user of a profile, or makes one, and notes the login. An
// account is joined with an existing user of the same address only where the
// connection asks for it (account_linking: verified_email) and both sides have
// verified the address. It fails with CodeBlocked, or with problem.Forbidden
// when the connection is not enabled for the client.
func (s *Service) Federated(ctx context.Context, l FederatedLogin) (*tenant.User, error) {
	u, created, err := s.federated(ctx, l)
	e := event(tenant.LogLogin, l.Origin, l.Client, l.Connection)
	e.UserName = clip(l.Profile.Email)
	if u != nil {
		e.UserID = u.ID
	}
	if err != nil {
		e.Type, e.Description = tenant.LogFailedLogin, problem.From(err).Message
	} else if created {
		signup := e
		signup.Type = tenant.LogSignup
		s.log.Append(l.Tenant, signup)
	}
	s.log.Append(l.Tenant, e)
	return u, err
}

func (s *Service) federated(ctx context.Context, l FederatedLogin) (user *tenant.User, created bool, err error) {
	if l.Client != nil && !l.Connection.EnabledFor(l.Client.ID) {
		return nil, false, problem.New(problem.Forbidden, "unauthorized_client", "the connection is not enabled for this application")
	}
	if l.Profile.Subject == "" {
		return nil, false, problem.New(problem.Invalid, "invalid_profile", "The other provider did not say who you are")
	}
	if email, err := CanonicalEmail(l.Profile.Email); err != nil {
		l.Profile.Email, l.Profile.EmailVerified = "", false // what is no address identifies nobody
	} else {
		l.Profile.Email = email
	}
	var opts federatedOptions
	if len(l.Connection.Options) > 0 {
		_ = json.Unmarshal(l.Connection.Options, &opts) // validated when it was stored
	}
	err = s.docs.Write(ctx, l.Tenant, func(tx tenant.Tx) error {
		user, created = nil, false
		sub := subject(l.Connection, l.Profile.Subject)
		u, err := tenant.UserByIdentity(tx, l.Connection, sub)
		switch {
		case problem.Is(err, problem.NotFound):
			fresh := &tenant.User{ID: sub}
			fill(fresh, l.Profile)
			fresh.EmailVerified = l.Profile.EmailVerified
			Complete(fresh, s.dir.URL(l.Tenant))
			var main *tenant.User
			if opts.AccountLinking == "verified_email" && l.Profile.EmailVerified && l.Profile.Email != "" {
				if main, err = verifiedUser(tx, l.Profile.Email); err != nil {
					return err
				}
			}
			if err := tenant.CreateUser(tx, l.Connection, fresh, ""); err != nil {
				return err
			}
			if u, created = fresh, true; main != nil {
				if u, err = tenant.LinkIdentity(tx, main.ID, fresh.ID); err != nil {
					return err
				}
				created = false
			}
		case err != nil:
			return err
		case opts.SetUserRootAttributes == "" || opts.SetUserRootAttributes == "on_each_login":
			// Only the main identity speaks for the user's own attributes.
			if u.Identities[0].ConnectionID == l.Connection.ID && u.Identities[0].UserID == sub {
				if u, err = tenant.UpdateUser(tx, u.ID, func(u *tenant.User) error {
					fill(u, l.Profile)
					u.EmailVerified = l.Profile.EmailVerified
					return nil
				}); err != nil {
					return err
				}
			}
		}
		user = u
		if u.IsBlocked() {
			return nil // the profile is kept, the login is not
		}
		user, err = noteLogin(tx, u.ID, l.IP)
		return err
	})
	if err == nil && user.IsBlocked() {
		err = blocked()
	}
	return user, created, err
}

// subject is the id of an account at its provider. Connections of one strategy
// may be many, so theirs carry the connection's name (as Auth0's do).
func subject(c *tenant.Connection, sub string) string {
	switch c.Strategy {
	case "oidc", "oauth2":
		return c.Name + "|" + sub
	}
	return sub
}

// verifiedUser is the one user whose address is verified and equal. Two of them
// are nobody: it is not for us to choose.
func verifiedUser(tx tenant.Tx, email string) (*tenant.User, error) {
	all, _, err := tenant.Select[tenant.User](tx, tenant.KindUser, tenant.Query{Limit: 2, Where: []tenant.Cond{
		{Column: "email", Value: email}, {Column: "email_verified", Value: true},
	}})
	if err != nil || len(all) != 1 {
		return nil, err
	}
	return all[0], nil
}

func fill(u *tenant.User, p Profile) {
	set := func(to *string, v string) {
		if v = clip(v); v != "" {
			*to = v
		}
	}
	set(&u.Email, p.Email)
	set(&u.Name, p.Name)
	set(&u.Nickname, p.Nickname)
	set(&u.GivenName, p.GivenName)
	set(&u.FamilyName, p.FamilyName)
	set(&u.Username, p.Username)
	if len(p.Picture) <= 2048 && strings.HasPrefix(p.Picture, "https://") {
		u.Picture = p.Picture
	}
	if p.Locale != "" && len(p.Locale) <= 35 {
		if raw, err := json.Marshal(p.Locale); err == nil {
			if u.Extra == nil {
				u.Extra = map[string]json.RawMessage{}
			}
			u.Extra["locale"] = raw
		}
	}
}
