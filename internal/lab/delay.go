//go:build linux

package lab

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// delayed marks the frames that have waited, so that none waits again. The mark
// does not leave the router.
const delayed = 0x77

// Delay holds packets from `from` to `to` back for d, one way, in their order. A
// round trip takes twice that when both ways have a delay. Of several delays for
// one packet the one that came first counts. The precision is about a millisecond.
//
// The router hands the frames to this process, which waits and sends them on;
// tc's netem would do the same, but many kernels come without it.
func (l *Lab) Delay(from, to string, d time.Duration) (undo func()) {
	l.helper()
	if d < 0 {
		l.fatal(fmt.Errorf("lab: a delay of %s", d))
	}
	targets, err := l.members(to)
	if err != nil {
		l.fatal(err)
	}
	name := l.faultName()
	line, err := l.newDelayLine(name, targets, d)
	if err != nil {
		l.fatal(err)
	}
	rules, err := l.rules(flow{from: from, to: to}, func(bool) string { return fmt.Sprintf("meta mark != %d fwd to %q", delayed, name) })
	if err != nil {
		_ = line.Close()
		l.fatal(err)
	}
	b := &strings.Builder{}
	fmt.Fprintf(b, "table netdev %s {\n", name)
	for i, h := range targets {
		fmt.Fprintf(b, "\tchain to%d {\n\t\ttype filter hook egress device %q priority 0; policy accept;\n\t\t%s\n\t}\n", i, h.name, strings.Join(rules, "\n\t\t"))
	}
	fmt.Fprint(b, "}\n")
	if _, err := l.Router().run(b.String(), "nft", "-f", "-"); err != nil {
		_ = line.Close()
		l.fatal(err)
	}
	l.closeLater(line)
	return l.undo(func() error {
		_, err := l.Router().run("delete table netdev "+name+"\n", "nft", "-f", "-")
		return errors.Join(err, line.Close())
	})
}

// delayLine reads the frames that the router sends into a tap device and puts
// each, after the delay, on the link that it was for.
type delayLine struct {
	tap    *os.File
	out    int            // a packet socket
	links  map[string]int // the number of the router's end of a link, by the hardware address of the host's
	delay  time.Duration
	frames chan frame
	once   sync.Once
	ended  sync.WaitGroup
}

type frame struct {
	due  time.Time
	data []byte
}

func (l *Lab) newDelayLine(name string, targets []*Host, d time.Duration) (*delayLine, error) {
	line := &delayLine{out: -1, links: map[string]int{}, delay: d, frames: make(chan frame, 1<<14)}
	err := l.Router().Do(func() error {
		for _, h := range targets {
			if h.network == nil {
				return errors.New("the router holds no packets back that are for itself")
			}
			link, err := net.InterfaceByName(h.name)
			if err != nil {
				return fmt.Errorf("find the link of %s: %w", h.name, err)
			}
			line.links[string(h.mac(1))] = link.Index
		}
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return fmt.Errorf("open /dev/net/tun: %w", err)
		}
		request, err := unix.NewIfreq(name)
		if err == nil {
			request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
			err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
		}
		if err != nil {
			_ = unix.Close(fd)
			return fmt.Errorf("make the tap device %s: %w", name, err)
		}
		// Only now, for a file that has no device yet never becomes readable.
		line.tap = os.NewFile(uintptr(fd), "tap "+name)
		if line.out, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return fmt.Errorf("open a packet socket: %w", err)
		}
		return unix.SetsockoptInt(line.out, unix.SOL_SOCKET, unix.SO_MARK, delayed)
	})
	if err == nil && !l.options.IPv4Only {
		err = l.Router().sysctl("ipv6/conf/"+name+"/disable_ipv6", "1") // no announcements of its own
	}
	if err == nil {
		_, err = l.Router().run("", "ip", "link", "set", name, "txqueuelen", "10000", "up")
	}
	if err != nil {
		if line.tap != nil {
			line.tap.Close()
		}
		if line.out >= 0 {
			_ = unix.Close(line.out)
		}
		return nil, fmt.Errorf("lab: delay: %w", err)
	}
	line.ended.Add(2)
	go line.read()
	go line.send()
	return line, nil
}

func (d *delayLine) read() {
	defer d.ended.Done()
	defer close(d.frames)
	buf := make([]byte, 1<<16)
	for {
		n, err := d.tap.Read(buf)
		if err != nil {
			return // closed
		}
		select {
		case d.frames <- frame{time.Now().Add(d.delay), bytes.Clone(buf[:n])}:
		default: // the line is full, and as a real one would, it drops
		}
	}
}

func (d *delayLine) send() {
	defer d.ended.Done()
	for f := range d.frames {
		time.Sleep(time.Until(f.due))
		if len(f.data) < 14 {
			continue
		}
		link, ok := d.links[string(f.data[:6])]
		if !ok {
			continue
		}
		// A frame that cannot be sent is a lost one; the ends see to that.
		_ = unix.Sendto(d.out, f.data, 0, &unix.SockaddrLinklayer{Ifindex: link})
	}
}

// Close ends the line; what waits in it still goes out.
func (d *delayLine) Close() error {
	var err error
	d.once.Do(func() {
		err = d.tap.Close()
		d.ended.Wait()
		err = errors.Join(err, unix.Close(d.out))
	})
	return err
}
