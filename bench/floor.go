package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"
)

// floorFlag makes this program the server of floor.
const floorFlag = "-floor"

// serveFloor answers every request with the same bytes, as little as net/http does
// for anybody, until its input ends.
func serveFloor(size int) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	body := []byte(strings.Repeat("x", size))
	srv := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Content-Type"] = []string{"application/json"}
		_, _ = w.Write(body)
	})}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		_ = srv.Close()
	}()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// floor measures what Go's net/http reaches in a process of its own with an answer
// of this size and this load generator: the limit of every cached document.
func floor(ctx context.Context, size, conns int, d time.Duration) (_ float64, err error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	cmd := exec.CommandContext(ctx, self, floorFlag, fmt.Sprint(size))
	in, err := cmd.StdinPipe()
	if err != nil {
		return 0, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, in.Close(), cmd.Wait()) }()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return 0, err
	}
	address := strings.TrimSpace(line)
	l := load{address: address, conns: conns, time: d, worker: always(expect(request("GET", address, "/", "", nil), http.StatusOK))}
	r := l.run(ctx)
	return r.Rate, r.err
}
