package logic

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	logicv1 "im-services/api/proto/logic/v1"
	"im-services/internal/im"
)

// Page sizes of history.
const (
	historyDefault = 50
	historyMax     = 200
)

const (
	// answerBytes bounds what a page of history or a sync holds, as JSON: gateways
	// build it whole, and a client may take half a minute to read it. Large messages
	// make it shorter; one of them always fits. What clients show at once, 20
	// messages of 60 KiB, does too, unless nearly every character is an escape.
	answerBytes = 2 << 20
	// rowBytes is what a message takes in an answer beside its content.
	rowBytes = 500
	// answerRead is how many messages the first query for an answer reads, and so
	// what reading may cost in memory beyond the answer.
	answerRead = 20
)

// jsonSize is about what the message takes in an answer: of its text quotes and
// controls as JSON escapes them, its data being JSON already.
func (m *messageRow) jsonSize() int {
	n := len(m.Text) + len(m.DataJSON) + rowBytes
	for i := range len(m.Text) {
		switch c := m.Text[i]; {
		case c == '"', c == '\\', c == '\n', c == '\r', c == '\t':
			n++
		case c < ' ':
			n += 5
		}
	}
	return n
}

// nextRead is how many messages the next query reads for an answer that holds
// count of size bytes: as many as seem to fit.
func nextRead(count, size int) im.Seq {
	if count == 0 {
		return answerRead
	}
	return im.Seq(min(max((answerBytes-size)*count/size, 1), historyMax))
}

// History implements logicv1.MessageServiceServer. Groups are for members only;
// two users who never were friends have an empty history.
func (s *Server) History(ctx context.Context, req *logicv1.HistoryRequest) (*logicv1.HistoryResponse, error) {
	user := im.UserID(req.GetUserId())
	kind, err := kindAndTarget(user, req.GetKind(), req.GetToId())
	if err != nil {
		return nil, err
	}
	place, err := s.store.placeOf(ctx, user, kind, req.GetToId())
	if err != nil {
		return nil, failed(err)
	}
	if kind == im.Group && (place == nil || !place.in()) {
		return nil, im.E(im.KindForbidden, "not_a_member", nil)
	}
	resp := &logicv1.HistoryResponse{}
	if place == nil || place.last() < place.FirstSeq {
		return resp, nil
	}
	resp.Total = int64(place.last() - place.FirstSeq + 1)
	resp.ReadSeq = int64(place.read())
	if kind == im.Private {
		if err := s.store.db.GetContext(ctx, &resp.PeerReadSeq, `SELECT read_seq FROM members WHERE conversation_id = ? AND user_id = ?`,
			int64(place.ID), req.GetToId()); err != nil {
			return nil, failed(fmt.Errorf("read the peer's cursor: %w", err))
		}
	}
	end := place.last() + 1 // first seq past the page
	if before := im.MessageID(req.GetBeforeId()); before > 0 {
		if end, err = s.store.seqBefore(ctx, place, before); err != nil {
			return nil, failed(err)
		}
	}
	limit := im.Seq(req.GetLimit())
	if limit <= 0 {
		limit = historyDefault
	}
	first := max(end-min(limit, historyMax), place.FirstSeq)
	rows, err := s.store.readNewest(ctx, place.ID, first, end)
	if err != nil {
		return nil, failed(err)
	}
	for i := range rows {
		resp.Messages = append(resp.Messages, rows[i].toPush(kind, place.to(rows[i].SenderID)))
	}
	if req.GetBeforeId() <= 0 && len(rows) > 0 {
		platform := im.Platform(req.GetPlatform()) //nolint:gosec // 1..3, checked by the callee
		if resp.Undelivered, err = s.store.undelivered(ctx, user, platform, place.ID, rows[0].Seq, rows[len(rows)-1].Seq); err != nil {
			return nil, failed(err)
		}
	}
	return resp, nil
}

// readNewest reads the messages first <= seq < end of a conversation, without
// the oldest of them if all would be more than answerBytes.
func (s *store) readNewest(ctx context.Context, conv im.ConversationID, first, end im.Seq) ([]messageRow, error) {
	var rows []messageRow
	for size := 0; first < end; {
		n := nextRead(len(rows), size)
		from := max(first, end-n)
		part, err := s.readMessages(ctx, s.db, conv, from-1, end-1, int(n))
		if err != nil {
			return nil, err
		}
		for i := len(part) - 1; i >= 0; i-- {
			if size += part[i].jsonSize(); size > answerBytes {
				return append(part[i+1:], rows...), nil
			}
		}
		rows = append(part, rows...)
		end = from
	}
	return rows, nil
}

// kindAndTarget checks what a request talks about.
func kindAndTarget(user im.UserID, kind int32, to int64) (im.ChannelKind, error) {
	switch {
	case !user.Valid():
		return 0, im.E(im.KindUnauthorized, "sender_missing", nil)
	case kind != int32(im.Private) && kind != int32(im.Group):
		return 0, im.E(im.KindInvalid, "channel_type_invalid", nil)
	case to <= 0 || to > im.MaxID:
		return 0, im.E(im.KindInvalid, "to_id_invalid", nil)
	}
	return im.ChannelKind(kind), nil //nolint:gosec // 1 or 2
}

// MarkDelivered implements logicv1.MessageServiceServer. Nothing counts that the
// user may not see; repeating it changes nothing.
func (s *Server) MarkDelivered(ctx context.Context, req *logicv1.MarkDeliveredRequest) (*logicv1.MarkDeliveredResponse, error) {
	user, platform := im.UserID(req.GetUserId()), im.Platform(req.GetPlatform()) //nolint:gosec // 1..3, checked below
	conv := im.ConversationID(req.GetConversationId())
	switch {
	case !user.Valid():
		return nil, im.E(im.KindUnauthorized, "sender_missing", nil)
	case !conv.Valid():
		return nil, im.E(im.KindInvalid, "id_invalid", nil)
	case !known(platform):
		return nil, im.E(im.KindInvalid, "platform_invalid", nil)
	}
	places, err := s.store.memberships(ctx, s.store.db, user, conv)
	if err != nil {
		return nil, failed(err)
	}
	for i := range places {
		first, last := max(im.Seq(req.GetFirstSeq()), places[i].FirstSeq), min(im.Seq(req.GetLastSeq()), places[i].last())
		if err := s.store.markPageDelivered(ctx, user, platform, conv, first, last); err != nil {
			return nil, failed(err)
		}
	}
	return &logicv1.MarkDeliveredResponse{}, nil
}

// known reports whether cursors are kept for the platform.
func known(p im.Platform) bool { return p >= im.PlatformWeb && p <= im.PlatformApp }

// undelivered reports whether some of first..last is not delivered to the
// platform yet, so that a page that is costs no write.
func (s *store) undelivered(ctx context.Context, user im.UserID, platform im.Platform, conv im.ConversationID, first, last im.Seq) (bool, error) {
	if !known(platform) {
		return false, nil
	}
	var c cursor
	err := s.db.GetContext(ctx, &c, `SELECT delivered_seq, range_lo, range_hi FROM cursors WHERE user_id = ? AND platform = ? AND conversation_id = ?`,
		int64(user), int64(platform), int64(conv))
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return false, fmt.Errorf("read cursor: %w", err)
	}
	return last > c.Delivered && (first < c.RangeLo || last > c.RangeHi), nil
}

// seqBefore returns the seq past the last message of the place with an id below
// before: where a page that ends before that id ends.
func (s *store) seqBefore(ctx context.Context, place *membership, before im.MessageID) (im.Seq, error) {
	var m struct {
		Conv im.ConversationID `db:"conversation_id"`
		Seq  im.Seq            `db:"seq"`
	}
	err := s.db.GetContext(ctx, &m, `SELECT conversation_id, seq FROM messages WHERE id = ?`, int64(before))
	switch {
	case err == nil && m.Conv == place.ID:
		return min(max(m.Seq, place.FirstSeq), place.last()+1), nil
	case err != nil && !errors.Is(err, sql.ErrNoRows):
		return 0, fmt.Errorf("find cursor message: %w", err)
	}
	// Not a message of this conversation. Its ids rise with its seqs, so the place is found by halving.
	lo, hi := place.FirstSeq, place.last()+1
	for lo < hi {
		mid := lo + (hi-lo)/2
		var id im.MessageID
		if err := s.db.GetContext(ctx, &id, `SELECT id FROM messages WHERE conversation_id = ? AND seq = ?`, int64(place.ID), int64(mid)); err != nil {
			return 0, fmt.Errorf("find cursor position: %w", err)
		}
		if id < before {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo, nil
}
