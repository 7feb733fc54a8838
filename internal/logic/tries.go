package logic

import (
	"context"
	"log/slog"
	"time"

	"github.com/redis/go-redis/v9"
)

// tries counts what a user does, in Redis, for what costs too much to be had
// without end. While Redis is away, nothing is counted and everything is let in.
type tries struct {
	rdb *redis.Client
	log *slog.Logger
}

// take counts a try and reports whether it is one of the first most within window.
// It comes before what the try costs, or tries at once would all be let in.
func (t *tries) take(ctx context.Context, key string, most int64, window time.Duration) bool {
	n := t.add(ctx, key, 1, window)
	return n <= most
}

// giveBack takes back a try that was not made.
func (t *tries) giveBack(ctx context.Context, key string, window time.Duration) {
	t.add(context.WithoutCancel(ctx), key, -1, window)
}

func (t *tries) add(ctx context.Context, key string, by int64, window time.Duration) int64 {
	pipe := t.rdb.Pipeline()
	n := pipe.IncrBy(ctx, key, by)
	pipe.ExpireNX(ctx, key, window)
	if _, err := pipe.Exec(ctx); err != nil {
		t.log.WarnContext(ctx, "a try was not counted", "err", err)
		return 0
	}
	return n.Val()
}
