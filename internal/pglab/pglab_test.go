//go:build linux

package pglab_test

import (
	"testing"

	"github.com/portcullis-id/portcullis/internal/lab"
	"github.com/portcullis-id/portcullis/internal/pglab"
)

// TestFailoverAndBack: what a synchronous primary acknowledged is on the replica
// after a crash, and the old primary follows the new one.
func TestFailoverAndBack(t *testing.T) {
	pglab.Require(t)
	l := lab.New(t, lab.Options{Nodes: 1, IPv4Only: true, Services: []string{"db1", "db2"}})
	first := pglab.Start(t, l.Host("db1"))
	second := first.Replica(l.Host("db2"))
	first.Synchronous(second)
	first.Query("CREATE TABLE t (n int)")
	first.Query("INSERT INTO t VALUES (7)")
	if _, err := second.TryQuery("INSERT INTO t VALUES (8)"); err == nil {
		t.Error("a replica took a write")
	}
	first.Kill()
	if first.Running() {
		t.Error("the server runs after Kill")
	}
	second.Promote()
	if got := second.Query("SELECT n FROM t"); got != "7" {
		t.Errorf("the replica has %q, want 7", got)
	}
	first.Rejoin(second)
	second.Synchronous(first)
	second.Query("INSERT INTO t VALUES (9)")
	second.Stop()
	first.Promote()
	if got := first.Query("SELECT string_agg(n::text, ' ' ORDER BY n) FROM t"); got != "7 9" {
		t.Errorf("after the way back it has %q, want 7 and 9", got)
	}
}
