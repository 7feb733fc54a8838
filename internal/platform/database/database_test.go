package database_test

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jmoiron/sqlx"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"im-services/internal/platform/config"
	"im-services/internal/platform/database"
	"im-services/internal/testkit"
)

func open(t *testing.T, dsn string, change ...func(*database.Config)) *sqlx.DB {
	t.Helper()
	cfg := database.Config{DSN: config.Secret(dsn)}
	for _, f := range change {
		f(&cfg)
	}
	db, err := database.Open(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func exec(t *testing.T, db sqlx.ExecerContext, query string, args ...any) {
	t.Helper()
	_, err := db.ExecContext(t.Context(), query, args...)
	require.NoError(t, err)
}

func TestOpen_ForcesTheSession(t *testing.T) {
	// Whatever the DSN asks for, the session is ours.
	dsn := testkit.MySQL(t)
	sep := "?"
	if strings.Contains(dsn, "?") {
		sep = "&"
	}
	db := open(t, dsn+sep+"sql_mode=''&time_zone='%2B08:00'&parseTime=false&multiStatements=true&clientFoundRows=false&charset=latin1&loc=Asia%2FTokyo&tx_isolation='SERIALIZABLE'")

	var mode, zone, charset, level string
	require.NoError(t, db.QueryRow("SELECT @@sql_mode, @@time_zone, @@character_set_client").Scan(&mode, &zone, &charset))
	require.Contains(t, mode, "STRICT_ALL_TABLES")
	require.Equal(t, "+00:00", zone)
	require.Equal(t, "utf8mb4", charset)
	if err := db.Get(&level, "SELECT @@transaction_isolation"); err != nil {
		require.NoError(t, db.Get(&level, "SELECT @@tx_isolation"))
	}
	require.Equal(t, "READ-COMMITTED", level)

	exec(t, db, "CREATE TABLE x (id BIGINT PRIMARY KEY, name VARCHAR(4), at DATETIME(6)) CHARSET utf8mb4 COLLATE utf8mb4_bin")
	_, err := db.Exec("INSERT INTO x VALUES (1, 'too long', NOW(6))")
	require.Error(t, err, "strict: nothing is cut off")
	at := time.Date(2026, 11, 24, 1, 2, 3, 4000, time.UTC)
	exec(t, db, "INSERT INTO x VALUES (?, ?, ?)", 1, "😀'\\\"", at)
	var name string
	var got time.Time
	require.NoError(t, db.QueryRow("SELECT name, at FROM x").Scan(&name, &got))
	require.Equal(t, "😀'\\\"", name)
	require.True(t, at.Equal(got))
	require.Equal(t, time.UTC, got.Location())

	res, err := db.Exec("UPDATE x SET name = name WHERE id = 1")
	require.NoError(t, err)
	n, err := res.RowsAffected()
	require.NoError(t, err)
	require.EqualValues(t, 1, n, "rows matched, not rows changed")

	_, err = db.Exec("SELECT 1; DROP TABLE x")
	require.Error(t, err, "one statement per query")

	reg := prometheus.NewRegistry()
	reg.MustRegister(database.Collector(db, "test"))
	families, err := reg.Gather()
	require.NoError(t, err)
	require.NotEmpty(t, families)
}

func TestOpen_Refuses(t *testing.T) {
	for name, dsn := range map[string]string{
		"nothing":     "",
		"no database": "u:hunter2@tcp(127.0.0.1:1)/",
		"garbage":     "u:hunter2@tcp(127.0.0.1:1",
		"nobody home": "u:hunter2@tcp(127.0.0.1:1)/x",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := database.Open(t.Context(), database.Config{DSN: config.Secret(dsn)})
			require.Error(t, err)
			require.NotContains(t, err.Error(), "hunter2")
		})
	}
}

func TestOpen_WithoutAPasswordOnThisMachineOnly(t *testing.T) {
	for dsn, refused := range map[string]bool{
		"root@tcp(192.0.2.1:1)/x": true, "root@tcp(db.invalid:1)/x": true, "root@tcp(0.0.0.0:1)/x": true,
		"root@tcp(127.0.0.1:1)/x": false, "root@tcp(localhost:1)/x": false, "root@tcp([::1]:1)/x": false, "root@unix(/absent)/x": false,
	} {
		cfg := database.Config{DSN: config.Secret(dsn)}
		require.True(t, cfg.Passwordless(), dsn)
		_, err := database.Open(t.Context(), cfg)
		require.Error(t, err, "nobody is there")
		require.Equal(t, refused, strings.Contains(err.Error(), "no password"), "%s: %v", dsn, err)
	}
	require.False(t, database.Config{DSN: "u:p@tcp(127.0.0.1:1)/x"}.Passwordless())
}

func TestIsDuplicate(t *testing.T) {
	db := open(t, testkit.MySQL(t))
	exec(t, db, "CREATE TABLE x (id BIGINT PRIMARY KEY)")
	exec(t, db, "INSERT INTO x VALUES (1)")
	_, err := db.Exec("INSERT INTO x VALUES (1)")
	require.True(t, database.IsDuplicate(err))
	require.False(t, database.IsRetryable(err))
	require.False(t, database.IsUnavailable(err))
	require.False(t, database.IsDuplicate(nil))
}

func TestInTx_CommitsOrRollsBack(t *testing.T) {
	db := open(t, testkit.MySQL(t))
	exec(t, db, "CREATE TABLE x (id BIGINT PRIMARY KEY)")
	count := func() (n int) {
		require.NoError(t, db.Get(&n, "SELECT COUNT(*) FROM x"))
		return n
	}
	insert := func(tx *sqlx.Tx, id int) {
		_, err := tx.Exec("INSERT INTO x VALUES (?)", id)
		require.NoError(t, err)
	}
	require.NoError(t, database.InTx(t.Context(), db, func(tx *sqlx.Tx) error { insert(tx, 1); return nil }))
	require.Equal(t, 1, count())

	boom := errors.New("boom")
	require.Equal(t, boom, database.InTx(t.Context(), db, func(tx *sqlx.Tx) error { insert(tx, 2); return boom }))
	require.Panics(t, func() {
		_ = database.InTx(t.Context(), db, func(tx *sqlx.Tx) error { insert(tx, 3); panic("boom") })
	})
	ctx, cancel := context.WithCancel(t.Context())
	err := database.InTx(ctx, db, func(tx *sqlx.Tx) error { insert(tx, 4); cancel(); return nil })
	require.ErrorIs(t, err, context.Canceled)
	require.False(t, database.IsCommitUnknown(err), "COMMIT was never sent")
	require.Equal(t, 1, count())
	// After a cancelled context database/sql rolls back in a goroutine of its own.
	require.Eventually(t, func() bool { return db.Stats().InUse == 0 }, 5*time.Second, time.Millisecond, "no connection is left behind")
}

func TestInTx_RunsAgainAfterADeadlock(t *testing.T) {
	db := open(t, testkit.MySQL(t))
	exec(t, db, "CREATE TABLE x (id BIGINT PRIMARY KEY, n BIGINT NOT NULL)")
	exec(t, db, "INSERT INTO x VALUES (1, 0), (2, 0)")
	// Each locks a row and meets the other at the second one, in a circle.
	var met sync.WaitGroup
	met.Add(2)
	var runs atomic.Int32
	move := func(first, second int) error {
		var once sync.Once
		return database.InTx(t.Context(), db, func(tx *sqlx.Tx) error {
			runs.Add(1)
			if _, err := tx.Exec("UPDATE x SET n = n + 1 WHERE id = ?", first); err != nil {
				return err
			}
			once.Do(func() { met.Done(); met.Wait() })
			_, err := tx.Exec("UPDATE x SET n = n + 1 WHERE id = ?", second)
			return err
		})
	}
	var wg sync.WaitGroup
	var errs [2]error
	wg.Go(func() { errs[0] = move(1, 2) })
	wg.Go(func() { errs[1] = move(2, 1) })
	wg.Wait()
	require.NoError(t, errors.Join(errs[:]...))
	require.Greater(t, runs.Load(), int32(2), "there was a deadlock")
	var sum int
	require.NoError(t, db.Get(&sum, "SELECT SUM(n) FROM x"))
	require.Equal(t, 4, sum)
}

func TestInTx_GivesUpOnALockThatStays(t *testing.T) {
	db := open(t, testkit.MySQL(t), func(c *database.Config) { c.LockWait, c.IdleTx = time.Second, time.Minute })
	exec(t, db, "CREATE TABLE x (id BIGINT PRIMARY KEY)")
	exec(t, db, "INSERT INTO x VALUES (1)")
	holder, err := db.Beginx()
	require.NoError(t, err)
	defer holder.Rollback() //nolint:errcheck // the test only holds a lock
	exec(t, holder, "UPDATE x SET id = id WHERE id = 1")
	ctx, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond)
	defer cancel()
	runs := 0
	err = database.InTx(ctx, db, func(tx *sqlx.Tx) error {
		runs++
		_, err := tx.ExecContext(ctx, "UPDATE x SET id = id WHERE id = 1")
		return err
	})
	require.Error(t, err)
	require.False(t, database.IsCommitUnknown(err))
	require.Greater(t, runs, 1)
}

func TestInTx_ManyWritersLoseNothing(t *testing.T) {
	db := open(t, testkit.MySQL(t))
	exec(t, db, "CREATE TABLE c (id BIGINT PRIMARY KEY, n BIGINT NOT NULL)")
	exec(t, db, "INSERT INTO c VALUES (1, 0)")
	const writers, each = 8, 10
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range each {
				err := database.InTx(t.Context(), db, func(tx *sqlx.Tx) error {
					var n int
					if err := tx.Get(&n, "SELECT n FROM c WHERE id = 1 FOR UPDATE"); err != nil {
						return err
					}
					_, err := tx.Exec("UPDATE c SET n = ? WHERE id = 1", n+1)
					return err
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	var n int
	require.NoError(t, db.Get(&n, "SELECT n FROM c"))
	require.Equal(t, writers*each, n)
}

// cutProxy forwards to a server until told to swallow its answers.
type cutProxy struct {
	addr    string
	swallow atomic.Bool
	sent    atomic.Int32 // requests passed on while swallowing
}

func newCutProxy(t *testing.T, target string) *cutProxy {
	t.Helper()
	p := &cutProxy{}
	request := func([]byte) bool {
		if p.swallow.Load() {
			p.sent.Add(1)
		}
		return true
	}
	answer := func([]byte) bool { return !p.swallow.Load() }
	p.addr = testkit.Tap(t, target, func() (_, _ func([]byte) bool) { return request, answer })
	return p
}

func TestInTx_ALostAnswerToCommitIsUnknown(t *testing.T) {
	dsn := testkit.MySQL(t)
	direct := open(t, dsn)
	exec(t, direct, "CREATE TABLE x (id BIGINT PRIMARY KEY)")
	mc, err := mysql.ParseDSN(dsn)
	require.NoError(t, err)
	proxy := newCutProxy(t, mc.Addr)
	mc.Net, mc.Addr = "tcp", proxy.addr
	db := open(t, mc.FormatDSN())

	runs := 0
	err = database.InTx(t.Context(), db, func(tx *sqlx.Tx) error {
		runs++
		_, err := tx.Exec("INSERT INTO x VALUES (1)")
		proxy.swallow.Store(true)
		return err
	})
	require.True(t, database.IsCommitUnknown(err), "%v", err)
	require.Equal(t, 1, runs, "it is not run again")
	require.EqualValues(t, 1, proxy.sent.Load())
	var n int
	require.NoError(t, direct.Get(&n, "SELECT COUNT(*) FROM x"))
	require.Equal(t, 1, n, "this time it had happened")

	// Lost before COMMIT: nothing happened, and that is known.
	proxy.swallow.Store(false)
	err = database.InTx(t.Context(), db, func(tx *sqlx.Tx) error {
		proxy.swallow.Store(true)
		_, err := tx.Exec("INSERT INTO x VALUES (2)")
		return err
	})
	require.Error(t, err)
	require.False(t, database.IsCommitUnknown(err))
	require.True(t, database.IsUnavailable(err), "%v", err)
}

func TestServerAway(t *testing.T) {
	server := testkit.StartMySQL(t)
	db := open(t, server.DSN, func(c *database.Config) {
		c.ReadTimeout, c.DialTimeout = time.Second, time.Second
	})
	exec(t, db, "CREATE TABLE x (id BIGINT PRIMARY KEY)")

	t.Run("frozen", func(t *testing.T) {
		begin := time.Now()
		err := database.InTx(t.Context(), db, func(tx *sqlx.Tx) error {
			_, err := tx.Exec("INSERT INTO x VALUES (1)")
			server.Pause()
			time.Sleep(50 * time.Millisecond)
			return err
		})
		require.True(t, database.IsCommitUnknown(err), "%v", err)
		_, err = db.Exec("INSERT INTO x VALUES (2)")
		require.True(t, database.IsUnavailable(err), "%v", err)
		require.Less(t, time.Since(begin), 8*time.Second)
		server.Resume()
		require.Eventually(t, func() bool { return db.Ping() == nil }, 10*time.Second, 20*time.Millisecond)
	})
	t.Run("killed", func(t *testing.T) {
		server.Kill()
		_, err := db.Exec("INSERT INTO x VALUES (3)")
		require.True(t, database.IsUnavailable(err), "%v", err)
		err = database.InTx(t.Context(), db, func(*sqlx.Tx) error { return nil })
		require.True(t, database.IsUnavailable(err), "%v", err)
		server.Restart()
		require.Eventually(t, func() bool { return db.Ping() == nil }, 10*time.Second, 20*time.Millisecond)
	})
}

func TestIsUnavailable_NotEverything(t *testing.T) {
	for _, err := range []error{nil, sql.ErrNoRows, errors.New("x"), context.Canceled, &mysql.MySQLError{Number: 1213}} {
		require.False(t, database.IsUnavailable(err), "%v", err)
	}
	require.True(t, database.IsUnavailable(&mysql.MySQLError{Number: 1040}))
	require.True(t, database.IsUnavailable(context.DeadlineExceeded))
}

func migrations(names ...string) fstest.MapFS {
	all := map[string]string{
		"00001_init.sql":   "-- +goose Up\nCREATE TABLE a (id BIGINT PRIMARY KEY);\n",
		"00002_second.sql": "-- +goose Up\nCREATE TABLE b (id BIGINT PRIMARY KEY);\n",
		"00003_broken.sql": "-- +goose Up\nCREATE TABLE a (id BIGINT PRIMARY KEY);\n",
	}
	m := fstest.MapFS{}
	for _, n := range names {
		m["migrations/"+n] = &fstest.MapFile{Data: []byte(all[n])}
	}
	return m
}

func TestMigrate(t *testing.T) {
	dsn := testkit.MySQL(t)
	db := open(t, dsn, func(c *database.Config) { *c = c.ForMigration() })
	const table = "logic_version"
	one := migrations("00001_init.sql")
	two := migrations("00001_init.sql", "00002_second.sql")

	require.ErrorContains(t, database.CheckVersion(t.Context(), db, one, "migrations", table), "-migrate", "nothing was ever migrated")
	require.NoError(t, database.Migrate(t.Context(), db, one, "migrations", table))
	require.NoError(t, database.CheckVersion(t.Context(), db, one, "migrations", table))
	require.ErrorContains(t, database.CheckVersion(t.Context(), db, two, "migrations", table), "version 1")

	// Several at once: one works, the others wait and find nothing to do.
	var wg sync.WaitGroup
	for range 4 {
		other := open(t, dsn, func(c *database.Config) { *c = c.ForMigration() })
		wg.Go(func() {
			if err := database.Migrate(t.Context(), other, two, "migrations", table); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	require.NoError(t, database.CheckVersion(t.Context(), db, two, "migrations", table))
	require.NoError(t, database.CheckVersion(t.Context(), db, one, "migrations", table), "an older binary may go on")
	exec(t, db, "INSERT INTO b VALUES (1)")

	three := migrations("00001_init.sql", "00002_second.sql", "00003_broken.sql")
	require.Error(t, database.Migrate(t.Context(), db, three, "migrations", table))
	require.ErrorContains(t, database.CheckVersion(t.Context(), db, three, "migrations", table), "version 2")

	// Another service keeps its own count in the same database.
	require.Error(t, database.CheckVersion(t.Context(), db, one, "migrations", "auth_version"))
	require.Error(t, database.CheckVersion(t.Context(), db, one, "migrations", "x; DROP TABLE a"))
	require.Error(t, database.Migrate(t.Context(), db, fstest.MapFS{}, "migrations", table))
	// An engine whose row locks do not block, as MyISAM's do not.
	exec(t, db, "ALTER TABLE "+table+" ENGINE=MyISAM")
	require.ErrorContains(t, database.CheckVersion(t.Context(), db, two, "migrations", table), "do not block")

	small := open(t, dsn, func(c *database.Config) { c.MaxOpen = 1 })
	require.ErrorContains(t, database.Migrate(t.Context(), small, one, "migrations", table), "too small")
	require.ErrorContains(t, database.CheckVersion(t.Context(), small, two, "migrations", table), "max_open is 1")
}
