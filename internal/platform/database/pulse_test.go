package database_test

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/require"

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
	pulse, err := database.NewPulse(t.Context(), database.Config{DSN: config.Secret(dsn.FormatDSN())}, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	var serving atomic.Bool
	serving.Store(true)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	wg.Go(func() { _ = pulse.Run(ctx, serving.Store) })

	for what, lose := range map[string]func(){"silent": proxy.Partition, "refused": proxy.Cut} {
		lose()
		require.Eventually(t, func() bool { return !serving.Load() }, 2*time.Second+busySlack, 10*time.Millisecond, "%s: not serving", what)
		proxy.Heal()
		require.Eventually(t, serving.Load, time.Second+busySlack, 10*time.Millisecond, "%s: serving again", what)
	}
	proxy.Reset() // one lost connection is nothing
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if !serving.Load() {
			t.Fatal("not serving after one lost connection")
		}
	}
}
