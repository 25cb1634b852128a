package appliance_test

import (
	"net/http"
	"testing"

	"github.com/portcullis-id/portcullis/client"
	"github.com/portcullis-id/portcullis/ratelimit"
)

// TestOneLimitInACluster: three nodes over row rate-limit admit what one would, and a
// change on one counts on all.
func TestOneLimitInACluster(t *testing.T) {
	c := startCluster(t, 3)
	eventually(t, "the nodes count together", func() bool {
		for _, n := range c.nodes {
			all, err := n.local.RateLimits(t.Context())
			if err != nil || len(all.Service.Peers) != 3 {
				return false
			}
		}
		return true
	})
	if _, err := c.nodes[0].local.ChangeRateLimit(t.Context(), client.RateLimitChange{Override: ratelimit.Override{
		Bucket: ratelimit.AuthenticationAPIIP, Match: ".*", Spec: ratelimit.Spec{PerDay: 30}}}); err != nil {
		t.Fatal(err)
	}
	key := "main|127.0.0.1"
	eventually(t, "all nodes have the new limit", func() bool {
		for _, n := range c.nodes {
			if d, err := n.local.RateLimitKey(t.Context(), ratelimit.AuthenticationAPIIP, key); err != nil || d.Limit != 30 {
				return false
			}
		}
		return true
	})
	admitted := 0
	for range 15 {
		for _, n := range c.nodes {
			if res, _ := n.send("GET", "/authorize", "", ""); res.StatusCode != http.StatusTooManyRequests {
				admitted++
			}
		}
	}
	fallbacks := uint64(0)
	for _, n := range c.nodes {
		all, err := n.local.RateLimits(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		fallbacks += all.Service.Buckets[ratelimit.AuthenticationAPIIP].Fallback
	}
	// A busy machine may keep a node from asking in time: then its own part counts.
	if admitted < 30-int(fallbacks) || admitted > 30+int(fallbacks) {
		t.Errorf("3 nodes admitted %d of 45 requests, %d of them without the owner; the limit is 30", admitted, fallbacks)
	}
	for _, n := range c.nodes {
		keys, err := n.local.RateLimitKeys(t.Context(), ratelimit.AuthenticationAPIIP, "main|")
		if err != nil || len(keys.Away) > 0 || len(keys.Keys) != 1 || keys.Keys[0].Key != key {
			t.Errorf("%+v, %v", keys, err)
		}
	}
	if _, err := c.nodes[1].local.ResetRateLimit(t.Context(), ratelimit.AuthenticationAPIIP, key); err != nil {
		t.Fatal(err)
	}
	// A node remembers a refusal for a tenth of a second.
	eventually(t, "the key may go on at another node", func() bool {
		res, _ := c.nodes[2].send("GET", "/authorize", "", "")
		return res.StatusCode != http.StatusTooManyRequests
	})
}
