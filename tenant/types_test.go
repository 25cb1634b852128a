package tenant_test

import (
	"encoding/json"
	"regexp"
	"testing"
	"time"

	"github.com/portcullis-id/portcullis/tenant"
)

func TestUserKeepsAttributesOfItsProvider(t *testing.T) {
	in := `{"user_id":"github|1","email_verified":true,"identities":[],"created_at":"2026-01-02T03:04:05Z","updated_at":"2026-01-02T03:04:05Z","locale":"de","company":{"name":"x"}}`
	var u tenant.User
	if err := json.Unmarshal([]byte(in), &u); err != nil {
		t.Fatal(err)
	}
	if len(u.Extra) != 2 {
		t.Fatalf("Extra is %v, want locale and company", u.Extra)
	}
	u.Extra["user_id"] = json.RawMessage(`"forged"`) // a field's name never comes from Extra
	out, err := json.Marshal(u)
	if err != nil {
		t.Fatal(err)
	}
	var back map[string]any
	if err := json.Unmarshal(out, &back); err != nil {
		t.Fatal(err)
	}
	if back["user_id"] != "github|1" || back["locale"] != "de" || back["company"].(map[string]any)["name"] != "x" {
		t.Errorf("got %s", out)
	}
}

func TestSessionLifetimes(t *testing.T) {
	absolute, idle := (&tenant.Settings{}).Session()
	if absolute != 168*time.Hour || idle != 72*time.Hour {
		t.Errorf("defaults are %v and %v", absolute, idle)
	}
	absolute, idle = (&tenant.Settings{SessionLifetime: 0.5, IdleSessionLifetime: 0.25}).Session()
	if absolute != 30*time.Minute || idle != 15*time.Minute {
		t.Errorf("got %v and %v", absolute, idle)
	}
}

func TestIdentifiersSortByTime(t *testing.T) {
	early, late := tenant.NewObjectID(time.Unix(1000, 0)), tenant.NewObjectID(time.Unix(1001, 0))
	if early >= late {
		t.Errorf("%s does not sort before %s", early, late)
	}
	if !regexp.MustCompile(`^[0-9a-f]{24}$`).MatchString(early) {
		t.Errorf("%q is no object id", early)
	}
	if id := tenant.NewClientID(); !regexp.MustCompile(`^[A-Za-z0-9]{32}$`).MatchString(id) {
		t.Errorf("%q is no client id", id)
	}
}
