//go:build linux

package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
)

// Any, as the name of a host in a fault, stands for every host.
const Any = "*"

// RouterName is the name of the host between all others.
const RouterName = "router"

// Options says what stands in the lab. The zero value is three nodes with both
// families of addresses.
type Options struct {
	// Nodes is the number of nodes, 3 when it is 0, at most 200.
	Nodes int
	// IPv4Only and IPv6Only leave the other family out.
	IPv4Only, IPv6Only bool
	// Services names more hosts beside the DNS server and the depot, such as a
	// database or a mail server.
	Services []string
}

// network is a subnet. Its hosts do not share a wire: each has a link of its own
// to the router, which is the gateway, so that a fault can sit between any two.
type network struct {
	name   string
	v4, v6 netip.Prefix
	hosts  []string
}

// gateway4 and gateway6 are the router's addresses on every link of the network;
// its ICMP errors come from there.
func (n *network) gateway4() netip.Addr { return at(n.v4, 254) }
func (n *network) gateway6() netip.Addr { return at(n.v6, 254) }

// at is the address with the number i in a prefix of whole bytes.
func at(p netip.Prefix, i int) netip.Addr {
	b := p.Addr().AsSlice()
	b[len(b)-1] = byte(i)
	a, _ := netip.AddrFromSlice(b)
	return a
}

// plan lays out the networks. The outside host has addresses that are kept for
// documentation and are not private, as a stranger's are.
func plan(o Options) ([]*network, error) {
	if o.IPv4Only && o.IPv6Only {
		return nil, errors.New("lab: IPv4Only and IPv6Only together leave no address")
	}
	if o.Nodes == 0 {
		o.Nodes = 3
	}
	if o.Nodes < 0 || o.Nodes > 200 {
		return nil, fmt.Errorf("lab: %d nodes; the address plan has room for 1 to 200", o.Nodes)
	}
	var nodes []string
	for i := range o.Nodes {
		nodes = append(nodes, "node"+strconv.Itoa(i+1))
	}
	if len(o.Services) > 200 {
		return nil, fmt.Errorf("lab: %d services; the address plan has room for 200", len(o.Services))
	}
	networks := []*network{
		{name: "nodes", v4: netip.MustParsePrefix("10.77.1.0/24"), v6: netip.MustParsePrefix("fd77:0:0:1::/64"), hosts: nodes},
		{name: "front", v4: netip.MustParsePrefix("10.77.2.0/24"), v6: netip.MustParsePrefix("fd77:0:0:2::/64"), hosts: []string{"lb"}},
		{name: "admin", v4: netip.MustParsePrefix("10.77.3.0/24"), v6: netip.MustParsePrefix("fd77:0:0:3::/64"), hosts: []string{"jump", "monitoring", "cli"}},
		{name: "services", v4: netip.MustParsePrefix("10.77.4.0/24"), v6: netip.MustParsePrefix("fd77:0:0:4::/64"), hosts: append([]string{"dns", "depot"}, o.Services...)},
		{name: "internet", v4: netip.MustParsePrefix("198.51.100.0/24"), v6: netip.MustParsePrefix("2001:db8:77::/64"), hosts: []string{"outside"}},
	}
	taken := []string{RouterName, "lo", "all", "default"} // the last three mean something else to the kernel
	for _, n := range networks {
		taken = append(taken, n.name)
	}
	for _, n := range networks {
		for _, h := range n.hosts {
			if !hostName.MatchString(h) {
				return nil, fmt.Errorf("lab: host name %q: use at most 12 of a-z, 0-9 and -, a letter first", h)
			}
			if slices.Contains(taken, h) {
				return nil, fmt.Errorf("lab: host name %q is taken", h)
			}
			taken = append(taken, h)
		}
	}
	return networks, nil
}

// A host's name is also the router's name of the link to it, which the kernel
// bounds to 15 bytes.
var hostName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,11}$`)

// mac is the hardware address of the router's (0) or the host's (1) end of the
// link. Fixed ones let the delay line find the link that a frame is for.
func (h *Host) mac(end byte) net.HardwareAddr {
	b := at(h.network.v4, h.number).As4()
	return net.HardwareAddr{0x02, end, b[0], b[1], b[2], b[3]}
}
