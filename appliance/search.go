package appliance

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/portcullis-id/portcullis/egress"
	"github.com/portcullis-id/portcullis/health"
	"github.com/portcullis-id/portcullis/netcontract"
	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/searchindex"
	"github.com/portcullis-id/portcullis/web"
)

// maxSearchAnswer bounds an answer of the search engine: 1,000 actions of a bulk
// request, each refused with a reason.
const maxSearchAnswer = 16 << 20

// lateSearch is how old what waits for the search index may be before the health
// check says so.
const lateSearch = 5 * time.Minute

// buildSearch puts the search engine in front of the store, where there is one.
func (n *Node) buildSearch(ctx context.Context) error {
	cfg := n.cfg.Search
	if !cfg.On() {
		return n.withoutSearch(ctx)
	}
	roots, err := cfg.Roots()
	if err != nil {
		return fmt.Errorf("search.ca: %w", err)
	}
	client := n.dialer.Client(netcontract.SearchHTTP, egress.Options{Trusted: cfg.Hosts(), Timeout: 30 * time.Second, MaxBody: maxSearchAnswer, Redirects: -1, Roots: roots, Direct: true})
	name, err := os.Hostname()
	if err != nil {
		name = "unknown"
	}
	n.store.Index(true)
	n.cache.Docs, n.search = searchindex.New(cfg, n.store, client, searchindex.Options{Name: name, Logger: n.logger})
	n.metrics.Gauge("portcullis_search_lag_seconds", "Age of the oldest write that the search index does not have.", func() float64 { return n.search.Lag().Seconds() })
	n.metrics.Gauge("portcullis_search_queue", "Writes that the search index does not have, over all nodes.", func() float64 { return float64(n.search.Queued()) })
	n.metrics.Gauge("portcullis_search_refused_documents", "Writes that the search engine has refused; they are tried again.", func() float64 { return float64(n.search.Refused()) })
	n.metrics.Gauge("portcullis_search_down", "1 while this node cannot fill the search index.", func() float64 {
		if n.search.Down() != "" {
			return 1
		}
		return 0
	})
	return nil
}

// withoutSearch sees that the writes of a node without a search engine reach the
// index of nodes that have one.
func (n *Node) withoutSearch(ctx context.Context) error {
	filled, err := searchindex.Unused(ctx, n.store)
	if err != nil {
		return err
	}
	if filled && !n.indexed {
		n.logger.WarnContext(ctx, "other nodes have a search engine and this one has none (search.urls): its writes reach the index, but its searches go to the database")
	}
	n.indexed = filled
	n.store.Index(filled)
	return nil
}

// watchSearch goes on doing so: other nodes may get a search engine.
func (n *Node) watchSearch(ctx context.Context) error {
	tick := time.NewTicker(searchindex.NoticeEvery)
	defer tick.Stop()
	single := strings.HasPrefix(n.cfg.dsn(), "sqlite:") // there are no others
	failing := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if single && !n.indexed {
			continue
		}
		err := n.withoutSearch(ctx)
		if err != nil && !failing && ctx.Err() == nil {
			n.logger.ErrorContext(ctx, "it is not known whether other nodes have a search engine", "error", err)
		}
		failing = err != nil
	}
}

// searchHealth fails while the search engine is away or the index is late. It is
// not core: a node without search still logs users in.
func (n *Node) searchHealth() []health.Check {
	if n.search == nil {
		return nil
	}
	return []health.Check{{Name: health.NameSearch, Run: func(ctx context.Context) health.Result {
		r := health.Result{Value: n.search.Lag().Seconds(), Threshold: lateSearch.Seconds(), Unit: "s"}
		version, err := n.search.Ping(ctx)
		switch {
		case err != nil:
			r.Message = "the search engine does not answer: " + err.Error()
		case n.search.Down() != "":
			r.Message = "the search index cannot be filled: " + n.search.Down()
		case n.search.Lag() > lateSearch:
			r.Message = fmt.Sprintf("the search index is %s late, %d writes wait", n.search.Lag().Round(time.Second), n.search.Queued())
		case n.search.Refused() > 0:
			r.OK, r.Message = true, fmt.Sprintf("%s answers, but refuses %d documents; `portcullis search status` shows one", version, n.search.Refused())
		default:
			r.OK, r.Message = true, fmt.Sprintf("%s answers, %d writes wait", version, n.search.Queued())
		}
		return r
	}}}
}

// noSearch says that there is nothing to ask or to build.
func (n *Node) noSearch() error {
	if n.search != nil {
		return nil
	}
	return problem.New(problem.NotFound, "no_search_engine", "no search engine is configured (search.urls): the database searches, and has nothing to build")
}

func (n *Node) localSearch(w http.ResponseWriter, r *http.Request) error {
	if err := n.noSearch(); err != nil {
		return err
	}
	status, err := n.search.Status(r.Context())
	if err != nil {
		return err
	}
	return web.JSON(w, http.StatusOK, status)
}

func (n *Node) localSearchRebuild(w http.ResponseWriter, r *http.Request) error {
	if err := n.noSearch(); err != nil {
		return err
	}
	before, err := n.search.Rebuild(r.Context())
	if err != nil {
		return err
	}
	return web.JSON(w, http.StatusAccepted, before)
}
