package testkit

import (
	"net"
	"sync"
	"testing"
)

// Tap forwards connections to target and returns its address. Each connection gets
// what looks at its requests and at its answers, before they are passed on; if
// either returns false, the connection ends there. All end with the test.
func Tap(t testing.TB, target string, look func() (request, answer func([]byte) bool)) string {
	t.Helper()
	ctx := t.Context()
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var conns sync.Map
	t.Cleanup(func() {
		_ = ln.Close()
		conns.Range(func(c, _ any) bool { _ = c.(net.Conn).Close(); return true }) //nolint:forcetypeassert // ours
		wg.Wait()
	})
	wg.Go(func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			out, err := new(net.Dialer).DialContext(ctx, "tcp", target)
			if err != nil {
				_ = in.Close()
				continue
			}
			conns.Store(in, true)
			conns.Store(out, true)
			request, answer := look()
			wg.Go(func() { pass(out, in, request) })
			wg.Go(func() { pass(in, out, answer) })
		}
	})
	return ln.Addr().String()
}

// pass copies until an end is over or look refuses, and then closes both.
func pass(to, from net.Conn, look func([]byte) bool) {
	defer func() { _ = to.Close(); _ = from.Close() }()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if err != nil || !look(buf[:n]) {
			return
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}
