package sockets

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Socket is one entry of the kernel's tables.
type Socket struct {
	Protocol  string // tcp or udp
	Local     netip.AddrPort
	Remote    netip.AddrPort // zero for a listener
	Listening bool           // a UDP socket without a peer listens
	// HalfOpen means that a first packet came and was answered, and the answer was not:
	// the way back is shut.
	HalfOpen bool
	Inode    uint32
	UID      uint32
}

// States of include/net/tcp_states.h. A UDP socket without a peer is in tcpClose.
const (
	tcpListen     = 10
	tcpClose      = 7
	tcpSynRecv    = 3
	tcpNewSynRecv = 12
)

// List returns the TCP and UDP sockets of this network namespace, IPv4 and IPv6.
func List() ([]Socket, error) {
	var all []Socket
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		tcp, err := netlink.SocketDiagTCP(family)
		if err != nil {
			return nil, fmt.Errorf("list TCP sockets: %w", err)
		}
		udp, err := netlink.SocketDiagUDP(family)
		if err != nil {
			return nil, fmt.Errorf("list UDP sockets: %w", err)
		}
		for protocol, list := range map[string][]*netlink.Socket{"tcp": tcp, "udp": udp} {
			for _, s := range list {
				all = append(all, Socket{Protocol: protocol, Local: addrPort(s.ID.Source, s.ID.SourcePort), Remote: addrPort(s.ID.Destination, s.ID.DestinationPort),
					Listening: s.State == tcpListen || protocol == "udp" && s.State == tcpClose, HalfOpen: s.State == tcpSynRecv || s.State == tcpNewSynRecv, Inode: s.INode, UID: s.UID})
			}
		}
	}
	return all, nil
}

func addrPort(ip net.IP, port uint16) netip.AddrPort {
	a, _ := netip.AddrFromSlice(ip)
	return netip.AddrPortFrom(a.Unmap(), port)
}

// Own returns the inodes of this process's sockets.
func Own() (map[uint32]bool, error) { return ofProcess("self") }

func ofProcess(pid string) (map[uint32]bool, error) {
	dir := filepath.Join("/proc", pid, "fd")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	own := map[uint32]bool{}
	for _, e := range entries {
		to, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err != nil {
			continue // closed meanwhile
		}
		text, ok := strings.CutPrefix(to, "socket:[")
		if !ok {
			continue
		}
		if inode, err := strconv.ParseUint(strings.TrimSuffix(text, "]"), 10, 32); err == nil {
			own[uint32(inode)] = true
		}
	}
	return own, nil
}

// Program is who holds a socket.
type Program struct {
	PID  int
	Name string
}

// Programs finds the programs that hold sockets, by inode. Processes of other users
// are left out where this process may not look at them.
func Programs() map[uint32]Program {
	found := map[uint32]Program{}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return found
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		inodes, err := ofProcess(e.Name())
		if err != nil {
			continue
		}
		name, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "comm"))
		for inode := range inodes {
			found[inode] = Program{pid, strings.TrimSpace(string(name))}
		}
	}
	return found
}
