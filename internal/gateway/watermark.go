package gateway

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	logicv1 "im-services/api/proto/logic/v1"
	"im-services/internal/im"
	"im-services/internal/seeded"
	"im-services/internal/wire"
)

const (
	markTick    = 200 * time.Millisecond
	markTimeout = 2 * time.Second
	markPace    = 50 * time.Millisecond // between two chunks, at most
	assertBatch = 100                   // each has Redis run a script, all in one round trip
	// asleepMost is how long it may take to find out whether connections are still
	// their clients' after the process slept. Then they are closed: a client that is
	// still there connects again, and what it sent is unknown.
	asleepMost = 5 * time.Second
	// asleepLeast is how long after a sleep no send is taken: by then what lay in the
	// sockets has been read.
	asleepLeast = time.Second
)

// marks compares the connections with what logic knows of them: push counters,
// routes, displacement.
type marks struct {
	s *Server

	mu      sync.Mutex
	asserts map[*conn]struct{}
	now     bool // a round is wanted at once
	strict  bool // which trusts nothing that is in flight
}

// assert asks for the connection's route to be registered again. The caller may
// hold c.mu.
func (m *marks) assert(c *conn) {
	m.mu.Lock()
	if m.asserts == nil {
		m.asserts = map[*conn]struct{}{}
	}
	m.asserts[c] = struct{}{}
	m.mu.Unlock()
}

// soon asks for a round at once; a strict one trusts nothing that is in flight.
func (m *marks) soon(strict bool) {
	m.mu.Lock()
	m.now = true
	m.strict = m.strict || strict
	m.mu.Unlock()
}

func (m *marks) run(ctx context.Context) {
	t := time.NewTicker(markTick)
	defer t.Stop()
	last := m.s.now()
	for {
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
		m.assertAll(ctx)
		degraded := m.s.deps.BusConnected != nil && !m.s.deps.BusConnected()
		interval := m.s.cfg.WatermarkInterval
		if degraded {
			interval = m.s.cfg.WatermarkDegraded
		}
		m.mu.Lock()
		due, strict := m.now, m.strict || degraded
		m.now, m.strict = false, false
		m.mu.Unlock()
		if due || m.s.now()-last >= interval {
			last = m.s.now()
			m.round(ctx, interval, strict)
		}
	}
}

// round asks about all connections, in chunks; strict as of soon.
func (m *marks) round(ctx context.Context, interval time.Duration, strict bool) {
	if seeded.On(seeded.NoWatermark) || seeded.On(seeded.NSQOnly) {
		return
	}
	conns := m.s.hub.all()
	chunks := (len(conns) + m.s.cfg.WatermarkChunk - 1) / m.s.cfg.WatermarkChunk
	for i := range chunks {
		if i > 0 {
			select {
			case <-time.After(min(markPace, interval/time.Duration(2*chunks))):
			case <-ctx.Done():
				return
			}
		}
		chunk := conns[i*m.s.cfg.WatermarkChunk : min(len(conns), (i+1)*m.s.cfg.WatermarkChunk)]
		m.chunk(ctx, chunk, strict)
	}
}

func (m *marks) chunk(ctx context.Context, conns []*conn, strict bool) {
	req := &logicv1.WatermarkRequest{GatewayId: string(m.s.id)}
	asked := make([]*conn, 0, len(conns))
	for _, c := range conns {
		if c.joinedNow() {
			asked = append(asked, c)
			req.Conns = append(req.Conns, c.pb())
		}
	}
	if len(asked) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, markTimeout)
	defer cancel()
	resp, err := m.s.deps.Connections.Watermark(ctx, req)
	if err != nil || len(resp.GetMarks()) != len(asked) || resp.GetEpoch() == "" {
		m.s.m.markErrors.Inc()
		for _, c := range asked {
			c.unfence()
			c.stillAsleep()
		}
		return
	}
	for i, c := range asked {
		c.compare(resp.GetEpoch(), resp.GetMarks()[i], strict)
	}
}

// joinedNow reports whether logic knows of the connection.
func (c *conn) joinedNow() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.stopped && c.joined
}

// reassert reports whether the connection's route is to be asked for once more, and
// notes that it was: it may be made whatever the answer, and after its end.
func (c *conn) reassert() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	due := !c.stopped && c.joined
	if due {
		c.registrations = 2
	}
	return due
}

// stillAsleep asks again soon whether the connection is still its client's, unless
// that took too long.
func (c *conn) stillAsleep() {
	c.mu.Lock()
	since, over := c.asleep, c.stopped
	c.mu.Unlock()
	switch {
	case since == 0 || over:
	case c.s.now()-since > asleepMost:
		c.closeWith(wire.CloseTryLater, nil)
	default:
		c.s.marks.soon(true)
	}
}

// unfence lets a fenced connection sync although nothing is known of its route.
func (c *conn) unfence() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.phase == phaseFenced {
		c.syncLocked("fence")
	}
}

// oustedBefore notes that logic says that a newer connection has the place, and reports
// whether it had said so before.
func (c *conn) oustedBefore() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.ousted
	c.ousted = true
	return before
}

// compare takes what logic knows of a connection.
func (c *conn) compare(epoch string, w *logicv1.Watermark, strict bool) {
	if w.GetDisplaced() {
		if c.oustedBefore() {
			c.displace("")
		} else { // the event that also says by whom may be on its way
			c.s.marks.soon(false)
		}
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		return
	}
	if !w.GetRouted() || epoch != c.epoch && !seeded.On(seeded.EpochIgnored) {
		if c.asleep != 0 { // its client may have been elsewhere, and gone again
			c.shut(wire.CloseTryLater, nil)
			return
		}
		c.s.marks.assert(c)
		return
	}
	if c.asleep != 0 && c.s.now()-c.asleep < asleepLeast {
		c.s.marks.soon(true)
	} else {
		c.asleep = 0
	}
	pv := im.PV(w.GetPv())
	switch c.phase {
	case phaseFenced:
		if pv != c.pv {
			c.syncLocked("fence")
			return
		}
		c.phase = phaseLive
		c.retryLocked()
		c.watchLocked()
	case phaseLive:
		switch {
		case pv <= c.pv:
			c.wantPV = 0
		case strict, c.wantPV != 0 && c.pv < c.wantPV:
			// It was behind the last time, and what it lacked then has not come.
			c.syncLocked("watermark")
		default:
			c.wantPV = pv
		}
	}
}

// assertAll registers the routes that logic forgot, and syncs: what was pushed
// while there was no route went nowhere.
func (m *marks) assertAll(ctx context.Context) {
	for ctx.Err() == nil {
		m.mu.Lock()
		batch := make([]*conn, 0, min(len(m.asserts), assertBatch))
		for c := range m.asserts {
			if len(batch) == assertBatch {
				break
			}
			batch = append(batch, c)
			delete(m.asserts, c)
		}
		m.mu.Unlock()
		req := &logicv1.AssertRequest{GatewayId: string(m.s.id)}
		live := batch[:0]
		for _, c := range batch {
			if c.reassert() {
				live = append(live, c)
				req.Conns = append(req.Conns, c.pb())
			}
		}
		if len(live) == 0 {
			return
		}
		m.s.m.asserts.Add(float64(len(live)))
		callCtx, cancel := context.WithTimeout(ctx, markTimeout)
		resp, err := m.s.deps.Connections.Assert(callCtx, req)
		cancel()
		if err != nil || len(resp.GetMarks()) != len(live) {
			m.s.m.markErrors.Inc()
			for _, c := range live {
				m.assert(c)
			}
			return // the next tick tries again
		}
		for i, c := range live {
			if c.closed() { // its end may have been told before its route was made: tell it at once
				m.s.reports.disconnect(c)
				continue
			}
			if resp.GetMarks()[i].GetDisplaced() {
				c.displace("")
				continue
			}
			c.mu.Lock()
			c.syncLocked("assert")
			c.mu.Unlock()
		}
	}
}

// checkStall fences all connections if this process was asleep: what it holds
// and what comes from the bus now may be long out of date, and its clients may
// be elsewhere, where what they sent here was sent again, answered, and forgotten.
// That none has been is only known of a connection that has kept its route, and a
// route that others cannot take proves nothing. Every path that writes pushes or
// takes sends comes through here first.
func (s *Server) checkStall(now time.Duration) {
	last := time.Duration(s.awake.Load())
	if now-last < s.cfg.StallThreshold || seeded.On(seeded.NoFence) {
		return
	}
	// Whoever comes meanwhile waits until all are fenced.
	s.stalled.Lock()
	defer s.stalled.Unlock()
	if last = time.Duration(s.awake.Load()); now-last < s.cfg.StallThreshold {
		return
	}
	s.m.fences.Inc()
	s.log.Warn("the process was stalled: connections are fenced", "pause", now-last)
	for _, c := range s.hub.all() {
		c.mu.Lock()
		c.asleep = max(now, 1)
		switch {
		case !c.joined || s.cfg.MultiDevice != multiDisplace:
			c.shut(wire.CloseTryLater, nil)
		case c.phase == phaseLive:
			c.phase = phaseFenced
		}
		c.mu.Unlock()
	}
	s.slept.Store(max(int64(now), 1))
	s.awake.Store(int64(now))
	s.marks.soon(true)
}

// SleptSince reports whether this process was found to have been asleep at t or
// later, for the HTTP API: what its callers sent before that may have been sent
// again elsewhere.
func (s *Server) SleptSince(t time.Time) bool {
	s.checkStall(s.now())
	return s.sleptAfter(t.Sub(s.start))
}

// sleptAfter reports whether a sleep was found at t or later.
func (s *Server) sleptAfter(t time.Duration) bool {
	slept := time.Duration(s.slept.Load())
	return slept != 0 && slept >= t
}

// stayAwake notices stalls also when nothing comes from the bus.
func (s *Server) stayAwake(ctx context.Context) {
	t := time.NewTicker(s.cfg.StallThreshold / 16)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			now := s.now()
			s.checkStall(now)
			s.awake.Store(int64(now))
		case <-ctx.Done():
			return
		}
	}
}

// jitter spreads a pause over 50 % to 150 % of itself. Tests that repeat
// themselves replace it.
var jitter = func(d time.Duration) time.Duration {
	return d/2 + rand.N(d) //nolint:gosec // not a secret
}
