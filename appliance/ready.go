package appliance

import "path/filepath"

// Ready says where a node answers. Its lines are what `start` prints.
type Ready struct {
	URL        string // base URL of the default tenant, or of the root tenant
	Root       string // base URL of the root tenant
	Health     string // address of the health listener, or ""
	RootCA     string // file of the local certificate authority, with --dev
	Mailbox    string // page of captured mail, with --dev
	Setup      string // link that makes the first administrator; "" when there is one
	Data       string
	HealthKey  string // file of the health password that the node made
	RateLimits string // address of the rate limiting service, or ""
}

// Lines is what an operator reads, the line "ready https://…" last.
func (r Ready) Lines() []string {
	data, err := filepath.Abs(r.Data)
	if err != nil {
		data = r.Data
	}
	lines := []string{"data     " + data}
	add := func(name, value string) {
		if value != "" {
			lines = append(lines, name+value)
		}
	}
	add("root CA  ", r.RootCA)
	add("mailbox  ", r.Mailbox)
	add("health   ", r.Health)
	add("health password in ", r.HealthKey)
	add("rate limits  ", r.RateLimits)
	if r.Setup != "" {
		lines = append(lines, "", "No administrator exists yet. Open this link once, within 24 hours, to make the first one", "and the first application:", "", "  "+r.Setup, "")
		if r.RootCA != "" {
			lines = append(lines, "The browser will warn once of a certificate that it does not know; trust the root CA above to end that.", "")
		}
	}
	return append(lines, "ready "+r.URL)
}
