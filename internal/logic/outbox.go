package logic

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jmoiron/sqlx"

	"im-services/internal/failpoint"
	"im-services/internal/im"
	"im-services/internal/platform/database"
)

const (
	// outboxFlush is how often the rows of published batches are removed. It is
	// well below outboxAge, so that no healthy batch is published twice.
	outboxFlush = 100 * time.Millisecond
	// outboxAge is when a row counts as forgotten by whoever wrote it.
	outboxAge = time.Second
	// outboxSweep is how often a replica looks for forgotten rows.
	outboxSweep = 500 * time.Millisecond
	// outboxAttempts bounds how often one row is published again. By then every
	// gateway has found by its watermark what was missing.
	outboxAttempts = 30
	// outboxPage is how many rows a sweep reads at a time.
	outboxPage = 64
)

// outbox removes the rows of what is published, and publishes what was
// forgotten. Every replica runs one; a row is claimed by compare-and-set.
type outbox struct {
	store *store
	log   *slog.Logger
	m     *metrics

	mu   sync.Mutex // guards rows
	rows []int64
}

// published notes that rows' pushes are on the bus; they are removed soon.
func (o *outbox) published(rows ...int64) {
	o.mu.Lock()
	o.rows = append(o.rows, rows...)
	o.mu.Unlock()
}

// run removes and sweeps until ctx ends, then removes what is noted.
func (o *outbox) run(ctx context.Context, republish func(context.Context, []committedMessage) error) {
	flush, sweep := time.NewTicker(outboxFlush), time.NewTicker(outboxSweep)
	defer flush.Stop()
	defer sweep.Stop()
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			o.remove(last)
			cancel()
			return
		case <-flush.C:
			o.remove(ctx)
		case <-sweep.C:
			if err := o.sweepAll(ctx, republish); err != nil && ctx.Err() == nil {
				o.log.Warn("outbox sweep stopped early", "err", err)
			}
		}
	}
}

func (o *outbox) remove(ctx context.Context) {
	o.mu.Lock()
	rows := o.rows
	o.rows = nil
	o.mu.Unlock()
	for len(rows) > 0 {
		n := min(len(rows), 512)
		if err := failpoint.Hit("logic.before_outbox_delete"); err != nil {
			o.published(rows...)
			return
		}
		_, err := o.store.db.ExecContext(ctx, `DELETE FROM outbox WHERE id IN (`+placeholders(n)+`)`, anys(rows[:n])...)
		if err != nil { // they would only be published again; keep them for the next round
			o.published(rows...)
			return
		}
		rows = rows[n:]
	}
}

// sweepAll publishes everything that was forgotten: a replica that died while it
// could not publish has left thousands of rows.
func (o *outbox) sweepAll(ctx context.Context, republish func(context.Context, []committedMessage) error) error {
	for {
		n, err := o.sweep(ctx, republish)
		if err != nil || n < outboxPage {
			return err
		}
		o.remove(ctx)
	}
}

// sweep publishes a page of rows that are older than outboxAge, and says how many
// it found. It stops at the first failure: the bus is away, and the next sweep
// probes again.
func (o *outbox) sweep(ctx context.Context, republish func(context.Context, []committedMessage) error) (found int, err error) {
	var rows []struct {
		ID       int64  `db:"id"`
		Ranges   []byte `db:"ranges"`
		Attempts int    `db:"attempts"`
	}
	err = o.store.db.SelectContext(ctx, &rows, `SELECT id, ranges, attempts FROM outbox
		WHERE created_at < NOW(3) - INTERVAL ? MICROSECOND ORDER BY id LIMIT ?`, outboxAge.Microseconds(), outboxPage)
	if err != nil {
		return 0, fmt.Errorf("read outbox: %w", err)
	}
	for _, row := range rows {
		res, err := o.store.db.ExecContext(ctx, `UPDATE outbox SET created_at = NOW(3), attempts = attempts + 1 WHERE id = ? AND attempts = ?`, row.ID, row.Attempts)
		if err != nil {
			return 0, fmt.Errorf("claim outbox row: %w", err)
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			continue // another replica has it, or its writer was only slow
		}
		if err := failpoint.Hit("logic.sweeper_claimed"); err != nil {
			return 0, err
		}
		msgs, err := o.store.loadRanges(ctx, row.Ranges)
		switch {
		case err == nil:
		case ctx.Err() != nil || database.IsUnavailable(err):
			return 0, err
		case row.Attempts < outboxAttempts: // it does not keep others from being published
			o.log.WarnContext(ctx, "an outbox row cannot be read", "id", row.ID, "attempts", row.Attempts, "err", err)
			continue
		default:
			o.log.ErrorContext(ctx, "an outbox row is given up", "id", row.ID, "err", err)
			o.published(row.ID)
			continue
		}
		if err := republish(ctx, msgs); err != nil && row.Attempts < outboxAttempts {
			return 0, err
		}
		if err := failpoint.Hit("logic.sweeper_published"); err != nil {
			return 0, err
		}
		o.m.republished.Inc()
		o.published(row.ID)
	}
	return len(rows), nil
}

// loadRanges reads the messages of an outbox row and who is to get each.
func (s *store) loadRanges(ctx context.Context, encoded []byte) ([]committedMessage, error) {
	ranges, err := decodeRanges(encoded)
	if err != nil {
		return nil, err
	}
	var out []committedMessage
	for _, r := range ranges {
		var c conversationRow
		if err := s.db.GetContext(ctx, &c, `SELECT `+conversationColumns+` FROM conversations WHERE id = ?`, int64(r.conv)); err != nil {
			return nil, fmt.Errorf("read conversation: %w", err)
		}
		rows, err := s.readMessages(ctx, s.db, r.conv, r.first-1, r.last, int(r.last-r.first+1))
		if err != nil {
			return nil, err
		}
		var members []memberWindow
		if c.Kind == im.Group {
			if members, err = s.memberWindows(ctx, r.conv); err != nil {
				return nil, err
			}
		}
		for i := range rows {
			m := &rows[i]
			cm := committedMessage{}
			if c.Kind == im.Group {
				cm.push = m.toPush(c.Kind, int64(c.ID))
				for _, w := range members {
					if w.sees(m.Seq) {
						cm.recipients = append(cm.recipients, w.UserID)
					}
				}
			} else {
				peer := c.peerOf(m.SenderID)
				cm.push = m.toPush(c.Kind, int64(peer))
				cm.sender, cm.recipients = m.SenderID, []im.UserID{peer}
			}
			out = append(out, cm)
		}
	}
	return out, nil
}

// selectMessages are those of a conversation between two places, the first of them.
const selectMessages = `SELECT ` + messageColumns + ` FROM messages
	WHERE conversation_id = ? AND seq > ? AND seq <= ? ORDER BY seq LIMIT ?`

// readMessages reads a conversation's messages with after < seq <= upTo, ascending.
func (s *store) readMessages(ctx context.Context, q sqlx.QueryerContext, conv im.ConversationID, after, upTo im.Seq, limit int) ([]messageRow, error) {
	var rows []messageRow
	err := sqlx.SelectContext(ctx, q, &rows, selectMessages, int64(conv), int64(after), int64(upTo), limit)
	if err != nil {
		return nil, fmt.Errorf("read messages: %w", err)
	}
	return rows, nil
}

// memberWindow is what one member, present or past, may see of a conversation.
type memberWindow struct {
	UserID   im.UserID `db:"user_id"`
	FirstSeq im.Seq    `db:"first_seq"`
	EndSeq   im.Seq    `db:"end_seq"`
}

func (w memberWindow) sees(seq im.Seq) bool {
	return seq >= w.FirstSeq && (w.EndSeq == 0 || seq <= w.EndSeq)
}

func (s *store) memberWindows(ctx context.Context, conv im.ConversationID) ([]memberWindow, error) {
	var out []memberWindow
	if err := s.db.SelectContext(ctx, &out, `SELECT user_id, first_seq, end_seq FROM members WHERE conversation_id = ?`, int64(conv)); err != nil {
		return nil, fmt.Errorf("read members: %w", err)
	}
	return out, nil
}
