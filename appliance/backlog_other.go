//go:build !linux

package appliance

import "net"

// emptyBacklog has no help from this system's kernel.
func emptyBacklog(net.Listener) {}
