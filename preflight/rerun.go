package preflight

import (
	"bytes"
	"compress/zlib"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/portcullis-id/portcullis/netcontract"
	"github.com/portcullis-id/portcullis/problem"
)

// Earlier is what a run remembers of one before it.
type Earlier struct {
	Started  time.Time  `json:"started"`
	Host     string     `json:"host"`
	Hosts    []Host     `json:"hosts"`
	Outside  []Outsider `json:"outside,omitempty"`
	Failures []Failure  `json:"failures"`
}

// Failure is a finding that did not hold.
type Failure struct {
	Row      netcontract.RowID    `json:"row"`
	From     string               `json:"from"`
	To       string               `json:"to"`
	Address  netip.Addr           `json:"address"`
	Protocol netcontract.Protocol `json:"protocol"`
	Port     int                  `json:"port,omitempty"`
	Verdict  Verdict              `json:"verdict"`
}

// Change is a failure of an earlier run and what became of it.
type Change struct {
	Failure
	// Now is the verdict of this run, empty where nobody looked.
	Now   Verdict `json:"now,omitempty"`
	Holds bool    `json:"holds"`
}

// Bounds of a rerun token.
const (
	rerunPrefix = "pr1-"
	maxRerun    = 1 << 20 // bytes of its text
	maxEarlier  = 4 << 20 // bytes when it is unpacked
	maxFailures = 20_000
)

// Earlier is what another run has to know of this one.
func (r *Report) Earlier() *Earlier {
	e := &Earlier{Started: r.Started, Host: r.Host, Hosts: r.Hosts, Outside: r.Outside, Failures: []Failure{}}
	for _, f := range r.Failures() {
		e.Failures = append(e.Failures, Failure{f.Row, f.From, f.To, f.Address, f.Protocol, f.Port, f.Verdict})
	}
	return e
}

// Token is the text of e that fits into a ticket. It is no secret and proves
// nothing: it says what failed.
func (e *Earlier) Token() (string, error) {
	raw, err := json.Marshal(e)
	if err != nil {
		return "", err
	}
	var b bytes.Buffer
	w, err := zlib.NewWriterLevel(&b, zlib.BestCompression)
	if err != nil {
		return "", err
	}
	if _, err := w.Write(raw); err != nil {
		return "", err
	}
	if err := w.Close(); err != nil {
		return "", err
	}
	return rerunPrefix + base64.RawURLEncoding.EncodeToString(b.Bytes()), nil
}

// ParseEarlier reads a rerun token, or a report as JSON.
func ParseEarlier(text string) (*Earlier, error) {
	text = strings.TrimSpace(text)
	wrong := func(why string) error {
		return problem.New(problem.Invalid, "invalid_rerun", "rerun: %s; allowed is the token of a change request (rerun.txt), or a report as JSON", why)
	}
	var e Earlier
	switch {
	case strings.HasPrefix(text, "{"):
		if len(text) > 8*maxEarlier {
			return nil, wrong("the report is too long")
		}
		var r Report
		if err := json.Unmarshal([]byte(text), &r); err != nil || r.Host == "" {
			return nil, wrong("that is no report of a preflight")
		}
		e = *r.Earlier()
	case strings.HasPrefix(text, rerunPrefix) && len(text) <= maxRerun:
		packed, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(text, rerunPrefix))
		if err != nil {
			return nil, wrong("the token is damaged")
		}
		z, err := zlib.NewReader(bytes.NewReader(packed))
		if err != nil {
			return nil, wrong("the token is damaged")
		}
		raw, err := io.ReadAll(io.LimitReader(z, maxEarlier+1))
		if err != nil || len(raw) > maxEarlier || json.Unmarshal(raw, &e) != nil {
			return nil, wrong("the token is damaged")
		}
	default:
		return nil, wrong("that is no token of an earlier run")
	}
	if len(e.Hosts) > maxHosts || len(e.Outside) > maxOutsiders || len(e.Failures) > maxFailures {
		return nil, wrong("it has more than a run can have")
	}
	for _, h := range e.Hosts {
		if _, err := ParseHosts([]string{h.Text()}); err != nil {
			return nil, wrong("it has a host that is none")
		}
	}
	return &e, nil
}

// Text is the host as ParseHosts reads it.
func (h Host) Text() string {
	s := make([]string, len(h.Addresses))
	for i, a := range h.Addresses {
		s[i] = a.String()
	}
	return fmt.Sprintf("%s=%s@%s", h.Name, strings.Join(s, "+"), h.Role)
}

// Compare takes into the report what became of the failures of an earlier run.
func (r *Report) Compare(e *Earlier) {
	for _, was := range e.Failures {
		c := Change{Failure: was}
		i := slices.IndexFunc(r.Findings, func(f Finding) bool {
			return f.Row == was.Row && f.From == was.From && f.To == was.To && f.Address == was.Address && f.Protocol == was.Protocol && f.Port == was.Port
		})
		if i < 0 && !was.Address.IsValid() { // a name that leads somewhere now
			i = slices.IndexFunc(r.Findings, func(f Finding) bool { return f.Row == was.Row && f.From == was.From && f.To == was.To })
		}
		if i >= 0 {
			c.Now, c.Holds = r.Findings[i].Verdict, r.Findings[i].OK
		}
		r.Before = append(r.Before, c)
	}
	r.BeforeOf = &e.Started
}

// text is the change in one line.
func (c Change) text() string {
	what := fmt.Sprintf("%s -> %s, row %s", c.From, c.To, c.Row)
	if c.Port > 0 {
		what += fmt.Sprintf(" (%s port %d)", addressText(c.Address), c.Port)
	}
	switch {
	case c.Now == "":
		return fmt.Sprintf("?      %s: was %q, and was not looked at now", what, c.Verdict)
	case c.Holds:
		return fmt.Sprintf("holds  %s: was %q, is %q", what, c.Verdict, c.Now)
	}
	return fmt.Sprintf("FAILS  %s: was %q, is %q", what, c.Verdict, c.Now)
}

func addressText(a netip.Addr) string {
	if !a.IsValid() {
		return "no address"
	}
	return a.String()
}
