package gateway

import (
	"context"
	"time"

	"im-services/internal/wire"
)

// heartbeat pings every connection once per PingInterval and drops those that
// were not heard of for PongTimeout after. It goes round the hub's shards, so
// that pings are spread and an idle connection needs no timer.
func (s *Server) heartbeat(ctx context.Context) {
	p := pulse{step: s.cfg.PingInterval / hubShards, start: s.now()}
	t := time.NewTicker(p.step)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
		s.beat(&p, s.now())
	}
}

// pulse is how far the heartbeat has got. It goes by the clock, not by its
// ticks: a process that gets little time loses ticks, and must not ping less
// often for it.
type pulse struct {
	step, start    time.Duration
	pinged, judged int // how many shards, counted on and on
}

// beat does what is due.
func (s *Server) beat(p *pulse, now time.Duration) {
	for p.judged < p.pinged && now-s.hub.shards[p.judged%hubShards].pinged >= s.cfg.PongTimeout {
		s.judge(p.judged%hubShards, now)
		p.judged++
	}
	due := int((now - p.start) / p.step)
	p.pinged = max(p.pinged, due-hubShards) // more than a round is not made up for
	for ; p.pinged < due; p.pinged++ {
		s.ping(p.pinged%hubShards, now)
	}
	p.judged = max(p.judged, p.pinged-hubShards)
}

func (s *Server) ping(shard int, now time.Duration) {
	s.hub.shards[shard].pinged = now
	s.hub.ofShard(shard, func(c *conn) {
		if now >= c.who.expires {
			c.closeWith(wire.CloseReplaced, nil)
			return
		}
		_ = c.send(pingFrame(0))
	})
}

// judge drops the connections of a shard that said nothing since its last ping.
func (s *Server) judge(shard int, now time.Duration) {
	pinged := s.hub.shards[shard].pinged
	// Asleep ourselves, we did not hear: give them another round.
	if now-pinged > s.cfg.PongTimeout+s.cfg.StallThreshold {
		return
	}
	s.hub.ofShard(shard, func(c *conn) {
		if time.Duration(c.heard.Load()) < pinged {
			s.m.deaf.Inc()
			c.vanished.Store(true)
			c.kill()
		}
	})
}
