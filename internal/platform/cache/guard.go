package cache

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// ErrAway is returned without asking Redis, because it did not answer lately.
var ErrAway = errors.New("cache: redis is away")

const (
	// tripAfter failures in a row, operations stop waiting for Redis.
	tripAfter = 5
	// probeEvery: while tripped, one operation per this time is let through.
	probeEvery = 200 * time.Millisecond
)

// guard bounds every operation and stops asking a server that does not answer:
// a frozen Redis would otherwise cost each caller a full timeout and pile them
// up behind the pool.
type guard struct {
	timeout  time.Duration
	failures atomic.Int32 // in a row
	probeAt  atomic.Int64 // while tripped: when the next probe may go, monotonic ns
}

// start is the zero of the monotonic clock that probeAt counts from.
var start = time.Now()

// DialHook changes nothing.
func (g *guard) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessHook guards one command.
func (g *guard) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		ctx, ok := g.admit(ctx)
		if !ok {
			cmd.SetErr(ErrAway)
			return ErrAway
		}
		limited, cancel := context.WithTimeout(ctx, g.timeout)
		defer cancel()
		err := next(limited, cmd)
		g.note(ctx, err)
		return err
	}
}

// ProcessPipelineHook guards a pipeline or transaction.
func (g *guard) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		ctx, ok := g.admit(ctx)
		if !ok {
			for _, c := range cmds {
				c.SetErr(ErrAway)
			}
			return ErrAway
		}
		limited, cancel := context.WithTimeout(ctx, 5*g.timeout)
		defer cancel()
		err := next(limited, cmds)
		g.note(ctx, err)
		return err
	}
}

// probing marks the context of a probe: the commands that introduce a new
// connection pass through the hooks as well, inside the command that needs it.
type probing struct{}

// admit decides whether an operation may go to the server, and with which context.
func (g *guard) admit(ctx context.Context) (context.Context, bool) {
	if g.failures.Load() < tripAfter || ctx.Value(probing{}) != nil {
		return ctx, true
	}
	now := int64(time.Since(start))
	at := g.probeAt.Load()
	if now < at || !g.probeAt.CompareAndSwap(at, now+int64(probeEvery)) {
		return ctx, false
	}
	return context.WithValue(ctx, probing{}, true), true
}

// note counts what says "the server does not answer"; any answer resets it, an
// error reply included. caller is the caller's context: when that has ended,
// the failure says nothing about the server.
func (g *guard) note(caller context.Context, err error) {
	if answered(err) {
		g.failures.Store(0)
	} else if caller.Err() == nil {
		g.failures.Add(1)
	}
}

// answered reports whether a result came from Redis and not from the way to it.
func answered(err error) bool {
	if err == nil || errors.Is(err, redis.Nil) {
		return true
	}
	_, ok := errors.AsType[redis.Error](err)
	return ok
}
