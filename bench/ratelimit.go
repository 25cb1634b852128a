package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	common "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/portcullis-id/portcullis/ratelimit"
)

// rateLimits measures decisions of the rate limiting room: in process, at another
// node over mutual TLS on loopback, with tokens in hand, and over Envoy's protocol.
// Both nodes are in this process: a decision over the wire costs what both do.
func (b *bench) rateLimits(ctx context.Context, _ string) (err error) {
	if !b.wants("ratelimit") {
		return nil
	}
	pair, err := newRatePair()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pair.close()) }()
	wall, cancel := context.WithCancel(ctx)
	defer cancel()
	var running sync.WaitGroup
	for _, n := range pair.nodes {
		running.Go(func() { _ = n.service.Run(wall) }) // ends with wall
	}
	defer running.Wait()
	defer cancel()
	for len(pair.nodes[0].service.State().Peers) < 2 || len(pair.nodes[1].service.State().Peers) < 2 {
		time.Sleep(10 * time.Millisecond)
	}

	// For half a minute after a change of members, a key that is new to its owner is
	// asked for at the other node too: no part of what is measured.
	select {
	case <-time.After(32 * time.Second):
	case <-ctx.Done():
		return ctx.Err()
	}
	var own, other []string // keys by their owner
	for i := range 20_000 {
		key := fmt.Sprintf("tenant-%d|192.0.2.1", i)
		before := pair.nodes[0].service.Totals().Calls
		if _, err := pair.nodes[0].service.Take(ctx, ratelimit.Request{Bucket: "calls", Key: key}); err != nil {
			return err
		}
		if pair.nodes[0].service.Totals().Calls == before {
			own = append(own, key)
		} else {
			other = append(other, key)
		}
	}
	take := func(bucket string, keys []string) func(worker, n int) error {
		return func(worker, n int) error {
			d, err := pair.nodes[0].service.Take(ctx, ratelimit.Request{Bucket: bucket, Key: keys[(worker*7919+n)%len(keys)]})
			if err == nil && d.Fallback {
				err = errors.New("the owner did not answer in time")
			}
			return err
		}
	}
	if len(own) == 0 || len(other) == 0 {
		return errors.New("one of two nodes owns all keys")
	}
	b.decisions(ctx, "ratelimit: decisions in process", runtime.GOMAXPROCS(0), take("calls", own))
	b.decisions(ctx, "ratelimit: decisions at another node (9001)", 4*b.conns, take("calls", other))
	b.decisions(ctx, "ratelimit: decisions at another node, one at a time", 1, take("calls", other))
	b.decisions(ctx, "ratelimit: a hot key of another node", b.conns, take("calls", other[:1]))

	conn, err := grpc.NewClient(pair.nodes[0].address, grpc.WithTransportCredentials(credentials.NewTLS(pair.client("node0"))))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	envoy := rls.NewRateLimitServiceClient(conn)
	b.decisions(ctx, "ratelimit: Envoy's protocol (9001)", b.conns, func(worker, n int) error {
		_, err := envoy.ShouldRateLimit(ctx, &rls.RateLimitRequest{Domain: "calls", Descriptors: []*common.RateLimitDescriptor{{
			Entries: []*common.RateLimitDescriptor_Entry{{Key: "tenant", Value: fmt.Sprint((worker*7919 + n) % 5000)}}}}})
		return err
	})
	return nil
}

// decisions runs one on a number of goroutines and adds a figure.
func (b *bench) decisions(ctx context.Context, name string, workers int, one func(worker, n int) error) {
	if !b.wants(name) || ctx.Err() != nil {
		return
	}
	// A latency of each of millions of decisions would cost more than they do.
	const every = 16
	var failed atomic.Int64
	var mu sync.Mutex
	var wg sync.WaitGroup
	var all []time.Duration
	total := 0
	start := time.Now()
	for w := range workers {
		wg.Go(func() {
			var mine []time.Duration
			n := 0
			for ; time.Since(start) < b.seconds && ctx.Err() == nil; n++ {
				sampled := n%every == 0
				var at time.Time
				if sampled {
					at = time.Now()
				}
				if err := one(w, n); err != nil {
					failed.Add(1)
				}
				if sampled {
					mine = append(mine, time.Since(at))
				}
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, mine...)
			total += n
		})
	}
	wg.Wait()
	took := time.Since(start)
	slices.Sort(all)
	at := func(q float64) float64 { return ms(all[min(len(all)-1, int(q*float64(len(all))))]) }
	b.add(Figure{Name: name, Value: float64(total) / took.Seconds(), Unit: "/s", Failed: int(failed.Load()), latency: &latency{at(.5), at(.99), at(.999)}})
}

// ratePair is two nodes that count together.
type ratePair struct {
	nodes [2]*rateNode
	pool  *x509.CertPool
	certs map[string]tls.Certificate
}

type rateNode struct {
	pair    *ratePair
	id      string
	address string
	service *ratelimit.Service
	server  *http.Server
}

func (n *rateNode) Self() string { return n.id }

func (n *rateNode) Peers() (out []ratelimit.Peer) {
	for _, other := range n.pair.nodes {
		out = append(out, ratelimit.Peer{ID: other.id, Host: other.address})
	}
	return out
}

func newRatePair() (*ratePair, error) {
	p := &ratePair{pool: x509.NewCertPool(), certs: map[string]tls.Certificate{}}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	root := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench"}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	raw, err := x509.CreateCertificate(rand.Reader, root, root, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	ca, err := x509.ParseCertificate(raw)
	if err != nil {
		return nil, err
	}
	p.pool.AddCert(ca)
	rules, err := ratelimit.NewRules([]ratelimit.Bucket{{Name: "calls", Spec: ratelimit.Spec{Size: 1_000_000, PerSecond: 1_000_000}}}, nil)
	if err != nil {
		return nil, err
	}
	for i := range p.nodes {
		n := &rateNode{pair: p, id: fmt.Sprintf("node%d", i)}
		raw, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(int64(i + 2)), Subject: pkix.Name{CommonName: n.id}, DNSNames: []string{n.id}, NotAfter: root.NotAfter,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}, ca, &key.PublicKey, key)
		if err != nil {
			return nil, err
		}
		p.certs[n.id] = tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key}
		p.nodes[i] = n
	}
	for _, n := range p.nodes {
		if err := n.start(rules); err != nil {
			return nil, errors.Join(err, p.close())
		}
	}
	return p, nil
}

// client is what to speak to a node with, as the other one.
func (p *ratePair) client(id string) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: p.pool, ServerName: id, Certificates: []tls.Certificate{p.certs[map[string]string{"node0": "node1", "node1": "node0"}[id]]}}
}

func (n *rateNode) start(rules *ratelimit.Rules) (err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	n.address = l.Addr().String()
	if n.service, err = ratelimit.New(ratelimit.Config{Rules: func() *ratelimit.Rules { return rules }, Cluster: n}); err != nil {
		return errors.Join(err, l.Close())
	}
	n.service.Connect(ratelimit.Wire{ClientTLS: n.pair.client, Dial: func(ctx context.Context, p ratelimit.Peer) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", p.Host)
	}})
	n.server = &http.Server{ReadHeaderTimeout: 5 * time.Second, TLSConfig: &tls.Config{MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: n.pair.pool, Certificates: []tls.Certificate{n.pair.certs[n.id]}},
		Handler: n.service.Handler(ratelimit.Access{Node: func(r *http.Request) (string, error) { return r.TLS.PeerCertificates[0].Subject.CommonName, nil }})}
	go func() { _ = n.server.ServeTLS(l, "", "") }() // ends with close
	return nil
}

func (p *ratePair) close() (err error) {
	for _, n := range p.nodes {
		if n != nil && n.service != nil {
			n.service.Close()
		}
	}
	for _, n := range p.nodes {
		if n != nil && n.server != nil {
			err = errors.Join(err, n.server.Close())
		}
	}
	return err
}
