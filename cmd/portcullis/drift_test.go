package main_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/portcullis-id/portcullis/client"
	"github.com/portcullis-id/portcullis/internal/lab"
)

// labNode is a real node on a host of a lab.
type labNode struct {
	t    *testing.T
	host *lab.Host
	data string
	log  *syncBuffer
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// startIn starts a node at the contract's own ports, with the peers of renderFor: no
// nodes means their network.
func startIn(t *testing.T, l *lab.Lab, host string, nodes, env []string, more ...string) *labNode {
	t.Helper()
	exe, err := exec.LookPath("portcullis")
	if err != nil {
		t.Fatal(err)
	}
	n := &labNode{t: t, host: l.Host(host), data: t.TempDir(), log: &syncBuffer{}}
	args := []string{"start", "--dev", "--data", n.data, "--set", "listen.address=::", "--set", "listen.https=443", "--set", "listen.http=80", "--set", "health.api_key=0123456789abcdef0123456789abcdef"}
	for site, hosts := range map[string][]string{"lb": {"lb"}, "depot": {"depot"}, "cli": {"cli"}, "monitoring": {"monitoring"}, "jump_host": {"jump"}, "dns": {"dns"}} {
		var all []string
		for _, h := range hosts {
			for _, a := range l.Host(h).Addrs() {
				all = append(all, a.String())
			}
		}
		args = append(args, "--set", "network.sites."+site+"="+strings.Join(all, ","))
	}
	named := "10.77.1.0/24,fd77:0:0:1::/64"
	if len(nodes) > 0 {
		var all []string
		for _, h := range nodes {
			for _, a := range l.Host(h).Addrs() {
				all = append(all, a.String())
			}
		}
		named = strings.Join(all, ",")
	}
	args = append(args, "--set", "network.sites.nodes="+named)
	cmd := n.host.Command(t.Context(), exe, append(args, more...)...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = n.log
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready := make(chan bool, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for s := bufio.NewScanner(out); s.Scan(); {
			if strings.HasPrefix(s.Text(), "ready ") {
				ready <- true
			}
		}
		_ = cmd.Wait() // it is killed
		ready <- false
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		<-done
	})
	select {
	case ok := <-ready:
		if !ok {
			t.Fatalf("the node did not start: %s", n.log)
		}
	case <-time.After(time.Minute):
		t.Fatal("the node was not ready within a minute")
	}
	return n
}

// audit runs network audit on the node's host.
func (n *labNode) audit() (a client.Audit, exit int) {
	n.t.Helper()
	exe, err := exec.LookPath("portcullis")
	if err != nil {
		n.t.Fatal(err)
	}
	cmd := n.host.Command(n.t.Context(), exe, "network", "audit", "--data", n.data, "-o", "json")
	out, err := cmd.Output()
	if err := json.Unmarshal(out, &a); err != nil {
		n.t.Fatalf("%v: %s", err, out)
	}
	if err != nil {
		exit = cmd.ProcessState.ExitCode()
	}
	return a, exit
}

func (n *labNode) get(path string) string {
	n.t.Helper()
	out, err := n.host.Command(n.t.Context(), "curl", "-s", "-u", "api_keys_health:0123456789abcdef0123456789abcdef", "http://127.0.0.1:9110"+path).CombinedOutput()
	if err != nil {
		n.t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

// noDrift runs a node behind a firewall that the program wrote: nothing differs.
// Then a port is published, as Docker does it.
func noDrift(t *testing.T, l *lab.Lab, format string, nodes []string) {
	t.Helper()
	n := startIn(t, l, "node1", nodes, nil)
	a, exit := n.audit()
	if a.Firewall.Firewall != format || a.Firewall.Note != "" || len(a.Firewall.Findings) != 0 || len(a.Findings) != 0 || exit != 0 {
		t.Errorf("exit %d: %+v, %+v", exit, a.Findings, a.Firewall)
	}
	switch format {
	case "nftables":
		n.publish()
		// The chain forward of the rendered rules drops what the rule would send on.
		if a, _ := n.audit(); len(a.Firewall.Findings) != 0 {
			t.Errorf("%+v", a.Firewall.Findings)
		}
		return
	case "firewalld": // it lets everything through that was sent on
		n.publish()
	default:
		n.host.Run("sh", "-c", dockerRules)
	}
	a, exit = n.audit()
	if exit != 1 || len(a.Firewall.Findings) != 1 || a.Firewall.Findings[0].Kind != "published" {
		t.Fatalf("exit %d: %+v", exit, a.Firewall)
	}
	if s := a.Firewall.Findings[0].Sentence; !strings.HasPrefix(s, format+" says that tcp port 15432 is closed, and strangers get in") {
		t.Error(s)
	}
	if m := n.get("/metrics"); !strings.Contains(m, "portcullis_network_firewall_findings 1") {
		t.Error("no metric")
	}
	if d := n.get("/detail/network"); !strings.Contains(d, "tcp port 15432 is closed") {
		t.Errorf("detail: %s", d)
	}
}

func (n *labNode) publish() {
	n.host.Run("nft", "add", "table", "ip", "published")
	n.host.Run("nft", "add chain ip published PREROUTING { type nat hook prerouting priority -100; }")
	n.host.Run("nft", "add rule ip published PREROUTING tcp dport 15432 dnat to 172.17.0.2:5432")
}

// dockerRules are Docker's for a container that publishes a port.
const dockerRules = `set -e
ip link add docker0 type bridge; ip addr add 172.17.0.1/16 dev docker0; ip link set docker0 up
iptables-restore --noflush <<'EOF'
*nat
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 15432 -j DNAT --to-destination 172.17.0.2:5432
COMMIT
*filter
:DOCKER - [0:0]
:DOCKER-USER - [0:0]
-I FORWARD -o docker0 -j DOCKER
-I FORWARD -j DOCKER-USER
-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 5432 -j ACCEPT
COMMIT
EOF
`

// TestDriftAtTheStartIsLogged starts a node behind a firewall that blocks a row.
func TestDriftAtTheStartIsLogged(t *testing.T) {
	l := lab.New(t, lab.Options{Nodes: 1})
	l.Host("node1").Nft(`table inet filter { chain input { type filter hook input priority 0; policy drop; iifname "lo" accept; ct state established accept; tcp dport 8080 accept; }; }`)
	n := startIn(t, l, "node1", nil, nil)
	for range 500 { // until the node's own first look is over
		if strings.Contains(n.log.String(), "ports=8080") {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	for _, want := range []string{"the host's firewall differs from the network contract", "kind=blocked row=lb", "kind=open", "ports=8080", "nft insert rule inet filter input"} {
		if !strings.Contains(n.log.String(), want) {
			t.Errorf("%q is not in the log: %s", want, n.log)
		}
	}
}
