package logic

import (
	"context"
	"errors"
	"sync"
	"time"

	logicv1 "im-services/api/proto/logic/v1"
	"im-services/internal/failpoint"
	"im-services/internal/im"
)

func asError(err error) (*im.Error, bool) { return errors.AsType[*im.Error](err) }

// committer stores a batch and settles every request of it.
type committer interface {
	// commit stores the batch's messages, in order, and returns one outcome per
	// request. It respects ctx's deadline and reports KindUnknown for what may
	// or may not have been stored.
	commit(ctx context.Context, batch []*sendReq) (outcomes []outcome, done *committed)
}

// outcome of one send: a result or an error.
type outcome struct {
	result *logicv1.SendResult
	err    error
}

// lane commits the sends of its share of the conversations, one transaction
// after another, in the order in which they were submitted. While one
// transaction is in flight the next batch gathers: that is the group commit.
type lane struct {
	cfg     Config
	store   committer
	publish func(*committed)
	metrics *metrics
	queue   chan *sendReq
}

// batcher spreads conversations over lanes.
type batcher struct {
	lanes []*lane
	wg    sync.WaitGroup

	mu     sync.RWMutex // guards closed against submit
	closed bool
}

// newBatcher starts the lanes. publish is called in commit order per lane, after
// the batch's sends are settled; it must not block.
func newBatcher(cfg Config, store committer, m *metrics, publish func(lane int, c *committed)) *batcher {
	b := &batcher{}
	for i := range cfg.Lanes {
		l := &lane{
			cfg:     cfg,
			store:   store,
			metrics: m,
			publish: func(c *committed) { publish(i, c) },
			queue:   make(chan *sendReq, cfg.QueueMax),
		}
		b.lanes = append(b.lanes, l)
		b.wg.Go(l.run)
	}
	return b
}

// submit queues a send; its done is called exactly once. A full queue refuses
// at once: the sender may retry with the same key.
func (b *batcher) submit(r *sendReq) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if b.closed {
		r.done(refused(im.E(im.KindUnavailable, "shutting_down", nil)))
		return
	}
	l := b.lanes[r.key.hash()%uint64(len(b.lanes))]
	select {
	case l.queue <- r:
	default:
		l.metrics.refusedOverload.Inc()
		r.done(refused(&im.Error{Kind: im.KindExhausted, Reason: "overloaded", RetryAfter: time.Second}))
	}
}

// close refuses new sends, settles the queued ones and waits for them.
func (b *batcher) close() {
	b.mu.Lock()
	if !b.closed {
		b.closed = true
		for _, l := range b.lanes {
			close(l.queue)
		}
	}
	b.mu.Unlock()
	b.wg.Wait()
}

func (l *lane) run() {
	batch := make([]*sendReq, 0, l.cfg.BatchMax)
	for first := range l.queue {
		batch = l.gather(append(batch[:0], first))
		l.commit(batch)
		clear(batch)
	}
}

// batchBytes bounds the text of one transaction, well below what servers take
// in one packet.
const batchBytes = 1 << 20

// gather adds what is queued.
func (l *lane) gather(batch []*sendReq) []*sendReq {
	size := batch[0].size()
	for len(batch) < l.cfg.BatchMax && size < batchBytes {
		select {
		case r, ok := <-l.queue:
			if !ok {
				return batch
			}
			batch = append(batch, r)
			size += r.size()
		default:
			return batch
		}
	}
	return batch
}

// commit settles a whole batch: acks first, pushes after.
func (l *lane) commit(batch []*sendReq) {
	now := time.Now()
	live := batch[:0:len(batch)]
	for _, r := range batch {
		if now.After(r.deadline) { // waited too long: its sender was told to retry or gave up
			l.metrics.refusedOverload.Inc()
			r.done(refused(&im.Error{Kind: im.KindExhausted, Reason: "overloaded", RetryAfter: time.Second}))
			continue
		}
		live = append(live, r)
	}
	if len(live) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), l.cfg.SendTimeout)
	defer cancel()
	outcomes, done := l.store.commit(ctx, live)
	l.metrics.batchSize.Observe(float64(len(live)))
	l.metrics.commitSeconds.Observe(time.Since(now).Seconds())
	if err := failpoint.Hit("logic.before_ack"); err != nil {
		outcomes = failAll(live, true, im.E(im.KindUnavailable, "store_unavailable", err))
	}
	for i, r := range live {
		if outcomes[i].err != nil {
			r.done(refused(outcomes[i].err))
			continue
		}
		r.done(outcomes[i].result)
	}
	if err := failpoint.Hit("logic.after_ack"); err != nil {
		return // left to the outbox
	}
	if done != nil {
		l.publish(done)
	}
}
