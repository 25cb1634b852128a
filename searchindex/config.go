package searchindex

import (
	"crypto/x509"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"regexp"

	"github.com/portcullis-id/portcullis/config"
	"github.com/portcullis-id/portcullis/tenant"
)

// Config says where the search engine is. Without URLs there is none, and the
// store searches.
type Config struct {
	URLs     []string      `yaml:"urls" doc:"REST addresses of the OpenSearch or Elasticsearch nodes, such as https://node1:9200 (row search-http); none means that the database searches."`
	Username string        `yaml:"username" doc:"User at the search engine; empty means no authentication."`
	Password config.Secret `yaml:"password" doc:"Password at the search engine."`
	CA       string        `yaml:"ca" doc:"PEM file with the authorities that sign the search engine's certificates; empty means the host's."`
	Prefix   string        `yaml:"index_prefix" doc:"What the names of the indices begin with: 1 to 32 lower-case letters, digits, hyphens and underscores. Another appliance on the same engine needs another one."`
	Groups   int           `yaml:"groups" doc:"Groups that the tenants are spread over, 1 to 64: each has one index of users and one of logs. A change builds all indices anew."`
}

// Default are the settings that a file need not name.
func Default() Config { return Config{Prefix: "portcullis", Groups: 8} }

// On reports whether there is a search engine.
func (c *Config) On() bool { return len(c.URLs) > 0 }

var prefixForm = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,31}$`)

// Validate implements config.Validator.
func (c *Config) Validate(report func(key, reason string)) {
	if len(c.URLs) > 64 {
		report("urls", fmt.Sprintf("has %d addresses; allowed are 64", len(c.URLs)))
	}
	for i, raw := range c.URLs {
		u, err := url.Parse(raw)
		switch key := fmt.Sprintf("urls[%d]", i); {
		case err != nil, u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "", u.Path != "" && u.Path != "/", u.RawQuery != "", u.Fragment != "":
			report(key, "wants https://HOST:9200 or http://HOST:9200, and nothing after the port")
		case u.User != nil:
			report(key, "must not hold a user name or a password; use search.username and search.password")
		}
	}
	if c.Password != "" && c.Username == "" {
		report("username", "wants a name, as a password is set")
	}
	if !prefixForm.MatchString(c.Prefix) {
		report("index_prefix", fmt.Sprintf("wants 1 to 32 lower-case letters, digits, hyphens and underscores, got %q", c.Prefix))
	}
	if c.Groups < 1 || c.Groups > tenant.SearchParts {
		report("groups", fmt.Sprintf("wants a number from 1 to %d, got %d", tenant.SearchParts, c.Groups))
	}
	if c.CA != "" {
		if _, err := c.Roots(); err != nil {
			report("ca", err.Error())
		}
	}
}

// Roots are the authorities that CA names; nil means the host's.
func (c *Config) Roots() (*x509.CertPool, error) {
	if c.CA == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(c.CA)
	if err != nil {
		return nil, fmt.Errorf("wants a file that can be read: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("wants certificates in PEM form; %s has none", c.CA)
	}
	return pool, nil
}

// Hosts are the hosts of the URLs.
func (c *Config) Hosts() []string {
	var out []string
	for _, raw := range c.URLs {
		if u, err := url.Parse(raw); err == nil {
			out = append(out, u.Hostname())
		}
	}
	return out
}

func (c *Config) engine(client *http.Client) *engine {
	e := &engine{client: client, user: c.Username, password: c.Password.Reveal()}
	for _, raw := range c.URLs {
		if u, err := url.Parse(raw); err == nil {
			e.urls = append(e.urls, u.Scheme+"://"+u.Host)
		}
	}
	return e
}
