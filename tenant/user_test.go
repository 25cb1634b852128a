package tenant_test

import (
	"testing"

	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/store/storetest"
	"github.com/portcullis-id/portcullis/tenant"
)

var database = &tenant.Connection{ID: "con_db", Name: "users", Strategy: tenant.StrategyDatabase}
var google = &tenant.Connection{ID: "con_go", Name: "google", Strategy: "google-oauth2"}

func create(t *testing.T, d tenant.Docs, c *tenant.Connection, u tenant.User, hash string) (*tenant.User, error) {
	t.Helper()
	err := d.Write(t.Context(), "a", func(tx tenant.Tx) error {
		fresh := u // the function may run again
		if err := tenant.CreateUser(tx, c, &fresh, hash); err != nil {
			return err
		}
		u = fresh
		return nil
	})
	return &u, err
}

func must(t *testing.T, d tenant.Docs, fn func(tx tenant.Tx) error) {
	t.Helper()
	if err := d.Write(t.Context(), "a", fn); err != nil {
		t.Fatal(err)
	}
}

func TestUsersAreUniqueInTheirConnection(t *testing.T) {
	d := storetest.New(t)
	ann, err := create(t, d, database, tenant.User{Email: "Ann@Example.com", Username: "ann"}, "hash")
	if err != nil {
		t.Fatal(err)
	}
	for name, u := range map[string]tenant.User{
		"the same email in other case": {Email: "ann@example.COM"},
		"the same username":            {Email: "other@example.com", Username: "ANN"},
		"the same id":                  {ID: ann.Identities[0].UserID, Email: "third@example.com"},
	} {
		if _, err := create(t, d, database, u, ""); problem.From(err).Code != "user_exists" {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := create(t, d, &tenant.Connection{ID: "con_2", Name: "staff", Strategy: tenant.StrategyDatabase}, tenant.User{Email: "ann@example.com"}, ""); err != nil {
		t.Errorf("the same email at another connection: %v", err)
	}
	must(t, d, func(tx tenant.Tx) error {
		for typ, value := range map[tenant.IdentifierType]string{tenant.ByEmail: "ANN@example.com", tenant.ByUsername: "Ann"} {
			if u, err := tenant.UserByIdentifier(tx, database, typ, value); err != nil || u.ID != ann.ID {
				t.Errorf("by %s: %v, %v", typ, u, err)
			}
		}
		return nil
	})
}

func TestAChangedEmailLogsInAndTheOldOneDoesNot(t *testing.T) {
	d := storetest.New(t)
	ann, err := create(t, d, database, tenant.User{Email: "ann@example.com"}, "hash")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := create(t, d, database, tenant.User{Email: "bob@example.com"}, "hash"); err != nil {
		t.Fatal(err)
	}
	err = d.Write(t.Context(), "a", func(tx tenant.Tx) error {
		_, err := tenant.UpdateUser(tx, ann.ID, func(u *tenant.User) error { u.Email = "bob@example.com"; return nil })
		return err
	})
	if problem.From(err).Code != "user_exists" {
		t.Errorf("a taken email: got %v", err)
	}
	must(t, d, func(tx tenant.Tx) error {
		_, err := tenant.UpdateUser(tx, ann.ID, func(u *tenant.User) error { u.Email = "new@example.com"; return nil })
		return err
	})
	must(t, d, func(tx tenant.Tx) error {
		if _, err := tenant.UserByIdentifier(tx, database, tenant.ByEmail, "ann@example.com"); !problem.Is(err, problem.NotFound) {
			t.Errorf("the old email still leads to the user: %v", err)
		}
		_, err := tenant.UserByIdentifier(tx, database, tenant.ByEmail, "new@example.com")
		return err
	})
}

func TestPasswordsKeepTheirHistory(t *testing.T) {
	d := storetest.New(t)
	ann, err := create(t, d, database, tenant.User{Email: "ann@example.com"}, "h1")
	if err != nil {
		t.Fatal(err)
	}
	must(t, d, func(tx tenant.Tx) error { return tenant.SetPasswordHash(tx, database, ann, "h2", false) })
	must(t, d, func(tx tenant.Tx) error { return tenant.SetPasswordHash(tx, database, ann, "h2-stronger", true) })
	must(t, d, func(tx tenant.Tx) error {
		hash, former, err := tenant.PasswordHash(tx, database, ann)
		if hash != "h2-stronger" || len(former) != 1 || former[0] != "h1" {
			t.Errorf("got %s after %v", hash, former)
		}
		u, loadErr := tenant.Load[tenant.User](tx, tenant.KindUser, ann.ID)
		if loadErr != nil || u.LastPasswordReset == nil {
			t.Errorf("the reset is not noted: %+v, %v", u, loadErr)
		}
		return err
	})
}

func TestLinkedAccountsLogInAsTheMainUser(t *testing.T) {
	d := storetest.New(t)
	main, err := create(t, d, google, tenant.User{ID: "g1", Email: "ann@example.com"}, "")
	if err != nil {
		t.Fatal(err)
	}
	second, err := create(t, d, database, tenant.User{Email: "ann@example.com"}, "hash")
	if err != nil {
		t.Fatal(err)
	}
	must(t, d, func(tx tenant.Tx) error { _, err := tenant.LinkIdentity(tx, main.ID, second.ID); return err })
	must(t, d, func(tx tenant.Tx) error {
		u, err := tenant.UserByIdentifier(tx, database, tenant.ByEmail, "ann@example.com")
		if err != nil || u.ID != main.ID || len(u.Identities) != 2 {
			t.Fatalf("got %+v, %v", u, err)
		}
		if hash, _, err := tenant.PasswordHash(tx, database, u); hash != "hash" || err != nil {
			t.Errorf("the linked account lost its password: %v", err)
		}
		if _, err := tx.Get(tenant.KindUser, second.ID); !problem.Is(err, problem.NotFound) {
			t.Errorf("the second user is still there: %v", err)
		}
		return nil
	})
	must(t, d, func(tx tenant.Tx) error {
		if _, err := tenant.UnlinkIdentity(tx, main.ID, "google-oauth2", "g1"); !problem.Is(err, problem.Invalid) {
			t.Errorf("the main identity was unlinked: %v", err)
		}
		_, err := tenant.UnlinkIdentity(tx, main.ID, tenant.StrategyDatabase, second.Identities[0].UserID)
		return err
	})
	must(t, d, func(tx tenant.Tx) error {
		if _, err := tenant.UserByIdentifier(tx, database, tenant.ByEmail, "ann@example.com"); !problem.Is(err, problem.NotFound) {
			t.Errorf("an unlinked account still logs in: %v", err)
		}
		return nil
	})
}

func TestADeletedUserLeavesNothing(t *testing.T) {
	d := storetest.New(t)
	ann, err := create(t, d, database, tenant.User{Email: "ann@example.com"}, "hash")
	if err != nil {
		t.Fatal(err)
	}
	owned := map[tenant.Kind]string{
		tenant.KindUserRole: `{"user_id":"` + ann.ID + `","role_id":"r"}`, tenant.KindUserPermission: `{"user_id":"` + ann.ID + `"}`,
		tenant.KindSession: `{"user_id":"` + ann.ID + `"}`, tenant.KindRefreshToken: `{"user_id":"` + ann.ID + `"}`,
		tenant.KindConsent: `{"user_id":"` + ann.ID + `"}`, tenant.KindOnce: `{"subject":"` + ann.ID + `"}`,
	}
	must(t, d, func(tx tenant.Tx) error {
		for k, doc := range owned {
			if err := tx.Insert(k, "x", []byte(doc)); err != nil {
				return err
			}
		}
		return nil
	})
	must(t, d, func(tx tenant.Tx) error {
		there, err := tenant.DeleteUser(tx, ann.ID)
		if !there {
			t.Error("the user was not there")
		}
		return err
	})
	for _, c := range tenant.Collections() {
		page, err := d.Find(t.Context(), "a", c.Kind, tenant.Query{})
		if err != nil || len(page.Records) != 0 {
			t.Errorf("%d documents of %s are left, %v", len(page.Records), c.Kind, err)
		}
	}
	if _, err := create(t, d, database, tenant.User{Email: "ann@example.com"}, "hash"); err != nil {
		t.Errorf("the email is not free again: %v", err)
	}
}
