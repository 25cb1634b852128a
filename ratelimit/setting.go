package ratelimit

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Setting is one line of configuration: another limit for a type or for some of its
// keys, or a type of its own.
type Setting struct{ Override }

// ParseSetting reads "BUCKET [key=KEY|match=REGEXP] [size=N] [per_second=N]
// [on_failure=share|open|closed] [unlimited]". The error says what was wrong and what
// is allowed.
func ParseSetting(text string) (Setting, error) {
	var s Setting
	words := strings.Fields(text)
	if len(words) < 2 {
		return s, fmt.Errorf("%q: wants a bucket and its limit, such as 'login size=20 per_minute=10'", text)
	}
	if err := CheckName(words[0]); err != nil {
		return s, err
	}
	s.Bucket = words[0]
	numbers := map[string]*int64{"size": &s.Size, "per_interval": &s.PerInterval, "interval": &s.Interval, "per_second": &s.PerSecond,
		"per_minute": &s.PerMinute, "per_hour": &s.PerHour, "per_day": &s.PerDay}
	var seen []string
	for _, w := range words[1:] {
		name, value, has := strings.Cut(w, "=")
		if slices.Contains(seen, name) {
			return s, fmt.Errorf("%s: %s stands twice; allowed is once", s.Bucket, name)
		}
		seen = append(seen, name)
		n := numbers[name]
		switch {
		case name == "unlimited" && !has:
			s.Unlimited = true
		case name == "key" && value != "":
			s.Key = value
		case name == "match" && value != "":
			s.Match = value
		case name == "on_failure" && value != "":
			s.OnFailure = Failure(value)
		case n != nil:
			v, err := strconv.ParseInt(value, 10, 64)
			if err != nil || v < 1 {
				return s, fmt.Errorf("%s: %s is %q; allowed are numbers from 1", s.Bucket, name, value)
			}
			*n = v
		default:
			return s, fmt.Errorf("%s: nobody knows %q; allowed are key=, match=, size=, per_second=, per_minute=, per_hour=, per_day=, per_interval= with interval=, on_failure= and unlimited", s.Bucket, w)
		}
	}
	// The same rules as later, with a bucket of this name.
	_, err := NewRules([]Bucket{{Name: s.Bucket, Spec: Spec{Unlimited: true}}}, []Override{s.Override})
	return s, err
}

// WithSettings adds what settings declare to types: a setting of a type that is not
// there, for no key, is a new one.
func WithSettings(buckets []Bucket, settings []Setting) (types []Bucket, overrides []Override) {
	types = slices.Clone(buckets)
	for _, s := range settings {
		known := slices.ContainsFunc(types, func(b Bucket) bool { return b.Name == s.Bucket })
		if !known && s.Key == "" && s.Match == "" {
			types = append(types, Bucket{Name: s.Bucket, Key: "as its callers name it", Doc: "Declared in the configuration.", Spec: s.Spec, OnFailure: s.OnFailure})
			continue
		}
		overrides = append(overrides, s.Override)
	}
	return types, overrides
}
