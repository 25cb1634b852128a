package control

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/portcullis-id/portcullis/once"
	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/tenant"
	"github.com/portcullis-id/portcullis/web"
)

// TLSConfig is that of the listener: TLS 1.3 with this node's certificate, and the
// clients' certificates of the cluster's authority. Who joins has none yet.
func (s *Service) TLSConfig() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{"h2", "http/1.1"}, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: s.identity().pool(),
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			pair := s.identity().pair
			// Who joins knows the authority by its fingerprint, and has to be shown it.
			pair.Certificate = [][]byte{pair.Certificate[0], s.identity().authority.Raw}
			return &pair, nil
		}}
}

// ServerTLS is for listeners of other rows that the cluster's nodes alone may call.
func (s *Service) ServerTLS() *tls.Config {
	c := s.TLSConfig()
	c.ClientAuth = tls.RequireAndVerifyClientCert
	c.VerifyConnection = func(cs tls.ConnectionState) error { _, err := s.believe(cs); return err }
	return c
}

// Caller is the id of the node that a connection to a listener of this node comes
// from; the error is problem.Unauthorized or problem.Forbidden.
func (s *Service) Caller(c tls.ConnectionState) (string, error) {
	m, err := s.believe(c)
	if err != nil {
		return "", err
	}
	return m.ID, nil
}

// believe is the node whose certificate a connection was made with: the authority
// has signed it, it was not revoked, and the node is a member.
func (s *Service) believe(c tls.ConnectionState) (*Member, error) {
	if len(c.VerifiedChains) == 0 {
		return nil, problem.New(problem.Unauthorized, "no_certificate", "This is the control plane of a cluster: it answers its nodes, by their certificates.")
	}
	id, ok := nodeID(c.PeerCertificates[0])
	if !ok {
		return nil, problem.New(problem.Forbidden, "no_node", "The certificate is not that of a node.")
	}
	number := hex(c.PeerCertificates[0].SerialNumber)
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.members {
		m := s.members[i]
		switch {
		case m.ID != id:
		case !slices.Contains(m.Certificates, number):
			return nil, problem.New(problem.Forbidden, "certificate_revoked", "The certificate of node %s was replaced or revoked.", m.Name)
		default:
			return &m, nil
		}
	}
	return nil, problem.New(problem.Forbidden, "no_member", "Node %s is no member of this cluster.", id)
}

// Handler serves the listener of row control.
func (s *Service) Handler() http.Handler {
	render := func(w http.ResponseWriter, _ *http.Request, e *problem.Error) {
		_ = web.JSON(w, e.HTTPStatus(), answer{Code: e.Code, Message: e.Message}) // who asked is gone
	}
	member := func(h func(http.ResponseWriter, *http.Request, *Member) error) http.Handler {
		return web.Handle(func(w http.ResponseWriter, r *http.Request) error {
			m, err := s.member(r)
			if err != nil {
				return err
			}
			return h(w, r, m)
		}, render)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /v1/status", member(func(w http.ResponseWriter, _ *http.Request, _ *Member) error {
		return web.JSON(w, http.StatusOK, Status{ID: s.ID(), Time: s.Now().UTC()})
	}))
	mux.Handle("GET /v1/database", member(s.serveDatabase))
	mux.Handle("POST /v1/invalidations", member(s.serveInvalidations))
	mux.Handle("POST /v1/join", web.Handle(s.serveJoin, render))
	return mux
}

// answer is an error between nodes.
type answer struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

func answerError(status int, raw []byte) error {
	var a answer
	if json.Unmarshal(raw, &a) != nil || a.Message == "" {
		return fmt.Errorf("the node answered %d", status)
	}
	kind := problem.Internal
	switch status {
	case http.StatusBadRequest:
		kind = problem.Invalid
	case http.StatusUnauthorized:
		kind = problem.Unauthorized
	case http.StatusForbidden:
		kind = problem.Forbidden
	case http.StatusNotFound:
		kind = problem.NotFound
	case http.StatusConflict:
		kind = problem.Conflict
	case http.StatusServiceUnavailable:
		kind = problem.Unavailable
	}
	return problem.New(kind, a.Code, "%s", a.Message)
}

// member is the node that asks. It is looked up for each request: connections
// outlive certificates.
func (s *Service) member(r *http.Request) (*Member, error) {
	if r.TLS == nil {
		return s.believe(tls.ConnectionState{})
	}
	return s.believe(*r.TLS)
}

func read(r *http.Request, into any) error {
	dec := json.NewDecoder(http.MaxBytesReader(nil, r.Body, maxBody))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return problem.Wrap(problem.Invalid, "invalid_body", err, "The body is not the JSON that is wanted here, or is longer than %d bytes.", maxBody)
	}
	return nil
}

func (s *Service) serveInvalidations(w http.ResponseWriter, r *http.Request, _ *Member) error {
	var all []tenant.Invalidation
	if err := read(r, &all); err != nil {
		return err
	}
	n := s.obey(all)
	s.mu.Lock()
	s.pushed.received += int64(n)
	s.mu.Unlock()
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// renewWhenDue gets a new certificate when a third of the old one's life is left, or
// when it was revoked.
func (s *Service) renewWhenDue(ctx context.Context) error {
	id := s.identity()
	s.mu.Lock()
	revoked := false
	for _, m := range s.members {
		revoked = revoked || m.ID == id.ID && !slices.Contains(m.Certificates, hex(id.pair.Leaf.SerialNumber))
	}
	s.mu.Unlock()
	if !revoked && !id.due(s.Now()) {
		return nil
	}
	return s.renew(ctx, id)
}

// renew gets a new certificate. Every node has the database, and so the authority.
// The others are told of it a moment before it is used.
func (s *Service) renew(ctx context.Context, id *Identity) error {
	ca, err := loadAuthority(ctx, s.Docs)
	if err != nil {
		return err
	}
	key, csr, err := request()
	if err != nil {
		return err
	}
	cert, number, err := ca.issue(csr, id.ID, s.Now())
	if err != nil {
		return err
	}
	old := hex(id.pair.Leaf.SerialNumber)
	err = s.Docs.Write(ctx, tenant.Authority, func(tx tenant.Tx) error {
		_, err := tenant.Change(tx, tenant.KindMember, id.ID, func(m *Member) error {
			m.Certificates = slices.DeleteFunc(m.Certificates, func(c string) bool { return c != old })
			m.Certificates = append(m.Certificates, number)
			return nil
		})
		return err
	})
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(2 * beatEvery):
	}
	if err := id.save(s.data, key, cert, ""); err != nil {
		return err
	}
	next, err := LoadIdentity(s.data)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.id = next
	for _, p := range s.peers {
		p.http.CloseIdleConnections() // they were made with the old one
	}
	s.mu.Unlock()
	s.Logger.InfoContext(ctx, "this node's certificate was renewed", "until", next.pair.Leaf.NotAfter)
	return nil
}

type joinRequest struct {
	Secret  string `json:"secret"`
	Name    string `json:"name"`
	Address string `json:"address"`
	CSR     string `json:"csr"`
}

type joinAnswer struct {
	ID          string `json:"id"`
	Certificate string `json:"certificate"`
	Grant       Grant  `json:"grant"`
}

// serveJoin lets a node in whose token is good. The token is used up even when
// what follows fails: another one is made in a moment.
func (s *Service) serveJoin(w http.ResponseWriter, r *http.Request) error {
	var q joinRequest
	if err := read(r, &q); err != nil {
		return err
	}
	if err := checkNode(q.Name, q.Address); err != nil {
		return err
	}
	err := s.Docs.Write(r.Context(), tenant.Authority, func(tx tenant.Tx) error {
		return once.Take(tx, once.ClusterJoin, q.Secret, nil)
	})
	if problem.Is(err, problem.NotFound) || problem.Is(err, problem.Conflict) {
		return problem.Wrap(problem.Unauthorized, "invalid_token", err, "The token is unknown, was used, or has expired: make another with `portcullis cluster token` on a node of the cluster.")
	}
	if err != nil {
		return err
	}
	grant, err := s.Grant(r.Context())
	if err != nil {
		return err
	}
	id, cert, err := admit(r.Context(), s.Docs, q.Name, q.Address, q.CSR, s.Now())
	if err != nil {
		return err
	}
	s.Logger.InfoContext(r.Context(), "a node joined the cluster", "node", id.ID, "name", id.Name, "address", id.Address)
	return web.JSON(w, http.StatusOK, joinAnswer{ID: id.ID, Certificate: cert, Grant: grant})
}

// Dial connects to HOST:PORT.
type Dial func(ctx context.Context, address string) (net.Conn, error)

// Join asks a cluster to take this host in, hands keep what all nodes have in
// common, and then writes the host's identity into a data folder: a host without
// one has not joined.
func Join(ctx context.Context, dial Dial, token JoinToken, data, name, address string, keep func(Grant) error) (*Identity, error) {
	if err := checkNode(name, address); err != nil {
		return nil, err
	}
	if Joined(data) {
		return nil, alreadyJoined(data)
	}
	key, csr, err := request()
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, at := range token.Addresses {
		var ca *x509.Certificate
		c := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
			TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS13, ServerName: serverName, InsecureSkipVerify: true, // #nosec G402 -- verified below, against the fingerprint in the token
				VerifyConnection: func(cs tls.ConnectionState) (err error) {
					ca, err = believe(cs.PeerCertificates, token.Fingerprint)
					return err
				}},
			DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
				ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
				defer cancel()
				return dial(ctx, address)
			},
		}}
		var a joinAnswer
		err := call(ctx, c, http.MethodPost, at, "/v1/join", joinRequest{Secret: token.Secret, Name: name, Address: address, CSR: csr}, &a)
		c.CloseIdleConnections()
		var p *problem.Error
		if errors.As(err, &p) {
			return nil, err // the cluster has answered
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", at, err))
			continue
		}
		id := &Identity{ID: a.ID, Name: name, Address: address}
		if !idForm.MatchString(id.ID) {
			return nil, fmt.Errorf("%s: the node answered with an id that is none", at)
		}
		if err := keep(a.Grant); err != nil {
			return nil, err
		}
		return id, id.save(data, key, a.Certificate, pemOf(ca))
	}
	return nil, problem.Wrap(problem.Unavailable, "cluster_unreachable", errors.Join(errs...), "no node of the cluster answers on row control: %v", errors.Join(errs...))
}
