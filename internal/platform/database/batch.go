package database

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jmoiron/sqlx"
)

// Batches is a pool for transactions of two round trips: one that begins and
// reads under locks, one that writes and commits. For a transaction of five
// statements that halves what the server, the caller and the wait cost.
//
// Its sessions take several statements in one query, which those of Open do not:
// no text from outside may ever be part of a statement, only an argument.
type Batches struct{ db *sqlx.DB }

// OpenBatches is Open for Batches. cfg.MaxOpen bounds the transactions at a time.
func OpenBatches(ctx context.Context, cfg Config) (*Batches, error) {
	db, err := open(ctx, cfg, true)
	if err != nil {
		return nil, err
	}
	return &Batches{db: db}, nil
}

// Close closes the pool.
func (b *Batches) Close() error { return b.db.Close() }

// rollbackTimeout bounds the ROLLBACK of a failed transaction; a session that
// does not answer it is thrown away, which rolls back as well.
const rollbackTimeout = time.Second

// In runs f in a READ COMMITTED transaction and commits, with the promises of
// InTx: nothing stays of a run that failed or panicked, deadlocks and lock waits
// run f again, and an unknown outcome wraps ErrCommitUnknown.
func (b *Batches) In(ctx context.Context, f func(*Batch) error) error {
	return again(ctx, func() error { return b.run(ctx, f) })
}

// Once is In without running f again.
func (b *Batches) Once(ctx context.Context, f func(*Batch) error) error { return b.run(ctx, f) }

func (b *Batches) run(ctx context.Context, f func(*Batch) error) error {
	conn, err := b.db.Connx(ctx)
	if err != nil {
		return fmt.Errorf("database: begin: %w", err)
	}
	tx := &Batch{conn: conn}
	done := false
	defer func() {
		if !done && tx.begun {
			tx.rollback(ctx)
		}
		_ = conn.Close()
	}()
	if err := f(tx); err != nil {
		return err
	}
	if err := tx.commit(ctx); err != nil {
		return err
	}
	done = true
	return nil
}

// Batch is a transaction under way. Reads see what was committed before and lock
// what they say; writes are done after f returned, with the commit. It is not
// safe for concurrent use, and rows must be closed before the next read.
type Batch struct {
	conn  *sqlx.Conn
	begun bool
	query strings.Builder // the writes
	args  []any
}

var _ sqlx.QueryerContext = (*Batch)(nil)

// begin notes that the transaction has begun, which it does by itself with the
// first query: the pool's sessions do not commit by themselves.
func (b *Batch) begin(query string) string {
	b.begun = true
	return query
}

// QueryContext implements sqlx.QueryerContext.
func (b *Batch) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	return b.conn.QueryContext(ctx, b.begin(query), args...)
}

// QueryxContext implements sqlx.QueryerContext.
func (b *Batch) QueryxContext(ctx context.Context, query string, args ...any) (*sqlx.Rows, error) {
	return b.conn.QueryxContext(ctx, b.begin(query), args...)
}

// QueryRowxContext implements sqlx.QueryerContext.
func (b *Batch) QueryRowxContext(ctx context.Context, query string, args ...any) *sqlx.Row {
	return b.conn.QueryRowxContext(ctx, b.begin(query), args...)
}

// Write adds one statement to those that go with the commit, in order. Its
// error comes from there.
func (b *Batch) Write(query string, args ...any) {
	b.query.WriteString(query)
	b.query.WriteString("; ")
	b.args = append(b.args, args...)
}

func (b *Batch) commit(ctx context.Context) error {
	if !b.begun && b.query.Len() == 0 {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("database: rolled back: %w", err)
	}
	_, err := b.conn.ExecContext(ctx, b.begin(asOne(b.query.String())), b.args...)
	return batchError(err)
}

// asOne puts writes, each ended by a semicolon, and their COMMIT into one query.
// MariaDB takes them as one statement and answers once instead of after each; that
// saves a packet, and often a wake-up on either side, for each of them. MySQL reads
// over what only MariaDB understands.
func asOne(writes string) string {
	if writes == "" {
		return "COMMIT"
	}
	return "/*M!100101 BEGIN NOT ATOMIC */ " + writes + "COMMIT /*M!100101 ; END */"
}

// batchError decides whether writes that failed together with their COMMIT
// surely changed nothing. The server stops at the first statement that fails, so
// an error that COMMIT cannot have is proof that it was never reached.
func batchError(err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*mysql.MySQLError](err); ok {
		switch string(e.SQLState[:2]) {
		case "22", "23", "42": // bad data, broken constraint, bad statement or missing right
			return fmt.Errorf("database: rolled back: %w", err)
		}
		switch e.Number {
		case errDiskFull, errTableFull, errWrongValue, errNoDefault:
			return fmt.Errorf("database: rolled back: %w", err)
		}
	}
	// The driver says so only if it sent nothing, or of a server that is read-only and
	// has refused a write or the COMMIT of writes, which rolls them back.
	if errors.Is(err, driver.ErrBadConn) {
		return fmt.Errorf("database: rolled back: %w", err)
	}
	switch number(err) {
	case errDeadlock, errLockWaitTimeout, errReadOnlyOption, errReadOnlyTx, errReadOnlyMode:
		return fmt.Errorf("database: rolled back: %w", err)
	}
	return fmt.Errorf("%w: %w", ErrCommitUnknown, err)
}

// rollback ends a transaction that failed, also when its context is over.
func (b *Batch) rollback(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTimeout)
	defer cancel()
	if _, err := b.conn.ExecContext(ctx, "ROLLBACK"); err != nil {
		// The pool must not hand out a session with an open transaction.
		_ = b.conn.Raw(func(any) error { return driver.ErrBadConn })
	}
}
