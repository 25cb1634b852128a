package postgres

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/portcullis-id/portcullis/problem"
)

type hostPort struct {
	host string
	port uint16
}

func (h hostPort) String() string { return fmt.Sprint(h.host, ":", h.port) }

func fallbacks(pc *pgxpool.Config) []hostPort {
	var out []hostPort
	for _, f := range pc.ConnConfig.Fallbacks {
		out = append(out, hostPort{f.Host, f.Port})
	}
	return out
}

func TestConnectionStrings(t *testing.T) {
	for name, tt := range map[string]struct {
		in    string
		hosts string
		attrs string
	}{
		"no port":                     {"postgres://u@db/x", "db:27017", "read-write"},
		"a port":                      {"postgresql://u@db:5432/x", "db:5432", "read-write"},
		"several hosts":               {"postgres://u:p@db1,db2:5433,db3/x?sslmode=disable", "db1:27017 db2:5433 db3:27017", "read-write"},
		"several with ports":          {"postgres://u:p@db1:1,db2:2/x", "db1:1 db2:2", "read-write"},
		"IPv6":                        {"postgres://u@[fd77::1],[fd77::2]:5433/x", "fd77::1:27017 fd77::2:5433", "read-write"},
		"the port as an option":       {"postgres://u@db1,db2/x?port=5432", "db1:5432 db2:5432", "read-write"},
		"hosts as an option":          {"postgres://u@/x?host=db1,db2", "db1:27017 db2:27017", "read-write"},
		"a socket":                    {"postgres://u@/x?host=/run/postgresql&port=5432", "/run/postgresql:5432", "read-write"},
		"an attribute of its own":     {"postgres://u@db1/x?target_session_attrs=any", "db1:27017", "any"},
		"a password with odd letters": {"postgres://u:p%40%2C%3A@db1,db2/x", "db1:27017 db2:27017", "read-write"},
	} {
		t.Run(name, func(t *testing.T) {
			full, err := normal(tt.in, "read-write")
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(full, "target_session_attrs="+tt.attrs) {
				t.Errorf("%s does not have target_session_attrs=%s", full, tt.attrs)
			}
			cfg := Config{}
			cfg.setDefaults()
			pc, err := poolConfig(tt.in, "read-write", cfg)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			seen := map[string]bool{}
			for _, f := range append([]hostPort{{pc.ConnConfig.Host, pc.ConnConfig.Port}}, fallbacks(pc)...) {
				if s := f.String(); !seen[s] {
					seen[s] = true
					got = append(got, s)
				}
			}
			if strings.Join(got, " ") != tt.hosts {
				t.Errorf("leads to %v, want %s", got, tt.hosts)
			}
			if Hosts(tt.in) != len(strings.Fields(tt.hosts)) {
				t.Errorf("%d hosts were counted", Hosts(tt.in))
			}
		})
	}
	for _, in := range []string{"", "mysql://x", "postgres://u@db1,,db2/x", "postgres://u@db:port/x", "postgres://u@db/x?sslmode=perhaps", "postgres://u:secret-word@[::1/x", "postgres://u@db/x?pool_max_conns=many"} {
		cfg := Config{}
		cfg.setDefaults()
		_, err := poolConfig(in, "read-write", cfg)
		if e := problem.From(err); e.Code != "invalid_dsn" || strings.Contains(err.Error(), "secret-word") {
			t.Errorf("%q: got %v", in, err)
		}
	}
}

// FuzzConnectionString: what an operator types is understood or refused with one
// sentence that has no password in it.
func FuzzConnectionString(f *testing.F) {
	for _, s := range []string{"postgres://u:pw@h1,h2:1/x", "postgres://[::1]:5/x?port=3", "postgres:///x?host=/run", "postgres://u@h/x?target_session_attrs=any&connect_timeout=9"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		cfg := Config{}
		cfg.setDefaults()
		pc, err := poolConfig(in, "read-write", cfg)
		if err != nil {
			if problem.From(err).Code != "invalid_dsn" {
				t.Errorf("%q: %v", in, err)
			}
			return
		}
		if pc.ConnConfig.Port == 0 || pc.MaxConns < 1 {
			t.Errorf("%q leads to port %d with %d connections", in, pc.ConnConfig.Port, pc.MaxConns)
		}
	})
}
