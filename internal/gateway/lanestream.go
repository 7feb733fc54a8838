package gateway

import (
	"context"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	logicv1 "im-services/api/proto/logic/v1"
	"im-services/internal/failpoint"
	"im-services/internal/im"
)

// run keeps a lane to one replica open until it is told to quit or the replica
// has left and nothing is outstanding.
func (l *lanes) run(ctx context.Context, n *lane) {
	var cc ClientConn
	defer func() {
		if cc != nil {
			_ = cc.Close()
		}
	}()
	pause := laneBackoffMin
	for {
		began := l.s.now()
		var err error
		if cc == nil {
			cc, err = l.s.deps.DialLogic(n.replica.Addr) // certificates may just be changing
		}
		if err == nil {
			err = l.stream(ctx, n, cc)
		}
		if ctx.Err() != nil || l.gone(n) {
			l.drop(n)
			return
		}
		l.s.log.Warn("stream to logic ended", "replica", n.replica.ID, "err", err)
		if l.s.now()-began > laneBackoffMax {
			pause = laneBackoffMin
		}
		select {
		case <-time.After(jitter(pause)):
		case <-ctx.Done():
		}
		pause = min(2*pause, laneBackoffMax)
	}
}

// gone reports whether a lane that left discovery has nothing left to do; then
// it never will again.
func (l *lanes) gone(n *lane) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !n.over && n.leaving && len(n.pending) == 0 && len(n.queue) == 0 {
		n.over, n.up = true, false
	}
	return n.over
}

func (l *lanes) drop(n *lane) {
	n.quit()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.breakLocked(n, n.life)
	if l.all[n.replica.ID] == n {
		delete(l.all, n.replica.ID)
		l.rankLocked()
	}
}

// alive asks a replica whether it answers at all, and whether it serves.
func alive(ctx context.Context, cc ClientConn) (answers, serves bool) {
	ctx, cancel := context.WithTimeout(ctx, laneProbe)
	defer cancel()
	r, err := grpc_health_v1.NewHealthClient(cc).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	switch status.Code(err) {
	case codes.OK:
		return true, r.GetStatus() != grpc_health_v1.HealthCheckResponse_NOT_SERVING
	case codes.Unimplemented, codes.NotFound:
		return true, true
	}
	return false, false
}

// stream opens one stream and runs it until it breaks.
func (l *lanes) stream(ctx context.Context, n *lane, cc ClientConn) error {
	if _, serves := alive(ctx, cc); !serves {
		return errNotServing
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	st, err := logicv1.NewMessageServiceClient(cc).SendStream(ctx)
	if err != nil {
		return err
	}
	late := time.AfterFunc(laneProbe, cancel)
	hello, err := st.Recv()
	late.Stop()
	if err != nil {
		return err
	}
	l.mu.Lock()
	life := n.life
	n.up, n.breakUp, n.heard = true, cancel, l.s.now()
	n.aheadAt = n.heard
	n.ahead = clockOf(hello) - n.heard
	waiting := l.wait
	l.wait = nil
	for _, p := range waiting {
		l.routeLocked(p)
	}
	l.mu.Unlock()
	l.s.m.lanesUp.Inc()
	defer l.s.m.lanesUp.Dec()

	var wg sync.WaitGroup
	wg.Go(func() {
		defer cancel()
		l.write(ctx, n, life, st)
	})
	wg.Go(func() { l.watch(ctx, n, life, cc) })
	err = l.read(n, life, st)
	cancel()
	l.mu.Lock()
	l.breakLocked(n, life)
	l.mu.Unlock()
	wg.Wait()
	return err
}

// clockOf is the replica's clock when it answered.
func clockOf(r *logicv1.SendStreamResponse) time.Duration {
	return time.Duration(r.GetClockUs()) * time.Microsecond
}

// clockDrift is how fast two clocks may drift apart: a hundredth, many times what
// quartzes do and what clocks are usually slewed by.
const clockDrift = 100

// aheadLocked is how far the replica's clock is ahead, at least. What is known of it
// fades as the clocks drift; replicas tell theirs now and then.
func (n *lane) aheadLocked(now time.Duration) time.Duration {
	return n.ahead - (now-n.aheadAt)/clockDrift
}

// tuneLocked takes in that the replica's clock had come to clock before now.
func (n *lane) tuneLocked(clock, now time.Duration) {
	if ahead := clock - now; ahead >= n.aheadLocked(now) {
		n.ahead, n.aheadAt = ahead, now
	}
}

var errNotServing = im.E(im.KindUnavailable, "service_unavailable", nil)

// write sends what is queued, everything that came meanwhile in one message. What it
// hands to gRPC may lie there while this process sleeps, or in a network that is
// cut, while its client is answered elsewhere; so it says until when, by the replica's
// own clock, it may be taken. By then silence would have moved it to another replica.
func (l *lanes) write(ctx context.Context, n *lane, life int, st logicv1.MessageService_SendStreamClient) {
	var batch []*logicv1.StreamSend
	for {
		select {
		case <-n.wake:
		case <-ctx.Done():
			return
		}
		for {
			now := l.s.now()
			l.s.checkStall(now)
			l.mu.Lock()
			if n.life != life {
				l.mu.Unlock()
				return
			}
			if slices.ContainsFunc(n.queue[:min(len(n.queue), laneBatch)], func(p *pendingSend) bool { return l.stale(p, now) }) {
				l.mu.Unlock()
				l.expireNow()
				continue
			}
			notAfter := n.aheadLocked(now) + now + l.s.cfg.SendFailover
			batch = batch[:0]
			size := 0
			// What another lane has left, all at once, does not go beyond what a replica takes
			// either: it would refuse it, and of what has been elsewhere nobody may be told so.
			for len(batch) < len(n.queue) && len(batch) < laneBatch && size < laneBatchBytes && len(n.pending) < laneMost {
				p := n.queue[len(batch)]
				n.ref++
				p.ref, p.sent = n.ref, true
				n.pending[p.ref] = p
				size += p.size
				batch = append(batch, &logicv1.StreamSend{Ref: p.ref, Send: p.send, Later: p.later})
			}
			if len(batch) == len(n.queue) {
				clear(n.queue)
				n.queue = n.queue[:0]
			} else {
				n.queue = n.queue[len(batch):]
			}
			l.mu.Unlock()
			if len(batch) == 0 {
				break
			}
			if err := failpoint.Hit("gateway.before_forward"); err != nil {
				return
			}
			if err := st.Send(&logicv1.SendStreamRequest{Sends: batch, NotAfterUs: notAfter.Microseconds()}); err != nil {
				return // read has the reason
			}
			if err := failpoint.Hit("gateway.after_forward"); err != nil {
				return
			}
		}
	}
}

// read takes results until the stream ends.
func (l *lanes) read(n *lane, life int, st logicv1.MessageService_SendStreamClient) error {
	type settled struct {
		p *pendingSend
		r *logicv1.SendResult
	}
	var done []settled
	for {
		resp, err := st.Recv()
		if err != nil {
			return err
		}
		if err := failpoint.Hit("gateway.on_result"); err != nil {
			return err
		}
		done = done[:0]
		l.mu.Lock()
		if n.life == life {
			n.tuneLocked(clockOf(resp), l.s.now())
			if len(resp.GetResults()) > 0 {
				n.heard = l.s.now()
			}
			for _, r := range resp.GetResults() {
				p := n.pending[r.GetRef()]
				if p == nil {
					continue
				}
				delete(n.pending, r.GetRef())
				l.leaveLocked(p)
				l.doneLocked(p)
				res := r.GetResult()
				if res == nil {
					res = new(logicv1.SendResult)
					res.Error = &logicv1.SendError{Kind: int32(im.KindUnknown)}
				}
				done = append(done, settled{p, p.final(res)})
			}
			if len(n.queue) > 0 && len(done) > 0 { // it may have waited for these
				n.nudge()
			}
		}
		l.mu.Unlock()
		for _, d := range done {
			l.settle(d.p, d.r, nil)
		}
		clear(done)
	}
}
