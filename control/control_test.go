package control

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/web"
)

func newTestAuthority(t testing.TB, now time.Time) *Authority {
	t.Helper()
	doc, err := newAuthority(now)
	if err != nil {
		t.Fatal(err)
	}
	a, err := doc.authority()
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func issued(t testing.TB, a *Authority, id string, now time.Time) *x509.Certificate {
	t.Helper()
	_, csr, err := request()
	if err != nil {
		t.Fatal(err)
	}
	pem, number, err := a.issue(csr, id, now)
	if err != nil {
		t.Fatal(err)
	}
	c, err := parseCertificate(pem)
	if err != nil {
		t.Fatal(err)
	}
	if number != hex(c.SerialNumber) {
		t.Errorf("the serial number is %s, and was said to be %s", hex(c.SerialNumber), number)
	}
	return c
}

const testNode = "node_0123456789abcdef"

func TestCertificates(t *testing.T) {
	now := time.Now()
	a := newTestAuthority(t, now)
	c := issued(t, a, testNode, now)
	if id, ok := nodeID(c); !ok || id != testNode {
		t.Errorf("got id %q, want %s", id, testNode)
	}
	if life := c.NotAfter.Sub(now); life > nodeLife || life < nodeLife-time.Minute {
		t.Errorf("the certificate lives for %v, want %v", life, nodeLife)
	}
	if c.IsCA {
		t.Error("a node's certificate can sign others")
	}
	if _, err := believe([]*x509.Certificate{c, a.cert}, fingerprint(a.cert)); err != nil {
		t.Errorf("the token's own authority is not believed: %v", err)
	}
	other := newTestAuthority(t, now)
	if _, err := believe([]*x509.Certificate{c, other.cert}, fingerprint(a.cert)); err == nil {
		t.Error("an authority that the token does not name is believed")
	}
	// A stranger shows the real authority's certificate beside one of its own.
	if _, err := believe([]*x509.Certificate{issued(t, other, testNode, now), a.cert}, fingerprint(a.cert)); err == nil {
		t.Error("a certificate that the authority has not signed is believed")
	}
}

func TestIssueRefuses(t *testing.T) {
	a := newTestAuthority(t, time.Now())
	for name, csr := range map[string]string{
		"nothing": "", "text": "hello", "another block": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
		"broken": "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n", "too long": strings.Repeat("x", maxCSR+1),
	} {
		if _, _, err := a.issue(csr, testNode, time.Now()); !problem.Is(err, problem.Invalid) {
			t.Errorf("%s: got %v, want it refused", name, err)
		}
	}
}

func TestJoinTokens(t *testing.T) {
	good := JoinToken{Addresses: []string{"10.0.0.11:7777", "[fd00::11]:7777", "node3.internal:7777"}, Fingerprint: strings.Repeat("f", 43), Secret: strings.Repeat("s", 43)}
	got, err := ParseJoinToken(" " + good.String() + "\n")
	if err != nil || got.String() != good.String() {
		t.Errorf("got %v %v", got, err)
	}
	for name, change := range map[string]func(*JoinToken){
		"no address":        func(t *JoinToken) { t.Addresses = nil },
		"too many":          func(t *JoinToken) { t.Addresses = make([]string, maxAddresses+1) },
		"no port":           func(t *JoinToken) { t.Addresses = []string{"10.0.0.11"} },
		"port 0":            func(t *JoinToken) { t.Addresses = []string{"10.0.0.11:0"} },
		"any address":       func(t *JoinToken) { t.Addresses = []string{"0.0.0.0:7777"} },
		"short fingerprint": func(t *JoinToken) { t.Fingerprint = "f" },
		"short secret":      func(t *JoinToken) { t.Secret = "s" },
	} {
		bad := good
		change(&bad)
		if _, err := ParseJoinToken(bad.String()); !problem.Is(err, problem.Invalid) {
			t.Errorf("%s: got %v, want it refused", name, err)
		}
	}
	for _, text := range []string{"", "pcj1-", "pcj1-!!!", "pcj2-e30", "pcj1-" + strings.Repeat("A", maxToken)} {
		if _, err := ParseJoinToken(text); !problem.Is(err, problem.Invalid) {
			t.Errorf("%.20q: got %v, want it refused", text, err)
		}
	}
}

func FuzzParseJoinToken(f *testing.F) {
	f.Add(JoinToken{Addresses: []string{"10.0.0.11:7777"}, Fingerprint: strings.Repeat("f", 43), Secret: strings.Repeat("s", 43)}.String())
	f.Add("pcj1-e30")
	f.Fuzz(func(t *testing.T, text string) {
		tok, err := ParseJoinToken(text)
		if err != nil {
			if !problem.Is(err, problem.Invalid) {
				t.Errorf("%v is no answer to a stranger's token", err)
			}
			return
		}
		again, err := ParseJoinToken(tok.String())
		if err != nil || again.String() != tok.String() {
			t.Errorf("%q is read, and what it says is not: %v", text, err)
		}
		for _, a := range tok.Addresses {
			if CheckAddress(a) != nil {
				t.Errorf("address %q was let through", a)
			}
		}
	})
}

func TestClockFault(t *testing.T) {
	const off, near = 20_000.0, 3.0 // milliseconds
	for name, tt := range map[string]struct {
		skews   []Skew // of the others' clocks against this one's
		silent  int    // of them, so many have not answered lately
		faulty  bool
		mention string
	}{
		"alone":                           {nil, 0, false, ""},
		"three nodes, all right":          {[]Skew{{near, 1}, {-near, 1}}, 0, false, ""},
		"this one is behind":              {[]Skew{{off, 1}, {off, 1}}, 0, true, "20.0 s behind"},
		"this one is ahead":               {[]Skew{{-off, 1}, {-off, 1}}, 0, true, "20.0 s ahead of"},
		"another one is wrong":            {[]Skew{{off, 1}, {near, 1}}, 0, false, ""},
		"the others are wrong both ways":  {[]Skew{{off, 1}, {-off, 1}}, 0, false, ""},
		"the measurement errs by as much": {[]Skew{{off, off}, {off, off}}, 0, false, ""},
		"two nodes: nobody can tell":      {[]Skew{{off, 1}}, 0, false, ""},
		"one of two is silent":            {[]Skew{{off, 1}, {off, 1}}, 1, false, ""},
		"five nodes, most of them":        {[]Skew{{off, 1}, {off, 1}, {off, 1}, {near, 1}}, 0, true, "3 of the cluster's 5 nodes"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &Service{skews: map[string]Skew{}, answers: map[string]heard{}}
			for i, k := range tt.skews {
				id := string(rune('a' + i))
				s.skews[id] = k
				s.answers[id] = heard{at: time.Now()}
				if i < tt.silent {
					s.answers[id] = heard{at: time.Now().Add(-suspectAfter)}
				}
			}
			err := s.ClockFault()
			if (err != nil) != tt.faulty || tt.faulty && !strings.Contains(err.Error(), tt.mention) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestWhoHoldsUpSettings(t *testing.T) {
	now := time.Now()
	v := &Settings{Version: 2, ChangedAt: now.Add(-time.Hour)}
	for name, tt := range map[string]struct {
		m     Member
		heard time.Duration // ago
		want  bool
	}{
		"it works with them":                {Member{Settings: 2, SeenAt: now}, 0, false},
		"it is up and has not yet":          {Member{Settings: 1, SeenAt: now}, 0, true},
		"it starts again":                   {Member{Settings: 1, SeenAt: now}, suspectAfter, true},
		"it did not come back":              {Member{Settings: 1, SeenAt: now.Add(-time.Minute)}, downAfter, true},
		"it was down before they were made": {Member{Settings: 1, SeenAt: now.Add(-2 * time.Hour)}, downAfter, false},
	} {
		s := &Service{beats: map[string]heard{"": {at: now.Add(-tt.heard)}}}
		if got := s.holdsUp(tt.m, v); got != tt.want {
			t.Errorf("%s: got %v, want %v", name, got, tt.want)
		}
	}
}

func TestSettingsKeepSecretsApart(t *testing.T) {
	v := &Settings{}
	all := map[string]string{"log.level": "debug", "smtp.password": "hunter2"}
	if err := v.keep(all, []string{"smtp.password"}); err != nil {
		t.Fatal(err)
	}
	if v.Values["smtp.password"] != "" || !strings.Contains(v.Secret, "hunter2") || v.Values["log.level"] != "debug" {
		t.Errorf("got %+v", v)
	}
	got, err := v.All()
	if err != nil || len(got) != 2 || got["smtp.password"] != "hunter2" {
		t.Errorf("got %v %v", got, err)
	}
}

func TestSights(t *testing.T) {
	for silence, want := range map[time.Duration]Sight{0: Up, suspectAfter - 1: Up, suspectAfter: Suspect, downAfter - 1: Suspect, downAfter: Down} {
		if got := sightOf(silence); got != want {
			t.Errorf("silent for %v: got %s, want %s", silence, got, want)
		}
	}
	// Who has never answered is no sooner away than who did.
	began := time.Now()
	for asked, want := range map[time.Duration]Sight{0: Unknown, suspectAfter - 1: Unknown, suspectAfter: Suspect, downAfter: Down} {
		if got := networkSight(began.Add(asked), began, time.Time{}); got != want {
			t.Errorf("asked for %v without an answer: got %s, want %s", asked, got, want)
		}
	}
	if got := networkSight(began.Add(time.Hour), began, began.Add(time.Hour-time.Second)); got != Up {
		t.Errorf("answered a second ago: got %s", got)
	}
}

func TestDatabaseElsewhere(t *testing.T) {
	const away = 0
	for name, tt := range map[string]struct {
		others  []time.Duration // for how long each other node has had the database
		state   State
		failing time.Duration
		want    bool
	}{
		"nobody else":              {failing: time.Second},
		"away for all":             {others: []time.Duration{away, away}, state: Active, failing: time.Second},
		"and noticed just now":     {others: []time.Duration{away, away}, state: Active},
		"one has had it all along": {others: []time.Duration{away, time.Hour}, state: Active, want: true},
		"one has it again":         {others: []time.Duration{300 * time.Millisecond}, state: Active, failing: 5 * time.Second},
		"one has it for a second":  {others: []time.Duration{1200 * time.Millisecond}, state: Active, failing: 5 * time.Second, want: true},
		"who drains takes nothing": {others: []time.Duration{time.Hour}, state: Draining, failing: time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			s := &Service{peers: map[string]*peer{}}
			for i, there := range tt.others {
				other := &Service{Deps: Deps{Database: func(context.Context) (time.Duration, error) {
					if there == away {
						return 0, problem.New(problem.Unavailable, "database_unavailable", "the database is away")
					}
					return there, nil
				}}}
				srv := httptest.NewTLSServer(web.Handle(func(w http.ResponseWriter, r *http.Request) error { return other.serveDatabase(w, r, nil) },
					func(w http.ResponseWriter, _ *http.Request, e *problem.Error) { w.WriteHeader(e.HTTPStatus()) }))
				defer srv.Close()
				id := fmt.Sprintf("node_%016d", i)
				s.members = append(s.members, Member{ID: id, State: tt.state})
				s.peers[id] = &peer{id: id, address: srv.Listener.Addr().String(), http: srv.Client()}
			}
			if got := s.DatabaseElsewhere(t.Context(), tt.failing); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

// Anybody can make a node ask the others, and must not make it ask them without
// end.
func TestDatabaseElsewhereIsRemembered(t *testing.T) {
	s := &Service{elsewhere: elsewhere{asked: time.Now().Add(time.Hour), most: time.Hour}}
	if !s.DatabaseElsewhere(t.Context(), time.Second) {
		t.Error("the last answer was not used")
	}
}
