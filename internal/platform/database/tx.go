package database

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jmoiron/sqlx"
)

// txAttempts bounds how often InTx runs f.
const txAttempts = 5

// InTx runs f in a READ COMMITTED transaction and commits. If f returns an
// error or panics, everything is rolled back and the error (the panic) goes on.
//
// On a deadlock or a lock wait timeout the whole of f is run again, a bounded
// number of times with growing, jittered pauses, so f must not keep state from
// an earlier run. When the outcome of COMMIT cannot be known the error wraps
// ErrCommitUnknown and f is not run again.
func InTx(ctx context.Context, db *sqlx.DB, f func(tx *sqlx.Tx) error) error {
	return again(ctx, func() error { return runTx(ctx, db, f) })
}

// again runs a whole transaction once more, and more, while it loses to others.
func again(ctx context.Context, run func() error) error {
	for attempt := 1; ; attempt++ {
		err := run()
		if err == nil || attempt == txAttempts || !IsRetryable(err) || IsCommitUnknown(err) {
			return err
		}
		pause := time.Duration(attempt) * 4 * time.Millisecond
		select {
		case <-time.After(pause/2 + rand.N(pause)): //nolint:gosec // jitter
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		}
	}
}

func runTx(ctx context.Context, db *sqlx.DB, f func(tx *sqlx.Tx) error) (err error) {
	tx, err := db.BeginTxx(ctx, nil) // the session is READ COMMITTED, see connector
	if err != nil {
		return fmt.Errorf("database: begin: %w", err)
	}
	committing := false
	defer func() {
		if !committing {
			_ = tx.Rollback() // also on a panic, which goes on by itself
		}
	}()
	if err := f(tx); err != nil {
		return err
	}
	committing = true
	if err := tx.Commit(); err != nil {
		if errors.Is(err, sql.ErrTxDone) && ctx.Err() != nil {
			err = ctx.Err() // database/sql saw the end first; say why
		}
		return commitError(err)
	}
	return nil
}

// commitError decides whether a failed COMMIT surely changed nothing.
func commitError(err error) error {
	switch {
	case errors.Is(err, sql.ErrTxDone), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		// database/sql looks at the context before it sends COMMIT; the
		// driver's own answer to COMMIT never carries a context error.
		return fmt.Errorf("database: rolled back: %w", err)
	case errors.Is(err, driver.ErrBadConn): // nothing was sent, or the server is read-only and has rolled back
		return fmt.Errorf("database: rolled back: %w", err)
	}
	switch number(err) {
	case errDeadlock, errLockWaitTimeout, errReadOnlyOption, errReadOnlyTx, errReadOnlyMode:
		return fmt.Errorf("database: rolled back: %w", err)
	}
	return fmt.Errorf("%w: %w", ErrCommitUnknown, err)
}
