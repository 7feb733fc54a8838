package floor

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jmoiron/sqlx"

	"im-services/internal/bench/procs"
	"im-services/internal/platform/config"
	"im-services/internal/platform/database"
)

// StoreResult is what storing costs in batches of one size.
type StoreResult struct {
	Batch         int     `json:"batch"`
	Writers       int     `json:"writers"`
	RowsPerSecond float64 `json:"rows_per_s"`
	// CPU of the database server per row, in microseconds; 0 if its process is
	// not known.
	CPU float64 `json:"cpu_us_per_row"`
}

// Durability asks a server for the settings that decide what a COMMIT promises.
func Durability(ctx context.Context, dsn string) (map[string]string, error) {
	db, err := database.Open(ctx, database.Config{DSN: config.Secret(dsn), MaxOpen: 1})
	if err != nil {
		return nil, err
	}
	defer db.Close()
	rows, err := db.QueryContext(ctx, `SHOW GLOBAL VARIABLES WHERE Variable_name IN
		('innodb_flush_log_at_trx_commit', 'sync_binlog', 'log_bin', 'innodb_doublewrite', 'version')`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := map[string]string{}
	for rows.Next() {
		var name, value string
		if err := rows.Scan(&name, &value); err != nil {
			return nil, err
		}
		out[name] = value
	}
	return out, rows.Err()
}

// Store inserts rows like messages, each batch in a transaction of its own, for
// d, by so many writers at once. It makes a database of its own on the server of
// dsn, whose account may do that, and drops it after.
func Store(ctx context.Context, dsn string, mysql []procs.Process, batch, writers int, d time.Duration) (_ StoreResult, err error) {
	res := StoreResult{Batch: batch, Writers: writers}
	db, err := database.Open(ctx, database.Config{DSN: config.Secret(dsn), MaxOpen: writers})
	if err != nil {
		return res, err
	}
	defer db.Close()
	var tag [4]byte
	if _, err := rand.Read(tag[:]); err != nil {
		return res, err
	}
	name := "bench_probe_" + hex.EncodeToString(tag[:])
	if _, err := db.ExecContext(ctx, "CREATE DATABASE "+name); err != nil {
		return res, err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		if _, dropErr := db.ExecContext(ctx, "DROP DATABASE "+name); err == nil {
			err = dropErr
		}
	}()
	table := name + ".messages"
	if _, err := db.ExecContext(ctx, "CREATE TABLE "+table+` (
		conversation_id BIGINT NOT NULL, seq BIGINT NOT NULL, id BIGINT NOT NULL, sender_id BIGINT NOT NULL,
		client_msg_id BIGINT NOT NULL, body TEXT NOT NULL, sent_at_ms BIGINT NOT NULL,
		PRIMARY KEY (conversation_id, seq), UNIQUE KEY (conversation_id, sender_id, client_msg_id))`); err != nil {
		return res, err
	}
	query := "INSERT INTO " + table + " VALUES " + strings.Repeat("(?,?,?,?,?,?,?),", batch)
	query = query[:len(query)-1]
	body := strings.Repeat("x", 100)

	var rows atomic.Int64
	var firstErr error
	var once sync.Once
	stop := time.Now().Add(d)
	before := procs.Take(mysql)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			if err := storeLoop(ctx, db, query, body, int64(w+1), batch, stop, &rows); err != nil {
				once.Do(func() { firstErr = err })
			}
		})
	}
	wg.Wait()
	use := procs.Take(mysql).Since(before, 0)
	if firstErr != nil {
		return res, firstErr
	}
	n := float64(rows.Load())
	res.RowsPerSecond = n / use.Seconds
	res.CPU = use.Total() * 1e6 / max(n, 1)
	return res, nil
}

func storeLoop(ctx context.Context, db *sqlx.DB, query, body string, conversation int64, batch int, stop time.Time, rows *atomic.Int64) error {
	args := make([]any, 0, 7*batch)
	for seq := int64(0); time.Now().Before(stop); {
		args = args[:0]
		for range batch {
			seq++
			args = append(args, conversation, seq, conversation<<40|seq, conversation, seq, body, seq)
		}
		if _, err := db.ExecContext(ctx, query, args...); err != nil {
			return fmt.Errorf("insert %d rows: %w", batch, err)
		}
		rows.Add(int64(batch))
	}
	return nil
}
