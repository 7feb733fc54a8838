package gateway

import (
	"context"
	"sync"
	"time"

	logicv1 "im-services/api/proto/logic/v1"
	"im-services/internal/failpoint"
	"im-services/internal/im"
)

const (
	maxReceipts   = 200_000
	maxGone       = 100_000
	reportBatch   = 1_000
	reportTimeout = 2 * time.Second
	reportBackoff = time.Second
	goneInterval  = 50 * time.Millisecond
	// goneAgain is when an end is reported again that may have been too early:
	// later than any registration is still on its way.
	goneAgain = 5 * time.Second
)

// receipt says that a platform of a user has a conversation up to a place,
// named by seq or by message.
type receipt struct {
	user     im.UserID
	platform im.Platform
	conv     im.ConversationID
	seq      im.Seq
	msg      im.MessageID
}

// reports collects what logic should know but nobody waits for: receipts and
// closed connections. What cannot be told is kept, within bounds; a receipt
// lost means that messages come twice, a disconnect lost that presence errs
// until this gateway is gone.
type reports struct {
	s *Server

	mu       sync.Mutex
	receipts map[receipt]im.Seq // keyed without the seq
	gone     []*logicv1.Conn
	again    []goneConn // the earliest first
}

// goneConn is an end to be reported later.
type goneConn struct {
	conn *logicv1.Conn
	due  time.Duration // since Server.start
}

func (r *reports) ack(a receipt) {
	seq := a.seq
	a.seq = 0
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mergeLocked(a, seq)
}

func (r *reports) mergeLocked(key receipt, seq im.Seq) {
	old, ok := r.receipts[key]
	if !ok && len(r.receipts) >= maxReceipts {
		r.s.m.dropped.Inc()
		return
	}
	if r.receipts == nil {
		r.receipts = map[receipt]im.Seq{}
	}
	r.receipts[key] = max(old, seq)
}

// disconnect reports the end of a connection; if it was not known to have a
// route, twice: the first report may pass its registration on the way.
func (r *reports) disconnect(c *conn) {
	pb, routed := c.pb(), c.routed()
	pb.Vanished = c.vanished.Load()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.goneLocked(pb)
	if !routed && len(r.again) < maxGone {
		r.again = append(r.again, goneConn{pb, r.s.now() + goneAgain})
	}
}

func (r *reports) goneLocked(c *logicv1.Conn) {
	if len(r.gone) < maxGone {
		r.gone = append(r.gone, c)
	}
}

// loop calls flush every interval; after a failure it pauses longer.
func (r *reports) loop(ctx context.Context, interval time.Duration, flush func(context.Context) error) {
	for {
		select {
		case <-time.After(interval):
		case <-ctx.Done():
			return
		}
		if err := flush(ctx); err != nil {
			r.s.m.reportErrors.Inc()
			select {
			case <-time.After(jitter(reportBackoff)):
			case <-ctx.Done():
				return
			}
		}
	}
}

// flushReceipts tells logic all receipts collected so far.
func (r *reports) flushReceipts(ctx context.Context) error {
	r.mu.Lock()
	todo := r.receipts
	r.receipts = nil
	r.mu.Unlock()
	req := &logicv1.AcknowledgeRequest{}
	sent := make([]receipt, 0, min(len(todo), reportBatch))
	send := func() error {
		if len(req.Acks) == 0 {
			return nil
		}
		ctx, cancel := context.WithTimeout(ctx, reportTimeout)
		defer cancel()
		if err := failpoint.Hit("gateway.before_receipts"); err != nil {
			return err
		}
		if _, err := r.s.deps.Connections.Acknowledge(ctx, req); err != nil {
			return err
		}
		if err := failpoint.Hit("gateway.after_receipts"); err != nil {
			return err
		}
		for _, key := range sent {
			delete(todo, key)
		}
		req.Acks, sent = nil, sent[:0]
		return nil
	}
	var err error
	for key, seq := range todo {
		req.Acks = append(req.Acks, &logicv1.Ack{
			UserId: int64(key.user), Platform: int32(key.platform), ConversationId: int64(key.conv),
			Seq: int64(seq), MessageId: int64(key.msg),
		})
		if sent = append(sent, key); len(sent) == reportBatch {
			if err = send(); err != nil {
				break
			}
		}
	}
	if err == nil {
		err = send()
	}
	if err != nil {
		r.mu.Lock()
		for key, seq := range todo {
			r.mergeLocked(key, seq)
		}
		r.mu.Unlock()
	}
	return err
}

// flushGone tells logic which connections are closed, after the receipts: who
// closed may be back elsewhere at once and should not get again what he proved to
// have. It takes what it reports out of the queue first, so that two flushes at
// once never report the same, and puts it back if logic did not hear it.
func (r *reports) flushGone(ctx context.Context) error {
	r.mu.Lock()
	for now := r.s.now(); len(r.again) > 0 && r.again[0].due <= now; r.again = r.again[1:] {
		r.goneLocked(r.again[0].conn)
	}
	none := len(r.gone) == 0
	r.mu.Unlock()
	if none {
		return nil
	}
	if err := r.flushReceipts(ctx); err != nil {
		r.s.m.reportErrors.Inc() // they are kept; the other news goes out all the same
	}
	for {
		r.mu.Lock()
		n := min(len(r.gone), reportBatch)
		batch := r.gone[:n:n]
		r.gone = r.gone[n:]
		r.mu.Unlock()
		if n == 0 {
			return nil
		}
		ctx, cancel := context.WithTimeout(ctx, reportTimeout)
		_, err := r.s.deps.Connections.Disconnect(ctx, &logicv1.DisconnectRequest{GatewayId: string(r.s.id), Conns: batch})
		cancel()
		if err == nil {
			err = failpoint.Hit("gateway.after_gone")
		}
		if err != nil {
			r.mu.Lock()
			r.gone = append(batch, r.gone...)
			r.mu.Unlock()
			return err
		}
	}
}
