package overload_test

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portcullis-id/portcullis/overload"
	"github.com/portcullis-id/portcullis/problem"
)

func enter(t *testing.T, g *overload.Gate, c overload.Class) func() {
	t.Helper()
	_, leave, err := g.Enter(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return leave
}

func TestSlotsGoToTheHighestClassFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := overload.New(overload.Config{Slots: 6, Queue: 4})
		var leave []func()
		for range 6 {
			leave = append(leave, enter(t, g, overload.Admin))
		}
		var mu sync.Mutex
		var order []overload.Class
		for _, c := range []overload.Class{overload.Search, overload.Login, overload.Token, overload.Admin} {
			go func() {
				_, out, err := g.Enter(t.Context(), c)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				order = append(order, c)
				mu.Unlock()
				out()
			}()
			synctest.Wait()
		}
		for _, l := range leave {
			l()
			synctest.Wait()
		}
		want := []overload.Class{overload.Admin, overload.Token, overload.Login, overload.Search}
		mu.Lock()
		defer mu.Unlock()
		if len(order) != len(want) {
			t.Fatalf("%d of %d were served", len(order), len(want))
		}
		for i := range want {
			if order[i] != want[i] {
				t.Errorf("served in the order %v, want %v", order, want)
				break
			}
		}
	})
}

func TestLowClassesLeaveSlotsToHighOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := overload.New(overload.Config{Slots: 6, Queue: 1})
		for range 3 {
			enter(t, g, overload.Search)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() {
			_, _, err := g.Enter(ctx, overload.Search)
			ended <- err
		}()
		synctest.Wait()
		if g.Waiting(overload.Search) != 1 {
			t.Fatal("searches take the last slots")
		}
		for _, c := range []overload.Class{overload.Login, overload.Token, overload.Admin} {
			enter(t, g, c)
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("a caller that has gone: %v", err)
		}
		if g.Waiting(overload.Search) != 0 {
			t.Error("who has gone still waits")
		}
	})
}

func TestTurnedAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := overload.New(overload.Config{Slots: 1, Queue: 2})
		leave := enter(t, g, overload.Token)
		served := make(chan func())
		wait := func() {
			go func() {
				_, out, err := g.Enter(t.Context(), overload.Token)
				if err != nil {
					t.Error(err)
				}
				served <- out
			}()
			synctest.Wait()
		}
		refused := func(why string) {
			t.Helper()
			_, _, err := g.Enter(t.Context(), overload.Token)
			if e := problem.From(err); e.Kind != problem.Unavailable || e.Code != "overloaded" || e.RetryAfter <= 0 {
				t.Errorf("%s: %v", why, err)
			}
		}
		wait()
		wait()
		refused("the queue is full")
		leave()
		leave = <-served
		time.Sleep(300 * time.Millisecond)
		refused("the queue stands still")
		if g.Shed(overload.Token) != 2 || g.Shed(overload.Admin) != 0 {
			t.Errorf("counted %d tokens and %d admins", g.Shed(overload.Token), g.Shed(overload.Admin))
		}
		leave()
		(<-served)()
		enter(t, g, overload.Token)() // back to normal
	})
}

func TestWhoWaitsForSomethingElseGivesTheSlotAway(t *testing.T) {
	g := overload.New(overload.Config{Slots: 1, Queue: 1})
	ctx, leave, err := g.Enter(t.Context(), overload.Login)
	if err != nil {
		t.Fatal(err)
	}
	resume := overload.Pause(ctx)
	nested := overload.Pause(ctx) // a wait in a wait
	other := enter(t, g, overload.Token)
	nested()
	resume() // does not wait, although the slot is taken
	other()
	leave()
	leave() // once is enough
	out := enter(t, g, overload.Search)
	out()
	overload.Pause(t.Context())() // without a slot
}

func TestSlotsAreNeitherLostNorMade(t *testing.T) {
	g := overload.New(overload.Config{Slots: 4, Queue: 1000})
	var wg sync.WaitGroup
	var mu sync.Mutex
	inside, most := 0, 0
	for i := range 2000 {
		wg.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if i%7 == 0 {
				go cancel() // goes away while it waits, or at the moment when it is admitted
			}
			_, leave, err := g.Enter(ctx, overload.Class(i%4))
			if err != nil {
				return
			}
			mu.Lock()
			inside++
			most = max(most, inside)
			mu.Unlock()
			runtime.Gosched()
			mu.Lock()
			inside--
			mu.Unlock()
			leave()
		})
	}
	wg.Wait()
	if most > 4 {
		t.Errorf("%d at work in 4 slots", most)
	}
	for range 4 { // all slots are free again
		enter(t, g, overload.Admin)
	}
}
