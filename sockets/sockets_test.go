package sockets_test

import (
	"net"
	"os"
	"slices"
	"testing"

	"github.com/portcullis-id/portcullis/sockets"
)

func TestOwnSocketsAreFound(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	all, err := sockets.List()
	if err != nil {
		t.Skipf("the kernel does not list sockets here: %v", err)
	}
	own, err := sockets.Own()
	if err != nil {
		t.Fatal(err)
	}
	programs := sockets.Programs()
	for _, want := range []struct {
		protocol, local, remote string
		listening               bool
	}{
		{"tcp", l.Addr().String(), "", true}, {"udp", pc.LocalAddr().String(), "", true}, {"tcp", c.LocalAddr().String(), c.RemoteAddr().String(), false},
	} {
		i := slices.IndexFunc(all, func(s sockets.Socket) bool {
			return s.Protocol == want.protocol && s.Local.String() == want.local && s.Listening == want.listening && (want.remote == "" || s.Remote.String() == want.remote)
		})
		if i < 0 {
			t.Errorf("%+v is not listed", want)
			continue
		}
		if !own[all[i].Inode] || programs[all[i].Inode].PID != os.Getpid() {
			t.Errorf("%+v is of %+v", want, programs[all[i].Inode])
		}
	}
}
