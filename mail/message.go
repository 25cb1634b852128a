package mail

import (
	"bytes"
	"embed"
	"fmt"
	htmltemplate "html/template"
	"net/mail"
	"strings"
	"sync"
	texttemplate "text/template"
	"time"
	"unicode"

	"github.com/portcullis-id/portcullis/problem"
	"github.com/portcullis-id/portcullis/tenant"
)

// Kind names what a message is about.
type Kind string

// The kinds of messages.
const (
	VerifyEmail     Kind = "verify_email"
	ResetPassword   Kind = "reset_email"
	BlockedAccount  Kind = "blocked_account"
	PasswordChanged Kind = "password_changed"
)

// Message is one mail to one person.
type Message struct {
	ID       string    `json:"id"`
	Kind     Kind      `json:"kind"`
	To       string    `json:"to"`
	Subject  string    `json:"subject"`
	Text     string    `json:"text"`
	HTML     string    `json:"html"`
	Tenant   string    `json:"tenant"`
	UserID   string    `json:"user_id,omitempty"`
	QueuedAt time.Time `json:"queued_at"`
}

// Content is what the texts speak of. All of it is data: templates escape it.
type Content struct {
	Product     string // friendly name of the tenant, or its name
	Application string // name of the application, or empty
	To          string
	Link        string
	Support     string // address or URL of help, or empty
	ValidFor    string // "24 hours"
	IP          string // where it was asked from, or empty
}

//go:embed templates
var files embed.FS

var templates = sync.OnceValues(func() (*texttemplate.Template, error) {
	return texttemplate.ParseFS(files, "templates/*.txt")
})

var page = sync.OnceValues(func() (*htmltemplate.Template, error) {
	return htmltemplate.ParseFS(files, "templates/message.html")
})

// New writes a message of a kind.
func New(k Kind, tenantID, userID string, c Content) (Message, error) {
	m := Message{Kind: k, To: c.To, Tenant: tenantID, UserID: userID}
	// The bare address alone: a form with a name or a note may lead elsewhere.
	if a, err := mail.ParseAddress(c.To); err != nil || a.Address != c.To {
		return m, problem.New(problem.Invalid, "invalid_email", "%q is no mail address", c.To)
	}
	texts, err := templates()
	if err != nil {
		return m, fmt.Errorf("read mail texts: %w", err)
	}
	part := func(name string) (string, error) {
		var b bytes.Buffer
		err := texts.ExecuteTemplate(&b, string(k)+"_"+name, c)
		return strings.TrimSpace(b.String()), err
	}
	var heading, body, button, after string
	for name, into := range map[string]*string{"subject": &m.Subject, "heading": &heading, "body": &body, "button": &button, "after": &after} {
		if *into, err = part(name); err != nil {
			return m, fmt.Errorf("write mail %s: %w", k, err)
		}
	}
	m.Subject = subject(m.Subject)
	parts := []string{heading, body}
	if c.Link != "" {
		parts = append(parts, button+":\n"+c.Link)
	}
	if after != "" {
		parts = append(parts, after)
	}
	parts = append(parts, "-- \n"+c.Product)
	m.Text = strings.Join(parts, "\n\n") + "\n"
	html, err := page()
	if err != nil {
		return m, fmt.Errorf("read mail page: %w", err)
	}
	var b bytes.Buffer
	err = html.Execute(&b, map[string]any{"Subject": m.Subject, "Heading": heading, "Body": strings.Split(body, "\n\n"), "Button": button, "After": after, "C": c})
	m.HTML = b.String()
	return m, err
}

// maxSubject bounds a subject, in characters.
const maxSubject = 200

// subject makes one line of a text, whatever names are in it: without characters
// that control a terminal or the direction of text, and without what a reader
// would take for an encoded word (RFC 2047) and decode.
func subject(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	s = strings.ReplaceAll(strings.Join(strings.Fields(s), " "), "=?", "= ?")
	if r := []rune(s); len(r) > maxSubject {
		s = strings.TrimSpace(string(r[:maxSubject-1])) + "…"
	}
	return s
}

// Enqueue puts a message into the outbox inside a transaction: it leaves when,
// and only when, the transaction is committed.
func Enqueue(tx tenant.Tx, m Message) error {
	m.ID = tenant.NewObjectID(tx.Now()) + tenant.RandomString(8)
	m.QueuedAt = tx.Now()
	return put(tx, m)
}
