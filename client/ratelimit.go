package client

import (
	"context"
	"net/http"
	"net/url"

	"github.com/portcullis-id/portcullis/ratelimit"
)

// RateLimits are all bucket types of a node, with what was changed and how it goes.
type RateLimits struct {
	Enabled bool              `json:"enabled"` // for requests over HTTP
	Tier    string            `json:"tier"`
	Buckets []RateLimitBucket `json:"buckets"`
	// Configured limits stand in the configuration of the node, Overrides were made at
	// run time and count on all nodes.
	Configured []ratelimit.Override `json:"configured,omitempty"`
	Overrides  []ratelimit.Override `json:"overrides,omitempty"`
	Service    ratelimit.State      `json:"service"`
}

// RateLimitBucket is a bucket type.
type RateLimitBucket struct {
	Name      string                `json:"name"`
	Key       string                `json:"key"`
	Doc       string                `json:"doc"`
	Limit     string                `json:"limit"` // in words
	Spec      ratelimit.Spec        `json:"spec"`
	OnFailure ratelimit.Failure     `json:"on_failure"`
	Counts    ratelimit.BucketState `json:"counts"` // of this node
}

// RateLimitKeys are keys whose buckets are not full.
type RateLimitKeys struct {
	Keys []ratelimit.KeyState `json:"keys"`
	Away []string             `json:"away,omitempty"` // nodes that did not answer
}

// RateLimitChange makes or removes a limit at run time.
type RateLimitChange struct {
	ratelimit.Override
	Remove bool `json:"remove,omitempty"`
}

// RateLimitReset names a bucket to fill.
type RateLimitReset struct {
	Bucket string `json:"bucket"`
	Key    string `json:"key"`
}

// RateLimits lists the bucket types.
func (l *Local) RateLimits(ctx context.Context) (RateLimits, error) {
	var out RateLimits
	return out, l.do(ctx, http.MethodGet, LocalHost, "/rate-limits", "", nil, &out)
}

// RateLimitKeys lists keys of a type whose buckets are not full, the emptiest first.
func (l *Local) RateLimitKeys(ctx context.Context, bucket, prefix string) (RateLimitKeys, error) {
	var out RateLimitKeys
	return out, l.do(ctx, http.MethodGet, LocalHost, "/rate-limits/keys?"+url.Values{"bucket": {bucket}, "prefix": {prefix}}.Encode(), "", nil, &out)
}

// RateLimitKey is one key of a type.
func (l *Local) RateLimitKey(ctx context.Context, bucket, key string) (ratelimit.Decision, error) {
	var out ratelimit.Decision
	return out, l.do(ctx, http.MethodGet, LocalHost, "/rate-limits/key?"+url.Values{"bucket": {bucket}, "key": {key}}.Encode(), "", nil, &out)
}

// ChangeRateLimit makes or removes a limit at run time, for all nodes.
func (l *Local) ChangeRateLimit(ctx context.Context, c RateLimitChange) (RateLimits, error) {
	var out RateLimits
	return out, l.do(ctx, http.MethodPost, LocalHost, "/rate-limits/overrides", "", c, &out)
}

// ResetRateLimit fills the bucket of a key.
func (l *Local) ResetRateLimit(ctx context.Context, bucket, key string) (ratelimit.Decision, error) {
	var out ratelimit.Decision
	return out, l.do(ctx, http.MethodPost, LocalHost, "/rate-limits/reset", "", RateLimitReset{bucket, key}, &out)
}
