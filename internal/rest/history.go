package rest

import (
	"context"
	"encoding/json"

	authv1 "im-services/api/proto/auth/v1"
	logicv1 "im-services/api/proto/logic/v1"
	pushv1 "im-services/api/proto/push/v1"
	"im-services/internal/im"
	"im-services/internal/wire"
)

// historyQuery is a request for a page of history.
type historyQuery struct {
	to     int64
	page   string // the cursor as sent
	before int64
	size   int
	plat   im.Platform
}

func (c *call) historyQuery() (historyQuery, error) {
	in, err := c.query()
	if err != nil {
		return historyQuery{}, err
	}
	q := historyQuery{size: in.pageSize()}
	if v, _ := in.get("to_id"); v.text == "0" {
		v, _ = in.get("page")
		q.page = v.text
		return q, nil // nothing is asked for, so nothing else matters
	}
	q.to = in.id("to_id")
	q.page, q.before = in.cursor()
	q.plat = in.platform()
	return q, in.err()
}

func (c *call) history(kind im.ChannelKind, q historyQuery) (*logicv1.HistoryResponse, people, error) {
	resp, err := c.Messages.History(c.ctx(), &logicv1.HistoryRequest{
		UserId: int64(c.me), Kind: int32(kind), ToId: q.to, BeforeId: q.before, Limit: int32(q.size), Platform: int32(q.plat), //nolint:gosec // at most 200
	})
	if err != nil {
		return nil, people{}, err
	}
	senders := make([]im.UserID, 0, len(resp.GetMessages()))
	for _, m := range resp.GetMessages() {
		senders = append(senders, im.UserID(m.GetSenderId()))
	}
	who, err := c.cards(senders)
	if err != nil { // what was said is worth more than who is called how
		c.Log.Warn("a page of history has no profiles", "err", err, "request_id", requestID(c.r))
		for _, id := range senders {
			if who.users[id] == nil {
				who.users[id] = &authv1.User{Id: int64(id)}
			}
		}
	}
	return resp, who, nil
}

// page is an answer that holds a page of history. That its rows need not be
// replayed is said when the client has them: the gateway, auth or his line may
// fail before.
func (c *call) page(body any, resp *logicv1.HistoryResponse, q historyQuery) followed {
	rows := resp.GetMessages()
	if !resp.GetUndelivered() || len(rows) == 0 {
		return followed{data: body}
	}
	req := &logicv1.MarkDeliveredRequest{ // the rows need not wait with the answer
		UserId: int64(c.me), Platform: int32(q.plat), ConversationId: rows[0].GetConversationId(),
		FirstSeq: rows[0].GetSeq(), LastSeq: rows[len(rows)-1].GetSeq(),
	}
	return followed{data: body, then: func(ctx context.Context) {
		if _, err := c.Messages.MarkDelivered(ctx, req); err != nil {
			c.Log.Warn("a page of history will be replayed as well", "err", err, "request_id", requestID(c.r))
		}
	}}
}

func privateHistory(c *call) (any, error) {
	q, err := c.historyQuery()
	if err != nil {
		return nil, err
	}
	out := wire.Page[wire.PrivateRow]{List: []wire.PrivateRow{}, Mate: wire.Mate{PageSize: q.size, Page: q.page}}
	if q.to == 0 {
		return out, nil // the web client asks this when it means a group
	}
	resp, who, err := c.history(im.Private, q)
	if err != nil {
		return nil, err
	}
	out.Mate.Total = resp.GetTotal()
	for _, m := range resp.GetMessages() {
		out.List = append(out.List, c.privateRow(m, resp, who))
	}
	return c.page(out, resp, q), nil
}

func (c *call) privateRow(m *pushv1.Message, page *logicv1.HistoryResponse, who people) wire.PrivateRow {
	readUpTo := page.GetReadSeq()
	if im.UserID(m.GetSenderId()) == c.me {
		readUpTo = page.GetPeerReadSeq()
	}
	id := im.MessageID(m.GetId())
	return wire.PrivateRow{
		ID: id, Text: m.GetText(), CreatedAt: c.time(m.GetSentAtMs()), From: im.UserID(m.GetSenderId()), To: m.GetToId(),
		IsRead: bit(m.GetSeq() <= readUpTo), Type: m.GetType(), Status: max(m.GetStatus(), 1), Data: wire.Data(m.GetDataJson()),
		Users: who.card(im.UserID(m.GetSenderId())), ChannelType: im.Private, MsgID: id,
		ClientMsgID: im.ClientMsgID(m.GetClientMsgId()), Seq: im.Seq(m.GetSeq()),
	}
}

func groupHistory(c *call) (any, error) {
	q, err := c.historyQuery()
	if err != nil {
		return nil, err
	}
	if q.to == 0 {
		return nil, refuse("id_invalid")
	}
	resp, who, err := c.history(im.Group, q)
	if err != nil {
		return nil, err
	}
	out := wire.Page[wire.GroupRow]{
		List: make([]wire.GroupRow, 0, len(resp.GetMessages())),
		Mate: wire.Mate{PageSize: q.size, Page: q.page, Total: resp.GetTotal()},
	}
	for _, m := range resp.GetMessages() {
		id := im.MessageID(m.GetId())
		out.List = append(out.List, wire.GroupRow{
			ID: id, Text: m.GetText(), CreatedAt: c.time(m.GetSentAtMs()), Data: wire.DataText(m.GetDataJson()),
			SendTime: m.GetSentAtMs() / 1000, Type: m.GetType(), MsgID: id, ClientMsgID: im.ClientMsgID(m.GetClientMsgId()),
			From: im.UserID(m.GetSenderId()), Group: m.GetToId(), Users: who.card(im.UserID(m.GetSenderId())),
			Status: max(m.GetStatus(), 1), Seq: im.Seq(m.GetSeq()),
		})
	}
	return c.page(out, resp, q), nil
}

// maxSyncLimit is the most messages a sync answers per conversation.
const maxSyncLimit = 500

// syncChanges answers what the client misses, whole or saying that it is not.
func syncChanges(c *call) (any, error) {
	in, err := c.form()
	if err != nil {
		return nil, err
	}
	req := &logicv1.SyncRequest{
		UserId: int64(c.me),
		Epoch:  in.text("epoch"),
		Limit:  int32(in.number("limit", 100, 1, maxSyncLimit, "number_invalid")), //nolint:gosec // at most 500
	}
	for _, cur := range objects[wire.SyncCursor](in, "cursors") {
		if cur.Conversation <= 0 || cur.Conversation > im.MaxID || cur.Seq < 0 || cur.Seq > im.MaxID {
			in.refuse("id_invalid")
		}
		req.Cursors = append(req.Cursors, &logicv1.Cursor{ConversationId: int64(cur.Conversation), Seq: int64(cur.Seq)})
	}
	if err := in.err(); err != nil {
		return nil, err
	}
	resp, err := c.Messages.Sync(c.ctx(), req)
	if err != nil {
		return nil, err
	}
	out := wire.SyncBody{
		Epoch: resp.GetEpoch(), FullResync: resp.GetFullResync(), Complete: resp.GetComplete(),
		Conversations: make([]wire.SyncConversation, 0, len(resp.GetConversations())),
	}
	for _, s := range resp.GetConversations() {
		conv := wire.SyncConversation{
			Conversation: s.GetConversationId(), ChannelType: s.GetKind(), To: s.GetToId(),
			Messages: make([]json.RawMessage, 0, len(s.GetMessages())), Seq: im.Seq(s.GetSeq()), LastSeq: im.Seq(s.GetLastSeq()),
			ReadSeq: im.Seq(s.GetReadSeq()), Unread: s.GetUnread(), Complete: s.GetComplete(),
			FirstSeq: im.Seq(s.GetFirstSeq()), EndSeq: im.Seq(s.GetEndSeq()),
		}
		for _, m := range s.GetMessages() {
			conv.Messages = append(conv.Messages, c.frame(m))
		}
		out.Conversations = append(out.Conversations, conv)
	}
	return out, nil
}

// frame is a message as the socket writes it.
func (c *call) frame(m *pushv1.Message) json.RawMessage {
	if m.GetStatus() == 2 {
		return wire.AppendRecall(nil, &wire.Recall{
			ID: im.MessageID(m.GetId()), ClientMsgID: im.ClientMsgID(m.GetClientMsgId()), From: im.UserID(m.GetSenderId()),
			To: m.GetToId(), Kind: im.ChannelKind(m.GetKind()), Seq: im.Seq(m.GetSeq()), ConversationID: im.ConversationID(m.GetConversationId()), //nolint:gosec // 1 or 2
		})
	}
	return wire.ChatFrame(&wire.Chat{
		ID: im.MessageID(m.GetId()), ClientMsgID: im.ClientMsgID(m.GetClientMsgId()), ConversationID: im.ConversationID(m.GetConversationId()),
		Seq: im.Seq(m.GetSeq()), Kind: im.ChannelKind(m.GetKind()), From: im.UserID(m.GetSenderId()), To: m.GetToId(), //nolint:gosec // 1 or 2
		Type: m.GetType(), Text: m.GetText(), Data: m.GetDataJson(), SentAtMS: m.GetSentAtMs(),
	}, c.zone)
}
