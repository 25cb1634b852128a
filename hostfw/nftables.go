package hostfw

import (
	stdbytes "bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// inside are the names of interfaces that lead to containers and virtual machines
// of this host.
var inside = regexp.MustCompile(`^(docker[0-9]*|br-[0-9a-f]{12}|virbr[0-9].*|cni[0-9].*|podman[0-9]*|lxcbr[0-9]*|lxdbr[0-9]*|flannel.*|cali.*|veth.*)$`)

// Load reads all rules of this network namespace. The error is ErrNotAllowed
// without CAP_NET_ADMIN.
func Load() (*Ruleset, error) {
	conn, chains, err := open()
	if err != nil {
		return nil, err
	}
	s := &Ruleset{kept: tables{}, chains: map[string]*chain{}}
	if s.hosts, err = interfaces(); err != nil {
		return nil, err
	}
	sets := map[string]*nftSet{} // by table and name
	for _, c := range chains {
		if c.Table.Family != nftables.TableFamilyINet && c.Table.Family != nftables.TableFamilyIPv4 && c.Table.Family != nftables.TableFamilyIPv6 {
			continue
		}
		s.kept.notice(c)
		s.Docker = s.Docker || strings.HasPrefix(c.Name, "DOCKER")
		n := &chain{key: key(c), where: whereOf(c),
			v4: c.Table.Family != nftables.TableFamilyIPv6, v6: c.Table.Family != nftables.TableFamilyIPv4}
		if c.Hooknum != nil {
			n.base, n.nat = true, c.Type == nftables.ChainTypeNAT
			n.drops = c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop
			if c.Priority != nil {
				n.priority = int(*c.Priority)
			}
			switch *c.Hooknum {
			case *nftables.ChainHookPrerouting:
				n.hook = prerouting
			case *nftables.ChainHookInput:
				n.hook = input
			case *nftables.ChainHookForward:
				n.hook = forward
			case *nftables.ChainHookOutput:
				n.hook = output
			}
		}
		rules, err := conn.GetRules(c.Table, c)
		if err != nil {
			continue // deleted meanwhile
		}
		for _, r := range rules {
			n.rules = append(n.rules, s.nftRule(conn, c, r, sets))
		}
		s.chains[n.key] = n
	}
	if err := s.loadLegacy(); err != nil {
		s.Partial = err.Error()
	}
	return s, nil
}

func interfaces() ([]iface, error) {
	list, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list the interfaces: %w", err)
	}
	var out []iface
	for _, i := range list {
		n := iface{name: i.Name, index: i.Index, inside: inside.MatchString(i.Name)}
		addrs, err := i.Addrs()
		if err != nil {
			continue // gone meanwhile
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				n.addrs = append(n.addrs, netip.PrefixFrom(p.Addr().Unmap(), p.Bits()))
			}
		}
		out = append(out, n)
	}
	return out, nil
}

// nftSet is a set or map with its elements.
type nftSet struct {
	interval, concat bool
	elements         []nftables.SetElement
}

func setOf(conn *nftables.Conn, t *nftables.Table, name string, sets map[string]*nftSet) *nftSet {
	id := fmt.Sprint(t.Family, " ", t.Name, " ", name)
	if s, ok := sets[id]; ok {
		return s
	}
	sets[id] = nil
	set, err := conn.GetSetByName(t, name)
	if err != nil {
		return nil
	}
	elements, err := conn.GetSetElements(set)
	if err != nil {
		return nil
	}
	sets[id] = &nftSet{set.Interval, set.Concatenation, elements}
	return sets[id]
}

// registers are the kernel's sixteen of 4 bytes; four have another name for each
// four of them.
type registers struct {
	b     [64]byte
	known [64]bool
}

func offset(reg uint32) int {
	switch {
	case reg >= 1 && reg <= 4:
		return int(reg-1) * 16
	case reg >= unix.NFT_REG32_00 && reg <= unix.NFT_REG32_00+15:
		return int(reg-unix.NFT_REG32_00) * 4
	}
	return -1
}

func (r *registers) put(reg uint32, v bytes) {
	at := offset(reg)
	if at < 0 {
		return
	}
	// What is left of the register's last 4 bytes is zero, as the kernel leaves it.
	for i := 0; i < (len(v.b)+3)/4*4 && at+i < len(r.b); i++ {
		if i < len(v.b) {
			r.b[at+i], r.known[at+i] = v.b[i], v.known[i]
		} else {
			r.b[at+i], r.known[at+i] = 0, true
		}
	}
}

func (r *registers) get(reg uint32, n int) bytes {
	at := offset(reg)
	if at < 0 || at+n > len(r.b) {
		return unknown(n)
	}
	return bytes{r.b[at : at+n], r.known[at : at+n]}
}

// same compares as far as both are known.
func (v bytes) same(want []byte) tri {
	out := yes
	for i := range want {
		switch {
		case i >= len(v.b):
			return no
		case !v.known[i]:
			out = maybe
		case v.b[i] != want[i]:
			return no
		}
	}
	return out
}

func (v bytes) all() bool {
	for _, k := range v.known {
		if !k {
			return false
		}
	}
	return true
}

func (s *Ruleset) nftRule(conn *nftables.Conn, c *nftables.Chain, r *nftables.Rule, sets map[string]*nftSet) rule {
	out := rule{where: ruleName(r)}
	used := map[string]*nftSet{}
	for _, e := range r.Exprs {
		switch e := e.(type) {
		case *expr.Cmp:
			out.ports = append(out.ports, port16(e.Data)...)
		case *expr.Range:
			out.ports = append(append(out.ports, port16(e.FromData)...), port16(e.ToData)...)
		case *expr.Lookup:
			set := setOf(conn, c.Table, e.SetName, sets)
			used[e.SetName] = set
			if set != nil {
				for _, el := range set.elements {
					for i := 0; i+2 <= len(el.Key); i += 4 {
						out.ports = append(out.ports, before(binary.BigEndian.Uint16(el.Key[i:]), el.IntervalEnd))
					}
					for i := 0; i+2 <= len(el.KeyEnd); i += 4 {
						out.ports = append(out.ports, binary.BigEndian.Uint16(el.KeyEnd[i:]))
					}
				}
			}
		case *expr.Match:
			switch i := e.Info.(type) {
			case *xt.Tcp:
				out.ports = append(out.ports, before(i.DstPorts[0], true), i.DstPorts[1], i.DstPorts[0])
			case *xt.Udp:
				out.ports = append(out.ports, before(i.DstPorts[0], true), i.DstPorts[1], i.DstPorts[0])
			case *xt.Unknown:
				if ports, ok := multiport(*i); ok && e.Name == "multiport" {
					for _, p := range ports.list {
						out.ports = append(out.ports, before(p, true), p)
					}
				}
			}
		}
	}
	prefix := fmt.Sprint(c.Table.Family, " ", c.Table.Name, " ")
	exprs := r.Exprs
	out.judge = func(w *walk) (tri, act) {
		var regs registers
		match := yes
		and := func(t tri) { match = min(match, t) }
		a := act{kind: pass}
		for _, e := range exprs {
			if match == no {
				return no, a
			}
			switch e := e.(type) {
			case *expr.Meta:
				if !e.SourceRegister {
					regs.put(e.Register, w.meta(e.Key))
				}
			case *expr.Payload:
				if e.OperationType == expr.PayloadLoad {
					regs.put(e.DestRegister, w.payload(e.Base, int(e.Offset), int(e.Len)))
				}
			case *expr.Ct:
				if !e.SourceRegister {
					regs.put(e.Register, w.ct(e.Key))
				}
			case *expr.Fib:
				regs.put(e.Register, w.fib(e))
			case *expr.Bitwise:
				v := regs.get(e.SourceRegister, int(e.Len))
				regs.put(e.DestRegister, bitwise(v, e.Mask, e.Xor))
			case *expr.Immediate:
				regs.put(e.Register, known(e.Data))
			case *expr.Cmp:
				and(compare(regs.get(e.Register, len(e.Data)), e.Op, e.Data))
			case *expr.Range:
				v := regs.get(e.Register, len(e.FromData))
				t := maybe
				if v.all() {
					t = of(stdbytes.Compare(v.b, e.FromData) >= 0 && stdbytes.Compare(v.b, e.ToData) <= 0)
				}
				if e.Op == expr.CmpOpNeq {
					t = t.not()
				}
				and(t)
			case *expr.Lookup:
				t, found := lookup(&regs, e, used[e.SetName], prefix)
				and(t)
				if len(found) > 0 {
					a = act{more: found}
				}
			case *expr.Dynset, *expr.Counter, *expr.Log, *expr.Objref, *expr.Notrack, *expr.Quota:
			case *expr.Limit:
				and(of(!e.Over)) // the first packet is within every limit
			case *expr.Connlimit:
				and(of(e.Flags&1 == 0))
			case *expr.Verdict:
				a = verdict(e, prefix)
			case *expr.Reject:
				a = act{kind: drop}
			case *expr.NAT:
				a = act{kind: accept}
				if e.Type == expr.NATTypeDestNAT {
					a = act{kind: divert, to: regs.endpoint(e, w.p.To.Is4())}
				}
			case *expr.Redir:
				a = act{kind: divert}
				if e.RegisterProtoMin != 0 {
					if v := regs.get(e.RegisterProtoMin, 2); v.all() {
						a.to = netip.AddrPortFrom(netip.Addr{}, binary.BigEndian.Uint16(v.b))
					}
				}
			case *expr.Masq:
				a = act{kind: accept}
			case *expr.Queue:
				a = act{kind: either}
			case *expr.Match:
				and(w.xtMatch(e))
			case *expr.Target:
				a = xtTarget(e)
			default:
				and(maybe)
			}
		}
		return match, a
	}
	return out
}

// port16 is a value that may be a port, with the one before it: both sides of a
// comparison are looked at.
func port16(data []byte) []uint16 {
	if len(data) != 2 {
		return nil
	}
	p := binary.BigEndian.Uint16(data)
	return []uint16{before(p, true), p}
}

func before(p uint16, really bool) uint16 {
	if really && p > 0 {
		return p - 1
	}
	return p
}

func verdict(v *expr.Verdict, prefix string) act {
	switch v.Kind {
	case expr.VerdictAccept, expr.VerdictStop:
		return act{kind: accept}
	case expr.VerdictDrop, expr.VerdictStolen:
		return act{kind: drop}
	case expr.VerdictJump:
		return act{kind: jump, chain: prefix + v.Chain}
	case expr.VerdictGoto:
		return act{kind: goTo, chain: prefix + v.Chain}
	case expr.VerdictReturn:
		return act{kind: back}
	case expr.VerdictQueue:
		return act{kind: either}
	}
	return act{kind: pass}
}

func compare(v bytes, op expr.CmpOp, data []byte) tri {
	switch op {
	case expr.CmpOpEq:
		return v.same(data)
	case expr.CmpOpNeq:
		return v.same(data).not()
	}
	if !v.all() {
		return maybe
	}
	c := stdbytes.Compare(v.b, data)
	switch op {
	case expr.CmpOpLt:
		return of(c < 0)
	case expr.CmpOpLte:
		return of(c <= 0)
	case expr.CmpOpGt:
		return of(c > 0)
	case expr.CmpOpGte:
		return of(c >= 0)
	}
	return maybe
}

func bitwise(v bytes, mask, xor []byte) bytes {
	out := unknown(len(v.b))
	for i := range v.b {
		m, x := byte(0xff), byte(0)
		if i < len(mask) {
			m = mask[i]
		}
		if i < len(xor) {
			x = xor[i]
		}
		out.b[i], out.known[i] = v.b[i]&m^x, v.known[i] || m == 0
	}
	return out
}

// lookup asks a set, and returns what a map has for the key.
func lookup(regs *registers, e *expr.Lookup, set *nftSet, prefix string) (tri, []act) {
	isMap := e.IsDestRegSet
	if set == nil {
		if isMap && e.DestRegister == 0 {
			return maybe, []act{{kind: either}}
		}
		return maybe, nil
	}
	t, hits := set.find(func(n int) bytes { return regs.get(e.SourceRegister, n) })
	var found []act
	if isMap && e.DestRegister == 0 { // a verdict
		for _, h := range hits {
			found = append(found, mapped(h.Val, prefix))
		}
		if t == maybe {
			found = append(found, act{kind: pass})
		}
	} else if isMap && t == yes && len(hits) == 1 {
		regs.put(e.DestRegister, known(hits[0].Val))
	} else if isMap && offset(e.DestRegister) >= 0 {
		regs.put(e.DestRegister, unknown(16))
	}
	if e.Invert {
		t = t.not()
	}
	return t, found
}

// mapped reads a verdict as an element of a map has it (NFTA_DATA_VERDICT).
func mapped(raw []byte, prefix string) act {
	ad, err := netlink.NewAttributeDecoder(raw)
	if err != nil {
		return act{kind: either}
	}
	ad.ByteOrder = binary.BigEndian
	v, coded := expr.Verdict{}, false
	for ad.Next() {
		switch ad.Type() {
		case unix.NFTA_VERDICT_CODE:
			v.Kind, coded = expr.VerdictKind(int32(ad.Uint32())), true // #nosec G115 -- the kernel's codes are signed
		case unix.NFTA_VERDICT_CHAIN:
			v.Chain = ad.String()
		}
	}
	if ad.Err() != nil || !coded {
		return act{kind: either}
	}
	return verdict(&v, prefix)
}

// find returns the elements that a key is in, or may be in.
func (s *nftSet) find(value func(n int) bytes) (tri, []nftables.SetElement) {
	if s.interval && !s.concat {
		return s.within(value)
	}
	out := no
	var hits []nftables.SetElement
	for _, el := range s.elements {
		if el.IntervalEnd {
			continue
		}
		v := value(len(el.Key))
		t := v.same(el.Key)
		if len(el.KeyEnd) == len(el.Key) {
			t = ranges(v, el.Key, el.KeyEnd)
		}
		if t == yes {
			return yes, []nftables.SetElement{el}
		}
		if t == maybe {
			out, hits = maybe, append(hits, el)
		}
	}
	return out, hits
}

// ranges compares the fields of a concatenation, of which each begins at a multiple
// of 4 bytes. One that is longer than that, an IPv6 address, is told apart only
// where its bounds are equal.
func ranges(v bytes, from, to []byte) tri {
	out := yes
	for i := 0; i < len(from); i += 4 {
		j := min(i+4, len(from))
		part := bytes{v.b[i:j], v.known[i:j]}
		switch {
		case stdbytes.Equal(from[i:j], to[i:j]):
			out = min(out, part.same(from[i:j]))
		case !part.all():
			out = min(out, maybe)
		default:
			out = min(out, of(stdbytes.Compare(part.b, from[i:j]) >= 0 && stdbytes.Compare(part.b, to[i:j]) <= 0))
		}
	}
	return out
}

// within asks a set of intervals: each begins with an element and ends before one
// that is marked as an end.
func (s *nftSet) within(value func(n int) bytes) (tri, []nftables.SetElement) {
	var best *nftables.SetElement
	for i := range s.elements {
		el := &s.elements[i]
		v := value(len(el.Key))
		if !v.all() {
			var all []nftables.SetElement
			for _, el := range s.elements {
				if !el.IntervalEnd {
					all = append(all, el)
				}
			}
			if len(all) == 0 {
				return no, nil
			}
			return maybe, all
		}
		if stdbytes.Compare(el.Key, v.b) > 0 {
			continue
		}
		// An interval that begins where another ends has two elements of one key.
		if c := 0; best != nil {
			if c = stdbytes.Compare(el.Key, best.Key); c < 0 || c == 0 && el.IntervalEnd {
				continue
			}
		}
		best = el
	}
	if best == nil || best.IntervalEnd {
		return no, nil
	}
	return yes, []nftables.SetElement{*best}
}

func (r *registers) endpoint(e *expr.NAT, v4 bool) netip.AddrPort {
	var a netip.Addr
	var port uint16
	n := 16
	if v4 {
		n = 4
	}
	if e.RegAddrMin != 0 {
		if v := r.get(e.RegAddrMin, n); v.all() {
			a, _ = netip.AddrFromSlice(v.b)
		}
	}
	if e.RegProtoMin != 0 {
		if v := r.get(e.RegProtoMin, 2); v.all() {
			port = binary.BigEndian.Uint16(v.b)
		}
	}
	return netip.AddrPortFrom(a, port)
}

func (w *walk) meta(k expr.MetaKey) bytes {
	proto := map[string]byte{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP}[w.p.Protocol]
	index := func(name string) bytes {
		if i, ok := w.set.index(name); ok {
			return known(native32(uint32(i))) // #nosec G115 -- the kernel's own number
		}
		return unknown(4)
	}
	switch k {
	case expr.MetaKeyNFPROTO:
		if w.p.To.Is4() {
			return known([]byte{unix.NFPROTO_IPV4})
		}
		return known([]byte{unix.NFPROTO_IPV6})
	case expr.MetaKeyL4PROTO:
		return known([]byte{proto})
	case expr.MetaKeyPROTOCOL:
		if w.p.To.Is4() {
			return known(big16(unix.ETH_P_IP))
		}
		return known(big16(unix.ETH_P_IPV6))
	case expr.MetaKeyIIFNAME:
		if w.hook == output {
			return known(make([]byte, 16))
		}
		return name16(w.p.In)
	case expr.MetaKeyOIFNAME:
		if w.hook == input || w.hook == prerouting {
			return known(make([]byte, 16))
		}
		return name16(w.p.Out)
	case expr.MetaKeyIIF:
		return index(w.p.In)
	case expr.MetaKeyOIF:
		return index(w.p.Out)
	case expr.MetaKeyMARK:
		return known(native32(0))
	case expr.MetaKeyPKTTYPE:
		return known([]byte{unix.PACKET_HOST})
	}
	return unknown(16)
}

func (w *walk) payload(base expr.PayloadBase, at, n int) bytes {
	var v bytes
	switch base {
	case expr.PayloadBaseNetworkHeader:
		v = w.network()
	case expr.PayloadBaseTransportHeader:
		v = w.transport()
	}
	if at < 0 || n < 0 || at+n > len(v.b) {
		return unknown(max(n, 0))
	}
	return bytes{v.b[at : at+n], v.known[at : at+n]}
}

func (w *walk) ct(k expr.CtKey) bytes {
	switch k {
	case expr.CtKeySTATE:
		return known(native32(expr.CtStateBitNEW))
	case expr.CtKeySTATUS:
		if w.diverted {
			return known(native32(0x20)) // IPS_DST_NAT
		}
		return known(native32(0))
	case expr.CtKeyDIRECTION:
		return known([]byte{0})
	case expr.CtKeyMARK:
		return known(native32(0))
	case expr.CtKeyPROTODST:
		return known(big16(w.port))
	}
	return unknown(16)
}

// fib answers as if the way back leads where the packet came from: a stranger that
// forges its address is not who opens a port.
func (w *walk) fib(e *expr.Fib) bytes {
	switch {
	case e.ResultADDRTYPE && e.FlagDADDR && w.set.own(w.p.To):
		return known(native32(unix.RTN_LOCAL))
	case e.ResultADDRTYPE && e.FlagDADDR:
		return known(native32(unix.RTN_UNICAST))
	case e.FlagPRESENT:
		return known([]byte{1, 0, 0, 0})
	case e.ResultOIF:
		if i, ok := w.set.index(w.p.In); ok {
			return known(native32(uint32(i))) // #nosec G115 -- the kernel's own number
		}
		return known(native32(1))
	}
	return unknown(16)
}
