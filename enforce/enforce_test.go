package enforce

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/portcullis-id/portcullis/audit"
	"github.com/portcullis-id/portcullis/netcontract"
)

// child names the part of a test that gives up ports, and so needs a process of its
// own.
const child = "PORTCULLIS_TEST_ENFORCE"

func TestMain(m *testing.M) {
	if part := os.Getenv(child); part != "" {
		if err := parts[part](); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("done:", part)
		return
	}
	os.Exit(m.Run())
}

var parts = map[string]func() error{"restrict": restrictPart, "inherit": inheritPart, "again": againPart}

// apart runs a part in a process of its own.
func apart(t *testing.T, part string) {
	t.Helper()
	if ABI() < MinABI {
		t.Skipf("%v", ErrKernel)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), child+"="+part)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "done: "+part) {
		t.Fatalf("%v\n%s", err, out)
	}
}

func TestKernelRefusesWhatIsUndeclared(t *testing.T) { apart(t, "restrict") }
func TestProcessesInherit(t *testing.T)              { apart(t, "inherit") }
func TestRestrictTwice(t *testing.T)                 { apart(t, "again") }

// listener opens a port before anything is given up.
func listener() (net.Listener, int, error) {
	l, err := plain().Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, 0, err
	}
	return l, l.Addr().(*net.TCPAddr).Port, nil
}

func plain() *net.ListenConfig {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	return &lc
}

func restrictPart() error {
	declared, port, err := listener()
	if err != nil {
		return err
	}
	defer declared.Close()
	undeclared, other, err := listener()
	if err != nil {
		return err
	}
	defer undeclared.Close()
	free, again, err := listener()
	if err != nil {
		return err
	}
	free.Close()
	// Threads that exist already, and that are made later, are all held.
	stop := make(chan struct{})
	defer close(stop)
	for range 4 {
		go func() { runtime.LockOSThread(); <-stop }()
	}
	g := NewGuard(On, Ports{Bind: []int{again}, Connect: []int{port}}, func(Attempt) {})
	if err := g.Start(); err != nil {
		return err
	}
	if s := g.Status(); !s.Holds || !strings.Contains(s.Sentence, "refuses TCP listeners on other ports than "+fmt.Sprint(again)) || g.Note() != "" {
		return fmt.Errorf("status: %+v", s)
	}
	errs := make(chan error)
	for range 16 {
		go func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			errs <- func() error {
				c, err := net.Dial("tcp", declared.Addr().String())
				if err != nil {
					return fmt.Errorf("declared: %w", err)
				}
				c.Close()
				if _, err := net.Dial("tcp", undeclared.Addr().String()); !errors.Is(err, syscall.EACCES) || !Refuses(err) {
					return fmt.Errorf("an undeclared port was connected: %v", err)
				}
				for _, address := range []string{fmt.Sprintf("127.0.0.1:%d", other-1), "127.0.0.1:0", "[::]:0"} {
					if _, err := plain().Listen(context.Background(), "tcp", address); !errors.Is(err, syscall.EACCES) {
						return fmt.Errorf("%s was bound: %v", address, err)
					}
				}
				return nil
			}()
		}()
	}
	for range 16 {
		if err := <-errs; err != nil {
			return err
		}
	}
	l, err := plain().Listen(context.Background(), "tcp", fmt.Sprintf("127.0.0.1:%d", again))
	if err != nil {
		return fmt.Errorf("the declared listener: %w", err)
	}
	l.Close()
	// What docs/enforcement.md says of the limits.
	u, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("UDP is not Landlock's yet, and was refused: %w", err)
	}
	u.Close()
	return nil
}

func inheritPart() error {
	if err := Restrict(Ports{}); err != nil {
		return err
	}
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), child+"=restrict")
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "permission denied") {
		return fmt.Errorf("a child could listen: %v\n%s", err, out)
	}
	return nil
}

// againPart narrows twice, as a restart within a process would: what is left is
// what both allow.
func againPart() error {
	l, port, err := listener()
	if err != nil {
		return err
	}
	defer l.Close()
	if err := Restrict(Ports{Connect: []int{port}}); err != nil {
		return err
	}
	if err := Restrict(Ports{Connect: []int{port, port + 1}}); err != nil {
		return err
	}
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return err
	}
	return c.Close()
}

func TestCompile(t *testing.T) {
	table, err := netcontract.Contract(netcontract.ProfilePortcullis)
	if err != nil {
		t.Fatal(err)
	}
	p := Compile(audit.FromContract(table), 8443, 8443, 0, 70000, -1)
	for _, want := range []int{80, 443, 4443, 9110, 7777, 9350} {
		if !slices.Contains(p.Bind, want) {
			t.Errorf("no bind to %d: %v", want, p.Bind)
		}
	}
	for _, want := range []int{443, 53, 587, 4318, 27017, 8443} {
		if !slices.Contains(p.Connect, want) {
			t.Errorf("no connect to %d: %v", want, p.Connect)
		}
	}
	for _, p := range [][]int{p.Bind, p.Connect} {
		if slices.Contains(p, 0) || slices.Contains(p, 70000) || !slices.IsSorted(p) || len(slices.Compact(slices.Clone(p))) != len(p) {
			t.Errorf("ports: %v", p)
		}
	}
	if slices.Contains(p.Connect, 9110) {
		t.Error("the row health is inbound only")
	}
	if got := portText([]int{80, 443, 9300, 9301, 9302}); got != "80, 443, 9300-9302" {
		t.Errorf("%q", got)
	}
	if got := portText(nil); got != "none" {
		t.Errorf("%q", got)
	}
}

func TestAuditTellsOnceAndRefusesNothing(t *testing.T) {
	l, port, err := listener()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var told []Attempt
	g := NewGuard(Audit, Ports{Connect: []int{443}}, func(a Attempt) { told = append(told, a) })
	if err := g.Start(); err != nil {
		t.Fatal(err)
	}
	to := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(port))
	for range 3 {
		g.Connect(netcontract.Social, "tcp4", to)
	}
	g.Connect(netcontract.Social, "tcp4", netip.MustParseAddrPort("192.0.2.1:443"))
	g.Connect(netcontract.DNS, "udp4", netip.MustParseAddrPort("192.0.2.1:5353"))
	if len(told) != 1 || told[0].Port != port || !strings.Contains(told[0].Sentence, "would be refused with network.enforce: on") {
		t.Errorf("told: %+v", told)
	}
	if s := g.Status(); len(s.Refused) != 1 || s.Holds || g.Refused() != 3 || g.Note() != "" {
		t.Errorf("%+v, %d", s, g.Refused())
	}
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatalf("audit refuses: %v", err)
	}
	c.Close()
}

// TestAKernelWithoutRules: the node is told, and refuses nothing.
func TestAKernelWithoutRules(t *testing.T) {
	old := version
	defer func() { version = old }()
	for name, f := range map[string]func() (int, error){"none": func() (int, error) { return 0, syscall.ENOSYS }, "too old": func() (int, error) { return 3, nil }} {
		version = f
		var told []Attempt
		g := NewGuard(On, Ports{}, func(a Attempt) { told = append(told, a) })
		if err := g.Start(); !errors.Is(err, ErrKernel) {
			t.Fatalf("%s: %v", name, err)
		}
		if s := g.Status(); s.Holds || !strings.Contains(s.Sentence, "NOT in force") || g.Note() != s.Sentence {
			t.Errorf("%s: %+v, note %q", name, s, g.Note())
		}
		g.Connect(netcontract.Social, "tcp4", netip.MustParseAddrPort("192.0.2.1:8443"))
		if len(told) != 1 || !strings.Contains(told[0].Sentence, "would be refused if this kernel could") {
			t.Errorf("%s: %+v", name, told)
		}
		a := NewGuard(Audit, Ports{}, func(Attempt) {})
		if err := a.Start(); err != nil || !strings.Contains(a.Status().Sentence, "With on nothing would be refused either") {
			t.Errorf("%s: %v %+v", name, err, a.Status())
		}
	}
}

func TestOffTellsNothing(t *testing.T) {
	g := NewGuard("", Ports{}, func(a Attempt) { t.Errorf("told: %+v", a) })
	if err := g.Start(); err != nil {
		t.Fatal(err)
	}
	g.Connect(netcontract.Social, "tcp", netip.MustParseAddrPort("192.0.2.1:1"))
	if s := g.Status(); s.Mode != Off || s.Holds || g.Refused() != 0 {
		t.Errorf("%+v", s)
	}
}

func TestMultipath(t *testing.T) {
	old := mptcpSetting
	defer func() { mptcpSetting = old }()
	mptcpSetting = filepath.Join(t.TempDir(), "enabled")
	if Multipath() {
		t.Error("a kernel without Multipath TCP has it")
	}
	for text, want := range map[string]bool{"1\n": true, "0\n": false} {
		if err := os.WriteFile(mptcpSetting, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if Multipath() != want {
			t.Errorf("%q", text)
		}
	}
}

// TestRefusesTellsTheKernelFromOthers: a file's EACCES is no refusal of the network.
func TestRefusesTellsTheKernelFromOthers(t *testing.T) {
	if Refuses(&os.PathError{Err: unix.EACCES}) || Refuses(&net.OpError{Op: "dial", Err: unix.ECONNREFUSED}) || !Refuses(&net.OpError{Op: "dial", Err: unix.EACCES}) {
		t.Error("errors are mixed up")
	}
}
