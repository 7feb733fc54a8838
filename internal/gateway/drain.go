package gateway

import (
	"context"
	"math/rand/v2"
	"time"

	"im-services/internal/wire"
)

const (
	drainTick   = 20 * time.Millisecond
	drainAnswer = 2 * time.Second // how long a connection's sends may take to be answered
)

// Drain refuses new connections and closes all there are with CloseRestart, in
// random order, spread over the drain window, so that their clients do not all
// come back at once. Sends that were taken are answered first; pushes go on
// until the end of each connection. It returns when no connection is left and
// logic was told, or with ctx's error.
func (s *Server) Drain(ctx context.Context) error {
	s.draining.Store(true)
	conns := s.hub.all()
	rand.Shuffle(len(conns), func(i, j int) { conns[i], conns[j] = conns[j], conns[i] }) //nolint:gosec // not a secret
	began, total := s.now(), len(conns)
	t := time.NewTicker(drainTick)
	defer t.Stop()
	for len(conns) > 0 {
		due := total
		if spent := s.now() - began; spent < s.cfg.DrainWindow {
			due = int(float64(total) * float64(spent) / float64(s.cfg.DrainWindow))
		}
		for len(conns) > 0 && total-len(conns) < due {
			conns[0].leave()
			conns = conns[1:]
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for s.hub.count.Load() > 0 {
		for _, c := range s.hub.all() { // who came while draining began
			c.leave()
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := s.reports.flushReceipts(ctx); err != nil {
		return err
	}
	return s.reports.flushGone(ctx)
}

// leave closes the connection for a restart, once its sends are answered.
func (c *conn) leave() {
	if c.leaving.Swap(true) {
		return
	}
	if c.idle() {
		c.closeWith(wire.CloseRestart, nil)
		return
	}
	c.s.wg.Go(func() {
		deadline := time.Now().Add(drainAnswer)
		for !c.idle() && time.Now().Before(deadline) && !c.closed() {
			time.Sleep(drainTick)
		}
		c.closeWith(wire.CloseRestart, nil)
	})
}
