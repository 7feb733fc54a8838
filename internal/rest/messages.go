package rest

import (
	"math"
	"strings"
	"time"

	friendv1 "im-services/api/proto/friend/v1"
	logicv1 "im-services/api/proto/logic/v1"
	pushv1 "im-services/api/proto/push/v1"
	"im-services/internal/im"
	"im-services/internal/wire"
)

// sleepDoubt is how long after a sleep of this process what is read may have come
// before it: its client may be elsewhere since, where he sent it again.
const sleepDoubt = time.Second

// largeMessage is the content, in bytes, from which on the answer to a send, which
// repeats it, takes a slot: beforehand, as afterwards the message is stored.
const largeMessage = largeAnswer / 4

// sendMessage stores a message, private or to a group: the web client uses the
// path of either for both.
func sendMessage(c *call) (any, error) {
	in, err := c.form()
	if err != nil {
		return nil, err
	}
	key, ok := in.get("msg_client_id")
	clientID, valid := asID(key)
	if !ok || !valid {
		in.refuse("client_msg_id_invalid")
	}
	to := in.id("to_id")
	typ := in.number("msg_type", 0, 1, wire.MaxType, "msg_type_invalid")
	if typ == 0 {
		in.refuse("msg_type_invalid")
	}
	kind := in.number("channel_type", int64(im.Private), int64(im.Private), int64(im.Group), "channel_type_invalid")
	text := in.message("message")
	data, dataSize := in.data("data")
	if len(text)+dataSize > wire.MaxContent {
		in.refuse("message_too_large")
	}
	platform := in.platform()
	if err := in.err(); err != nil {
		return nil, err
	}
	if len(text)+dataSize > largeMessage {
		if err := c.keep(); err != nil {
			return nil, err
		}
	}
	send := &logicv1.Send{
		SenderId: int64(c.me), ClientMsgId: clientID, Kind: int32(kind), ToId: to, Type: int32(typ), //nolint:gosec // ranges checked above
		Text: text, DataJson: data, Platform: int32(platform), Sender: c.sender(),
	}
	res, err := c.send(send)
	if err != nil {
		return nil, err
	}
	at := c.time(res.GetSentAtMs())
	out := wire.SentBody{
		MsgID: im.MessageID(res.GetMessageId()), ClientMsgID: im.ClientMsgID(clientID), MsgCode: wire.CodeChat,
		From: c.me, To: to, UID: c.me.UID(), Type: send.GetType(), ChannelType: im.ChannelKind(kind), //nolint:gosec // 1 or 2
		Text: text, SendTime: at, CreatedAt: at, Data: wire.Data(res.GetDataJson()),
		Seq: im.Seq(res.GetSeq()), Convers: res.GetConversationId(),
	}
	if im.ChannelKind(kind) == im.Private { //nolint:gosec // 1 or 2
		out.ToUID = im.UserID(to).UID()
	}
	return out, nil
}

// message reads the text of a message: text only, whatever it says.
func (f *form) message(name string) string {
	v, _ := f.get(name)
	if v.src == fromNumber {
		f.refuse("parameter_type_invalid")
	}
	return f.textOr(name, "message_empty")
}

func (c *call) send(s *logicv1.Send) (*logicv1.SendResult, error) {
	if c.SleptSince(c.at.Add(-sleepDoubt)) {
		e := im.E(im.KindUnavailable, "service_unavailable", nil)
		e.RetryAfter = sleepDoubt
		return nil, e
	}
	return c.Send(c.ctx(), s)
}

func recall(c *call) (any, error) {
	in, err := c.form()
	if err != nil {
		return nil, err
	}
	req := &logicv1.RecallRequest{
		UserId:    int64(c.me),
		MessageId: in.optionalID("msg_id"),
		Kind:      int32(in.number("channel_type", 1, 1, 2, "channel_type_invalid")), //nolint:gosec // 1 or 2
		ToId:      in.optionalID("to_id"),
	}
	if req.GetMessageId() == 0 {
		req.ClientMsgId = in.optionalID("msg_client_id")
		if req.GetClientMsgId() == 0 || req.GetToId() == 0 {
			in.refuse("parameter_missing")
		}
	}
	if err := in.err(); err != nil {
		return nil, err
	}
	resp, err := c.Messages.Recall(c.ctx(), req)
	if err != nil {
		return nil, err
	}
	r := resp.GetRecall()
	return wire.RecallBody{
		MsgID: im.MessageID(r.GetMessageId()), ClientMsgID: im.ClientMsgID(r.GetClientMsgId()), From: im.UserID(r.GetSenderId()),
		To: r.GetToId(), ChannelType: im.ChannelKind(r.GetKind()), //nolint:gosec // 1 or 2
	}, nil
}

// callText is what frame 600 says when the caller gives no text.
const callText = "video"

// video rings a friend who is online.
func video(c *call) (any, error) {
	in, err := c.form()
	if err != nil {
		return nil, err
	}
	to := in.id("to_id")
	text := strings.TrimSpace(in.runes("message", 0, maxInformation, "information_invalid"))
	if err := in.err(); err != nil {
		return nil, err
	}
	friends, err := c.Friend.FilterFriends(c.ctx(), &friendv1.FilterFriendsRequest{UserId: int64(c.me), UserIds: []int64{to}})
	if err != nil {
		return nil, err
	}
	if len(friends.GetUserIds()) == 0 {
		return nil, im.E(im.KindForbidden, "not_friends", nil)
	}
	online, err := c.Conversations.Presence(c.ctx(), &logicv1.PresenceRequest{UserIds: []int64{to}, ViewerId: int64(c.me)})
	if err != nil {
		return nil, err
	}
	if us := online.GetUsers(); len(us) == 0 || !us[0].GetOnline() {
		return nil, im.E(im.KindConflict, "callee_offline", nil)
	}
	if text == "" {
		text = callText
	}
	me, now := c.sender(), time.Now().UnixMilli()
	event := &pushv1.Event{UserIds: []int64{to}, Body: &pushv1.Event_Call{Call: &pushv1.CallEvent{
		CallerId: int64(c.me), CalleeId: to, Text: text, SentAtMs: now, Caller: me,
	}}}
	told, err := c.Conversations.Notify(c.ctx(), &logicv1.NotifyRequest{Event: event})
	if err != nil {
		return nil, err
	}
	if told.GetConnections() == 0 {
		return nil, im.E(im.KindConflict, "callee_offline", nil)
	}
	return wire.CallBody{
		MsgCode: wire.CodeCall, From: c.me, To: im.UserID(to), Text: text, SendTime: c.time(now),
		Users: wire.CallerBody{Name: me.GetName(), Email: me.GetEmail(), Avatar: me.GetAvatar()},
	}, nil
}

// markRead moves the caller's read cursor to a seq, or over everything.
func markRead(c *call) (any, error) {
	in, err := c.form()
	if err != nil {
		return nil, err
	}
	req := &logicv1.MarkReadRequest{
		UserId: int64(c.me),
		Kind:   int32(in.number("channel_type", 1, 1, 2, "channel_type_invalid")), //nolint:gosec // 1 or 2
		ToId:   in.id("to_id"),
		Seq:    in.number("seq", 0, 0, math.MaxInt64, "number_invalid"),
	}
	if err := in.err(); err != nil {
		return nil, err
	}
	resp, err := c.Messages.MarkRead(c.ctx(), req)
	if err != nil {
		return nil, err
	}
	return wire.ReadBody{ReadSeq: im.Seq(resp.GetReadSeq()), Unread: resp.GetUnread()}, nil
}

// unread counts what the caller has not read, by conversation.
func unread(c *call) (any, error) {
	resp, err := c.Conversations.ListSessions(c.ctx(), &logicv1.ListSessionsRequest{UserId: int64(c.me)})
	if err != nil {
		return nil, err
	}
	out := wire.UnreadBody{List: []wire.UnreadEntry{}}
	for _, s := range resp.GetSessions() {
		if s.GetUnread() <= 0 {
			continue
		}
		out.Total += s.GetUnread()
		out.List = append(out.List, wire.UnreadEntry{
			Session: s.GetId(), ChannelType: s.GetKind(), To: max(s.GetPeerId(), s.GetGroupId()), Unread: s.GetUnread(),
			LastSeq: im.Seq(s.GetLastSeq()), ReadSeq: im.Seq(s.GetReadSeq()),
		})
	}
	return out, nil
}
