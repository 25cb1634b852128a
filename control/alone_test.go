package control

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/store/storetest"
	"github.com/portcullis-id/portcullis/tenant"
)

const never = time.Hour // nobody waits so long here

func aloneOn(docs tenant.Docs, data, host string) *Alone {
	return &Alone{Docs: docs, Logger: slog.New(slog.DiscardHandler), Data: data, Host: host}
}

func mustClaim(t *testing.T, a *Alone, wait time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := a.claim(ctx, wait); err != nil {
		t.Fatalf("the node on %s may not work with the database: %v", a.Host, err)
	}
}

// wantLost looks whether a node finds that it has lost its claim, with a code; "" means
// that it has it.
func wantLost(t *testing.T, a *Alone, code string) {
	t.Helper()
	lost, err := a.renew(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := problem.From(lost).Code; lost == nil && code != "" || lost != nil && got != code {
		t.Errorf("the node on %s finds %v, want code %q", a.Host, lost, code)
	}
}

func TestTwoNodesWithoutAClusterShareNoDatabase(t *testing.T) {
	docs := storetest.New(t)
	first, second := aloneOn(docs, t.TempDir(), "first"), aloneOn(docs, t.TempDir(), "second")
	mustClaim(t, first, never)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { // as Keep does, and oftener
		for ctx.Err() == nil {
			_, _ = first.renew(ctx)
			time.Sleep(aloneLook / 10)
		}
	}()
	if err := second.claim(t.Context(), never); problem.From(err).Code != "database_in_use" {
		t.Errorf("a second node gets %v, want database_in_use", err)
	}
	cancel()
	wantLost(t, first, "")
}

func TestAfterANodeThatWasAlone(t *testing.T) {
	t.Run("it gave its claim up", func(t *testing.T) {
		docs := storetest.New(t)
		first := aloneOn(docs, t.TempDir(), "first")
		mustClaim(t, first, never)
		first.Release()
		mustClaim(t, aloneOn(docs, t.TempDir(), "second"), never)
	})
	t.Run("it was killed, and starts again", func(t *testing.T) {
		docs, data := storetest.New(t), t.TempDir()
		first := aloneOn(docs, data, "first")
		mustClaim(t, first, never)
		first.lock.Close() // as the kernel does
		mustClaim(t, aloneOn(docs, data, "first"), never)
	})
	t.Run("it is at work, and somebody starts it again", func(t *testing.T) {
		docs, data := storetest.New(t), t.TempDir()
		first := aloneOn(docs, data, "first")
		mustClaim(t, first, never)
		if err := aloneOn(docs, data, "first").claim(t.Context(), never); problem.From(err).Code != "data_in_use" {
			t.Errorf("a second process in the data folder gets %v, want data_in_use", err)
		}
		wantLost(t, first, "")
	})
	t.Run("it was killed, and another starts", func(t *testing.T) {
		docs := storetest.New(t)
		first, second := aloneOn(docs, t.TempDir(), "first"), aloneOn(docs, t.TempDir(), "second")
		mustClaim(t, first, never)
		mustClaim(t, second, aloneLook/2)
		// It stood still, and was not dead.
		wantLost(t, first, "database_in_use")
		first.Release()
		wantLost(t, second, "")
	})
	t.Run("the other site has the database now", func(t *testing.T) {
		docs := storetest.New(t)
		first, second := aloneOn(docs, t.TempDir(), "first"), aloneOn(docs, t.TempDir(), "second")
		first.Site, second.Site = "east", "west"
		mustClaim(t, first, never)
		mustClaim(t, second, never)
	})
	t.Run("a cluster was made of the database", func(t *testing.T) {
		docs := storetest.New(t)
		first := aloneOn(docs, t.TempDir(), "first")
		mustClaim(t, first, never)
		if _, err := Found(t.Context(), docs, t.TempDir(), "node1", "192.0.2.1:7777", time.Now()); err != nil {
			t.Fatal(err)
		}
		wantLost(t, first, "not_a_member")
	})
}
