package mail

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strconv"
	"time"

	gomail "github.com/wneessen/go-mail"

	"github.com/portcullis-id/portcullis/problem"
)

// SMTPConfig is a mail server.
type SMTPConfig struct {
	Host     string
	Port     int
	Username string // empty: no authentication
	Password string
	From     string
	// TLS is "starttls" (RFC 3207; refused when the server does not offer it),
	// "implicit" (RFC 8314 section 3.3) or "none".
	TLS string
}

// SMTP sends through a mail server.
type SMTP struct {
	cfg  SMTPConfig
	dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// NewSMTP makes a transport; dial opens the connections, for the contract's row
// smtp.
func NewSMTP(cfg SMTPConfig, dial func(ctx context.Context, network, address string) (net.Conn, error)) *SMTP {
	return &SMTP{cfg, dial}
}

func (s *SMTP) client() (*gomail.Client, error) {
	opts := []gomail.Option{
		gomail.WithPort(s.cfg.Port), gomail.WithTimeout(30 * time.Second),
		gomail.WithTLSConfig(&tls.Config{ServerName: s.cfg.Host, MinVersion: tls.VersionTLS12}),
	}
	dial := s.dial
	switch s.cfg.TLS {
	case "implicit":
		// With a dialer of our own the library leaves TLS to it.
		dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := s.dial(ctx, network, address)
			if err != nil {
				return nil, err
			}
			secured := tls.Client(conn, &tls.Config{ServerName: s.cfg.Host, MinVersion: tls.VersionTLS12})
			if err := secured.HandshakeContext(ctx); err != nil {
				conn.Close()
				return nil, err
			}
			return secured, nil
		}
		opts = append(opts, gomail.WithTLSPolicy(gomail.NoTLS))
	case "none":
		opts = append(opts, gomail.WithTLSPolicy(gomail.NoTLS))
	default:
		opts = append(opts, gomail.WithTLSPolicy(gomail.TLSMandatory))
	}
	opts = append(opts, gomail.WithDialContextFunc(dial))
	if s.cfg.Username != "" {
		auth := gomail.SMTPAuthPlain
		if s.cfg.TLS == "none" || s.cfg.TLS == "implicit" {
			// The library cannot see that the connection is private, or that the operator
			// chose that it is not.
			auth = gomail.SMTPAuthPlainNoEnc
		}
		opts = append(opts, gomail.WithSMTPAuth(auth), gomail.WithUsername(s.cfg.Username), gomail.WithPassword(s.cfg.Password))
	}
	return gomail.NewClient(s.cfg.Host, opts...)
}

// Send implements Transport.
func (s *SMTP) Send(ctx context.Context, m Message) error {
	c, err := s.client()
	if err != nil {
		return fmt.Errorf("set up mail: %w", err)
	}
	msg, err := s.compose(m)
	if err != nil {
		return err
	}
	if err := c.DialAndSendWithContext(ctx, msg); err != nil {
		return fmt.Errorf("send mail through %s: %w", net.JoinHostPort(s.cfg.Host, strconv.Itoa(s.cfg.Port)), err)
	}
	return nil
}

// compose writes a message as it goes over the wire (RFC 5322).
func (s *SMTP) compose(m Message) (*gomail.Msg, error) {
	msg := gomail.NewMsg()
	if err := msg.From(s.cfg.From); err != nil {
		return nil, problem.Wrap(problem.Invalid, "invalid_from", err, "smtp.from is no mail address")
	}
	if err := msg.To(m.To); err != nil {
		return nil, problem.Wrap(problem.Invalid, "invalid_email", err, "the recipient is no mail address")
	}
	msg.Subject(m.Subject)
	// The same id for each try: servers and readers drop what came twice.
	msg.SetMessageIDWithValue(m.ID + "@" + m.Tenant + ".portcullis")
	msg.SetBodyString(gomail.TypeTextPlain, m.Text)
	msg.AddAlternativeString(gomail.TypeTextHTML, m.HTML)
	return msg, nil
}

// Check connects, secures the connection and authenticates, as Send would.
func (s *SMTP) Check(ctx context.Context) error {
	c, err := s.client()
	if err != nil {
		return err
	}
	if err := c.DialWithContext(ctx); err != nil {
		return err
	}
	return c.Close()
}
