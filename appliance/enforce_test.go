package appliance_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/oauth2"

	"github.com/portcullis-id/portcullis/enforce"
	"github.com/portcullis-id/portcullis/store/storetest"
)

// enforcedChild marks the process in which a test's node gives up its ports: it is
// for good, so no other test may run there.
const enforcedChild = "PORTCULLIS_TEST_ENFORCED"

// inChild reports whether this is the process for the test, and otherwise runs it
// in one.
func inChild(t *testing.T, extra ...string) bool {
	t.Helper()
	if os.Getenv(enforcedChild) == t.Name() {
		return true
	}
	if enforce.ABI() < enforce.MinABI {
		t.Skipf("%v", enforce.ErrKernel)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+strings.ReplaceAll(t.Name(), "/", "$/^")+"$", "-test.v")
	cmd.Env = append(append(os.Environ(), enforcedChild+"="+t.Name()), extra...)
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
		t.Fatalf("%v\n%s", err, out)
	}
	return false
}

// TestEnforcedNode runs a whole node that the kernel holds to the contract.
func TestEnforcedNode(t *testing.T) {
	for engine := range map[string]bool{"sqlite": true, "postgres": true} {
		t.Run(engine, func(t *testing.T) {
			dsn := ""
			if engine == "postgres" {
				if dsn = os.Getenv("PORTCULLIS_TEST_ENFORCED_DSN"); dsn == "" {
					dsn = storetest.PostgresDSN(t)
				}
			}
			if inChild(t, "PORTCULLIS_TEST_ENFORCED_DSN="+dsn) {
				enforcedNode(t, dsn)
			}
		})
	}
}

func enforcedNode(t *testing.T, dsn string) {
	before, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer before.Close()
	strange := newProvider(t) // a provider on a port of its own
	n := startWith(t, dsn, func(c *configuration) {
		c.Network.Enforce = string(enforce.On)
		// The browser of this test lives in the same process.
		c.Network.EnforceConnect = []int{c.Listen.HTTPS, c.Listen.HTTP, c.Listen.Health}
	})
	if _, err := net.Dial("tcp", before.Addr().String()); !errors.Is(err, syscall.EACCES) {
		t.Errorf("an undeclared port was connected: %v", err)
	}
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	if _, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0"); !errors.Is(err, syscall.EACCES) {
		t.Errorf("an undeclared port was bound: %v", err)
	}

	// A login, from the form to the tokens.
	app := n.application(nil)
	_, email := n.user()
	if tok := n.tokens(app, email, nil); tok["id_token"] == nil || tok["refresh_token"] == nil {
		t.Errorf("tokens: %v", tok)
	}

	// A provider on a port of no row: refused, and said.
	n.loginAt(app, strange)
	r, err := n.local.Audit(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !r.Enforcement.Holds || r.Enforcement.Mode != "on" {
		t.Errorf("audit: %+v", r)
	}
	if len(r.Enforcement.Refused) != 1 || !strings.HasSuffix(strange.URL, ":"+strconv.Itoa(r.Enforcement.Refused[0].Port)) || r.Enforcement.Refused[0].Row != "social" {
		t.Errorf("refused: %+v", r.Enforcement.Refused)
	}
	if strange.asked.Load() {
		t.Error("the provider was reached all the same")
	}
}

// loginAt sends a user to a provider, as far as the node lets it come.
func (n *node) loginAt(app application, p *provider) answer {
	n.t.Helper()
	n.api("POST", "connections", map[string]any{"name": "corp", "strategy": "oidc", "enabled_clients": []string{app.id},
		"options": map[string]any{"issuer": p.URL, "client_id": "us", "client_secret": "s"}})
	q := app.request(oauth2.GenerateVerifier())
	q.Set("connection", "corp")
	return n.get(n.browser(), "/authorize", q)
}

// TestAuditedNodeRefusesNothing says what enforcement would refuse.
func TestAuditedNodeRefusesNothing(t *testing.T) {
	strange := newProvider(t)
	n := startWith(t, "", func(c *configuration) { c.Network.Enforce = string(enforce.Audit) })
	if a := n.loginAt(n.application(nil), strange); a.StatusCode != http.StatusFound || !strange.asked.Load() {
		t.Errorf("the provider was not reached: %d %s", a.StatusCode, a.body)
	}
	r, err := n.local.Audit(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if r.Enforcement.Holds || len(r.Enforcement.Refused) != 1 || !strings.Contains(r.Enforcement.Refused[0].Sentence, "would be refused") {
		t.Errorf("%+v", r.Enforcement)
	}
}
