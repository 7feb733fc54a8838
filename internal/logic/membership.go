package logic

import (
	"context"
	"fmt"
	"strings"

	"github.com/jmoiron/sqlx"

	"im-services/internal/im"
)

// queryPage bounds the alternatives of one statement.
const queryPage = 200

// membership is a user's place in one conversation: what he may see of it and
// what he has read.
type membership struct {
	ID       im.ConversationID `db:"id"`
	Kind     im.ChannelKind    `db:"kind"`
	Open     bool              `db:"open"`
	UserLo   im.UserID         `db:"user_lo"`
	UserHi   im.UserID         `db:"user_hi"`
	LastSeq  im.Seq            `db:"last_seq"` // of the conversation
	LastAtMS int64             `db:"last_at_ms"`
	FirstSeq im.Seq            `db:"first_seq"`
	EndSeq   im.Seq            `db:"end_seq"`
	ReadSeq  im.Seq            `db:"read_seq"`
	Role     int32             `db:"role"`
}

// in reports whether the user is a member now.
func (m *membership) in() bool { return m.EndSeq == 0 }

// last is the last seq that the user may see.
func (m *membership) last() im.Seq {
	if m.EndSeq > 0 {
		return m.EndSeq
	}
	return m.LastSeq
}

// read is the seq up to which nothing is unread.
func (m *membership) read() im.Seq {
	return min(max(m.ReadSeq, m.FirstSeq-1), max(m.last(), m.FirstSeq-1))
}

// target is whom or what the user talks to there.
func (m *membership) target(user im.UserID) int64 {
	if m.Kind == im.Group {
		return int64(m.ID)
	}
	if user == m.UserLo {
		return int64(m.UserHi)
	}
	return int64(m.UserLo)
}

// to is the to_id of a message of this conversation.
func (m *membership) to(sender im.UserID) int64 { return m.target(sender) }

// memberships returns the user's places in the named conversations, or in all
// of them if none is named, those he has left included.
func (s *store) memberships(ctx context.Context, q sqlx.QueryerContext, user im.UserID, convs ...im.ConversationID) ([]membership, error) {
	query := `SELECT c.id, c.kind, c.open, COALESCE(c.user_lo, 0) AS user_lo, COALESCE(c.user_hi, 0) AS user_hi, c.last_seq, c.last_at_ms,
			m.first_seq, m.end_seq, m.read_seq, m.role
		FROM members m JOIN conversations c ON c.id = m.conversation_id WHERE m.user_id = ?`
	args := []any{int64(user)}
	if len(convs) > 0 {
		query += ` AND m.conversation_id IN (` + placeholders(len(convs)) + `)`
		args = append(args, anys(convs)...)
	}
	var out []membership
	if err := sqlx.SelectContext(ctx, q, &out, query, args...); err != nil {
		return nil, fmt.Errorf("read memberships: %w", err)
	}
	return out, nil
}

// placeOf returns the user's place in his conversation with a user or group,
// nil if he has none.
func (s *store) placeOf(ctx context.Context, user im.UserID, kind im.ChannelKind, to int64) (*membership, error) {
	id := im.ConversationID(to)
	if kind == im.Private {
		lo, hi := pairOf(user, im.UserID(to))
		key := convKey{lo, int64(hi)}
		known, ok := s.pairs.Get(key)
		if !ok {
			found, err := s.findPairs(ctx, []convKey{key})
			if err != nil {
				return nil, err
			}
			known = found[key]
		}
		id = known
	}
	if !id.Valid() {
		return nil, nil
	}
	list, err := s.memberships(ctx, s.db, user, id)
	if err != nil || len(list) == 0 || list[0].Kind != kind {
		return nil, err
	}
	return &list[0], nil
}

// openWith returns which of the users have an open private conversation with
// user: his friends. The bot is nobody's friend.
func (s *store) openWith(ctx context.Context, q sqlx.QueryerContext, user im.UserID, others []im.UserID) (map[im.UserID]bool, error) {
	out := make(map[im.UserID]bool, len(others))
	for len(others) > 0 {
		page := others[:min(len(others), queryPage)]
		others = others[len(page):]
		var lower, higher []im.UserID // split, so that either list uses the key of pairs
		for _, o := range page {
			switch {
			case o == im.BotID || user == im.BotID || o == user:
			case o < user:
				lower = append(lower, o)
			default:
				higher = append(higher, o)
			}
		}
		for _, half := range []struct {
			fixed, varied string
			list          []im.UserID
		}{{"user_hi", "user_lo", lower}, {"user_lo", "user_hi", higher}} {
			if len(half.list) == 0 {
				continue
			}
			var found []im.UserID
			err := sqlx.SelectContext(ctx, q, &found, `SELECT `+half.varied+` FROM conversations
				WHERE open = 1 AND `+half.fixed+` = ? AND `+half.varied+` IN (`+placeholders(len(half.list))+`)`,
				append([]any{int64(user)}, anys(half.list)...)...)
			if err != nil {
				return nil, fmt.Errorf("read friends: %w", err)
			}
			for _, u := range found {
				out[u] = true
			}
		}
	}
	return out, nil
}

// previewColumns are what a list shows of a message: of its text the beginning,
// for what others wrote must not make the list larger than an answer may be.
const previewColumns = `conversation_id, seq, id, sender_id, client_msg_id, type, status, platform, sent_at_ms, LEFT(text, 200) AS text`

// previewsAt reads what a list shows of one message of each place (conversation, seq).
func (s *store) previewsAt(ctx context.Context, places []seqRange) (map[im.ConversationID]messageRow, error) {
	out := make(map[im.ConversationID]messageRow, len(places))
	for len(places) > 0 {
		page := places[:min(len(places), queryPage)]
		places = places[len(page):]
		args := make([]any, 0, 2*len(page))
		for _, p := range page {
			args = append(args, int64(p.conv), int64(p.last))
		}
		var rows []messageRow
		if err := s.db.SelectContext(ctx, &rows, `SELECT `+previewColumns+` FROM messages WHERE `+
			alternatives(`(conversation_id = ? AND seq = ?)`, len(page)), args...); err != nil {
			return nil, fmt.Errorf("read last messages: %w", err)
		}
		for _, m := range rows {
			out[m.ConversationID] = m
		}
	}
	return out, nil
}

// unreadMost is how far back unread messages are counted: whoever never says what he
// has read must not have all of his history counted each time.
const unreadMost = 1000

// unread counts, for each place, the messages of others that the user may see
// and has not read, among the last unreadMost. Seqs have no gaps, so it is the length of
// the stretch less his own messages in it.
func (s *store) unread(ctx context.Context, user im.UserID, places []membership) (map[im.ConversationID]int64, error) {
	out := make(map[im.ConversationID]int64, len(places))
	var stretches []membership
	for _, m := range places {
		if n := min(m.last()-m.read(), unreadMost); n > 0 {
			out[m.ID] = int64(n)
			stretches = append(stretches, m)
		}
	}
	for len(stretches) > 0 {
		page := stretches[:min(len(stretches), queryPage)]
		stretches = stretches[len(page):]
		args := make([]any, 0, 4*len(page))
		for _, m := range page {
			args = append(args, int64(m.ID), int64(user), int64(max(m.read(), m.last()-unreadMost)), int64(m.last()))
		}
		var own []struct {
			ID im.ConversationID `db:"conversation_id"`
			N  int64             `db:"n"`
		}
		if err := s.db.SelectContext(ctx, &own, `SELECT conversation_id, COUNT(*) AS n FROM messages WHERE `+
			alternatives(`(conversation_id = ? AND sender_id = ? AND seq > ? AND seq <= ?)`, len(page))+` GROUP BY conversation_id`, args...); err != nil {
			return nil, fmt.Errorf("count own messages: %w", err)
		}
		for _, o := range own {
			out[o.ID] -= o.N
		}
	}
	return out, nil
}

// alternatives returns a condition n times, joined by OR.
func alternatives(cond string, n int) string {
	return strings.TrimSuffix(strings.Repeat(cond+` OR `, n), ` OR `)
}
