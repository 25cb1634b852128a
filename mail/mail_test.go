package mail_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/portcullis-id/portcullis/mail"
	"github.com/portcullis-id/portcullis/store"
	"github.com/portcullis-id/portcullis/store/storetest"
	"github.com/portcullis-id/portcullis/tenant"
)

func content(to string) mail.Content {
	return mail.Content{Product: "Acme <b>&\r\nBcc: evil@x.test", Application: "<script>app</script>", To: to, Link: "https://id.test/u/x?ticket=t&a=b", ValidFor: "24 hours"}
}

func TestMessagesEscapeWhatStrangersWrote(t *testing.T) {
	for _, k := range []mail.Kind{mail.VerifyEmail, mail.ResetPassword, mail.BlockedAccount, mail.PasswordChanged} {
		m, err := mail.New(k, "a", "u", content("ann@example.com"))
		if err != nil {
			t.Fatalf("%s: %v", k, err)
		}
		if strings.Contains(m.HTML, "<script>") || strings.Contains(m.HTML, "<b>") {
			t.Errorf("%s: a name is markup: %s", k, m.HTML)
		}
		if strings.ContainsAny(m.Subject, "\r\n") || m.Subject == "" {
			t.Errorf("%s: the subject is %q", k, m.Subject)
		}
		if k != mail.PasswordChanged && !strings.Contains(m.Text, "https://id.test/u/x?ticket=t&a=b") {
			t.Errorf("%s: the link is not in the text", k)
		}
	}
	for _, to := range []string{"", "no address", "a@x.test\r\nBcc: b@x.test"} {
		if _, err := mail.New(mail.VerifyEmail, "a", "u", content(to)); err == nil {
			t.Errorf("a mail to %q was written", to)
		}
	}
}

// flaky fails the first sends.
type flaky struct {
	mu    sync.Mutex
	fails int
	sent  []mail.Message
}

func (f *flaky) Send(_ context.Context, m mail.Message) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fails > 0 {
		f.fails--
		return errors.New("the server is away")
	}
	f.sent = append(f.sent, m)
	return nil
}

type events struct{ types []tenant.LogType }

func (e *events) Append(_ string, ev tenant.LogEvent) { e.types = append(e.types, ev.Type) }

func outbox(t *testing.T, tr mail.Transport, log tenant.Log) (*store.Store, *mail.Outbox, *time.Time) {
	t.Helper()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	d, err := store.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "x.db"), store.Options{Sealer: storetest.Sealer(t), Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	names := func(context.Context) ([]string, error) { return []string{"a", "b"}, nil }
	return d, mail.NewOutbox(d, names, tr, log, slog.New(slog.NewTextHandler(t.Output(), nil))), &now
}

func enqueue(t *testing.T, d tenant.Docs, fail error) {
	t.Helper()
	m, err := mail.New(mail.VerifyEmail, "a", "u", content("ann@example.com"))
	if err != nil {
		t.Fatal(err)
	}
	err = d.Write(t.Context(), "a", func(tx tenant.Tx) error { return errors.Join(mail.Enqueue(tx, m), fail) })
	if !errors.Is(err, fail) {
		t.Fatal(err)
	}
}

func TestMailLeavesWithItsTransactionAndIsTriedAgain(t *testing.T) {
	tr := &flaky{fails: 2}
	d, o, now := outbox(t, tr, &events{})
	enqueue(t, d, errors.New("rolled back"))
	enqueue(t, d, nil)
	deliver := func() {
		t.Helper()
		if err := o.Deliver(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	deliver() // fails
	deliver() // not due yet
	if len(tr.sent) != 0 || tr.fails != 1 {
		t.Fatalf("%d sent, %d failures to come: it was tried too early", len(tr.sent), tr.fails)
	}
	*now = now.Add(time.Minute)
	deliver() // fails again
	*now = now.Add(time.Hour)
	deliver()
	if len(tr.sent) != 1 || tr.sent[0].To != "ann@example.com" {
		t.Fatalf("sent %d, want the one that was committed", len(tr.sent))
	}
	*now = now.Add(24 * time.Hour)
	deliver()
	if len(tr.sent) != 1 {
		t.Error("it was sent twice")
	}
}

func TestAMailThatNobodyTakesIsGivenUp(t *testing.T) {
	tr, log := &flaky{fails: 1000}, &events{}
	d, o, now := outbox(t, tr, log)
	enqueue(t, d, nil)
	for range 40 {
		if err := o.Deliver(t.Context()); err != nil {
			t.Fatal(err)
		}
		*now = now.Add(3 * time.Hour)
	}
	if tries := 1000 - tr.fails; tries != 25 {
		t.Errorf("%d tries, want 25", tries)
	}
	if len(log.types) != 1 || log.types[0] != tenant.LogMailFailed {
		t.Errorf("the tenant's log has %v", log.types)
	}
}

// TestSMTP sends to a server that speaks just enough of RFC 5321.
func TestSMTP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	got := make(chan string, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprint(conn, "220 test\r\n")
		var all strings.Builder
		data := false
		for s := bufio.NewScanner(conn); s.Scan(); {
			line := s.Text()
			fmt.Fprintln(&all, line)
			switch {
			case data && line == ".":
				data = false
				fmt.Fprint(conn, "250 ok\r\n")
			case data:
			case strings.HasPrefix(line, "EHLO"):
				fmt.Fprint(conn, "250-test\r\n250 8BITMIME\r\n")
			case line == "DATA":
				data = true
				fmt.Fprint(conn, "354 go on\r\n")
			case line == "QUIT":
				fmt.Fprint(conn, "221 bye\r\n")
				got <- all.String()
				return
			default:
				fmt.Fprint(conn, "250 ok\r\n")
			}
		}
	}()
	var d net.Dialer
	cfg := mail.SMTPConfig{Host: "mail.test", Port: 25, From: "Acme <login@acme.test>", TLS: "none"}
	s := mail.NewSMTP(cfg, func(ctx context.Context, network, _ string) (net.Conn, error) {
		return d.DialContext(ctx, network, l.Addr().String())
	})
	m, err := mail.New(mail.ResetPassword, "a", "u", mail.Content{Product: "Acme", To: "ann@example.com", Link: "https://id.test/x"})
	if err != nil {
		t.Fatal(err)
	}
	m.ID = "same-each-time"
	if err := s.Send(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	text := <-got
	for _, want := range []string{"RCPT TO:<ann@example.com>", "MAIL FROM:<login@acme.test>", "same-each-time@a.portcullis", "multipart/alternative"} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is not in what was sent:\n%s", want, text)
		}
	}
	// STARTTLS is not optional: a server without it gets nothing.
	cfg.TLS = "starttls"
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprint(conn, "220 test\r\n")
		for s := bufio.NewScanner(conn); s.Scan(); {
			fmt.Fprint(conn, "250 test\r\n")
		}
	}()
	s = mail.NewSMTP(cfg, func(ctx context.Context, network, _ string) (net.Conn, error) {
		return d.DialContext(ctx, network, l.Addr().String())
	})
	if err := s.Send(t.Context(), m); err == nil {
		t.Error("mail went out in the clear though STARTTLS was asked for")
	}
}
