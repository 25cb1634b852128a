package control

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
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

	mu    sync.Mutex
	queue []tenant.Invalidation
	wake  chan struct{}
}

// syncPeers makes a line for each other member, and ends those of members that
// went. The caller holds s.mu.
func (s *Service) syncPeers() {
	want := map[string]Member{}
	for _, m := range s.members {
		if m.State != Removed && m.ID != s.id.ID {
			want[m.ID] = m
		}
	}
	for id, p := range s.peers {
		if m, ok := want[id]; !ok || m.Address != p.address {
			p.stop()
			delete(s.peers, id)
			delete(s.answers, id)
			delete(s.skews, id)
		}
	}
	for id, m := range want {
		if s.peers[id] != nil {
			continue
		}
		ctx, cancel := context.WithCancel(context.Background())
		p := &peer{service: s, id: id, address: m.Address, stop: cancel, done: make(chan struct{}), wake: make(chan struct{}, 1), http: s.client(m.Address, id)}
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
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS13, ServerName: serverName, RootCAs: s.id.pool(),
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				pair := s.identity().pair
				return &pair, nil
			},
			VerifyConnection: func(c tls.ConnectionState) error {
				if got, ok := nodeID(c.PeerCertificates[0]); !ok || got != id {
					return fmt.Errorf("the node at %s is %s, and not %s", address, got, id)
				}
				return nil
			}},
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

// push puts an invalidation into the line. One that does not fit is found in the
// database.
func (p *peer) push(v tenant.Invalidation) {
	p.mu.Lock()
	if len(p.queue) < maxQueue {
		p.queue = append(p.queue, v)
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
		for {
			p.mu.Lock()
			n := min(len(p.queue), maxBatch)
			batch := p.queue[:n:n]
			p.queue = p.queue[n:]
			p.mu.Unlock()
			if n == 0 {
				break
			}
			err := call(ctx, p.http, http.MethodPost, p.address, "/v1/invalidations", batch, nil)
			if errors.Is(err, context.Canceled) {
				return
			}
			p.service.mu.Lock()
			if err == nil {
				p.service.pushed.sent += int64(n)
			} else {
				p.service.pushed.failed += int64(n)
			}
			p.service.mu.Unlock()
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
