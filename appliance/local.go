package appliance

import (
	"encoding/json"
	"net/http"
	"net/http/pprof"
	"slices"
	"strings"
	"time"

	"github.com/portcullis-id/portcullis/client"
	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/web"
)

// localHandler is what the socket in the data folder serves: endpoints that exist
// nowhere else, profiles among them, and all of the main listener beside them, so that the
// command line uses the same APIs as everybody.
func (n *Node) localHandler(main http.Handler) http.Handler {
	render := func(w http.ResponseWriter, _ *http.Request, e *problem.Error) {
		_ = web.JSON(w, e.HTTPStatus(), map[string]any{
			"statusCode": e.HTTPStatus(), "error": http.StatusText(e.HTTPStatus()), "message": e.Message, "errorCode": e.Code,
		})
	}
	local := http.NewServeMux()
	local.Handle("GET /status", web.Handle(n.localStatus, render))
	local.Handle("GET /social-hosts", web.Handle(n.localSocialHosts, render))
	local.Handle("GET /network-audit", web.Handle(n.localAudit, render))
	local.Handle("GET /network-addresses", web.Handle(n.localAddresses, render))
	local.Handle("GET /search", web.Handle(n.localSearch, render))
	local.Handle("POST /search/rebuild", web.Handle(n.localSearchRebuild, render))
	local.Handle("POST /token", web.Handle(n.localToken, render))
	n.localCluster(local, func(h func(http.ResponseWriter, *http.Request) error) http.Handler { return web.Handle(h, render) })
	n.limits.register(local, render)
	// Profiles show addresses and, in a heap, what was in them: the socket's mode
	// keeps them to the node's own user.
	local.HandleFunc("GET /debug/pprof/", pprof.Index)
	local.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	local.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Host == client.LocalHost {
			local.ServeHTTP(w, r)
			return
		}
		main.ServeHTTP(w, r)
	})
}

func (n *Node) localStatus(w http.ResponseWriter, _ *http.Request) error {
	h := n.cfg.Hosts()
	return web.JSON(w, http.StatusOK, client.Status{
		Version: n.opts.Version, RootTenant: n.cfg.RootTenant, RootHost: h.Host(n.cfg.RootTenant), URL: h.URL(n.cfg.RootTenant),
	})
}

// localSocialHosts says which outside hosts the connections of all tenants are at.
func (n *Node) localSocialHosts(w http.ResponseWriter, r *http.Request) error {
	tenants, err := n.mgmt.Tenants(r.Context())
	if err != nil {
		return err
	}
	hosts, err := n.upstream.Hosts(r.Context(), tenants)
	if err != nil {
		return err
	}
	if hosts == nil {
		hosts = []string{}
	}
	return web.JSON(w, http.StatusOK, hosts)
}

// decode reads a request's body into a struct with the fields that want names.
func decode(r *http.Request, into any, want string) error {
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return problem.Wrap(problem.Invalid, "invalid_body", err, "The body wants %s", want)
	}
	return nil
}

func (n *Node) localToken(w http.ResponseWriter, r *http.Request) error {
	var req client.TokenRequest
	if err := decode(r, &req, "{tenant, scopes, ttl}"); err != nil {
		return err
	}
	if req.TTL == 0 {
		req.TTL = 3600
	}
	if req.TTL < 60 || req.TTL > 86400 {
		return problem.New(problem.Invalid, "invalid_body", "ttl is %d s; allowed are 1m to 24h", req.TTL)
	}
	t, err := n.directory.Tenant(r.Context(), req.Tenant)
	if problem.Is(err, problem.NotFound) {
		return problem.New(problem.NotFound, "inexistent_tenant", "there is no tenant %q; `portcullis tenants ls` lists them", req.Tenant)
	}
	if err != nil {
		return err
	}
	all := n.scopes(t.Root)
	if len(req.Scopes) == 0 {
		req.Scopes = all
	}
	for _, s := range req.Scopes {
		if !slices.Contains(all, s) {
			return problem.New(problem.Invalid, "invalid_body", "there is no scope %q; allowed are: %s", s, strings.Join(all, ", "))
		}
	}
	ttl := time.Duration(req.TTL) * time.Second
	token, err := n.oauth.MintManagementToken(r.Context(), t.Name, "local|administrator", req.Scopes, ttl)
	if err != nil {
		return err
	}
	return web.JSON(w, http.StatusOK, client.Token{
		AccessToken: token, URL: n.cfg.Hosts().URL(t.Name), ExpiresAt: n.opts.Now().Add(ttl).UTC().Truncate(time.Second),
	})
}
