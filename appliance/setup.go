package appliance

import (
	"context"
	"slices"

	"github.com/portcullis-id/portcullis/authn"
	"github.com/portcullis-id/portcullis/dashboard"
	"github.com/portcullis-id/portcullis/mgmt"
	"github.com/portcullis-id/portcullis/tenant"
)

// founder is what the set-up pages may do to the appliance.
type founder struct{ n *Node }

var _ dashboard.Appliance = founder{}

// CreateAdministrator implements dashboard.Appliance.
func (f founder) CreateAdministrator(ctx context.Context, email, password string) (string, error) {
	root := f.n.cfg.RootTenant
	c, err := f.n.directory.Connection(ctx, root, mgmt.RootConnection)
	if err != nil {
		return "", err
	}
	if err := authn.CheckEmail(email); err != nil {
		return "", err
	}
	u, err := f.n.users.CreateUser(ctx, root, c, &tenant.User{Email: email, EmailVerified: true}, password, "", false)
	if err != nil {
		return "", err
	}
	return u.ID, nil
}

// Tenants implements dashboard.Appliance.
func (f founder) Tenants(ctx context.Context) ([]string, error) {
	all, err := f.n.mgmt.Tenants(ctx)
	if err != nil {
		return nil, err
	}
	rank := func(name string) int {
		switch name {
		case f.n.cfg.DefaultTenant:
			return 0
		case f.n.cfg.RootTenant:
			return 2
		}
		return 1
	}
	slices.SortStableFunc(all, func(a, b string) int { return rank(a) - rank(b) })
	return all, nil
}

// CreateClient implements dashboard.Appliance.
func (f founder) CreateClient(ctx context.Context, tenantID string, c dashboard.NewClient) (string, error) {
	return f.n.mgmt.CreateClient(ctx, tenantID, mgmt.NewClient(c))
}

// SetCallbacks implements dashboard.Appliance.
func (f founder) SetCallbacks(ctx context.Context, tenantID, clientID string, callbacks []string) error {
	return f.n.mgmt.SetCallbacks(ctx, tenantID, clientID, callbacks)
}

// buildSetup makes the pages of the first start.
func (n *Node) buildSetup(rootCA string) (err error) {
	hosts := []string{n.cfg.RootTenant}
	if n.cfg.DefaultTenant != "" && n.cfg.DefaultTenant != n.cfg.RootTenant {
		hosts = []string{n.cfg.DefaultTenant, n.cfg.RootTenant}
	}
	n.setup, err = dashboard.New(
		dashboard.Config{Root: n.cfg.RootTenant, Hosts: hosts, Connection: mgmt.RootConnection, CAFile: rootCA},
		dashboard.Deps{Docs: n.cache, Directory: n.directory, Keys: n.keys, Appliance: founder{n}, Stylesheet: n.pages.Stylesheet(),
			Error: n.pages.Error, Logger: n.logger, Now: n.opts.Now})
	return err
}
