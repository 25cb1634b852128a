package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// conn is one HTTP/1.1 connection. It reads answers with no more work than they
// need: the load generator shares its processors with the node.
type conn struct {
	address string
	tls     *tls.Config
	nc      net.Conn
	br      *bufio.Reader
	body    []byte
}

// answer is valid until the next call of do.
type answer struct {
	status   int
	location string
	cookies  []string // name=value
	body     []byte
}

func (c *conn) dial() error {
	var nc net.Conn
	nc, err := net.DialTimeout("tcp", c.address, 5*time.Second)
	if err != nil {
		return err
	}
	if c.tls != nil {
		nc = tls.Client(nc, c.tls)
	}
	// Once for all requests: a timer for each would be a good part of their cost.
	if err := nc.SetDeadline(time.Now().Add(5 * time.Minute)); err != nil {
		return errors.Join(err, nc.Close())
	}
	c.nc = nc
	if c.br == nil {
		c.br = bufio.NewReaderSize(nc, 16<<10)
	} else {
		c.br.Reset(nc)
	}
	return nil
}

func (c *conn) close() {
	if c.nc != nil {
		_ = c.nc.Close() // nothing is lost with it
		c.nc = nil
	}
}

// do sends a whole request and reads the answer.
func (c *conn) do(request []byte) (a answer, err error) {
	if c.nc == nil {
		if err := c.dial(); err != nil {
			return a, err
		}
	}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	if _, err := c.nc.Write(request); err != nil {
		return a, err
	}
	line, err := c.br.ReadSlice('\n')
	if err != nil {
		return a, err
	}
	if len(line) < 12 || !bytes.HasPrefix(line, []byte("HTTP/1.1 ")) {
		return a, fmt.Errorf("status line %q", line)
	}
	if a.status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return a, err
	}
	length, chunked, last := 0, false, false
	for {
		line, err := c.br.ReadSlice('\n')
		if err != nil {
			return a, err
		}
		if len(line) <= 2 {
			break
		}
		switch line[0] | 0x20 {
		case 'c':
			if v, ok := header(line, "content-length"); ok {
				if length, err = strconv.Atoi(v); err != nil {
					return a, err
				}
			} else if v, ok := header(line, "connection"); ok {
				last = strings.EqualFold(v, "close")
			}
		case 't':
			_, chunked = header(line, "transfer-encoding")
		case 'l':
			if v, ok := header(line, "location"); ok {
				a.location = v
			}
		case 's':
			if v, ok := header(line, "set-cookie"); ok {
				pair, _, _ := strings.Cut(v, ";")
				a.cookies = append(a.cookies, pair)
			}
		}
	}
	c.body = c.body[:0]
	for chunked {
		line, err := c.br.ReadSlice('\n')
		if err != nil {
			return a, err
		}
		n, err := strconv.ParseInt(strings.TrimSpace(string(line)), 16, 32)
		if err != nil {
			return a, err
		}
		if err := c.read(int(n)); err != nil {
			return a, err
		}
		if _, err := c.br.Discard(2); err != nil {
			return a, err
		}
		chunked = n > 0
	}
	if err := c.read(length); err != nil {
		return a, err
	}
	a.body = c.body
	if last {
		c.close()
	}
	return a, nil
}

func (c *conn) read(n int) error {
	at := len(c.body)
	c.body = slices.Grow(c.body, n)[:at+n]
	_, err := io.ReadFull(c.br, c.body[at:])
	return err
}

func header(line []byte, name string) (string, bool) {
	if len(line) <= len(name) || line[len(name)] != ':' || !strings.EqualFold(string(line[:len(name)]), name) {
		return "", false
	}
	return string(bytes.TrimSpace(line[len(name)+1:])), true
}

// request makes the bytes of a request. A body makes it a POST unless method says
// otherwise; headers are "Name: value".
func request(method, host, path, contentType string, body []byte, headers ...string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", method, path, host)
	for _, h := range headers {
		b.WriteString(h + "\r\n")
	}
	if body != nil {
		fmt.Fprintf(&b, "Content-Type: %s\r\nContent-Length: %d\r\n", contentType, len(body))
	}
	b.WriteString("\r\n")
	b.Write(body)
	return b.Bytes()
}

const formType = "application/x-www-form-urlencoded"

// operation is one unit of what is counted, of one or more requests.
type operation func(c *conn) error

// load is one measurement.
type load struct {
	address string
	tls     *tls.Config
	conns   int
	time    time.Duration
	most    int     // operations at the most; 0 means no bound but time
	rate    float64 // operations a second over all connections; 0 means as fast as they go
	worker  func(i int) operation
}

// latency is in milliseconds.
type latency struct {
	P50  float64 `json:"p50_ms"`
	P99  float64 `json:"p99_ms"`
	P999 float64 `json:"p999_ms"`
}

type result struct {
	Rate   float64 `json:"rate"`
	Count  int     `json:"count"`
	Failed int     `json:"failed,omitempty"`
	latency
	err error // the first
}

// run drives the load until its time is over. With a rate, latencies count from
// the moment at which the operation was due, so that a stall is not hidden.
func (l load) run(ctx context.Context) result {
	var mu sync.Mutex
	var all []int32
	var r result
	var issued atomic.Int64
	ctx, cancel := context.WithTimeout(ctx, l.time)
	defer cancel()
	start := time.Now()
	var wg sync.WaitGroup
	for i := range l.conns {
		wg.Go(func() {
			c := &conn{address: l.address, tls: l.tls}
			defer c.close()
			op := l.worker(i)
			took := make([]int32, 0, 4096)
			var failed int
			var first error
			due := start.Add(time.Duration(float64(i) / max(l.rate, 1) * float64(time.Second)))
			for ctx.Err() == nil && (l.most == 0 || issued.Add(1) <= int64(l.most)) {
				at := time.Now()
				if l.rate > 0 {
					if wait := due.Sub(at); wait > 0 {
						time.Sleep(wait)
					}
					at = due
					due = due.Add(time.Duration(float64(l.conns) / l.rate * float64(time.Second)))
				}
				if err := op(c); err != nil {
					failed++
					if first == nil {
						first = err
					}
					if errors.Is(err, errFatal) {
						break
					}
					continue
				}
				took = append(took, int32(min(time.Since(at).Microseconds(), 1<<31-1)))
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, took...)
			r.Failed += failed
			if r.err == nil {
				r.err = first
			}
		})
	}
	wg.Wait()
	elapsed := time.Since(start).Seconds()
	slices.Sort(all)
	at := func(q float64) float64 {
		if len(all) == 0 {
			return 0
		}
		return float64(all[min(len(all)-1, int(q*float64(len(all))))]) / 1000
	}
	r.Count, r.Rate = len(all), float64(len(all))/elapsed
	r.latency = latency{at(.5), at(.99), at(.999)}
	return r
}

var errFatal = errors.New("the operation cannot go on")

// expect is an operation that sends the same request and wants a status.
func expect(req []byte, status int) operation {
	return func(c *conn) error {
		a, err := c.do(req)
		if err == nil && a.status != status {
			return fmt.Errorf("answered %d: %.200s", a.status, a.body)
		}
		return err
	}
}
