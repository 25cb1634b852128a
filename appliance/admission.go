package appliance

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/portcullis-id/portcullis/overload"
	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/web"
)

// class is what a request is for. Cached documents and assets have none: to serve
// them costs no more than to refuse them.
func class(r *http.Request) (overload.Class, bool) {
	path := r.URL.Path
	switch {
	case strings.HasPrefix(path, "/.well-known/"), strings.HasPrefix(path, "/u/assets/"), strings.HasPrefix(path, "/avatars/"):
		return 0, false
	case strings.HasPrefix(path, "/api/v2/"):
		if q := r.URL.RawQuery; r.Method == http.MethodGet && (strings.HasPrefix(q, "q=") || strings.Contains(q, "&q=")) {
			return overload.Search, true
		}
		return overload.Admin, true
	case strings.HasPrefix(path, "/oauth/"), path == "/userinfo":
		return overload.Token, true
	}
	return overload.Login, true
}

// admit serves requests as the gate lets them in, and turns the others away in the
// form of their surface.
func admit(gate *overload.Gate, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, gated := class(r)
		if !gated {
			next.ServeHTTP(w, r)
			return
		}
		ctx, leave, err := gate.Enter(r.Context(), c)
		if err != nil {
			turnAway(w, r, problem.From(err), whyBusy)
			return
		}
		defer leave()
		inner := r.WithContext(ctx)
		next.ServeHTTP(w, inner)
		r.Pattern = inner.Pattern // for metrics and traces
	})
}

// What people read of why they were turned away; programs read the problem's message.
const (
	whyBusy = "Very many people are logging in right now."
	whyAway = "This server does not answer at this moment."
)

// refusalHeld is how long a node that must answer nothing lets a request wait before it
// refuses it. A load balancer gives the next request to the node that has the fewest:
// who refuses at once would get nearly all of them, until the balancer's check has
// noticed.
const refusalHeld = 500 * time.Millisecond

// unfit says why this node must take no requests, in words for strangers; nil where it
// may. A node of a cluster whose clock is wrong would make tokens that the others
// refuse.
func (n *Node) unfit() *problem.Error {
	if n.site != nil {
		if e := n.site.unfit(); e != nil {
			return e
		}
	}
	if n.control == nil {
		return nil
	}
	err := n.control.ClockFault()
	if err == nil {
		return nil
	}
	e := problem.Wrap(problem.Unavailable, "clock_apart", err, "This server cannot answer at this moment; try again.")
	e.RetryAfter = time.Second
	return e
}

// fit refuses requests while unfit says why. They have no place at the gate meanwhile:
// they wait for nothing.
func fit(unfit func() *problem.Error, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e := unfit()
		if e == nil {
			next.ServeHTTP(w, r)
			return
		}
		select {
		case <-r.Context().Done():
		case <-time.After(refusalHeld):
		}
		turnAway(w, r, e, whyAway)
	})
}

// turnAway costs next to nothing, as it is what a flood gets.
func turnAway(w http.ResponseWriter, r *http.Request, e *problem.Error, why string) {
	web.EventFrom(r.Context()).Fail(e)
	seconds := max(1, int(e.RetryAfter.Seconds()))
	w.Header().Set("Retry-After", fmt.Sprint(seconds))
	status := e.HTTPStatus()
	switch {
	case strings.HasPrefix(r.URL.Path, "/api/v2/"):
		_ = web.JSON(w, status, map[string]any{"statusCode": status, "error": http.StatusText(status), "message": e.Message, "errorCode": e.Code})
	case isAPI(r.URL.Path):
		_ = web.JSON(w, status, map[string]string{"error": "temporarily_unavailable", "error_description": e.Message})
	default:
		h := w.Header()
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
		again, advice := "", "Go back and send the form again."
		if r.Method == http.MethodGet { // what was only asked for can be asked for again
			again, advice = fmt.Sprintf(`<meta http-equiv="refresh" content="%d">`, seconds+1), "This page tries again by itself."
		}
		w.WriteHeader(status)
		_, _ = fmt.Fprintf(w, busyPage, again, why, advice)
	}
}

const busyPage = `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">%s
<title>Busy</title><style>body{font:1rem/1.5 system-ui,sans-serif;max-width:26rem;margin:20vh auto;padding:0 1.25rem;text-align:center;color:#1f2430}
@media (prefers-color-scheme:dark){body{background:#15171c;color:#e8eaf0}}</style></head>
<body><h1>One moment</h1><p>%s %s</p></body></html>
`

// pausing gives a request's slot to others while another host is asked.
type pausing struct{ http.RoundTripper }

func (p pausing) RoundTrip(req *http.Request) (*http.Response, error) {
	defer overload.Pause(req.Context())()
	return p.RoundTripper.RoundTrip(req)
}
