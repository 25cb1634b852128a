package mail

import (
	"context"
	_ "embed"
	"html/template"
	"net/http"
	"strings"
	"sync"

	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/web"
)

// mailboxSize is how many messages a Mailbox keeps; older ones go.
const mailboxSize = 500

// Mailbox captures mail on a development node instead of sending it, and shows
// it on a page and as JSON.
type Mailbox struct {
	mu       sync.Mutex
	messages []Message // newest first
}

// NewMailbox makes an empty mailbox.
func NewMailbox() *Mailbox { return &Mailbox{} }

var _ Transport = (*Mailbox)(nil)

// Send implements Transport.
func (b *Mailbox) Send(_ context.Context, m Message) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, have := range b.messages {
		if have.ID == m.ID {
			return nil
		}
	}
	b.messages = append([]Message{m}, b.messages[:min(len(b.messages), mailboxSize-1)]...)
	return nil
}

// Messages returns what was captured, newest first, to one address or to all.
func (b *Mailbox) Messages(to string) []Message {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := []Message{}
	for _, m := range b.messages {
		if to == "" || strings.EqualFold(m.To, to) {
			out = append(out, m)
		}
	}
	return out
}

func (b *Mailbox) find(id string) (Message, bool) {
	for _, m := range b.Messages("") {
		if m.ID == id {
			return m, true
		}
	}
	return Message{}, false
}

//go:embed templates/mailbox.html
var mailboxPage string

var mailboxTemplate = template.Must(template.New("mailbox").Parse(mailboxPage))

// Handler serves the page at /mailbox and JSON at /mailbox/api/messages.
func (b *Mailbox) Handler() http.Handler {
	mux := http.NewServeMux()
	page := func(w http.ResponseWriter, status int, data any) {
		h := w.Header()
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-src 'self'; img-src data:; base-uri 'none'; form-action 'self'; frame-ancestors 'self'")
		h.Set("X-Content-Type-Options", "nosniff")
		w.WriteHeader(status)
		_ = mailboxTemplate.Execute(w, data) // the reader has gone
	}
	mux.HandleFunc("GET /mailbox", func(w http.ResponseWriter, r *http.Request) {
		page(w, http.StatusOK, map[string]any{"Messages": b.Messages(r.URL.Query().Get("to"))})
	})
	mux.HandleFunc("GET /mailbox/{id}", func(w http.ResponseWriter, r *http.Request) {
		m, ok := b.find(r.PathValue("id"))
		if !ok {
			page(w, http.StatusNotFound, map[string]any{"Missing": true})
			return
		}
		page(w, http.StatusOK, map[string]any{"Message": m})
	})
	// The message's own HTML, without scripts, in a frame of the page above. Its links
	// open outside of the frame.
	mux.HandleFunc("GET /mailbox/{id}/html", func(w http.ResponseWriter, r *http.Request) {
		m, ok := b.find(r.PathValue("id"))
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; img-src https: data:; frame-ancestors 'self'; sandbox allow-popups allow-popups-to-escape-sandbox allow-top-navigation-by-user-activation")
		_, _ = w.Write([]byte(strings.Replace(m.HTML, "<head>", `<head><base target="_top">`, 1)))
	})
	mux.HandleFunc("POST /mailbox/clear", func(w http.ResponseWriter, r *http.Request) {
		b.clear()
		http.Redirect(w, r, "/mailbox", http.StatusSeeOther)
	})
	mux.HandleFunc("GET /mailbox/api/messages", func(w http.ResponseWriter, r *http.Request) {
		_ = web.JSON(w, http.StatusOK, b.Messages(r.URL.Query().Get("to")))
	})
	mux.HandleFunc("DELETE /mailbox/api/messages", func(w http.ResponseWriter, _ *http.Request) {
		b.clear()
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("GET /mailbox/api/messages/{id}", func(w http.ResponseWriter, r *http.Request) {
		m, ok := b.find(r.PathValue("id"))
		if !ok {
			_ = web.JSON(w, http.StatusNotFound, problem.New(problem.NotFound, "inexistent_message", "the mailbox has no such message"))
			return
		}
		_ = web.JSON(w, http.StatusOK, m)
	})
	return http.NewCrossOriginProtection().Handler(mux)
}

func (b *Mailbox) clear() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.messages = nil
}
