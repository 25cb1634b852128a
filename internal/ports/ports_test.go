package ports_test

import (
	"net"
	"strconv"
	"testing"

	"github.com/portcullis-id/portcullis/internal/ports"
)

func TestFreePortsCanBeOpened(t *testing.T) {
	seen := map[int]bool{}
	for range 20 {
		p, err := ports.Free()
		if err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(p))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if seen[p] {
			t.Errorf("port %d was given out while it was open", p)
		}
		seen[p] = true
	}
}
