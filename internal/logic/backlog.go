package logic

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	logicv1 "im-services/api/proto/logic/v1"
	"im-services/internal/failpoint"
	"im-services/internal/im"
	"im-services/internal/seeded"
)

const (
	// backlogFirst is how many messages the first query of a conversation reads, and
	// backlogRead how many one reads at most: the more, the smaller they are.
	backlogFirst = 64
	backlogRead  = 1000
	// backlogChunk and backlogBytes bound one response of the stream; backlogBytes
	// also what is read at once, and so what a slow reader makes us hold.
	backlogChunk = 256
	backlogBytes = 512 << 10
)

// behind is a conversation in which a connection is behind.
type behind struct {
	ConversationID im.ConversationID `db:"conversation_id"`
	Kind           im.ChannelKind    `db:"kind"`
	UserLo         im.UserID         `db:"user_lo"`
	UserHi         im.UserID         `db:"user_hi"`
	FirstSeq       im.Seq            `db:"first_seq"`
	LastSeq        im.Seq            `db:"last_seq"` // last the user may see
	cursor
}

// conversationsBehind returns the conversations in which a platform of the user
// lacks messages that he may see, longest quiet first, and those of also that are his.
func (s *store) conversationsBehind(ctx context.Context, user im.UserID, platform im.Platform, also []im.ConversationID) ([]behind, error) {
	var out []behind
	args := append([]any{int64(platform), int64(user)}, anys(also)...)
	err := s.db.SelectContext(ctx, &out, `
		SELECT m.conversation_id, c.kind, COALESCE(c.user_lo, 0) AS user_lo, COALESCE(c.user_hi, 0) AS user_hi, m.first_seq,
			IF(m.end_seq > 0, m.end_seq, c.last_seq) AS last_seq,
			COALESCE(d.delivered_seq, 0) AS delivered_seq, COALESCE(d.range_lo, 0) AS range_lo, COALESCE(d.range_hi, 0) AS range_hi
		FROM members m
		JOIN conversations c ON c.id = m.conversation_id
		LEFT JOIN cursors d ON d.user_id = m.user_id AND d.platform = ? AND d.conversation_id = m.conversation_id
		WHERE m.user_id = ? AND (IF(m.end_seq > 0, m.end_seq, c.last_seq) > GREATEST(COALESCE(d.delivered_seq, 0), m.first_seq - 1)
			OR m.conversation_id IN (0`+strings.Repeat(`,?`, len(also))+`))
		ORDER BY c.last_at_ms, m.conversation_id`, args...)
	if err != nil {
		return nil, failed(fmt.Errorf("find backlog: %w", err))
	}
	return out, nil
}

// backlogSender packs messages into responses of bounded size.
type backlogSender struct {
	send  func(*logicv1.BacklogResponse) error
	resp  *logicv1.BacklogResponse
	count int
	bytes int
}

// add appends a run of one conversation.
func (b *backlogSender) add(c *logicv1.BacklogConversation) error {
	b.resp.Conversations = append(b.resp.Conversations, c)
	b.count += len(c.GetMessages()) + 1
	b.bytes += proto.Size(c)
	if b.count >= backlogChunk || b.bytes >= backlogBytes {
		return b.flush()
	}
	return nil
}

func (b *backlogSender) flush() error {
	if err := failpoint.Hit("logic.backlog_chunk"); err != nil {
		return err
	}
	err := b.send(b.resp)
	b.resp, b.count, b.bytes = &logicv1.BacklogResponse{}, 0, 0
	return err
}

// streamBacklog sends what the platform of a user misses, each conversation
// oldest first, starting where the connection stands if it follows the conversation
// already, else at its cursor. At most ReplayMax of the newest of one conversation are sent; the
// rest is history.
func (s *store) streamBacklog(ctx context.Context, user im.UserID, platform im.Platform, positions map[im.ConversationID]im.Seq, out *backlogSender) error {
	var also []im.ConversationID
	if !s.cfg.displaces() { // what the platform has received may have been on another connection
		also = slices.Collect(maps.Keys(positions))
	}
	list, err := s.conversationsBehind(ctx, user, platform, also)
	if err != nil {
		return err
	}
	nothing := map[deliveredKey]im.Seq{}
	for _, b := range list {
		start, gaps := b.FirstSeq-1, b.missing(b.LastSeq)
		if p, active := positions[b.ConversationID]; active {
			// What the connection began to follow it gets without a hole, also what the
			// platform has received on another one meanwhile.
			start = max(start, p)
			gaps = [][2]im.Seq{{start, b.LastSeq}}
		} else {
			start = max(start, b.LastSeq-im.Seq(s.cfg.ReplayMax))
		}
		if seeded.On(seeded.CursorAutoIncrement) {
			start = max(start, s.upToNewest(ctx, user, platform, b.ConversationID))
		}
		if start >= b.LastSeq {
			continue
		}
		sent := 0
		for _, gap := range gaps {
			n, err := s.streamRun(ctx, user, platform, b, max(gap[0], start), gap[1], out)
			if err != nil {
				return err
			}
			sent += n
		}
		if sent == 0 && start <= max(b.FirstSeq-1, b.Delivered) {
			nothing[deliveredKey{user, platform, b.ConversationID}] = b.LastSeq
		}
		if b.LastSeq > positions[b.ConversationID] {
			// Also when nothing was written: the connection now stands at the end.
			if err := out.add(&logicv1.BacklogConversation{ConversationId: int64(b.ConversationID), Position: int64(b.LastSeq)}); err != nil {
				return err
			}
		}
	}
	// Nobody acknowledges what is not sent: where the user spoke last his own messages
	// would be read again at each connect.
	if err := s.moveDelivered(ctx, nothing); err != nil {
		s.log.WarnContext(ctx, "own messages will be read again", "conversations", len(nothing), "err", err)
	}
	return nil
}

// streamRun sends the messages after < seq <= upTo of one conversation, and says
// how many there were for this platform.
func (s *store) streamRun(ctx context.Context, user im.UserID, platform im.Platform, b behind, after, upTo im.Seq, out *backlogSender) (sent int, err error) {
	limit := backlogFirst
	for after < upTo {
		rows, size, err := s.readPage(ctx, b.ConversationID, after, upTo, limit)
		if err != nil {
			return sent, failed(err)
		}
		if len(rows) == 0 {
			return sent, nil
		}
		after = rows[len(rows)-1].Seq
		if limit = min(2*limit, backlogRead); size >= backlogBytes {
			limit = len(rows)
		}
		for part := range slices.Chunk(rows, backlogChunk) {
			run := &logicv1.BacklogConversation{ConversationId: int64(b.ConversationID), Position: int64(part[len(part)-1].Seq)}
			for i := range part {
				m := &part[i]
				if !deliverable(m, b.Kind, user, platform) {
					continue
				}
				to := int64(b.ConversationID)
				if b.Kind == im.Private {
					to = int64(b.UserLo)
					if m.SenderID == b.UserLo {
						to = int64(b.UserHi)
					}
				}
				run.Messages = append(run.Messages, m.toPush(b.Kind, to))
			}
			s.metrics.backlogMessages.Add(float64(len(run.GetMessages())))
			sent += len(run.GetMessages())
			if err := out.add(run); err != nil {
				return sent, err
			}
		}
	}
	return sent, nil
}

// readPage reads the first messages after < seq <= upTo: at most limit, and none
// after that with which they reach backlogBytes. The size is about what they take.
// The rest of a longer answer is read from MySQL and thrown away, so ask for no
// more than is likely to fit.
func (s *store) readPage(ctx context.Context, conv im.ConversationID, after, upTo im.Seq, limit int) (page []messageRow, size int, err error) {
	rows, err := s.db.QueryxContext(ctx, selectMessages, int64(conv), int64(after), int64(upTo), limit)
	if err != nil {
		return nil, 0, fmt.Errorf("read backlog: %w", err)
	}
	defer func() { _ = rows.Close() }()
	for size < backlogBytes && rows.Next() {
		var m messageRow
		if err := rows.StructScan(&m); err != nil {
			return nil, 0, fmt.Errorf("read backlog: %w", err)
		}
		size += len(m.Text) + len(m.DataJSON) + 100
		page = append(page, m)
	}
	if err := rows.Err(); err != nil {
		return nil, 0, fmt.Errorf("read backlog: %w", err)
	}
	return page, size, nil
}

// deliverable reports whether a stored message is replayed to a platform of the
// user: of his own private messages only those that another platform of his sent,
// and never to the web. What was recalled before it arrived is replayed without
// its content: something must take its place, or the client finds a hole.
func deliverable(m *messageRow, kind im.ChannelKind, user im.UserID, platform im.Platform) bool {
	if kind == im.Private && m.SenderID == user {
		return platform != im.PlatformWeb && platform != m.Platform
	}
	return true
}
