package client

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// Cluster is a cluster as one of its nodes sees it.
type Cluster struct {
	// Fingerprint names the cluster's certificate authority.
	Fingerprint string `json:"fingerprint"`
	Leader      string `json:"leader"` // id of the node that leads; empty when none does
	Term        int64  `json:"term"`   // grows with each new leader
	Settings    int64  `json:"settings"`
	// CertificateUntil is when the answering node's certificate ends. It is renewed
	// before.
	CertificateUntil time.Time     `json:"certificate_until"`
	Nodes            []ClusterNode `json:"nodes"`
}

// ClusterNode is a node of a cluster as another one sees it.
type ClusterNode struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Address string `json:"address"` // HOST:PORT of row control
	Version string `json:"version"`
	State   string `json:"state"` // active or draining
	Leader  bool   `json:"leader"`
	Self    bool   `json:"self"` // the node that answers
	// Database and Network are up, suspect or down: whether its heartbeats arrive in the
	// database, and whether it answers on row control. Network is unknown where the node
	// that answers has not heard of it yet, and has not asked for three seconds.
	Database string `json:"database"`
	Network  string `json:"network"`
	Settings int64  `json:"settings"` // version of the cluster's settings that it works with
	// SkewMS is how far its clock is ahead of the answering node's, in milliseconds,
	// give or take SkewBoundMS.
	SkewMS      *float64  `json:"skew_ms,omitempty"`
	SkewBoundMS *float64  `json:"skew_bound_ms,omitempty"`
	JoinedAt    time.Time `json:"joined_at"`
}

// Cluster returns the cluster that the node belongs to.
func (l *Local) Cluster(ctx context.Context) (Cluster, error) {
	var c Cluster
	return c, l.do(ctx, http.MethodGet, LocalHost, "/cluster", "", nil, &c)
}

// JoinTokenRequest asks for a token to join. TTL is in seconds, 60 to 604,800.
type JoinTokenRequest struct {
	TTL int `json:"ttl"`
}

// JoinToken lets one node join.
type JoinToken struct {
	Token     string    `json:"token"`
	ExpiresAt time.Time `json:"expires_at"`
}

// JoinToken makes a token with which one node can join the cluster.
func (l *Local) JoinToken(ctx context.Context, ttl time.Duration) (JoinToken, error) {
	var t JoinToken
	return t, l.do(ctx, http.MethodPost, LocalHost, "/cluster/tokens", "", JoinTokenRequest{TTL: int(ttl.Seconds())}, &t)
}

// ClusterAction does something to a node, by its name or id: drain, activate,
// reboot, revoke or remove.
func (l *Local) ClusterAction(ctx context.Context, node, action string) error {
	return l.do(ctx, http.MethodPost, LocalHost, "/cluster/nodes/"+url.PathEscape(node)+"/"+action, "", nil, nil)
}

// ClusterSettings are the settings that all nodes have in common, or a change of
// them, in which an empty value takes one back.
type ClusterSettings struct {
	Version int64             `json:"version,omitempty"`
	Values  map[string]string `json:"values"`
	// Sequential lets one node after the other start again with the change.
	Sequential bool          `json:"sequential"`
	Nodes      []ClusterNode `json:"nodes,omitempty"`
}

// ClusterSettings returns the cluster's settings, secrets redacted.
func (l *Local) ClusterSettings(ctx context.Context) (ClusterSettings, error) {
	var s ClusterSettings
	return s, l.do(ctx, http.MethodGet, LocalHost, "/cluster/settings", "", nil, &s)
}

// ChangeClusterSettings changes settings and returns their new version.
func (l *Local) ChangeClusterSettings(ctx context.Context, change ClusterSettings) (int64, error) {
	var s ClusterSettings
	err := l.do(ctx, http.MethodPatch, LocalHost, "/cluster/settings", "", change, &s)
	return s.Version, err
}
