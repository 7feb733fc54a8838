// Package cache opens Redis clients that fail fast: Redis being away costs a
// caller one short timeout at first and nothing after that, and never stops a
// service from starting.
package cache

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"im-services/internal/platform/config"
)

// Config is the yaml section "cache". Zero fields take the defaults named.
type Config struct {
	Addr      string        `yaml:"addr"` // host:port
	Username  string        `yaml:"username"`
	Password  config.Secret `yaml:"password"`
	DB        int           `yaml:"db"`
	TLS       bool          `yaml:"tls"`
	PoolSize  int           `yaml:"pool_size"`  // connections; 32
	OpTimeout time.Duration `yaml:"op_timeout"` // 100ms: a whole operation with dialling and retry; five times that for a pipeline
}

// Open returns a client that connects when it is first used. Every operation
// ends within OpTimeout. While Redis does not answer at all, operations fail at
// once with ErrAway, except for a probe now and then.
func Open(cfg Config) *redis.Client {
	quieten()
	if cfg.OpTimeout <= 0 {
		cfg.OpTimeout = 100 * time.Millisecond
	}
	if cfg.PoolSize <= 0 {
		cfg.PoolSize = 32
	}
	opts := &redis.Options{
		Addr:                  cfg.Addr,
		Username:              cfg.Username,
		Password:              cfg.Password.Reveal(),
		DB:                    cfg.DB,
		PoolSize:              cfg.PoolSize,
		MaxRetries:            1,
		MinRetryBackoff:       2 * time.Millisecond,
		MaxRetryBackoff:       10 * time.Millisecond,
		DialTimeout:           cfg.OpTimeout,
		DialerRetries:         1,
		ReadTimeout:           cfg.OpTimeout,
		WriteTimeout:          cfg.OpTimeout,
		PoolTimeout:           cfg.OpTimeout,
		ContextTimeoutEnabled: true,
		Protocol:              2, // with 3 every answer is first looked at: is it a notification
		ConnMaxIdleTime:       5 * time.Minute,
		DisableIdentity:       true, // one round trip less for a new connection
		MaintNotificationsConfig: &maintnotifications.Config{
			Mode: maintnotifications.ModeDisabled,
		},
	}
	if cfg.TLS {
		opts.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	c := redis.NewClient(opts)
	c.AddHook(&guard{timeout: cfg.OpTimeout})
	return c
}

// quieten sends the library's own lines, one for each failed dial, to slog.
var quieten = sync.OnceFunc(func() { redis.SetLogger(libraryLog{}) })

type libraryLog struct{}

func (libraryLog) Printf(ctx context.Context, format string, v ...any) {
	slog.DebugContext(ctx, "redis client", "msg", fmt.Sprintf(format, v...))
}

// Ping reports whether Redis answers now.
func Ping(ctx context.Context, c *redis.Client) error { return c.Ping(ctx).Err() }
