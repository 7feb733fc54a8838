package gateway

import (
	"context"
	"slices"
	"time"

	"im-services/internal/im"
)

// watch breaks the stream when the replica says that it does not serve, or has
// gone silent with sends outstanding, and ends a lane that left when it is empty.
// Silence alone may be a slow store: only a replica that does not answer a probe
// is given up. One that is leaving settles what it has.
func (l *lanes) watch(ctx context.Context, n *lane, life int, cc ClientConn) {
	t := time.NewTicker(laneTick)
	defer t.Stop()
	next, knownSilent := l.s.now()+laneProbe, false
	for {
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
		if l.gone(n) {
			n.quit()
			return
		}
		silent := l.silent(n)
		if l.s.now() < next && (knownSilent || !silent) {
			continue
		}
		answers, serves := alive(ctx, cc)
		if ctx.Err() != nil {
			return
		}
		if answers && (serves || l.isLeaving(n)) || !answers && !l.silent(n) {
			next, knownSilent = l.s.now()+laneProbe, silent // ask again in a while
			continue
		}
		l.s.m.laneStalls.Inc()
		l.mu.Lock()
		l.breakLocked(n, life)
		l.mu.Unlock()
		return
	}
}

func (l *lanes) isLeaving(n *lane) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return n.leaving
}

// silent reports whether sends have been outstanding without any result for so
// long that, with the probe, the failover time is up.
func (l *lanes) silent(n *lane) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	limit := max(l.s.cfg.SendFailover-laneProbe, l.s.cfg.SendFailover/2)
	now := l.s.now()
	if now-n.heard < limit {
		return false
	}
	for _, p := range n.pending {
		if now-p.queued >= limit {
			return true
		}
	}
	return len(n.queue) > 0 && now-n.queue[0].queued >= limit
}

// expire gives up sends whose time is over: refused if they never left this
// process, else unknown.
func (l *lanes) expire(ctx context.Context) {
	t := time.NewTicker(laneTick)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			l.expireNow()
		case <-ctx.Done():
			return
		}
	}
}

// late reports whether the time of a send is over.
func (l *lanes) late(p *pendingSend, now time.Duration) bool {
	if p.sent {
		return now-p.at >= l.s.cfg.SendTimeout
	}
	return now-p.at >= l.s.cfg.SendFailover
}

// goneFor is how long a send may wait here after which it is not handed on unless its
// sender is still there: who is not may have been answered elsewhere by then.
const goneFor = laneTick

// stale reports whether a send must not be handed on any more.
func (l *lanes) stale(p *pendingSend, now time.Duration) bool {
	return l.late(p, now) || l.s.sleptAfter(p.at) || now-p.at >= goneFor && p.from.gone()
}

func (l *lanes) expireNow() {
	now := l.s.now()
	var over []*pendingSend
	l.mu.Lock()
	l.wait = slices.DeleteFunc(l.wait, func(p *pendingSend) bool {
		if !l.stale(p, now) {
			return false
		}
		over = append(over, p)
		return true
	})
	for _, n := range l.all {
		for ref, p := range n.pending {
			if l.late(p, now) {
				delete(n.pending, ref)
				l.leaveLocked(p)
				l.turn++
				over = append(over, p)
			}
		}
		n.queue = slices.DeleteFunc(n.queue, func(p *pendingSend) bool {
			if !l.stale(p, now) {
				return false
			}
			l.leaveLocked(p)
			over = append(over, p)
			return true
		})
	}
	for _, p := range over {
		l.doneLocked(p)
	}
	l.spread.adjust(now, l.count, len(l.all))
	l.mu.Unlock()
	if len(over) > 0 {
		l.s.checkStall(now) // who waited through a sleep is told to come back, and not nothing
	}
	for _, p := range over {
		if p.sent {
			l.settle(p, nil, im.E(im.KindUnknown, "outcome_unknown", nil))
			continue
		}
		e := im.E(im.KindUnavailable, "service_unavailable", nil)
		e.RetryAfter = time.Second
		l.settle(p, nil, e)
	}
}
