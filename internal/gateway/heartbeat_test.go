package gateway

import (
	"testing"
	"time"

	"im-services/internal/im"
)

// A process that gets little time loses ticks. It pings as often all the same,
// drops who is silent in time, and nobody because it was asleep itself.
func TestG9_HeartbeatGoesByTheClock(t *testing.T) {
	cfg := testConfig()
	cfg.PingInterval = time.Hour // the server's own heartbeat keeps out of this
	w := newWorld(t, cfg)
	deaf, lively := w.raw(34), w.raw(35)
	defer func() { _, _ = deaf.Close(), lively.Close() }()
	w.eventually("both are there", func() bool { return w.srv.Connections() == 2 })

	const interval, tick = 25 * time.Second, 2 * time.Second
	p := pulse{step: interval / hubShards, start: w.srv.now()}
	last := [hubShards]time.Duration{}
	for i := range last {
		last[i] = p.start
	}
	hear := func(now time.Duration) {
		w.srv.hub.each(35, func(c *conn) { c.heard.Store(int64(now)) })
	}
	now, gone := p.start, time.Duration(0)
	for now < p.start+2*time.Minute {
		now += tick
		hear(now)
		w.srv.beat(&p, now)
		for i := range last {
			if at := w.srv.hub.shards[i].pinged; at > last[i] {
				last[i] = at
			}
			if now-last[i] > interval+tick {
				t.Fatalf("shard %d was not pinged for %v", i, now-last[i])
			}
		}
		if gone == 0 && w.killed(34) {
			gone = now - p.start
		}
	}
	if limit := interval + w.srv.cfg.PongTimeout + 2*tick; gone == 0 || gone > limit {
		t.Errorf("the silent one was dropped after %v, want at most %v", gone, limit)
	}

	// Ten minutes asleep: the lively one could not be heard either.
	now += 10 * time.Minute
	before := p.pinged
	w.srv.beat(&p, now)
	w.srv.beat(&p, now+time.Second)
	if n := p.pinged - before; n < hubShards {
		t.Errorf("only %d of %d shards were pinged", n, hubShards)
	}
	if w.killed(35) {
		t.Error("dropped for our own sleep")
	}
	for range 30 {
		now += tick
		hear(now)
		w.srv.beat(&p, now)
	}
	if w.killed(35) {
		t.Error("dropped although it was heard")
	}

	// Friends are to hear of the silent one at once, of the other after his time.
	_ = lively.Close()
	ends := map[int64]bool{}
	w.eventually("both ends are reported", func() bool {
		w.store.mu.Lock()
		defer w.store.mu.Unlock()
		for _, c := range w.store.gone {
			ends[c.GetUserId()] = c.GetVanished()
		}
		return len(ends) == 2
	})
	if !ends[34] || ends[35] {
		t.Errorf("reported as vanished: %v", ends)
	}
}

// killed reports whether no connection of the user is open.
func (w *world) killed(user int64) bool {
	open := false
	w.srv.hub.each(im.UserID(user), func(c *conn) { open = open || !c.closed() })
	return !open
}
