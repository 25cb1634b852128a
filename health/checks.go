package health

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	probing "github.com/prometheus-community/pro-bing"
)

// explain turns the outcome of a question into a result.
func explain(err error, fine, bad string) Result {
	if err != nil {
		return Result{Message: bad + ": " + err.Error()}
	}
	return Result{OK: true, Message: fine}
}

// Services fails when a core service of the node is down. The function gives
// each service's name and what is wrong with it, nil if nothing. It is core.
func Services(status func(ctx context.Context) map[string]error) Check {
	return Check{Name: NameServices, Core: true, Run: func(ctx context.Context) Result {
		all := status(ctx)
		var down []string
		for name, err := range all {
			if err != nil {
				down = append(down, fmt.Sprintf("%s: %v", name, err))
			}
		}
		slices.Sort(down)
		r := Result{OK: len(down) == 0, Value: float64(len(down)), Unit: "services down", Message: fmt.Sprintf("all %d services are up", len(all))}
		if !r.OK {
			r.Message = "down: " + strings.Join(down, "; ")
		}
		return r
	}}
}

// Network fails when a node of the cluster does not answer a ping, or when
// undeclared names a socket of this process that no row of the contract declares.
// peers gives the other nodes' addresses; a single node has none, and is fine. notes
// are sentences that the detail adds and that are no failure; empty ones say nothing.
func Network(peers func(ctx context.Context) []string, ping func(ctx context.Context, address string) error, undeclared func() string, notes ...func() string) Check {
	return Check{Name: NameNetwork, Run: func(ctx context.Context) (r Result) {
		defer func() {
			for _, note := range notes {
				if s := note(); s != "" {
					r.Message += ". " + s
				}
			}
		}()
		if found := undeclared(); found != "" {
			return Result{Value: 1, Unit: "undeclared", Message: found}
		}
		nodes := peers(ctx)
		if len(nodes) == 0 {
			return Result{OK: true, Message: "there is no other node"}
		}
		silent := make([]string, len(nodes))
		var wg sync.WaitGroup
		for i, n := range nodes {
			wg.Go(func() {
				if err := ping(ctx, n); err != nil {
					silent[i] = fmt.Sprintf("%s: %v", n, err)
				}
			})
		}
		wg.Wait()
		silent = slices.DeleteFunc(silent, func(s string) bool { return s == "" })
		r = Result{OK: len(silent) == 0, Value: float64(len(silent)), Unit: "nodes silent", Message: fmt.Sprintf("all %d other nodes answer", len(nodes))}
		if !r.OK {
			r.Message = "no answer from " + strings.Join(silent, "; ")
		}
		return r
	}}
}

// Internet fails when the source of updates does not answer. source gives its
// URL; where none is named there is nothing to reach, and that is fine: a network
// without internet would otherwise be in alarm for ever (ADR 4).
func Internet(source func() string, reach func(ctx context.Context, url string) error) Check {
	return Check{Name: NameInternet, Run: func(ctx context.Context) Result {
		u := source()
		if u == "" {
			return Result{OK: true, Message: "no source of updates is configured: there is nothing to reach"}
		}
		return explain(reach(ctx, u), "the source of updates answers", "the source of updates does not answer")
	}}
}

// Email fails when the mail server does not answer. server gives its HOST:PORT;
// where none is configured mail stays here, and that is fine.
func Email(server func() string, connect func(ctx context.Context, address string) error) Check {
	return Check{Name: NameEmail, Run: func(ctx context.Context) Result {
		address := server()
		if address == "" {
			return Result{OK: true, Message: "no mail server is configured: mail does not leave this node"}
		}
		return explain(connect(ctx, address), "the mail server answers", "the mail server does not answer")
	}}
}

// dbWithin bounds the query of DB: it is over before who asks whether the node is
// ready would have to wait for it.
const dbWithin = stillCounts - cacheFor

// DB fails when a query of the database does, or takes longer than two seconds. It
// is core; see Check.Tolerates.
func DB(query func(ctx context.Context) error, tolerates func(ctx context.Context, failing time.Duration) bool) Check {
	return Check{Name: NameDB, Core: true, Tolerates: tolerates, Run: func(ctx context.Context) Result {
		ctx, cancel := context.WithTimeout(ctx, dbWithin)
		defer cancel()
		return explain(query(ctx), "the database answers", "the database does not answer")
	}}
}

// ReplicaSet fails when a member of the database's cluster is down: it is the
// one check that speaks of more than its node. members gives what is wrong with
// each, nil if nothing; an embedded database has no members, and is fine. The
// error is that they could not be asked.
func ReplicaSet(members func(ctx context.Context) (map[string]error, error)) Check {
	return Check{Name: NameReplicaSet, Run: func(ctx context.Context) Result {
		all, err := members(ctx)
		if err != nil {
			return explain(err, "", "the members of the database cannot be asked")
		}
		if len(all) == 0 {
			return Result{OK: true, Message: "the database has no further members"}
		}
		var down []string
		for name, err := range all {
			if err != nil {
				down = append(down, fmt.Sprintf("%s: %v", name, err))
			}
		}
		slices.Sort(down)
		r := Result{OK: len(down) == 0, Value: float64(len(down)), Unit: "members down", Message: fmt.Sprintf("all %d members are up", len(all))}
		if !r.OK {
			r.Message = "down: " + strings.Join(down, "; ")
		}
		return r
	}}
}

// Ping sends an ICMP echo (row icmp of the network contract) and waits up to two
// seconds for the answer. It tries the way that needs no privilege first; a
// container may permit either or none.
func Ping(ctx context.Context, address string) error {
	err := ping(ctx, address, false)
	if err != nil && ctx.Err() == nil {
		if again := ping(ctx, address, true); again == nil {
			return nil
		}
	}
	return err
}

func ping(ctx context.Context, address string, privileged bool) error {
	p := probing.New(address)
	p.SetPrivileged(privileged)
	p.SetLogger(probing.NoopLogger{})
	p.Count, p.Timeout = 1, 2*time.Second
	if err := p.Resolve(); err != nil {
		return fmt.Errorf("resolve the node's name: %w", err)
	}
	if err := p.RunWithContext(ctx); err != nil {
		return fmt.Errorf("send an ICMP echo: %w", err)
	}
	if p.Statistics().PacketsRecv == 0 {
		return fmt.Errorf("no ICMP echo within %v", p.Timeout)
	}
	return nil
}
