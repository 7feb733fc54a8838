package gateway

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"im-services/internal/im"
	"im-services/internal/wire"
)

// TestG13_SlowReaderIsClosed with 4008 or a broken connection, soon, without
// slowing others, and misses nothing after reconnecting.
func TestG13_SlowReaderIsClosed(t *testing.T) {
	cfg := testConfig()
	cfg.SocketBuffer = 4 << 10
	cfg.WriteTimeout = 500 * time.Millisecond
	w := newWorld(t, cfg)
	w.store.group(24, 35, 36) // the sender is no member: his own echo would count against him
	a, quick := w.connect(34), w.connect(35)
	stuck := w.raw(36) // never reads again
	_ = stuck.Conn.(*net.TCPConn).SetReadBuffer(4 << 10)
	w.eventually("live", func() bool {
		live := false
		w.srv.hub.each(36, func(c *conn) { c.mu.Lock(); live = c.phase == phaseLive; c.mu.Unlock() })
		return live
	})
	text := strings.Repeat("x", 8<<10)
	start := time.Now()
	const n = 300 // 2.4 MB
	for i := range n {
		a.chat(int64(i+1), 24, 2, text)
		if i%10 == 9 {
			quick.wait(200, i+1) // a sender nobody could follow proves nothing
		}
	}
	if d := time.Since(start); d > 10*time.Second {
		t.Errorf("others took %v", d)
	}
	w.eventually("the slow one is closed", func() bool {
		found := false
		w.srv.hub.each(36, func(*conn) { found = true })
		return !found
	})
	if d := time.Since(start); d > 10*time.Second {
		t.Errorf("closed after %v", d)
	}
	back := w.connect(36)
	back.wait(200, n)
	for i, f := range back.all(200) {
		if f.num("seq") != int64(i+1) {
			t.Fatalf("place %d: seq %d", i, f.num("seq"))
		}
	}
}

// A reader that is only slow for a moment gets the close code once it reads.
func TestSlowReaderIsToldWhy(t *testing.T) {
	cfg := testConfig()
	cfg.OutboxBytes = 4 << 10
	cfg.SocketBuffer = 4 << 10
	w := newWorld(t, cfg)
	r := w.raw(36)
	var c *conn
	w.eventually("there", func() bool { w.srv.hub.each(36, func(x *conn) { c = x }); return c != nil })
	big := seal(append(newFrame(3<<10), make([]byte, 3<<10)...), opText)
	for c.send(big) == nil {
	}
	if got := r.closeCode(); got != int(wire.CloseTooSlow) {
		t.Fatalf("close code %d", got)
	}
}

// TestG9_HalfOpenClientIsDropped so early that its friends know it within 35 s,
// and one that answers is not.
func TestG9_HalfOpenClientIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := bubble(t, Config{})
		defer w.close()
		dead := w.srv.acceptPipe(35, im.PlatformWeb)
		alive := w.srv.acceptPipe(36, im.PlatformWeb)
		deadAfter := make(chan time.Duration, 1)
		go func() { // answers one ping, the worst moment to go; then reads, as a kernel would
			buf := make([]byte, 256)
			for {
				n, err := dead.Read(buf)
				if err != nil || n >= 2 && buf[0] == finBit|opPing {
					break
				}
			}
			_, _ = dead.Write(clientFrame(finBit|opPong, ""))
			start := time.Now()
			_, _ = io.Copy(io.Discard, dead)
			deadAfter <- time.Since(start)
		}()
		stop := make(chan struct{})
		go func() {
			defer close(stop)
			buf := make([]byte, 256)
			for {
				n, err := alive.Read(buf)
				if err != nil {
					return
				}
				if n >= 2 && buf[0] == finBit|opPing {
					if _, err := alive.Write(clientFrame(finBit|opPong, "")); err != nil {
						return
					}
				}
			}
		}()
		d := <-deadAfter
		if d < 10*time.Second || d > 34*time.Second {
			t.Errorf("dropped after %v", d)
		}
		time.Sleep(5 * time.Minute)
		if n := w.srv.Connections(); n != 1 {
			t.Errorf("%d connections", n)
		}
		_ = alive.Close()
		<-stop
		_ = dead.Close()
	})
}

func TestTokenEndClosesTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := bubble(t, Config{})
		defer w.close()
		c := w.srv.acceptPipe(35, im.PlatformWeb) // for an hour
		start := time.Now()
		r := &rawConn{t, c}
		for {
			op, p, err := r.next0()
			if err != nil {
				t.Fatal(err)
			}
			if op == opPing {
				_, _ = c.Write(clientFrame(finBit|opPong, string(p)))
			}
			if op == opClose {
				if code := int(p[0])<<8 | int(p[1]); code != 4001 {
					t.Errorf("close code %d", code)
				}
				break
			}
		}
		if d := time.Since(start); d < time.Hour || d > time.Hour+2*time.Minute {
			t.Errorf("closed after %v", d)
		}
		_ = c.Close()
	})
}

// An idle connection has one goroutine and nothing in its outbox.
func TestIdleConnectionHoldsOneGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := bubble(t, Config{})
		defer w.close()
		c := w.srv.acceptPipe(35, im.PlatformWeb)
		synctest.Wait()
		w.srv.hub.each(35, func(c *conn) {
			c.out.mu.Lock()
			if c.out.writing || len(c.out.queue) != 0 {
				t.Error("a writer is running")
			}
			c.out.mu.Unlock()
		})
		_ = c.Close()
	})
}

func TestRateLimit(t *testing.T) {
	cfg := testConfig()
	cfg.FrameRate, cfg.FrameBurst = 10, 20
	w := newWorld(t, cfg)
	a := w.connect(34)
	for range 25 {
		a.send(heartbeatText)
	}
	a.wait(1004, 20)
	f := a.wait(500, 1)
	if f.str("reason") != "rate_limited" || f.num("retry_after") != 1 {
		t.Fatalf("%v", f)
	}
	time.Sleep(300 * time.Millisecond)
	before := len(a.all(1004))
	a.send(heartbeatText)
	a.wait(1004, before+1)
	for range 60 { // goes on regardless
		_ = a.ws.WriteMessage(1, []byte(heartbeatText))
	}
	if code := a.closed(); code != 1008 {
		t.Errorf("close code %d", code)
	}
}

func TestOneLargeFrameAlwaysFits(t *testing.T) {
	cfg := testConfig()
	cfg.OutboxBytes = 1 << 10
	w := newWorld(t, cfg)
	a, b := w.connect(34), w.connect(35)
	text := strings.Repeat("x", 50<<10)
	a.chat(1, 35, 1, text)
	b.waitTexts(text)
}

// TestBacklogWaitsForTheReader: a backlog larger than the outbox is written as
// fast as it is read, and closes nobody.
func TestBacklogWaitsForTheReader(t *testing.T) {
	cfg := testConfig()
	cfg.OutboxBytes = 16 << 10
	cfg.SocketBuffer = 4 << 10
	w := newWorld(t, cfg)
	for i := range 200 {
		w.store.store(sendOf(1, 35, 34, int64(i+1), fmt.Sprint(i)+strings.Repeat("x", 4<<10)))
	}
	b := w.connect(35)
	b.wait(200, 200)
	for i, f := range b.all(200) {
		if f.num("seq") != int64(i+1) {
			t.Fatalf("place %d: seq %d", i, f.num("seq"))
		}
	}
}

// stickBacklog connects a user with a long backlog who does not read, and waits until
// no more of it can be written.
func (w *world) stickBacklog(user int64) *rawConn {
	w.t.Helper()
	for i := range 800 {
		w.store.store(sendOf(1, user, 34, int64(i+1), strings.Repeat("x", 16<<10)))
	}
	r := w.rawReading(user, 8<<10)
	w.eventually("the backlog is stuck", func() bool {
		stuck := false
		w.srv.hub.each(im.UserID(user), func(c *conn) { c.out.mu.Lock(); stuck = c.out.room != nil; c.out.mu.Unlock() })
		return stuck
	})
	return r
}

// TestG14_StuckBacklogDelaysNobody: who does not read his backlog gives up his
// turn, and in the end his place.
func TestG14_StuckBacklogDelaysNobody(t *testing.T) {
	cfg := testConfig()
	cfg.SyncConcurrency = 1
	cfg.OutboxBytes = 16 << 10
	cfg.SocketBuffer = 4 << 10
	cfg.WriteTimeout = 3 * time.Second
	w := newWorld(t, cfg)
	w.stickBacklog(35)
	start := time.Now()
	w.connect(36)
	if d := time.Since(start); d > cfg.WriteTimeout-time.Second { // it did not wait for the stuck one's end
		t.Errorf("another connection went live after %v", d)
	}
	w.eventually("the stuck one is closed", func() bool { return w.srv.Connections() == 1 })
	if d := time.Since(start); d > 10*time.Second {
		t.Errorf("closed after %v", d)
	}
}

// TestG13_BacklogStreamsAreBounded: who does not read his backlog gives up his turn
// but not his place among those whose backlogs are in memory.
func TestG13_BacklogStreamsAreBounded(t *testing.T) {
	cfg := testConfig()
	cfg.SyncStreams = 1
	cfg.OutboxBytes = 16 << 10
	cfg.SocketBuffer = 4 << 10
	cfg.WriteTimeout = time.Second
	w := newWorld(t, cfg)
	w.stickBacklog(35)
	stuck, next := w.connOf(35), w.dial(36)
	for !stuck.closed() {
		if n := w.syncs(36); n > 1 && !stuck.closed() {
			t.Fatalf("%d backlogs are open", n)
		}
		time.Sleep(time.Millisecond)
	}
	w.eventually("the next has his turn", func() bool { return w.liveCount() == 1 })
	next.send(heartbeatText)
	next.wait(1004, 1)
}

// TestG14_SlowBacklogsTakeTurns: who reads his backlog slowly, and is never too slow, does
// not keep others from theirs, and goes on with his.
func TestG14_SlowBacklogsTakeTurns(t *testing.T) {
	cfg := testConfig()
	cfg.SyncStreams = 1
	cfg.OutboxBytes = 16 << 10
	cfg.SocketBuffer = 4 << 10
	cfg.WriteTimeout = time.Second
	w := newWorld(t, cfg)
	slow := w.stickBacklog(35)
	read := func(seq int) {
		for {
			op, p, err := slow.next()
			if err != nil {
				t.Errorf("before seq %d: %v", seq, err)
				return
			}
			if op == opText && strings.Contains(string(p), fmt.Sprintf(`"seq":%d,`, seq)) {
				return
			}
		}
	}
	next, seq := w.dial(36), 0
	for start := time.Now(); w.liveCount() == 0; time.Sleep(200 * time.Millisecond) {
		if seq++; time.Since(start) > 20*time.Second {
			t.Fatalf("the next has no turn, %d messages later", seq)
		}
		read(seq)
	}
	next.send(heartbeatText)
	next.wait(1004, 1)
	for end := seq + 30; seq < end && !t.Failed(); {
		seq++
		read(seq)
	}
}

// TestG13_SmallFramesTakeNoMemoryEither: an outbox of tiny answers is as full as one of
// large ones.
func TestG13_SmallFramesTakeNoMemoryEither(t *testing.T) {
	c := newWorld(t, testConfig()).unwritten(36)
	tiny := seal(newFrame(0), opPong)
	n := 0
	for c.send(tiny) == nil {
		n++
	}
	if n > maxQueued {
		t.Errorf("%d frames are queued", n)
	}
}

// unwritten connects a user to whom nothing is written any more.
func (w *world) unwritten(user im.UserID) *conn {
	w.t.Helper()
	w.raw(int64(user))
	var c *conn
	w.eventually("there", func() bool { w.srv.hub.each(user, func(x *conn) { c = x }); return c != nil && w.liveCount() == 1 })
	c.out.mu.Lock()
	c.out.writing = true
	c.out.mu.Unlock()
	w.t.Cleanup(c.kill)
	return c
}

// TestG14_WhoIsBehindMissesNoFriend: while a client reads slowly he may miss who comes and
// goes, but not who becomes his friend, nor a call.
func TestG14_WhoIsBehindMissesNoFriend(t *testing.T) {
	cfg := testConfig()
	cfg.OutboxBytes = 16 << 10
	c := newWorld(t, cfg).unwritten(36)
	queued := func(write func([]byte)) int {
		c.out.mu.Lock()
		before := len(c.out.queue)
		c.out.mu.Unlock()
		write(seal(append(newFrame(200), make([]byte, 200)...), opText))
		c.out.mu.Lock()
		defer c.out.mu.Unlock()
		return len(c.out.queue) - before
	}
	fill := func(most int) {
		for c.out.bytes < most {
			_ = c.send(seal(append(newFrame(200), make([]byte, 200)...), opText))
		}
	}
	fill(9 << 10)
	if queued(c.news) != 0 || queued(c.call) != 1 || queued(c.event) != 1 {
		t.Error("with the outbox half full")
	}
	fill(16<<10 - 200)
	if queued(c.news) != 0 || queued(c.call) != 0 || c.closed() {
		t.Error("with the outbox full")
	}
	c.event(seal(append(newFrame(200), make([]byte, 200)...), opText))
	if !c.closed() {
		t.Error("what was lost is not asked for again")
	}
}

// TestLaggingReaderIsNotClosed: pushes come faster than the client reads for a
// while; it gets them all, in order, and keeps its connection.
func TestLaggingReaderIsNotClosed(t *testing.T) {
	cfg := testConfig()
	cfg.OutboxBytes = 16 << 10
	w := newWorld(t, cfg)
	b := w.raw(36)
	w.eventually("live", func() bool { return w.liveCount() == 1 })
	const n = 10_000
	for i := range n {
		w.store.store(sendOf(1, 36, 34, int64(i+1), strings.Repeat("x", 200)))
	}
	time.Sleep(100 * time.Millisecond)
	for got := 0; got < n; {
		op, p, err := b.next()
		if err != nil {
			t.Fatalf("after %d: %v", got, err)
		}
		if op == opText {
			got++
			if !strings.Contains(string(p), fmt.Sprintf(`"seq":%d,`, got)) {
				t.Fatalf("place %d: %s", got, p)
			}
		}
	}
	if n := w.srv.Connections(); n != 1 {
		t.Fatalf("%d connections", n)
	}
}

// Frames larger than the whole outbox, one after another, from the backlog.
func TestBacklogOfLargeFrames(t *testing.T) {
	cfg := testConfig()
	cfg.OutboxBytes = 8 << 10
	w := newWorld(t, cfg)
	for i := range 20 {
		w.store.store(sendOf(1, 35, 34, int64(i+1), strings.Repeat("\x01", 10<<10)))
	}
	b := w.connect(35)
	b.wait(200, 20)
}

// A client that sends and does not read its answers is held up, not closed.
func TestUnreadAnswersHoldTheSender(t *testing.T) {
	cfg := testConfig()
	cfg.OutboxBytes = 8 << 10
	cfg.Window = 16
	cfg.SocketBuffer = 4 << 10
	w := newWorld(t, cfg)
	a := w.raw(34)
	const n = 3000
	go func() {
		for i := range n {
			if _, err := a.Write(clientFrame(finBit|opText, fmt.Sprintf(`{"msg_client_id":%d,"msg_code":200,"to_id":35,"msg_type":1,"channel_type":1,"message":"x"}`, i+1))); err != nil {
				return
			}
		}
	}()
	time.Sleep(200 * time.Millisecond)
	for got := 0; got < n; {
		op, _, err := a.next()
		if err != nil {
			t.Fatalf("after %d: %v", got, err)
		}
		if op == opText {
			got++
		}
	}
}
