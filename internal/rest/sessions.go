package rest

import (
	"unicode/utf8"

	logicv1 "im-services/api/proto/logic/v1"
	"im-services/internal/im"
	"im-services/internal/wire"
)

// maxNote is the longest note of a session, in characters.
const maxNote = 255

func (c *call) sessionBody(s *logicv1.Session, who people) wire.SessionBody {
	out := wire.SessionBody{
		ID: s.GetId(), Owner: im.UserID(s.GetOwnerId()), CreatedAt: c.time(s.GetCreatedAtMs()),
		TopStatus: bit(s.GetPinned()), Note: s.GetNote(), ChannelType: s.GetKind(), Status: bit(s.GetHidden()),
		Unread: s.GetUnread(), LastSeq: im.Seq(s.GetLastSeq()), ReadSeq: im.Seq(s.GetReadSeq()), Convers: s.GetConversationId(),
	}
	if s.GetPinned() {
		out.TopTime = c.time(s.GetPinnedAtMs())
	}
	if s.GetKind() == int32(im.Group) {
		out.Group = s.GetGroupId()
		out.Groups = c.groupBody(s.GetGroup())
		out.Name, out.Avatar = out.Groups.Name, out.Groups.Avatar
	} else {
		out.Peer = im.UserID(s.GetPeerId())
		out.Users = who.user(out.Peer)
		out.Name, out.Avatar = out.Users.Name, out.Users.Avatar
	}
	if m := s.GetLastMessage(); m != nil {
		out.Last = &wire.LastMsgBody{
			ID: m.GetId(), From: im.UserID(m.GetSenderId()), Type: m.GetType(), Text: m.GetText(),
			SendTime: c.time(m.GetSentAtMs()), Status: max(m.GetStatus(), 1),
		}
	}
	return out
}

func listSessions(c *call) (any, error) {
	resp, err := c.Conversations.ListSessions(c.ctx(), &logicv1.ListSessionsRequest{UserId: int64(c.me)})
	if err != nil {
		return nil, err
	}
	peers := make([]im.UserID, 0, len(resp.GetSessions()))
	for _, s := range resp.GetSessions() {
		peers = append(peers, im.UserID(s.GetPeerId()))
	}
	who, err := c.people(peers)
	if err != nil {
		return nil, err
	}
	var out []wire.SessionBody
	for _, s := range resp.GetSessions() {
		if !s.GetHidden() {
			out = append(out, c.sessionBody(s, who))
		}
	}
	if len(out) == 0 {
		return null, nil // an empty array or object breaks the web client for good
	}
	return out, nil
}

func createSession(c *call) (any, error) {
	in, err := c.form()
	if err != nil {
		return nil, err
	}
	target := in.id("id")
	kind := in.number("type", 0, 1, 2, "session_type_invalid")
	if kind == 0 {
		in.refuse("session_type_invalid")
	}
	if err := in.err(); err != nil {
		return nil, err
	}
	if kind == int64(im.Private) {
		if err := c.exists(im.UserID(target)); err != nil {
			return nil, err
		}
	}
	resp, err := c.Conversations.CreateSession(c.ctx(), &logicv1.CreateSessionRequest{
		UserId: int64(c.me), Kind: int32(kind), TargetId: target, //nolint:gosec // 1 or 2
	})
	if err != nil {
		return nil, err
	}
	who, err := c.people([]im.UserID{im.UserID(resp.GetSession().GetPeerId())})
	if err != nil {
		return nil, err
	}
	return c.sessionBody(resp.GetSession(), who), nil
}

func updateSession(c *call) (any, error) {
	id, err := c.id()
	if err != nil {
		return nil, err
	}
	in, err := c.form()
	if err != nil {
		return nil, err
	}
	req := &logicv1.UpdateSessionRequest{UserId: int64(c.me), SessionId: id}
	if v, ok := in.get("top_status"); ok && !absent(v.text) {
		pinned := in.number("top_status", 0, 0, 1, "top_status_invalid") == 1
		req.Pinned = &pinned
	}
	if in.has("note") {
		note := in.text("note")
		if utf8.RuneCountInString(note) > maxNote {
			in.refuse("note_too_long")
		}
		req.Note = &note
	}
	if err := in.err(); err != nil {
		return nil, err
	}
	_, err = c.Conversations.UpdateSession(c.ctx(), req)
	return nil, err
}

func deleteSession(c *call) (any, error) {
	id, err := c.id()
	if err != nil {
		return nil, err
	}
	_, err = c.Conversations.DeleteSession(c.ctx(), &logicv1.DeleteSessionRequest{UserId: int64(c.me), SessionId: id})
	return nil, err
}
