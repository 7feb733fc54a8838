package gateway

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	logicv1 "im-services/api/proto/logic/v1"
	pushv1 "im-services/api/proto/push/v1"
	"im-services/internal/im"
	"im-services/internal/wire"
)

// pusher stores messages in the fake logic and lets the test decide what
// reaches the gateway.
type pusher struct {
	w    *world
	mu   sync.Mutex
	held []*pushv1.Envelope
}

// newPusher keeps every envelope until it is released.
func newPusher(w *world) *pusher {
	p := &pusher{w: w}
	w.mu.Lock()
	w.filter = func(e *pushv1.Envelope) bool {
		p.mu.Lock()
		p.held = append(p.held, e)
		p.mu.Unlock()
		return false
	}
	w.mu.Unlock()
	return p
}

func (p *pusher) store(kind int32, to int64, sender int64, texts ...string) {
	for _, text := range texts {
		p.w.store.mu.Lock()
		p.w.store.nextID++
		id := p.w.store.nextID
		p.w.store.mu.Unlock()
		p.w.store.store(sendOf(kind, to, sender, id, text))
	}
}

// release hands the envelopes with these indices to the gateway, in that order.
func (p *pusher) release(idx ...int) {
	for _, i := range idx {
		p.mu.Lock()
		e := p.held[i]
		p.mu.Unlock()
		p.w.forcePublish(e)
	}
}

// connOf returns the connection of a user who has one.
func (w *world) connOf(user im.UserID) (found *conn) {
	w.srv.hub.each(user, func(c *conn) { found = c })
	return found
}

func (w *world) syncs(user int64) int {
	w.store.mu.Lock()
	defer w.store.mu.Unlock()
	return w.store.backlogs
}

func longWatermark() Config {
	cfg := testConfig()
	cfg.WatermarkInterval = time.Hour
	return cfg
}

// TestG6_DeliveryStates drives one connection through every order in which
// pushes of its user can come.
func TestG6_DeliveryStates(t *testing.T) {
	tests := map[string]struct {
		prior    []string // stored and received before
		store    []string
		release  []int
		want     string
		syncs    bool // a backlog must have been read
		noSyncs  bool
		contig   bool // what the publisher says of the first message
		scramble func(*pushv1.Envelope)
	}{
		"in order":              {store: []string{"a", "b", "c"}, release: []int{0, 1, 2}, want: "a b c", noSyncs: true, contig: true},
		"repeat":                {store: []string{"a", "b"}, release: []int{0, 0, 1, 0, 1, 1}, want: "a b", noSyncs: true, contig: true},
		"swapped":               {store: []string{"a", "b", "c"}, release: []int{0, 2, 1}, want: "a b c", noSyncs: true, contig: true},
		"reversed":              {store: []string{"a", "b", "c", "d"}, release: []int{3, 2, 1, 0}, want: "a b c d", noSyncs: true, contig: true},
		"first lost":            {store: []string{"a", "b", "c"}, release: []int{1, 2}, want: "a b c", syncs: true, contig: true},
		"middle lost":           {store: []string{"a", "b", "c"}, release: []int{0, 2}, want: "a b c", syncs: true, contig: true},
		"lost then late":        {store: []string{"a", "b", "c"}, release: []int{0, 2, -1, 1}, want: "a b c", syncs: true, contig: true},
		"position known":        {prior: []string{"x"}, store: []string{"a", "b"}, release: []int{0, 1}, want: "x a b", noSyncs: true},
		"unknown and not first": {store: []string{"a", "b"}, release: []int{0, 1}, want: "a b", syncs: true},
		"counter unknown": {
			store: []string{"a", "b", "c"}, release: []int{0, 0, 1, 2}, want: "a b c", noSyncs: true, contig: true,
			scramble: func(e *pushv1.Envelope) { e.Epoch = ""; e.Deliveries[0].Pvs = nil },
		},
		"counter unknown, swapped": {
			prior: []string{"x"}, store: []string{"a", "b", "c"}, release: []int{1, 2, 0}, want: "x a b c", noSyncs: true,
			scramble: func(e *pushv1.Envelope) { e.Epoch = ""; e.Deliveries[0].Pvs = nil },
		},
		"counter unknown, lost": {
			prior: []string{"x"}, store: []string{"a", "b", "c"}, release: []int{1, 2}, want: "x a b c", syncs: true,
			scramble: func(e *pushv1.Envelope) { e.Epoch = ""; e.Deliveries[0].Pvs = nil },
		},
		"counter unknown, first lost": {
			store: []string{"a", "b", "c"}, release: []int{1, 2}, want: "a b c", syncs: true, contig: true,
			scramble: func(e *pushv1.Envelope) { e.Epoch = ""; e.Deliveries[0].Pvs = nil },
		},
		"another epoch": {
			store: []string{"a", "b"}, release: []int{0, 1}, want: "a b", syncs: true, contig: true,
			scramble: func(e *pushv1.Envelope) { e.Epoch = "e2" },
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			cfg := longWatermark()
			cfg.Hold = 50 * time.Millisecond
			if tt.noSyncs { // what is swapped is only late, however slow this machine is
				cfg.Hold = time.Minute
			}
			w := newWorld(t, cfg)
			b := w.connect(35)
			p := newPusher(w)
			p.store(1, 35, 34, tt.prior...)
			for i := range tt.prior {
				p.release(i)
			}
			if len(tt.prior) > 0 {
				b.wait(200, len(tt.prior))
			}
			before := w.syncs(35)
			p.store(1, 35, 34, tt.store...)
			p.mu.Lock()
			for _, e := range p.held[len(tt.prior):] {
				e.Messages[0].Contiguous = tt.contig
				if tt.scramble != nil {
					tt.scramble(e)
				}
			}
			p.mu.Unlock()
			if name == "another epoch" {
				w.store.mu.Lock()
				w.store.epoch = "e2"
				w.store.mu.Unlock()
			}
			for _, i := range tt.release {
				if i < 0 {
					time.Sleep(200 * time.Millisecond) // longer than the hold
					continue
				}
				p.release(i + len(tt.prior))
			}
			b.waitTexts(strings.Fields(tt.want)...)
			if tt.noSyncs { // and nothing is left that would sync later
				w.eventually("nothing is held", func() bool {
					left := 0
					w.srv.hub.each(35, func(c *conn) {
						c.mu.Lock()
						left += len(c.held) + len(c.ahead)
						c.mu.Unlock()
					})
					return left == 0
				})
			}
			if n := w.syncs(35) - before; tt.syncs && n == 0 || tt.noSyncs && n != 0 {
				t.Errorf("%d syncs", n)
			}
		})
	}
}

// A push that comes after its message was delivered to an older connection of
// the platform is a repeat, although this one has no position there.
func TestLatePushOfTheDelivered(t *testing.T) {
	w := newWorld(t, longWatermark())
	b := w.connect(35)
	p := newPusher(w)
	p.store(1, 35, 34, "a")
	p.release(0)
	conv := b.wait(200, 1).num("conversation_id")
	w.proved(35, conv, 1)
	_ = b.ws.Close()
	b = w.connect(35)
	p.release(0)
	p.store(1, 35, 34, "b")
	p.release(1)
	b.waitTexts("b")
}

// A backlog may bring what was written already; and after it the counter is
// right, so that what follows needs no other.
func TestGenerousBacklog(t *testing.T) {
	cfg := longWatermark()
	cfg.Hold = 30 * time.Millisecond
	w := newWorld(t, cfg)
	w.store.generous = true
	b := w.connect(35)
	p := newPusher(w)
	p.store(1, 35, 34, "a", "lost", "c")
	p.release(0)
	b.wait(200, 1)
	p.release(2)
	b.waitTexts("a", "lost", "c")
	before := w.syncs(35)
	p.store(1, 35, 34, "d")
	p.store(1, 35, 36, "other")
	p.release(3, 4)
	b.waitTexts("a", "lost", "c", "d", "other")
	time.Sleep(100 * time.Millisecond)
	if n := w.syncs(35) - before; n != 0 {
		t.Errorf("%d more syncs", n)
	}
}

// One missing push must not hold up a conversation whose position is known.
func TestGapInOneConversationDoesNotDelayAnother(t *testing.T) {
	cfg := longWatermark()
	cfg.Hold = time.Hour
	w := newWorld(t, cfg)
	b := w.connect(35)
	p := newPusher(w)
	p.store(1, 35, 34, "a1")
	p.store(1, 35, 36, "b1")
	p.release(0, 1)
	b.wait(200, 2)
	p.store(1, 35, 34, "a2") // 2: late
	p.store(1, 35, 36, "b2", "b3")
	p.release(3, 4)
	b.waitTexts("a1", "b1", "b2", "b3")
	p.release(2)
	b.waitTexts("a1", "b1", "b2", "b3", "a2")
	w.srv.hub.each(35, func(c *conn) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.pv != 5 || len(c.ahead)+len(c.held) != 0 {
			t.Errorf("pv %d, %d ahead, %d held", c.pv, len(c.ahead), len(c.held))
		}
	})
}

// TestG4_ChaosOfPushes: pushes dropped, repeated, swapped and delayed; several
// conversations; every message comes once, each conversation in order.
func TestG4_ChaosOfPushes(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			cfg := testConfig()
			cfg.Hold = 10 * time.Millisecond
			cfg.WatermarkInterval = 250 * time.Millisecond
			w := newWorld(t, cfg)
			w.store.group(24, 34, 35, 36)
			b := w.connect(35)
			rnd := rand.New(rand.NewPCG(seed, 7)) //nolint:gosec // reproducible
			var late []*pushv1.Envelope
			p := newPusher(w)
			total := map[string]int{}
			for i := range 400 {
				switch rnd.IntN(3) {
				case 0:
					total["34"]++
					p.store(1, 35, 34, fmt.Sprintf("34:%d", total["34"]))
				case 1:
					total["36"]++
					p.store(1, 35, 36, fmt.Sprintf("36:%d", total["36"]))
				default:
					total["24"]++
					p.store(2, 24, 36, fmt.Sprintf("24:%d", total["24"]))
				}
				p.mu.Lock()
				e := p.held[i]
				p.mu.Unlock()
				switch rnd.IntN(10) {
				case 0: // lost
				case 1: // twice
					w.forcePublish(e)
					w.forcePublish(e)
				case 2: // late
					late = append(late, e)
				default:
					w.forcePublish(e)
				}
				if len(late) > 0 && rnd.IntN(4) == 0 {
					k := rnd.IntN(len(late))
					w.forcePublish(late[k])
					late = slices.Delete(late, k, k+1)
				}
				if rnd.IntN(40) == 0 {
					time.Sleep(15 * time.Millisecond)
				}
			}
			for _, e := range late {
				w.forcePublish(e)
			}
			b.wait(200, 400)
			time.Sleep(50 * time.Millisecond)
			seen := map[string]int{}
			for _, text := range b.texts() {
				conv, n, _ := strings.Cut(text, ":")
				if seen[conv]++; fmt.Sprint(seen[conv]) != n {
					t.Fatalf("conversation %s: message %s at place %d", conv, n, seen[conv])
				}
			}
			if fmt.Sprint(seen) != fmt.Sprint(total) {
				t.Fatalf("got %v, want %v", seen, total)
			}
		})
	}
}

// TestG8_WatermarkFindsALostPush when nothing else would: the last push of a
// quiet user.
func TestG8_WatermarkFindsALostPush(t *testing.T) {
	w := newWorld(t, testConfig())
	b := w.connect(35)
	p := newPusher(w)
	p.store(1, 35, 34, "lost")
	b.waitTexts("lost")
}

func TestWatermarkAssertsForgottenRoutes(t *testing.T) {
	w := newWorld(t, testConfig())
	b := w.connect(35)
	w.store.mu.Lock()
	clear(w.store.routes) // FLUSHALL
	clear(w.store.pv)
	w.store.epoch = "e2"
	w.store.mu.Unlock()
	p := newPusher(w)
	p.store(1, 35, 34, "while there was no route")
	b.waitTexts("while there was no route")
	w.store.mu.Lock()
	defer w.store.mu.Unlock()
	if w.store.asserted == 0 || len(w.store.routes[35]) != 1 {
		t.Fatalf("asserted %d, routes %v", w.store.asserted, w.store.routes)
	}
}

func TestWatermarkFindsTheDisplaced(t *testing.T) {
	w := newWorld(t, testConfig())
	b := w.connect(35)
	w.store.mu.Lock()
	routes := w.store.routes[35]
	for id, c := range routes { // moved to another gateway, and the kick was lost
		delete(routes, id)
		routes[id+1<<40] = c
	}
	w.store.mu.Unlock()
	b.wait(2004, 1)
	if code := b.closed(); code != 4001 {
		t.Fatalf("close code %d", code)
	}
}

// A connection that was displaced has a round made at once. That is no reason to read
// the backlog of everybody who has a push on its way.
func TestWatermarkOfTheDisplacedTrustsWhatIsOnItsWay(t *testing.T) {
	cfg := testConfig()
	cfg.WatermarkInterval = time.Hour
	w := newWorld(t, cfg)
	b := w.connect(35)
	w.connect(36)
	w.store.mu.Lock()
	for id, conn := range w.store.routes[35] {
		delete(w.store.routes[35], id)
		w.store.routes[35][id+1<<40] = conn
	}
	before := w.store.backlogs
	w.store.mu.Unlock()
	w.srv.marks.round(t.Context(), time.Second, false)
	w.store.mu.Lock()
	w.store.pv[36]++ // counted, and not yet on the bus
	w.store.mu.Unlock()
	if code := b.closed(); code != 4001 {
		t.Fatalf("close code %d", code)
	}
	time.Sleep(300 * time.Millisecond) // a backlog would have been asked for by now
	w.store.mu.Lock()
	defer w.store.mu.Unlock()
	if w.store.backlogs != before {
		t.Fatalf("%d backlogs read", w.store.backlogs-before)
	}
}

func TestRedisAway(t *testing.T) {
	w := newWorld(t, testConfig())
	w.store.mu.Lock()
	w.store.redisAway = true
	w.store.mu.Unlock()
	a, b := w.connect(34), w.connect(35)
	a.chat(1, 35, 1, "one")
	a.chat(2, 35, 1, "two")
	b.waitTexts("one", "two")
	w.store.mu.Lock()
	w.store.redisAway = false
	w.store.mu.Unlock()
	w.eventually("asserted once Redis is back", func() bool {
		w.store.mu.Lock()
		defer w.store.mu.Unlock()
		return len(w.store.routes[35]) == 1
	})
	a.chat(3, 35, 1, "three")
	b.waitTexts("one", "two", "three")
}

// TestStallFences: after this process slept, pushes are not written before
// logic has said that the connection is still where it believes to be.
func TestStallFences(t *testing.T) {
	cfg := longWatermark()
	w := newWorld(t, cfg)
	stays, moved := w.connect(35), w.connect(36)
	p := newPusher(w)
	p.store(1, 35, 34, "for 35")
	p.store(1, 36, 34, "for 36")
	// While we slept 36 connected elsewhere.
	w.store.mu.Lock()
	for id, c := range w.store.routes[36] {
		delete(w.store.routes[36], id)
		w.store.routes[36][id+1<<40] = c
	}
	w.store.mu.Unlock()
	w.sleep()
	p.release(0, 1)
	stays.waitTexts("for 35")
	if code := moved.closed(); code != 4001 {
		t.Fatalf("close code %d", code)
	}
	if got := moved.texts(); len(got) != 0 {
		t.Fatalf("a stale push was written: %q", got)
	}
}

// What came in while the process was asleep is not taken, also from who is still
// there: he may go elsewhere before it has made its way. Who sent nothing stays, and
// may send when what lay in the sockets has been read; or is told that he is
// elsewhere.
func TestG2_SendsHeldThroughAStallAreNotTakenLate(t *testing.T) {
	for _, at := range []phase{phaseLive, phaseSyncing} {
		t.Run(fmt.Sprint("phase ", at), func(t *testing.T) {
			w := newWorld(t, longWatermark())
			stays, sends, moved, movedAndSends := w.connect(35), w.connect(36), w.connect(37), w.connect(38)
			w.store.mu.Lock()
			for _, user := range []int64{37, 38} {
				for id, c := range w.store.routes[user] {
					delete(w.store.routes[user], id)
					w.store.routes[user][id+1<<40] = c
				}
			}
			w.store.mu.Unlock()
			for _, c := range w.srv.hub.all() {
				c.mu.Lock()
				c.phase = at
				c.mu.Unlock()
			}
			w.sleep()
			sends.chat(1, 34, 1, "stale")
			movedAndSends.chat(1, 34, 1, "stale")
			if code := sends.closed(); code != int(wire.CloseTryLater) {
				t.Fatalf("who sent: close code %d", code)
			}
			if code := moved.closed(); code != 4001 {
				t.Fatalf("who moved: close code %d", code)
			}
			if code := movedAndSends.closed(); code != int(wire.CloseTryLater) && code != 4001 {
				t.Fatalf("who moved and sent: close code %d", code)
			}
			w.eventually("who sent nothing is believed again", func() (awake bool) {
				w.srv.hub.each(35, func(c *conn) {
					c.mu.Lock()
					defer c.mu.Unlock()
					awake = c.asleep == 0
				})
				return awake
			})
			stays.chat(1, 34, 1, "good")
			w.eventually("the send of who stayed", func() bool { return len(w.stored("p:34:35")) == 1 })
			for _, key := range []string{"p:34:36", "p:34:38"} {
				if got := w.stored(key); len(got) != 0 {
					t.Fatalf("a stale send was taken: %q", got)
				}
			}
		})
	}
}

// Who was elsewhere meanwhile may have gone again: then nobody displaces the
// connection, but its route is not there any more.
func TestG2_SendsHeldThroughAStallAreNotTakenAfterAnotherConnection(t *testing.T) {
	w := newWorld(t, longWatermark())
	b := w.connect(36)
	w.store.mu.Lock()
	clear(w.store.routes[36])
	w.store.mu.Unlock()
	w.sleep()
	b.chat(1, 34, 1, "stale")
	if code := b.closed(); code != int(wire.CloseTryLater) {
		t.Fatalf("close code %d", code)
	}
	if got := w.stored("p:34:36"); len(got) != 0 {
		t.Fatalf("a stale send was taken: %q", got)
	}
}

// A send that was read before the sleep, and had to wait for the answers to those
// before it, is not taken after it either.
func TestG2_WhatWaitedThroughASleepIsNotTaken(t *testing.T) {
	cfg := longWatermark()
	cfg.Window = 1
	w := newWorld(t, cfg)
	a := w.connect(34)
	r, goOn := w.replicas["r1"], make(chan struct{})
	r.mu.Lock()
	r.gate = func(*logicv1.Send) { <-goOn }
	r.mu.Unlock()
	a.chat(1, 35, 1, "fresh")
	a.chat(2, 35, 1, "stale")
	w.eventually("the second waits", func() bool {
		c := w.srv.hub.all()[0]
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.inflight == 1 && c.roomWait != nil
	})
	w.sleep()
	w.srv.checkStall(w.srv.now())
	close(goOn)
	if code := a.closed(); code != int(wire.CloseTryLater) {
		t.Errorf("close code %d", code)
	}
	if got := w.stored("p:34:35"); !slices.Equal(got, []string{"fresh"}) {
		t.Errorf("stored: %q", got)
	}
}

// A request to connect that lay in the socket is no sign of life: its client may be
// connected elsewhere since, where it would be displaced.
func TestG2_NobodyConnectsWithinASecondAfterASleep(t *testing.T) {
	w := newWorld(t, longWatermark())
	w.sleep()
	if status, _, _ := get(t, w.http.URL+"/im/connect?token="+w.auth.token(t, 34), nil); status != http.StatusServiceUnavailable {
		t.Errorf("at once: %d", status)
	}
	time.Sleep(asleepLeast)
	w.connect(34)
}

// sleep is as if the process had been stopped for a while.
func (w *world) sleep() {
	w.srv.awake.Store(int64(w.srv.now() - w.srv.cfg.StallThreshold - time.Second))
}

// The HTTP API has no connection to fence: it is told that the process slept.
func TestG2_ASleepIsToldToTheHTTPAPI(t *testing.T) {
	w := newWorld(t, longWatermark())
	began := time.Now()
	if w.srv.SleptSince(began.Add(-time.Hour)) {
		t.Fatal("slept before it ever did")
	}
	w.sleep()
	if !w.srv.SleptSince(began) {
		t.Fatal("a sleep that nobody else has found yet is not told")
	}
	if after := time.Now(); w.srv.SleptSince(after) || !w.srv.SleptSince(began) {
		t.Fatal("not told when the sleep was")
	}
}

// When nobody can say whether a client is still there, what he sent before the
// sleep is not taken, and he is told to come back, also if he sent nothing.
func TestG2_SendsHeldThroughAStallAreNotTakenUnknown(t *testing.T) {
	w := newWorld(t, longWatermark())
	idle, sends := w.connect(35), w.connect(36)
	w.store.mu.Lock()
	w.store.redisAway = true
	w.store.mu.Unlock()
	w.sleep()
	began := time.Now()
	sends.chat(1, 34, 1, "stale")
	if code := sends.closed(); code != int(wire.CloseTryLater) {
		t.Fatalf("who sent: close code %d", code)
	}
	if code := idle.closed(); code != int(wire.CloseTryLater) {
		t.Fatalf("who sent nothing: close code %d", code)
	}
	if took := time.Since(began); took < asleepMost-time.Second || took > asleepMost+3*time.Second {
		t.Errorf("closed after %v", took)
	}
	if got := w.stored("p:34:36"); len(got) != 0 {
		t.Fatalf("a stale send was taken: %q", got)
	}
}

// TestG17_SendsGoOnWhileCountersBeginAnew: Redis has lost everything and cannot be
// told again who is connected.
func TestG17_SendsGoOnWhileCountersBeginAnew(t *testing.T) {
	w := newWorld(t, longWatermark())
	b := w.connect(35)
	for _, c := range w.srv.hub.all() {
		c.mu.Lock()
		c.phase = phaseFenced // as by a push of another epoch
		c.mu.Unlock()
	}
	b.chat(1, 34, 1, "x")
	b.wait(1005, 1)
}

// A fence that logic cannot lift ends with a sync.
func TestStallWithoutWatermark(t *testing.T) {
	w := newWorld(t, longWatermark())
	b := w.connect(35)
	p := newPusher(w)
	p.store(1, 35, 34, "x")
	w.store.mu.Lock()
	w.store.redisAway = true
	w.store.mu.Unlock()
	w.sleep()
	p.release(0)
	b.waitTexts("x")
}

// More pushes during a sync than are kept: they are read from the store.
func TestHeldOverflowSyncsAgain(t *testing.T) {
	cfg := longWatermark()
	cfg.Hold = time.Hour
	w := newWorld(t, cfg)
	b := w.connect(35)
	p := newPusher(w)
	const n = maxHeld + 50
	texts := make([]string, n)
	for i := range texts {
		texts[i] = fmt.Sprint(i)
	}
	p.store(1, 35, 34, texts...)
	for i := 1; i < n; i++ { // the first is lost
		p.release(i)
	}
	b.waitTexts(texts...)
}

// TestG13_HeldPushesAreBoundedInBytes: large pushes during a sync take no more
// than the connection's share, and come from the store instead.
func TestG13_HeldPushesAreBoundedInBytes(t *testing.T) {
	w := newWorld(t, longWatermark())
	b := w.connect(35)
	c := w.connOf(35)
	p := newPusher(w)
	texts := largeTexts(20) // 1.2 MB
	p.store(1, 35, 34, texts...)
	w.replicas["r1"].stall()
	c.mu.Lock()
	c.syncLocked("gap")
	c.mu.Unlock()
	for i := range texts {
		p.release(i)
		c.mu.Lock()
		held := 0
		for _, h := range c.held {
			for _, m := range h.msgs {
				held += len(m.frame)
			}
		}
		if held > w.srv.cfg.OutboxBytes || held != c.heldBytes {
			t.Errorf("after %d pushes %d bytes are held, counted as %d", i+1, held, c.heldBytes)
		}
		c.mu.Unlock()
	}
	w.replicas["r1"].resume()
	b.waitTexts(texts...)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.heldBytes != 0 {
		t.Errorf("%d bytes are still counted", c.heldBytes)
	}
}

// Too much is held behind a fence, and nobody counted it: that nothing seems to
// be missing does not lift the fence without a sync.
func TestHeldOverflowBehindAFence(t *testing.T) {
	w := newWorld(t, longWatermark())
	b := w.connect(35)
	c := w.connOf(35)
	p := newPusher(w)
	texts := largeTexts(5) // the last is too much
	w.store.mu.Lock()
	w.store.redisAway = true
	w.store.mu.Unlock()
	p.store(1, 35, 34, texts...)
	w.store.mu.Lock()
	w.store.redisAway = false
	w.store.mu.Unlock()
	c.mu.Lock()
	c.phase = phaseFenced
	epoch, pv := c.epoch, c.pv
	c.mu.Unlock()
	for i := range texts {
		p.release(i)
	}
	c.mu.Lock()
	if !c.again || len(c.held) != 0 {
		t.Errorf("%d pushes are held", len(c.held))
	}
	c.mu.Unlock()
	c.compare(epoch, &logicv1.Watermark{Routed: true, Pv: int64(pv)}, false)
	b.waitTexts(texts...)
}

func largeTexts(n int) []string {
	texts := make([]string, n)
	for i := range texts {
		texts[i] = fmt.Sprint(i) + strings.Repeat("x", 60<<10)
	}
	return texts
}

func TestPositionsAreBounded(t *testing.T) {
	c := &conn{s: &Server{cfg: Config{}.withDefaults()}}
	for i := range maxPositions + 100 {
		c.setPositionLocked(im.ConversationID(i+1), 1)
	}
	if len(c.positions) != maxPositions {
		t.Fatalf("%d positions", len(c.positions))
	}
	merged := merge([]place{{1, 3}, {2, 1}, {1, 5}, {1, 4}})
	slices.SortFunc(merged, func(a, b place) int { return int(a.conv - b.conv) })
	if fmt.Sprint(merged) != "[{1 5} {2 1}]" {
		t.Fatal(merged)
	}
}

// The ack of an own message is faster than the pushes of what the other wrote
// before it: the position waits for those and then passes over the own ones.
func TestAckOvertakesPushes(t *testing.T) {
	c := &conn{s: &Server{cfg: Config{}.withDefaults()}}
	c.setPositionLocked(1, 3)
	for _, seq := range []im.Seq{6, 5, 9, 5, 2} {
		c.sentLocked(1, seq)
	}
	c.sentLocked(2, 5) // where nothing is known, an ack in the middle does not tell the position
	c.sentLocked(2, 6)
	c.sentLocked(3, 1) // but nothing can come before the first
	if got := fmt.Sprint(c.positions[1], c.knowsLocked(2), c.positions[3]); got != "3 false 1" {
		t.Fatal(got)
	}
	c.setPositionLocked(1, 4)
	if got := c.positions[1]; got != 6 {
		t.Fatalf("position %d, want 6: 5 and 6 are own", got)
	}
	c.setPositionLocked(1, 8)
	if c.positions[1] != 9 || len(c.own) != 1 {
		t.Fatalf("position %d, left %v", c.positions[1], c.own)
	}
	c.setPositionLocked(2, 4) // the push before them
	if c.positions[2] != 6 || len(c.own) != 0 {
		t.Fatalf("position %d, left %v", c.positions[2], c.own)
	}
	for seq := range im.Seq(2 * maxOwn) {
		c.sentLocked(1, 20+seq)
	}
	if len(c.own) != 1 {
		t.Fatalf("%d runs kept", len(c.own))
	}
	for seq := range im.Seq(2 * maxOwn) {
		c.sentLocked(1, 2000+2*seq)
	}
	if len(c.own) != maxOwn {
		t.Fatalf("%d places kept", len(c.own))
	}
}

// TestG8_FirstMessagesCross: the ack of a connection's own message is there before the
// push of what the other wrote just before it, in a conversation that is new to it.
func TestG8_FirstMessagesCross(t *testing.T) {
	cfg := longWatermark()
	cfg.Hold = time.Minute // nothing may wait for it
	w := newWorld(t, cfg)
	p := newPusher(w)
	p.store(1, 35, 34, "old", "a")
	b := w.dial(35) // "old" and "a" are in its backlog, and received
	b.waitTexts("old", "a")
	conv := b.all(200)[0].num("conversation_id")
	w.proved(35, conv, 2)
	_ = b.ws.Close()
	b = w.connect(35)
	before := w.syncs(35)
	p.store(1, 35, 34, "b") // 3
	b.chat(1, 34, 1, "own") // 4
	b.wait(1005, 1)
	p.store(1, 35, 34, "c") // 5
	p.mu.Lock()
	p.held[2].Deliveries[0].Pvs[0]-- // logic does not count what a connection sent itself
	p.mu.Unlock()
	p.release(0, 2)
	b.waitTexts("b", "c")
	if n := w.syncs(35) - before; n != 0 {
		t.Errorf("%d syncs", n)
	}
}

// TestG8_PushesBetweenARewindAndItsEpoch: Redis comes back as it was one push ago, and
// two messages of a conversation that is quiet on this connection come before that is
// noticed. The first has the number of an old push, the second seems to follow it.
func TestG8_PushesBetweenARewindAndItsEpoch(t *testing.T) {
	w := newWorld(t, testConfig())
	b := w.connect(35)
	p := newPusher(w)
	p.store(1, 35, 34, "x")
	p.release(0)
	b.wait(200, 1)
	w.store.mu.Lock()
	w.store.pv[35]--
	w.store.mu.Unlock()
	p.store(1, 35, 36, "a")
	p.release(1)
	p.store(1, 35, 36, "b")
	p.release(2)
	b.waitTexts("x", "a", "b")
}

// recall tells users that a message was taken back, as logic does.
func (w *world) recall(id int64, users ...int64) {
	w.forcePublish(&pushv1.Envelope{GatewayId: testGateway, Events: []*pushv1.Event{{
		UserIds: users, Body: &pushv1.Event_Recall{Recall: &pushv1.RecallEvent{MessageId: id, SenderId: 34, ToId: 35, Kind: 1}},
	}}})
}

// A recall may overtake its message, wherever that waits. What the message said
// is not shown after it, and its place is taken.
func TestG6_RecallOvertakesItsMessage(t *testing.T) {
	const recall = -1 // of the message "b"
	for name, tt := range map[string]struct {
		steps []int // what comes to the gateway
		want  string
	}{
		"after the message":             {[]int{0, 1, recall, 2}, "a b recall c"},
		"before it is published":        {[]int{0, recall, 1, 2}, "a recall place c"},
		"while it is held":              {[]int{1, recall, 0, 2}, "recall a place c"},
		"while it is held, repeated":    {[]int{1, recall, 1, recall, 0, 2}, "recall recall a place c"},
		"while a backlog is on its way": {nil, "recall a place c"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := longWatermark()
			cfg.Hold = time.Minute
			w := newWorld(t, cfg)
			p := newPusher(w)
			var b *client
			if tt.steps != nil {
				b = w.connect(35)
			}
			p.store(1, 35, 34, "a", "b", "c")
			w.store.mu.Lock()
			id := w.store.convs[laneKey(sendOf(1, 35, 34, 0, ""))].msgs[1].GetId()
			w.store.mu.Unlock()
			if b == nil {
				w.store.mu.Lock()
				w.store.paged = func() { w.recall(id, 35) }
				w.store.mu.Unlock()
				b = w.connect(35)
			}
			for _, step := range tt.steps {
				if step == recall {
					w.recall(id, 34, 35)
				} else {
					p.release(step)
				}
			}
			var got []string
			w.eventually("the last message", func() bool { return slices.Contains(b.texts(), "c") })
			b.mu.Lock()
			defer b.mu.Unlock()
			for _, f := range b.frames {
				switch {
				case f.code() == 200:
					got = append(got, f.str("message"))
				case f.code() != int(wire.CodeRecall):
				case f.num("msg_id") != id:
					t.Errorf("a recall of another message: %v", f)
				case f.num("seq") == 0:
					got = append(got, "recall")
				case f.num("seq") == 2 && f.num("conversation_id") > 0 && f.num("msg_client_id") > 0 && f.num("form_id") == 34 && f.num("to_id") == 35:
					got = append(got, "place")
				default:
					t.Errorf("not the place of the message: %v", f)
				}
			}
			if s := strings.Join(got, " "); s != tt.want {
				t.Errorf("got %q, want %q", s, tt.want)
			}
		})
	}
}

// A client that lags behind is told all the same: it shows the message.
func TestRecall_ReachesAClientThatLags(t *testing.T) {
	cfg := longWatermark()
	cfg.OutboxBytes = 16 << 10
	cfg.SocketBuffer = 4 << 10
	w := newWorld(t, cfg)
	r := w.raw(35)
	_ = r.Conn.(*net.TCPConn).SetReadBuffer(4 << 10)
	var c *conn
	w.eventually("live", func() bool {
		c = w.connOf(35)
		if c == nil {
			return false
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.phase == phaseLive
	})
	queued := func() int {
		c.out.mu.Lock()
		defer c.out.mu.Unlock()
		return c.out.bytes
	}
	filler := seal(append(newFrame(1<<10), make([]byte, 1<<10)...), opText)
	w.eventually("more than half is waiting", func() bool {
		if queued() > cfg.OutboxBytes*5/8 {
			return true
		}
		_ = c.send(filler)
		return false
	})
	time.Sleep(20 * time.Millisecond) // what the socket takes, it has taken
	if queued() <= cfg.OutboxBytes/2 {
		t.Fatal("the client does not lag: the test tests nothing")
	}
	w.recall(812, 35)
	for {
		op, body, err := r.next()
		if err != nil {
			t.Fatalf("the recall does not come: %v", err)
		}
		if op == opText && strings.Contains(string(body), `"msg_code":2005`) {
			return
		}
	}
}
