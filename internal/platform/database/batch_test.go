package database_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jmoiron/sqlx"
	"github.com/stretchr/testify/require"

	"im-services/internal/platform/config"
	"im-services/internal/platform/database"
	"im-services/internal/testkit"
)

func openBatches(t *testing.T, dsn string, change ...func(*database.Config)) *database.Batches {
	t.Helper()
	cfg := database.Config{DSN: config.Secret(dsn)}
	for _, f := range change {
		f(&cfg)
	}
	b, err := database.OpenBatches(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// lock reads a row under its lock.
func lock(ctx context.Context, tx *database.Batch, id int) (n int, err error) {
	err = sqlx.GetContext(ctx, tx, &n, "SELECT n FROM x WHERE id = ? FOR UPDATE", id)
	return n, err
}

func TestBatches_CommitOrRollBack(t *testing.T) {
	dsn := testkit.MySQL(t)
	db, batches := open(t, dsn), openBatches(t, dsn, func(c *database.Config) { c.MaxOpen = 1 })
	exec(t, db, "CREATE TABLE x (id BIGINT PRIMARY KEY, n BIGINT NOT NULL)")
	exec(t, db, "INSERT INTO x VALUES (1, 0)")
	rows := func() (n, sum int) {
		require.NoError(t, db.QueryRow("SELECT COUNT(*), SUM(n) FROM x").Scan(&n, &sum))
		return n, sum
	}
	count := func(ctx context.Context, then func(tx *database.Batch) error) error {
		return batches.In(ctx, func(tx *database.Batch) error {
			n, err := lock(ctx, tx, 1)
			if err != nil {
				return err
			}
			tx.Write("UPDATE x SET n = ? WHERE id = 1", n+1)
			return then(tx)
		})
	}
	require.NoError(t, count(t.Context(), func(tx *database.Batch) error {
		tx.Write("INSERT INTO x VALUES (?, ?)", 2, 10)
		tx.Write("INSERT INTO x VALUES (?, ?)", 3, 100)
		return nil
	}))
	n, sum := rows()
	require.Equal(t, []int{3, 111}, []int{n, sum})

	boom := errors.New("boom")
	require.Equal(t, boom, count(t.Context(), func(*database.Batch) error { return boom }))
	require.Panics(t, func() { _ = count(t.Context(), func(*database.Batch) error { panic("boom") }) })
	err := count(t.Context(), func(tx *database.Batch) error {
		tx.Write("INSERT INTO x VALUES (4, 1)")
		tx.Write("INSERT INTO x VALUES (?, ?)", 2, 20)
		return nil
	})
	require.True(t, database.IsDuplicate(err))
	require.False(t, database.IsCommitUnknown(err), "the server stops before COMMIT")
	err = count(t.Context(), func(tx *database.Batch) error {
		tx.Write("INSERT INTO nowhere VALUES (1)")
		return nil
	})
	require.Error(t, err)
	require.False(t, database.IsCommitUnknown(err))
	ctx, cancel := context.WithCancel(t.Context())
	err = count(ctx, func(*database.Batch) error { cancel(); return nil })
	require.ErrorIs(t, err, context.Canceled)
	require.False(t, database.IsCommitUnknown(err), "nothing was sent")
	n, sum = rows()
	require.Equal(t, []int{3, 111}, []int{n, sum}, "nothing stays of what failed")

	// Nothing failed left its session in a transaction: the only one there is still commits.
	require.NoError(t, count(t.Context(), func(*database.Batch) error { return nil }))
	_, sum = rows()
	require.Equal(t, 112, sum)
	require.NoError(t, batches.In(t.Context(), func(*database.Batch) error { return nil }), "no statement at all")
}

// TestBatches_LockOrderIsKept: transactions of two pools wait for each other's
// row locks, none loses what another wrote.
func TestBatches_LockOrderIsKept(t *testing.T) {
	dsn := testkit.MySQL(t)
	db, batches := open(t, dsn), openBatches(t, dsn)
	exec(t, db, "CREATE TABLE x (id BIGINT PRIMARY KEY, n BIGINT NOT NULL)")
	exec(t, db, "INSERT INTO x VALUES (1, 0)")
	const writers, times = 8, 25
	failed := make(chan error, 2*writers)
	for range writers {
		go func() {
			for range times {
				if err := batches.In(t.Context(), func(tx *database.Batch) error {
					n, err := lock(t.Context(), tx, 1)
					tx.Write("UPDATE x SET n = ? WHERE id = 1", n+1)
					return err
				}); err != nil {
					failed <- err
					return
				}
			}
			failed <- nil
		}()
		go func() {
			for range times {
				if err := database.InTx(t.Context(), db, func(tx *sqlx.Tx) error {
					_, err := tx.Exec("UPDATE x SET n = n + 1 WHERE id = 1")
					return err
				}); err != nil {
					failed <- err
					return
				}
			}
			failed <- nil
		}()
	}
	for range 2 * writers {
		require.NoError(t, <-failed)
	}
	var n int
	require.NoError(t, db.Get(&n, "SELECT n FROM x"))
	require.Equal(t, 2*writers*times, n)
}

// TestBatches_LostAnswerIsUnknown: the answer to the writes and COMMIT is lost;
// nobody can say what became of them, and they are not run again.
func TestBatches_LostAnswerIsUnknown(t *testing.T) {
	dsn := testkit.MySQL(t)
	db := open(t, dsn)
	exec(t, db, "CREATE TABLE x (id BIGINT PRIMARY KEY, n BIGINT NOT NULL)")
	exec(t, db, "INSERT INTO x VALUES (1, 0)")
	mc, err := mysql.ParseDSN(dsn)
	require.NoError(t, err)
	proxy := newCutProxy(t, mc.Addr)
	mc.Net, mc.Addr = "tcp", proxy.addr
	batches := openBatches(t, mc.FormatDSN())
	runs := 0
	err = batches.In(t.Context(), func(tx *database.Batch) error {
		runs++
		_, err := lock(t.Context(), tx, 1)
		tx.Write("UPDATE x SET n = 7 WHERE id = 1")
		proxy.swallow.Store(true)
		return err
	})
	require.True(t, database.IsCommitUnknown(err), "%v", err)
	require.Equal(t, 1, runs)
	require.Eventually(t, func() bool {
		var n int
		return db.Get(&n, "SELECT n FROM x") == nil && n == 7
	}, 5*time.Second, 5*time.Millisecond, "this time it had happened")

	// Lost before anything was written: that is known.
	proxy.swallow.Store(false)
	err = batches.In(t.Context(), func(tx *database.Batch) error {
		proxy.swallow.Store(true)
		_, err := lock(t.Context(), tx, 1)
		return err
	})
	require.Error(t, err)
	require.False(t, database.IsCommitUnknown(err))
	require.True(t, database.IsUnavailable(err), "%v", err)
}

// A NULL where none may be stops a transaction, whatever else its statements
// would do: that is how a statement says that a condition does not hold.
func TestBatches_NullRefusedStopsTheTransaction(t *testing.T) {
	dsn := testkit.MySQL(t)
	db, batches := open(t, dsn), openBatches(t, dsn)
	exec(t, db, "CREATE TABLE x (id BIGINT PRIMARY KEY, n BIGINT NOT NULL)")
	exec(t, db, "INSERT INTO x VALUES (1, 5), (2, 6)")
	move := func(was int) error {
		return batches.Once(t.Context(), func(tx *database.Batch) error {
			tx.Write("INSERT INTO x VALUES (1, ?), (2, ?) ON DUPLICATE KEY UPDATE n = IF(n = VALUES(n), n + 10, NULL)", 5, was)
			tx.Write("INSERT INTO x VALUES (?, 1)", 100+was)
			return nil
		})
	}
	err := move(7)
	require.True(t, database.IsNullRefused(err), "%v", err)
	require.False(t, database.IsCommitUnknown(err))
	var sum int
	require.NoError(t, db.Get(&sum, "SELECT SUM(n) FROM x"))
	require.Equal(t, 11, sum, "nothing stays of it")
	require.NoError(t, move(6))
	require.NoError(t, db.Get(&sum, "SELECT SUM(n) FROM x"))
	require.Equal(t, 32, sum)
}

// MariaDB answers once for all writes and their COMMIT; MySQL, which reads over what
// only MariaDB understands, finds the same statements one after another.
func TestBatches_AreAnsweredOnce(t *testing.T) {
	dsn := testkit.MySQL(t)
	db, batches := open(t, dsn), openBatches(t, dsn)
	exec(t, db, "CREATE TABLE x (id BIGINT PRIMARY KEY, n BIGINT NOT NULL)")
	compound := func() (n int) {
		var name string
		require.NoError(t, db.QueryRow("SHOW GLOBAL STATUS LIKE 'Com_compound_sql'").Scan(&name, &n))
		return n
	}
	before := compound()
	require.NoError(t, batches.Once(t.Context(), func(tx *database.Batch) error {
		tx.Write("INSERT INTO x VALUES (?, 1)", 1)
		tx.Write("INSERT INTO x VALUES (?, 2)", 2)
		return nil
	}))
	require.Equal(t, before+1, compound())
}
