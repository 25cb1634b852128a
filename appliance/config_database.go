package appliance

import (
	"fmt"
	"strings"
	"time"

	"github.com/portcullis-id/portcullis/config"
	"github.com/portcullis-id/portcullis/overload"
	"github.com/portcullis-id/portcullis/store/postgres"
)

// DatabaseConfig says where the data is, and bounds the work with a PostgreSQL
// server. The bounds mean nothing to SQLite.
type DatabaseConfig struct {
	DSN              config.Secret `yaml:"dsn" doc:"sqlite:FILE or postgres://USER:PASSWORD@HOST,HOST/DATABASE; empty means sqlite in DATA/portcullis.db. A host without a port is asked on 27017 (row database), and only a server that takes writes will do."`
	MaxConnections   int           `yaml:"max_connections" doc:"Connections of this node to PostgreSQL, 4 to 1000. The server's max_connections has room for those of all nodes."`
	ConnectTimeout   time.Duration `yaml:"connect_timeout" doc:"How long to wait for one host of PostgreSQL, 100ms to 1m."`
	StatementTimeout time.Duration `yaml:"statement_timeout" doc:"How long PostgreSQL works on one statement, 1s to 1h."`
	FailoverTimeout  time.Duration `yaml:"failover_timeout" doc:"How long a request waits for PostgreSQL after it went away, 100ms to 5m; then it is answered with 503 until it is back."`
	Replication      string        `yaml:"replication" doc:"What health checks expect of PostgreSQL: synchronous (an acknowledged write is on two servers), or any. Empty means synchronous where dsn names several hosts."`
	Standby          config.Secret `yaml:"standby" doc:"postgres://… of a standby on which the tenants' logs are read, seconds late at most as it is; empty means that everything is read from the primary."`
}

// The expectations of database.replication.
const (
	replicationSynchronous = "synchronous"
	replicationAny         = "any"
)

func defaultDatabase() DatabaseConfig {
	return DatabaseConfig{MaxConnections: 32, ConnectTimeout: 3 * time.Second, StatementTimeout: 30 * time.Second, FailoverTimeout: 10 * time.Second}
}

// Validate implements config.Validator.
func (d *DatabaseConfig) Validate(report func(key, reason string)) {
	if s := d.DSN.Reveal(); s != "" && !strings.HasPrefix(s, "sqlite:") && !isPostgres(s) {
		report("dsn", "wants sqlite:FILE or postgres://USER@HOST:PORT,HOST:PORT/DATABASE")
	}
	if s := d.Standby.Reveal(); s != "" && !isPostgres(s) {
		report("standby", "wants postgres://USER@HOST:PORT/DATABASE")
	}
	between(report, "max_connections", d.MaxConnections, 4, 1000)
	lasts(report, "connect_timeout", d.ConnectTimeout, 100*time.Millisecond, time.Minute)
	lasts(report, "statement_timeout", d.StatementTimeout, time.Second, time.Hour)
	lasts(report, "failover_timeout", d.FailoverTimeout, 100*time.Millisecond, 5*time.Minute)
	oneOf(report, "replication", d.Replication, "", replicationSynchronous, replicationAny)
}

func isPostgres(dsn string) bool {
	return strings.HasPrefix(dsn, "postgres://") || strings.HasPrefix(dsn, "postgresql://")
}

func lasts(report func(key, reason string), key string, d, least, most time.Duration) {
	if d < least || d > most {
		report(key, fmt.Sprintf("is %s; allowed are %s to %s", d, least, most))
	}
}

// synchronous reports whether an acknowledged write is expected on two servers.
func (d *DatabaseConfig) synchronous() bool {
	s := d.DSN.Reveal()
	return isPostgres(s) && (d.Replication == replicationSynchronous || d.Replication == "" && postgres.Hosts(s) > 1)
}

// bounds are those of the node's own database.
func (n *Node) bounds() postgres.Config {
	d := n.cfg.Database
	return postgres.Config{MaxConnections: d.MaxConnections, ConnectTimeout: d.ConnectTimeout, StatementTimeout: d.StatementTimeout,
		FailoverTimeout: d.FailoverTimeout, Standby: d.Standby.Reveal(), Waiting: overload.Pause, Logger: n.logger}
}
