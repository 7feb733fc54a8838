package check

import (
	"context"
	"sync/atomic"
	"time"

	"im-services/internal/imclient"
	"im-services/internal/nsqchaos"
	"im-services/internal/tcpproxy"
)

// What is lost in a conversation that goes on is found by the next message: its
// seq does not follow. Only where nobody writes any more do the push counters,
// the watermark and the outbox have to find it. So now and then everybody falls
// silent while messages are being lost, for longer than these may take.

const (
	// hushLead is how long before the end of such a fault people fall silent:
	// their last messages are acknowledged in it, and lost with it.
	hushLead = 700 * time.Millisecond
	// hushLength is how long the silence lasts after the fault: longer than
	// Bounds.Late, so that who is told by the next message only is told too late.
	hushLength = 14 * time.Second
)

// hush is the silence of a run.
type hush struct{ until atomic.Int64 } // of imclient.Now

// begin makes everybody silent for d from now.
func (h *hush) begin(d time.Duration) { h.until.Store(int64(imclient.Now() + d)) }

// hushLook is how often people look whether they may talk: the end of a silence is
// not known when it begins.
const hushLook = 100 * time.Millisecond

// wait returns when people may talk.
func (h *hush) wait(ctx context.Context) {
	for ctx.Err() == nil {
		left := time.Duration(h.until.Load()) - imclient.Now()
		if left <= 0 {
			return
		}
		sleep(ctx, min(left, hushLook))
	}
}

// quieten injects f, with everybody silent from shortly before its end.
func (r *run) quieten(ctx context.Context, f *fault) error {
	t := time.AfterFunc(f.Length-hushLead, func() { r.hush.begin(hushLead + recovery) })
	defer t.Stop()
	select {
	case r.silence <- struct{}{}:
	default: // he is away
	}
	err := r.system.inject(r.ctx, f)
	r.hush.begin(hushLength)
	return err
}

// dropAll makes NSQ lose every message to the gateways: were it fewer, somebody
// would find a gap in another conversation, and the sync would bring all of them.
func (s *system) dropAll(ctx context.Context, f *fault) error {
	s.mu.Lock()
	buses := make([]*nsqchaos.Proxy, 0, len(s.buses))
	for _, p := range s.buses {
		buses = append(buses, p)
	}
	s.mu.Unlock()
	for _, p := range buses {
		p.Misbehave(nsqchaos.Chaos{Drop: 1})
	}
	sleep(ctx, f.Length)
	for _, p := range buses {
		p.Heal()
	}
	return nil
}

// strand takes Redis and nsqd away from logic, so that what it commits is neither
// counted nor published, and then kills it: only the outbox knows of that.
func (s *system) strand(ctx context.Context, f *fault) error {
	names := []string{f.Target + "-1", f.Target + "-2"}
	var cut []*tcpproxy.Proxy
	for _, name := range names {
		for _, server := range []string{"redis", "nsqd"} {
			if p := s.proxy(name + ">" + server); p != nil {
				p.Cut()
				cut = append(cut, p)
			}
		}
	}
	sleep(ctx, f.Length)
	for _, name := range names {
		s.cluster.Process(name).Kill()
	}
	for _, p := range cut {
		p.Heal()
	}
	for _, name := range names {
		if err := s.cluster.Process(name).WaitReady(ctx); err != nil {
			return err
		}
	}
	return nil
}
