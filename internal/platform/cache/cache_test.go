package cache_test

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"im-services/internal/platform/cache"
	"im-services/internal/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, testkit.LeakOptions()...) }

// open opens a client that a busy machine may keep waiting.
func open(t *testing.T, addr string) *redis.Client {
	t.Helper()
	return openWithin(t, addr, 5*time.Second)
}

// impatient opens a client with the limit it has in service.
func impatient(t *testing.T, addr string) *redis.Client {
	t.Helper()
	return openWithin(t, addr, 0)
}

func openWithin(t *testing.T, addr string, limit time.Duration) *redis.Client {
	t.Helper()
	c := cache.Open(cache.Config{Addr: addr, OpTimeout: limit})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// slack is what a busy machine may add to a limit that is kept.
const slack = 2 * time.Second

func TestOpen_Works(t *testing.T) {
	c := open(t, testkit.Redis(t))
	ctx := t.Context()
	require.NoError(t, cache.Ping(ctx, c))
	require.NoError(t, c.Set(ctx, "k", "v", 0).Err())
	require.Equal(t, "v", c.Get(ctx, "k").Val())
	// Answers that are errors do not count as Redis being away.
	for range 20 {
		require.ErrorIs(t, c.Get(ctx, "absent").Err(), redis.Nil)
		require.ErrorContains(t, c.LPush(ctx, "k", 1).Err(), "WRONGTYPE")
	}
	require.Equal(t, "v", c.Get(ctx, "k").Val())
	cmds, err := c.Pipelined(ctx, func(p redis.Pipeliner) error {
		p.Incr(ctx, "n")
		p.Incr(ctx, "n")
		return nil
	})
	require.NoError(t, err)
	require.Equal(t, int64(2), cmds[1].(*redis.IntCmd).Val())
}

func TestOpen_RedisAwayAtTheStart(t *testing.T) {
	c := impatient(t, "127.0.0.1:1")
	begin := time.Now()
	require.Error(t, cache.Ping(t.Context(), c))
	require.Less(t, time.Since(begin), slack)
}

func TestFrozenRedisCostsOneTimeoutNotOneEach(t *testing.T) {
	server := testkit.StartRedis(t)
	c := impatient(t, server.Addr)
	ctx := t.Context()
	require.Eventually(t, func() bool { return c.Set(ctx, "k", "v", 0).Err() == nil }, 10*time.Second, 10*time.Millisecond)
	server.Pause()
	time.Sleep(50 * time.Millisecond)

	begin := time.Now()
	require.Error(t, c.Get(ctx, "k").Err())
	require.Less(t, time.Since(begin), slack)

	for range 10 { // until it is known to be away
		_ = c.Get(ctx, "k").Err()
	}
	begin = time.Now()
	away := 0
	for range 1000 {
		if err := c.Get(ctx, "k").Err(); err != nil {
			away++
		}
	}
	require.Equal(t, 1000, away)
	require.Less(t, time.Since(begin), 10*time.Second, "callers are told at once: a thousand timeouts are a hundred seconds")
	require.ErrorIs(t, func() error {
		_, err := c.Pipelined(ctx, func(p redis.Pipeliner) error { p.Get(ctx, "k"); return nil })
		return err
	}(), cache.ErrAway)

	server.Resume()
	require.Eventually(t, func() bool {
		for range 100 {
			if c.Get(ctx, "k").Val() != "v" {
				return false
			}
		}
		return true
	}, 10*time.Second, 10*time.Millisecond)
}

func TestKilledRedisComesBack(t *testing.T) {
	server := testkit.StartRedis(t)
	c := open(t, server.Addr)
	require.NoError(t, c.Set(t.Context(), "k", "v", 0).Err())
	server.Kill()
	for range 10 {
		require.Error(t, c.Get(t.Context(), "k").Err())
	}
	server.Restart()
	require.Eventually(t, func() bool { return cache.Ping(t.Context(), c) == nil }, 10*time.Second, 10*time.Millisecond)
}

func TestACallersOwnHurryIsNoSignOfAbsence(t *testing.T) {
	c := open(t, testkit.Redis(t))
	require.NoError(t, cache.Ping(t.Context(), c))
	expired, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	for range 20 {
		require.Error(t, c.Get(expired, "k").Err())
	}
	require.NoError(t, cache.Ping(t.Context(), c))
}

func TestSilentServerIsBounded(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0") // accepts and says nothing
	require.NoError(t, err)
	defer ln.Close()
	c := impatient(t, ln.Addr().String())
	begin := time.Now()
	require.Error(t, cache.Ping(t.Context(), c))
	require.Less(t, time.Since(begin), slack)
}
