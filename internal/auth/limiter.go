package auth

import (
	"context"
	"errors"
	"math"
	"sync"
	"time"

	"github.com/go-redis/redis_rate/v10"
	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/redis/go-redis/v9"
	"golang.org/x/time/rate"
)

// limiter counts attempts in Redis and, while Redis is away, in this process:
// a log in must not depend on Redis, and must not be free of limits without it
// either. Safe for concurrent use.
type limiter struct {
	rdb   *redis.Client
	rates *redis_rate.Limiter
	local *localLimiter
	cfg   LimitConfig
	// fellBack counts decisions made without Redis.
	fellBack interface{ Inc() }
}

func newLimiter(rdb *redis.Client, cfg LimitConfig, fellBack interface{ Inc() }) *limiter {
	return &limiter{
		rdb: rdb, rates: redis_rate.NewLimiter(rdb), local: newLocalLimiter(cfg), cfg: cfg, fellBack: fellBack,
	}
}

// take counts one event under key, of which n are allowed per window (all at
// once if they like). It returns 0, or how long to wait for the next one.
func (l *limiter) take(ctx context.Context, key string, n int, window time.Duration) time.Duration {
	var wait time.Duration
	if l.shared(ctx, func(ctx context.Context) error {
		res, err := l.rates.Allow(ctx, "auth:"+key, redis_rate.Limit{Rate: n, Burst: n, Period: window})
		if err == nil && res.Allowed == 0 {
			wait = max(res.RetryAfter, time.Millisecond)
		}
		return err
	}) {
		return wait
	}
	return l.local.take(key, n, window)
}

// giveBack makes take forget the events of key.
func (l *limiter) giveBack(ctx context.Context, key string) {
	l.shared(ctx, func(ctx context.Context) error { return l.rates.Reset(ctx, "auth:"+key) })
	l.local.rates.Remove(key)
}

// attempt counts an attempt to prove a password under key before it is made, so
// that attempts made at the same time count too. It returns 0, or how long the
// account is locked. forgive forgets all attempts.
func (l *limiter) attempt(ctx context.Context, key string) time.Duration {
	var wait time.Duration
	if l.shared(ctx, func(ctx context.Context) error {
		ms, err := attemptScript.Run(ctx, l.rdb, []string{"auth:attempts:" + key}, l.cfg.FreeAttempts,
			l.cfg.BaseDelay.Milliseconds(), l.cfg.MaxDelay.Milliseconds(), attemptMemory(l.cfg).Milliseconds()).Int64()
		wait = time.Duration(ms) * time.Millisecond
		return err
	}) {
		return wait
	}
	return l.local.attempt(key)
}

func (l *limiter) forgive(ctx context.Context, key string) {
	l.shared(ctx, func(ctx context.Context) error { return l.rdb.Del(ctx, "auth:attempts:"+key).Err() })
	l.local.attempts.Remove(key)
}

// shared runs f, which asks Redis, and reports whether it could.
func (l *limiter) shared(ctx context.Context, f func(ctx context.Context) error) bool {
	if err := f(ctx); err != nil && !errors.Is(err, redis.Nil) {
		l.fellBack.Inc()
		return false
	}
	return true
}

// attemptMemory is how long failed attempts are remembered after the last one.
func attemptMemory(c LimitConfig) time.Duration { return 4 * c.MaxDelay }

// attemptScript: see attempt. ARGV: free attempts, base and longest delay and
// memory in ms. Returns the ms to wait. Only the account's own key is touched.
var attemptScript = redis.NewScript(`
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local until_ = tonumber(redis.call('HGET', KEYS[1], 'until') or '0')
if until_ > now then
  return until_ - now
end
local n = redis.call('HINCRBY', KEYS[1], 'n', 1)
local free = tonumber(ARGV[1])
if n >= free then
  local delay = math.min(tonumber(ARGV[3]), tonumber(ARGV[2]) * 2 ^ math.min(n - free, 30))
  redis.call('HSET', KEYS[1], 'until', string.format('%.0f', now + delay))
end
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 0
`)

// localKeys bounds the memory of a localLimiter; beyond it the key used longest
// ago is forgotten.
const localKeys = 100_000

// localLimiter is limiter's stand-in, within one process.
type localLimiter struct {
	cfg      LimitConfig
	rates    *lru.Cache[string, *rate.Limiter]
	mu       sync.Mutex // guards the values of attempts
	attempts *lru.Cache[string, *attempts]
}

type attempts struct {
	n           int
	last, until time.Time
}

func newLocalLimiter(cfg LimitConfig) *localLimiter {
	rates, err := lru.New[string, *rate.Limiter](localKeys)
	if err != nil {
		panic(err) // the size is a constant
	}
	tries, err := lru.New[string, *attempts](localKeys)
	if err != nil {
		panic(err)
	}
	return &localLimiter{cfg: cfg, rates: rates, attempts: tries}
}

func (l *localLimiter) take(key string, n int, window time.Duration) time.Duration {
	r, ok := l.rates.Get(key)
	if !ok {
		fresh := rate.NewLimiter(rate.Limit(float64(n)/window.Seconds()), n)
		if r, ok, _ = l.rates.PeekOrAdd(key, fresh); !ok {
			r = fresh
		}
	}
	res := r.Reserve()
	wait := res.Delay()
	if wait > 0 {
		res.Cancel()
	}
	return wait
}

func (l *localLimiter) attempt(key string) time.Duration {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	a, ok := l.attempts.Get(key)
	if !ok || now.Sub(a.last) > attemptMemory(l.cfg) {
		a = &attempts{}
		l.attempts.Add(key, a)
	}
	if wait := a.until.Sub(now); wait > 0 {
		return wait
	}
	a.n++
	a.last = now
	if over := a.n - l.cfg.FreeAttempts; over >= 0 {
		delay := time.Duration(math.Min(float64(l.cfg.MaxDelay), float64(l.cfg.BaseDelay)*math.Pow(2, float64(min(over, 30)))))
		a.until = now.Add(delay)
	}
	return 0
}
