package ratelimit

import (
	"strings"
	"testing"
	"time"
)

func TestSettings(t *testing.T) {
	for text, want := range map[string]string{
		"login size=20 per_minute=10":                "",
		`login match=acme\|.* unlimited`:             "",
		"login key=acme|ann|192.0.2.1 per_day=3":     "",
		"shop/tenant/ip per_interval=5 interval=250": "",
		"login on_failure=closed":                    "",
		"login":                                      "wants a bucket and its limit",
		"":                                           "wants a bucket and its limit",
		"Login size=1":                               `"Login" is no name of a bucket`,
		"login size=0":                               `size is "0"; allowed are numbers from 1`,
		"login size=x":                               `size is "x"`,
		"login size=1 size=2":                        "size stands twice",
		"login pace=1":                               `nobody knows "pace=1"; allowed are key=`,
		"login key=a match=b size=1":                 "key and match stand together",
		"login match=( size=1":                       "it is no regular expression",
		"login on_failure=sometimes":                 "allowed are share, open and closed",
		"login key=a on_failure=open size=1":         "on_failure belongs to a whole bucket",
		"login per_second=1 per_day=1":               "stand together",
		"login key=" + strings.Repeat("k", 600) + " size=1": "the key has 600 bytes",
	} {
		_, err := ParseSetting(text)
		switch {
		case want == "" && err != nil:
			t.Errorf("%q: %v", text, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
}

func FuzzSetting(f *testing.F) {
	f.Add("login key=a size=3 per_second=1")
	f.Add("a/b match=.* unlimited")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseSetting(text)
		if err != nil {
			return
		}
		types, overrides := WithSettings(Defaults(DefaultTier), []Setting{s})
		if _, err := NewRules(types, overrides); err != nil && s.Key == "" && s.Match == "" && s.OnFailure == "" {
			t.Fatalf("%q was accepted, and is no rule: %v", text, err)
		}
	})
}

func TestOverrides(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	wall := func() time.Time { return now }
	r, err := NewRules([]Bucket{{Name: "b", Spec: Spec{PerSecond: 1}}}, []Override{
		{Bucket: "b", Key: "exact", Spec: Spec{PerSecond: 2}},
		{Bucket: "b", Match: "ten.*", Spec: Spec{PerSecond: 3}},
		{Bucket: "b", Key: "ten-exact", Spec: Spec{Unlimited: true}},
		{Bucket: "b", Key: "for-a-time", Spec: Spec{PerSecond: 4}, Until: now.Add(time.Minute)},
		{Bucket: "b", Key: "exact", Spec: Spec{PerSecond: 5}},
	})
	if err != nil {
		t.Fatal(err)
	}
	k := r.types["b"]
	for key, want := range map[string]string{"exact": "5 a second", "tenant": "3 a second", "at-ten": "1 a second", "ten-exact": "unlimited", "for-a-time": "4 a second", "other": "1 a second"} {
		if got := k.limitOf(key, wall).String(); got != want {
			t.Errorf("%s: %s, want %s", key, got, want)
		}
	}
	now = now.Add(time.Minute)
	if got := k.limitOf("for-a-time", wall).String(); got != "1 a second" {
		t.Errorf("after its end an override still gives %s", got)
	}
	if _, err := NewRules(nil, []Override{{Bucket: "no", Spec: Spec{PerSecond: 1}}}); err == nil || !strings.Contains(err.Error(), `there is no bucket "no"`) {
		t.Errorf("an override of nothing: %v", err)
	}
}

// TestMemoryIsBounded fills a type with keys: its table stays at its bound, and a key
// that has used up its bucket stays remembered.
func TestMemoryIsBounded(t *testing.T) {
	rules := rulesOf(t, Bucket{Name: "b", Spec: Spec{Size: 10, PerDay: 1}})
	s, err := New(Config{Rules: func() *Rules { return rules }, MaxKeys: 6400})
	if err != nil {
		t.Fatal(err)
	}
	take := func(key string, n int64) Decision {
		d, err := s.Take(t.Context(), Request{Bucket: "b", Key: key, Count: n})
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	take("used up", 10)
	for i := range 50_000 {
		take("stranger "+strings.Repeat("x", i%7)+time.Duration(i).String(), 1)
	}
	b := s.Bucket("b")
	if b.Keys > 6400 || b.Pushed == 0 {
		t.Errorf("%d keys are remembered of the 6400 that are allowed, %d had to go", b.Keys, b.Pushed)
	}
	if d := take("used up", 1); d.Conformant {
		t.Error("strangers made the node forget a key that had used up its bucket")
	}
}
