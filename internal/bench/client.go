package bench

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"im-services/internal/bench/crowd"
	"im-services/internal/bench/lean"
)

// client is one user on one connection.
type client struct {
	run      *run
	index    int // where it connects first: that gateway
	user     crowd.User
	platform string

	mu    sync.Mutex // guards conn, and the flows' fields that say so
	conn  *lean.Conn
	flows []*flow // by slot; fixed once the run has begun

	// Reader goroutine only, others once it has ended:
	tracks map[*flow]*track
	orders map[int64]*order
	pong   chan time.Time
	frames int64
}

// party is a user as receivers know him.
type party struct{ flows [maxSlot + 1]*flow }

// dialTimeout bounds one attempt to connect.
const dialTimeout = 10 * time.Second

// connect makes the connection, once.
func (c *client) connect(ctx context.Context, gateway string) error {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := lean.Dial(ctx, gateway, c.user.Token, c.platform)
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.conn = conn
	c.mu.Unlock()
	return nil
}

// read reads until the run ends, connecting again when the connection is lost.
func (c *client) read() {
	for attempt := 0; ; {
		c.mu.Lock()
		conn := c.conn
		c.mu.Unlock()
		if conn != nil {
			attempt = 0
			c.readConn(conn)
			_ = conn.Close()
			c.mu.Lock()
			c.conn = nil
			c.mu.Unlock()
			if !c.run.closing.Load() {
				c.run.faults.disconnects.Add(1)
			}
		}
		if c.run.closing.Load() || c.run.ctx.Err() != nil {
			return
		}
		attempt++
		if attempt > 1 || conn == nil {
			pause := min(25*time.Millisecond<<min(attempt, 6), time.Second)
			pause = pause/2 + rand.N(pause) //nolint:gosec // jitter
			select {
			case <-time.After(pause):
			case <-c.run.ctx.Done():
				return
			}
		}
		c.index++
		if c.connect(c.run.ctx, c.run.target.gateway(c.index)) == nil {
			c.resume()
		}
	}
}

// resume goes on after a reconnection: what has no answer is sent again.
func (c *client) resume() {
	for _, o := range c.orders {
		o.pushed = 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range c.flows {
		f.resendLocked()
		for ; f.owed > 0 && f.sendLocked(-1); f.owed-- { //nolint:revive // each owed send is one
		}
	}
}

func (c *client) readConn(conn *lean.Conn) {
	var f lean.Frame
	for {
		p, err := conn.Next()
		if err != nil {
			var closed *lean.CloseError
			if errors.As(err, &closed) && !c.run.closing.Load() {
				c.run.reason(closed.Error())
			}
			return
		}
		c.frames++
		if !lean.Parse(p, &f) {
			c.run.faults.altered.Add(1)
			continue
		}
		c.handle(&f)
	}
}

func (c *client) handle(f *lean.Frame) {
	switch f.Code {
	case lean.CodeChat:
		c.received(f)
	case lean.CodeAck:
		c.acked(f)
	case lean.CodeHeartbeat:
		select {
		case c.pong <- time.Now():
		default:
		}
	case lean.CodeError, lean.CodeNotAllowed:
		c.refused(f)
	}
}

// order returns what is known of a conversation.
func (c *client) order(conversation int64) *order {
	o := c.orders[conversation]
	if o == nil {
		o = &order{}
		c.orders[conversation] = o
	}
	return o
}

// received takes a chat frame.
func (c *client) received(f *lean.Frame) {
	r := c.run
	stamp, slot, n := splitKey(f.ClientMsgID)
	p := r.parties[f.From]
	var fl *flow
	if stamp == r.stamp && p != nil {
		fl = p.flows[slot]
	}
	if fl == nil {
		// A notice, or what an earlier run left. It has a seq like any other.
		if o := c.orders[f.Conversation]; o != nil && f.Seq > o.high && o.count > 0 {
			o.seen(f.Seq)
			o.pushed = max(o.pushed, f.Seq)
		}
		return
	}
	if !bodyHasKey(f.Text, f.ClientMsgID) || len(f.Text) != len(fl.body) {
		r.faults.altered.Add(1)
	}
	tr := c.tracks[fl]
	if tr == nil {
		tr = &track{}
		c.tracks[fl] = tr
	}
	seq := int32(f.Seq) //nolint:gosec // conversations are short
	if f.Seq == 0 {
		seq = seqUnknown
	}
	how := tr.arrive(n, seq)
	inOrder := true
	if f.Seq != 0 {
		o := c.order(f.Conversation)
		inOrder = f.Seq > o.pushed
		o.pushed = max(o.pushed, f.Seq)
		if how != arrivedAgain {
			// A sender that gets his own message in a group counted it at the ack,
			// or will not count it there.
			o.seen(f.Seq)
		}
	}
	switch {
	case how == arrivedAgain && inOrder && f.Seq != 0:
		r.faults.redelivered.Add(1)
		return
	case how == arrivedAgain:
		r.faults.repeated.Add(1)
		return
	case !inOrder, f.Seq == 0 && how == arrivedLate:
		// With seqs, those decide: a message sent again may rightly come after a
		// later one. Whether its sender's order was kept, sessionOrder tells.
		r.faults.reordered.Add(1)
	}
	e := fl.at(n)
	r.phase.Load().delivered.Add(1)
	r.deliveredTotal.Add(1)
	due := time.Duration(e.sentAt.Load())
	if w := r.windowOf(due); w != nil {
		w.deliver.Record(r.now() - due)
	}
	if fl.untilDelivered {
		fl.complete(e)
	}
}

// acked takes the answer to one of its own messages.
func (c *client) acked(f *lean.Frame) {
	r := c.run
	stamp, slot, n := splitKey(f.ClientMsgID)
	if stamp != r.stamp || slot >= len(c.flows) {
		return
	}
	fl := c.flows[slot]
	e := fl.at(n)
	seq := int32(f.Seq) //nolint:gosec // conversations are short
	if f.Seq == 0 {
		seq = seqUnknown
	}
	if !e.seq.CompareAndSwap(seqNone, seq) {
		switch had := e.seq.Load(); {
		case had == seqRefused:
			// Stored after all. If it was sent once, one of the answers is wrong.
			e.seq.Store(seq)
			if !e.resent.Load() {
				r.faults.contradicted.Add(1)
			}
		case had != seq:
			r.faults.disagree.Add(1)
		}
		return // the answer to a repetition
	}
	if f.Seq != 0 && fl.kind == kindPrivate {
		// In a group it comes back as a push and is counted there.
		c.order(f.Conversation).seen(f.Seq)
	}
	r.phase.Load().acked.Add(1)
	due := time.Duration(e.sentAt.Load())
	if w := r.windowOf(due); w != nil {
		w.ack.Record(r.now() - due)
	}
	fl.complete(e)
}

// refusalPause is how long a closed loop waits after a refusal that names no time.
const refusalPause = 50 * time.Millisecond

// refused takes an error frame.
func (c *client) refused(f *lean.Frame) {
	r := c.run
	reason := string(f.Reason)
	if reason == "" {
		reason = string(f.Text)
	}
	stamp, slot, n := splitKey(f.ClientMsgID)
	if stamp != r.stamp || slot >= len(c.flows) {
		r.reason("other frame: " + reason)
		return
	}
	fl := c.flows[slot]
	if !fl.at(n).seq.CompareAndSwap(seqNone, seqRefused) {
		return
	}
	r.reason(reason)
	r.phase.Load().refused.Add(1)
	if fl.window > 0 {
		time.AfterFunc(max(refusalPause, time.Duration(f.RetryAfter)*time.Second), fl.again)
	}
}
