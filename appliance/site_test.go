package appliance

import (
	"context"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/portcullis-id/portcullis/config"
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

// TestLeaseBegins: the lease that one node of a site sets, as it hears the other site,
// stops no other node that has not heard it yet; and no node counts it from later than
// it may have begun.
func TestLeaseBegins(t *testing.T) {
	const lease = 10 * time.Second
	none, some := &postgres.SiteState{Epoch: 2, Active: "a"}, &postgres.SiteState{Epoch: 2, Active: "a", Lease: lease}
	for name, tt := range map[string]struct {
		before *postgres.SiteState // as it was read
		ago    time.Duration
		want   string
	}{
		"there was none a second ago":     {none, time.Second, ""},
		"there was none, but long ago":    {none, lease + time.Second, "site_lease_ended"},
		"nothing was read before":         {nil, 0, "site_lease_ended"},
		"there was one a second ago":      {some, time.Second, "site_lease_ended"},
		"there was none in another epoch": {&postgres.SiteState{Epoch: 1, Active: "a"}, time.Second, "site_lease_ended"},
	} {
		now := time.Now()
		w := &siteWatch{cfg: SiteConfig{Name: "a", Lease: lease}}
		if at := now.Add(-tt.ago); tt.before != nil {
			w.take(tt.before, at, at)
		}
		for range 3 {
			w.take(some, now, now)
		}
		if got := code(w.Refusal()); got != tt.want {
			t.Errorf("%s: got %q, want %q", name, got, tt.want)
		}
	}
}

func code(err error) string {
	if err == nil {
		return ""
	}
	return problem.From(err).Code
}

func TestSiteRefuses(t *testing.T) {
	now := time.Now()
	active := &postgres.SiteState{Epoch: 3, Active: "a"}
	for name, tt := range map[string]struct {
		w    *siteWatch
		want string
	}{
		"it is active":                            {&siteWatch{state: active, read: now}, ""},
		"nothing was read":                        {&siteWatch{}, "site_unknown"},
		"it was read long ago":                    {&siteWatch{state: active, read: now.Add(-siteFresh - time.Second)}, "site_unknown"},
		"another site is active":                  {&siteWatch{state: &postgres.SiteState{Active: "b"}, read: now}, "site_passive"},
		"it has handed over":                      {&siteWatch{state: &postgres.SiteState{}, read: now}, "site_passive"},
		"the lease holds":                         {&siteWatch{state: active, read: now, lease: time.Minute, acked: now}, ""},
		"the lease has ended":                     {&siteWatch{state: active, read: now, lease: time.Minute, acked: now.Add(-2 * time.Minute)}, "site_lease_ended"},
		"the other site was promoted":             {&siteWatch{state: active, read: now, rival: &postgres.SiteState{Epoch: 4, Active: "b"}}, "site_replaced"},
		"the other site was, and has handed over": {&siteWatch{state: active, read: now, rival: &postgres.SiteState{Epoch: 4}}, "site_replaced"},
		"the other site was promoted before":      {&siteWatch{state: active, read: now, rival: &postgres.SiteState{Epoch: 2, Active: "b"}}, ""},
		"both were promoted":                      {&siteWatch{state: active, read: now, rival: &postgres.SiteState{Epoch: 3, Active: "b"}}, "two_active_sites"},
		"both agree":                              {&siteWatch{state: active, read: now, rival: &postgres.SiteState{Epoch: 3, Active: "a"}}, ""},
	} {
		tt.w.cfg.Name = "a"
		got := ""
		if err := tt.w.Refusal(); err != nil {
			got = problem.From(err).Code
		}
		if got != tt.want {
			t.Errorf("%s: got %q, want %q", name, got, tt.want)
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel() // so that nothing is held
		answer := httptest.NewRecorder()
		fit(tt.w.unfit, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })).ServeHTTP(answer, httptest.NewRequestWithContext(gone, http.MethodGet, "/authorize", nil))
		if want := "This server does not answer at this moment. This page tries again by itself."; tt.want == "" && answer.Code != http.StatusNoContent ||
			tt.want != "" && (answer.Code != http.StatusServiceUnavailable || !strings.Contains(answer.Body.String(), want)) {
			t.Errorf("%s: a browser gets %d %s", name, answer.Code, answer.Body)
		}
		// Of a database that does not answer the check of the database speaks.
		if fine := tt.want == "" || tt.want == "site_unknown"; tt.w.check().Run(t.Context()).OK != fine {
			t.Errorf("%s: the health check says %v, want %v", name, !fine, fine)
		}
	}
}

// TestSiteForgets: a node that works again, in another epoch, has kept nothing of what
// it read in the one before.
func TestSiteForgets(t *testing.T) {
	w, forgot := &siteWatch{cfg: SiteConfig{Name: "a"}}, 0
	w.onEpoch(func() { forgot++ })
	for _, step := range []struct {
		epoch  int64
		active string
		want   int
	}{{1, "a", 0}, {1, "a", 0}, {1, "", 0}, {3, "a", 1}, {3, "a", 1}} {
		now := time.Now()
		w.take(&postgres.SiteState{Epoch: step.epoch, Active: step.active}, now, now)
		if forgot != step.want {
			t.Errorf("in epoch %d, with site %q active: it forgot %d times, want %d", step.epoch, step.active, forgot, step.want)
		}
	}
}

// TestJoinFromAnotherSite: a host that says of which site it is keeps that, and its
// site's database; one that does not is of the site of the node that hands out.
func TestJoinFromAnotherSite(t *testing.T) {
	handed := Default()
	handed.Data, handed.Domain, handed.Proxies.Networks = t.TempDir(), "id.example.com", []string{"10.0.0.1"}
	handed.Listen.HTTPS, handed.Listen.HTTP = 0, 80
	handed.Database.DSN = "postgres://portcullis@db-a:27017/portcullis"
	handed.Site = SiteConfig{Name: "a", Standbys: []string{"site-b"}, Lease: 30 * time.Second, Peer: "postgres://portcullis@db-b:27017/portcullis"}
	if _, err := handed.sealer(nil); err != nil {
		t.Fatal(err)
	}
	grant, err := handed.grant(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, own := range map[string]SiteConfig{"a": {}, "b": {Name: "b", Standbys: []string{"site-a"}, Peer: handed.Database.DSN}} {
		c, want, database := Default(), handed.Site, handed.Database.DSN
		c.Data, c.Joining, c.Site = t.TempDir(), true, own
		c.Listen.HTTPS, c.Listen.HTTP = 0, 80
		if own.Name != "" {
			c.Database.DSN = "postgres://portcullis@db-b:27017/portcullis"
			want, database = own, c.Database.DSN
		}
		if err := c.keep(grant); err != nil {
			t.Fatal(err)
		}
		kept := Default()
		if err := config.Load(&kept, config.Sources{File: ConfigFile(c.Data)}); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(kept.Site, want) || kept.Database.DSN != database || kept.Domain != handed.Domain {
			t.Errorf("a host of site %s works with %+v, the database %s and the domain %s", name, kept.Site, kept.Database.DSN.Reveal(), kept.Domain)
		}
	}
}
