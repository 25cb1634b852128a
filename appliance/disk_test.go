package appliance_test

import (
	"context"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/portcullis-id/portcullis/appliance"
)

// smallDisk mounts a file system of its own. Only root may.
func smallDisk(t *testing.T) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("a small disk wants root, to mount it")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=24m"); err != nil {
		t.Skipf("a small disk cannot be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

// fill takes all the room that is left, and returns what gives it back.
func fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	path := filepath.Join(dir, "filler")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, 4096)
	for {
		if _, err := f.Write(block); err != nil {
			break
		}
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Error(err)
		}
	}
}

// TestDiskFull fills the disk under a running node and tries every way of writing.
func TestDiskFull(t *testing.T) {
	dir := smallDisk(t)
	n := startWith(t, "", func(c *configuration) { c.Data = filepath.Join(dir, "data") })
	app := n.application(map[string]any{"refresh_token": map[string]any{"rotation_type": "rotating", "expiration_type": "expiring", "leeway": 0, "token_lifetime": 2592000, "idle_token_lifetime": 1296000}})
	id, email := n.user()
	verifier := strings.Repeat("v", 43)
	b := n.browser()
	tokens := n.exchange(app, n.login(b, app.request(verifier), email).Get("code"), verifier, nil).json()
	refresh := tokens["refresh_token"].(string)
	machine := n.api(http.MethodPost, "clients", map[string]any{"name": "m", "app_type": "non_interactive", "grant_types": []string{"client_credentials"}})
	n.api(http.MethodPost, "client-grants", map[string]any{"client_id": machine["client_id"], "audience": n.issuer + "api/v2/", "scope": []string{"read:clients"}})
	clientCredentials := url.Values{"grant_type": {"client_credentials"}, "client_id": {machine["client_id"].(string)}, "client_secret": {machine["client_secret"].(string)}, "audience": {n.issuer + "api/v2/"}}
	passwordGrant := url.Values{"grant_type": {"http://auth0.com/oauth/grant-type/password-realm"}, "realm": {database}, "username": {email}, "password": {userPassword}, "client_id": {app.id}, "client_secret": {app.secret}}
	refreshGrant := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refresh}, "client_id": {app.id}, "client_secret": {app.secret}}

	free := fill(t, dir)
	// The log of SQLite has some room of its own left; write until it is gone.
	full := false
	for range 2000 {
		if a := n.apiAs(n.token, http.MethodPatch, "users/"+url.PathEscape(id), map[string]any{"user_metadata": map[string]any{"filler": strings.Repeat("x", 30_000)}}); a.StatusCode != http.StatusOK {
			full = true
			break
		}
	}
	if !full {
		t.Fatal("the disk does not get full")
	}
	for name, ask := range map[string]func() answer{
		"change a user": func() answer {
			return n.apiAs(n.token, http.MethodPatch, "users/"+url.PathEscape(id), map[string]any{"user_metadata": map[string]any{"filler": strings.Repeat("y", 30_000)}})
		},
		"make a client": func() answer {
			return n.apiAs(n.token, http.MethodPost, "clients", map[string]any{"name": strings.Repeat("c", 200), "description": strings.Repeat("d", 140)})
		},
		"log in":  func() answer { return n.form(n.browser(), "/oauth/token", passwordGrant) },
		"refresh": func() answer { return n.form(n.browser(), "/oauth/token", refreshGrant) },
		"sign up": func() answer {
			return n.form(n.browser(), "/dbconnections/signup", url.Values{"client_id": {app.id}, "connection": {database}, "email": {"new@example.com"}, "password": {userPassword}})
		},
		"ask for a reset": func() answer {
			return n.form(n.browser(), "/dbconnections/change_password", url.Values{"client_id": {app.id}, "connection": {database}, "email": {email}})
		},
		"a code by a session": func() answer { return n.get(b, "/authorize", app.request(verifier)) },
	} {
		// A small write may still fit into the page that is there: then it has to be whole.
		a := ask()
		if a.StatusCode < 400 {
			t.Logf("%s: fits (%d)", name, a.StatusCode)
			continue
		}
		if a.StatusCode != http.StatusServiceUnavailable || strings.Contains(a.body, "sqlite") || strings.Contains(a.body, dir) {
			t.Errorf("%s on a full disk: %d %.300s", name, a.StatusCode, a.body)
		}
	}
	// What needs no disk goes on, and the node says what is wrong.
	if a := n.form(n.browser(), "/oauth/token", clientCredentials); a.StatusCode != http.StatusOK {
		t.Errorf("client_credentials on a full disk: %d %s", a.StatusCode, a.body)
	}
	if a := n.apiAs(n.token, http.MethodGet, "clients", nil); a.StatusCode != http.StatusOK {
		t.Errorf("reading on a full disk: %d", a.StatusCode)
	}

	free()
	if a := n.apiAs(n.token, http.MethodPatch, "users/"+url.PathEscape(id), map[string]any{"user_metadata": map[string]any{"filler": "z"}}); a.StatusCode != http.StatusOK {
		t.Errorf("a write after there is room again: %d %s", a.StatusCode, a.body)
	}
	if a := n.form(n.browser(), "/oauth/token", passwordGrant); a.StatusCode != http.StatusOK {
		t.Errorf("a login after there is room again: %d %s", a.StatusCode, a.body)
	}
	// Events that happened meanwhile are written then.
	n.logged("seccft")
	if a := n.form(n.browser(), "/oauth/token", refreshGrant); a.StatusCode != http.StatusOK && a.StatusCode != http.StatusForbidden {
		t.Errorf("a refresh after there is room again: %d %s", a.StatusCode, a.body)
	}
}

// TestReadOnlyDisk starts a node where nothing can be written.
func TestReadOnlyDisk(t *testing.T) {
	dir := smallDisk(t)
	cfg := appliance.DefaultDev()
	cfg.Data = filepath.Join(dir, "data")
	cfg.Listen.HTTPS, cfg.Listen.HTTP, cfg.Listen.Health = port(t), port(t), port(t)
	try := func() error {
		n, err := appliance.New(cfg, appliance.Options{Log: t.Output()})
		if err != nil {
			return err
		}
		defer func() { _ = n.Close() }() // a node that did not start has nothing to lose
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		n.OnReady = func(appliance.Ready) { cancel() }
		return n.Run(ctx)
	}
	if err := try(); err != nil {
		t.Fatalf("on a good disk: %v", err)
	}
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	err := try()
	if err == nil || !strings.Contains(err.Error(), cfg.Data) || !strings.Contains(err.Error(), "read-only") {
		t.Errorf("on a read-only disk: %v", err)
	}
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT, ""); err != nil {
		t.Fatal(err)
	}
	if err := try(); err != nil {
		t.Errorf("on a disk that can be written again: %v", err)
	}
}

// clock is a time that tests move.
type clock struct{ offset atomic.Int64 }

func (c *clock) now() time.Time        { return time.Now().Add(time.Duration(c.offset.Load())) }
func (c *clock) jump(by time.Duration) { c.offset.Add(int64(by)) }

// TestClockJumps moves the node's clock by a day, ahead and back, as a host does
// whose time was wrong. No jump makes a used value usable, or stops the node.
func TestClockJumps(t *testing.T) {
	for name, by := range map[string]time.Duration{"a day ahead": 24 * time.Hour, "a day back": -24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			c := &clock{}
			n := startAt(t, "", c.now, func(*configuration) {})
			app := n.application(map[string]any{"refresh_token": map[string]any{"rotation_type": "rotating", "expiration_type": "expiring", "leeway": 0, "token_lifetime": 2592000, "idle_token_lifetime": 1296000}})
			_, email := n.user()
			verifier := strings.Repeat("v", 43)
			used := n.login(n.browser(), app.request(verifier), email).Get("code")
			first := n.exchange(app, used, verifier, nil).json()
			kept := n.login(n.browser(), app.request(verifier), email).Get("code")

			c.jump(by)
			if a := n.exchange(app, used, verifier, nil); a.StatusCode != http.StatusForbidden {
				t.Errorf("a used code after the jump: %d", a.StatusCode)
			}
			a := n.exchange(app, kept, verifier, nil)
			if want := map[bool]int{true: http.StatusForbidden, false: http.StatusOK}[by > 0]; a.StatusCode != want {
				t.Errorf("a code of before the jump: %d, want %d", a.StatusCode, want)
			}
			if a := n.exchange(app, kept, verifier, nil); a.StatusCode != http.StatusForbidden {
				t.Errorf("the same code again: %d", a.StatusCode)
			}
			// A new login works at once, whatever the clock said before.
			code := n.login(n.browser(), app.request(verifier), email).Get("code")
			tokens := n.exchange(app, code, verifier, nil)
			if tokens.StatusCode != http.StatusOK {
				t.Fatalf("a login after the jump: %d %s", tokens.StatusCode, tokens.body)
			}
			refresh := func(token any) answer {
				return n.form(n.browser(), "/oauth/token", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token.(string)}, "client_id": {app.id}, "client_secret": {app.secret}})
			}
			next := refresh(tokens.json()["refresh_token"])
			if next.StatusCode != http.StatusOK {
				t.Fatalf("a refresh after the jump: %d %s", next.StatusCode, next.body)
			}
			c.jump(-by)
			if a := refresh(tokens.json()["refresh_token"]); a.StatusCode != http.StatusForbidden {
				t.Errorf("a rotated refresh token after the way back: %d", a.StatusCode)
			}
			if a := refresh(next.json()["refresh_token"]); a.StatusCode != http.StatusForbidden {
				t.Errorf("its family lives on: %d", a.StatusCode)
			}
			// The code that was used twice took its tokens with it, unless it had expired: then
			// nobody knows it any more.
			if a := refresh(first["refresh_token"]); a.StatusCode != map[bool]int{true: http.StatusOK, false: http.StatusForbidden}[by > 0] {
				t.Errorf("the tokens of a code that was used twice: %d", a.StatusCode)
			}
			if a := n.login(n.browser(), app.request(verifier), email); a.Get("code") == "" {
				t.Error("no login after the way back")
			}
		})
	}
}
