package cli

import (
	"crypto/ed25519"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/portcullis-id/portcullis/addresses"
)

type depotCmd struct {
	Addresses depotAddressesCmd `cmd:"" help:"The signed list of a depot's addresses."`
}

type depotAddressesCmd struct {
	Sign   depotSignCmd   `cmd:"" help:"Sign the list of a depot's addresses, those of later included."`
	Verify depotVerifyCmd `cmd:"" help:"Show what a signed list says, and whether nodes would take it."`
}

type depotSignCmd struct {
	output
	Key     string        `required:"" type:"path" placeholder:"FILE" help:"Private key (Ed25519, PKCS #8, PEM). It is made, with mode 0600, when there is no file."`
	Address []string      `required:"" placeholder:"HOST=ADDRESS[@FROM[/UNTIL]]" help:"An address of the depot, in use from and until a time such as 2026-12-01T00:00:00Z; without times always. May be repeated."`
	Expires time.Duration `default:"2160h" help:"How long the list is good, at most 9600h (400 days)."`
	Version int64         `placeholder:"N" help:"Number of the list, larger than that of every one before; the seconds since 1970 when it is left out."`
	Out     string        `type:"path" placeholder:"FILE" help:"Where to write the list; it is printed without."`
}

func (depotSignCmd) Help() string {
	return `Nodes fetch the list from https://DEPOT` + addresses.Path + ` and report the addresses of later with the rule to
add, so that their firewalls are open before the depot moves. Name the public key, which is printed, to the nodes
as network.depot_key. Sign a new list before this one expires: nodes do not use one that has, and refuse one with
a smaller version than they have seen.

Examples:
  portcullis depot addresses sign --key depot.key --address depot.example.com=203.0.113.9 \
    --address depot.example.com=203.0.113.10@2026-12-01T00:00:00Z --out www/.well-known/portcullis-addresses
  portcullis depot addresses sign --key depot.key --address depot.example.com=203.0.113.9@/2026-12-08T00:00:00Z --expires 720h`
}

// signedList is what the command says of its work.
type signedList struct {
	Key  string         `json:"key"` // for network.depot_key
	Made bool           `json:"key_made"`
	List addresses.List `json:"list"`
	JWS  string         `json:"jws,omitempty"` // when no file was named
	File string         `json:"file,omitempty"`
}

func (c *depotSignCmd) Run(std IO) error {
	now := time.Now().UTC().Truncate(time.Second)
	if c.Version == 0 {
		c.Version = now.Unix()
	}
	l := addresses.List{Version: c.Version, IssuedAt: now, Expires: now.Add(c.Expires)}
	for _, text := range c.Address {
		if err := addAddress(&l, text); err != nil {
			return err
		}
	}
	// What is wrong with the list is said before a key is made for it.
	if _, err := addresses.Sign(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)), l); err != nil {
		return usageError(err.Error())
	}
	key, made, err := addresses.Key(c.Key)
	if err != nil {
		return err
	}
	raw, err := addresses.Sign(key, l)
	if err != nil {
		return err
	}
	public, ok := key.Public().(ed25519.PublicKey)
	if !ok {
		return fmt.Errorf("%s holds no Ed25519 key", c.Key)
	}
	s := signedList{Key: addresses.FormatKey(public), Made: made, List: l, File: c.Out}
	if c.Out != "" {
		if err := os.WriteFile(c.Out, raw, 0o644); err != nil { // #nosec G306 -- it is public
			return fmt.Errorf("write the list: %w", err)
		}
	} else {
		s.JWS = strings.TrimSpace(string(raw))
	}
	said := std.Err // the list alone is on the standard output
	if c.Output == "json" || c.Out != "" {
		said = std.Out
	}
	return c.print(said, s, func(w io.Writer) {
		if made {
			fmt.Fprintf(w, "made the key %s: keep it safe\n", c.Key)
		}
		if c.Out == "" {
			fmt.Fprintln(std.Out, s.JWS)
		} else {
			fmt.Fprintf(w, "wrote %s: version %d, good until %s\n", c.Out, l.Version, l.Expires.Format(time.RFC3339))
		}
		fmt.Fprintf(w, "network.depot_key: %s\n", s.Key)
	})
}

// addAddress reads HOST=ADDRESS[@FROM[/UNTIL]].
func addAddress(l *addresses.List, text string) error {
	wrong := usageError(fmt.Sprintf("--address %q: allowed is HOST=ADDRESS, with @FROM or @FROM/UNTIL behind it, such as depot.example.com=203.0.113.10@2026-12-01T00:00:00Z", text))
	host, rest, ok := strings.Cut(text, "=")
	addr, times, _ := strings.Cut(rest, "@")
	at, err := netip.ParseAddr(addr)
	if !ok || err != nil {
		return wrong
	}
	a := addresses.Address{Address: at.Unmap()}
	from, until, _ := strings.Cut(times, "/")
	for text, into := range map[string]*time.Time{from: &a.ValidFrom, until: &a.ValidUntil} {
		if text == "" {
			continue
		}
		if *into, err = time.Parse(time.RFC3339, text); err != nil {
			return wrong
		}
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	i := slices.IndexFunc(l.Hosts, func(h addresses.Host) bool { return h.Host == host })
	if i < 0 {
		i = len(l.Hosts)
		l.Hosts = append(l.Hosts, addresses.Host{Host: host})
	}
	l.Hosts[i].Addresses = append(l.Hosts[i].Addresses, a)
	return nil
}

type depotVerifyCmd struct {
	output
	Key  string `required:"" placeholder:"KEY" help:"The public key, as network.depot_key has it."`
	File string `arg:"" type:"existingfile" help:"The signed list."`
}

func (depotVerifyCmd) Help() string {
	return `Exit code 1 means that nodes with this key refuse the list.

Example:
  portcullis depot addresses verify --key ed25519:11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo www/.well-known/portcullis-addresses`
}

func (c *depotVerifyCmd) Run(std IO) error {
	key, err := addresses.ParseKey(c.Key)
	if err != nil {
		return usageError("--key " + err.Error())
	}
	raw, err := os.ReadFile(c.File)
	if err != nil {
		return usageError(err.Error())
	}
	l, err := addresses.Open(key, raw)
	if err != nil {
		return err
	}
	if err := l.Valid(time.Now()); err != nil {
		return err
	}
	return c.print(std.Out, l, func(w io.Writer) {
		fmt.Fprintf(w, "version %d, issued %s, good until %s\n", l.Version, l.IssuedAt.Format(time.RFC3339), l.Expires.Format(time.RFC3339))
		for _, h := range l.Hosts {
			for _, a := range h.Addresses {
				fmt.Fprintf(w, "%s\t%s\t%s\n", h.Host, a.Address, validity(a))
			}
		}
	})
}

func validity(a addresses.Address) string {
	var s []string
	if !a.ValidFrom.IsZero() {
		s = append(s, "from "+a.ValidFrom.Format(time.RFC3339))
	}
	if !a.ValidUntil.IsZero() {
		s = append(s, "until "+a.ValidUntil.Format(time.RFC3339))
	}
	if len(s) == 0 {
		return "always"
	}
	return strings.Join(s, " ")
}
