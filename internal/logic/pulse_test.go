package logic

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"im-services/internal/platform/config"
	"im-services/internal/platform/database"
	"im-services/internal/testkit"
)

// TestG2_AReplicaWithoutItsDatabaseDoesNotServe, whether it is refused or hears
// nothing, and serves again once it is back.
func TestG2_AReplicaWithoutItsDatabaseDoesNotServe(t *testing.T) {
	dsn, err := mysql.ParseDSN(testkit.MySQL(t))
	if err != nil {
		t.Fatal(err)
	}
	proxy := testkit.Proxy(t, dsn.Addr)
	dsn.Addr = proxy.Addr
	db, err := database.Open(t.Context(), database.Config{DSN: config.Secret(dsn.FormatDSN()), MaxOpen: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	var serving atomic.Bool
	serving.Store(true)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	wg.Go(func() { Pulse(ctx, db, slog.New(slog.NewTextHandler(t.Output(), nil)), serving.Store) })

	for what, lose := range map[string]func(){"silent": proxy.Partition, "refused": proxy.Cut} {
		lose()
		eventually(t, 2*time.Second, what+": not serving", func() bool { return !serving.Load() })
		proxy.Heal()
		eventually(t, time.Second, what+": serving again", serving.Load)
	}
	proxy.Reset() // one lost connection is nothing
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if !serving.Load() {
			t.Fatal("not serving after one lost connection")
		}
	}
}
