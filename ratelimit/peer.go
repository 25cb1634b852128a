package ratelimit

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"
)

// Wire is how this node reaches the others.
type Wire struct {
	// ClientTLS is what to speak to a node with: it presents this node's certificate
	// and believes that of the node with the id alone.
	ClientTLS func(id string) *tls.Config
	// Dial connects to a node on row rate-limit.
	Dial func(ctx context.Context, p Peer) (net.Conn, error)
}

const (
	itemsPath = "/v2/items"
	flights   = 4   // calls to one node at a time
	maxLot    = 256 // items of one call
	maxQueue  = 8192
)

// A node that does not answer is left alone for a while, which grows.
const (
	firstPause = 250 * time.Millisecond
	lastPause  = 2 * time.Second
	// Then one call finds out whether it is back. Who is part of it waits so long at
	// most; all others are told at once.
	doubtTime = 250 * time.Millisecond
)

// network is the transport over HTTP/2.
type network struct {
	Wire
	mu    sync.Mutex
	lines map[Peer]*line
}

// line leads to one node: what is asked while calls are on their way makes up the
// next ones.
type line struct {
	peer Peer
	http *http.Client

	mu     sync.Mutex
	queue  []question
	flying int
	until  time.Time // nobody is asked before
	pause  time.Duration
	good   time.Time // when it has last answered
}

type question struct {
	ctx    context.Context // the asker's, who may be gone by the time that the question leaves
	item   item
	answer chan<- reply
	at     int
}

type reply struct {
	at      int
	verdict verdict
	err     error
}

// Connect lets the service ask other nodes. It has to be called before Run where
// there is a cluster.
func (s *Service) Connect(w Wire) {
	s.wire = &network{Wire: w, lines: map[Peer]*line{}}
}

func (n *network) line(p Peer) *line {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.lines[p]
	if l == nil {
		if len(n.lines) > 512 { // of nodes that are long gone
			for _, old := range n.lines {
				old.http.CloseIdleConnections()
			}
			clear(n.lines)
		}
		l = &line{peer: p, http: &http.Client{Transport: &http.Transport{
			DialContext:         func(ctx context.Context, _, _ string) (net.Conn, error) { return n.Dial(ctx, p) },
			ForceAttemptHTTP2:   true,
			MaxIdleConnsPerHost: 1,
			IdleConnTimeout:     time.Minute,
			TLSClientConfig:     n.ClientTLS(p.ID),
			TLSHandshakeTimeout: 2 * time.Second,
		}}}
		n.lines[p] = l
	}
	return l
}

// Close ends the connections to other nodes.
func (s *Service) Close() {
	if n, ok := s.wire.(*network); ok {
		n.mu.Lock()
		defer n.mu.Unlock()
		for _, l := range n.lines {
			l.http.CloseIdleConnections()
		}
	}
}

func (n *network) heard(id string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for p, l := range n.lines {
		if p.ID == id {
			l.heard()
		}
	}
}

func (l *line) heard() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.until, l.pause = time.Time{}, 0
}

var errAway = errors.New("it did not answer a moment ago")

func (n *network) call(ctx context.Context, p Peer, items []item) ([]verdict, error) {
	if p.Host == "" {
		return nil, fmt.Errorf("nobody knows where node %s is", p.ID)
	}
	l := n.line(p)
	answers := make(chan reply, len(items))
	if err := l.push(ctx, items, answers); err != nil {
		return nil, fmt.Errorf("ask node %s: %w", p.ID, err)
	}
	if l.doubtful() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, doubtTime)
		defer cancel()
	}
	out := make([]verdict, len(items))
	for range items {
		select {
		case r := <-answers:
			if r.err != nil {
				return nil, fmt.Errorf("ask node %s: %w", p.ID, r.err)
			}
			out[r.at] = r.verdict
		case <-ctx.Done():
			return nil, fmt.Errorf("ask node %s: %w", p.ID, ctx.Err())
		}
	}
	return out, nil
}

// push puts questions into the line, and sees to it that somebody carries them.
func (l *line) push(ctx context.Context, items []item, answers chan<- reply) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if time.Now().Before(l.until) || l.pause > 0 && l.flying > 0 {
		return errAway
	}
	if len(l.queue)+len(items) > maxQueue {
		return fmt.Errorf("%d questions wait", len(l.queue))
	}
	for i := range items {
		l.queue = append(l.queue, question{ctx, items[i], answers, i})
	}
	if l.flying < flights {
		l.flying++
		go l.fly()
	}
	return nil
}

// fly carries lots until nothing waits.
func (l *line) fly() {
	for {
		l.mu.Lock()
		var load []question
		n := 0
		for ; n < len(l.queue) && len(load) < maxLot; n++ {
			if l.queue[n].ctx.Err() == nil { // whoever has gone is not asked for
				load = append(load, l.queue[n])
			}
		}
		l.queue = l.queue[n:]
		if len(load) == 0 {
			if len(l.queue) == 0 {
				l.queue = nil
			}
			l.flying--
			l.mu.Unlock()
			return
		}
		l.mu.Unlock()
		items := make([]item, len(load))
		for i, q := range load {
			items[i] = q.item
		}
		began := time.Now()
		verdicts, err := l.send(items)
		if broken(err) {
			// The connection, perhaps, and not the node. Where it was killed, a new one tells
			// at once. What was counted the first time is not counted again.
			verdicts, err = l.send(items)
		}
		for _, q := range l.judge(err, began) {
			q.answer <- reply{at: q.at, err: errAway}
		}
		for i, q := range load {
			r := reply{at: q.at, err: err}
			if err == nil {
				r.verdict = verdicts[i]
			}
			q.answer <- r // has room for all
		}
	}
}

// broken reports whether a connection has ended under a call, which took no time.
func broken(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, net.ErrClosed)
}

// judge notes how a call went: who asks after a failure is told at once, until one
// who asks later finds that the node is back. It returns the questions that wait, where
// they would do so in vain. A node that has answered others since the call began is
// there: the call had a question that takes long.
func (l *line) judge(err error, began time.Time) (vain []question) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		l.good = time.Now()
	} else if l.good.After(began) {
		return nil
	}
	if err == nil || errors.Is(err, syscall.ECONNREFUSED) { // that costs no time
		l.until, l.pause = time.Time{}, 0
		return nil
	}
	l.pause = min(max(2*l.pause, firstPause), lastPause)
	l.until = time.Now().Add(l.pause)
	vain, l.queue = l.queue, nil
	return vain
}

func (l *line) doubtful() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.pause > 0
}

func (l *line) send(items []item) ([]verdict, error) {
	// Not the askers' context: they share the call.
	ctx, cancel := context.WithTimeout(context.Background(), CallTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+l.peer.ID+itemsPath, bytes.NewReader(encodeItems(items)))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	res, err := l.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answered %s: %.200s", res.Status, bytes.TrimSpace(raw))
	}
	all, err := decodeVerdicts(raw)
	if err != nil {
		return nil, fmt.Errorf("its answer makes no sense: %w", err)
	}
	if len(all) != len(items) {
		return nil, fmt.Errorf("it answered %d of %d questions", len(all), len(items))
	}
	return all, nil
}
