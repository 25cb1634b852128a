package hostfw

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"sort"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"
)

// Firewall is the state of a host's firewall at one moment.
type Firewall struct {
	// Kind is nftables, iptables, firewalld, ufw or none.
	Kind string `json:"kind"`
	// Drops are the rules and policies that drop or reject.
	Drops []Drop `json:"drops,omitempty"`
}

// Drop is a rule, or the policy of a chain, that lets packets go nowhere.
type Drop struct {
	Where   string `json:"where"` // table, chain and, of a rule, its comment or handle
	Kind    string `json:"kind"`  // of the firewall that keeps the table, as Firewall.Kind
	Hook    string `json:"hook"`  // input, output or forward
	Reject  bool   `json:"reject,omitempty"`
	Policy  bool   `json:"policy,omitempty"`
	Counted bool   `json:"counted"` // a rule without a counter tells nothing
	Packets uint64 `json:"packets,omitempty"`
	// Protocol and Ports are what the rule says of the packets that it is for, as far as
	// that is understood; empty means any.
	Protocol string  `json:"protocol,omitempty"`
	Ports    []Ports `json:"ports,omitempty"`
}

// Ports are a run of destination ports, both ends included.
type Ports struct {
	From uint16 `json:"from"`
	To   uint16 `json:"to"`
}

// Names reports whether the rule names this protocol and port, and Concerns
// whether it may be for them: a rule that names nothing is for everything.
func (d Drop) Names(protocol string, port int) bool {
	return len(d.Ports) > 0 && d.Concerns(protocol, port)
}

// Concerns reports whether the rule may be for packets of this protocol and port.
func (d Drop) Concerns(protocol string, port int) bool {
	if d.Protocol != "" && d.Protocol != protocol {
		return false
	}
	return len(d.Ports) == 0 || slices.ContainsFunc(d.Ports, func(p Ports) bool { return port >= int(p.From) && port <= int(p.To) })
}

// ErrNotAllowed says that this process may not read the firewall: it wants
// CAP_NET_ADMIN.
var ErrNotAllowed = errors.New("the firewall cannot be read without CAP_NET_ADMIN")

// open lists the chains of this network namespace. The error is ErrNotAllowed
// without CAP_NET_ADMIN.
func open() (*nftables.Conn, []*nftables.Chain, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, nil, fmt.Errorf("read the firewall: %w", err)
	}
	chains, err := conn.ListChains()
	if errors.Is(err, os.ErrPermission) {
		return nil, nil, ErrNotAllowed
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read the firewall: %w", err)
	}
	return conn, chains, nil
}

// Read reads the firewall of this network namespace.
func Read() (*Firewall, error) {
	conn, chains, err := open()
	if err != nil {
		return nil, err
	}
	f := &Firewall{}
	hooks, kept := reach(conn, chains), tables{}
	for _, c := range chains {
		hook := hooks[key(c)]
		if hook == "" {
			continue // nothing of input, output or forward gets there
		}
		kept.notice(c)
		where := whereOf(c)
		if c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop {
			f.Drops = append(f.Drops, Drop{Where: where, Hook: hook, Policy: true})
		}
		rules, err := conn.GetRules(c.Table, c)
		if err != nil {
			continue // deleted meanwhile
		}
		for _, r := range rules {
			if d, ok := dropOf(r); ok {
				d.Hook = hook
				d.Where = where + " " + ruleName(r)
				f.Drops = append(f.Drops, d)
			}
		}
	}
	f.Kind = kept.kind()
	for i := range f.Drops {
		f.Drops[i].Kind = kept.of(f.Drops[i].Where)
	}
	sort.Slice(f.Drops, func(i, j int) bool { return f.Drops[i].Where < f.Drops[j].Where })
	return f, nil
}

func key(c *nftables.Chain) string { return fmt.Sprint(c.Table.Family, " ", c.Table.Name, " ", c.Name) }

// reach finds for each chain the hook that packets come from, over jumps too.
func reach(conn *nftables.Conn, chains []*nftables.Chain) map[string]string {
	hooks, jumps := map[string]string{}, map[string][]string{}
	for _, c := range chains {
		if c.Hooknum != nil && c.Type == nftables.ChainTypeFilter {
			switch *c.Hooknum {
			case *nftables.ChainHookInput:
				hooks[key(c)] = "input"
			case *nftables.ChainHookOutput:
				hooks[key(c)] = "output"
			case *nftables.ChainHookForward:
				hooks[key(c)] = "forward"
			}
		}
		rules, err := conn.GetRules(c.Table, c)
		if err != nil {
			continue
		}
		for _, r := range rules {
			for _, e := range r.Exprs {
				if v, ok := e.(*expr.Verdict); ok && (v.Kind == expr.VerdictJump || v.Kind == expr.VerdictGoto) {
					jumps[key(c)] = append(jumps[key(c)], fmt.Sprint(c.Table.Family, " ", c.Table.Name, " ", v.Chain))
				}
			}
		}
	}
	for range chains { // as deep as there are chains
		for from, tos := range jumps {
			for _, to := range tos {
				if hooks[from] != "" && hooks[to] == "" {
					hooks[to] = hooks[from]
				}
			}
		}
	}
	return hooks
}

// tables are the kinds of the firewalls that keep a host's tables, by the table's
// family and name. One host may have several: an accepting rule in a table of one
// does not help against a rule that drops in another's.
type tables map[string]string

// kinds in the order in which they make a host's firewall.
var kinds = []string{"none", "nftables", "iptables", "ufw", "firewalld"}

func (t tables) set(table, kind string) {
	if slices.Index(kinds, kind) > slices.Index(kinds, t[table]) {
		t[table] = kind
	}
}

func (t tables) notice(c *nftables.Chain) { t.set(tableOf(whereOf(c)), kindOf(c)) }

// of is the kind of the table that a rule or a policy is in, "" of none.
func (t tables) of(where string) string { return t[tableOf(where)] }

// kind is that of the host.
func (t tables) kind() string {
	best := 0
	for _, k := range t {
		best = max(best, slices.Index(kinds, k))
	}
	return kinds[best]
}

func whereOf(c *nftables.Chain) string {
	return fmt.Sprintf("%s %s %s", family(c.Table.Family), c.Table.Name, c.Name)
}

func tableOf(where string) string { return firstWords(where, 2) }

// ChainOf is the chain that a rule or a policy is in, as nft wants it: family, table
// and name.
func ChainOf(where string) string { return firstWords(where, 3) }

func firstWords(s string, n int) string {
	fields := strings.Fields(s)
	return strings.Join(fields[:min(n, len(fields))], " ")
}

// kindOf tells the programs that write nftables by the names that they use.
func kindOf(c *nftables.Chain) string {
	switch {
	case strings.HasPrefix(c.Name, "ufw-") || strings.HasPrefix(c.Name, "ufw6-"):
		return "ufw"
	case c.Table.Name == "firewalld":
		return "firewalld"
	case c.Table.Name == "filter" && (c.Name == "INPUT" || c.Name == "OUTPUT"):
		return "iptables"
	}
	return "nftables"
}

func family(f nftables.TableFamily) string {
	switch f {
	case nftables.TableFamilyINet:
		return "inet"
	case nftables.TableFamilyIPv4:
		return "ip"
	case nftables.TableFamilyIPv6:
		return "ip6"
	}
	return "other"
}

func dropOf(r *nftables.Rule) (Drop, bool) {
	var d Drop
	ends := false
	var loaded any // what the register holds that is compared next
	for _, e := range r.Exprs {
		switch e := e.(type) {
		case *expr.Counter:
			d.Counted, d.Packets = true, e.Packets
		case *expr.Verdict:
			ends = ends || e.Kind == expr.VerdictDrop
		case *expr.Reject:
			ends, d.Reject = true, true
		case *expr.Target: // of iptables
			ends = ends || e.Name == "REJECT"
			d.Reject = d.Reject || e.Name == "REJECT"
		case *expr.Match:
			d.xtables(e)
		case *expr.Meta, *expr.Payload:
			loaded = e
		case *expr.Cmp:
			d.compare(loaded, e)
		case *expr.Range:
			if isPort(loaded) && e.Op == expr.CmpOpEq && len(e.FromData) == 2 && len(e.ToData) == 2 {
				d.Ports = append(d.Ports, Ports{binary.BigEndian.Uint16(e.FromData), binary.BigEndian.Uint16(e.ToData)})
			}
		}
	}
	return d, ends
}

// isPort reports whether an expression loads the destination port of TCP and UDP.
func isPort(loaded any) bool {
	p, ok := loaded.(*expr.Payload)
	return ok && p.Base == expr.PayloadBaseTransportHeader && p.Offset == 2 && p.Len == 2
}

// compare reads "protocol is" and "port is".
func (d *Drop) compare(loaded any, c *expr.Cmp) {
	if isPort(loaded) && len(c.Data) == 2 && (c.Op == expr.CmpOpGte || c.Op == expr.CmpOpLte) { // a range is written in two
		port := binary.BigEndian.Uint16(c.Data)
		if c.Op == expr.CmpOpGte {
			d.Ports = append(d.Ports, Ports{port, 65535})
		} else if n := len(d.Ports); n > 0 {
			d.Ports[n-1].To = port
		}
		return
	}
	if c.Op != expr.CmpOpEq {
		return // "is not" says little
	}
	m, meta := loaded.(*expr.Meta)
	switch {
	case isPort(loaded) && len(c.Data) == 2:
		port := binary.BigEndian.Uint16(c.Data)
		d.Ports = append(d.Ports, Ports{port, port})
	case meta && m.Key == expr.MetaKeyL4PROTO && len(c.Data) == 1:
		d.Protocol = map[byte]string{unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp", unix.IPPROTO_ICMP: "icmp", unix.IPPROTO_ICMPV6: "icmp"}[c.Data[0]]
		if d.Protocol == "" {
			d.Protocol = "other"
		}
	}
}

// xtables reads the matches of iptables.
func (d *Drop) xtables(m *expr.Match) {
	var ports [2]uint16
	switch info := m.Info.(type) {
	case *xt.Tcp:
		d.Protocol, ports = "tcp", info.DstPorts
	case *xt.Udp:
		d.Protocol, ports = "udp", info.DstPorts
	default:
		return
	}
	if ports != [2]uint16{0, 65535} {
		d.Ports = append(d.Ports, Ports{ports[0], ports[1]})
	}
}

func ruleName(r *nftables.Rule) string {
	if comment, ok := userdata.GetString(r.UserData, userdata.TypeComment); ok && comment != "" {
		return fmt.Sprintf("%q", comment)
	}
	return fmt.Sprintf("handle %d", r.Handle)
}

// Since compares with an earlier state, and returns the rules that have counted
// packets since, with how many.
func (f *Firewall) Since(before *Firewall) []Drop {
	if f == nil || before == nil {
		return nil
	}
	old := map[string]uint64{}
	for _, d := range before.Drops {
		old[d.Where] = d.Packets
	}
	var out []Drop
	for _, d := range f.Drops {
		if n := d.Packets - old[d.Where]; d.Counted && n > 0 && n < 1<<40 {
			d.Packets = n
			out = append(out, d)
		}
	}
	return out
}

// Policy returns the first chain of a hook that drops what no rule accepts.
func (f *Firewall) Policy(hook string) (Drop, bool) {
	if f != nil {
		for _, d := range f.Drops {
			if d.Policy && d.Hook == hook {
				return d, true
			}
		}
	}
	return Drop{}, false
}
