package tenant

import (
	"regexp"
	"slices"
	"strings"

	"github.com/portcullis-id/portcullis/problem"
)

// reserved are the names that no tenant may have: they are, or look like,
// services of the environment itself.
var reserved = strings.Fields(`login admin app manage blog ftp mail pop pop3 imap smtp stage stats
status dev logs www docs sdk ci docker styleguide ask it cdn api releases release spf feedback help
support int config webtask`)

var nameForm = regexp.MustCompile(`^[a-z0-9](?:[a-z0-9-]*[a-z0-9])?$`)

// CheckName reports whether a tenant may be called so: a DNS label of 3 to 63
// lower-case letters, digits and inner hyphens that is not reserved.
func CheckName(name string) error {
	if err := checkForm(name); err != nil {
		return err
	}
	if slices.Contains(reserved, name) {
		return problem.New(problem.Invalid, "invalid_tenant_name", "name %q is reserved for the appliance; reserved are: %s", name, strings.Join(reserved, ", "))
	}
	return nil
}

// CheckRootName reports whether the root tenant authority may be called so. It is
// of the environment itself, so reserved names such as "config" are free to it.
func CheckRootName(name string) error { return checkForm(name) }

func checkForm(name string) error {
	const allowed = "allowed are 3 to 63 lower-case letters, digits and hyphens, not at an end"
	switch {
	case len(name) < 3:
		return problem.New(problem.Invalid, "invalid_tenant_name", "name %q is too short; %s", name, allowed)
	case len(name) > 63:
		return problem.New(problem.Invalid, "invalid_tenant_name", "name is longer than 63 characters; %s", allowed)
	case !nameForm.MatchString(name) || strings.HasPrefix(name, "xn--"):
		return problem.New(problem.Invalid, "invalid_tenant_name", "name %q has a character that a host name cannot have; %s", name, allowed)
	}
	return nil
}
