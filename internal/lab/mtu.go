//go:build linux

package lab

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
)

// mtuTable is the number of the routing table of the first host of the plan.
const mtuTable = 1000

// MTU makes the path between a host and all others carry packets of at most n
// bytes, both ways, as a tunnel in the middle does: the host's own link still
// says 1500, and the router answers larger packets with an ICMP error. IPv6
// paths carry 1280 at the least.
func (l *Lab) MTU(host string, n int) (undo func()) {
	l.helper()
	if h := l.Host(host); h.network == nil {
		l.fatal(fmt.Errorf("lab: the router is on every path; name a host for the MTU %d", n))
	}
	if least := 1280; n > 1500 || n < 576 || n < least && !l.options.IPv4Only {
		l.fatal(fmt.Errorf("lab: an MTU of %d; 1280 to 1500 (from 576 in a lab without IPv6)", n))
	}
	l.mu.Lock()
	before, had := l.mtus[host]
	l.mtus[host] = n
	l.mu.Unlock()
	if err := l.routes(); err != nil {
		l.fatal(err)
	}
	return l.undo(func() error {
		l.mu.Lock()
		if had {
			l.mtus[host] = before
		} else {
			delete(l.mtus, host)
		}
		l.mu.Unlock()
		return l.routes()
	})
}

// routes writes the router's routes anew. The MTU of a way is that of its
// narrower end; so packets that come from a host with an MTU have a routing table
// of their own.
func (l *Lab) routes() error {
	l.mu.Lock()
	mtus := maps.Clone(l.mtus)
	l.mu.Unlock()
	b, rules := &strings.Builder{}, &strings.Builder{}
	for _, h := range l.Hosts() {
		b.WriteString(l.route(h, "main", mtus[h.name]))
	}
	for i, from := range l.Hosts() {
		table := fmt.Sprint(mtuTable + i)
		fmt.Fprintf(rules, "rule del pref %s\n", table) // fails, and may, where there is none
		mtu, narrow := mtus[from.name]
		if !narrow {
			continue
		}
		for _, h := range l.Hosts() {
			n := mtu
			if other, ok := mtus[h.name]; ok && other < n {
				n = other
			}
			b.WriteString(l.route(h, table, n))
		}
	}
	router := l.Router()
	if _, err := router.run(b.String(), "ip", "-batch", "-"); err != nil {
		return err
	}
	for _, family := range l.families() {
		_, _ = router.run(rules.String(), "ip", family, "-force", "-batch", "-")
		b.Reset()
		for i, from := range l.Hosts() {
			if _, narrow := mtus[from.name]; narrow {
				fmt.Fprintf(b, "rule add iif %s lookup %d pref %d\n", from.name, mtuTable+i, mtuTable+i)
			}
		}
		if _, err := router.run(b.String(), "ip", family, "-batch", "-"); err != nil {
			return err
		}
	}
	return l.forgetPaths()
}

// families are the options of ip for the lab's families of addresses.
func (l *Lab) families() []string {
	switch {
	case l.options.IPv4Only:
		return []string{"-4"}
	case l.options.IPv6Only:
		return []string{"-6"}
	}
	return []string{"-4", "-6"}
}

// route is a batch of ip that routes to the host; an MTU of 0 is the link's.
func (l *Lab) route(h *Host, table string, mtu int) string {
	b := &strings.Builder{}
	tail := " table " + table
	if mtu != 0 {
		tail += fmt.Sprintf(" mtu %d", mtu)
	}
	if h.v4.IsValid() {
		fmt.Fprintf(b, "route replace %s/32 dev %s src %s%s\n", h.v4, h.name, h.network.gateway4(), tail)
	}
	if h.v6.IsValid() {
		fmt.Fprintf(b, "route replace %s/128 dev %s src %s%s\n", h.v6, h.name, h.network.gateway6(), tail)
	}
	return b.String()
}

// forgetPaths makes every host forget the path MTUs that it has learned, which
// the kernel would keep for ten minutes.
func (l *Lab) forgetPaths() error {
	hosts := append(l.Hosts(), l.Router())
	faults := make([]error, len(hosts))
	var wg sync.WaitGroup
	for i, h := range hosts {
		wg.Go(func() {
			faults[i] = h.sysctl("ipv4/route/flush", "1")
			if h.v6.IsValid() { // its own setting of that name only ages the entries
				_, err := h.run("", "ip", "-6", "route", "flush", "cache")
				faults[i] = errors.Join(faults[i], err)
			}
		})
	}
	wg.Wait()
	return errors.Join(faults...)
}
