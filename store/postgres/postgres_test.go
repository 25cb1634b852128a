package postgres_test

import (
	"database/sql"
	"strings"
	"testing"
	"time"

	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/store/postgres"
	"github.com/portcullis-id/portcullis/store/storetest"
	"github.com/portcullis-id/portcullis/tenant"
)

func TestContract(t *testing.T) {
	storetest.Run(t, func(t *testing.T) tenant.Docs {
		db, err := postgres.Open(t.Context(), storetest.PostgresDSN(t), storetest.Sealer(t), time.Now, postgres.Config{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { db.Close() })
		return db
	})
}

func TestOpenRefuses(t *testing.T) {
	dsn, sealer := storetest.PostgresDSN(t), storetest.Sealer(t)
	db, err := postgres.Open(t.Context(), dsn, sealer, time.Now, postgres.Config{})
	if err != nil {
		t.Fatal(err)
	}
	db.Close()

	_, err = postgres.Open(t.Context(), dsn, storetest.Sealer(t), time.Now, postgres.Config{})
	if e := problem.From(err); e.Code != "wrong_master_key" {
		t.Errorf("another master key: got %v", err)
	}
	raw, err := sql.Open("pgx", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	if _, err := raw.Exec("INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, true)"); err != nil {
		t.Fatal(err)
	}
	_, err = postgres.Open(t.Context(), dsn, sealer, time.Now, postgres.Config{})
	if e := problem.From(err); e.Code != "schema_too_new" || !strings.Contains(e.Message, "9999") {
		t.Errorf("a newer schema: got %v", err)
	}
	_, err = postgres.Open(t.Context(), "postgres://x:secret-word@127.0.0.1:1/none", sealer, time.Now, postgres.Config{})
	if e := problem.From(err); e.Code != "database_unreachable" || strings.Contains(err.Error(), "secret-word") {
		t.Errorf("nobody listens: got %v", err)
	}
}

func TestSecretsAreSealedInTheTable(t *testing.T) {
	dsn := storetest.PostgresDSN(t)
	db, err := postgres.Open(t.Context(), dsn, storetest.Sealer(t), time.Now, postgres.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	err = db.Write(t.Context(), "a", func(tx tenant.Tx) error {
		return tx.Insert(tenant.KindClient, "c", []byte(`{"name":"n","client_secret":"hidden-secret"}`))
	})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := sql.Open("pgx", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	var doc string
	if err := raw.QueryRow(`SELECT doc::text FROM clients`).Scan(&doc); err != nil || strings.Contains(doc, "hidden") || !strings.Contains(doc, "sealed:") {
		t.Errorf("the table holds %s, %v", doc, err)
	}
}
