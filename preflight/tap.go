package preflight

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portcullis-id/portcullis/hostfw"
	"github.com/portcullis-id/portcullis/netcontract"
)

// Flow is packets from a host to a port.
type Flow struct {
	Sources  []netip.Addr         `json:"sources"`
	Protocol netcontract.Protocol `json:"protocol"`
	Port     int                  `json:"port,omitempty"`
}

// Watch is what a host saw while another one sent.
type Watch struct {
	// Looked means that the host may see packets before its firewall does.
	Looked bool `json:"looked"`
	// Arrived counts the packets of each flow that was asked for.
	Arrived []int `json:"arrived,omitempty"`
	// Counted are the rules of its firewall that counted packets meanwhile.
	Counted []hostfw.Drop `json:"counted,omitempty"`
}

// packet is the head of one.
type packet struct {
	outgoing           bool
	protocol           netcontract.Protocol
	source, target     netip.Addr
	sourcePort, toPort int
}

// maxPackets bounds what a tap keeps, and tapBuffer, in bytes, what waits for it.
const (
	maxPackets = 1 << 14
	tapBuffer  = 4 << 20
)

// tap sees the packets of this host: what comes in before the firewall does, and
// what goes out behind it.
type tap struct {
	fd     int
	wanted func(packet) bool
	done   sync.WaitGroup
	until  time.Time

	mu      sync.Mutex
	ended   bool
	lost    bool
	packets []packet
}

// allProtocols is ETH_P_ALL in the order of the network.
const allProtocols = 0x0300

// newTap wants CAP_NET_RAW. It keeps what is wanted.
func newTap(limit time.Duration, wanted func(packet) bool) (*tap, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, allProtocols)
	if err != nil {
		return nil, err
	}
	t := &tap{fd: fd, wanted: wanted, until: time.Now().Add(limit)}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, tapBuffer) // what does not fit is noticed
	// Woken often enough to notice its end.
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 20_000}); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	t.done.Go(t.read)
	return t, nil
}

func (t *tap) read() {
	defer func() { _ = unix.Close(t.fd) }() // it only read
	buf := make([]byte, 128)
	for {
		t.mu.Lock()
		ended := t.ended || time.Now().After(t.until)
		t.mu.Unlock()
		flags := 0
		if ended {
			flags = unix.MSG_DONTWAIT // what came before the end counts
		}
		n, from, err := unix.Recvfrom(t.fd, buf, flags)
		if link, ok := from.(*unix.SockaddrLinklayer); ok && err == nil {
			p, ok := parsePacket(buf[:n])
			p.outgoing = link.Pkttype == unix.PACKET_OUTGOING
			if ok && t.wanted(p) {
				t.packets = append(t.packets, p)
			}
		}
		if len(t.packets) >= maxPackets || err != nil && (ended || err != unix.EAGAIN && err != unix.EINTR) {
			break
		}
	}
	stats, err := unix.GetsockoptTpacketStats(t.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	t.lost = err != nil || stats.Drops > 0 || len(t.packets) >= maxPackets
}

// stop ends the tap and returns what it saw. whole is false where something may be
// missing.
func (t *tap) stop() (packets []packet, whole bool) {
	t.mu.Lock()
	t.ended = true
	t.mu.Unlock()
	t.done.Wait()
	return t.packets, !t.lost
}

// parsePacket reads the head of an IP packet; ok is false for what no row speaks
// of.
func parsePacket(b []byte) (p packet, ok bool) {
	if len(b) < 20 {
		return p, false
	}
	var number byte
	switch b[0] >> 4 {
	case 4:
		size := int(b[0]&15) * 4
		number, p.source, p.target = b[9], netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
		if size < 20 || size > len(b) {
			return p, false
		}
		b = b[size:]
	case 6:
		if len(b) < 40 {
			return p, false
		}
		number, p.source, p.target = b[6], netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
		b = b[40:]
	default:
		return p, false
	}
	switch number {
	case unix.IPPROTO_TCP:
		p.protocol = netcontract.TCP
	case unix.IPPROTO_UDP:
		p.protocol = netcontract.UDP
	case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
		// An echo goes to port 0, as checks have it, and its answer comes from there.
		p.protocol = netcontract.ICMP
		if len(b) == 0 {
			return p, false
		}
		switch [2]byte{number, b[0]} {
		case [2]byte{unix.IPPROTO_ICMP, 8}, [2]byte{unix.IPPROTO_ICMPV6, 128}:
			p.sourcePort = -1
			return p, true
		case [2]byte{unix.IPPROTO_ICMP, 0}, [2]byte{unix.IPPROTO_ICMPV6, 129}:
			p.toPort = -1
			return p, true
		}
		return p, false
	default:
		return p, false
	}
	if len(b) < 4 {
		return p, false
	}
	p.sourcePort, p.toPort = int(binary.BigEndian.Uint16(b)), int(binary.BigEndian.Uint16(b[2:]))
	return p, true
}

// has reports whether a packet came in on the flow.
func (f Flow) has(p packet) bool {
	return !p.outgoing && p.protocol == f.Protocol && p.toPort == f.Port && slices.Contains(f.Sources, p.source)
}

// count is how many of the packets came in on the flow.
func (f Flow) count(packets []packet) int {
	n := 0
	for _, p := range packets {
		if f.has(p) {
			n++
		}
	}
	return n
}
