package logic

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	logicv1 "im-services/api/proto/logic/v1"
	"im-services/internal/im"
	"im-services/internal/seeded"
)

const (
	syncDefault = 100
	syncMax     = 500
	// syncMessages and answerBytes bound one answer; what does not fit is said to
	// be missing, and comes with the next one.
	syncMessages = 2000
)

// Sync implements logicv1.MessageServiceServer. The answer names every
// conversation that has messages after the client's cursor, newest activity
// first, each with the messages that directly follow the cursor. complete is set
// only if all of them are in it.
func (s *Server) Sync(ctx context.Context, req *logicv1.SyncRequest) (*logicv1.SyncResponse, error) {
	user := im.UserID(req.GetUserId())
	if !user.Valid() {
		return nil, im.E(im.KindUnauthorized, "sender_missing", nil)
	}
	epoch := s.store.life.Load().Epoch
	for {
		resp, err := s.syncIn(ctx, epoch, user, req)
		if err != nil {
			return nil, failed(err)
		}
		// What was read may come from a server of another life than this.
		now, err := s.store.look(ctx)
		if err != nil {
			return nil, failed(err)
		}
		if now.Epoch == epoch {
			return resp, nil
		}
		epoch = now.Epoch
	}
}

// syncIn answers a sync in the life of that epoch.
func (s *Server) syncIn(ctx context.Context, epoch string, user im.UserID, req *logicv1.SyncRequest) (*logicv1.SyncResponse, error) {
	limit := im.Seq(req.GetLimit())
	if limit <= 0 {
		limit = syncDefault
	}
	limit = min(limit, syncMax)
	resp := &logicv1.SyncResponse{Epoch: epoch, FullResync: req.GetEpoch() != "" && req.GetEpoch() != epoch}
	cursors := make(map[im.ConversationID]im.Seq, len(req.GetCursors()))
	if !resp.GetFullResync() { // cursors of another life mean nothing in this one
		for _, c := range req.GetCursors() {
			cursors[im.ConversationID(c.GetConversationId())] = im.Seq(c.GetSeq())
		}
	}
	places, err := s.store.memberships(ctx, s.store.db, user)
	if err != nil {
		return nil, err
	}
	places = slices.DeleteFunc(places, func(m membership) bool {
		return m.last() <= max(cursors[m.ID], m.FirstSeq-1)
	})
	slices.SortFunc(places, func(a, b membership) int {
		return cmp.Or(cmp.Compare(b.LastAtMS, a.LastAtMS), cmp.Compare(a.ID, b.ID))
	})
	unread, err := s.store.unread(ctx, user, places)
	if err != nil {
		return nil, err
	}
	var wants []seqRange // what to read, in this order
	room := im.Seq(syncMessages)
	for i := range places {
		m := &places[i]
		start := max(cursors[m.ID], m.FirstSeq-1)
		c := &logicv1.SyncConversation{
			ConversationId: int64(m.ID), Kind: int32(m.Kind), ToId: m.target(user), Seq: int64(start), LastSeq: int64(m.last()),
			ReadSeq: int64(m.read()), Unread: unread[m.ID], FirstSeq: int64(m.FirstSeq), EndSeq: int64(m.EndSeq),
		}
		if !m.in() {
			c.Unread = 0 // nobody can say any more that he has read it
		}
		resp.Conversations = append(resp.Conversations, c)
		if n := min(m.last()-start, limit, room); n > 0 {
			wants = append(wants, seqRange{conv: m.ID, first: start + 1, last: start + n})
			room -= n
		}
	}
	if err := s.fillSync(ctx, resp, places, wants); err != nil {
		return nil, err
	}
	resp.Complete = true
	for _, c := range resp.GetConversations() {
		c.Complete = c.GetSeq() == c.GetLastSeq()
		resp.Complete = resp.GetComplete() && c.GetComplete()
	}
	if seeded.On(seeded.PartialSyncComplete) {
		resp.Complete = true
	}
	return resp, nil
}

// fillSync reads the wanted runs until the answer is full. Conversations and
// places are parallel; the runs follow their order.
func (s *Server) fillSync(ctx context.Context, resp *logicv1.SyncResponse, places []membership, wants []seqRange) error {
	index := make(map[im.ConversationID]int, len(places))
	for i := range places {
		index[places[i].ID] = i
	}
	count, size := 0, 0
	for len(wants) > 0 && size < answerBytes {
		var page []seqRange
		for left := nextRead(count, size); left > 0 && len(wants) > 0; {
			w := &wants[0]
			n := min(left, w.last-w.first+1)
			page = append(page, seqRange{conv: w.conv, first: w.first, last: w.first + n - 1})
			left -= n
			if w.first += n; w.first > w.last {
				wants = wants[1:]
			}
		}
		rows, err := s.store.readRanges(ctx, page)
		if err != nil {
			return err
		}
		for _, r := range page {
			i := index[r.conv]
			c := resp.GetConversations()[i]
			for _, m := range rows[r.conv] {
				if size >= answerBytes || int64(m.Seq) != c.GetSeq()+1 { // full, or not contiguous: stop here, never a hole
					break
				}
				c.Messages = append(c.Messages, m.toPush(places[i].Kind, places[i].to(m.SenderID)))
				c.Seq = int64(m.Seq)
				count++
				size += m.jsonSize()
			}
		}
	}
	return nil
}

// readRanges reads runs of several conversations, at most one of each, ascending.
func (s *store) readRanges(ctx context.Context, ranges []seqRange) (map[im.ConversationID][]messageRow, error) {
	args := make([]any, 0, 3*len(ranges))
	for _, r := range ranges {
		args = append(args, int64(r.conv), int64(r.first), int64(r.last))
	}
	var rows []messageRow
	if err := s.db.SelectContext(ctx, &rows, `SELECT `+messageColumns+` FROM messages WHERE `+
		alternatives(`(conversation_id = ? AND seq BETWEEN ? AND ?)`, len(ranges))+` ORDER BY conversation_id, seq`, args...); err != nil {
		return nil, fmt.Errorf("read messages: %w", err)
	}
	out := make(map[im.ConversationID][]messageRow, len(ranges))
	for _, m := range rows {
		out[m.ConversationID] = append(out[m.ConversationID], m)
	}
	return out, nil
}
