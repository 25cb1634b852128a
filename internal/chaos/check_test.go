package chaos_test

import (
	"strings"
	"testing"
	"time"

	"github.com/portcullis-id/portcullis/internal/chaos"
)

var bounds = chaos.Bounds{Staleness: 2 * time.Second, CodeLife: time.Minute, Tokens: 2, Admitted: 2}

// op makes an operation between two times in seconds.
func op(kind chaos.Kind, key string, from, to float64, outcome chaos.Outcome, more ...string) chaos.Op {
	o := chaos.Op{Kind: kind, Key: key, Call: time.Duration(from * 1e9), Return: time.Duration(to * 1e9), Outcome: outcome}
	if len(more) > 0 {
		o.Token = more[0]
	}
	if len(more) > 1 {
		o.Next = more[1]
	}
	return o
}

func value(o chaos.Op, n int) chaos.Op { o.Value = n; return o }

// TestCheckerFindsPlantedFaults gives the checker histories with and without a
// fault: it has to find each, and nothing where there is none.
func TestCheckerFindsPlantedFaults(t *testing.T) {
	granted := op(chaos.Granted, "f", 0, 0, chaos.OK, "", "a")
	code := op(chaos.Session, "c", 0, 1, chaos.OK)
	rotated := op(chaos.Rotate, "app", 1, 2, chaos.OK, "", "s1")
	again := op(chaos.Rotate, "app", 10, 11, chaos.OK, "", "s2")
	for _, tt := range []struct {
		name string
		ops  []chaos.Op
		want string // "" for none
	}{
		{"nothing happened", nil, ""},

		{"a chain of rotations", []chaos.Op{granted, op(chaos.Refresh, "f", 1, 2, chaos.OK, "a", "b"), op(chaos.Refresh, "f", 3, 4, chaos.OK, "b", "c")}, ""},
		{"two rotations of one token", []chaos.Op{granted, op(chaos.Refresh, "f", 1, 2, chaos.OK, "a", "b"), op(chaos.Refresh, "f", 3, 4, chaos.OK, "a", "c")}, "refresh tokens"},
		{"two rotations of one token at the same time", []chaos.Op{granted, op(chaos.Refresh, "f", 1, 4, chaos.OK, "a", "b"), op(chaos.Refresh, "f", 2, 3, chaos.OK, "a", "c")}, "refresh tokens"},
		{"an acknowledged rotation is lost", []chaos.Op{granted, op(chaos.Refresh, "f", 1, 2, chaos.OK, "a", "b"), op(chaos.Refresh, "f", 3, 4, chaos.Refused, "b")}, "refresh tokens"},
		{"a rotation without an answer, which happened", []chaos.Op{granted, op(chaos.Refresh, "f", 1, 2, chaos.Unknown, "a"), op(chaos.Refresh, "f", 3, 4, chaos.Refused, "a")}, ""},
		{"a rotation without an answer, which did not happen", []chaos.Op{granted, op(chaos.Refresh, "f", 1, 2, chaos.Unknown, "a"), op(chaos.Refresh, "f", 3, 4, chaos.OK, "a", "b")}, ""},
		{"a rotation without an answer, which happens late", []chaos.Op{granted, op(chaos.Refresh, "f", 1, 2, chaos.Unknown, "a"), op(chaos.Refresh, "f", 3, 4, chaos.OK, "a", "b"),
			op(chaos.Refresh, "f", 5, 6, chaos.Refused, "b")}, ""},
		{"a reuse ends the family", []chaos.Op{granted, op(chaos.Refresh, "f", 1, 2, chaos.OK, "a", "b"), op(chaos.Refresh, "f", 3, 4, chaos.Refused, "a"), op(chaos.Refresh, "f", 5, 6, chaos.Refused, "b")}, ""},
		{"a reuse ends nothing", []chaos.Op{granted, op(chaos.Refresh, "f", 1, 2, chaos.OK, "a", "b"), op(chaos.Refresh, "f", 3, 4, chaos.Refused, "a"), op(chaos.Refresh, "f", 5, 6, chaos.OK, "b", "c")}, "refresh tokens"},
		{"refused after a revocation", []chaos.Op{granted, op(chaos.Revoke, "f", 1, 2, chaos.OK), op(chaos.Refresh, "f", 3, 4, chaos.Refused, "a"), op(chaos.UserInfo, "f", 3, 4, chaos.Refused)}, ""},
		{"accepted after a revocation", []chaos.Op{granted, op(chaos.Revoke, "f", 1, 2, chaos.OK), op(chaos.Refresh, "f", 3, 4, chaos.OK, "a", "b")}, "refresh tokens"},
		{"accepted while it is revoked", []chaos.Op{granted, op(chaos.Revoke, "f", 1, 5, chaos.OK), op(chaos.Refresh, "f", 2, 3, chaos.OK, "a", "b")}, ""},
		{"an access token after a revocation", []chaos.Op{granted, op(chaos.Revoke, "f", 1, 2, chaos.OK), op(chaos.UserInfo, "f", 3, 4, chaos.OK)}, "refresh tokens"},
		{"an access token refused for no reason", []chaos.Op{granted, op(chaos.UserInfo, "f", 3, 4, chaos.Refused)}, "refresh tokens"},
		{"a revocation without an answer may come to nothing", []chaos.Op{granted, op(chaos.Revoke, "f", 1, 2, chaos.Unknown), op(chaos.UserInfo, "f", 3, 4, chaos.OK)}, ""},
		{"a revocation without an answer cannot be undone", []chaos.Op{granted, op(chaos.Revoke, "f", 1, 2, chaos.Unknown), op(chaos.UserInfo, "f", 3, 4, chaos.Refused), op(chaos.UserInfo, "f", 5, 6, chaos.OK)}, "refresh tokens"},

		{"a code is used once", []chaos.Op{code, op(chaos.Redeem, "c", 2, 3, chaos.OK), op(chaos.Redeem, "c", 2, 4, chaos.Refused)}, ""},
		{"a code is used twice", []chaos.Op{code, op(chaos.Redeem, "c", 2, 3, chaos.OK), op(chaos.Redeem, "c", 2, 4, chaos.OK)}, "codes"},
		{"a code is refused that was not used", []chaos.Op{code, op(chaos.Redeem, "c", 2, 3, chaos.Refused)}, "codes"},
		{"two at the same moment get nothing", []chaos.Op{code, op(chaos.Redeem, "c", 2, 4, chaos.Refused), op(chaos.Redeem, "c", 3, 5, chaos.Refused)}, ""},
		{"two after each other get nothing", []chaos.Op{code, op(chaos.Redeem, "c", 2, 3, chaos.Refused), op(chaos.Redeem, "c", 4, 5, chaos.Refused)}, "codes"},
		{"an old code is refused", []chaos.Op{code, op(chaos.Redeem, "c", 62, 63, chaos.Refused)}, ""},
		{"a code without an answer, then refused", []chaos.Op{code, op(chaos.Redeem, "c", 2, 3, chaos.Unknown), op(chaos.Redeem, "c", 4, 5, chaos.Refused)}, ""},

		{"who reads gets what was written", []chaos.Op{value(op(chaos.Write, "u", 1, 2, chaos.OK), 1), value(op(chaos.Read, "u", 3, 4, chaos.OK), 1)}, ""},
		{"an acknowledged write is lost", []chaos.Op{value(op(chaos.Write, "u", 1, 2, chaos.OK), 1), value(op(chaos.Write, "u", 3, 4, chaos.OK), 2), value(op(chaos.Read, "u", 5, 6, chaos.OK), 1)}, "documents"},
		{"a read of an old state", []chaos.Op{value(op(chaos.Write, "u", 1, 2, chaos.OK), 1), value(op(chaos.Read, "u", 3, 4, chaos.OK), 0)}, "documents"},
		{"a read of what nobody wrote", []chaos.Op{value(op(chaos.Read, "u", 3, 4, chaos.OK), 7)}, "documents"},
		{"a write without an answer comes and goes", []chaos.Op{value(op(chaos.Write, "u", 1, 2, chaos.Unknown), 1), value(op(chaos.Read, "u", 3, 4, chaos.OK), 1), value(op(chaos.Read, "u", 5, 6, chaos.OK), 0)}, "documents"},

		{"as many as there are", []chaos.Op{op(chaos.Take, "k", 1, 2, chaos.OK), op(chaos.Take, "k", 1, 2, chaos.OK), op(chaos.Take, "k", 1, 3, chaos.Refused)}, ""},
		{"more than there are", []chaos.Op{op(chaos.Take, "k", 1, 2, chaos.OK), op(chaos.Take, "k", 1, 2, chaos.OK), op(chaos.Take, "k", 1, 3, chaos.OK)}, "rate limits"},
		{"refused before the last was given", []chaos.Op{op(chaos.Take, "k", 1, 2, chaos.OK), op(chaos.Take, "k", 3, 4, chaos.Refused), op(chaos.Take, "k", 5, 6, chaos.OK)}, "rate limits"},
		{"one without an answer may have taken the last", []chaos.Op{op(chaos.Take, "k", 1, 2, chaos.OK), op(chaos.Take, "k", 1, 2, chaos.Unknown), op(chaos.Take, "k", 3, 4, chaos.Refused)}, ""},

		{"a session holds", []chaos.Op{op(chaos.Session, "x", 1, 2, chaos.OK)}, ""},
		{"a session is lost", []chaos.Op{op(chaos.Session, "x", 1, 2, chaos.Refused)}, "sessions"},

		{"a user is there", []chaos.Op{op(chaos.Create, "m", 1, 2, chaos.OK), value(op(chaos.Find, "m", 3, 4, chaos.OK), 1)}, ""},
		{"a user is lost", []chaos.Op{op(chaos.Create, "m", 1, 2, chaos.OK), value(op(chaos.Find, "m", 3, 4, chaos.OK), 0)}, "users"},
		{"a user is there twice", []chaos.Op{op(chaos.Create, "m", 1, 2, chaos.Unknown), value(op(chaos.Find, "m", 3, 4, chaos.OK), 2)}, "users"},
		{"nobody looked for a user", []chaos.Op{op(chaos.Create, "m", 1, 2, chaos.OK)}, "users"},
		{"a user without an answer is not there", []chaos.Op{op(chaos.Create, "m", 1, 2, chaos.Unknown), value(op(chaos.Find, "m", 3, 4, chaos.OK), 0)}, ""},

		{"an old secret within the bound", []chaos.Op{rotated, again, op(chaos.Machine, "app", 12, 13, chaos.OK, "s1")}, ""},
		{"an old secret after the bound", []chaos.Op{rotated, again, op(chaos.Machine, "app", 14, 15, chaos.OK, "s1")}, "secrets"},
		{"a new secret refused after the bound", []chaos.Op{rotated, again, op(chaos.Machine, "app", 14, 15, chaos.Refused, "s2")}, "secrets"},
		{"an old secret refused", []chaos.Op{rotated, again, op(chaos.Machine, "app", 14, 15, chaos.Refused, "s1")}, ""},
		{"a secret refused that a rotation without an answer may have replaced", []chaos.Op{rotated, op(chaos.Rotate, "app", 10, 11, chaos.Unknown), op(chaos.Machine, "app", 14, 15, chaos.Refused, "s1")}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			faults := chaos.Check(tt.ops, bounds)
			switch {
			case tt.want == "" && len(faults) > 0:
				t.Errorf("found %q", faults)
			case tt.want != "" && (len(faults) != 1 || !strings.HasPrefix(faults[0], tt.want+":")):
				t.Errorf("found %q, want one of %s", faults, tt.want)
			}
		})
	}
}

// TestLimitsInParts: while nodes do not reach each other a limit may be exceeded up
// to a bound, and refused early.
func TestLimitsInParts(t *testing.T) {
	parts := chaos.Bounds{Tokens: 2, Admitted: 3}
	take := func(n int, outcome chaos.Outcome) (ops []chaos.Op) {
		for range n {
			ops = append(ops, op(chaos.Take, "k", 1, 2, outcome))
		}
		return ops
	}
	for _, tt := range []struct {
		name string
		ops  []chaos.Op
		want int
	}{
		{"refused early", append(take(1, chaos.Refused), take(2, chaos.OK)...), 0},
		{"up to the bound", append(take(9, chaos.Unknown), take(3, chaos.OK)...), 0},
		{"beyond the bound", append(take(9, chaos.Unknown), take(4, chaos.OK)...), 1},
	} {
		if faults := chaos.Check(tt.ops, parts); len(faults) != tt.want {
			t.Errorf("%s: found %q", tt.name, faults)
		}
	}
}

// TestAvailability counts failures by kind, with the times in which they were.
func TestAvailability(t *testing.T) {
	all := chaos.Availabilities([]chaos.Op{
		op(chaos.Login, "", 0, 1, chaos.OK),
		op(chaos.Login, "", 1, 2, chaos.Unknown),
		op(chaos.Login, "", 2.5, 4, chaos.Unknown),
		op(chaos.Read, "u", 3, 3.5, chaos.OK),
		op(chaos.Login, "", 9, 10, chaos.Unknown),
		op(chaos.Redeem, "c", 9, 10, chaos.Refused),
		op(chaos.Granted, "f", 0, 0, chaos.OK),
	})
	if len(all) != 4 {
		t.Fatalf("%+v", all)
	}
	login, total := all[0], all[3]
	if login.Kind != chaos.Login || login.Count != 4 || login.Failed != 3 || len(login.Windows) != 2 || login.Longest != 3*time.Second {
		t.Errorf("%+v", login)
	}
	if total.Count != 6 || total.Failed != 3 {
		t.Errorf("%+v", total)
	}
}
