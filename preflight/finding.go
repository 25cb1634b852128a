package preflight

import (
	"time"

	"github.com/portcullis-id/portcullis/netcontract"
)

// Verdict is what became of one check.
type Verdict string

// The verdicts.
const (
	Open             Verdict = "open"              // the right host answered
	Served           Verdict = "served"            // the port's own program answered, not the responder
	Closed           Verdict = "closed"            // reset: nobody listens, or a firewall says so
	Rejected         Verdict = "rejected"          // somebody sent an ICMP error
	Dropped          Verdict = "dropped"           // silence
	Unreachable      Verdict = "unreachable"       // no way there, or the host is down
	WrongHost        Verdict = "wrong host"        // another host of the swarm answered
	WrongService     Verdict = "wrong service"     // something answered that is neither responder nor known program
	Intercepted      Verdict = "intercepted TLS"   // somebody ends TLS on the way
	TransparentProxy Verdict = "transparent proxy" // somebody ends TCP on the way
	MTUBlackHole     Verdict = "path-MTU black hole"
	ProxyNeeded      Verdict = "proxy needed"         // not directly, and through a proxy it works
	NotResolving     Verdict = "name not resolving"   // the name leads nowhere
	Differently      Verdict = "resolves differently" // the name leads elsewhere here than it should, or than on other hosts
	Slow             Verdict = "slow"                 // it works, late or with losses
	Free             Verdict = "free"                 // a port of this host that nobody has
	Taken            Verdict = "taken"                // a port of this host that a foreign program has
	Exposed          Verdict = "exposed"              // open, and must not be
	Shut             Verdict = "shut"                 // not open, as it has to be
	Failed           Verdict = "failed"               // the check itself could not be made
)

// Finding is a check with what was found.
type Finding struct {
	Check
	Verdict Verdict `json:"verdict"`
	OK      bool    `json:"ok"`
	// By is the address that is to blame or to ask: who sent the ICMP error, who
	// answered in place of the peer, or the last hop that was heard of.
	By string `json:"by,omitempty"`
	// Sentence says what happened, in one sentence.
	Sentence string `json:"sentence"`
	// Evidence is what the sentence rests on.
	Evidence []string `json:"evidence,omitempty"`
	// Remedy is the rule or the step that makes the row hold.
	Remedy string `json:"remedy,omitempty"`
	// Fix is the remedy for programs, where it is a rule.
	Fix *Fix    `json:"fix,omitempty"`
	RTT float64 `json:"rtt_ms,omitempty"`
	// RTTs are the quantiles 50, 90 and 99 of the path, in milliseconds, and Loss the
	// share of packets that were lost, where the path was looked at more closely.
	RTTs []float64 `json:"rtt_quantiles_ms,omitempty"`
	Loss float64   `json:"loss,omitempty"`
}

// Required reports whether the run fails with this finding. What is slow works.
func (f Finding) Required() bool {
	return (f.Need != netcontract.Optional || f.Closed) && f.Verdict != Slow
}

// Clock compares the clocks of two hosts.
type Clock struct {
	From string `json:"from"`
	To   string `json:"to"`
	// Offset is how far the other clock is ahead; Bound is how far that may be wrong.
	Offset  time.Duration `json:"offset_ns"`
	Bound   time.Duration `json:"bound_ns"`
	Verdict string        `json:"verdict"` // PASS, FAIL or UNSURE
}

// maxSkew is how far the clocks of two nodes may be apart.
const maxSkew = time.Second

// judge says PASS or FAIL only when the error bound leaves no doubt.
func (c *Clock) judge() {
	off := c.Offset.Abs()
	switch {
	case off+c.Bound <= maxSkew:
		c.Verdict = "PASS"
	case off-c.Bound > maxSkew:
		c.Verdict = "FAIL"
	default:
		c.Verdict = "UNSURE"
	}
}

// Report is what a run found.
type Report struct {
	Host     string    `json:"host"`
	Role     Role      `json:"role"`
	Hosts    []Host    `json:"hosts"`
	Profile  string    `json:"profile"`
	Started  time.Time `json:"started"`
	Took     float64   `json:"took_s"`
	Findings []Finding `json:"findings"`
	Clocks   []Clock   `json:"clocks,omitempty"`
	// Names are what the names of outside hosts led to, on each host.
	Names []Resolved `json:"names,omitempty"`
	// Outside are the hosts outside of the run that were probed.
	Outside []Outsider `json:"outside,omitempty"`
	// Before are the failures of the run that began at BeforeOf, and what became of them.
	Before   []Change   `json:"before,omitempty"`
	BeforeOf *time.Time `json:"before_of,omitempty"`
	// Silent are hosts that never answered with the token.
	Silent []string `json:"silent,omitempty"`
	// Missing are hosts whose own findings did not arrive.
	Missing []string `json:"missing,omitempty"`
	// Unfinished means that the run was broken off.
	Unfinished bool `json:"unfinished,omitempty"`
	// Notes are what the reader should know of this host: ports that other programs
	// have, and what could not be looked at.
	Notes []string `json:"notes,omitempty"`

	cells *matrix // of the findings, for reports
}

// The exit codes of a run.
const (
	ExitHolds    = 0 // every required row holds
	ExitFails    = 1 // a required row fails
	ExitCould    = 2 // the run could not be made
	ExitOptional = 3 // optional rows alone fail
)

// Exit is the exit code of a report.
func (r *Report) Exit() int {
	code := ExitHolds
	for _, f := range r.Findings {
		if f.OK {
			continue
		}
		if f.Required() {
			return ExitFails
		}
		code = ExitOptional
	}
	for _, c := range r.Clocks {
		if c.Verdict == "FAIL" {
			return ExitFails
		}
	}
	if len(r.Silent) > 0 && len(r.Findings) == 0 {
		return ExitFails
	}
	return code
}
