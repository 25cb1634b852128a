package enforce

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"

	"github.com/portcullis-id/portcullis/audit"
	"github.com/portcullis-id/portcullis/netcontract"
)

// Mode says what becomes of a port that no row declares.
type Mode string

// The modes. The empty one is Off.
const (
	Off   Mode = "off"
	Audit Mode = "audit" // it is told, and nothing is refused
	On    Mode = "on"    // the kernel refuses it with EACCES
)

// Modes lists the modes.
func Modes() []string { return []string{string(Off), string(Audit), string(On)} }

// Ports are what a process may do in TCP.
type Ports struct {
	Bind    []int `json:"bind"`
	Connect []int `json:"connect"`
}

// Compile takes the TCP ports from what is declared. connect are ports that may be
// connected beside those: Landlock knows no hosts, so a provider inside the network
// on a port of its own needs that port.
func Compile(d audit.Declared, connect ...int) Ports {
	var p Ports
	for _, e := range d.Listen {
		p.Bind = add(p.Bind, e)
	}
	for _, e := range d.Dial {
		p.Connect = add(p.Connect, e)
	}
	for _, port := range connect {
		p.Connect = add(p.Connect, audit.Endpoint{Protocol: string(netcontract.TCP), Port: port})
	}
	slices.Sort(p.Bind)
	slices.Sort(p.Connect)
	return p
}

// add leaves out port 0: in a rule it would stand for every port that the kernel
// may choose.
func add(list []int, e audit.Endpoint) []int {
	if e.Protocol != string(netcontract.TCP) || e.Port < 1 || e.Port > 65535 || slices.Contains(list, e.Port) {
		return list
	}
	return append(list, e.Port)
}

// MinABI is the first version of Landlock that has rules for the network (Linux
// 6.7).
const MinABI = 4

// version asks the kernel.
var version = ll.LandlockGetABIVersion

// ABI is the version of Landlock that the kernel offers, or 0.
func ABI() int {
	v, err := version()
	if err != nil {
		return 0
	}
	return v
}

// ErrKernel says that the kernel has no rules for the network.
var ErrKernel = errors.New("this kernel has no network rules of Landlock: they want Linux 6.7 or newer with landlock in CONFIG_LSM or the kernel's option lsm=")

// Restrict gives up everything but the ports, for all threads of this process and
// for good, and proves it: a port that is not among them can no longer be bound.
// It sets no_new_privs. The error is ErrKernel where the kernel cannot.
func Restrict(p Ports) error {
	if ABI() < MinABI {
		return ErrKernel
	}
	rules := make([]landlock.Rule, 0, len(p.Bind)+len(p.Connect))
	for _, port := range p.Bind {
		rules = append(rules, landlock.BindTCP(uint16(port))) // #nosec G115 -- add holds ports to 1 to 65535
	}
	for _, port := range p.Connect {
		rules = append(rules, landlock.ConnectTCP(uint16(port))) // #nosec G115 -- as above
	}
	if err := landlock.V4.RestrictNet(rules...); err != nil {
		return fmt.Errorf("give up undeclared ports: %w", err)
	}
	return prove(p)
}

// prove binds, on loopback and without listening, a port that was given up.
func prove(p Ports) error {
	port := 65535
	for slices.Contains(p.Bind, port) && port > 1 {
		port--
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return fmt.Errorf("prove that undeclared ports are refused: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	err = unix.Bind(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}})
	if errors.Is(err, unix.EACCES) {
		return nil
	}
	return fmt.Errorf("the kernel took the rules and does not keep them: port %d, which no row declares, could be bound (%v)", port, err)
}

// mptcpSetting says whether the kernel makes sockets of Multipath TCP.
var mptcpSetting = "/proc/sys/net/mptcp/enabled"

// Multipath reports whether other code in this process could go around the rules by
// Multipath TCP, which Landlock does not see.
func Multipath() bool {
	b, err := os.ReadFile(mptcpSetting)
	return err == nil && strings.TrimSpace(string(b)) == "1"
}

// Status is what holds in a process, for people and for programs.
type Status struct {
	Mode     Mode   `json:"mode"`
	ABI      int    `json:"landlock_abi"` // 0: the kernel has none
	Holds    bool   `json:"holds"`        // the kernel refuses what no row declares
	Sentence string `json:"sentence"`
	Ports
	// Refused are the calls, since the start, that were refused, or would be with Mode On.
	Refused []Attempt `json:"refused"`
}

// Attempt is a call to a port that no row declares.
type Attempt struct {
	Row      netcontract.RowID `json:"row"` // the row that asked for it
	Remote   string            `json:"remote"`
	Port     int               `json:"port"`
	Sentence string            `json:"sentence"`
}

// Guard is the enforcement of a process. It is safe for concurrent use.
type Guard struct {
	mode  Mode
	ports Ports
	told  func(Attempt)

	mu       sync.Mutex
	status   Status
	attempts map[int]Attempt // by port
	count    int64
}

// NewGuard makes a guard; told is called for the first attempt at each port.
func NewGuard(mode Mode, ports Ports, told func(Attempt)) *Guard {
	if mode == "" {
		mode = Off
	}
	return &Guard{mode: mode, ports: ports, told: told, attempts: map[int]Attempt{}, status: Status{Mode: mode, Ports: ports}}
}

// Start applies the mode. The error says why nothing is enforced although it was
// asked for; the process may go on, and Status says so.
func (g *Guard) Start() error {
	s := Status{Mode: g.mode, ABI: ABI(), Ports: g.ports}
	var err error
	switch g.mode {
	case Off:
		s.Sentence = "network.enforce is off: the kernel refuses nothing of this process."
	case Audit:
		s.Sentence = "network.enforce is audit: calls to ports that no row declares are told, and not refused."
		if s.ABI < MinABI {
			s.Sentence += " With on nothing would be refused either: " + ErrKernel.Error() + "."
		}
	case On:
		if err = Restrict(g.ports); err != nil {
			s.Sentence = "network.enforce is on, and NOT in force: " + err.Error() + "."
			break
		}
		s.Holds = true
		s.Sentence = fmt.Sprintf("network.enforce is on: the kernel (Landlock ABI %d) refuses TCP listeners on other ports than %s and TCP connections to other ports than %s.", s.ABI, portText(g.ports.Bind), portText(g.ports.Connect))
		if Multipath() {
			s.Sentence += " Landlock does not see Multipath TCP, which this program does not use; net.mptcp.enabled=0 closes it to any other code."
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.status = s
	return err
}

// Connect is told of each TCP connection before it is made.
func (g *Guard) Connect(row netcontract.RowID, network string, to netip.AddrPort) {
	if g.mode == Off || !strings.HasPrefix(network, "tcp") || slices.Contains(g.ports.Connect, int(to.Port())) {
		return
	}
	a := Attempt{Row: row, Remote: to.String(), Port: int(to.Port())}
	g.mu.Lock()
	verb := "would be refused with network.enforce: on"
	if g.status.Holds {
		verb = "is refused by network.enforce"
	} else if g.mode == On {
		verb = "would be refused if this kernel could"
	}
	a.Sentence = fmt.Sprintf("The connection to %s, for row %s, %s: no row declares tcp port %d. If it is right, add the port to network.enforce_connect.", a.Remote, row, verb, a.Port)
	g.count++
	_, known := g.attempts[a.Port]
	if !known {
		g.attempts[a.Port] = a
	}
	g.mu.Unlock()
	if !known {
		g.told(a)
	}
}

// Refused is how many calls were refused, or would have been.
func (g *Guard) Refused() int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.count
}

// Status is the state now.
func (g *Guard) Status() Status {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.status
	s.Refused = []Attempt{}
	for _, a := range g.attempts {
		s.Refused = append(s.Refused, a)
	}
	slices.SortFunc(s.Refused, func(a, b Attempt) int { return a.Port - b.Port })
	return s
}

// Note is what the health detail says: that enforcement was asked for and does not
// hold, or "".
func (g *Guard) Note() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.mode == On && !g.status.Holds {
		return g.status.Sentence
	}
	return ""
}

// Refuses reports whether an error is the kernel's refusal.
func Refuses(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && errors.Is(err, syscall.EACCES)
}

// portText writes sorted ports with runs in short: "80, 443, 9300-9400".
func portText(ports []int) string {
	var runs []string
	for i := 0; i < len(ports); {
		j := i
		for j+1 < len(ports) && ports[j+1] == ports[j]+1 {
			j++
		}
		run := strconv.Itoa(ports[i])
		if j > i {
			run += "-" + strconv.Itoa(ports[j])
		}
		runs = append(runs, run)
		i = j + 1
	}
	if len(runs) == 0 {
		return "none"
	}
	return strings.Join(runs, ", ")
}
