package appliance

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/portcullis-id/portcullis/client"
	"github.com/portcullis-id/portcullis/netcontract"
	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/web"
)

// surface is one listener with what it serves and the row of the contract that
// declares it.
type surface struct {
	row      netcontract.RowID
	name     string
	listener net.Listener
	handler  http.Handler
	h2c      bool         // HTTP/2 without TLS, which balancers speak behind themselves
	port     net.Listener // below PROXY protocol and TLS; nil where nothing is
}

// listen opens a TCP port for a row. MPTCP stays off: Landlock's network rules do
// not see it.
func listen(ctx context.Context, row netcontract.RowID, address string, port int) (net.Listener, error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(ctx, "tcp", net.JoinHostPort(address, strconv.Itoa(port)))
	if err == nil {
		return l, nil
	}
	where := net.JoinHostPort(address, strconv.Itoa(port))
	switch {
	case errors.Is(err, os.ErrPermission):
		return nil, fmt.Errorf("listen on %s (row %s): ports below 1024 need root or CAP_NET_BIND_SERVICE; choose another in `listen`: %w", where, row, err)
	case strings.Contains(err.Error(), "address already in use"):
		return nil, fmt.Errorf("listen on %s (row %s): another program has the port; stop it, or choose another in `listen`: %w", where, row, err)
	}
	return nil, fmt.Errorf("listen on %s (row %s): %w", where, row, err)
}

// listenLocal opens the socket in the data folder: the node's own host asks
// there, and the file's mode says who may.
func listenLocal(dataDir string) (net.Listener, error) {
	dir, err := os.Open(dataDir)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	path := client.SocketPath(dir)
	// The store's lock holds: no other node runs here, so the file is a leftover.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove the old local socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on the local socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("close the local socket to others: %w", err)
	}
	// The path goes through a descriptor that is closed by then.
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	return l, nil
}

// serve runs all surfaces until ctx ends, drains, and lets requests in flight
// finish.
func serve(ctx context.Context, log *slog.Logger, surfaces []surface, conns map[string]*connections, d *drain, drainFor time.Duration) error {
	var g errgroup.Group
	servers := make([]*http.Server, len(surfaces))
	ended := make([]chan struct{}, len(surfaces))
	var stopping atomic.Bool
	failed, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	for i, s := range surfaces {
		servers[i] = &http.Server{
			Handler:           s.handler,
			ReadHeaderTimeout: 10 * time.Second, // slow senders of headers hold a connection no longer
			ReadTimeout:       time.Minute,
			WriteTimeout:      2 * time.Minute,
			IdleTimeout:       2 * time.Minute,
			MaxHeaderBytes:    64 << 10,
			HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: 100, MaxReadFrameSize: 64 << 10},
			ErrorLog:          slog.NewLogLogger(log.With("surface", s.name).Handler(), slog.LevelDebug),
		}
		if s.h2c {
			servers[i].Protocols = new(http.Protocols)
			servers[i].Protocols.SetHTTP1(true)
			servers[i].Protocols.SetUnencryptedHTTP2(true)
		}
		if c := conns[s.name]; c != nil {
			servers[i].ConnState = c.state
		}
		ended[i] = make(chan struct{})
		g.Go(func() error {
			defer close(ended[i])
			if err := servers[i].Serve(s.listener); !errors.Is(err, http.ErrServerClosed) && !stopping.Load() {
				err = fmt.Errorf("serve %s: %w", s.name, err)
				cancel(err)
				return err
			}
			return nil
		})
	}
	select {
	case <-ctx.Done():
		d.wait(failed, log, drainFor)
	case <-failed.Done():
	}
	if d.handOver != nil {
		d.handOver(ctx)
	}
	stopping.Store(true)
	stop, done := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer done()
	var closing sync.WaitGroup
	for i, s := range servers { // together: a slow request of one keeps no other open
		closing.Go(func() {
			if p := surfaces[i].port; p != nil {
				emptyBacklog(p)
				_ = p.Close() // Shutdown closes it again
				<-ended[i]
				conns[surfaces[i].name].answer(firstRequestTime)
			}
			if err := s.Shutdown(stop); err != nil {
				log.Warn("requests were cut off at the stop", "surface", surfaces[i].name, "error", err)
				_ = s.Close()
			}
		})
	}
	closing.Wait()
	return g.Wait()
}

// tlsConfig takes the certificate from get for each handshake, so that a renewal
// needs no restart.
func tlsConfig(get func(time.Time) (*tls.Certificate, error), now func() time.Time) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return get(now())
		},
	}
}

// secure lets requests through that came over TLS, to this node or to a trusted
// proxy in front of it, and API requests of this host's own programs. A page is
// sent on to HTTPS; an API call that carried its secrets in the clear is refused,
// so that the mistake shows at once.
func secure(cfg *Config, next http.Handler) http.Handler {
	trusted := cfg.trustedProxies()
	hosts := cfg.Hosts()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS != nil {
			next.ServeHTTP(w, r)
			return
		}
		peer := peerAddr(r)
		for _, p := range trusted {
			if p.Contains(peer) && r.Header.Get("X-Forwarded-Proto") == "https" {
				next.ServeHTTP(w, r)
				return
			}
		}
		api := isAPI(r.URL.Path)
		ownHost := (peer.IsLoopback() || !peer.IsValid()) && r.Header.Get("X-Forwarded-Proto") == "" // a balancer here speaks for others
		if api && ownHost || r.URL.Path == "/testall" {
			next.ServeHTTP(w, r)
			return
		}
		name, ok := hosts.Name(r.Host)
		if !ok {
			http.Error(w, "No tenant answers on this host name.", http.StatusNotFound)
			return
		}
		if api || r.Method != http.MethodGet && r.Method != http.MethodHead {
			e := problem.New(problem.Forbidden, "https_required", "Use HTTPS: %s", hosts.URL(name))
			_ = web.JSON(w, e.HTTPStatus(), map[string]any{"statusCode": e.HTTPStatus(), "error": "Forbidden", "message": e.Message, "errorCode": e.Code})
			return
		}
		// Of the request's target only path and query, so that nothing of it can go on
		// with the host ("GET x:.evil.example" is a target without a path).
		to := url.URL{Scheme: "https", Host: hosts.Host(name), Path: "/" + strings.TrimPrefix(r.URL.Path, "/"), RawPath: r.URL.RawPath, RawQuery: r.URL.RawQuery}
		http.Redirect(w, r, to.String(), http.StatusPermanentRedirect) // #nosec G710 -- the host is of the settings
	})
}

func peerAddr(r *http.Request) netip.Addr {
	a, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{} // the local socket
	}
	return a.Addr().Unmap()
}

// isAPI tells the endpoints that programs call from the pages that people see.
func isAPI(path string) bool {
	for _, p := range []string{"/api/", "/oauth/", "/.well-known/", "/userinfo", "/dbconnections/", "/health/", "/mailbox/api/"} {
		if strings.HasPrefix(path, p) {
			return true
		}
	}
	return false
}
