package gateway

import (
	"sync"

	pushv1 "im-services/api/proto/push/v1"
	"im-services/internal/failpoint"
	"im-services/internal/im"
	"im-services/internal/seeded"
	"im-services/internal/wire"
)

// HandlePush takes one body from the bus: messages and events for connections
// of this gateway. It never blocks on a socket or an RPC and never asks for the
// body again: what it cannot use, a sync will bring. Bodies should be handled
// one at a time, in order.
func (s *Server) HandlePush(body []byte) {
	now := s.now()
	s.checkStall(now)
	env, err := s.deps.Codec.Unmarshal(body)
	if err != nil {
		s.m.badPushes.Inc()
		s.log.Warn("drop a body from the bus", "err", err)
		return
	}
	if env.GetGatewayId() != string(s.id) {
		s.m.badPushes.Inc()
		return
	}
	s.m.pushes.Inc()
	if err := failpoint.Hit("gateway.before_apply"); err != nil {
		return // as if the bus had lost it
	}

	msgs := make([]*message, len(env.GetMessages()))
	for i, pb := range env.GetMessages() {
		msgs[i] = s.newMessage(pb)
	}
	for _, d := range env.GetDeliveries() {
		run := make([]*message, 0, len(d.GetMessages()))
		for _, i := range d.GetMessages() {
			if i < 0 || int(i) >= len(msgs) {
				s.m.badPushes.Inc()
				return
			}
			run = append(run, msgs[i])
		}
		pvs := d.GetPvs()
		for i, u := range d.GetUserIds() {
			var pv im.PV
			if i < len(pvs) {
				pv = im.PV(pvs[i])
			}
			s.hub.each(im.UserID(u), func(c *conn) { c.deliver(env.GetEpoch(), pv, run, now) })
		}
	}
	for _, e := range env.GetEvents() {
		s.handleEvent(e)
	}
}

// handleEvent writes an event to the users it is for.
func (s *Server) handleEvent(e *pushv1.Event) {
	var frame []byte
	write := (*conn).event
	switch b := e.GetBody().(type) {
	case *pushv1.Event_Kick:
		s.handleKick(e.GetUserIds(), b.Kick)
		return
	case *pushv1.Event_Presence:
		if !s.presence.fresh(b.Presence) && !seeded.On(seeded.PresenceNoVersion) {
			s.m.repeats.Inc()
			return
		}
		for _, u := range e.GetUserIds() {
			frame := seal(wire.AppendPresence(newFrame(128), wire.Presence{
				User: im.UserID(b.Presence.GetUserId()), Receiver: im.UserID(u), Online: b.Presence.GetOnline(),
			}), opText)
			s.hub.each(im.UserID(u), func(c *conn) { c.news(frame) })
		}
		return
	case *pushv1.Event_Friend:
		frame = seal(wire.AppendFriend(newFrame(256), friendFrame(b.Friend), s.zone), opText)
	case *pushv1.Event_Session:
		v := b.Session
		frame = seal(wire.AppendSession(newFrame(640), &wire.GroupSession{
			ID: v.GetSessionId(), Owner: im.UserID(v.GetOwnerId()), CreatedAtMS: v.GetCreatedAtMs(),
			Group: wire.GroupCard{
				ID: v.GetGroupId(), Owner: im.UserID(v.GetGroupOwnerId()), Name: v.GetGroupName(),
				Info: v.GetGroupInfo(), Avatar: v.GetGroupAvatar(), CreatedAtMS: v.GetGroupCreatedAtMs(),
				HasPassword: v.GetGroupHasPassword(), Hot: v.GetGroupHot(),
			},
		}, s.zone), opText)
	case *pushv1.Event_Recall:
		s.handleRecall(e.GetUserIds(), b.Recall)
		return
	case *pushv1.Event_Call:
		v := b.Call
		frame = seal(wire.AppendCall(newFrame(320), &wire.Call{
			Caller: profileOf(v.GetCaller(), v.GetCallerId()), Callee: im.UserID(v.GetCalleeId()),
			Text: v.GetText(), SentAtMS: v.GetSentAtMs(),
		}, s.zone), opText)
		write = (*conn).call
	default:
		return // of a newer logic
	}
	for _, u := range e.GetUserIds() {
		s.hub.each(im.UserID(u), func(c *conn) { write(c, frame) })
	}
}

// handleRecall writes that a message was taken back. It may come before the message:
// that may still wait at logic, in a connection's held pushes or in the page of a
// backlog. So its id is remembered before anybody is told.
func (s *Server) handleRecall(users []int64, v *pushv1.RecallEvent) {
	s.recalled.Add(im.MessageID(v.GetMessageId()), struct{}{})
	frame := seal(wire.AppendRecall(newFrame(160), &wire.Recall{
		ID: im.MessageID(v.GetMessageId()), ClientMsgID: im.ClientMsgID(v.GetClientMsgId()),
		From: im.UserID(v.GetSenderId()), To: v.GetToId(), Kind: im.ChannelKind(v.GetKind()),
	}), opText)
	for _, u := range users {
		s.hub.each(im.UserID(u), func(c *conn) { c.recall(frame) })
	}
}

func (s *Server) handleKick(users []int64, k *pushv1.KickEvent) {
	for _, u := range users {
		var target *conn
		s.hub.each(im.UserID(u), func(c *conn) {
			if int64(c.id) == k.GetConnId() {
				target = c
			}
		})
		switch {
		case target == nil:
		case k.GetReason() == kickRevoked:
			target.closeWith(wire.CloseReplaced, nil)
		default:
			target.displace(k.GetPeerIp())
		}
	}
}

const kickRevoked = "revoked"

func profileOf(p *pushv1.Profile, id int64) wire.Profile {
	if p.GetId() != 0 {
		id = p.GetId()
	}
	return wire.Profile{ID: im.UserID(id), Name: p.GetName(), Avatar: p.GetAvatar(), Email: p.GetEmail()}
}

func friendFrame(v *pushv1.FriendEvent) *wire.Friend {
	f := &wire.Friend{
		Code: wire.CodeFriendRequest, ID: v.GetRecordId(), Requester: im.UserID(v.GetRequesterId()),
		Answerer: im.UserID(v.GetAnswererId()), Status: v.GetStatus(), Information: v.GetInformation(),
		CreatedAtMS: v.GetCreatedAtMs(),
	}
	switch v.GetStatus() {
	case 1:
		f.Code = wire.CodeFriendAccepted
		f.Shown = profileOf(v.GetProfile(), v.GetAnswererId())
	case 2:
		f.Code = wire.CodeFriendRefused
		f.Shown = profileOf(v.GetProfile(), v.GetAnswererId())
	default:
		f.Shown = profileOf(v.GetProfile(), v.GetRequesterId())
	}
	return f
}

// maxPresence bounds the users of one generation of presenceVersions.
const maxPresence = 1 << 15

// presenceVersions keeps news of one user from going backwards and from being
// shown twice: logic tells each change again, for the gateways that missed it.
type presenceVersions struct {
	mu           sync.Mutex
	seen, before map[im.UserID]presenceSeen // before is the generation that seen replaced
}

// presenceSeen is what was told of one user.
type presenceSeen struct {
	change   int64 // the newest change that anybody was told of
	told     bool  // all friends were
	greeting int64 // the newest version under which some were who came later
}

// fresh reports whether news is to be shown, and notes it. That some were told of
// a change who came later does not make it known to those who missed it.
func (p *presenceVersions) fresh(e *pushv1.PresenceEvent) bool {
	u, version, change := im.UserID(e.GetUserId()), e.GetVersion(), e.GetChange()
	if change == 0 {
		change = version
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	at, ok := p.seen[u]
	if !ok {
		at = p.before[u]
	}
	if change > at.change {
		at = presenceSeen{change: change}
	}
	switch {
	case change < at.change:
		return false
	case version == change:
		if at.told {
			return false
		}
		at.told = true
	case version <= at.greeting:
		return false
	default:
		at.greeting = version
	}
	if p.seen == nil || !ok && len(p.seen) >= maxPresence {
		// Forgetting costs at most a late frame out of order, or one shown twice.
		p.before, p.seen = p.seen, map[im.UserID]presenceSeen{}
	}
	p.seen[u] = at
	return true
}
