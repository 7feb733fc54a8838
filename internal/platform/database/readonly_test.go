package database_test

import (
	"testing"

	"github.com/go-sql-driver/mysql"
	"github.com/jmoiron/sqlx"
	"github.com/stretchr/testify/require"

	"im-services/internal/platform/database"
	"im-services/internal/testkit"
)

// A primary that was demoted refuses writes. What it refuses has surely changed
// nothing, wherever in a transaction it begins to, and its connection is given up:
// a new one may reach the server that took over.
func TestReadOnly_IsRolledBackAndItsConnectionDropped(t *testing.T) {
	server := testkit.StartMySQL(t)
	admin, cfg := open(t, server.DSN), mustParse(t, server.DSN)
	exec(t, admin, "CREATE TABLE x (id BIGINT PRIMARY KEY, n BIGINT NOT NULL)")
	exec(t, admin, "INSERT INTO x VALUES (1, 0)")
	// Who may do everything may write even then; services may not.
	exec(t, admin, "CREATE USER 'plain'@'127.0.0.1' IDENTIFIED BY 'test'")
	exec(t, admin, "GRANT ALL PRIVILEGES ON "+cfg.DBName+".* TO 'plain'@'127.0.0.1'")
	cfg.User = "plain"
	one := func(c *database.Config) { c.MaxOpen = 1 }
	db, batches := open(t, cfg.FormatDSN(), one), openBatches(t, cfg.FormatDSN(), one)
	readOnly := func(on string) { exec(t, admin, "SET GLOBAL read_only = "+on) }
	session := func(q sqlx.Queryer) (id int64) {
		require.NoError(t, sqlx.Get(q, &id, "SELECT CONNECTION_ID()"))
		return id
	}
	var batched int64
	count := func(then func()) error {
		return batches.In(t.Context(), func(tx *database.Batch) error {
			require.NoError(t, sqlx.GetContext(t.Context(), tx, &batched, "SELECT CONNECTION_ID()"))
			if _, err := lock(t.Context(), tx, 1); err != nil {
				return err
			}
			tx.Write("UPDATE x SET n = n + 1 WHERE id = 1")
			then()
			return nil
		})
	}
	refused := func(err error) {
		t.Helper()
		require.True(t, database.IsUnavailable(err), "%v", err)
		require.False(t, database.IsCommitUnknown(err), "%v", err)
	}
	require.NoError(t, count(func() {}))

	first := batched
	refused(count(func() { readOnly("ON") }))
	require.Equal(t, first, batched)
	refused(count(func() {}))
	require.NotEqual(t, first, batched, "its connection is still used")

	// Between the write and its COMMIT.
	readOnly("OFF")
	first = session(db)
	refused(database.InTx(t.Context(), db, func(tx *sqlx.Tx) error {
		exec(t, tx, "UPDATE x SET n = n + 1 WHERE id = 1")
		done := make(chan struct{})
		go func() {
			defer close(done)
			readOnly("ON")
		}()
		<-done
		return nil
	}))
	require.NotEqual(t, first, session(db), "its connection is still used")

	readOnly("OFF")
	require.NoError(t, count(func() {}))
	var n int
	require.NoError(t, admin.Get(&n, "SELECT n FROM x"))
	require.Equal(t, 2, n, "what was refused has changed nothing")
}

func mustParse(t *testing.T, dsn string) *mysql.Config {
	t.Helper()
	cfg, err := mysql.ParseDSN(dsn)
	require.NoError(t, err)
	return cfg
}
