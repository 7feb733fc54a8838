package logic

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"im-services/internal/im"
)

// epochKey names the life of the push counters. It goes with the rest of
// Redis, so a new one appears exactly when the counters restarted.
const epochKey = "im:epoch"

// The routes of a user are one string and not a hash, because one MGET reads the
// strings of many users, each for a third of what an HGETALL costs Redis. Keys of
// one user share a hash tag and a script touches one user only; but the MGETs
// want all users on one server, and the scripts what is shared by all, so this is not
// for a Redis Cluster as it is.
const (
	routesPrefix = "routes:{"
	pvPrefix     = "pv:{"
)

func routesKey(u im.UserID) string { return routesPrefix + strconv.FormatInt(int64(u), 10) + "}" }
func pvKey(u im.UserID) string     { return pvPrefix + strconv.FormatInt(int64(u), 10) + "}" }

// gatewayKey holds the users with a route to one gateway, to clean up after it.
func gatewayKey(g im.GatewayID) string { return "gwusers:" + string(g) }

// route says where one connection of a user is.
type route struct {
	gateway  im.GatewayID
	conn     im.ConnID
	platform im.Platform
	sinceMS  int64
}

func (r route) field() string { return string(r.gateway) + "/" + strconv.FormatInt(int64(r.conn), 10) }

func (r route) value() string {
	return strconv.Itoa(int(r.platform)) + ":" + strconv.FormatInt(r.sinceMS, 10)
}

// entry is how a route is written in the string of a user's routes, which is
// made of entries with spaces between them.
func (r route) entry() string { return r.field() + "=" + r.value() }

// hasField reports whether the route has this field, without making it.
func (r route) hasField(field string) bool {
	n := len(r.gateway)
	if len(field) <= n || field[n] != '/' || field[:n] != string(r.gateway) {
		return false
	}
	var buf [20]byte
	return field[n+1:] == string(strconv.AppendInt(buf[:0], int64(r.conn), 10))
}

// parseRoute is the inverse of field and value.
func parseRoute(field, value string) (route, bool) {
	slash := strings.LastIndexByte(field, '/')
	colon := strings.IndexByte(value, ':')
	if slash <= 0 || colon <= 0 {
		return route{}, false
	}
	conn, err1 := strconv.ParseInt(field[slash+1:], 10, 64)
	platform, err2 := strconv.ParseUint(value[:colon], 10, 8)
	since, err3 := strconv.ParseInt(value[colon+1:], 10, 64)
	if err1 != nil || err2 != nil || err3 != nil {
		return route{}, false
	}
	return route{gateway: im.GatewayID(field[:slash]), conn: im.ConnID(conn), platform: im.Platform(platform), sinceMS: since}, true
}

// appendRoutes appends the routes that a user's string names to dst. What is no
// route is passed over.
func appendRoutes(dst []route, list string) []route {
	for list != "" {
		var entry string
		entry, list, _ = strings.Cut(list, " ")
		field, value, _ := strings.Cut(entry, "=")
		if rt, ok := parseRoute(field, value); ok {
			dst = append(dst, rt)
		}
	}
	return dst
}

// routes is the store of where users are connected and of their push counters.
// Everything in it is a hint that MySQL and the gateways can rebuild. Its client
// answers at once while Redis is away (platform/cache), so a dead Redis costs
// callers little; they get errRoutesDown.
type routes struct {
	rdb   *redis.Client
	named atomic.Bool // an epoch has been seen or made, and was not missed since
}

var errRoutesDown = errors.New("logic: route store is away")

func newRoutes(rdb *redis.Client) *routes { return &routes{rdb: rdb} }

// away wraps an error that says that Redis did not answer.
func away(err error) error {
	if err == nil || errors.Is(err, redis.Nil) {
		return nil
	}
	return fmt.Errorf("%w: %w", errRoutesDown, err)
}

// ensureEpoch makes an epoch if Redis has lost it.
func (r *routes) ensureEpoch(ctx context.Context) error {
	return away(r.rdb.SetNX(ctx, epochKey, rand.Text(), 0).Err())
}

// registerScript adds a route, notes for its gateway whose it is, makes its user due to
// be looked at (see presence), and returns the push counter, the time the route got, the epoch, made if there is none, and whether the
// connection had a route before, then the fields and values of the routes of the same
// platform that it displaced. Counter and epoch are read in one go: a counter under
// the epoch of another life of Redis would make the connection take what it gets for
// repeats. A registration may be delayed until its client is back on another
// socket, and must not displace that: on its own gateway the higher connection id
// is the newer one; between gateways the later time is, as long as the times are
// so close that the clocks may be believed. Otherwise a new connection wins and
// counts as made after the other, whatever its gateway's clock says. One that
// loses gets -1 for the counter; so does one that is only registered again and
// finds a newer one there. A new connection that is registered twice, by way of two
// replicas, gets a later time, so that who made the first route can tell it from
// the second.
//
// KEYS: routes, push counter, epoch, users of the gateway, users who are due. ARGV: field, platform,
// since, "1" to displace, "1" if new, gateway and slash, connection id, how far in ms
// clocks are believed, a new epoch, user.
var registerScript = redis.NewScript(`
local since = tonumber(ARGV[3])
redis.call('SET', KEYS[3], ARGV[9], 'NX')
local epoch = redis.call('GET', KEYS[3])
local kept, displaced, again = {}, {}, 0
for entry in string.gmatch(redis.call('GET', KEYS[1]) or '', '%S+') do
  local field, p, s = string.match(entry, '^(.+)=(%d+):(%d+)$')
  if field == ARGV[1] then
    again = 1
    if ARGV[5] == '1' then since = math.max(since, tonumber(s) + 1) end
  elseif ARGV[4] ~= '1' or p ~= ARGV[2] then
    kept[#kept+1] = entry
  else
    local sibling = string.sub(field, 1, #ARGV[6]) == ARGV[6]
    if sibling then
      local conn = tonumber(string.sub(field, #ARGV[6] + 1))
      if conn and conn > tonumber(ARGV[7]) then return {-1, since, epoch} end
    end
    local at = tonumber(s)
    if at >= since then
      if not sibling and (ARGV[5] ~= '1' or (at > since and at - since < tonumber(ARGV[8]))) then return {-1, since, epoch} end
      since = at + 1
    end
    displaced[#displaced+1] = field
    displaced[#displaced+1] = p .. ':' .. s
  end
end
kept[#kept+1] = ARGV[1] .. '=' .. ARGV[2] .. ':' .. string.format('%.0f', since)
redis.call('SET', KEYS[1], table.concat(kept, ' '))
redis.call('SADD', KEYS[4], ARGV[10])
local t = redis.call('TIME')
redis.call('ZADD', KEYS[5], string.format('%.0f', tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)), ARGV[10])
local pv = redis.call('GET', KEYS[2])
local out = {tonumber(pv or '0'), since, epoch, again}
for i = 1, #displaced do out[#out+1] = displaced[i] end
return out
`)

// lateRegistration is how much later another gateway's connection may be made
// and still count as the newer one. A client that such a judgement wrongs, because
// clocks are apart, is let in when it tries again.
const lateRegistration = 3 * time.Second

// registration is the answer to register.
type registration struct {
	pv        im.PV
	epoch     string
	sinceMS   int64
	displaced []route
	// again: the connection had a route before.
	again bool
	// lost: a newer connection of the platform holds the place already.
	lost bool
}

// register adds the user's route. With displace, older routes of the same
// platform are removed and returned. It is one atomic step, and safe to repeat.
func (r *routes) register(ctx context.Context, u im.UserID, rt route, displace, fresh bool) (registration, error) {
	regs, err := r.registerAll(ctx, []im.UserID{u}, []route{rt}, displace, fresh)
	return regs[0], err
}

// registerAll registers each of the users in a step of his own, all in one round trip:
// after Redis lost its contents there are as many as there are connections.
func (r *routes) registerAll(ctx context.Context, users []im.UserID, rts []route, displace, fresh bool) ([]registration, error) {
	flag := func(b bool) string {
		if b {
			return "1"
		}
		return "0"
	}
	regs, epoch := make([]registration, len(users)), rand.Text()
	answers, err := r.script(ctx, registerScript, len(users), func(i int) ([]string, []any) {
		u, rt := users[i], rts[i]
		return []string{routesKey(u), pvKey(u), epochKey, gatewayKey(rt.gateway), dueKey}, []any{
			rt.field(), strconv.Itoa(int(rt.platform)), strconv.FormatInt(rt.sinceMS, 10), flag(displace), flag(fresh),
			string(rt.gateway) + "/", strconv.FormatInt(int64(rt.conn), 10), lateRegistration.Milliseconds(), epoch, int64(u),
		}
	})
	if err != nil {
		return regs, err
	}
	for i, c := range answers {
		res, err := c.Slice()
		if err == nil && len(res) < 3 {
			err = errors.New("short answer")
		}
		if err != nil {
			return regs, fmt.Errorf("register route: %w", err)
		}
		regs[i] = registered(res)
	}
	return regs, nil
}

// registered reads an answer of registerScript.
func registered(res []any) registration {
	var reg registration
	pv, _ := res[0].(int64)
	reg.sinceMS, _ = res[1].(int64)
	reg.epoch, _ = res[2].(string)
	reg.lost, reg.pv = pv < 0, im.PV(max(pv, 0))
	if len(res) > 3 {
		again, _ := res[3].(int64)
		reg.again = again == 1
	}
	for i := 4; i+1 < len(res); i += 2 {
		f, _ := res[i].(string)
		v, _ := res[i+1].(string)
		if d, ok := parseRoute(f, v); ok && !reg.lost {
			reg.displaced = append(reg.displaced, d)
		}
	}
	return reg
}

// departure is a route that goes.
type departure struct {
	user  im.UserID
	route route
	// exact: only if the route was not made anew since.
	exact bool
	// delay is when its user is looked at for that. With none it is at once, unless he
	// has just left elsewhere: then he still has the delay of that.
	delay time.Duration
}

// removeScript deletes one route, if it is there, and makes its user due. That he was
// here is noted, where Redis has forgotten it: otherwise his going would look like no
// change. It returns the epoch under which that was, "" if there is none.
//
// KEYS: routes, presence, users who are due, epoch. ARGV: field, its value or "" if
// that may be any, user, delay in ms.
var removeScript = redis.NewScript(`
local kept, found = {}, false
for entry in string.gmatch(redis.call('GET', KEYS[1]) or '', '%S+') do
  local field, value = string.match(entry, '^(.+)=(.+)$')
  if field == ARGV[1] and (ARGV[2] == '' or value == ARGV[2]) then found = true else kept[#kept+1] = entry end
end
if found then
  if #kept == 0 then redis.call('DEL', KEYS[1]) else redis.call('SET', KEYS[1], table.concat(kept, ' ')) end
end
redis.call('HSETNX', KEYS[2], 's', '1')
local due = redis.call('ZSCORE', KEYS[3], ARGV[3])
if ARGV[4] ~= '0' or not due or tonumber(due) % 1 ~= 0 then
  local t = redis.call('TIME')
  local now = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
  redis.call('ZADD', KEYS[3], string.format('%.0f', now + tonumber(ARGV[4])), ARGV[3])
end
return redis.call('GET', KEYS[4]) or ''
`)

// remove deletes routes, each by its own field: the route of a newer connection
// has another field and stays. It returns the epoch under which each went.
func (r *routes) remove(ctx context.Context, gone []departure) (epochs []string, err error) {
	answers, err := r.script(ctx, removeScript, len(gone), func(i int) ([]string, []any) {
		d, value := gone[i], ""
		if d.exact {
			value = d.route.value()
		}
		return []string{routesKey(d.user), presenceKey(d.user), dueKey, epochKey},
			[]any{d.route.field(), value, int64(d.user), d.delay.Milliseconds()}
	})
	if err != nil {
		return nil, err
	}
	epochs = make([]string, len(gone))
	for i, c := range answers {
		if epochs[i], err = c.Text(); err != nil {
			return nil, away(err)
		}
	}
	return epochs, nil
}

// script runs a script n times in one round trip and returns the answers. Running it
// again must be harmless.
func (r *routes) script(ctx context.Context, s *redis.Script, n int, call func(int) ([]string, []any)) ([]*redis.Cmd, error) {
	for attempt := 0; ; attempt++ {
		pipe := r.rdb.Pipeline()
		cmds := make([]*redis.Cmd, n)
		for i := range n {
			keys, args := call(i)
			cmds[i] = s.EvalSha(ctx, pipe, keys, args...)
		}
		_, err := pipe.Exec(ctx)
		if err != nil && attempt == 0 && redis.HasErrorPrefix(err, "NOSCRIPT") {
			if err := s.Load(ctx, r.rdb).Err(); err != nil {
				return nil, away(err)
			}
			continue
		}
		return cmds, away(err)
	}
}
