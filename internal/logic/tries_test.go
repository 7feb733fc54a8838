package logic

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"im-services/internal/testkit"
)

// beforeSeven refuses the options of EXPIRE, as servers before Redis 7 do.
type beforeSeven struct{}

func (beforeSeven) DialHook(next redis.DialHook) redis.DialHook { return next }

func (beforeSeven) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if refused := refuseOptions(cmd); refused != nil {
			return refused
		}
		return next(ctx, cmd)
	}
}

func (beforeSeven) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		var refused error
		taken := slices.DeleteFunc(slices.Clone(cmds), func(cmd redis.Cmder) bool {
			err := refuseOptions(cmd)
			refused = errors.Join(refused, err)
			return err != nil
		})
		return errors.Join(next(ctx, taken), refused)
	}
}

func refuseOptions(cmd redis.Cmder) error {
	if (cmd.Name() == "expire" || cmd.Name() == "pexpire") && len(cmd.Args()) > 3 {
		cmd.SetErr(errors.New("ERR wrong number of arguments for '" + cmd.Name() + "' command"))
	}
	return cmd.Err()
}

func TestTries_CountAndEndOnEveryRedis(t *testing.T) {
	rdb := openRoutes(t, testkit.Redis(t)).rdb
	rdb.AddHook(beforeSeven{})
	counted := &tries{rdb: rdb, log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	const key, window = "x", time.Minute
	take := func(want bool) {
		t.Helper()
		if got := counted.take(t.Context(), key, 2, window); got != want {
			t.Errorf("let in: %v", got)
		}
	}
	endsWithin := func(most time.Duration) {
		t.Helper()
		if left := rdb.PTTL(t.Context(), key).Val(); left <= 0 || left > most {
			t.Errorf("the count ends in %v", left)
		}
	}
	take(true)
	take(true)
	take(false)
	endsWithin(window)
	counted.giveBack(t.Context(), key, window)
	counted.giveBack(t.Context(), key, window)
	take(true)
	take(false)

	must(t, rdb.PExpire(t.Context(), key, window/2).Err()) // half of the window has passed
	take(false)
	endsWithin(window / 2)

	must(t, rdb.Del(t.Context(), key).Err()) // all of it, during a try that was not made
	counted.giveBack(t.Context(), key, window)
	endsWithin(window)
}
