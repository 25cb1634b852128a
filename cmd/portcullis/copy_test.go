package main_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portcullis-id/portcullis/store"
	"github.com/portcullis-id/portcullis/store/seal"
	"github.com/portcullis-id/portcullis/store/storetest"
	"github.com/portcullis-id/portcullis/tenant"
)

// TestKilledCopyGoesOn kills `portcullis store copy` with SIGKILL at each batch, and
// begins it again, until everything is there.
func TestKilledCopyGoesOn(t *testing.T) {
	for engine, target := range map[string]func(testing.TB) string{
		"sqlite":   func(t testing.TB) string { return "sqlite:" + filepath.Join(t.TempDir(), "to.db") },
		"postgres": storetest.PostgresDSN,
	} {
		t.Run(engine, func(t *testing.T) {
			to, data := target(t), t.TempDir()
			from := "sqlite:" + filepath.Join(data, "portcullis.db")
			documents := fillForCopy(t, data, from)
			exe, err := exec.LookPath("portcullis")
			if err != nil {
				t.Fatal(err)
			}
			kills := 0
			for {
				cmd := exec.Command(exe, "store", "copy", "--data", data, "--from", from, "--to", to, "-o", "json")
				var out bytes.Buffer
				cmd.Stdout = &out
				progress, err := cmd.StderrPipe()
				if err != nil {
					t.Fatal(err)
				}
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				var said strings.Builder
				lines := bufio.NewScanner(progress)
				lines.Split(scanSteps)
				for steps := 0; lines.Scan(); {
					said.WriteString(lines.Text() + "\n")
					if strings.HasPrefix(lines.Text(), "copy") {
						if steps++; steps == 2 {
							_ = cmd.Process.Kill()
							kills++
						}
					}
				}
				if err := cmd.Wait(); err != nil {
					if kills > 50 {
						t.Fatalf("it does not come to an end:\n%s", &said)
					}
					if cmd.ProcessState.ExitCode() >= 0 { // not by the signal
						t.Fatalf("%v:\n%s", err, &said)
					}
					continue
				}
				var result store.Copied
				if err := json.Unmarshal(out.Bytes(), &result); err != nil {
					t.Fatalf("%v:\n%s", err, &out)
				}
				if kills < 3 || !result.Resumed || result.Documents != documents || result.Repaired != 0 {
					t.Errorf("after %d kills: resumed %v, %d documents of %d, %d repaired", kills, result.Resumed, result.Documents, documents, result.Repaired)
				}
				return
			}
		})
	}
}

// scanSteps splits at the carriage returns of a line that is written over.
func scanSteps(data []byte, atEOF bool) (advance int, token []byte, err error) {
	if i := bytes.IndexAny(data, "\r\n"); i >= 0 {
		return i + 1, data[:i], nil
	}
	if atEOF && len(data) > 0 {
		return len(data), data, nil
	}
	return 0, nil, nil
}

// fillForCopy makes a database with its master key, and counts the documents.
func fillForCopy(t *testing.T, data, dsn string) int {
	t.Helper()
	key, err := seal.CreateKey(filepath.Join(data, "master.key"))
	if err != nil {
		t.Fatal(err)
	}
	sealer, err := seal.New(key)
	if err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(t.Context(), dsn, store.Options{Sealer: sealer})
	if err != nil {
		t.Fatal(err)
	}
	const clients, users = 20, 3100
	err = db.Write(t.Context(), "a", func(tx tenant.Tx) error {
		for i := range clients {
			if err := tx.Insert(tenant.KindClient, fmt.Sprint("c", i), []byte(`{"name":"n","client_secret":"s"}`)); err != nil {
				return err
			}
		}
		for i := range users {
			if err := tx.Insert(tenant.KindUser, fmt.Sprint("auth0|", i), []byte(`{"email":"a@b.test"}`)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(data, "portcullis.db")); err != nil {
		t.Fatal(err)
	}
	return clients + users
}
