package ratelimit

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Failure says what happens when the node that counts does not answer in time.
type Failure string

// The ways to fail.
const (
	// Share decides from a bucket of this node's own, with its part of the limit: its
	// size and rate divided by the number of nodes.
	Share Failure = "share"
	// Open lets everything pass, and counts nothing.
	Open Failure = "open"
	// Closed refuses.
	Closed Failure = "closed"
)

// Bucket declares a bucket type.
type Bucket struct {
	Name string
	// Key says in words what has a bucket of its own, such as "tenant and IP".
	Key string
	Doc string
	Spec
	OnFailure Failure // empty means Share
}

// Override is another limit for keys of a type, or for the whole type.
type Override struct {
	Bucket string `json:"bucket"`
	// Key is one key. Match is a regular expression (RE2) that a whole key has to
	// match. With neither, the limit is that of the type.
	Key   string `json:"key,omitempty"`
	Match string `json:"match,omitempty"`
	Spec
	OnFailure Failure `json:"on_failure,omitempty"` // of the whole type alone
	// Until ends the override; zero means never.
	Until time.Time `json:"until,omitzero"`
}

// The bounds of rules.
const (
	MaxKey       = 512 // bytes of a key
	MaxBuckets   = 256
	MaxOverrides = 1000
	maxPatterns  = 64 // of one type
)

// Rules are all types with their overrides, ready to be asked. They do not change.
type Rules struct {
	types map[string]*kind
	names []string
}

// kind is a type.
type kind struct {
	Bucket
	limit    Limit
	exact    map[string]timed
	patterns []pattern
}

type timed struct {
	Limit
	until time.Time
}

type pattern struct {
	re *regexp.Regexp
	timed
}

var nameForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9._/-]{0,98}[a-z0-9])?$`)

// CheckName says whether a type may have a name.
func CheckName(name string) error {
	if !nameForm.MatchString(name) {
		return fmt.Errorf("%q is no name of a bucket; allowed are 1 to 100 lower-case letters, digits, dots, dashes, underscores and slashes", name)
	}
	return nil
}

// CheckKey says whether a request may have a key.
func CheckKey(key string) error {
	if key == "" || len(key) > MaxKey {
		return fmt.Errorf("the key has %d bytes; allowed are 1 to %d", len(key), MaxKey)
	}
	return nil
}

// CheckFailure says whether f is one of the ways to fail; empty is allowed.
func CheckFailure(f Failure) error {
	switch f {
	case "", Share, Open, Closed:
		return nil
	}
	return fmt.Errorf("%q; allowed are share, open and closed", f)
}

// NewRules compiles types and their overrides; a later override of the same key or
// pattern replaces an earlier one.
func NewRules(buckets []Bucket, overrides []Override) (*Rules, error) {
	if len(buckets) > MaxBuckets {
		return nil, fmt.Errorf("there are %d buckets; allowed are %d", len(buckets), MaxBuckets)
	}
	if len(overrides) > MaxOverrides {
		return nil, fmt.Errorf("there are %d overrides; allowed are %d", len(overrides), MaxOverrides)
	}
	r := &Rules{types: map[string]*kind{}}
	for _, b := range buckets {
		if err := CheckName(b.Name); err != nil {
			return nil, err
		}
		if err := CheckFailure(b.OnFailure); err != nil {
			return nil, fmt.Errorf("bucket %s: on_failure is %w", b.Name, err)
		}
		l, err := b.Spec.Limit()
		if err != nil {
			return nil, fmt.Errorf("bucket %s: %w", b.Name, err)
		}
		if r.types[b.Name] != nil {
			return nil, fmt.Errorf("bucket %s stands twice; allowed is once", b.Name)
		}
		if b.OnFailure == "" {
			b.OnFailure = Share
		}
		r.types[b.Name] = &kind{Bucket: b, limit: l, exact: map[string]timed{}}
		r.names = append(r.names, b.Name)
	}
	slices.Sort(r.names)
	for _, o := range overrides {
		if err := r.override(o); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (r *Rules) override(o Override) error {
	k := r.types[o.Bucket]
	if k == nil {
		return fmt.Errorf("there is no bucket %q; allowed are: %s", o.Bucket, strings.Join(r.names, ", "))
	}
	where := "bucket " + o.Bucket
	switch {
	case o.Key != "" && o.Match != "":
		return fmt.Errorf("%s: key and match stand together; allowed is one of them", where)
	case o.Key != "":
		where += ", key " + o.Key
		if err := CheckKey(o.Key); err != nil {
			return fmt.Errorf("%s: %w", where, err)
		}
	case o.Match != "":
		where += ", match " + o.Match
	}
	whole := o.Key == "" && o.Match == ""
	if o.OnFailure != "" && !whole {
		return fmt.Errorf("%s: on_failure belongs to a whole bucket, not to keys of it", where)
	}
	if err := CheckFailure(o.OnFailure); err != nil {
		return fmt.Errorf("%s: on_failure is %w", where, err)
	}
	if whole && o.OnFailure != "" {
		k.OnFailure = o.OnFailure
		if o.Spec.Zero() {
			return nil
		}
	}
	l, err := o.Spec.Limit()
	if err != nil {
		return fmt.Errorf("%s: %w", where, err)
	}
	switch t := (timed{l, o.Until}); {
	case o.Key != "":
		k.exact[o.Key] = t
	case o.Match != "":
		if len(o.Match) > MaxKey {
			return fmt.Errorf("%s: the pattern has %d bytes; allowed are %d", where, len(o.Match), MaxKey)
		}
		re, err := regexp.Compile("^(?:" + o.Match + ")$")
		if err != nil {
			return fmt.Errorf("%s: it is no regular expression: %w", where, err)
		}
		k.patterns = slices.DeleteFunc(k.patterns, func(p pattern) bool { return p.re.String() == re.String() })
		if k.patterns = append(k.patterns, pattern{re, t}); len(k.patterns) > maxPatterns {
			return fmt.Errorf("%s: the bucket has more patterns than the %d that are allowed", where, maxPatterns)
		}
	case o.Until.IsZero():
		k.limit, k.Spec = l, o.Spec
	default:
		// For the whole type and for a time: the last of the patterns.
		k.patterns = append(k.patterns, pattern{everything, t})
	}
	return nil
}

var everything = regexp.MustCompile(`(?s)^.*$`)

// limit is that of a key of a type at a time.
func (k *kind) limitOf(key string, wall func() time.Time) Limit {
	if len(k.exact) > 0 {
		if t, ok := k.exact[key]; ok && t.counts(wall) {
			return t.Limit
		}
	}
	for _, p := range k.patterns {
		if p.counts(wall) && p.re.MatchString(key) {
			return p.Limit
		}
	}
	return k.limit
}

func (t timed) counts(wall func() time.Time) bool {
	return t.until.IsZero() || wall().Before(t.until)
}

// Buckets lists the types by name, with their limits as overridden.
func (r *Rules) Buckets() []Bucket {
	out := make([]Bucket, len(r.names))
	for i, n := range r.names {
		out[i] = r.types[n].Bucket
	}
	return out
}

// Bucket returns a type.
func (r *Rules) Bucket(name string) (Bucket, bool) {
	k := r.types[name]
	if k == nil {
		return Bucket{}, false
	}
	return k.Bucket, true
}

// BoundKey makes a key of a text of any length: one that is too long is replaced by
// its beginning and its SHA-256.
func BoundKey(s string) string {
	if len(s) <= MaxKey {
		return s
	}
	sum := sha256.Sum256([]byte(s))
	return s[:MaxKey-2*len(sum)-1] + "~" + hex.EncodeToString(sum[:])
}
