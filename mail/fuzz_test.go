package mail

import (
	"bytes"
	"io"
	"mime"
	"net/mail"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// FuzzMessage: whatever people call themselves, a message that is written goes to
// the one address that it is for, and has the headers that we give it and no
// other, each once.
func FuzzMessage(f *testing.F) {
	for _, s := range [][2]string{{"ann@example.com", "Acme"}, {"ann@example.com\r\nBcc: evil@x.test", "x"}, {"Eve <ann@example.com>", "x"}, {"a@b.test, c@d.test", "x"}, {`"a b"@x.test`, "x"}, {"änn@example.com", "Ä ö"},
		{"ann@example.com", "Acme\r\nBcc: evil@x.test\r\n\r\nbody"}, {"ann@example.com", "a\x00b\x1b[31m"}, {"ann@example.com", strings.Repeat("long ", 300)}, {"ann@example.com", "=?utf-8?q?x=0D=0ABcc:_e@x?="},
		{"ann@example.com", "\u202egnp\u2028"}, {"ann@example.com", "\xff"}, {"a@[127.0.0.1]", "x"}, {"<a@b.test>", "x"}, {"a@b.test (note)", "x"}, {strings.Repeat("a", 300) + "@b.test", "x"}} {
		f.Add(s[0], s[1])
	}
	s := NewSMTP(SMTPConfig{Host: "mail.test", From: "id@example.com"}, nil)
	allowed := []string{"Content-Type", "Date", "From", "Message-Id", "Mime-Version", "Subject", "To", "User-Agent", "X-Mailer"}
	f.Fuzz(func(t *testing.T, to, name string) {
		for _, k := range []Kind{VerifyEmail, ResetPassword, BlockedAccount, PasswordChanged} {
			m, err := New(k, "acme", "auth0|1", Content{Product: name, Application: name, To: to, Link: "https://id.test/u/x?ticket=t", Support: name, ValidFor: "24 hours", IP: name})
			if err != nil {
				return
			}
			if strings.ContainsFunc(m.Subject, unicode.IsControl) || !utf8.ValidString(m.Subject) || len(m.Subject) > 1000 {
				t.Fatalf("the subject is %q", m.Subject)
			}
			m.ID = "1"
			msg, err := s.compose(m)
			if err != nil {
				t.Fatalf("a mail to %q was queued and cannot be written: %v", to, err)
			}
			var b bytes.Buffer
			if _, err := msg.WriteTo(&b); err != nil {
				t.Fatal(err)
			}
			read, err := mail.ReadMessage(&b)
			if err != nil {
				t.Fatalf("%q, %q: %v", to, name, err)
			}
			for h, v := range read.Header {
				if !slices.Contains(allowed, h) || len(v) != 1 {
					t.Fatalf("%q, %q: the header %s is %q", to, name, h, v)
				}
			}
			list, err := read.Header.AddressList("To")
			if err != nil || len(list) != 1 || list[0].Address != to {
				t.Fatalf("a mail to %q goes to %q, %v", to, read.Header["To"], err)
			}
			subject, err := new(mime.WordDecoder).DecodeHeader(read.Header.Get("Subject"))
			if err != nil || strings.Join(strings.Fields(subject), "") != strings.Join(strings.Fields(m.Subject), "") {
				t.Fatalf("the subject %q arrives as %q, %v", m.Subject, subject, err)
			}
			if body, err := io.ReadAll(read.Body); err != nil || len(body) == 0 {
				t.Fatal("no body", err)
			}
		}
	})
}
