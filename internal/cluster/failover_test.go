package cluster

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// writer stores numbers as a service would, at whatever server it is sent to, and
// remembers which were acknowledged.
type writer struct {
	open  func(addr string) *sql.DB
	db    atomic.Pointer[sql.DB]
	acked sync.Map
	last  atomic.Int64
}

func (w *writer) run(ctx context.Context) {
	for n := int64(1); ctx.Err() == nil; n++ {
		once, cancel := context.WithTimeout(ctx, 2*time.Second)
		_, err := w.db.Load().ExecContext(once, "INSERT INTO x VALUES (?)", n)
		cancel()
		if err == nil {
			w.acked.Store(n, true)
			w.last.Store(n)
		} else {
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// progress returns once something was written that began after the call.
func (w *writer) progress(t *testing.T) {
	t.Helper()
	from := w.last.Load()
	require.Eventually(t, func() bool { return w.last.Load() > from+1 }, 20*time.Second, 5*time.Millisecond, "nothing is written any more")
}

// Whatever happens to the primary, the one that takes over has all that was
// acknowledged; and the old one acknowledges nothing any more before it does.
func TestG1_FailOverLosesNothingAcknowledged(t *testing.T) {
	w := &writer{}
	opts := testOptions(t)
	opts.MySQLReplica = true
	var c *Cluster
	opts.Rerouted = func(addr string) { w.db.Swap(w.open(addr)).Close() }
	c = start(t, opts)
	first := c.Primary()
	require.Equal(t, "mysql", first.Name)
	require.NoError(t, executeAt(t, first.OwnDSN("im_logic"), "CREATE TABLE x (id BIGINT PRIMARY KEY)"))
	w.open = func(addr string) *sql.DB {
		db, err := sql.Open("mysql", fmt.Sprintf("im_logic:%s@tcp(%s)/im_logic?rejectReadOnly=true&readTimeout=3s", first.Password, addr))
		require.NoError(t, err)
		return db
	}
	w.db.Store(w.open(c.Addr(first.Name)))
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { w.run(ctx) })
	defer running.Wait()
	defer stop()

	for round, change := range []struct {
		name string
		do   func() error
	}{
		{"killed", func() error {
			c.Process(c.Primary().Name).Kill()
			require.NoError(t, c.FailOver(t.Context()))
			require.ErrorIs(t, c.FailOver(t.Context()), ErrNoReplica, "the other one is not there yet")
			return c.Rebuild(t.Context())
		}},
		{"planned", func() error { return c.SwitchOver(t.Context()) }},
		{"alive", func() error {
			old := c.Primary()
			require.NoError(t, c.FailOver(t.Context()))
			require.ErrorContains(t, executeAt(t, old.OwnDSN("im_logic"), "INSERT INTO x VALUES (-1)"), "read-only")
			return c.Rebuild(t.Context())
		}},
		{"paused", func() error {
			require.NoError(t, c.Process(c.Primary().Name).Pause())
			require.NoError(t, c.FailOver(t.Context()))
			return c.Rebuild(t.Context())
		}},
	} {
		w.progress(t)
		was := serverID(t, c)
		require.NoError(t, change.do(), change.name)
		require.NotEqual(t, was, serverID(t, c), change.name)
		require.Equal(t, []string{"mysql-2", "mysql"}[round%2], c.Primary().Name, change.name)
		w.progress(t)
		missing(t, c, w)
	}
	stop()
	running.Wait()
	missing(t, c, w)
	_, replica, inStep := c.pair()
	require.True(t, inStep)
	require.Error(t, executeAt(t, replica.OwnDSN("im_logic"), "INSERT INTO x VALUES (-1)"), "a replica takes writes")
}

// Without a replica that has everything, nothing acknowledges anything.
func TestG1_WithoutTheReplicaNothingIsAcknowledged(t *testing.T) {
	opts := testOptions(t)
	opts.MySQLReplica = true
	c := start(t, opts)
	dsn := c.Primary().OwnDSN("im_logic") + "?readTimeout=2s"
	require.NoError(t, executeAt(t, dsn, "CREATE TABLE x (id BIGINT PRIMARY KEY)"))
	c.Process("mysql-2").Halt()
	require.Error(t, executeAt(t, dsn, "INSERT INTO x VALUES (1)"))
	require.ErrorIs(t, c.FailOver(t.Context()), ErrNoReplica)
	require.NoError(t, c.Process("mysql-2").Start(t.Context()))
}

func TestStart_AStateFolderWithAReplicaIsUsedOnce(t *testing.T) {
	opts := testOptions(t)
	opts.MySQLReplica = true
	start(t, opts).Stop()
	_, err := Start(t.Context(), opts)
	require.ErrorContains(t, err, "new state folder")
	opts.MySQLReplica = false
	_, err = Start(t.Context(), opts)
	require.ErrorContains(t, err, "had a replica")
}

// missing fails if something acknowledged is not in the primary's database.
func missing(t *testing.T, c *Cluster, w *writer) {
	t.Helper()
	acked := map[int64]bool{}
	w.acked.Range(func(n, _ any) bool { acked[n.(int64)] = true; return true })
	db, err := sql.Open("mysql", c.Primary().DSN("im_logic"))
	require.NoError(t, err)
	defer func() { _ = db.Close() }()
	rows, err := db.QueryContext(t.Context(), "SELECT id FROM x")
	require.NoError(t, err)
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var n int64
		require.NoError(t, rows.Scan(&n))
		delete(acked, n)
	}
	require.NoError(t, rows.Err())
	require.Empty(t, acked, "acknowledged and lost")
	require.Positive(t, w.last.Load())
}

func serverID(t *testing.T, c *Cluster) (id int64) {
	t.Helper()
	db, err := sql.Open("mysql", c.Primary().DSN(""))
	require.NoError(t, err)
	defer func() { _ = db.Close() }()
	require.NoError(t, db.QueryRowContext(t.Context(), "SELECT @@server_id").Scan(&id))
	return id
}

func executeAt(t *testing.T, dsn, statement string) error {
	t.Helper()
	db, err := sql.Open("mysql", dsn)
	require.NoError(t, err)
	defer func() { _ = db.Close() }()
	_, err = db.ExecContext(t.Context(), statement)
	return err
}
