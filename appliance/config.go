package appliance

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/portcullis-id/portcullis/config"
	"github.com/portcullis-id/portcullis/enforce"
	"github.com/portcullis-id/portcullis/firewall"
	"github.com/portcullis-id/portcullis/netcontract"
	"github.com/portcullis-id/portcullis/searchindex"
	"github.com/portcullis-id/portcullis/signing"
	"github.com/portcullis-id/portcullis/store/postgres"
	"github.com/portcullis-id/portcullis/tenant"
)

// Config is the whole configuration of a node. Default gives every value that a
// file need not name; each section checks itself.
type Config struct {
	Domain        string         `yaml:"domain" doc:"Parent of all tenants' host names: tenant acme answers at acme.DOMAIN."`
	PublicPort    int            `yaml:"public_port" doc:"HTTPS port that browsers see, in front of a load balancer too. 0 means listen.https."`
	RootTenant    string         `yaml:"root_tenant" doc:"Name of the root tenant authority. It cannot be changed after the first start."`
	DefaultTenant string         `yaml:"default_tenant" doc:"Tenant that answers on the bare domain and on IP addresses; none when empty."`
	Data          string         `yaml:"data" doc:"Folder of everything that this node keeps: database, master key, certificates."`
	Listen        ListenConfig   `yaml:"listen"`
	TLS           TLSConfig      `yaml:"tls"`
	Database      DatabaseConfig `yaml:"database"`
	Site          SiteConfig     `yaml:"site"`
	MasterKeyFile string         `yaml:"master_key_file" doc:"File (mode 0600) with the key that seals secrets in the database. Empty means DATA/master.key, made at the first start. PORTCULLIS_MASTER_KEY holds the key itself instead."`
	Proxies       ProxyConfig    `yaml:"trusted_proxies"`
	Health        HealthConfig   `yaml:"health"`
	SMTP          SMTPConfig     `yaml:"smtp"`
	Network       NetworkConfig  `yaml:"network"`
	Passwords     PasswordConfig `yaml:"passwords"`
	Signing       SigningConfig  `yaml:"signing"`
	Log           LogConfig      `yaml:"log"`

	Search searchindex.Config `yaml:"search"`

	Traces TracesConfig `yaml:"traces"`

	RateLimits RateLimitConfig `yaml:"rate_limits"`

	// Dev is `start --dev`: a local certificate authority, a mailbox that captures
	// mail, and the setup link on the default tenant's host.
	Dev bool `yaml:"-"`
	// Joining is the configuration of a host that is to join a cluster: what all nodes
	// have in common comes from there, and is not missed.
	Joining bool `yaml:"-"`
}

// ListenConfig says where the node listens. The ports' defaults are those of the
// network contract.
type ListenConfig struct {
	Address string `yaml:"address" doc:"IP address of the HTTP and HTTPS listeners; empty means all."`
	HTTPS   int    `yaml:"https" doc:"Port of logins and APIs over TLS (row lb)."`
	HTTP    int    `yaml:"http" doc:"Port of plain HTTP: pages are sent on to HTTPS (row lb). 0 means none."`
	Health  int    `yaml:"health" doc:"Port of the health endpoints (row health). 0 means none."`
	Control int    `yaml:"control" doc:"Port of the control plane (row control), for a node that joins or begins a cluster without a port in its address."`
	// A node that is alone listens there where rate_limits.token is set.
	RateLimit int `yaml:"rate_limit" doc:"Port of the rate limiting service (row rate-limit): in a cluster, and on a node alone where rate_limits.token is set. 0 means none; then each node of a cluster counts by itself."`
	// The health listener is for monitoring and often bound to another address.
	HealthAddress  string `yaml:"health_address" doc:"IP address of the health listener; empty means listen.address."`
	ProxyProtocol  string `yaml:"proxy_protocol" doc:"PROXY protocol (versions 1 and 2) on listen.https and listen.http, for load balancers that pass TCP through: off; accept, connections of trusted_proxies.networks may begin with it; require, they must, and all others are closed."`
	Terminated     int    `yaml:"terminated" doc:"Port for load balancers that end TLS (row lb: 4443). It lets trusted_proxies.networks in alone and wants X-Forwarded-Proto. 0 means none."`
	TerminatedTLS  bool   `yaml:"terminated_tls" doc:"The load balancer speaks TLS to listen.terminated again; false means plain HTTP."`
	Drain          int    `yaml:"drain" doc:"Seconds after a stop in which the node says that it is not ready and still serves, 0 to 3600: longer than load balancers take to notice."`
	MaxConnections int    `yaml:"max_connections" doc:"Connections of one listener, 16 to 1000000; at most half of the process's descriptors. One more closes the one that has been idle for the longest time."`
}

// TLSConfig names the certificate of the HTTPS listener.
type TLSConfig struct {
	Certificate string `yaml:"certificate" doc:"PEM file: the certificate for *.DOMAIN (and DOMAIN), then its chain."`
	Key         string `yaml:"key" doc:"PEM file with the certificate's private key."`
	Local       bool   `yaml:"local" doc:"Without a certificate: make one with an authority of this appliance's own, DATA/root-ca.pem, which browsers and SDKs have to be told to trust. For trials."`
}

// ProxyConfig names whose word about the client's address counts.
type ProxyConfig struct {
	Networks []string `yaml:"networks" doc:"CIDR blocks or addresses of load balancers; X-Forwarded-For, X-Forwarded-Proto and the PROXY protocol count from them alone."`
	// A balancer that does not write the header hands on what the client sent, so
	// it has to be asked for.
	ForwardedHost bool `yaml:"forwarded_host" doc:"The load balancers replace Host, and write the client's into X-Forwarded-Host, over what the client sent."`
}

// HealthConfig is the monitoring's access.
type HealthConfig struct {
	APIKey config.Secret `yaml:"api_key" doc:"Password of the user api_keys_health on the health endpoints. Empty means a random one in DATA/health.key."`
}

// SMTPConfig is the mail server. Without a host no mail leaves; it waits.
type SMTPConfig struct {
	Host     string        `yaml:"host" doc:"Name of the mail server; empty means that mail is kept in the outbox (with --dev: shown in the mailbox)."`
	Port     int           `yaml:"port" doc:"25, 465 or 587, as in row smtp."`
	Username string        `yaml:"username" doc:"User at the mail server; empty means no authentication."`
	Password config.Secret `yaml:"password" doc:"Password at the mail server."`
	From     string        `yaml:"from" doc:"Sender, such as 'Acme Login <login@acme.example>'."`
	TLS      string        `yaml:"tls" doc:"starttls (default), implicit or none."`
}

// NetworkConfig bounds where the node calls out to.
type NetworkConfig struct {
	Profile      string   `yaml:"profile" doc:"Profile of the network contract: portcullis or psaas."`
	AllowedHosts []string `yaml:"allowed_private_hosts" doc:"Names or CIDR blocks inside your network that identity providers may live on; all other private addresses are refused."`
	Proxy        string   `yaml:"proxy" doc:"http://HOST:PORT of the proxy for outgoing calls; empty means none."`

	Enforce        string   `yaml:"enforce" doc:"off, audit or on: whether the kernel (Landlock, Linux 6.7 or newer) holds this process to the contract's TCP ports. audit says what would be refused, and refuses nothing."`
	EnforceConnect []int    `yaml:"enforce_connect" doc:"Ports that network.enforce lets through beside the contract's, such as those of providers in allowed_private_hosts."`
	HostPorts      []string `yaml:"host_ports" doc:"Ports that other programs of this host are meant to be reached on: 9100/tcp or 6000-6010/udp. The host's firewall may let them in (portcullis network audit)."`
	DepotKey       string   `yaml:"depot_key" doc:"Public key, ed25519:BASE64, of the depot's signed list of addresses (portcullis depot addresses sign); empty means that no list is fetched."`

	Sites SitesConfig `yaml:"sites"`
}

// SitesConfig says who is on the other side of the contract's rows, for the rules
// that are rendered and compared. Peers are ADDRESS, NETWORK/BITS, HOST or
// HOST=ADDRESS[+ADDRESS].
type SitesConfig struct {
	Nodes      []string `yaml:"nodes" doc:"All nodes of the cluster: ADDRESS, or NAME=ADDRESS+ADDRESS."`
	LB         []string `yaml:"lb" doc:"Load balancers: addresses or networks."`
	Depot      []string `yaml:"depot" doc:"The depot of updates, assets and examples: HOST, HOST=ADDRESS, addresses or networks."`
	CLI        []string `yaml:"cli" doc:"Where the command line is used from."`
	Monitoring []string `yaml:"monitoring" doc:"Who reads the health endpoints."`
	JumpHost   []string `yaml:"jump_host" doc:"Jump hosts."`
	DNS        []string `yaml:"dns" doc:"Name servers."`
	Providers  []string `yaml:"providers" doc:"Identity providers that users log in through."`
}

// Validate implements config.Validator.
func (s *SitesConfig) Validate(report func(key, reason string)) {
	for site, list := range s.named() {
		if _, err := firewall.ParseSites(map[firewall.Site][]string{site: list}); err != nil {
			key, reason, _ := strings.Cut(err.Error(), ": ")
			report(strings.ReplaceAll(key, "-", "_"), reason)
		}
	}
}

func (s *SitesConfig) named() map[firewall.Site][]string {
	return map[firewall.Site][]string{firewall.Nodes: s.Nodes, firewall.LoadBalancers: s.LB, firewall.Depot: s.Depot, firewall.CLI: s.CLI,
		firewall.Monitoring: s.Monitoring, firewall.JumpHosts: s.JumpHost, firewall.DNS: s.DNS, firewall.Providers: s.Providers}
}

// Sites are the peers that the configuration names, with the mail server and the
// collector of traces.
func (c *Config) Sites() map[firewall.Site][]string {
	named := c.Network.Sites.named()
	if c.SMTP.Host != "" {
		named[firewall.Mail] = []string{c.SMTP.Host}
	}
	if u, err := url.Parse(c.Traces.Endpoint); err == nil && u.Hostname() != "" {
		named[firewall.Traces] = []string{u.Hostname()}
	}
	return named
}

// PasswordConfig bounds the work of hashing.
type PasswordConfig struct {
	MemoryKiB int `yaml:"memory_kib" doc:"Memory of one argon2id hash, 8192 to 1048576."`
	Time      int `yaml:"time" doc:"Passes of argon2id, 1 to 16."`
	Workers   int `yaml:"workers" doc:"Hashes at the same time; 0 means one less than the processors, at least one."`
}

// SigningConfig says who computes signatures.
type SigningConfig struct {
	Engine string `yaml:"engine" doc:"go, or openssl for faster RS256 and PS256: the host's OpenSSL 3, in a program that was built with make build-openssl."`
}

// LogConfig is what the node says of itself.
type LogConfig struct {
	Level  string `yaml:"level" doc:"debug, info, warn or error."`
	Format string `yaml:"format" doc:"json or text."`
}

// TracesConfig sends traces to a collector.
type TracesConfig struct {
	Endpoint string `yaml:"endpoint" doc:"URL of an OTLP/HTTP collector, such as http://otel.internal:4318; empty means none (row traces)."`
}

// Default is the configuration of a node before file, environment and flags.
func Default() Config {
	table, err := netcontract.Contract(netcontract.ProfilePortcullis)
	if err != nil {
		panic(err) // the profile is part of the program
	}
	return Config{
		Domain:     "portcullis.localhost",
		RootTenant: "config",
		Data:       "data",
		Listen: ListenConfig{
			HTTPS: table.Port(netcontract.LB, 443), HTTP: table.Port(netcontract.LB, 80), Health: table.Port(netcontract.Health, 9110),
			RateLimit:      table.Port(netcontract.RateLimit, 9001),
			Control:        table.Port(netcontract.Control, 7777),
			MaxConnections: 10_000,
			ProxyProtocol:  proxyOff,
			TerminatedTLS:  true,
			Drain:          10,
		},
		Database:  defaultDatabase(),
		SMTP:      SMTPConfig{Port: 587, TLS: "starttls"},
		Network:   NetworkConfig{Profile: string(netcontract.ProfilePortcullis), Enforce: string(enforce.Off)},
		Passwords: PasswordConfig{MemoryKiB: 19456, Time: 2},
		Signing:   SigningConfig{Engine: signing.Go},
		Log:       LogConfig{Level: "info", Format: "json"},

		RateLimits: defaultRateLimits(),
		Search:     searchindex.Default(),
	}
}

// DefaultDev is the configuration of `start --dev`: loopback, no root, no file.
func DefaultDev() Config {
	c := Default()
	c.Dev = true
	c.Domain, c.DefaultTenant = "localhost", "main"
	c.Listen.Address, c.Listen.HTTPS, c.Listen.HTTP = "127.0.0.1", 8443, 8080
	c.Listen.Drain = 0
	c.Log.Format = "text"
	c.RateLimits.Enabled = false // a developer's tests are a flood
	return c
}

var domainForm = regexp.MustCompile(`^(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$`)

// Validate implements config.Validator.
func (c *Config) Validate(report func(key, reason string)) {
	if !domainForm.MatchString(c.Domain) || len(c.Domain) > 200 {
		report("domain", fmt.Sprintf("wants a host name in lower case such as id.example.com, got %q", c.Domain))
	}
	port(report, "public_port", c.PublicPort, true)
	if err := tenant.CheckRootName(c.RootTenant); err != nil {
		report("root_tenant", err.Error())
	}
	if c.DefaultTenant != "" && c.DefaultTenant != c.RootTenant {
		if err := tenant.CheckName(c.DefaultTenant); err != nil {
			report("default_tenant", err.Error())
		}
	}
	if c.Data == "" {
		report("data", "wants a folder")
	}
	if c.Site.Name != "" && !isPostgres(c.Database.DSN.Reveal()) {
		report("database.dsn", "wants postgres://… of this site's database, as site.name is set")
	}
	if (c.TLS.Certificate == "") != (c.TLS.Key == "") {
		report("tls", "wants both certificate and key, or neither")
	}
	if c.TLS.Certificate == "" && !c.Dev && !c.TLS.Local && !c.Joining && c.Listen.usesTLS() {
		report("tls.certificate", "wants a PEM file, as the node listens on HTTPS; with --dev, or tls.local, a local certificate authority makes one")
	}
	if c.RateLimits.Token != "" && c.Listen.HTTPS == 0 {
		report("rate_limits.token", "wants listen.https, whose certificate row rate-limit uses on a node alone")
	}
	c.validateBalancer(report)
}

// Validate implements config.Validator.
func (l *ListenConfig) Validate(report func(key, reason string)) {
	address(report, "address", l.Address)
	address(report, "health_address", l.HealthAddress)
	port(report, "https", l.HTTPS, true)
	port(report, "http", l.HTTP, true)
	port(report, "health", l.Health, true)
	port(report, "control", l.Control, false)
	port(report, "rate_limit", l.RateLimit, true)
	between(report, "max_connections", l.MaxConnections, 16, 1_000_000)
	if l.HTTPS == 0 && l.HTTP == 0 && l.Terminated == 0 {
		report("https", "wants a port when listen.http and listen.terminated are 0 too: something has to listen")
	}
	if l.HTTPS != 0 && l.HTTPS == l.HTTP {
		report("http", "wants another port than listen.https")
	}
}

func (l *ListenConfig) usesTLS() bool { return l.HTTPS != 0 || l.Terminated != 0 && l.TerminatedTLS }

// Validate implements config.Validator.
func (p *ProxyConfig) Validate(report func(key, reason string)) {
	for i, s := range p.Networks {
		if _, err := prefix(s); err != nil {
			report(fmt.Sprintf("networks[%d]", i), fmt.Sprintf("wants an address or a block such as 10.0.0.0/8, got %q", s))
		}
	}
}

// Validate implements config.Validator.
func (h *HealthConfig) Validate(report func(key, reason string)) {
	if k := h.APIKey.Reveal(); k != "" && len(k) < 16 {
		report("api_key", "wants at least 16 characters")
	}
}

// Validate implements config.Validator.
func (s *SMTPConfig) Validate(report func(key, reason string)) {
	port(report, "port", s.Port, false)
	oneOf(report, "tls", s.TLS, "starttls", "implicit", "none")
	if s.Host != "" && !strings.Contains(s.From, "@") {
		report("from", "wants a mail address, as a host is set")
	}
}

// Validate implements config.Validator.
func (n *NetworkConfig) Validate(report func(key, reason string)) {
	oneOf(report, "profile", n.Profile, string(netcontract.ProfilePortcullis), string(netcontract.ProfilePSaaS))
	n.validateEnforcement(report)
	if n.Proxy != "" {
		if u, err := url.Parse(n.Proxy); err != nil || u.Scheme != "http" || u.Host == "" {
			report("proxy", fmt.Sprintf("wants http://HOST:PORT, got %q", n.Proxy))
		}
	}
}

// Validate implements config.Validator.
func (p *PasswordConfig) Validate(report func(key, reason string)) {
	between(report, "memory_kib", p.MemoryKiB, 8192, 1<<20)
	between(report, "time", p.Time, 1, 16)
	between(report, "workers", p.Workers, 0, 1024)
}

// Validate implements config.Validator.
func (s *SigningConfig) Validate(report func(key, reason string)) {
	oneOf(report, "engine", s.Engine, signing.Go, signing.OpenSSL)
	if s.Engine == signing.OpenSSL && !signing.HasOpenSSL {
		report("engine", "is openssl, but this program was built without it; build it with make build-openssl, or set go")
	}
}

// Validate implements config.Validator.
func (l *LogConfig) Validate(report func(key, reason string)) {
	oneOf(report, "level", l.Level, "debug", "info", "warn", "error")
	oneOf(report, "format", l.Format, "json", "text")
}

// Validate implements config.Validator.
func (t *TracesConfig) Validate(report func(key, reason string)) {
	if t.Endpoint == "" {
		return
	}
	if u, err := url.Parse(t.Endpoint); err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		report("endpoint", fmt.Sprintf("wants http://HOST:4318 or https://HOST:4318, got %q", t.Endpoint))
	}
}

// dsn is the database that the node opens.
func (c *Config) dsn() string {
	if s := c.Database.DSN.Reveal(); s != "" {
		return s
	}
	return "sqlite:" + filepath.Join(c.Data, "portcullis.db")
}

// DatabaseName is the database in words, without a password.
func (c *Config) DatabaseName() string {
	if file, ok := strings.CutPrefix(c.dsn(), "sqlite:"); ok {
		return file
	}
	return postgres.Redacted(c.dsn())
}

func (c *Config) masterKeyFile() string {
	if c.MasterKeyFile != "" {
		return c.MasterKeyFile
	}
	return filepath.Join(c.Data, "master.key")
}

// Hosts is how host names map to tenants.
func (c *Config) Hosts() tenant.Hosts {
	p := c.PublicPort
	if p == 0 {
		p = c.Listen.HTTPS
	}
	return tenant.Hosts{Domain: c.Domain, Port: p, Default: c.DefaultTenant}
}

func (c *Config) trustedProxies() []netip.Prefix {
	var out []netip.Prefix
	for _, s := range c.Proxies.Networks {
		if p, err := prefix(s); err == nil { // Validate refused what does not parse
			out = append(out, p)
		}
	}
	return out
}

func prefix(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	return netip.ParsePrefix(s)
}

func port(report func(key, reason string), key string, n int, zero bool) {
	if n < 0 || n > 65535 || n == 0 && !zero {
		report(key, fmt.Sprintf("wants a port from 1 to 65535, got %d", n))
	}
}

func between(report func(key, reason string), key string, n, low, high int) {
	if n < low || n > high {
		report(key, fmt.Sprintf("wants a number from %d to %d, got %d", low, high, n))
	}
}

func oneOf(report func(key, reason string), key, got string, allowed ...string) {
	for _, a := range allowed {
		if got == a {
			return
		}
	}
	report(key, fmt.Sprintf("got %q; allowed are: %s", got, strings.Join(allowed, ", ")))
}

func address(report func(key, reason string), key, s string) {
	if s != "" && net.ParseIP(s) == nil {
		report(key, fmt.Sprintf("wants an IP address, got %q", s))
	}
}

// shutdownTimeout is how long requests in flight may take to end after a stop.
const shutdownTimeout = 20 * time.Second
