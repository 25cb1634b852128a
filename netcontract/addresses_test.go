package netcontract_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/portcullis-id/portcullis/netcontract"
)

func TestMoved(t *testing.T) {
	addrs := func(list ...string) (out []netip.Addr) {
		for _, s := range list {
			out = append(out, netip.MustParseAddr(s))
		}
		return out
	}
	for _, tt := range []struct {
		published, now []netip.Addr
		want           string
	}{
		{addrs("192.0.2.1"), addrs("192.0.2.1"), "[] []"},
		{addrs("192.0.2.1"), addrs("::ffff:192.0.2.1"), "[] []"},
		{addrs("192.0.2.1"), addrs("192.0.2.9"), "[192.0.2.9] [192.0.2.1]"},
		{addrs("192.0.2.1"), addrs("192.0.2.1", "192.0.2.7", "192.0.2.2", "192.0.2.7"), "[192.0.2.2 192.0.2.7] []"},
		{addrs("192.0.2.1", "192.0.2.2"), addrs("192.0.2.2"), "[] [192.0.2.1]"},
		{addrs("192.0.2.1"), nil, "[] [192.0.2.1]"},
		{nil, addrs("192.0.2.1"), "[] []"},
	} {
		gained, gone := netcontract.Host{Name: "h", Addresses: tt.published}.Moved(tt.now)
		if got := fmt.Sprint(gained, gone); got != tt.want {
			t.Errorf("%v, now %v: %s, want %s", tt.published, tt.now, got, tt.want)
		}
	}
}
