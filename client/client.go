package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/portcullis-id/portcullis/problem"
)

// SocketName is the file in the data folder that a running node listens on.
const SocketName = "portcullis.sock"

// LocalHost is the Host header of requests to the local endpoints, which only
// the socket has.
const LocalHost = "local.invalid"

// Local speaks to the node whose data folder it is given.
type Local struct {
	dir  string
	http *http.Client
}

// NewLocal does not connect yet.
func NewLocal(dataDir string) *Local {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		// A socket's path is bounded to about 100 bytes; through the folder's
		// descriptor it is always short.
		dir, err := os.Open(dataDir)
		if err != nil {
			return nil, err
		}
		defer dir.Close()
		var d net.Dialer
		return d.DialContext(ctx, "unix", SocketPath(dir))
	}
	return &Local{dir: dataDir, http: &http.Client{Timeout: time.Minute, Transport: &http.Transport{DialContext: dial}}}
}

// SocketPath is the short path of the socket in an open data folder.
func SocketPath(dir *os.File) string {
	return filepath.Join("/proc/self/fd", strconv.Itoa(int(dir.Fd())), SocketName)
}

// TokenRequest asks for a token of a tenant's Management API.
type TokenRequest struct {
	Tenant string   `json:"tenant"`
	Scopes []string `json:"scopes,omitempty"` // empty means all
	// TTL is in seconds, 60 to 86,400; 0 means an hour.
	TTL int `json:"ttl,omitempty"`
}

// Token is a Management API token and where to use it.
type Token struct {
	AccessToken string    `json:"access_token"`
	URL         string    `json:"url"` // the tenant's base URL
	ExpiresAt   time.Time `json:"expires_at"`
}

// Token returns a short-lived token of a tenant's Management API.
func (l *Local) Token(ctx context.Context, req TokenRequest) (Token, error) {
	var t Token
	return t, l.do(ctx, http.MethodPost, LocalHost, "/token", "", req, &t)
}

// Status is what a node says of itself to its own host.
type Status struct {
	Version    string `json:"version"`
	RootTenant string `json:"root_tenant"`
	RootHost   string `json:"root_host"`
	URL        string `json:"url"`
}

// Status returns what the node says of itself.
func (l *Local) Status(ctx context.Context) (Status, error) {
	var s Status
	return s, l.do(ctx, http.MethodGet, LocalHost, "/status", "", nil, &s)
}

// Audit is what a node's sockets are against the network contract.
type Audit struct {
	Node      string    `json:"node"`
	At        time.Time `json:"at"`
	Listeners int       `json:"listeners"`
	Outgoing  int       `json:"outgoing"`
	Findings  []struct {
		Protocol string `json:"protocol"`
		Local    string `json:"local"`
		Remote   string `json:"remote,omitempty"`
		Sentence string `json:"sentence"`
	} `json:"findings"`
	Enforcement Enforcement `json:"enforcement"`
	Firewall    Firewall    `json:"firewall"`
}

// Firewall is the firewall of a node's host against the network contract.
type Firewall struct {
	At       time.Time `json:"at"`
	Firewall string    `json:"firewall"` // nftables, iptables, firewalld, ufw or none; "" when it could not be read
	Docker   bool      `json:"docker"`
	Note     string    `json:"note,omitempty"`
	Findings []struct {
		Kind     string `json:"kind"` // blocked, open, published, wide or diverted
		Row      string `json:"row,omitempty"`
		Protocol string `json:"protocol"`
		Ports    string `json:"ports"`
		Families string `json:"families"`
		Peer     string `json:"peer,omitempty"`
		By       string `json:"by,omitempty"`
		To       string `json:"to,omitempty"`
		Sentence string `json:"sentence"`
		Remedy   string `json:"remedy,omitempty"`
	} `json:"findings"`
}

// Enforcement is how the kernel holds a node to the network contract.
type Enforcement struct {
	Mode     string `json:"mode"` // off, audit or on
	ABI      int    `json:"landlock_abi"`
	Holds    bool   `json:"holds"`
	Sentence string `json:"sentence"`
	Bind     []int  `json:"bind"`
	Connect  []int  `json:"connect"`
	Refused  []struct {
		Row      string `json:"row"`
		Remote   string `json:"remote"`
		Port     int    `json:"port"`
		Sentence string `json:"sentence"`
	} `json:"refused"`
}

// Audit lets the node look at its own sockets now.
func (l *Local) Audit(ctx context.Context) (Audit, error) {
	var a Audit
	return a, l.do(ctx, http.MethodGet, LocalHost, "/network-audit", "", nil, &a)
}

// Addresses is where the outside hosts of the network contract are, seen from a node.
type Addresses struct {
	Node  string    `json:"node"`
	At    time.Time `json:"at"`
	List  int64     `json:"list"` // version of the depot's signed list, 0 for none
	Note  string    `json:"note,omitempty"`
	Hosts []struct {
		Host      string       `json:"host"`
		Rows      []string     `json:"rows"`
		Published []netip.Addr `json:"published"`
		Now       []netip.Addr `json:"now"`
		Ahead     []struct {
			Address    netip.Addr `json:"address"`
			ValidFrom  time.Time  `json:"valid_from,omitzero"`
			ValidUntil time.Time  `json:"valid_until,omitzero"`
		} `json:"ahead"`
		Findings []struct {
			Kind     string     `json:"kind"` // blocked, moved, ahead, gone, unresolved or list
			Host     string     `json:"host"`
			Address  netip.Addr `json:"address,omitzero"`
			From     time.Time  `json:"from,omitzero"`
			Sentence string     `json:"sentence"`
			Rule     string     `json:"rule,omitempty"`
		} `json:"findings"`
	} `json:"hosts"`
}

// Addresses lets the node ask now where the outside hosts are.
func (l *Local) Addresses(ctx context.Context) (Addresses, error) {
	var a Addresses
	return a, l.do(ctx, http.MethodGet, LocalHost, "/network-addresses", "", nil, &a)
}

// SocialHosts lists the outside hosts of the connections that exist: the peers of
// the contract's row social.
func (l *Local) SocialHosts(ctx context.Context) ([]string, error) {
	var hosts []string
	return hosts, l.do(ctx, http.MethodGet, LocalHost, "/social-hosts", "", nil, &hosts)
}

// Tenant is an entry of the registry; the client's id and secret are there only
// in the answer to CreateTenant.
type Tenant struct {
	Name         string    `json:"name"`
	URL          string    `json:"url,omitempty"`
	Owners       []string  `json:"owners,omitempty"`
	CreatedAt    time.Time `json:"created_at,omitzero"`
	ClientID     string    `json:"client_id,omitempty"`
	ClientSecret string    `json:"client_secret,omitempty"`
}

// CreateTenant makes a tenant through the root tenant's Management API.
func (l *Local) CreateTenant(ctx context.Context, name string, owners []string) (Tenant, error) {
	var t Tenant
	return t, l.root(ctx, http.MethodPost, "/api/v2/tenants", "create:tenants", map[string]any{"name": name, "owners": owners}, &t)
}

// Tenants lists the tenants through the root tenant's Management API.
func (l *Local) Tenants(ctx context.Context) ([]Tenant, error) {
	var all []Tenant
	for page := 0; ; page++ {
		var ts []Tenant
		if err := l.root(ctx, http.MethodGet, "/api/v2/tenants?per_page=100&page="+strconv.Itoa(page), "read:tenants", nil, &ts); err != nil {
			return nil, err
		}
		all = append(all, ts...)
		if len(ts) < 100 {
			return all, nil
		}
	}
}

// DeleteTenant deletes a tenant with everything in it.
func (l *Local) DeleteTenant(ctx context.Context, name string) error {
	return l.root(ctx, http.MethodDelete, "/api/v2/tenants/"+url.PathEscape(name), "delete:tenants", nil, nil)
}

// root calls the root tenant's Management API with a token of one scope.
func (l *Local) root(ctx context.Context, method, path, scope string, body, into any) error {
	s, err := l.Status(ctx)
	if err != nil {
		return err
	}
	t, err := l.Token(ctx, TokenRequest{Tenant: s.RootTenant, Scopes: []string{scope}, TTL: 60})
	if err != nil {
		return err
	}
	return l.do(ctx, method, s.RootHost, path, t.AccessToken, body, into)
}

// Profile returns one of the node's profiles in the form of net/http/pprof, such as
// "heap", "goroutine?debug=1" or "profile?seconds=5" for the processor's time.
func (l *Local) Profile(ctx context.Context, name string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://node/debug/pprof/"+name, nil)
	if err != nil {
		return nil, err
	}
	req.Host = LocalHost
	resp, err := l.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the node: %w", err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 256<<20))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("profile %s: %s", name, resp.Status)
	}
	return raw, err
}

func (l *Local) do(ctx context.Context, method, host, path, token string, body, into any) error {
	var payload io.Reader
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return err
		}
		payload = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://node"+path, payload)
	if err != nil {
		return err
	}
	req.Host = host
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := l.http.Do(req)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return problem.Wrap(problem.Unavailable, "not_running", err, "no node runs on the data folder %s; start it with `portcullis start`, or name another folder with --data", l.dir)
	}
	if errors.Is(err, fs.ErrPermission) {
		return problem.Wrap(problem.Forbidden, "not_allowed", err, "the data folder %s belongs to another user; run this as the user of the node", l.dir)
	}
	if err != nil {
		return fmt.Errorf("ask the node: %w", err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err != nil {
		return fmt.Errorf("ask the node: %w", err)
	}
	if resp.StatusCode/100 != 2 {
		return failure(resp.StatusCode, raw)
	}
	if into == nil || len(raw) == 0 {
		return nil
	}
	return json.Unmarshal(raw, into)
}

// failure reads the Management API's error form.
func failure(status int, raw []byte) error {
	var e struct {
		Message   string `json:"message"`
		ErrorCode string `json:"errorCode"`
	}
	if json.Unmarshal(raw, &e) != nil || e.Message == "" {
		e.Message = "the node answered " + strconv.Itoa(status)
	}
	kinds := map[int]problem.Kind{400: problem.Invalid, 401: problem.Unauthorized, 403: problem.Forbidden, 404: problem.NotFound,
		409: problem.Conflict, 429: problem.Limited, 503: problem.Unavailable}
	return problem.New(kinds[status], e.ErrorCode, "%s", e.Message)
}
