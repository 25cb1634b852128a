package appliance

import (
	"context"
	"fmt"
	"strings"

	"github.com/portcullis-id/portcullis/enforce"
	"github.com/portcullis-id/portcullis/netcontract"
)

func (n *NetworkConfig) validateEnforcement(report func(key, reason string)) {
	oneOf(report, "enforce", n.Enforce, append(enforce.Modes(), "")...)
	for i, p := range n.EnforceConnect {
		port(report, fmt.Sprintf("enforce_connect[%d]", i), p, false)
	}
	n.validateHostPorts(report)
	n.validateDepotKey(report)
	if len(n.EnforceConnect) > maxEnforceConnect {
		report("enforce_connect", fmt.Sprintf("has %d ports; allowed are %d", len(n.EnforceConnect), maxEnforceConnect))
	}
}

const maxEnforceConnect = 64

func (n *NetworkConfig) validateHostPorts(report func(key, reason string)) {
	for i, s := range n.HostPorts {
		if _, err := parseHostPorts(s); err != nil {
			report(fmt.Sprintf("host_ports[%d]", i), err.Error())
		}
	}
}

// restrict holds this process to the contract before it opens a port. A kernel that
// cannot is no reason not to start: the log and the health detail say so.
func (n *Node) restrict(ctx context.Context) (err error) {
	// Calls that the appliance makes itself stand in its own profile, whichever one is
	// printed.
	if n.contract, err = netcontract.Contract(netcontract.ProfilePortcullis); err != nil {
		return err
	}
	ports := enforce.Compile(n.declared(), n.cfg.Network.EnforceConnect...)
	n.enforce = enforce.NewGuard(enforce.Mode(n.cfg.Network.Enforce), ports, func(a enforce.Attempt) {
		n.logger.ErrorContext(ctx, "a connection outside of the network contract", "row", a.Row, "remote", a.Remote, "enforce", n.cfg.Network.Enforce, "finding", a.Sentence)
	})
	err = n.enforce.Start()
	switch s := n.enforce.Status(); {
	case err != nil:
		n.logger.ErrorContext(ctx, "the network contract is not enforced", "enforce", s.Mode, "landlock_abi", s.ABI, "error", err)
	case s.Mode != enforce.Off:
		n.logger.InfoContext(ctx, "the network contract is enforced", "enforce", s.Mode, "holds", s.Holds, "landlock_abi", s.ABI, "what", s.Sentence)
	}
	return nil
}

// Held reports whether the kernel holds this process to the contract, which is for
// good: also for a program that takes its place.
func (n *Node) Held() bool { return n.enforce != nil && n.enforce.Status().Holds }

// networkProblem is what the health check network fails for, beside silent nodes.
func (n *Node) networkProblem() string {
	var all []string
	for _, problem := range []func() string{n.audit.Problem, n.firewall.Problem, n.addresses.Problem} {
		if s := problem(); s != "" {
			all = append(all, s)
		}
	}
	return strings.Join(all, " ")
}
