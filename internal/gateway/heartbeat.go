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
	step := s.cfg.PingInterval / hubShards
	// How many steps behind the ping the judgement follows.
	behind := int((s.cfg.PongTimeout + step - 1) / step)
	t := time.NewTicker(step)
	defer t.Stop()
	for i := 0; ; i++ {
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
		if i >= behind {
			s.judge((i - behind) % hubShards)
		}
		s.ping(i % hubShards)
	}
}

func (s *Server) ping(shard int) {
	now := s.now()
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
func (s *Server) judge(shard int) {
	now := s.now()
	pinged := s.hub.shards[shard].pinged
	// Asleep ourselves, we did not hear: give them another round.
	if now-pinged > s.cfg.PongTimeout+s.cfg.StallThreshold {
		return
	}
	s.hub.ofShard(shard, func(c *conn) {
		if time.Duration(c.heard.Load()) < pinged {
			s.m.deaf.Inc()
			c.kill()
		}
	})
}
