package gateway

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	logicv1 "im-services/api/proto/logic/v1"
	"im-services/internal/failpoint"
	"im-services/internal/im"
)

const (
	// maxReceipts bounds the receipts of everybody, ownReceipts those of one user's
	// platform: he may name what there is not, and others have theirs to report.
	maxReceipts   = 200_000
	ownReceipts   = maxPositions
	maxGone       = 100_000
	reportBatch   = 1_000
	reportTimeout = 2 * time.Second
	// receiptsFirst is how long the end of a connection waits for its receipts to be
	// told.
	receiptsFirst = 500 * time.Millisecond
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

// receiver is whose receipts are counted and told together.
type receiver struct {
	user     im.UserID
	platform im.Platform
}

// received is what a receipt is about, its seq aside.
type received struct {
	conv im.ConversationID
	msg  im.MessageID
}

// reports collects what logic should know but nobody waits for: receipts and
// closed connections. What cannot be told is kept, within bounds; a receipt
// lost means that messages come twice, a disconnect lost that presence errs
// until this gateway is gone.
type reports struct {
	s *Server

	mu       sync.Mutex
	receipts map[receiver]map[received]im.Seq
	count    int // of receipts
	gone     []*logicv1.Conn
	again    []goneConn // the earliest first
}

// goneConn is an end to be reported later.
type goneConn struct {
	conn *logicv1.Conn
	due  time.Duration // since Server.start
}

func (r *reports) ack(a receipt) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mergeLocked(a)
}

func (r *reports) mergeLocked(a receipt) {
	who, what := receiver{a.user, a.platform}, received{a.conv, a.msg}
	own := r.receipts[who]
	old, ok := own[what]
	if !ok && (len(own) >= ownReceipts || r.count >= maxReceipts) {
		r.s.m.dropped.Inc()
		return
	}
	if own == nil {
		if r.receipts == nil {
			r.receipts = map[receiver]map[received]im.Seq{}
		}
		own = map[received]im.Seq{}
		r.receipts[who] = own
	}
	if !ok {
		r.count++
	}
	own[what] = max(old, a.seq)
}

// take takes out the receipts of some, or with nil those of everybody.
func (r *reports) take(of []receiver) (out []receipt) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if of == nil {
		of = slices.Collect(maps.Keys(r.receipts))
	}
	for _, who := range of {
		for what, seq := range r.receipts[who] {
			out = append(out, receipt{who.user, who.platform, what.conv, seq, what.msg})
		}
		delete(r.receipts, who)
	}
	r.count -= len(out)
	return out
}

// disconnect reports the end of a connection; twice if a registration may still be
// on its way, which the first report may pass.
func (r *reports) disconnect(c *conn) {
	pb, settled := c.pb(), c.registeredOnce()
	pb.Vanished = c.vanished.Load()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.goneLocked(pb)
	if !settled && len(r.again) < maxGone {
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
func (r *reports) flushReceipts(ctx context.Context) error { return r.tell(ctx, r.take(nil)) }

// tell tells logic receipts, and keeps those that it did not hear.
func (r *reports) tell(ctx context.Context, todo []receipt) error {
	for len(todo) > 0 {
		n := min(len(todo), reportBatch)
		if err := r.tellSome(ctx, todo[:n]); err != nil {
			r.mu.Lock()
			for _, a := range todo {
				r.mergeLocked(a)
			}
			r.mu.Unlock()
			return err
		}
		todo = todo[n:]
	}
	return nil
}

func (r *reports) tellSome(ctx context.Context, some []receipt) error {
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	if err := failpoint.Hit("gateway.before_receipts"); err != nil {
		return err
	}
	req := &logicv1.AcknowledgeRequest{Acks: make([]*logicv1.Ack, len(some))}
	for i, a := range some {
		req.Acks[i] = &logicv1.Ack{
			UserId: int64(a.user), Platform: int32(a.platform), ConversationId: int64(a.conv),
			Seq: int64(a.seq), MessageId: int64(a.msg),
		}
	}
	if _, err := r.s.deps.Connections.Acknowledge(ctx, req); err != nil {
		return err
	}
	return failpoint.Hit("gateway.after_receipts")
}

// flushGone tells logic which connections are closed, after their receipts: who
// closed may be back elsewhere at once and should not get again what he proved to
// have. Nobody waits long for that, and for others' receipts not at all. It takes
// what it reports out of the queue first, so that two flushes at once never report
// the same, and puts it back if logic did not hear it.
func (r *reports) flushGone(ctx context.Context) error {
	r.mu.Lock()
	for now := r.s.now(); len(r.again) > 0 && r.again[0].due <= now; r.again = r.again[1:] {
		r.goneLocked(r.again[0].conn)
	}
	r.mu.Unlock()
	for {
		r.mu.Lock()
		n := min(len(r.gone), reportBatch)
		batch := r.gone[:n:n]
		r.gone = r.gone[n:]
		r.mu.Unlock()
		if n == 0 {
			return nil
		}
		if err := r.reportGone(ctx, batch); err != nil {
			r.mu.Lock()
			r.gone = append(batch, r.gone...)
			r.mu.Unlock()
			return err
		}
	}
}

func (r *reports) reportGone(ctx context.Context, batch []*logicv1.Conn) error {
	who := make([]receiver, len(batch))
	for i, c := range batch {
		who[i] = receiver{im.UserID(c.GetUserId()), im.Platform(c.GetPlatform())} //nolint:gosec // ours
	}
	first, cancel := context.WithTimeout(ctx, receiptsFirst)
	err := r.tell(first, r.take(who))
	cancel()
	if err != nil {
		r.s.m.reportErrors.Inc() // they are kept; the other news goes out all the same
	}
	ctx, cancel = context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	if _, err := r.s.deps.Connections.Disconnect(ctx, &logicv1.DisconnectRequest{GatewayId: string(r.s.id), Conns: batch}); err != nil {
		return err
	}
	return failpoint.Hit("gateway.after_gone")
}
