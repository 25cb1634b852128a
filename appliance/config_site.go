package appliance

import (
	"regexp"
	"time"

	"github.com/portcullis-id/portcullis/config"
)

// SiteConfig is for an appliance on two sites, of which one works at a time. All
// nodes of a site have the same.
type SiteConfig struct {
	Name     string        `yaml:"name" doc:"Name of this node's site, in an appliance on two sites: the nodes of the site that is not active wait. Empty means one site."`
	Standbys []string      `yaml:"standbys" doc:"The other site's standbys, by the application_name of their primary_conninfo."`
	Lease    time.Duration `yaml:"lease" doc:"How long this site goes on without word of site.standbys, 10s to 1h; the other one can be promoted without a word of the operator's after it. 0 means for ever."`
	Peer     config.Secret `yaml:"peer" doc:"postgres://… of the other site's database, to look whether that site was promoted; empty means that nobody looks."`
}

var siteForm = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)

// Validate implements config.Validator.
func (s *SiteConfig) Validate(report func(key, reason string)) {
	if s.Name == "" {
		if len(s.Standbys) > 0 || s.Lease != 0 || s.Peer != "" {
			report("name", "wants a name, as other settings of the site are there")
		}
		return
	}
	if !siteForm.MatchString(s.Name) {
		report("name", "wants 1 to 32 of a-z, 0-9 and -")
	}
	if s.Lease != 0 {
		lasts(report, "lease", s.Lease, 10*time.Second, time.Hour)
		if len(s.Standbys) == 0 {
			report("standbys", "wants the other site's standbys, as a lease is set")
		}
	}
	if p := s.Peer.Reveal(); p != "" && !isPostgres(p) {
		report("peer", "wants postgres://USER@HOST:PORT/DATABASE")
	}
}
