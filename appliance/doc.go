// Package appliance is the sum of the rooms: it builds them from the
// configuration, starts and stops them in order, and knows nothing of their
// insides. It is the only place that wires.
package appliance
