package hostfw

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
)

// xtMatch judges what iptables writes into nftables in its own words.
func (w *walk) xtMatch(e *expr.Match) tri {
	between := func(r [2]uint16, invert bool) tri {
		t := of(w.p.Port >= r[0] && w.p.Port <= r[1])
		if invert {
			return t.not()
		}
		return t
	}
	anyPort := [2]uint16{0, 65535}
	switch i := e.Info.(type) {
	case *xt.Comment:
		return yes
	case *xt.Tcp:
		t := min(of(w.p.Protocol == "tcp"), between(i.DstPorts, i.InvFlags&xt.TcpInvDestPorts != 0))
		if i.SrcPorts != anyPort {
			t = min(t, maybe)
		}
		if i.FlagsMask != 0 {
			f := of(0x02&i.FlagsMask == i.FlagsCmp) // SYN alone
			if i.InvFlags&xt.TcpInvFlags != 0 {
				f = f.not()
			}
			t = min(t, f)
		}
		if i.Option != 0 {
			t = min(t, maybe)
		}
		return t
	case *xt.Udp:
		t := min(of(w.p.Protocol == "udp"), between(i.DstPorts, i.InvFlags&xt.UdpInvDestPorts != 0))
		if i.SrcPorts != anyPort {
			t = min(t, maybe)
		}
		return t
	case *xt.ConntrackMtinfo1:
		return w.conntrack(&i.ConntrackMtinfoBase, uint16(i.StateMask))
	case *xt.ConntrackMtinfo2:
		return w.conntrack(&i.ConntrackMtinfoBase, i.StateMask)
	case *xt.ConntrackMtinfo3:
		return w.conntrack(&i.ConntrackMtinfoBase, i.StateMask)
	case *xt.AddrType:
		return w.addrType(i.Source, i.Dest, i.InvertDest)
	case *xt.AddrTypeV1:
		return w.addrType(i.Source, i.Dest, i.Flags&2 != 0)
	case *xt.Unknown:
		return w.xtUnknown(e.Name, *i)
	}
	return w.xtUnknown(e.Name, nil)
}

func (w *walk) xtUnknown(name string, info []byte) tri {
	switch name {
	case "limit", "comment":
		return yes // the first packet is within every limit
	case "icmp", "icmp6", "physdev", "rt", "frag", "sctp", "dccp", "esp", "ah":
		return no
	case "multiport":
		ports, ok := multiport(info)
		if !ok || ports.flags == multiportSource {
			return maybe
		}
		in := false
		for i := 0; i < len(ports.list); i++ {
			from, to := ports.list[i], ports.list[i]
			if ports.ranged[i] && i+1 < len(ports.list) {
				i++
				to = ports.list[i]
			}
			in = in || w.p.Port >= from && w.p.Port <= to
		}
		t := of(in)
		if ports.invert {
			t = t.not()
		}
		if ports.flags != multiportDestination && t == no {
			return maybe // the source port counts too
		}
		return t
	case "state":
		if len(info) >= 4 {
			return of(binary.NativeEndian.Uint32(info)&ctNew != 0)
		}
	case "mark":
		if len(info) >= 9 {
			mark, mask := binary.NativeEndian.Uint32(info), binary.NativeEndian.Uint32(info[4:])
			t := of(0&mask == mark)
			if info[8] != 0 {
				t = t.not()
			}
			return t
		}
	}
	return maybe
}

// ports of xt_multiport (include/uapi/linux/netfilter/xt_multiport.h, revision 1).
type ports struct {
	flags  byte
	list   []uint16
	ranged []bool
	invert bool
}

const (
	multiportSource      = 0
	multiportDestination = 1
)

func multiport(info []byte) (ports, bool) {
	const most = 15
	if len(info) < 2+2*most+most+1 || int(info[1]) > most {
		return ports{}, false
	}
	p := ports{flags: info[0], invert: info[2+3*most] != 0}
	for i := range int(info[1]) {
		p.list = append(p.list, binary.NativeEndian.Uint16(info[2+2*i:]))
		p.ranged = append(p.ranged, info[2+2*most+i] != 0)
	}
	return p, true
}

// Bits of xt_conntrack's state mask (XT_CONNTRACK_STATE_BIT of IP_CT_NEW, and
// those that are beside it).
const (
	ctNew  = 1 << 3
	ctDNAT = 1 << 7
)

func (w *walk) conntrack(i *xt.ConntrackMtinfoBase, state uint16) tri {
	t := yes
	have := xt.ConntrackFlags(i.MatchFlags)
	inverted := xt.ConntrackFlags(i.InvertFlags)
	and := func(f xt.ConntrackFlags, v tri) {
		if have&f == 0 {
			return
		}
		if inverted&f != 0 {
			v = v.not()
		}
		t = min(t, v)
	}
	and(xt.ConntrackState, of(state&ctNew != 0 || state&ctDNAT != 0 && w.diverted))
	and(xt.ConntrackDirection, of(inverted&xt.ConntrackDirection == 0))
	and(xt.ConntrackOrigDstPort, of(i.OrigDstPort == w.port))
	rest := have &^ (xt.ConntrackState | xt.ConntrackStateAlias | xt.ConntrackDirection | xt.ConntrackOrigDstPort)
	if rest != 0 {
		t = min(t, maybe)
	}
	return t
}

func (w *walk) addrType(source, dest uint16, notDest bool) tri {
	t := yes
	if source != 0 {
		t = maybe
	}
	if dest != 0 {
		kind := xt.AddrTypeUnicast
		if w.set.own(w.p.To) {
			kind = xt.AddrTypeLocal
		}
		d := of(uint32(dest)&uint32(kind) != 0)
		if notDest {
			d = d.not()
		}
		t = min(t, d)
	}
	return t
}

// passing are targets after which the next rule has its turn.
var passing = []string{"LOG", "NFLOG", "ULOG", "MARK", "CONNMARK", "CT", "NOTRACK", "TCPMSS", "TRACE", "SET", "CLASSIFY", "DSCP", "TOS", "TTL", "HL", "AUDIT", "CHECKSUM", "SECMARK", "CONNSECMARK", "RATEEST"}

func xtTarget(e *expr.Target) act {
	switch {
	case slices.Contains(passing, e.Name):
		return act{kind: pass}
	case e.Name == "REJECT" || e.Name == "TARPIT":
		return act{kind: drop}
	case e.Name == "SNAT" || e.Name == "MASQUERADE":
		return act{kind: accept}
	case e.Name == "DNAT" || e.Name == "REDIRECT":
		a := act{kind: divert}
		switch i := e.Info.(type) {
		case *xt.NatRange:
			a.to = natTo(i)
		case *xt.NatRange2:
			a.to = natTo(&i.NatRange)
		case *xt.NatIPv4MultiRangeCompat:
			if len(*i) > 0 {
				r := (*i)[0]
				ip, _ := netip.AddrFromSlice(r.MinIP.To4())
				if xt.NatRangeFlags(r.Flags)&xt.NatRangeMapIPs == 0 {
					ip = netip.Addr{}
				}
				a.to = netip.AddrPortFrom(ip, r.MinPort)
			}
		}
		return a
	}
	return act{kind: either}
}

func natTo(i *xt.NatRange) netip.AddrPort {
	var ip netip.Addr
	if xt.NatRangeFlags(i.Flags)&xt.NatRangeMapIPs != 0 {
		ip, _ = netip.AddrFromSlice(i.MinIP)
		ip = ip.Unmap()
	}
	var port uint16
	if xt.NatRangeFlags(i.Flags)&xt.NatRangeProtoSpecified != 0 {
		port = i.MinPort
	}
	return netip.AddrPortFrom(ip, port)
}
