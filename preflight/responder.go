package preflight

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/portcullis-id/portcullis/hostfw"
	"github.com/portcullis-id/portcullis/netcontract"
)

// The bounds of a responder: strangers cost no more than these.
const (
	maxClients       = 512              // connections of strangers at the same time, over all ports
	maxOwn           = 8192             // connections of the addresses of the run
	ownPatience      = 15 * time.Second // the same for the addresses of the run, whose turn may come late
	strangerPatience = 2 * time.Second  // until a connection that says nothing is closed
)

// Responder answers holders of the token on every port that the contract lets a
// host listen on.
type Responder struct {
	token *Token
	self  Host
	// results is what this host has found out so far.
	results func(by string) json.RawMessage
	// evidence is what this host knows of its side.
	evidence func(ctx context.Context) *Evidence

	// swarm are the addresses of the hosts of the run: a connection of theirs that says
	// nothing is a probe, and no stranger.
	swarm map[netip.Addr]bool

	watches   watches
	now       func() time.Time
	listeners []net.Listener
	packets   []net.PacketConn
	bound     []Bound
	slots     chan struct{} // of strangers
	own       chan struct{} // of the hosts of the run
	strangers atomic.Int64
	wg        sync.WaitGroup
}

// Bound is a port of the contract on this host.
type Bound struct {
	Row      netcontract.RowID    `json:"row"`
	Protocol netcontract.Protocol `json:"protocol"`
	Address  netip.Addr           `json:"address"`
	Port     int                  `json:"port"`
	// Busy means that another program listens there already; it answers instead of the
	// responder.
	Busy bool `json:"busy,omitempty"`
	// Refused is why the port could not be opened; empty for an open one.
	Refused string `json:"refused,omitempty"`
}

// newResponder opens all ports of the rows on which a node listens. A port that
// another program has is no error: that program is what the row is for.
func newResponder(ctx context.Context, token *Token, table netcontract.Table, self Host, thorough bool) (*Responder, error) {
	r := &Responder{token: token, self: self, slots: make(chan struct{}, maxClients), own: make(chan struct{}, maxOwn)}
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // Landlock's network rules do not see it
	for _, row := range table.Rows() {
		if !serves(row, self.Role) {
			continue
		}
		for _, protocol := range row.Protocols {
			if protocol == netcontract.ICMP {
				continue // the kernel answers
			}
			for _, port := range ports(row, protocol, thorough) {
				for _, address := range self.Addresses {
					b := Bound{Row: row.ID, Protocol: protocol, Address: address, Port: port}
					if slices.ContainsFunc(r.bound, func(o Bound) bool { return o.Protocol == protocol && o.Address == address && o.Port == port }) {
						continue // two rows share a port, as 22 is for nodes and the jump host
					}
					where := Check{Address: address, Port: port}.addrPort().String()
					var err error
					if protocol == netcontract.UDP {
						var pc net.PacketConn
						if pc, err = lc.ListenPacket(ctx, "udp", where); err == nil {
							r.packets = append(r.packets, pc)
						}
					} else {
						var l net.Listener
						if l, err = lc.Listen(ctx, "tcp", where); err == nil {
							r.listeners = append(r.listeners, l)
						}
					}
					switch {
					case errors.Is(err, syscall.EADDRINUSE):
						b.Busy = true
					case errors.Is(err, syscall.EADDRNOTAVAIL):
						return nil, errors.Join(fmt.Errorf("this host has no address %s; name its own addresses with --self", address), r.close())
					case err != nil:
						b.Refused = err.Error()
					}
					r.bound = append(r.bound, b)
				}
			}
		}
	}
	return r, nil
}

// serve answers until close.
func (r *Responder) serve() {
	for _, l := range r.listeners {
		r.wg.Go(func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return // closed
				}
				slots, patience := r.slots, strangerPatience
				if a, err := netip.ParseAddrPort(c.RemoteAddr().String()); err == nil && r.swarm[a.Addr().Unmap()] {
					slots, patience = r.own, ownPatience
				}
				select {
				case slots <- struct{}{}:
					r.wg.Go(func() {
						defer func() { <-slots }()
						defer c.Close()
						r.answer(c, patience)
					})
				default: // a flood: the swarm's own few come again
					r.strangers.Add(1)
					_ = c.Close()
				}
			}
		})
	}
	for _, pc := range r.packets {
		r.wg.Go(func() {
			buf := make([]byte, maxRequest)
			for {
				n, from, err := pc.ReadFrom(buf)
				if err != nil {
					return // closed
				}
				var q request
				if r.token.datagram(buf[:n], toResponder, &q) != nil || q.Kind != kindHello {
					r.stranger(from, buf[:n])
					continue
				}
				if out, err := r.token.encode(toProber, r.reply(q, from.String())); err == nil {
					_, _ = pc.WriteTo(out, from) // lost packets are asked for again
				}
			}
		})
	}
}

// tlsRecord is the first byte of a TLS client hello.
const tlsRecord = 0x16

// answer serves one connection: one request, plain or inside TLS.
func (r *Responder) answer(c net.Conn, patience time.Duration) {
	_ = c.SetDeadline(time.Now().Add(patience))
	br := bufio.NewReaderSize(c, 256) // most of those who wait have said nothing yet
	first, err := br.Peek(1)
	if err != nil {
		r.stranger(c.RemoteAddr(), nil) // a port scan, or a load balancer's look
		return
	}
	var stream net.Conn = buffered{c, br}
	if first[0] == tlsRecord {
		stream = tls.Server(stream, &tls.Config{Certificates: []tls.Certificate{r.token.cert}, MinVersion: tls.VersionTLS13})
	}
	var q request
	if err := r.token.read(stream, toResponder, maxRequest, &q); err != nil {
		said := ""
		if errors.Is(err, errStranger) && first[0] == magic[0] {
			said = magic // a frame, and not one of this token's
		}
		r.stranger(c.RemoteAddr(), []byte(said))
		return
	}
	_ = c.SetDeadline(time.Now().Add(10 * time.Second)) // one of ours: it may ask for much
	out, err := r.token.encode(toProber, r.reply(q, c.RemoteAddr().String()))
	if err != nil {
		return
	}
	_, _ = stream.Write(out) // who asked sees that nothing came
}

// stranger counts somebody who is not of this run. Hosts of the run knock without
// a word, and ask what is no question of ours, to see how far they get: they count
// only with a frame of another token.
func (r *Responder) stranger(from net.Addr, said []byte) {
	if a, err := netip.ParseAddrPort(from.String()); err == nil && r.swarm[a.Addr().Unmap()] && !strings.HasPrefix(string(said), magic) {
		return
	}
	r.strangers.Add(1)
}

// watches are the looks at this host's packets that other hosts have asked for,
// one for each of them.
type watches struct {
	mu sync.Mutex
	by map[string]*watched
}

type watched struct {
	tap    *tap
	flows  []Flow
	before *hostfw.Firewall
}

// Bounds of a look.
const (
	watchTime  = 5 * time.Second // at the most
	maxFlows   = 512
	maxWatches = maxHosts
)

// begin counts the packets of flows from now on.
func (w *watches) begin(by string, flows []Flow) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.by[by] != nil || len(w.by) >= maxWatches || len(flows) > maxFlows {
		return
	}
	now := &watched{flows: flows}
	now.before, _ = hostfw.Read()                        // nil where it may not be read
	now.tap, _ = newTap(watchTime, func(p packet) bool { // nil without the right to
		return slices.ContainsFunc(flows, func(f Flow) bool { return f.has(p) })
	})
	if w.by == nil {
		w.by = map[string]*watched{}
	}
	w.by[by] = now
	time.AfterFunc(watchTime, func() { w.end(by, now) })
}

// end is what was counted since begin, nil where nobody looked.
func (w *watches) end(by string, which *watched) *Watch {
	w.mu.Lock()
	now := w.by[by]
	if now == nil || which != nil && now != which {
		w.mu.Unlock()
		return nil
	}
	delete(w.by, by)
	w.mu.Unlock()
	out := &Watch{Looked: now.tap != nil}
	if after, err := hostfw.Read(); err == nil {
		out.Counted = after.Since(now.before)
	}
	if now.tap != nil {
		packets, whole := now.tap.stop()
		out.Looked = whole
		for _, f := range now.flows {
			out.Arrived = append(out.Arrived, f.count(packets))
		}
	}
	return out
}

// buffered is a connection whose first bytes were looked at.
type buffered struct {
	net.Conn
	r *bufio.Reader
}

func (b buffered) Read(p []byte) (int, error) { return b.r.Read(p) }

func (r *Responder) reply(q request, seen string) reply {
	a := reply{Nonce: q.Nonce, Name: r.self.Name, Seen: seen, At: r.now(), Padding: strings.Repeat("x", min(max(q.Pad, 0), maxRequest))}
	switch q.Kind {
	case kindEvidence:
		if r.evidence != nil {
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			defer cancel()
			a.Evidence = r.evidence(ctx)
			a.Evidence.Bound = r.bound
			a.Evidence.Strangers = r.strangers.Load()
		}
	case kindWatch:
		r.watches.begin(q.From, q.Flows)
	case kindCount:
		a.Watch = r.watches.end(q.From, nil)
	case kindResults:
		if r.results != nil {
			a.Results = r.results(q.From)
		}
	}
	return a
}

// close stops all responders.
func (r *Responder) close() error {
	var errs []error
	for _, l := range r.listeners {
		errs = append(errs, l.Close())
	}
	for _, pc := range r.packets {
		errs = append(errs, pc.Close())
	}
	r.wg.Wait()
	return errors.Join(errs...)
}

func port(p int) string { return strconv.Itoa(p) }
