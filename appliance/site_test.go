package appliance

import (
	"testing"
	"time"

	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/store/postgres"
)

// TestLeaseChanges: a lease that grows or ends counts when the other site has it, one
// that shrinks at once, and the operator's word at once.
func TestLeaseChanges(t *testing.T) {
	base := time.Now()
	at := func(s int) time.Time { return base.Add(time.Duration(s) * time.Second) }
	w := &siteWatch{cfg: SiteConfig{Name: "a"}}
	for _, step := range []struct {
		name  string
		epoch int64
		lease int // seconds
		at    int
		acked int
		want  int
	}{
		{"the first one", 1, 30, 1, 0, 30},
		{"longer, not heard", 1, 60, 2, 1, 30},
		{"longer, heard of before it was read", 1, 60, 3, 2, 30},
		{"longer, heard after it was read", 1, 60, 5, 4, 60},
		{"shorter", 1, 20, 6, 4, 20},
		{"ended, not heard", 1, 0, 7, 4, 20},
		{"longer instead, which starts anew", 1, 40, 9, 8, 20},
		{"and is heard", 1, 40, 11, 10, 40},
		{"ended by the operator's word", 2, 0, 12, 4, 0},
		{"begins again", 2, 30, 13, 4, 30},
	} {
		w.acked = at(step.acked)
		w.take(&postgres.SiteState{Epoch: step.epoch, Active: "a", Lease: time.Duration(step.lease) * time.Second}, at(step.at), at(step.at))
		if want := time.Duration(step.want) * time.Second; w.lease != want {
			t.Errorf("%s: %s is in force, want %s", step.name, w.lease, want)
		}
	}
}

func TestSiteRefuses(t *testing.T) {
	now := time.Now()
	active := &postgres.SiteState{Epoch: 3, Active: "a"}
	for name, tt := range map[string]struct {
		w    *siteWatch
		want string
	}{
		"it is active":                {&siteWatch{state: active, read: now}, ""},
		"nothing was read":            {&siteWatch{}, "site_unknown"},
		"it was read long ago":        {&siteWatch{state: active, read: now.Add(-siteFresh - time.Second)}, "site_unknown"},
		"another site is active":      {&siteWatch{state: &postgres.SiteState{Active: "b"}, read: now}, "site_passive"},
		"it has handed over":          {&siteWatch{state: &postgres.SiteState{}, read: now}, "site_passive"},
		"the lease holds":             {&siteWatch{state: active, read: now, lease: time.Minute, acked: now}, ""},
		"the lease has ended":         {&siteWatch{state: active, read: now, lease: time.Minute, acked: now.Add(-2 * time.Minute)}, "site_lease_ended"},
		"the other site was promoted": {&siteWatch{state: active, read: now, rival: problem.New(problem.Unavailable, "site_replaced", "x")}, "site_replaced"},
	} {
		tt.w.cfg.Name = "a"
		got := ""
		if err := tt.w.Refusal(); err != nil {
			got = problem.From(err).Code
		}
		if got != tt.want {
			t.Errorf("%s: got %q, want %q", name, got, tt.want)
		}
	}
}
