package gateway

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"
)

// idleClientsEnv, set to an address, makes the test binary a process that opens
// a connection for each token on its input and holds them until that ends.
const idleClientsEnv = "IM_GATEWAY_IDLE_CLIENTS"

func idleClients() {
	var conns []net.Conn
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		nc, err := net.Dial("tcp", os.Getenv(idleClientsEnv))
		if err == nil {
			_, err = fmt.Fprintf(nc, "GET /im/connect?token=%s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
				"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", in.Text())
		}
		if err == nil {
			_, err = io.ReadFull(nc, make([]byte, 12))
		}
		if err != nil {
			fmt.Println("failed:", err)
			os.Exit(1)
		}
		conns = append(conns, nc)
	}
	for _, nc := range conns {
		_ = nc.Close()
	}
}

func rss(t testing.TB) int {
	t.Helper()
	runtime.GC()
	debug.FreeOSMemory()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatalf("resident memory cannot be measured without /proc: %v", err)
	}
	for line := range strings.Lines(string(b)) {
		if kb, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			n, err := strconv.Atoi(strings.Fields(kb)[0])
			if err != nil {
				t.Fatal(err)
			}
			return n << 10
		}
	}
	t.Fatal("no VmRSS")
	return 0
}

// TestConnFitsItsSizeClass: one byte more, and the allocator would spend 1,152
// bytes on every connection.
func TestConnFitsItsSizeClass(t *testing.T) {
	if size := unsafe.Sizeof(conn{}); size > 1024 {
		t.Fatalf("a conn has %d bytes", size)
	}
}

func TestWave(t *testing.T) {
	var w wave
	for i, step := range []struct {
		made int64
		over bool
	}{
		{600, false}, {1200, false}, {1210, true}, {1210, false}, // a wave and its end
		{1230, false}, {1900, false}, {1900, false}, // too small
		{2300, false}, {2310, true}, {2320, false},
	} {
		if got := w.over(step.made); got != step.over {
			t.Fatalf("step %d: over is %v", i, got)
		}
	}
}

// TestIdleConnectionMemory holds idle connections, whose clients are another
// process, and measures what each costs this one. IM_GATEWAY_IDLE sets how many.
func TestIdleConnectionMemory(t *testing.T) {
	n := 1000
	if v := os.Getenv("IM_GATEWAY_IDLE"); v != "" {
		var err error
		if n, err = strconv.Atoi(v); err != nil {
			t.Fatal(err)
		}
	}
	w := newWorld(t, Config{MaxConnections: n + 10})
	w.connect(1) // what the first one brings is not idle
	var tokens bytes.Buffer
	for i := range n {
		fmt.Fprintln(&tokens, w.auth.token(t, int64(i+10)))
	}
	before, goroutines := rss(t), runtime.NumGoroutine()

	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), idleClientsEnv+"="+strings.TrimPrefix(w.http.URL, "http://"))
	cmd.Stdout = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close(); _ = cmd.Wait() }()
	if _, err := in.Write(tokens.Bytes()); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); w.liveCount() < n+1; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d connections", w.liveCount(), n+1)
		}
	}
	time.Sleep(200 * time.Millisecond)
	rss(t) // the first collection shrinks stacks
	after := rss(t)
	perConn := (after - before) / n
	t.Logf("%d connections: %d bytes of resident memory and %.2f goroutines each",
		n, perConn, float64(runtime.NumGoroutine()-goroutines)/float64(n))
	if extra := runtime.NumGoroutine() - goroutines; extra > n+20 {
		t.Errorf("%d goroutines for %d connections", extra, n)
	}
	if !raceEnabled && perConn > 9<<10 { // the race detector multiplies memory
		t.Errorf("an idle connection takes %d bytes, more than 9 KiB", perConn)
	}
}

func (w *world) liveCount() (n int) {
	for _, c := range w.srv.hub.all() {
		c.mu.Lock()
		if c.phase == phaseLive {
			n++
		}
		c.mu.Unlock()
	}
	return n
}
