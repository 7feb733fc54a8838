package logic

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"im-services/internal/im"
)

// A gateway that dies takes nobody down with it properly: its users' routes
// stay in Redis. They count for nothing from the moment discovery drops the
// gateway; what is left to do is to tell the friends, at once, and to clear
// away, later: a gateway that was only frozen or cut off comes back under the
// same name with its sockets open.
//
// Replicas learn of a death or a return one after another, and any of them may
// be the one to look at a user. So each has the gateway's users looked at when it
// learns of it itself: whatever the others saw before, the look after the last of
// them has learnt it is right.
const (
	// gatewaysKey is the set of gateways that have lived, for replicas that
	// start after one died.
	gatewaysKey = "presence:gateways"
	// deadKey maps gateways to when they were found dead (Redis's clock, ms).
	deadKey = "presence:dead"
	// mournLock is how long one replica has to bury one gateway.
	mournLock = 5 * time.Second
	// buryAfter is how long a dead gateway's routes are kept.
	buryAfter = time.Minute
)

func mournKey(g im.GatewayID) string { return "presence:mourn:" + string(g) }

// watchGateways finds gateways that died or came back and has their users
// looked at; a replica that starts looks at everybody.
func (p *presence) watchGateways(ctx context.Context) error {
	live := p.gateways.Live()
	if len(live) == 0 {
		return nil // discovery knows nothing yet
	}
	rdb := p.routes.rdb
	names, err := rdb.SMembers(ctx, gatewaysKey).Result()
	if away(err) != nil {
		return away(err)
	}
	known := make(map[im.GatewayID]bool, len(names)+len(live))
	for _, n := range names {
		known[im.GatewayID(n)] = true
	}
	for _, g := range live {
		if !known[g] {
			known[g] = true
			if err := away(rdb.SAdd(ctx, gatewaysKey, string(g)).Err()); err != nil {
				return err
			}
		}
	}
	p.mu.Lock()
	p.known = known
	p.mu.Unlock()
	for g := range p.looked {
		if !known[g] {
			delete(p.looked, g)
		}
	}
	for g := range known {
		lives := p.gateways.IsLive(g)
		if before, ok := p.looked[g]; ok && before == lives {
			continue
		}
		if err := p.lookAtUsersOf(ctx, g); err != nil {
			return err
		}
		p.looked[g] = lives
	}
	return p.buryDead(ctx, known)
}

// buryDead clears away gateways that are dead for long. While any replica sees
// one alive, its time starts anew.
func (p *presence) buryDead(ctx context.Context, known map[im.GatewayID]bool) error {
	rdb := p.routes.rdb
	found, err := rdb.HGetAll(ctx, deadKey).Result()
	if away(err) != nil {
		return away(err)
	}
	var now int64
	for g := range known {
		since, marked := found[string(g)]
		if p.gateways.IsLive(g) {
			if marked {
				if err := away(rdb.HDel(ctx, deadKey, string(g)).Err()); err != nil {
					return err
				}
			}
			continue
		}
		if now == 0 {
			t, err := rdb.Time(ctx).Result()
			if away(err) != nil {
				return away(err)
			}
			now = t.UnixMilli()
		}
		at, _ := strconv.ParseInt(since, 10, 64)
		switch {
		case !marked:
			err = away(rdb.HSetNX(ctx, deadKey, string(g), now).Err())
		case now-at > buryAfter.Milliseconds():
			err = p.locked(ctx, g, func() error { return p.bury(ctx, g) })
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// locked runs f unless another replica is at it.
func (p *presence) locked(ctx context.Context, g im.GatewayID, f func() error) error {
	got, err := p.routes.rdb.SetNX(ctx, mournKey(g), 1, mournLock).Result()
	if away(err) != nil || !got {
		return away(err)
	}
	if err := f(); err != nil {
		return err
	}
	return away(p.routes.rdb.Del(ctx, mournKey(g)).Err())
}

// sweepScript makes users due now, but leaves those alone whom news of their own
// has made due later: who closed his page a moment ago still has his debounce time.
// One who is only claimed, by a replica that may not know of the death yet, is
// made due again. KEYS: queue. ARGV: users.
var sweepScript = redis.NewScript(`
local t = redis.call('TIME')
local now = string.format('%.0f', tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000))
for i = 1, #ARGV do
  local s = redis.call('ZSCORE', KEYS[1], ARGV[i])
  if not s or tonumber(s) % 1 ~= 0 then redis.call('ZADD', KEYS[1], now, ARGV[i]) end
end
return 1
`)

// sweep makes users due now, without a debounce.
func (p *presence) sweep(ctx context.Context, users []im.UserID) error {
	for page := range slices.Chunk(users, presencePage) {
		if err := away(sweepScript.Run(ctx, p.routes.rdb, []string{dueKey}, anys(page)...).Err()); err != nil {
			return err
		}
	}
	return nil
}

// lookAtUsersOf makes everybody due who had a route to the gateway. There is no
// debounce for them: a lease has run out already.
func (p *presence) lookAtUsersOf(ctx context.Context, g im.GatewayID) error {
	return p.usersOf(ctx, g, func(page []string) error { return p.sweep(ctx, parseUsers(page)) })
}

// usersOf walks over everybody who had a route to the gateway, page by page.
func (p *presence) usersOf(ctx context.Context, g im.GatewayID, f func(page []string) error) error {
	for cursor := uint64(0); ; {
		ids, next, err := p.routes.rdb.SScan(ctx, gatewayKey(g), cursor, "", presencePage).Result()
		if away(err) != nil {
			return away(err)
		}
		if len(ids) > 0 {
			if err := f(ids); err != nil {
				return err
			}
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}

// parseUsers passes over what is no user.
func parseUsers(page []string) []im.UserID {
	users := make([]im.UserID, 0, len(page))
	for _, id := range page {
		if n, err := strconv.ParseInt(id, 10, 64); err == nil {
			users = append(users, im.UserID(n))
		}
	}
	return users
}

// bury removes what a gateway left in the route store. Routes are removed by
// their own field, so nobody else's can go. The gateway may be alive, only cut off
// from discovery, and make its routes again meanwhile: so its users are taken off its
// list first, and who is put there again stays there.
func (p *presence) bury(ctx context.Context, g im.GatewayID) error {
	rdb := p.routes.rdb
	err := p.usersOf(ctx, g, func(page []string) error {
		if err := away(rdb.SRem(ctx, gatewayKey(g), page).Err()); err != nil {
			return err
		}
		users := parseUsers(page)
		states, _, err := p.routes.read(ctx, users)
		if err != nil {
			return err
		}
		var gone []departure
		for i, st := range states {
			for _, rt := range st.routes {
				if rt.gateway == g {
					gone = append(gone, departure{user: users[i], route: rt})
				}
			}
		}
		_, err = p.routes.remove(ctx, gone)
		return err
	})
	if err != nil {
		return err
	}
	pipe := rdb.Pipeline()
	pipe.SRem(ctx, gatewaysKey, string(g))
	pipe.HDel(ctx, deadKey, string(g))
	_, err = pipe.Exec(ctx)
	return away(err)
}
