package gateway

import (
	"context"
	"errors"
	"io"
	"time"

	logicv1 "im-services/api/proto/logic/v1"
	pushv1 "im-services/api/proto/push/v1"
	"im-services/internal/failpoint"
	"im-services/internal/im"
	"im-services/internal/seeded"
	"im-services/internal/wire"
)

const (
	// syncIdle ends a backlog stream that brings nothing for so long while the
	// client could take more.
	syncIdle = 5 * time.Second
	// syncFirst is how long the first answer may take before another replica is
	// asked: it needs no more than a look into Redis. It doubles each time.
	syncFirst    = 1500 * time.Millisecond
	syncRetryMin = 200 * time.Millisecond
	syncRetryMax = 2 * time.Second
)

// syncLocked begins to read from the store what the connection misses. Pushes
// held until now are dropped: what was pushed is stored, so the sync brings it.
func (c *conn) syncLocked(cause string) {
	if c.stopped {
		return
	}
	c.phase = phaseSyncing
	c.dropHeldLocked()
	c.ahead, c.again = nil, false
	if c.stopSync != nil { // one is running: let it go round once more
		c.again = true
		return
	}
	c.s.m.syncs.WithLabelValues(cause).Inc()
	ctx, cancel := context.WithCancel(c.s.ctx)
	c.stopSync = cancel
	register := cause == "connect"
	c.s.wg.Go(func() { c.sync(ctx, register) })
}

// sync reads the backlog, again and again until it worked, and goes live. With
// register the connection becomes known to logic first.
func (c *conn) sync(ctx context.Context, register bool) {
	pause, patience := syncRetryMin, syncFirst
	for {
		err := c.s.limitSyncs(ctx, func() error { return c.backlog(ctx, &register, patience) })
		if err == nil {
			if c.live() {
				return
			}
			continue
		}
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, errTurnOver) {
			continue
		}
		c.s.m.syncErrors.Inc()
		if im.ReasonOf(err) == "connection_displaced" {
			// Another counts as newer. If it is, nobody reads this; if a clock says so
			// wrongly, the client that comes again is let in.
			c.closeWith(wire.CloseTryLater, nil)
			return
		}
		switch im.KindOf(err) {
		case im.KindForbidden, im.KindUnauthorized, im.KindInvalid:
			c.s.log.Info("logic refuses a connection", "reason", im.ReasonOf(err))
			c.closeWith(wire.ClosePolicy, nil)
			return
		}
		// Logic is away. The socket stays: what it misses is read once logic is back.
		select {
		case <-time.After(jitter(pause)):
		case <-ctx.Done():
			return
		}
		pause, patience = min(2*pause, syncRetryMax), min(2*patience, syncIdle)
	}
}

// live ends a sync: what was pushed meanwhile is applied. It reports false if
// another round is needed first.
func (c *conn) live() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		return true
	}
	if c.again {
		c.again = false
		c.dropHeldLocked()
		c.ahead = nil
		return false
	}
	c.stopSync()
	c.stopSync = nil
	c.phase = phaseLive
	c.wantPV = 0
	c.retryLocked()
	c.watchLocked()
	return true
}

// backlog reads once what the connection misses and writes it. It waits for the
// first answer as long as patience says.
func (c *conn) backlog(ctx context.Context, register *bool, patience time.Duration) error {
	began := time.Now()
	if err := c.waitForRoom(ctx, 0, began); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	idle := time.AfterFunc(patience, cancel)
	defer idle.Stop()

	req := &logicv1.BacklogRequest{GatewayId: string(c.s.id), Conn: c.pb(), Register: *register, PeerIp: c.ip}
	first := *register
	c.mu.Lock()
	if *register {
		c.registrations = min(c.registrations+1, 2)
	}
	for conv, seq := range c.positions {
		req.Positions = append(req.Positions, &logicv1.Cursor{ConversationId: int64(conv), Seq: int64(seq)})
	}
	c.mu.Unlock()
	stream, err := c.s.deps.Connections.Backlog(ctx, req)
	if err != nil {
		return err
	}
	var done bool
	for answered := false; ; answered = true {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) && done {
			return nil
		}
		if err != nil {
			return err
		}
		idle.Stop()
		if err := failpoint.Hit("gateway.sync_received"); err != nil {
			return err
		}
		if !answered {
			if since := resp.GetSinceMs(); since != 0 {
				c.sinceMS.Store(since)
			}
			c.registered(im.PV(resp.GetPv()), resp.GetEpoch())
			if *register {
				*register = false
				c.s.displaceOlder(c)
			}
		}
		for _, run := range resp.GetConversations() {
			if err := c.writeRun(ctx, run, first, began); err != nil {
				return err
			}
			if err := failpoint.Hit("gateway.sync_written"); err != nil {
				return err
			}
		}
		if resp.GetDone() {
			done = true
		}
		idle.Reset(syncIdle)
	}
}

// registered takes the counter that the backlog was read after.
func (c *conn) registered(pv im.PV, epoch string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if epoch == c.epoch || seeded.On(seeded.EpochIgnored) {
		pv = max(pv, c.pv)
	}
	c.pv, c.epoch, c.joined = pv, epoch, true
}

// registeredOnce reports whether logic was asked for a route once, and has said that
// there is one: it names the counter's life then, and only then.
func (c *conn) registeredOnce() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.epoch != "" && c.registrations == 1
}

// writeRun writes a run of one conversation, waiting for room in the outbox, of a backlog
// that began then. In a connection's first sync the client knows itself what it has sent
// before.
func (c *conn) writeRun(ctx context.Context, run *logicv1.BacklogConversation, first bool, began time.Time) error {
	conv := im.ConversationID(run.GetConversationId())
	for _, pb := range run.GetMessages() {
		m := c.s.newMessage(pb)
		if err := c.waitForRoom(ctx, len(m.frame), began); err != nil {
			return err
		}
		c.mu.Lock()
		if c.stopped {
			c.mu.Unlock()
			return errClosing
		}
		at, known := c.positions[conv]
		switch {
		case known && m.seq <= at:
		case known && m.seq > at+1:
			// Passed over: too many, or not for this connection. The client must
			// read the history to be sure.
			_ = c.send(seal(wire.AppendSyncNeeded(newFrame(64), conv, at), opText))
			fallthrough
		default:
			c.writeLocked(m)
		}
		c.mu.Unlock()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		return errClosing
	}
	if seq, at := im.Seq(run.GetPosition()), c.positions[conv]; seq > at {
		if at > 0 && !first && c.platform == im.PlatformWeb { // what he sent from elsewhere, see writeLocked
			_ = c.send(seal(wire.AppendSyncNeeded(newFrame(64), conv, at), opText))
		}
		c.setPositionLocked(conv, seq)
	}
	return nil
}

// errTurnOver ends a backlog that goes on, from where it is, when others have had a turn.
var errTurnOver = errors.New("gateway: others wait to be read a backlog")

// waitForRoom waits until the client has read enough for size bytes more. Its turn goes to others
// meanwhile, and its stream too if they need it and it is as old as one write may be; a
// client that takes too long is too slow.
func (c *conn) waitForRoom(ctx context.Context, size int, began time.Time) error {
	for {
		room := c.roomFor(size)
		if room == nil {
			return nil
		}
		if len(c.s.streams) == cap(c.s.streams) && time.Since(began) > c.s.cfg.WriteTimeout {
			return errTurnOver
		}
		<-c.s.syncs
		late := time.NewTimer(c.s.cfg.WriteTimeout)
		var err error
		select {
		case <-room:
		case <-late.C:
			c.closeWith(wire.CloseTooSlow, nil)
			err = errClosing
		case <-ctx.Done():
			err = ctx.Err()
		}
		late.Stop()
		if err != nil {
			c.s.syncs <- struct{}{} // limitSyncs takes it back
			return err
		}
		select {
		case c.s.syncs <- struct{}{}:
		case <-ctx.Done():
			c.s.syncs <- struct{}{}
			return ctx.Err()
		}
	}
}

// newMessage builds a message and its frame.
func (s *Server) newMessage(pb *pushv1.Message) *message {
	m := &message{
		conv:           im.ConversationID(pb.GetConversationId()),
		seq:            im.Seq(pb.GetSeq()),
		id:             im.MessageID(pb.GetId()),
		clientID:       im.ClientMsgID(pb.GetClientMsgId()),
		sender:         im.UserID(pb.GetSenderId()),
		to:             pb.GetToId(),
		kind:           im.ChannelKind(pb.GetKind()),
		senderPlatform: im.Platform(pb.GetSenderPlatform()),
		contiguous:     pb.GetContiguous(),
	}
	if pb.GetStatus() == statusRecalled {
		m.frame = m.placeFrame()
		return m
	}
	m.frame = seal(wire.AppendChat(newFrame(chatFrameSize+len(pb.GetText())+len(pb.GetDataJson())), &wire.Chat{
		ID: m.id, ClientMsgID: m.clientID,
		ConversationID: m.conv, Seq: m.seq, Kind: m.kind, From: m.sender, To: m.to,
		Type: pb.GetType(), Text: pb.GetText(), Data: pb.GetDataJson(), SentAtMS: pb.GetSentAtMs(),
	}, s.zone), opText)
	return m
}

// placeFrame is what a recalled message is written as: there is nothing to show,
// but its place must be taken.
func (m *message) placeFrame() []byte {
	return seal(wire.AppendRecall(newFrame(192), &wire.Recall{
		ID: m.id, ClientMsgID: m.clientID, From: m.sender, To: m.to, Kind: m.kind, Seq: m.seq, ConversationID: m.conv,
	}), opText)
}

const (
	statusRecalled = 2
	// chatFrameSize is about what a chat frame takes besides text and data.
	chatFrameSize = 448
)

// limitSyncs runs f when its turn comes. A slow client gives its turn to others,
// see waitForRoom, but what is read for it stays in memory: so the streams are
// counted besides.
func (s *Server) limitSyncs(ctx context.Context, f func() error) error {
	for _, slots := range []chan struct{}{s.streams, s.syncs} {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		defer func() { <-slots }()
	}
	start := time.Now()
	err := f()
	s.m.syncSeconds.Observe(time.Since(start).Seconds())
	return err
}

// displaceOlder closes the user's older connections of the same platform on
// this gateway; logic sees to those on others.
func (s *Server) displaceOlder(c *conn) {
	if s.cfg.MultiDevice != multiDisplace {
		return
	}
	var older []*conn
	s.hub.each(c.user, func(o *conn) {
		if o != c && o.platform == c.platform &&
			(o.sinceMS.Load() < c.sinceMS.Load() || o.sinceMS.Load() == c.sinceMS.Load() && o.id < c.id) {
			older = append(older, o)
		}
	})
	for _, o := range older {
		o.displace(c.ip)
	}
}
