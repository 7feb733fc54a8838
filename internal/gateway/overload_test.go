package gateway

import (
	"testing"
	"time"

	logicv1 "im-services/api/proto/logic/v1"
)

// TestG15_ThreeTimesTheLoadIsRefusedNotEndured: when three times as much is sent
// as logic can store, nearly as much is stored as ever, the rest is refused at
// once with a time to come back, everybody gets his answer, and after the rush all
// is as before.
func TestG15_ThreeTimesTheLoadIsRefusedNotEndured(t *testing.T) {
	const (
		perSend = 4 * time.Millisecond // of a logic that can do one at a time
		people  = 6
		surge   = 2 * time.Second
	)
	cfg := testConfig()
	cfg.PendingBytes = 4 << 10                                        // some forty sends: they wait a fifth of a second
	cfg.SendFailover, cfg.SendTimeout = 5*time.Second, 20*time.Second // slow is not dead
	w := newWorld(t, cfg)
	r1 := w.replicas["r1"]
	r1.mu.Lock()
	r1.gate = func(*logicv1.Send) { time.Sleep(perSend) }
	r1.mu.Unlock()
	clients := make([]*client, people)
	for i := range clients {
		clients[i] = w.connect(int64(34 + i))
	}
	answers := func(code int) (n int) {
		for _, c := range clients {
			n += len(c.all(code))
		}
		return n
	}
	ids := int64(0)
	say := func(c *client) {
		ids++
		c.chat(ids, 99, 1, "how much can you take?")
	}

	// What it can: a few are always on their way.
	begin, sent := time.Now(), 0
	for ; time.Since(begin) < surge; time.Sleep(time.Millisecond) {
		for ; sent-answers(1005) < 10; sent++ {
			say(clients[0])
		}
	}
	peak := float64(answers(1005)) / time.Since(begin).Seconds()
	w.eventually("all answered", func() bool { return answers(1005) == sent })

	before, rush := answers(1005), 0
	begin = time.Now()
	for ; time.Since(begin) < surge; time.Sleep(time.Millisecond) {
		for ; rush < int(3*peak*time.Since(begin).Seconds()); rush++ {
			say(clients[rush%people])
		}
	}
	during := float64(answers(1005)-before) / time.Since(begin).Seconds()
	waiting := w.srv.lanes.outstanding()
	begin = time.Now()
	w.eventually("everybody has an answer", func() bool { return answers(1005)-before+answers(500) == rush })
	t.Logf("%.0f/s alone; of %d in the rush %d refused and %.0f/s stored; %d waited at its end, %s", peak, rush, answers(500), during, waiting, time.Since(begin).Round(time.Millisecond))
	if during < 0.8*peak {
		t.Errorf("%.0f/s in the rush, %.0f/s before", during, peak)
	}
	if n := answers(500); n < rush/3 {
		t.Errorf("only %d of %d were refused: that was no overload", n, rush)
	}
	for _, c := range clients {
		for _, f := range c.all(500) {
			if f.str("reason") != "overloaded" || f.num("retry_after") < 1 || f.num("msg_client_id") == 0 {
				t.Fatalf("refused in other words: %v", f)
			}
		}
	}

	// The next is taken as if nothing had been.
	done := answers(1005)
	begin = time.Now()
	say(clients[0])
	w.eventually("the next is stored", func() bool { return answers(1005) == done+1 })
	if d := time.Since(begin); d > 5*time.Second {
		t.Errorf("stored after %v", d)
	}
}
