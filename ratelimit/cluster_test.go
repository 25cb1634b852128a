package ratelimit

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
	"log"
	"math/big"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	unit "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/portcullis-id/portcullis/problem"
)

// authority signs the certificates of a test's nodes.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	raw, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{cert, key, x509.NewCertPool()}
	a.pool.AddCert(cert)
	return a
}

func (a *authority) pair(t testing.TB, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key}
}

// lan is a cluster over loopback, with mutual TLS.
type lan struct {
	t     testing.TB
	ca    *authority
	nodes []*lanNode
	cut   atomic.Pointer[func(from, to string) bool] // which connections do not come about
}

type lanNode struct {
	*Service
	lan     *lan
	id      string
	address string
	server  *http.Server
	clock   atomic.Int64 // added to the node's own

	mu    sync.Mutex
	peers []Peer
}

func (n *lanNode) Self() string { return n.id }

func (n *lanNode) Peers() []Peer {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.peers
}

func newLAN(t testing.TB, size int, rules *Rules) *lan {
	t.Helper()
	l := &lan{t: t, ca: newAuthority(t)}
	var peers []Peer
	for i := range size {
		n := &lanNode{lan: l, id: fmt.Sprintf("node%d", i)}
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		n.address = listener.Addr().String()
		peers = append(peers, Peer{ID: n.id, Host: n.address})
		l.nodes = append(l.nodes, n)
		n.serve(listener, rules)
	}
	for _, n := range l.nodes {
		n.mu.Lock()
		n.peers = peers
		n.mu.Unlock()
		n.look()
		n.clock.Store(int64(400 * 24 * time.Hour)) // long after the start
	}
	return l
}

func (n *lanNode) serve(listener net.Listener, rules *Rules) {
	t := n.lan.t
	pair := n.lan.ca.pair(t, n.id)
	s, err := New(Config{Rules: func() *Rules { return rules }, Cluster: n})
	if err != nil {
		t.Fatal(err)
	}
	own := s.mono
	s.mono = func() int64 { return own() + n.clock.Load() }
	s.Connect(Wire{
		ClientTLS: func(id string) *tls.Config {
			return &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: n.lan.ca.pool, ServerName: id, Certificates: []tls.Certificate{pair}}
		},
		Dial: func(ctx context.Context, p Peer) (net.Conn, error) {
			if cut := n.lan.cut.Load(); cut != nil && (*cut)(n.id, p.ID) {
				return nil, errors.New("parted")
			}
			var d net.Dialer
			c, err := d.DialContext(ctx, "tcp", p.Host)
			return &cuttable{Conn: c, dead: func() bool { cut := n.lan.cut.Load(); return cut != nil && (*cut)(n.id, p.ID) }}, err
		},
	})
	n.Service = s
	handler := s.Handler(Access{Token: "a-token-of-the-test", Node: func(r *http.Request) (string, error) {
		if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
			return "", problem.New(problem.Unauthorized, "no_certificate", "no certificate")
		}
		return r.TLS.PeerCertificates[0].Subject.CommonName, nil
	}})
	n.server = &http.Server{Handler: handler, ErrorLog: log.New(t.Output(), "", 0), ReadHeaderTimeout: time.Second, TLSConfig: &tls.Config{MinVersion: tls.VersionTLS13, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: n.lan.ca.pool, Certificates: []tls.Certificate{pair}}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := n.server.ServeTLS(listener, "", ""); !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("serve: %v", err)
		}
	}()
	t.Cleanup(func() {
		s.Close()
		_ = n.server.Close()
		<-done
	})
}

// cuttable is a connection that swallows what is written once the link is cut.
type cuttable struct {
	net.Conn
	dead func() bool
}

func (c *cuttable) Write(b []byte) (int, error) {
	if c.dead() {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

func rulesOf(t testing.TB, buckets ...Bucket) *Rules {
	t.Helper()
	r, err := NewRules(buckets, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// flood asks all given nodes at the same time, and counts what they admit.
func flood(t *testing.T, nodes []*lanNode, r Request, each int) (admitted, fallback int64) {
	t.Helper()
	var yes, alone atomic.Int64
	var wg sync.WaitGroup
	for _, n := range nodes {
		for range 4 {
			wg.Go(func() {
				for range each / 4 {
					d, err := n.Take(t.Context(), r)
					if err != nil {
						t.Error(err)
						return
					}
					if d.Conformant {
						yes.Add(1)
					}
					if d.Fallback {
						alone.Add(1)
					}
				}
			})
		}
	}
	wg.Wait()
	return yes.Load(), alone.Load()
}

// TestOneLimitForAll: what all nodes together admit is what one would have.
func TestOneLimitForAll(t *testing.T) {
	l := newLAN(t, 4, rulesOf(t, Bucket{Name: "b", Spec: Spec{Size: 100, PerHour: 100}, OnFailure: Closed}, Bucket{Name: "hot", Spec: Spec{Size: 1000, PerSecond: 10}, OnFailure: Closed}))
	for n := range 10 {
		got, alone := flood(t, l.nodes, Request{Bucket: "b", Key: fmt.Sprint("key", n)}, 60)
		if got > 100 || got < 100-alone { // alone: refused by nodes that a busy machine kept from asking in time
			t.Errorf("key%d: 4 nodes admitted %d of 240 requests, and did not get %d answers; the limit is 100", n, got, alone)
		}
	}
	// A hot key: tokens in hand that nobody used in the end are lost, none is there twice.
	start := time.Now()
	got, _ := flood(t, l.nodes, Request{Bucket: "hot", Key: "k"}, 2000)
	if most := 1000 + int64(10*time.Since(start).Seconds()+1); got > most || got < 800 {
		t.Errorf("4 nodes admitted %d of 8000 requests; the limit is %d", got, most)
	}
	leased := uint64(0)
	for _, n := range l.nodes {
		leased += n.State().Leased
	}
	if leased == 0 {
		t.Error("no decision on the hot key was made without its owner")
	}
}

// TestParted: while no node reaches another, each counts by itself with its part, or
// does as the bucket says.
func TestParted(t *testing.T) {
	l := newLAN(t, 4, rulesOf(t,
		Bucket{Name: "share", Spec: Spec{Size: 100, PerDay: 100}},
		Bucket{Name: "open", Spec: Spec{Size: 100, PerDay: 100}, OnFailure: Open},
		Bucket{Name: "closed", Spec: Spec{Size: 100, PerDay: 100}, OnFailure: Closed}))
	// The connections are there before.
	for _, n := range l.nodes {
		for k := range 20 {
			if _, err := n.Take(t.Context(), Request{Bucket: "share", Key: fmt.Sprint("before", k)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	cut := func(from, to string) bool { return from != to }
	l.cut.Store(&cut)
	for key := range 3 {
		r := Request{Bucket: "share", Key: fmt.Sprint("k", key)}
		// The owner has the whole limit, each of the three others a fourth.
		if got, alone := flood(t, l.nodes, r, 200); got != 175 || alone != 600 { // nobody is asked but who is cut off
			t.Errorf("share: the parts admitted %d, %d of them alone; want 100 + 3 * 25, and 600", got, alone)
		}
	}
	if got, _ := flood(t, l.nodes, Request{Bucket: "open", Key: "k"}, 200); got != 700 {
		t.Errorf("open: %d were admitted; want 100 at the owner, and all of 600", got)
	}
	if got, _ := flood(t, l.nodes, Request{Bucket: "closed", Key: "k"}, 200); got != 100 {
		t.Errorf("closed: %d were admitted; want the owner's 100", got)
	}
	// The link comes back: they count together again.
	l.cut.Store(nil)
	var d Decision
	for range 100 {
		var err error
		if d, err = l.notOwner("share", "k0").Take(t.Context(), Request{Bucket: "share", Key: "k0"}); err != nil {
			t.Fatal(err)
		}
		if !d.Fallback {
			break
		}
		time.Sleep(50 * time.Millisecond) // the pause after a failure
	}
	if d.Fallback || d.Conformant {
		t.Errorf("after the partition: %+v; want the owner's word that the limit is reached", d)
	}
}

func (l *lan) notOwner(bucket, key string) *lanNode {
	h := l.nodes[0].past.Load()
	owner, _ := h.now().ranked(hash(bucket, key))
	i := slices.IndexFunc(l.nodes, func(n *lanNode) bool { return n.id != owner.ID })
	return l.nodes[i]
}

func TestPutStatusAndKeysOverTheWire(t *testing.T) {
	l := newLAN(t, 3, rulesOf(t, Bucket{Name: "b", Spec: Spec{Size: 5}}))
	n := l.notOwner("b", "k")
	r := Request{Bucket: "b", Key: "k", Count: 5}
	if d, err := n.Take(t.Context(), r); err != nil || !d.Conformant || d.Remaining != 0 || !d.Reset.IsZero() {
		t.Fatalf("%+v, %v", d, err)
	}
	if d, err := n.Put(t.Context(), Request{Bucket: "b", Key: "k", Count: 2}); err != nil || d.Remaining != 2 {
		t.Errorf("put 2: %+v, %v", d, err)
	}
	if d, err := n.Status(t.Context(), Request{Bucket: "b", Key: "k"}); err != nil || d.Remaining != 2 || d.Limit != 5 {
		t.Errorf("status: %+v, %v", d, err)
	}
	keys, away, err := n.Keys(t.Context(), "b", "")
	if err != nil || len(away) > 0 || len(keys) != 1 || keys[0].Key != "k" || keys[0].Remaining != 2 || keys[0].Node == n.id {
		t.Errorf("keys: %+v, away %v, %v", keys, away, err)
	}
	if d, err := n.Reset(t.Context(), "b", "k"); err != nil || d.Remaining != 5 {
		t.Errorf("reset: %+v, %v", d, err)
	}
	_, err = n.Take(t.Context(), Request{Bucket: "nothing", Key: "k"})
	if !problem.Is(err, problem.NotFound) {
		t.Errorf("a bucket that is not there: %v", err)
	}
	_, err = n.Take(t.Context(), Request{Bucket: "b", Key: strings.Repeat("k", MaxKey+1)})
	if !problem.Is(err, problem.Invalid) {
		t.Errorf("a key that is too long: %v", err)
	}
}

func TestStrangersAreNotAnswered(t *testing.T) {
	l := newLAN(t, 2, rulesOf(t, Bucket{Name: "b", Spec: Spec{Size: 5}}))
	other := newAuthority(t)
	for name, certs := range map[string][]tls.Certificate{"no certificate": nil, "another authority's": {other.pair(t, "node0")}} {
		c := &http.Client{Transport: &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: l.ca.pool, ServerName: "node0", Certificates: certs, MinVersion: tls.VersionTLS13}}}
		res, err := c.Post("https://"+l.nodes[0].address+itemsPath, "", strings.NewReader("\x00"))
		if err == nil {
			_ = res.Body.Close()
			if res.StatusCode != http.StatusUnauthorized {
				t.Errorf("%s: %s", name, res.Status)
			}
		}
		c.CloseIdleConnections()
	}
	if n := len(l.nodes[0].all()); n > 0 {
		t.Errorf("strangers made %d tables", n)
	}
}

func descriptor(pairs ...string) *ratelimitv3.RateLimitDescriptor {
	d := &ratelimitv3.RateLimitDescriptor{}
	for i := 0; i < len(pairs); i += 2 {
		d.Entries = append(d.Entries, &ratelimitv3.RateLimitDescriptor_Entry{Key: pairs[i], Value: pairs[i+1]})
	}
	return d
}

// TestEnvoy asks with a real gRPC client.
func TestEnvoy(t *testing.T) {
	l := newLAN(t, 3, rulesOf(t, Bucket{Name: "shop", Spec: Spec{PerMinute: 2}}, Bucket{Name: "shop/tenant/ip", Spec: Spec{PerHour: 3}}, Bucket{Name: "free", Spec: Spec{Unlimited: true}}))
	dial := func(certs ...tls.Certificate) rls.RateLimitServiceClient {
		c, err := grpc.NewClient(l.nodes[0].address, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: l.ca.pool, ServerName: "node0", Certificates: certs, MinVersion: tls.VersionTLS13})))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return rls.NewRateLimitServiceClient(c)
	}
	client := dial(l.ca.pair(t, "gateway"))
	ask := func(req *rls.RateLimitRequest) *rls.RateLimitResponse {
		t.Helper()
		res, err := client.ShouldRateLimit(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	one := &rls.RateLimitRequest{Domain: "shop", Descriptors: []*ratelimitv3.RateLimitDescriptor{descriptor("tenant", "acme", "ip", "192.0.2.1")}}
	for i, want := range []rls.RateLimitResponse_Code{rls.RateLimitResponse_OK, rls.RateLimitResponse_OK, rls.RateLimitResponse_OK, rls.RateLimitResponse_OVER_LIMIT} {
		res := ask(one)
		st := res.GetStatuses()[0]
		if res.GetOverallCode() != want || st.GetCode() != want {
			t.Errorf("request %d: %s, want %s", i, res, want)
		}
		if st.GetCurrentLimit().GetRequestsPerUnit() != 3 || st.GetCurrentLimit().GetUnit() != rls.RateLimitResponse_RateLimit_HOUR || st.GetLimitRemaining() != uint32(max(0, 2-i)) || st.GetDurationUntilReset().AsDuration() <= 0 {
			t.Errorf("request %d: %s", i, st)
		}
	}
	two := &rls.RateLimitRequest{Domain: "shop", HitsAddend: 2, Descriptors: []*ratelimitv3.RateLimitDescriptor{descriptor("path", "/"), descriptor("tenant", "acme", "ip", "192.0.2.1")}}
	if res := ask(two); res.GetOverallCode() != rls.RateLimitResponse_OVER_LIMIT || res.GetStatuses()[0].GetCode() != rls.RateLimitResponse_OK || res.GetStatuses()[1].GetCode() != rls.RateLimitResponse_OVER_LIMIT {
		t.Errorf("two descriptors: %s", res)
	}
	for name, req := range map[string]*rls.RateLimitRequest{
		"unknown domain": {Domain: "other", Descriptors: []*ratelimitv3.RateLimitDescriptor{descriptor("a", "b")}},
		"unlimited":      {Domain: "free", Descriptors: []*ratelimitv3.RateLimitDescriptor{descriptor("a", "b")}},
	} {
		if res := ask(req); res.GetOverallCode() != rls.RateLimitResponse_OK || res.GetStatuses()[0].GetCurrentLimit() != nil {
			t.Errorf("%s: %s", name, res)
		}
	}
	// A limit that the caller brings, tokens that it gives back, and a look without a hit.
	own := descriptor("path", "/own")
	own.Limit = &ratelimitv3.RateLimitDescriptor_RateLimitOverride{RequestsPerUnit: 7, Unit: unit.RateLimitUnit_DAY}
	own.HitsAddend = wrapperspb.UInt64(7)
	req := &rls.RateLimitRequest{Domain: "shop", Descriptors: []*ratelimitv3.RateLimitDescriptor{own}}
	if res := ask(req); res.GetOverallCode() != rls.RateLimitResponse_OK || res.GetStatuses()[0].GetLimitRemaining() != 0 {
		t.Errorf("own limit: %s", res)
	}
	own.IsNegativeHits = true
	own.HitsAddend = wrapperspb.UInt64(4)
	if res := ask(req); res.GetStatuses()[0].GetLimitRemaining() != 4 {
		t.Errorf("given back: %s", res)
	}
	own.IsNegativeHits, own.HitsAddend = false, wrapperspb.UInt64(0)
	if res := ask(req); res.GetOverallCode() != rls.RateLimitResponse_OK || res.GetStatuses()[0].GetLimitRemaining() != 4 {
		t.Errorf("without a hit: %s", res)
	}

	for name, bad := range map[string]*rls.RateLimitRequest{
		"no domain": {Descriptors: one.GetDescriptors()}, "no descriptor": {Domain: "shop"},
		"no entry": {Domain: "shop", Descriptors: []*ratelimitv3.RateLimitDescriptor{{}}}, "very many descriptors": {Domain: "shop", Descriptors: slices.Repeat(one.GetDescriptors(), maxDescriptors+1)},
		"a unit that is none": {Domain: "shop", Descriptors: []*ratelimitv3.RateLimitDescriptor{{Entries: own.GetEntries(), Limit: &ratelimitv3.RateLimitDescriptor_RateLimitOverride{RequestsPerUnit: 1}}}},
	} {
		if _, err := client.ShouldRateLimit(t.Context(), bad); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}

	stranger := dial()
	if _, err := stranger.ShouldRateLimit(t.Context(), one); status.Code(err) != codes.Unauthenticated {
		t.Errorf("without a certificate: %v", err)
	}
	for token, want := range map[string]codes.Code{"a-token-of-the-test": codes.OK, "another": codes.Unauthenticated, "": codes.Unauthenticated} {
		ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+token)
		if _, err := stranger.ShouldRateLimit(ctx, one); status.Code(err) != want {
			t.Errorf("with the token %q: %v", token, err)
		}
	}
}

// TestLeaveAndCome: over real connections, a node that leaves takes nothing with it.
func TestLeaveAndCome(t *testing.T) {
	l := newLAN(t, 3, rulesOf(t, Bucket{Name: "b", Spec: Spec{Size: 50, PerHour: 50}, OnFailure: Closed}))
	// A busy machine may keep a node from hearing an answer: then a token is gone that
	// nobody got.
	var before, unheard [20]int64
	for k := range before {
		before[k], unheard[k] = flood(t, l.nodes, Request{Bucket: "b", Key: fmt.Sprint("k", k)}, 8)
	}
	if err := l.nodes[0].Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, n := range l.nodes[1:] { // the node that leaves still sees everybody
		n.mu.Lock()
		n.peers = slices.Clone(n.peers[1:])
		n.mu.Unlock()
		if !n.look() {
			t.Fatal("nothing has changed")
		}
	}
	for k := range 20 {
		want := 50 - before[k]
		if got, alone := flood(t, l.nodes, Request{Bucket: "b", Key: fmt.Sprint("k", k)}, 20); got > want || got < want-alone-unheard[k] {
			t.Errorf("k%d: %d more were admitted, %d decisions alone; want %d", k, got, alone, want)
		}
	}
}

// TestWhoIsGoneIsNotAsked: between a node's end and the moment at which the control
// plane notices, the others count among themselves, and not each by itself.
func TestWhoIsGoneIsNotAsked(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(t *testing.T, n *lanNode)
	}{
		{"it said goodbye", func(t *testing.T, n *lanNode) {
			if err := n.Leave(t.Context()); err != nil {
				t.Fatal(err)
			}
		}},
		{"it was killed", func(*testing.T, *lanNode) {}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLAN(t, 3, rulesOf(t, Bucket{Name: "b", Spec: Spec{Size: 10}}))
			tt.end(t, l.nodes[0])
			_ = l.nodes[0].server.Close() // the others' Peers still name it
			rest := l.nodes[1:]
			for k := range 40 { // whoever asks it hears that it is gone
				for _, n := range rest {
					if _, err := n.Take(t.Context(), Request{Bucket: "b", Key: fmt.Sprint("before", k)}); err != nil {
						t.Fatal(err)
					}
				}
			}
			for _, n := range rest {
				n.look()
				if got := len(n.past.Load().now().peers); got != 2 {
					t.Errorf("%s counts with %d nodes, itself among them; want 2", n.id, got)
				}
			}
			for k := range 20 {
				r := Request{Bucket: "b", Key: fmt.Sprint("k", k)}
				// A busy machine may keep a node from hearing an answer.
				if admitted, alone := flood(t, rest, r, 12); admitted > 10+alone {
					t.Errorf("%s: %d were admitted of 10, %d decisions were made alone", r.Key, admitted, alone)
				}
			}
			for _, n := range rest {
				n.clock.Add(int64(2 * goneTime))
				n.look()
				if got := len(n.past.Load().now().peers); got != 3 {
					t.Errorf("a node that came back is left out for good")
				}
			}
		})
	}
}

func TestWaitTakesTurns(t *testing.T) {
	l := newLAN(t, 2, rulesOf(t, Bucket{Name: "b", Spec: Spec{Size: 1, PerInterval: 1, Interval: 40}}, Bucket{Name: "hand", Spec: Spec{Size: 1}}, Bucket{Name: "day", Spec: Spec{PerDay: 1}}))
	start := time.Now()
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			d, err := l.nodes[i%2].Wait(t.Context(), Request{Bucket: "b", Key: "k"}, 10*time.Second)
			if err != nil || !d.Conformant {
				t.Errorf("%+v, %v", d, err)
			}
		})
	}
	wg.Wait()
	if took := time.Since(start); took < 5*40*time.Millisecond { // never earlier than the limit allows
		t.Errorf("6 tokens at 40 ms each came in %s", took)
	}
	n := l.nodes[0]
	for _, want := range []bool{true, false} { // the second would have to wait a day
		if d, err := n.Wait(t.Context(), Request{Bucket: "day", Key: "k"}, time.Second); err != nil || d.Conformant != want {
			t.Errorf("%+v, %v", d, err)
		}
	}
	if d, err := n.Take(t.Context(), Request{Bucket: "hand", Key: "k"}); err != nil || !d.Conformant {
		t.Fatalf("%+v, %v", d, err)
	}
	filled := make(chan error, 1)
	go func() {
		d, err := n.Wait(t.Context(), Request{Bucket: "hand", Key: "k"}, time.Minute)
		if err == nil && !d.Conformant {
			err = fmt.Errorf("%+v", d)
		}
		filled <- err
	}()
	if _, err := l.nodes[1].Put(t.Context(), Request{Bucket: "hand", Key: "k"}); err != nil {
		t.Fatal(err)
	}
	if err := <-filled; err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := n.Wait(ctx, Request{Bucket: "day", Key: "k"}, time.Hour); err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
