package database_test

import (
	"context"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/stretchr/testify/require"

	"im-services/internal/platform/database"
	"im-services/internal/testkit"
)

// TestG2_WhoStandsStillHoldsNoLock: a process that is stopped, or cut off, in the
// middle of a transaction loses it within two seconds, and knows when it goes on
// that nothing happened.
func TestG2_WhoStandsStillHoldsNoLock(t *testing.T) {
	dsn := testkit.MySQL(t)
	one := func(c *database.Config) { c.MaxOpen = 1 }
	db := open(t, dsn)
	exec(t, db, "CREATE TABLE x (id BIGINT PRIMARY KEY, n BIGINT NOT NULL)")
	exec(t, db, "INSERT INTO x VALUES (1, 0)")

	// Each holds the row's lock, waits, and writes 100. The pools have one session.
	stopped := open(t, dsn, one)
	stoppedBatches := openBatches(t, dsn, one)
	holders := map[string]func(wait func()) error{
		"at a commit": func(wait func()) error {
			return database.InTx(t.Context(), stopped, func(tx *sqlx.Tx) error {
				_, err := tx.Exec("UPDATE x SET n = 100 WHERE id = 1")
				wait()
				return err
			})
		},
		"at a statement": func(wait func()) error {
			return database.InTx(t.Context(), stopped, func(tx *sqlx.Tx) error {
				_, err := tx.Exec("SELECT n FROM x WHERE id = 1 FOR UPDATE")
				require.NoError(t, err)
				wait()
				_, err = tx.Exec("UPDATE x SET n = 100 WHERE id = 1")
				return err
			})
		},
		"at a batch's commit": func(wait func()) error {
			return stoppedBatches.In(t.Context(), func(tx *database.Batch) error {
				_, err := lock(t.Context(), tx, 1)
				tx.Write("UPDATE x SET n = 100 WHERE id = 1")
				wait()
				return err
			})
		},
		"at a batch's read": func(wait func()) error {
			return stoppedBatches.In(t.Context(), func(tx *database.Batch) error {
				_, err := lock(t.Context(), tx, 1)
				require.NoError(t, err)
				wait()
				_, err = lock(t.Context(), tx, 1)
				tx.Write("UPDATE x SET n = 100 WHERE id = 1")
				return err
			})
		},
	}
	want := 0
	for name, hold := range holders {
		t.Run(name, func(t *testing.T) {
			locked, done := make(chan struct{}), make(chan error, 1)
			stop, goOn := context.WithCancel(t.Context())
			defer goOn()
			go func() { done <- hold(func() { close(locked); <-stop.Done() }) }()
			<-locked
			begin := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
			defer cancel()
			require.NoError(t, database.InTx(ctx, db, func(tx *sqlx.Tx) error {
				_, err := tx.ExecContext(ctx, "UPDATE x SET n = n + 1 WHERE id = 1")
				return err
			}))
			want++
			require.Less(t, time.Since(begin), 3*time.Second+busySlack)

			goOn()
			err := <-done
			require.True(t, database.IsUnavailable(err), "%v", err)
			require.False(t, database.IsCommitUnknown(err), "%v", err)
			var n int
			require.NoError(t, db.Get(&n, "SELECT n FROM x"))
			require.Equal(t, want, n)
			require.NoError(t, stopped.Ping(), "the pool has let the dead session go")
			require.NoError(t, stoppedBatches.In(t.Context(), func(tx *database.Batch) error {
				_, err := lock(t.Context(), tx, 1)
				return err
			}))
		})
	}
}

// busySlack is what a busy machine may add to any limit.
const busySlack = 5 * time.Second

// A session between two transactions may be idle for as long as it likes, and the
// pool for migrations always.
func TestIdleTx_SparesWhoIsInNoTransaction(t *testing.T) {
	dsn := testkit.MySQL(t)
	one := func(c *database.Config) { c.MaxOpen, c.IdleTx = 1, time.Second }
	db, batches := open(t, dsn, one), openBatches(t, dsn, one)
	migrating := open(t, dsn, func(c *database.Config) { *c = c.ForMigration() })
	exec(t, db, "CREATE TABLE x (id BIGINT PRIMARY KEY, n BIGINT NOT NULL)")
	exec(t, db, "INSERT INTO x VALUES (1, 0)")
	session := func() (ids [2]int64) {
		require.NoError(t, db.Get(&ids[0], "SELECT CONNECTION_ID()"))
		require.NoError(t, batches.In(t.Context(), func(tx *database.Batch) error {
			if _, err := lock(t.Context(), tx, 1); err != nil {
				return err
			}
			return sqlx.GetContext(t.Context(), tx, &ids[1], "SELECT CONNECTION_ID()")
		}))
		return ids
	}
	before := session()
	tx, err := migrating.Beginx()
	require.NoError(t, err)
	exec(t, tx, "UPDATE x SET n = 1")
	time.Sleep(2500 * time.Millisecond)
	require.NoError(t, tx.Commit())
	require.Equal(t, before, session())
}
