package gateway

import (
	"context"
	"time"

	authv1 "im-services/api/proto/auth/v1"
	friendv1 "im-services/api/proto/friend/v1"
	logicv1 "im-services/api/proto/logic/v1"
	pushv1 "im-services/api/proto/push/v1"
	"im-services/internal/failpoint"
	"im-services/internal/im"
	"im-services/internal/seeded"
	"im-services/internal/wire"
)

// asksPerConn is how many of its questions a connection may have open at once:
// all connections share maxAsks.
const asksPerConn = 8

// callTimeout bounds a call to a service on behalf of one frame.
const callTimeout = 2 * time.Second

var pongFrame = seal(wire.AppendPong(newFrame(40)), opText)

// handle takes one text frame. A bad frame is answered; an error ends the
// connection.
func (c *conn) handle(b []byte) error {
	in, err := wire.Decode(b)
	if c.refused > 0 {
		e := im.E(im.KindExhausted, "rate_limited", nil)
		e.RetryAfter = time.Second
		c.refuse(&in, e)
		return nil
	}
	if err == nil && !seeded.On(seeded.SenderFromFrame) {
		err = in.CheckSender(c.user)
	}
	if err != nil {
		c.s.m.badFrames.Inc()
		c.refuse(&in, err)
		return nil
	}
	switch in.Code {
	case wire.CodeHeartbeat:
		_ = c.send(pongFrame)
	case wire.CodeAck:
		c.receipt(&in)
	case wire.CodeChat:
		c.chat(&in)
	default:
		c.ask(in)
	}
	return nil
}

// receipt takes the client's word for what it received. Pongs go on proving: a client
// may give its word for some conversations only.
func (c *conn) receipt(in *wire.Inbound) {
	c.s.reports.ack(receipt{
		user: c.user, platform: c.platform, conv: in.ConversationID, seq: in.Seq, msg: in.MsgID,
	})
}

// chat hands a message to logic. The answer comes in settle.
func (c *conn) chat(in *wire.Inbound) {
	// Who does not read his answers is not read either.
	for room := c.roomFor(0); room != nil; room = c.roomFor(0) {
		<-room
	}
	size := len(in.Text) + len(in.Data)
	at, ok := c.take(size)
	if !ok {
		return
	}
	send := &logicv1.Send{
		SenderId: int64(c.user), ClientMsgId: int64(in.ClientMsgID), Kind: int32(in.Kind), ToId: in.To,
		Type: in.Type, Text: in.Text, DataJson: in.Data, Platform: int32(c.platform), Origin: c.s.origin(c.id),
	}
	if seeded.On(seeded.SenderFromFrame) && in.From != 0 {
		send.SenderId = int64(in.From)
	}
	if in.Kind == im.Group {
		send.Sender = c.profile()
	}
	err := failpoint.Hit("gateway.before_submit")
	if err == nil {
		err = c.s.lanes.submit(&pendingSend{send: send, size: size, from: c, at: at})
	}
	if err != nil {
		c.overloaded = im.KindOf(err) == im.KindExhausted
		c.refuse(in, err)
		c.answered(size)
		return
	}
	c.pauses = 0
}

// take waits for room in the window and reports whether the frame may be taken, and
// when that was; then answered must follow. Only once there is room it is asked
// whether: this process may have slept meanwhile.
func (c *conn) take(size int) (at time.Duration, ok bool) {
	if !c.acquire(size) {
		return 0, false
	}
	at = c.s.now()
	if !c.mayTake() {
		c.answered(size)
		return 0, false
	}
	return at, true
}

// mayTake reports whether a send of this connection may be taken. What lay in the
// socket while the process was asleep may have been sent again elsewhere, answered
// there, and forgotten; or its client goes elsewhere before it has made its way. So
// it is not taken, and who is still there is told to come back.
func (c *conn) mayTake() bool {
	c.s.checkStall(c.s.now())
	c.mu.Lock()
	over, asleep := c.stopped, c.asleep != 0
	c.mu.Unlock()
	if over || c.closed() {
		return false
	}
	if asleep {
		c.closeWith(wire.CloseTryLater, nil)
	}
	return !asleep
}

// settle tells the client the outcome of a send. If it is unknown, he gets no answer
// and will try again; at once, if he is still there after a sleep of this process.
func (c *conn) settle(p *pendingSend, r *logicv1.SendResult, err error) {
	defer c.answered(p.size) // not before the answer is queued: a drain closes who has none to come
	in := wire.Inbound{
		Code: wire.CodeChat, ClientMsgID: im.ClientMsgID(p.send.GetClientMsgId()), From: c.user,
		To: p.send.GetToId(), Kind: im.ChannelKind(p.send.GetKind()),
	}
	if im.KindOf(err) == im.KindUnknown {
		if c.s.sleptAfter(p.at) {
			c.closeWith(wire.CloseTryLater, nil)
		}
		return
	}
	if err != nil {
		c.refuse(&in, err)
		return
	}
	if err := failpoint.Hit("gateway.before_ack"); err != nil {
		return // as if it were lost: the client asks again
	}
	conv, seq := im.ConversationID(r.GetConversationId()), im.Seq(r.GetSeq())
	_ = c.send(seal(wire.AppendAck(newFrame(128), wire.Ack{
		ID: r.GetMessageId(), ClientMsgID: in.ClientMsgID, Seq: seq, ConversationID: conv,
	}), opText))
	if in.Kind == im.Private {
		c.mu.Lock()
		c.sentLocked(conv, seq)
		c.mu.Unlock()
	}
}

// gone implements sender.
func (c *conn) gone() bool { return c.closed() }

// refuse tells the client why its frame had no effect.
func (c *conn) refuse(in *wire.Inbound, err error) {
	reason := im.ReasonOf(err)
	if reason == "internal" {
		c.s.log.Error("a frame failed", "err", err)
	}
	d := c.s.describe(reason)
	r := wire.Refusal{Code: d.Code, Text: d.Text, Reason: reason, ClientMsgID: in.ClientMsgID}
	if e, ok := asError(err); ok {
		r.RetryAfter = e.RetryAfter
	}
	if r.Code == wire.CodeNotAllowed {
		r.From, r.To, r.Kind = c.user, in.To, in.Kind
	}
	c.s.m.refusals.WithLabelValues(reason).Inc()
	_ = c.send(seal(wire.AppendRefusal(newFrame(192), &r), opText))
}

// ask does what needs a call to a service, beside the reader.
func (c *conn) ask(in wire.Inbound) {
	size := c.s.cfg.WindowBytes / asksPerConn
	if _, ok := c.take(size); !ok {
		return
	}
	select {
	case c.s.asks <- struct{}{}:
	default:
		e := im.E(im.KindExhausted, "overloaded", nil)
		e.RetryAfter = time.Second
		c.refuse(&in, e)
		c.answered(size)
		return
	}
	c.s.wg.Go(func() {
		defer c.answered(size)
		defer func() { <-c.s.asks }()
		ctx, cancel := context.WithTimeout(c.s.ctx, callTimeout)
		defer cancel()
		if err := c.answer(ctx, &in); err != nil {
			c.refuse(&in, err)
		}
	})
}

func (c *conn) answer(ctx context.Context, in *wire.Inbound) error {
	ack := wire.Ack{ID: in.ID, ClientMsgID: in.ClientMsgID}
	switch in.Code {
	case wire.CodePresence:
		r, err := c.s.deps.Conversations.Presence(ctx, &logicv1.PresenceRequest{
			UserIds: []int64{in.To}, ViewerId: int64(c.user),
		})
		if err != nil {
			return err
		}
		p := wire.Presence{User: im.UserID(in.To), Receiver: c.user, ClientMsgID: in.ClientMsgID}
		for _, u := range r.GetUsers() {
			p.Online = p.Online || u.GetUserId() == in.To && u.GetOnline()
		}
		return c.send(seal(wire.AppendPresence(newFrame(128), p), opText))
	case wire.CodeFriendRequest:
		if in.To == int64(c.user) {
			return im.E(im.KindInvalid, "friend_self", nil)
		}
		users, err := c.s.deps.Auth.GetUsers(ctx, &authv1.GetUsersRequest{Ids: []int64{in.To}})
		if err != nil {
			return err
		}
		if len(users.GetUsers()) == 0 {
			return im.E(im.KindNotFound, "user_not_found", nil)
		}
		r, err := c.s.deps.Friends.RequestFriend(ctx, &friendv1.RequestFriendRequest{
			Requester: c.profile(), ToUserId: in.To, Information: in.Text,
		})
		if err != nil {
			return err
		}
		ack.ID = r.GetRequest().GetId()
	default:
		_, err := c.s.deps.Friends.AnswerRequest(ctx, &friendv1.AnswerRequestRequest{
			Answerer: c.profile(), RequestId: in.ID, Accept: in.Code == wire.CodeFriendAccepted,
		})
		if err != nil {
			return err
		}
	}
	return c.send(seal(wire.AppendAck(newFrame(96), ack), opText))
}

func (c *conn) profile() *pushv1.Profile {
	return &pushv1.Profile{Id: int64(c.user), Name: c.who.name, Avatar: c.who.avatar, Email: c.who.email}
}
