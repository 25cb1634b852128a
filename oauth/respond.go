package oauth

import (
	"crypto/rand"
	"encoding/json"
	"html/template"
	"net/http"
	"net/url"
	"strings"
)

// respond gives the parameters of an authorization response to the client, in
// the mode that it asked for. Every response names its issuer (RFC 9207).
func (p *Provider) respond(w http.ResponseWriter, r *http.Request, req Request, v url.Values) error {
	v.Set("iss", p.dir.URL(tenantOf(r.Context())))
	if req.State != "" {
		v.Set("state", req.State)
	}
	noStore(w)
	w.Header().Set("Referrer-Policy", "no-referrer")
	switch req.ResponseMode {
	case "form_post":
		return formPost(w, req.RedirectURI, v)
	case "web_message":
		return webMessage(w, originOf(req.RedirectURI), v)
	case "fragment":
		http.Redirect(w, r, req.RedirectURI+"#"+v.Encode(), http.StatusFound)
		return nil
	}
	sep := "?"
	if strings.Contains(req.RedirectURI, "?") {
		sep = "&"
	}
	http.Redirect(w, r, req.RedirectURI+sep+v.Encode(), http.StatusFound)
	return nil
}

// formPost is the OAuth 2.0 Form Post Response Mode. The script only presses the
// button; without scripts a person does.
var formPostPage = template.Must(template.New("form_post").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Going on…</title></head>
<body><form method="post" action="{{.URI}}">{{range $k, $v := .Values}}<input type="hidden" name="{{$k}}" value="{{index $v 0}}">{{end}}
<noscript><p>Press the button to go on.</p></noscript><button>Continue</button></form>
<script nonce="{{.Nonce}}">document.forms[0].submit()</script></body></html>
`))

func formPost(w http.ResponseWriter, uri string, v url.Values) error {
	nonce := rand.Text()
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'nonce-"+nonce+"'; base-uri 'none'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	return formPostPage.Execute(w, map[string]any{"URI": template.URL(uri), "Values": v, "Nonce": nonce}) // #nosec G203 -- matchRedirect found the URI on the client's list, and plausible refuses what a browser would run
}

// webMessage answers a frame or a popup of the application by postMessage, to its
// registered origin alone (OAuth 2.0 Web Message Response Mode).
func webMessage(w http.ResponseWriter, origin string, v url.Values) error {
	response := map[string]string{}
	for k := range v {
		response[k] = v.Get(k)
	}
	// json.Marshal escapes <, > and &: the text cannot leave the script.
	message, err := json.Marshal(map[string]any{"type": "authorization_response", "response": response})
	if err != nil {
		return err
	}
	target, err := json.Marshal(origin)
	if err != nil {
		return err
	}
	nonce := rand.Text()
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'nonce-"+nonce+"'; base-uri 'none'; frame-ancestors "+origin)
	h.Set("X-Content-Type-Options", "nosniff")
	_, err = w.Write([]byte(`<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Authorization response</title></head><body><script nonce="` + nonce +
		`">(function(){var to=window.opener||(window.parent!==window?window.parent:null);if(to)to.postMessage(` + string(message) + `,` + string(target) + `)})()</script></body></html>`))
	return err
}

// originOf is scheme, host and port of a URI.
func originOf(uri string) string {
	u, err := url.Parse(uri)
	if err != nil {
		return ""
	}
	return u.Scheme + "://" + u.Host
}
