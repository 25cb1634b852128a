package storetest

import (
	"context"
	"database/sql"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/portcullis-id/portcullis/tenant"
)

// PostgresDSN makes a database in the server that PORTCULLIS_TEST_POSTGRES names,
// which goes with the test. Without the variable the test is skipped.
func PostgresDSN(t testing.TB) string {
	t.Helper()
	server := os.Getenv("PORTCULLIS_TEST_POSTGRES")
	if server == "" {
		t.Skip("PORTCULLIS_TEST_POSTGRES is not set: `scripts/with-postgres go test ./...` sets it")
	}
	db, err := sql.Open("pgx", server)
	if err != nil {
		t.Fatal(err)
	}
	name := "t_" + strings.ToLower(tenant.RandomString(16))
	if _, err := db.Exec("CREATE DATABASE " + name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := db.ExecContext(context.Background(), "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)"); err != nil {
			t.Errorf("drop the test's database: %v", err)
		}
		db.Close()
	})
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/" + name
	return u.String()
}
