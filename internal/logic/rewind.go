package logic

import (
	"context"
	"crypto/rand"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// A Redis that dies usually comes back with nothing, which everybody notices by the
// epoch. But it may come back as it was some time ago: from its own disk, or as a
// replica that did not have everything yet. Then push counters go back under the epoch
// of before, so that new messages look like repeats of old ones, and routes of
// connections that are gone are there again. The server says by another run id that it
// is not the one of before: then its routes are thrown away and a new epoch begins, as
// if it had come back with nothing.

const (
	// runKey holds the run id of the server for which the epoch was made. It goes with
	// the epoch when everything goes.
	runKey = "im:run"
	// rewindKey is there while a replica sees to it.
	rewindKey = "im:rewind"
	// rewindLook is how often a replica asks who the server is.
	rewindLook = 500 * time.Millisecond
	// rewindPage is how many keys are looked at at once, rewindTime how long all may take.
	rewindPage = 1000
	rewindTime = 10 * time.Second
)

// runScript notes the server's run and begins an epoch if another was noted. KEYS: run,
// epoch. ARGV: the run, a new epoch.
var runScript = redis.NewScript(`
local noted = redis.call('GET', KEYS[1])
if noted == ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1])
if noted then redis.call('SET', KEYS[2], ARGV[2]) end
return 1
`)

// watchRun looks for another run of Redis until ctx ends.
func (r *routes) watchRun(ctx context.Context) {
	every(ctx, rewindLook, func() { _ = r.lookAtRun(ctx) }) // what fails is done the next time
}

// lookAtRun begins a new epoch if Redis is not the server that it was.
func (r *routes) lookAtRun(ctx context.Context) error {
	info, err := r.rdb.Info(ctx, "server").Result()
	if err != nil {
		return away(err)
	}
	_, run, _ := strings.Cut(info, "run_id:")
	run, _, _ = strings.Cut(run, "\r\n")
	if run == "" {
		return nil // a service that says nothing of its servers
	}
	if noted, err := r.rdb.Get(ctx, runKey).Result(); away(err) != nil || noted == run {
		return away(err)
	}
	if first, err := r.rdb.SetNX(ctx, rewindKey, 1, rewindTime).Result(); err != nil || !first {
		return away(err)
	}
	defer r.rdb.Del(context.WithoutCancel(ctx), rewindKey)
	noted, err := r.rdb.Get(ctx, runKey).Result() // another replica may just have done it
	if away(err) != nil || noted == run {
		return away(err)
	}
	if noted != "" {
		if err := r.dropRoutes(ctx); err != nil {
			return err
		}
	}
	return away(runScript.Run(ctx, r.rdb, []string{runKey, epochKey}, run, rand.Text()).Err())
}

// dropRoutes removes all routes, the lists of whose they are, and what was told of
// users' presence. The gateways make those routes again that are true, when they see the
// new epoch; who is online is told once more, for what friends were told since is lost.
func (r *routes) dropRoutes(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, rewindTime)
	defer cancel()
	for _, pattern := range []string{routesPrefix + "*", gatewayKey("*"), presencePrefix + "*"} {
		for cursor := uint64(0); ; {
			keys, next, err := r.rdb.Scan(ctx, cursor, pattern, rewindPage).Result()
			if err != nil {
				return away(err)
			}
			if len(keys) > 0 {
				if err := r.rdb.Unlink(ctx, keys...).Err(); err != nil {
					return away(err)
				}
			}
			if cursor = next; cursor == 0 {
				break
			}
		}
	}
	return nil
}
