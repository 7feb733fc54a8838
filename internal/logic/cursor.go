package logic

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"github.com/jmoiron/sqlx"

	logicv1 "im-services/api/proto/logic/v1"
	"im-services/internal/failpoint"
	"im-services/internal/im"
	"im-services/internal/platform/database"
)

// cursor is what one platform of a user has proved to have received of a
// conversation: 1..Delivered and RangeLo..RangeHi.
type cursor struct {
	Delivered im.Seq `db:"delivered_seq"`
	RangeLo   im.Seq `db:"range_lo"`
	RangeHi   im.Seq `db:"range_hi"`
}

// missing returns the runs of 1..last that the cursor does not cover, as
// (after, upTo] pairs, oldest first.
func (c cursor) missing(last im.Seq) [][2]im.Seq {
	var out [][2]im.Seq
	from := c.Delivered
	if c.RangeHi > from {
		if c.RangeLo-1 > from {
			out = append(out, [2]im.Seq{from, min(c.RangeLo-1, last)})
		}
		from = c.RangeHi
	}
	if from < last {
		out = append(out, [2]im.Seq{from, last})
	}
	return out
}

// deliveredKey names one cursor.
type deliveredKey struct {
	user     im.UserID
	platform im.Platform
	conv     im.ConversationID
}

// Acknowledge moves delivered cursors. They never move back, and never past
// what exists: a client may say anything.
func (s *Server) Acknowledge(ctx context.Context, req *logicv1.AcknowledgeRequest) (*logicv1.AcknowledgeResponse, error) {
	acks := make(map[deliveredKey]im.Seq, len(req.GetAcks()))
	add := func(k deliveredKey, seq im.Seq) {
		if seq > acks[k] && k.user.Valid() && k.conv.Valid() {
			acks[k] = seq
		}
	}
	byID := map[im.MessageID][]deliveredKey{}
	for _, a := range req.GetAcks() {
		k := deliveredKey{im.UserID(a.GetUserId()), im.Platform(a.GetPlatform()), im.ConversationID(a.GetConversationId())} //nolint:gosec // 1..3
		if k.conv == 0 {
			id := im.MessageID(a.GetMessageId())
			byID[id] = append(byID[id], k)
			continue
		}
		add(k, im.Seq(a.GetSeq()))
	}
	if len(byID) > 0 {
		if err := s.store.placeByID(ctx, byID, add); err != nil {
			return nil, err
		}
	}
	if err := s.store.moveDelivered(ctx, acks); err != nil {
		return nil, err
	}
	return &logicv1.AcknowledgeResponse{}, nil
}

// placeByID resolves acks that name a message id.
func (s *store) placeByID(ctx context.Context, byID map[im.MessageID][]deliveredKey, add func(deliveredKey, im.Seq)) error {
	ids := make([]im.MessageID, 0, len(byID))
	for id := range byID {
		ids = append(ids, id)
	}
	rows, err := s.db.QueryContext(ctx, `SELECT id, conversation_id, seq FROM messages WHERE id IN (`+placeholders(len(ids))+`)`, anys(ids)...)
	if err != nil {
		return fmt.Errorf("find acknowledged messages: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var (
			id   im.MessageID
			conv im.ConversationID
			seq  im.Seq
		)
		if err := rows.Scan(&id, &conv, &seq); err != nil {
			return err
		}
		for _, k := range byID[id] {
			k.conv = conv
			add(k, seq)
		}
	}
	return rows.Err()
}

// ackPage bounds the cursors written in one statement.
const ackPage = 256

// moveDelivered writes cursors.
func (s *store) moveDelivered(ctx context.Context, acks map[deliveredKey]im.Seq) error {
	keys := make([]deliveredKey, 0, len(acks))
	for k := range acks {
		keys = append(keys, k)
	}
	for len(keys) > 0 {
		n := min(len(keys), ackPage)
		if err := s.moveDeliveredPage(ctx, keys[:n], acks); err != nil {
			return err
		}
		keys = keys[n:]
	}
	return nil
}

// moveDeliveredPage writes cursors, clamped to each conversation's last seq and only
// for its members. The range beside a cursor is absorbed once the cursor reaches it.
//
// The acks are a table that is joined: as alternatives of a WHERE, each row found
// would be compared with every one of them.
func (s *store) moveDeliveredPage(ctx context.Context, keys []deliveredKey, acks map[deliveredKey]im.Seq) error {
	if err := failpoint.Hit("logic.before_cursor"); err != nil {
		return err
	}
	query := `INSERT INTO cursors (user_id, platform, conversation_id, delivered_seq)
		SELECT a.user_id, a.platform, m.conversation_id, LEAST(a.seq, IF(m.end_seq > 0, m.end_seq, c.last_seq))
		FROM (SELECT ? AS user_id, ? AS platform, ? AS conversation_id, ? AS seq` + strings.Repeat(` UNION ALL SELECT ?,?,?,?`, len(keys)-1) + `) a
		JOIN members m ON m.conversation_id = a.conversation_id AND m.user_id = a.user_id
		JOIN conversations c ON c.id = a.conversation_id WHERE IF(m.end_seq > 0, m.end_seq, c.last_seq) > 0
		ON DUPLICATE KEY UPDATE delivered_seq = IF(cursors.range_hi > 0 AND GREATEST(cursors.delivered_seq, VALUES(delivered_seq)) >= cursors.range_lo - 1,
			GREATEST(cursors.delivered_seq, VALUES(delivered_seq), cursors.range_hi), GREATEST(cursors.delivered_seq, VALUES(delivered_seq)))`
	args := make([]any, 0, 4*len(keys))
	for _, k := range keys {
		args = append(args, int64(k.user), int64(k.platform), int64(k.conv), int64(acks[k]))
	}
	if _, err := s.db.ExecContext(ctx, query, args...); err != nil {
		return fmt.Errorf("move delivered cursors: %w", err)
	}
	return failpoint.Hit("logic.after_cursor")
}

// markPageDelivered counts a fetched first page of history, rows first..last, as
// delivered. Older messages that still wait stay undelivered, so the page
// becomes the range beside the cursor unless it touches it.
func (s *store) markPageDelivered(ctx context.Context, user im.UserID, platform im.Platform, conv im.ConversationID, first, last im.Seq) error {
	if last < first || first < 1 {
		return nil
	}
	err := database.InTx(ctx, s.db, func(tx *sqlx.Tx) error {
		var c cursor
		err := tx.GetContext(ctx, &c, `SELECT delivered_seq, range_lo, range_hi FROM cursors
			WHERE user_id = ? AND platform = ? AND conversation_id = ? FOR UPDATE`, int64(user), int64(platform), int64(conv))
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		c = c.withPage(first, last)
		_, err = tx.ExecContext(ctx, `INSERT INTO cursors (user_id, platform, conversation_id, delivered_seq, range_lo, range_hi) VALUES (?,?,?,?,?,?)
			ON DUPLICATE KEY UPDATE delivered_seq = GREATEST(delivered_seq, VALUES(delivered_seq)), range_lo = VALUES(range_lo), range_hi = VALUES(range_hi)`,
			int64(user), int64(platform), int64(conv), int64(c.Delivered), int64(c.RangeLo), int64(c.RangeHi))
		return err
	})
	if err != nil {
		return fmt.Errorf("mark page delivered: %w", err)
	}
	return nil
}

// withPage adds first..last to what is delivered. A cursor has room for one
// range: of two that do not touch, the newer stays and the older replays.
func (c cursor) withPage(first, last im.Seq) cursor {
	if c.RangeHi > 0 && first <= c.RangeHi+1 && c.RangeLo <= last+1 {
		first, last = min(first, c.RangeLo), max(last, c.RangeHi)
	}
	switch {
	case first <= c.Delivered+1:
		return cursor{Delivered: max(c.Delivered, last)}
	case last < c.RangeHi:
		return c
	default:
		return cursor{Delivered: c.Delivered, RangeLo: first, RangeHi: last}
	}
}
