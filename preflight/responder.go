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

	"github.com/portcullis-id/portcullis/netcontract"
)

// The bounds of a responder: strangers cost no more than these.
const (
	maxClients       = 512             // connections at the same time, over all ports
	strangerPatience = 2 * time.Second // until a connection that says nothing is closed
)

// Responder answers holders of the token on every port that the contract lets a
// host listen on.
type Responder struct {
	token *Token
	self  Host
	// results is what this host has found out so far.
	results func(by string) any
	// evidence is what this host knows of its side.
	evidence func(ctx context.Context) *Evidence

	now       func() time.Time
	listeners []net.Listener
	packets   []net.PacketConn
	bound     []Bound
	slots     chan struct{}
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
	r := &Responder{token: token, self: self, slots: make(chan struct{}, maxClients)}
	if self.Role != Node {
		return r, nil
	}
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // Landlock's network rules do not see it
	for _, row := range table.Rows() {
		if !row.Listens() || row.Section != netcontract.BetweenNodes && !slices.Contains([]netcontract.RowID{netcontract.LB, netcontract.CLI, netcontract.Health, netcontract.JumpHost}, row.ID) {
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
				select {
				case r.slots <- struct{}{}:
					r.wg.Go(func() {
						defer func() { <-r.slots }()
						defer c.Close()
						r.answer(c)
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
					r.strangers.Add(1)
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
func (r *Responder) answer(c net.Conn) {
	_ = c.SetDeadline(time.Now().Add(strangerPatience))
	br := bufio.NewReaderSize(c, 4096)
	first, err := br.Peek(1)
	if err != nil {
		r.strangers.Add(1) // a port scan, or a load balancer's look
		return
	}
	var stream net.Conn = buffered{c, br}
	if first[0] == tlsRecord {
		stream = tls.Server(stream, &tls.Config{Certificates: []tls.Certificate{r.token.cert}, MinVersion: tls.VersionTLS13})
	}
	var q request
	if err := r.token.read(stream, toResponder, maxRequest, &q); err != nil {
		r.strangers.Add(1)
		return
	}
	_ = c.SetDeadline(time.Now().Add(10 * time.Second)) // one of ours: it may ask for much
	out, err := r.token.encode(toProber, r.reply(q, c.RemoteAddr().String()))
	if err != nil {
		return
	}
	_, _ = stream.Write(out) // who asked sees that nothing came
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
	case kindResults:
		if r.results != nil {
			a.Results, _ = json.Marshal(r.results(q.From)) // plain values: it cannot fail
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
