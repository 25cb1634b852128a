package netcontract

import (
	"net/netip"
	"slices"
)

// Moved compares the addresses that a host is published with with those that its
// name leads to now: what was gained has to be allowed before it is needed, and
// what is gone need not be allowed any more. A host that is published without
// addresses counts by its name alone, and never moves.
func (h Host) Moved(now []netip.Addr) (gained, gone []netip.Addr) {
	if len(h.Addresses) == 0 {
		return nil, nil
	}
	for _, a := range now {
		if a = a.Unmap(); !slices.Contains(h.Addresses, a) && !slices.Contains(gained, a) {
			gained = append(gained, a)
		}
	}
	for _, a := range h.Addresses {
		if !slices.ContainsFunc(now, func(n netip.Addr) bool { return n.Unmap() == a }) {
			gone = append(gone, a)
		}
	}
	slices.SortFunc(gained, netip.Addr.Compare)
	return gained, gone
}
