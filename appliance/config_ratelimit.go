package appliance

import (
	"fmt"
	"slices"
	"strings"

	"github.com/portcullis-id/portcullis/config"
	"github.com/portcullis-id/portcullis/ratelimit"
)

// RateLimitConfig says how often things may happen.
type RateLimitConfig struct {
	Enabled bool          `yaml:"enabled" doc:"Limit requests over HTTP. Off with --dev."`
	Tier    string        `yaml:"tier" doc:"Requests a second to one tenant's Authentication API: 20, 100, 500 or 1500, each with its published limit of the Management API."`
	Buckets []string      `yaml:"buckets" doc:"Other limits, or bucket types of your own: 'BUCKET [key=KEY|match=REGEXP] [size=N] [per_second=N|per_minute=N|per_hour=N|per_day=N|per_interval=N interval=MS] [on_failure=share|open|closed] [unlimited]'."`
	MaxKeys int           `yaml:"max_keys" doc:"Keys of one bucket type that a node remembers, 1000 to 10000000."`
	Token   config.Secret `yaml:"token" doc:"Bearer token of programs that ask over Envoy's rate limit protocol (row rate-limit) without a certificate of the cluster; at least 16 characters. Empty means that none may."`
}

func defaultRateLimits() RateLimitConfig {
	return RateLimitConfig{Enabled: true, Tier: string(ratelimit.DefaultTier), MaxKeys: 100_000}
}

// Validate implements config.Validator.
func (c *RateLimitConfig) Validate(report func(key, reason string)) {
	if !slices.Contains(ratelimit.Tiers(), ratelimit.Tier(c.Tier)) {
		report("tier", fmt.Sprintf("got %q; allowed are: 20, 100, 500, 1500", c.Tier))
	}
	between(report, "max_keys", c.MaxKeys, 1000, 10_000_000)
	if k := c.Token.Reveal(); k != "" && (len(k) < 16 || strings.ContainsAny(k, " \t\r\n")) {
		report("token", "wants at least 16 characters without a space")
	}
	good := true
	for i, text := range c.Buckets {
		if _, err := ratelimit.ParseSetting(text); err != nil {
			report(fmt.Sprintf("buckets[%d]", i), err.Error())
			good = false
		}
	}
	if !good {
		return
	}
	types, overrides := c.rules()
	if _, err := ratelimit.NewRules(types, overrides); err != nil {
		report("buckets", err.Error())
	}
}

// rules are the bucket types and overrides of the configuration. Settings that
// cannot be read are left out: Validate has named them.
func (c *RateLimitConfig) rules() ([]ratelimit.Bucket, []ratelimit.Override) {
	var settings []ratelimit.Setting
	for _, text := range c.Buckets {
		if s, err := ratelimit.ParseSetting(text); err == nil {
			settings = append(settings, s)
		}
	}
	return ratelimit.WithSettings(ratelimit.Defaults(ratelimit.Tier(c.Tier)), settings)
}
