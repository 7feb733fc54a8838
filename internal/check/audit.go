package check

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"

	"im-services/internal/imclient"
)

// audit reads the database as it stands into the history. Only conversations of
// this run's people are read; the outbox is everybody's.
func (r *run) audit() error {
	dsn, err := r.system.database()
	if err != nil || dsn == "" {
		return err
	}
	ctx, cancel := context.WithTimeout(r.ctx, 5*time.Minute)
	defer cancel()
	db, err := sql.Open("mysql", dsn)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	var users []any
	for _, a := range r.everybody() {
		users = append(users, a.user.ID)
	}
	marks := strings.TrimSuffix(strings.Repeat("?,", len(users)), ",")
	ours := `(SELECT DISTINCT conversation_id FROM members WHERE user_id IN (` + marks + `))`
	err = each(ctx, db, func(rows *sql.Rows) error {
		e := Event{Type: imclient.OK, Op: OpConv}
		if err := rows.Scan(&e.Conversation, &e.Seq, &e.Channel); err != nil {
			return err
		}
		r.log.add(&e)
		return nil
	}, `SELECT id, last_seq, kind FROM conversations WHERE id IN `+ours, users...)
	if err != nil {
		return err
	}
	err = each(ctx, db, func(rows *sql.Rows) error {
		e := Event{Type: imclient.OK, Op: OpRow}
		if err := rows.Scan(&e.Conversation, &e.Seq, &e.ID, &e.From, &e.ClientID, &e.Text); err != nil {
			return err
		}
		r.log.add(&e)
		return nil
	}, `SELECT conversation_id, seq, id, sender_id, client_msg_id, text FROM messages WHERE conversation_id IN `+ours+` ORDER BY conversation_id, seq`, users...)
	if err != nil {
		return err
	}
	for table, query := range map[string]string{
		"messages": `SELECT COUNT(*) FROM messages m LEFT JOIN conversations c ON c.id = m.conversation_id WHERE c.id IS NULL`,
		"members":  `SELECT COUNT(*) FROM members m LEFT JOIN conversations c ON c.id = m.conversation_id WHERE c.id IS NULL`,
		"cursors":  `SELECT COUNT(*) FROM cursors u JOIN conversations c ON c.id = u.conversation_id WHERE u.delivered_seq > c.last_seq`,
	} {
		if err := r.number(ctx, db, &Event{Type: imclient.OK, Op: OpOrphan, Text: table}, query); err != nil {
			return err
		}
	}
	return r.number(ctx, db, &Event{Type: imclient.OK, Op: OpOutbox}, `SELECT COUNT(*) FROM outbox`)
}

// number puts the answer of a query into e and adds it.
func (r *run) number(ctx context.Context, db *sql.DB, e *Event, query string) error {
	if err := db.QueryRowContext(ctx, query).Scan(&e.Seq); err != nil {
		return fmt.Errorf("check: audit: %w", err)
	}
	r.log.add(e)
	return nil
}

func each(ctx context.Context, db *sql.DB, f func(*sql.Rows) error, query string, args ...any) error {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return fmt.Errorf("check: audit: %w", err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		if err := f(rows); err != nil {
			return fmt.Errorf("check: audit: %w", err)
		}
	}
	return rows.Err()
}
