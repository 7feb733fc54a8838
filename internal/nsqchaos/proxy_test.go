package nsqchaos

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"im-services/internal/platform/bus"
)

// pretender is as much of an nsqd as a consumer needs.
type pretender struct {
	listener net.Listener
	messages int

	mu       sync.Mutex
	finished map[string]int // guarded by mu
}

func newPretender(t *testing.T, messages int) *pretender {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &pretender{listener: l, messages: messages, finished: map[string]int{}}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go p.serve(conn)
		}
	}()
	return p
}

func frame(kind uint32, data []byte) []byte {
	out := binary.BigEndian.AppendUint32(nil, uint32(len(data)+4))
	return append(binary.BigEndian.AppendUint32(out, kind), data...)
}

func (p *pretender) serve(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	up := make(chan string, 10000)
	go func() {
		defer close(up)
		readCommands(conn, up)
	}()
	for line := range up {
		switch {
		case len(line) > 8 && line[:8] == "IDENTIFY":
			_, _ = conn.Write(frame(0, []byte(`{"max_rdy_count":2500}`)))
		case len(line) > 3 && line[:3] == "SUB":
			_, _ = conn.Write(frame(0, []byte("OK")))
		case len(line) > 3 && line[:3] == "RDY":
			for n := range p.messages {
				data := make([]byte, 10)
				data = append(data, fmt.Sprintf("%016d", n)...)
				data = append(data, fmt.Sprint(n)...)
				_, _ = conn.Write(frame(2, data))
			}
		case len(line) > 3 && line[:3] == "FIN":
			p.mu.Lock()
			p.finished[line[4:]]++
			p.mu.Unlock()
		}
	}
}

func readCommands(conn net.Conn, out chan<- string) {
	head := make([]byte, 4)
	if _, err := conn.Read(head); err != nil {
		return
	}
	one := make([]byte, 1)
	for {
		var line []byte
		for {
			if _, err := conn.Read(one); err != nil {
				return
			}
			if one[0] == '\n' {
				break
			}
			line = append(line, one[0])
		}
		if string(line) == "IDENTIFY" {
			body, err := sized(conn)
			if err != nil {
				return
			}
			line = append(line, body...)
		}
		out <- string(line)
	}
}

// consumed returns what a consumer behind the proxy was given.
func consumed(t *testing.T, p *Proxy, wait time.Duration) []string {
	t.Helper()
	var mu sync.Mutex
	var got []string
	c, err := bus.NewConsumer(bus.ConsumerConfig{Addrs: []string{p.Addr}, Topic: "t", Channel: "c", MaxInFlight: 2000}, func(body []byte) {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, string(body))
	}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	time.Sleep(wait)
	require.NoError(t, c.Close())
	mu.Lock()
	defer mu.Unlock()
	return got
}

func TestProxy_HarmlessUntilAsked(t *testing.T) {
	server := newPretender(t, 500)
	p, err := New(server.listener.Addr().String(), 1)
	require.NoError(t, err)
	defer p.Close()
	got := consumed(t, p, 300*time.Millisecond)
	require.Len(t, got, 500)
	for n, body := range got {
		require.Equal(t, fmt.Sprint(n), body)
	}
	require.Equal(t, Counts{Messages: 500}, p.Counts())
}

func TestProxy_SpoilsATenthEach(t *testing.T) {
	const n = 1000
	server := newPretender(t, n)
	p, err := New(server.listener.Addr().String(), 7)
	require.NoError(t, err)
	defer p.Close()
	p.Misbehave(Tenth)
	got := consumed(t, p, maxDelay+300*time.Millisecond)

	times := map[string]int{}
	for _, body := range got {
		times[body]++
	}
	counts := p.Counts()
	for what, count := range map[string]int{"dropped": counts.Dropped, "repeated": counts.Repeated, "swapped": counts.Swapped, "delayed": counts.Delayed} {
		require.InDelta(t, n/10, count, 40, what)
	}
	require.Len(t, times, n-counts.Dropped, "what was not dropped comes")
	require.Len(t, got, n-counts.Dropped+counts.Repeated)
	require.False(t, slices.IsSortedFunc(got, func(a, b string) int { return len(a) - len(b) }), "the order is another one")

	// nsqd was told that every message was handled, the dropped ones too: else
	// it would send them again after its time limit.
	server.mu.Lock()
	defer server.mu.Unlock()
	require.Len(t, server.finished, n)

	again, err := New(server.listener.Addr().String(), 7)
	require.NoError(t, err)
	defer again.Close()
	again.Misbehave(Tenth)
	for range n {
		again.fate()
	}
	require.Equal(t, counts, again.Counts(), "the same seed, the same fates")
}
