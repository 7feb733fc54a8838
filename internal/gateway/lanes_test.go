package gateway

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/health/grpc_health_v1"

	logicv1 "im-services/api/proto/logic/v1"
	"im-services/internal/im"
	"im-services/internal/wire"
)

func sendOf(kind int32, to, sender, id int64, text string) *logicv1.Send {
	return &logicv1.Send{SenderId: sender, ClientMsgId: id, Kind: kind, ToId: to, Type: 1, Text: text, Platform: 1}
}

func (w *world) addReplica(id string) *replica {
	r := newReplica(w.t, w.store)
	w.mu.Lock()
	w.replicas[id] = r
	w.mu.Unlock()
	return r
}

func (w *world) setReplicas(ids ...string) {
	var list []Replica
	for _, id := range ids {
		list = append(list, Replica{ID: id, Addr: id})
	}
	w.srv.SetLogic(list)
}

func (w *world) stored(key string) (texts []string) {
	w.store.mu.Lock()
	defer w.store.mu.Unlock()
	if c := w.store.convs[key]; c != nil {
		for _, m := range c.msgs {
			texts = append(texts, m.GetText())
		}
	}
	return texts
}

// laneOf tells which replica a conversation goes to.
func (w *world) laneOf(key string) string {
	w.srv.lanes.mu.Lock()
	defer w.srv.lanes.mu.Unlock()
	if n := w.srv.lanes.pickLocked(fnv1a(key)); n != nil {
		return n.replica.ID
	}
	return ""
}

// TestLanesSpreadConversationsAndKeepThem: under load all lanes take part, and
// one that leaves moves only its own conversations.
func TestLanesSpreadConversationsAndKeepThem(t *testing.T) {
	w := newWorld(t, testConfig())
	w.addReplica("r2")
	w.addReplica("r3")
	w.setReplicas("r1", "r2", "r3")
	w.eventually("three lanes", func() bool { return w.lanesUp() == 3 })
	w.use(1)
	one := w.laneOf("p:1:2")
	for i := range 100 {
		if got := w.laneOf(fmt.Sprintf("p:%d:%d", i, i+1)); got != one {
			t.Fatalf("without load %s and %s both have conversations", one, got)
		}
	}
	w.use(3)
	count := map[string]int{}
	before := map[string]string{}
	for i := range 3000 {
		key := fmt.Sprintf("p:%d:%d", i, i+1)
		before[key] = w.laneOf(key)
		count[before[key]]++
	}
	for id, n := range count {
		if n < 800 || n > 1200 {
			t.Errorf("%s has %d of 3000 conversations", id, n)
		}
	}
	w.setReplicas("r1", "r2")
	w.eventually("two lanes", func() bool { return w.lanesUp() == 2 })
	w.use(3)
	for key, was := range before {
		if now := w.laneOf(key); was != "r3" && now != was {
			t.Fatalf("%s moved from %s to %s", key, was, now)
		}
	}
}

// use lets n lanes take conversations.
func (w *world) use(n int) {
	w.srv.lanes.mu.Lock()
	defer w.srv.lanes.mu.Unlock()
	w.srv.lanes.spread.lanes = n
	w.srv.lanes.spread.calm = w.srv.now()
}

func TestSpread(t *testing.T) {
	s := spread{lanes: 1}
	for _, step := range []struct {
		at                  time.Duration
		outstanding, expect int
	}{
		{0, laneFull, 1},
		{1, laneFull + 1, 2},
		{2, 10 * laneFull, 3}, // there are no more
		{3, 0, 3},
		{1 + laneCalm, 0, 3},        // not yet
		{1 + laneCalm, laneFull, 3}, // not any more
		{1 + 2*laneCalm, 0, 2},
		{3 * laneCalm, 0, 2},
		{1 + 3*laneCalm, 0, 1},
		{9 * laneCalm, 0, 1},
	} {
		s.adjust(step.at, step.outstanding, 3)
		if s.lanes != step.expect {
			t.Fatalf("at %v with %d outstanding: %d lanes, want %d", step.at, step.outstanding, s.lanes, step.expect)
		}
	}
}

// TestG5_OrderAcrossAFailover: the replica that has the sends dies; a sibling
// gets them, in order, before later ones.
func TestG5_OrderAcrossAFailover(t *testing.T) {
	w := newWorld(t, testConfig())
	r1, r2 := w.replicas["r1"], w.addReplica("r2")
	// Only r2 leads to the store from here on; r1 swallows what it gets.
	a := w.connect(34)
	block := make(chan struct{})
	defer close(block)
	r1.mu.Lock()
	r1.gate = func(*logicv1.Send) { <-block }
	r1.mu.Unlock()
	for i := range 50 {
		a.chat(int64(i+1), 35, 1, fmt.Sprint(i))
	}
	w.eventually("r1 has some", func() bool {
		r1.mu.Lock()
		defer r1.mu.Unlock()
		return len(r1.batches) > 0
	})
	w.setReplicas("r1", "r2")
	w.eventually("two lanes", func() bool { return w.lanesUp() == 2 })
	for i := 50; i < 100; i++ {
		a.chat(int64(i+1), 35, 1, fmt.Sprint(i))
	}
	w.srv.lanes.mu.Lock()
	n := w.srv.lanes.all["r1"]
	w.srv.lanes.breakLocked(n, n.life) // as when the stream breaks
	w.srv.lanes.mu.Unlock()
	for i := 100; i < 150; i++ {
		a.chat(int64(i+1), 35, 1, fmt.Sprint(i))
	}
	a.wait(1005, 150)
	for i, text := range w.stored("p:34:35") {
		if text != fmt.Sprint(i) {
			t.Fatalf("place %d holds %s", i, text)
		}
	}
	_ = r2
}

// TestG2_SendsOfBeforeASleepAreNotForwarded: what was queued when the process was
// stopped is refused when it goes on, not sent late.
func TestG2_SendsOfBeforeASleepAreNotForwarded(t *testing.T) {
	w := newWorld(t, testConfig())
	a := w.connect(34)
	c := w.srv.hub.all()[0]
	if !c.acquire(1) {
		t.Fatal("the connection is over")
	}
	err := w.srv.lanes.submit(&pendingSend{
		send: &logicv1.Send{SenderId: 34, ClientMsgId: 1, Kind: int32(im.Private), ToId: 35, Type: 1, Text: "stale"},
		size: 1, from: c, at: w.srv.now() - w.srv.cfg.SendFailover - time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	if f := a.wait(500, 1); f.str("reason") != "service_unavailable" || f.num("msg_client_id") != 1 {
		t.Fatalf("answered %v", f)
	}
	if got := w.stored("p:34:35"); len(got) != 0 {
		t.Fatalf("forwarded: %q", got)
	}
}

// TestG2_WhoWaitedThroughASleepIsToldToComeBack, though his send is given up before
// anything else finds that the process has slept.
func TestG2_WhoWaitedThroughASleepIsToldToComeBack(t *testing.T) {
	w := newWorld(t, testConfig())
	open := make(chan struct{})
	defer close(open)
	r := w.replicas["r1"]
	r.mu.Lock()
	r.gate = func(*logicv1.Send) { <-open }
	r.mu.Unlock()
	a := w.connect(34)
	a.chat(1, 35, 1, "x")
	l := w.srv.lanes
	w.eventually("it is on its way", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.all["r1"].pending) == 1
	})
	slept := max(w.srv.cfg.SendTimeout, w.srv.cfg.StallThreshold) + time.Second
	l.mu.Lock()
	for _, p := range l.all["r1"].pending {
		p.at -= slept
	}
	w.srv.awake.Store(int64(w.srv.now() - slept))
	l.mu.Unlock()
	l.expireNow()
	if code := a.closed(); code != int(wire.CloseTryLater) {
		t.Errorf("close code %d", code)
	}
}

// TestG2_SendsThatComeLateAreNotTaken: a send has left for logic, and lies in a buffer
// or in the network while its client may be answered elsewhere. Logic does not take
// it any more; the gateway sends it again, unless it has slept since it came.
func TestG2_SendsThatComeLateAreNotTaken(t *testing.T) {
	for name, asleep := range map[string]bool{"the network was slow": false, "the gateway slept": true} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig()
			cfg.SendFailover = 300 * time.Millisecond
			w := newWorld(t, cfg)
			a := w.connect(34)
			under, goOn := make(chan struct{}), make(chan struct{})
			r := w.replicas["r1"]
			var first sync.Once
			r.mu.Lock()
			r.transit = func() { first.Do(func() { close(under); <-goOn }) }
			r.mu.Unlock()
			a.chat(1, 35, 1, "x")
			<-under
			time.Sleep(cfg.SendFailover + 50*time.Millisecond)
			if asleep {
				w.sleep()
			}
			close(goOn)
			if !asleep {
				a.wait(1005, 1)
				return
			}
			if code := a.closed(); code != int(wire.CloseTryLater) {
				t.Errorf("close code %d", code)
			}
			if got := w.stored("p:34:35"); len(got) != 0 {
				t.Errorf("stored: %q", got)
			}
		})
	}
}

// What is known of a replica's clock fades, and is made good by what the replica says;
// it is never ahead of the clock.
func TestG2_TheReplicasClockIsNeverOverestimated(t *testing.T) {
	n := &lane{ahead: time.Second}
	then := 10 * time.Second
	if got, want := n.aheadLocked(then), time.Second-then/clockDrift; got != want {
		t.Errorf("after a while without a word: %v, not %v", got, want)
	}
	n.tuneLocked(then+500*time.Millisecond, then) // its answer took half a second, or its clock is slow
	if got := n.aheadLocked(then); got != time.Second-then/clockDrift {
		t.Errorf("after a late answer: %v", got)
	}
	n.tuneLocked(then+950*time.Millisecond, then)
	if got := n.aheadLocked(then); got != 950*time.Millisecond {
		t.Errorf("after a prompt answer: %v", got)
	}
	n.tuneLocked(2*then+2*time.Second, 2*then) // its clock is fast
	if got := n.aheadLocked(2 * then); got != 2*time.Second {
		t.Errorf("after a better answer: %v", got)
	}
	// Its clock is slewed: half a per cent slower than ours, and it answers all the time.
	const away = time.Hour
	for at := time.Duration(0); at <= away; at += time.Second {
		clock := 2*then + 2*time.Second + at - at/200
		n.tuneLocked(clock, 2*then+at)
		if got := n.aheadLocked(2*then+at) + 2*then + at; got-clock > 100*time.Millisecond {
			t.Fatalf("its clock is at %v and believed to be at %v", clock, got)
		}
	}
}

// TestG5_MovedSendsNameWhatCameAfterThem: of the same connection and conversation,
// and only what a replica may have stored.
func TestG5_MovedSendsNameWhatCameAfterThem(t *testing.T) {
	one, two := new(conn), new(conn)
	send := func(c *conn, to, id int64, sent bool) *pendingSend {
		p := &pendingSend{from: c, sent: sent, send: &logicv1.Send{SenderId: 34, ToId: to, ClientMsgId: id}}
		p.key = laneKey(p.send)
		return p
	}
	moved := []*pendingSend{
		send(one, 35, 1, true), send(two, 35, 2, true), send(one, 36, 3, true),
		send(one, 35, 4, true), send(one, 35, 5, true), send(one, 35, 6, false),
	}
	noteLater(moved)
	for i, want := range [][]int64{{5, 4}, nil, nil, {5}, nil, nil} {
		if !slices.Equal(moved[i].later, want) {
			t.Errorf("after %d came %v, not %v", moved[i].send.GetClientMsgId(), want, moved[i].later)
		}
	}

	// Of three sends that were sent again the first was given up before: its copy comes
	// after the other two, and is not overtaken by them.
	moved = []*pendingSend{
		send(one, 35, 2, true), send(one, 35, 3, true),
		send(one, 35, 1, true), send(one, 35, 2, true), send(one, 35, 3, true),
	}
	noteLater(moved)
	for i, want := range [][]int64{{1, 3}, {1}, nil, nil, nil} {
		if !slices.Equal(moved[i].later, want) {
			t.Errorf("after the copy %d came %v, not %v", i, moved[i].later, want)
		}
	}
}

// TestG5_ReturningReplicaDoesNotOvertake: a conversation with sends outstanding
// stays on its lane, though a better one came up.
func TestG5_ReturningReplicaDoesNotOvertake(t *testing.T) {
	w := newWorld(t, testConfig())
	w.twoLanes()
	w.use(2)
	to := w.friendOn("r2")
	w.setReplicas("r1")
	w.eventually("one lane", func() bool { return w.lanesUp() == 1 })
	release := make(chan struct{})
	r1 := w.replicas["r1"]
	r1.mu.Lock()
	r1.gate = func(*logicv1.Send) { <-release }
	r1.mu.Unlock()
	a := w.connect(34)
	for i := range 10 {
		a.chat(int64(i+1), to, 1, fmt.Sprint(i))
	}
	w.eventually("outstanding", func() bool { return w.srv.lanes.outstanding() == 10 })
	w.setReplicas("r1", "r2")
	w.eventually("two lanes again", func() bool { return w.lanesUp() == 2 })
	for i := 10; i < 20; i++ {
		a.chat(int64(i+1), to, 1, fmt.Sprint(i))
	}
	w.eventually("outstanding", func() bool { return w.srv.lanes.outstanding() == 20 })
	time.Sleep(50 * time.Millisecond)
	close(release)
	a.wait(1005, 20)
	for i, text := range w.stored(fmt.Sprintf("p:34:%d", to)) {
		if text != fmt.Sprint(i) {
			t.Fatalf("place %d holds %s", i, text)
		}
	}
}

// twoLanes adds a replica r2 and waits until both have lanes.
func (w *world) twoLanes() {
	w.t.Helper()
	w.addReplica("r2")
	w.setReplicas("r1", "r2")
	w.eventually("two lanes", func() bool { return w.lanesUp() == 2 })
}

// friendOn returns somebody whose conversation with 34 is on that replica's lane.
func (w *world) friendOn(replica string) int64 {
	to := int64(35)
	for w.laneOf(fmt.Sprintf("p:34:%d", to)) != replica {
		to++
	}
	return to
}

// TestG2_SilentReplicaFailsOver: a replica that answers nothing, not even that
// it lives, is given up within the failover time and its sends go on.
func TestG2_SilentReplicaFailsOver(t *testing.T) {
	cfg := testConfig()
	cfg.SendFailover, cfg.SendTimeout = 2*time.Second, 5*time.Second
	w := newWorld(t, cfg)
	r1 := w.replicas["r1"]
	w.twoLanes()
	a := w.connect(34)
	to := w.friendOn("r1")
	r1.stall()
	start := time.Now()
	a.chat(1, to, 1, "x")
	a.wait(1005, 1)
	if d := time.Since(start); d < time.Second || d > cfg.SendTimeout {
		t.Errorf("acked after %v", d)
	}
	r1.resume()
	w.eventually("r1 is back", func() bool { return w.lanesUp() == 2 })
	a.chat(2, to, 1, "y")
	a.wait(1005, 2)
	if got := w.stored(fmt.Sprintf("p:34:%d", to)); strings.Join(got, "") != "xy" {
		t.Fatalf("stored %q", got)
	}
}

// TestG2_ReplicaThatDoesNotServeFailsOver: a replica that answers and says that it
// cannot do its work loses its sends to another, and gets some again when it can.
func TestG2_ReplicaThatDoesNotServeFailsOver(t *testing.T) {
	cfg := testConfig()
	cfg.SendFailover, cfg.SendTimeout = 2*time.Second, 5*time.Second
	w := newWorld(t, cfg)
	r1 := w.replicas["r1"]
	w.twoLanes()
	a := w.connect(34)
	to := w.friendOn("r1")
	block := make(chan struct{})
	defer close(block)
	r1.mu.Lock()
	r1.gate = func(*logicv1.Send) { <-block }
	r1.mu.Unlock()
	r1.health.SetServingStatus("", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	start := time.Now()
	a.chat(1, to, 1, "x")
	a.wait(1005, 1)
	if d := time.Since(start); d > cfg.SendFailover+time.Second {
		t.Errorf("acked after %v", d)
	}
	// What comes now comes after something that r1 may still store.
	turns := make(chan int64, 1)
	r2 := w.replicas["r2"]
	r2.mu.Lock()
	r2.gate = func(s *logicv1.Send) { turns <- s.GetTurn() }
	r2.mu.Unlock()
	a.chat(2, to, 1, "y")
	if turn := <-turns; turn == 0 {
		t.Error("a later send looks as if nothing had moved")
	}
	if n := w.lanesUp(); n != 1 {
		t.Errorf("%d lanes", n)
	}
	r1.health.SetServingStatus("", grpc_health_v1.HealthCheckResponse_SERVING)
	w.eventually("r1 is back", func() bool { return w.lanesUp() == 2 })
}

// A replica that is slow but answers probes keeps its sends: moving them would
// only add load.
func TestSlowReplicaKeepsItsSends(t *testing.T) {
	cfg := testConfig()
	cfg.SendFailover, cfg.SendTimeout = time.Second, 10*time.Second
	w := newWorld(t, cfg)
	r1 := w.replicas["r1"]
	w.twoLanes()
	a := w.connect(34)
	to := w.friendOn("r1")
	r1.mu.Lock()
	r1.gate = func(*logicv1.Send) { time.Sleep(2 * cfg.SendFailover) }
	r1.mu.Unlock()
	a.chat(1, to, 1, "x")
	a.wait(1005, 1)
	r1.mu.Lock()
	defer r1.mu.Unlock()
	if r1.streams != 1 {
		t.Errorf("%d streams: the lane was given up", r1.streams)
	}
}

// TestG2_UnknownMeansNoAnswer: what a replica may have got and nobody answers
// for is neither acked nor refused; what never left is refused.
func TestG2_UnknownMeansNoAnswer(t *testing.T) {
	w := newWorld(t, testConfig())
	r1 := w.replicas["r1"]
	a := w.connect(34)
	r1.stall()
	a.chat(1, 35, 1, "sent")
	w.eventually("it left", func() bool {
		r1.mu.Lock()
		defer r1.mu.Unlock()
		return len(r1.batches) == 1
	})
	w.eventually("the lane is given up", func() bool { return w.lanesUp() == 0 })
	start := time.Now()
	a.chat(2, 36, 1, "not sent")
	f := a.wait(500, 1)
	if f.num("msg_client_id") != 2 || f.str("reason") != "service_unavailable" || f.num("retry_after") == 0 {
		t.Fatalf("%v", f)
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("refused after %v", d)
	}
	w.eventually("nothing is outstanding", func() bool { return w.srv.lanes.outstanding() == 0 })
	if len(a.all(1005)) != 0 || len(a.all(500)) != 1 {
		t.Fatal("the unknown one was answered")
	}
	w.srv.lanes.mu.Lock()
	if w.srv.lanes.turn == 0 {
		t.Error("later sends look as if nothing were unknown")
	}
	w.srv.lanes.mu.Unlock()
	r1.resume()
	w.eventually("back", func() bool { return w.lanesUp() == 1 })
	a.chat(1, 35, 1, "sent") // the client tries again: settled
	a.wait(1005, 1)
}

func TestSendsWaitForTheFirstLane(t *testing.T) {
	w := newWorld(t, testConfig())
	a := w.connect(34)
	w.setReplicas()
	w.eventually("no lane", func() bool { return w.lanesUp() == 0 })
	for i := range 10 {
		a.chat(int64(i+1), 35, 1, fmt.Sprint(i))
	}
	w.setReplicas("r1")
	a.wait(1005, 10)
	if got := strings.Join(w.stored("p:34:35"), ""); got != "0123456789" {
		t.Fatalf("stored %q", got)
	}
}

// TestG15_PendingIsBounded and refused in words beyond.
func TestG15_PendingIsBounded(t *testing.T) {
	cfg := testConfig()
	cfg.PendingBytes = 100
	w := newWorld(t, cfg)
	r1 := w.replicas["r1"]
	release := make(chan struct{})
	r1.mu.Lock()
	r1.gate = func(*logicv1.Send) { <-release }
	r1.mu.Unlock()
	a := w.connect(34)
	a.chat(1, 35, 1, strings.Repeat("x", 90))
	a.chat(2, 35, 1, strings.Repeat("x", 90))
	if f := a.wait(500, 1); f.str("reason") != "overloaded" || f.num("msg_client_id") != 2 || f.num("retry_after") != 1 {
		t.Fatalf("%v", f)
	}
	close(release)
	a.wait(1005, 1)
	a.chat(2, 35, 1, strings.Repeat("x", 90))
	a.wait(1005, 2)
}

// TestG15_FloodedLaneRefusesHere: what a replica that answers cannot take is not
// sent to it; while it is silent nothing is refused, for another may take over.
func TestG15_FloodedLaneRefusesHere(t *testing.T) {
	w := newWorld(t, testConfig())
	l := w.srv.lanes
	flooded := func(heard time.Duration, pending int) bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		n := l.pickLocked(fnv1a("p:34:35"))
		was := n.heard
		for i := range pending {
			n.pending[uint64(i)] = nil
		}
		n.heard = l.s.now() - heard
		defer func() {
			clear(n.pending)
			n.heard = was
		}()
		return l.floodedLocked("p:34:35")
	}
	w.eventually("the lane is up", func() bool { return w.laneOf("p:34:35") != "" })
	for _, c := range []struct {
		heard   time.Duration
		pending int
		want    bool
	}{{0, laneMost - 1, false}, {0, laneMost, true}, {laneTick, laneMost, false}} {
		if got := flooded(c.heard, c.pending); got != c.want {
			t.Errorf("%d pending, silent for %v: flooded is %v", c.pending, c.heard, got)
		}
	}
}

// countingSender counts outcomes.
type countingSender struct{ stored, other atomic.Int64 }

func (c *countingSender) settle(_ *pendingSend, _ *logicv1.SendResult, err error) {
	if err != nil {
		c.other.Add(1)
		return
	}
	c.stored.Add(1)
}
func (c *countingSender) gone() bool { return false }

// TestG15_NoLaneGetsMoreThanItTakes: what one lane leaves to another, all at once, waits
// here beyond what a replica takes, and all of it is stored.
func TestG15_NoLaneGetsMoreThanItTakes(t *testing.T) {
	w := newWorld(t, testConfig())
	w.eventually("the lane is up", func() bool { return w.laneOf("p:34:35") != "" })
	r, open := w.replicas["r1"], make(chan struct{})
	r.mu.Lock()
	r.gate = func(*logicv1.Send) { <-open }
	r.mu.Unlock()
	l := w.srv.lanes
	var from countingSender
	const all = laneMost + 1500
	l.mu.Lock()
	n := l.all["r1"]
	for i := range all { // as breakLocked does
		p := &pendingSend{send: sendOf(1, 35, 34, int64(i+1), "x"), size: 1, from: &from, at: l.s.now(), sent: true, moved: true}
		p.key = laneKey(p.send)
		l.count++
		l.bytes += p.size
		l.routeLocked(p)
	}
	l.mu.Unlock()
	under := func() (pending, queued int) {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(n.pending), len(n.queue)
	}
	w.eventually("it has what it takes", func() bool { p, q := under(); return p == laneMost && q == all-laneMost })
	close(open)
	w.eventually("all are stored", func() bool { return from.stored.Load() == all })
	if n := from.other.Load(); n != 0 {
		t.Errorf("%d were not", n)
	}
}

// The window stops the reader, and so the client; nothing is lost.
func TestWindowIsBackPressure(t *testing.T) {
	cfg := testConfig()
	cfg.Window = 4
	w := newWorld(t, cfg)
	r1 := w.replicas["r1"]
	release := make(chan struct{})
	r1.mu.Lock()
	r1.gate = func(*logicv1.Send) { <-release }
	r1.mu.Unlock()
	a := w.connect(34)
	for i := range 40 {
		a.chat(int64(i+1), 35, 1, fmt.Sprint(i))
	}
	w.eventually("the window is full", func() bool { return w.srv.lanes.outstanding() == 4 })
	time.Sleep(50 * time.Millisecond)
	if n := w.srv.lanes.outstanding(); n != 4 {
		t.Fatalf("%d outstanding", n)
	}
	close(release)
	a.wait(1005, 40)
	if got := w.stored("p:34:35"); len(got) != 40 || got[39] != "39" {
		t.Fatalf("stored %q", got)
	}
}

func TestSendsAreBatched(t *testing.T) {
	w := newWorld(t, testConfig())
	r1 := w.replicas["r1"]
	r1.mu.Lock()
	r1.gate = func(*logicv1.Send) { time.Sleep(200 * time.Microsecond) }
	r1.mu.Unlock()
	a := w.connect(34)
	for i := range 200 {
		a.chat(int64(i+1), 35, 1, "x")
	}
	a.wait(1005, 200)
	r1.mu.Lock()
	defer r1.mu.Unlock()
	if len(r1.batches) > 150 {
		t.Errorf("%d batches for 200 sends", len(r1.batches))
	}
}

// A replica took a send and went silent; the next one refuses it. The first may
// still store it, so the refusal is not the end of it.
func TestG2_RefusalAfterAMoveIsUnknown(t *testing.T) {
	refusal := func(k im.Kind) *logicv1.SendResult {
		return &logicv1.SendResult{Error: &logicv1.SendError{Kind: int32(k), Reason: "x"}}
	}
	for kind, want := range map[im.Kind]im.Kind{
		im.KindExhausted: im.KindUnknown, im.KindUnavailable: im.KindUnknown, im.KindForbidden: im.KindUnknown,
		im.KindInvalid: im.KindInvalid, im.KindConflict: im.KindConflict,
	} {
		moved := &pendingSend{moved: true}
		if got := moved.final(refusal(kind)).GetError().GetKind(); got != int32(want) {
			t.Errorf("moved, %v: %v", kind, im.Kind(got))
		}
		if got := new(pendingSend).final(refusal(kind)).GetError().GetKind(); got != int32(kind) {
			t.Errorf("not moved, %v: %v", kind, im.Kind(got))
		}
	}
	stored := &logicv1.SendResult{MessageId: 1}
	if (&pendingSend{moved: true}).final(stored) != stored {
		t.Error("an ack was changed")
	}
}
