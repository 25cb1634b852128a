package control

import (
	"encoding/base64"
	"encoding/json"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/portcullis-id/portcullis/problem"
)

// JoinToken lets one node join: where to ask, whom to believe, and the secret that
// works once.
type JoinToken struct {
	Addresses   []string `json:"a"` // HOST:PORT of nodes that are there
	Fingerprint string   `json:"f"` // of the cluster's authority
	Secret      string   `json:"s"`
}

const (
	tokenPrefix  = "pcj1-"
	maxToken     = 4 << 10
	maxAddresses = 16
)

// String is the token as people carry it.
func (t JoinToken) String() string {
	raw, _ := json.Marshal(t) // #nosec G117 -- the token is the secret; strings cannot fail
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(raw)
}

var secretForm = regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`)

// ParseJoinToken reads a token. The error says how to get one.
func ParseJoinToken(text string) (JoinToken, error) {
	wrong := problem.New(problem.Invalid, "invalid_token", "token: that is no token to join a cluster; `portcullis cluster token` on one of its nodes makes one")
	var t JoinToken
	body, ok := strings.CutPrefix(strings.TrimSpace(text), tokenPrefix)
	if !ok || len(text) > maxToken {
		return t, wrong
	}
	raw, err := base64.RawURLEncoding.DecodeString(body)
	if err != nil || json.Unmarshal(raw, &t) != nil {
		return t, wrong
	}
	if len(t.Addresses) == 0 || len(t.Addresses) > maxAddresses || !secretForm.MatchString(t.Fingerprint) || !secretForm.MatchString(t.Secret) {
		return t, wrong
	}
	if slices.ContainsFunc(t.Addresses, func(a string) bool { return CheckAddress(a) != nil }) {
		return t, wrong
	}
	return t, nil
}

// CheckAddress refuses what is no HOST:PORT that another node can call.
func CheckAddress(address string) error {
	host, port, err := net.SplitHostPort(address)
	n, portErr := strconv.ParseUint(port, 10, 16)
	if err != nil || portErr != nil || n == 0 || host == "" || len(host) > 253 {
		return problem.New(problem.Invalid, "invalid_address", "address %q is not HOST:PORT, such as 10.0.0.11:7777", address)
	}
	if a, err := netip.ParseAddr(host); err == nil && (a.IsUnspecified() || a.IsMulticast()) {
		return problem.New(problem.Invalid, "invalid_address", "address %q is not one that another node can call", address)
	}
	return nil
}
