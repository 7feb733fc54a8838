package testkit_test

import (
	"bufio"
	"io"
	"net"
	"testing"
	"time"

	"im-services/internal/testkit"
)

// echo starts a server that sends every line back.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c)
				_ = c.Close()
			}()
		}
	}()
	return l.Addr().String()
}

func dial(t *testing.T, p *testkit.TCPProxy) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", p.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// ask sends a line and returns how long the answer took.
func ask(c net.Conn, limit time.Duration) (time.Duration, error) {
	begin := time.Now()
	_ = c.SetDeadline(begin.Add(limit))
	if _, err := io.WriteString(c, "hello\n"); err != nil {
		return 0, err
	}
	_, err := bufio.NewReader(c).ReadString('\n')
	return time.Since(begin), err
}

func isTimeout(err error) bool {
	ne, ok := err.(net.Error) //nolint:errorlint // straight from the connection
	return ok && ne.Timeout()
}

func TestProxy_PassesAndSlows(t *testing.T) {
	p := testkit.Proxy(t, echo(t))
	c := dial(t, p)
	if _, err := ask(c, 5*time.Second); err != nil {
		t.Fatal(err)
	}
	p.Slow(50*time.Millisecond, 0)
	took, err := ask(c, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if took < 100*time.Millisecond {
		t.Errorf("the answer took %s, want at least 100ms", took)
	}
	p.Slow(0, 60)
	if took, err = ask(c, 5*time.Second); err != nil || took < 200*time.Millisecond {
		t.Errorf("12 bytes at 60 bytes/s took %s, %v; want 200ms", took, err)
	}
	p.Heal()
	quickest := time.Hour // a busy machine may hold up one, but not all
	for range 10 {
		if took, err = ask(c, 5*time.Second); err != nil {
			t.Fatal(err)
		}
		quickest = min(quickest, took)
	}
	if quickest > 100*time.Millisecond {
		t.Errorf("healed, an answer takes %s", quickest)
	}
}

func TestProxy_CutRefusesUntilHealed(t *testing.T) {
	p := testkit.Proxy(t, echo(t))
	c := dial(t, p)
	if _, err := ask(c, 5*time.Second); err != nil {
		t.Fatal(err)
	}
	p.Cut()
	if _, err := ask(c, 5*time.Second); err == nil || isTimeout(err) {
		t.Errorf("a cut connection says %v, want a reset", err)
	}
	again, err := net.Dial("tcp", p.Addr)
	if err == nil { // the reset may also come after the connection
		_, err = ask(again, 5*time.Second)
		_ = again.Close()
	}
	if err == nil || isTimeout(err) {
		t.Errorf("a new connection while cut says %v, want a reset", err)
	}
	p.Heal()
	if _, err := ask(dial(t, p), 5*time.Second); err != nil {
		t.Errorf("healed: %v", err)
	}
}

func TestProxy_PartitionIsSilentBothWaysOrOne(t *testing.T) {
	for name, cut := range map[string]func(*testkit.TCPProxy){
		"both":     (*testkit.TCPProxy).Partition,
		"requests": (*testkit.TCPProxy).LoseRequests,
		"answers":  (*testkit.TCPProxy).LoseAnswers,
		"stalled":  (*testkit.TCPProxy).StallAnswers,
	} {
		t.Run(name, func(t *testing.T) {
			p := testkit.Proxy(t, echo(t))
			c := dial(t, p)
			if _, err := ask(c, 5*time.Second); err != nil {
				t.Fatal(err)
			}
			cut(p)
			// A read that was under way when the answers stalled still passes.
			if _, err := ask(c, 200*time.Millisecond); name != "stalled" && !isTimeout(err) {
				t.Errorf("got %v, want silence", err)
			}
			if _, err := ask(c, 200*time.Millisecond); !isTimeout(err) {
				t.Errorf("got %v, want silence", err)
			}
			p.Heal()
			if _, err := ask(dial(t, p), 5*time.Second); err != nil {
				t.Errorf("healed: %v", err)
			}
		})
	}
}
