package testkit

import (
	"context"
	"path/filepath"
	"sync"
	"testing"

	"im-services/internal/cluster/infra"
)

// Redis returns the address of an empty Redis of this test's own; it is gone
// when the test ends.
func Redis(t testing.TB) string {
	t.Helper()
	return StartRedis(t).Addr
}

// RedisServer is a Redis of one test's own.
type RedisServer struct {
	*Server
	Addr string
}

// StartRedis starts a Redis of the test's own, for tests that hurt it. Its
// contents do not survive a restart.
func StartRedis(t testing.TB) *RedisServer {
	t.Helper()
	program, err := redisProgram()
	if err != nil {
		t.Fatalf("testkit: %v", err)
	}
	s, ports := start(t, "redis", 1, func(dir string, ports []int) (infra.Unit, error) {
		return infra.Redis(program, "redis", dir, filepath.Join(dir, "log"), ports[0]), nil
	})
	return &RedisServer{Server: s, Addr: infra.Loopback(ports[0])}
}

var redisProgram = sync.OnceValues(func() (infra.Program, error) {
	ctx, cancel := context.WithTimeout(context.Background(), helperLimit)
	defer cancel()
	return infra.FindRedis(ctx, tell)
})
