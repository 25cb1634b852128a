package control

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/portcullis-id/portcullis/tenant"
)

const (
	callTime = 2 * time.Second
	maxBatch = 512
	maxBody  = 256 << 10 // bytes of a request or an answer between nodes
)

// peer is another node, with the line of what it is to be told.
type peer struct {
	service *Service
	id      string
	address string
	http    *http.Client
	stop    context.CancelFunc
	done    chan struct{}
	since   time.Time // when this node began to ask it

	believed []string // serial numbers of its certificates; guarded by service.mu

	mu    sync.Mutex
	queue []tenant.Invalidation
	lost  bool // something could not be delivered: the peer has to forget everything
	wake  chan struct{}
}

// syncPeers makes a line for each other member, and ends those of members that
// went. The caller holds s.mu.
func (s *Service) syncPeers() {
	want := map[string]Member{}
	for _, m := range s.members {
		if m.ID != s.id.ID {
			want[m.ID] = m
		}
	}
	for id, p := range s.peers {
		// A certificate that is no longer believed may be that of an open connection.
		m, ok := want[id]
		revoked := slices.ContainsFunc(p.believed, func(c string) bool { return !slices.Contains(m.Certificates, c) })
		if ok && m.Address == p.address && !revoked {
			p.believed = m.Certificates
			continue
		}
		p.stop()
		delete(s.peers, id)
		delete(s.answers, id)
		delete(s.skews, id)
	}
	for id, m := range want {
		if s.peers[id] != nil {
			continue
		}
		ctx, cancel := context.WithCancel(context.Background())
		p := &peer{service: s, id: id, address: m.Address, since: time.Now(), believed: m.Certificates, stop: cancel, done: make(chan struct{}), wake: make(chan struct{}, 1), http: s.client(m.Address, id)}
		s.peers[id] = p
		go p.run(ctx)
	}
}

func (s *Service) stopPeers() {
	s.mu.Lock()
	peers := s.peers
	s.peers = map[string]*peer{}
	s.mu.Unlock()
	for _, p := range peers {
		p.stop()
		<-p.done
	}
}

// client speaks to one node over mutual TLS, and to no other.
func (s *Service) client(address, id string) *http.Client {
	return &http.Client{Timeout: callTime, Transport: &http.Transport{
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return s.Dial(ctx, address) },
		ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 2, IdleConnTimeout: time.Minute,
		TLSClientConfig: s.clientTLS(s.id.pool(), id),
	}}
}

// ClientTLS is for calls to one other node on any row between nodes: with this
// node's certificate, and believing that node's alone.
func (s *Service) ClientTLS(id string) *tls.Config { return s.clientTLS(s.identity().pool(), id) }

// clientTLS is ClientTLS without s.mu. Members are looked up when a connection is
// made, so that a certificate that was revoked is refused from the next heartbeat on.
func (s *Service) clientTLS(authority *x509.CertPool, id string) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, ServerName: serverName, RootCAs: authority,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair := s.identity().pair
			return &pair, nil
		},
		VerifyConnection: func(c tls.ConnectionState) error {
			m, err := s.believe(c)
			if err == nil && m.ID != id {
				err = fmt.Errorf("the node that answers is %s, and not %s", m.ID, id)
			}
			return err
		}}
}

// call sends v, and reads the answer into into where that is not nil.
func call(ctx context.Context, c *http.Client, method, address, path string, v, into any) error {
	var body io.Reader
	if v != nil {
		raw, err := json.Marshal(v)
		if err != nil {
			return err
		}
		body = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, "https://"+address+path, body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := c.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(res.Body, maxBody))
	if err != nil {
		return err
	}
	if res.StatusCode/100 != 2 {
		return answerError(res.StatusCode, raw)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(raw, into)
}

// push puts an invalidation into the line. When one does not fit, the peer has to
// forget everything.
func (p *peer) push(v tenant.Invalidation) {
	p.mu.Lock()
	if len(p.queue) < maxQueue {
		p.queue = append(p.queue, v)
	} else {
		p.lost = true
	}
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *peer) run(ctx context.Context) {
	defer close(p.done)
	defer p.http.CloseIdleConnections()
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.wake:
		}
		for p.deliver(ctx) {
		}
	}
}

// deliver sends what waits, and reports whether there may be more. What could not
// be sent makes the peer forget everything once it is reached again: the next push,
// or the question of the next second, finds out.
func (p *peer) deliver(ctx context.Context) bool {
	p.mu.Lock()
	n := min(len(p.queue), maxBatch)
	batch := p.queue[:n:n]
	p.queue = p.queue[n:]
	lost := p.lost
	p.mu.Unlock()
	if lost {
		batch = []tenant.Invalidation{everything()}
	}
	if len(batch) == 0 {
		return false
	}
	err := call(ctx, p.http, http.MethodPost, p.address, "/v1/invalidations", batch, nil)
	if ctx.Err() != nil {
		return false
	}
	p.mu.Lock()
	p.lost = err != nil
	p.mu.Unlock()
	p.service.mu.Lock()
	if err == nil {
		p.service.pushed.sent += int64(n)
	} else {
		p.service.pushed.failed += int64(n)
	}
	p.service.mu.Unlock()
	return err == nil
}

// again delivers to a peer that has just answered what it missed.
func (p *peer) again() {
	p.mu.Lock()
	lost := p.lost
	p.mu.Unlock()
	if lost {
		select {
		case p.wake <- struct{}{}:
		default:
		}
	}
}

// Status is what a node answers others.
type Status struct {
	ID   string    `json:"id"`
	Time time.Time `json:"time"`
}

// ask asks every other node whether it is there, and what time it is.
func (s *Service) ask(ctx context.Context) error {
	s.mu.Lock()
	var peers []*peer
	for _, p := range s.peers {
		peers = append(peers, p)
	}
	s.mu.Unlock()
	var wg sync.WaitGroup
	for _, p := range peers {
		wg.Go(func() {
			var st Status
			sent, wall := time.Now(), s.Now()
			if err := call(ctx, p.http, http.MethodGet, p.address, "/v1/status", nil, &st); err != nil || st.ID != p.id {
				return // its silence grows
			}
			took := time.Since(sent)
			p.again()
			s.mu.Lock()
			defer s.mu.Unlock()
			s.answers[p.id] = heard{at: time.Now()}
			half := took / 2
			s.skews[p.id] = Skew{Offset: ms(st.Time.Sub(wall.Add(half))), Bound: ms(half)}
		})
	}
	wg.Wait()
	return nil
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
