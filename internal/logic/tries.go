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
	n, err := addScript.Run(ctx, t.rdb, []string{key}, by, window.Milliseconds()).Int64()
	if err != nil {
		t.log.WarnContext(ctx, "a try was not counted", "err", err)
		return 0
	}
	return n
}

// addScript adds ARGV[1] to KEYS[1], which ends ARGV[2] ms after it began. Not
// EXPIRE NX, which servers before Redis 7 refuse.
var addScript = redis.NewScript(`
local n = redis.call('INCRBY', KEYS[1], ARGV[1])
if redis.call('PTTL', KEYS[1]) < 0 then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return n
`)
