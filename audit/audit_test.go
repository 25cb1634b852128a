package audit

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/portcullis-id/portcullis/netcontract"
	"github.com/portcullis-id/portcullis/sockets"
)

func at(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func TestJudge(t *testing.T) {
	table, err := netcontract.Contract(netcontract.ProfilePortcullis)
	if err != nil {
		t.Fatal(err)
	}
	d := FromContract(table)
	mine := []sockets.Socket{
		{Protocol: "tcp", Local: at("10.0.0.1:443"), Listening: true},
		{Protocol: "tcp", Local: at("10.0.0.1:443"), Remote: at("203.0.113.7:50000")},                // a client of ours
		{Protocol: "tcp", Local: at("10.0.0.1:40000"), Remote: at("10.0.0.2:27017")},                 // the database
		{Protocol: "udp", Local: at("10.0.0.1:41000"), Remote: at("10.0.0.53:53")},                   // a name server
		{Protocol: "udp", Local: at("10.0.0.1:42000"), Listening: true},                              // a question on its way
		{Protocol: "tcp", Local: at("10.0.0.1:31337"), Listening: true},                              // nobody's
		{Protocol: "tcp", Local: at("10.0.0.1:40001"), Remote: at("198.51.100.66:6667")},             // nobody's
		{Protocol: "udp", Local: at("10.0.0.1:40002"), Remote: at("198.51.100.66:443")},              // the row says tcp
		{Protocol: "tcp", Local: at("[fd00::1]:40003"), Remote: at("[2001:db8::1]:443"), Inode: 0x7}, // a provider
	}
	r := judge(mine, d, time.Now())
	if r.OK() || len(r.Findings) != 3 || r.Listeners != 2 || r.Outgoing != 5 {
		t.Fatalf("%+v", r)
	}
	all := ""
	for _, f := range r.Findings {
		all += f.Sentence
	}
	for _, want := range []string{"listens on tcp port 31337", "connection to 198.51.100.66:6667", "udp port 443"} {
		if !strings.Contains(all, want) {
			t.Errorf("%q is missing: %s", want, all)
		}
	}
}

// TestWatchTellsOnce opens a port that nobody declared.
func TestWatchTellsOnce(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := sockets.List(); err != nil {
		t.Skipf("the kernel does not list sockets here: %v", err)
	}
	told := make(chan Finding, 10)
	w := NewWatch(func() Declared { return Declared{} }, time.Millisecond, func(_ context.Context, f Finding) { told <- f })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- w.Run(ctx) }()
	f := <-told
	if !strings.Contains(f.Local, l.Addr().String()) {
		t.Errorf("%+v", f)
	}
	for range 20 {
		if _, err := w.Look(); err != nil {
			t.Error(err)
		}
	}
	if w.Findings() == 0 || w.Problem() == "" {
		t.Error("the finding is forgotten")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if len(told) > 0 {
		t.Errorf("told again: %+v", <-told)
	}
}
