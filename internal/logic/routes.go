package logic

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"im-services/internal/im"
)

// epochKey names the life of the push counters. It goes with the rest of
// Redis, so a new one appears exactly when the counters restarted.
const epochKey = "im:epoch"

// Keys of one user share a hash tag: a script may touch both in a Redis Cluster.
func routeKey(u im.UserID) string { return "route:{" + strconv.FormatInt(int64(u), 10) + "}" }
func pvKey(u im.UserID) string    { return "pv:{" + strconv.FormatInt(int64(u), 10) + "}" }

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

// routes is the store of where users are connected and of their push counters.
// Everything in it is a hint that MySQL and the gateways can rebuild. Its client
// answers at once while Redis is away (platform/cache), so a dead Redis costs
// callers little; they get errRoutesDown.
type routes struct {
	rdb *redis.Client
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

// audience is a set of users who get the same run of n messages.
type audience struct {
	users []im.UserID
	n     int64
	// count is false for users who are only looked up: their counter stays.
	count bool
	// pvs and routes are filled by lookup, parallel to users.
	pvs    []int64
	routes [][]route
}

// lookup counts the pushes of every audience and reads where its users are, in
// one round trip. It returns the epoch the counters belong to.
func (r *routes) lookup(ctx context.Context, audiences []*audience) (epoch string, err error) {
	pipe := r.rdb.Pipeline()
	epochCmd := pipe.Get(ctx, epochKey)
	type reply struct {
		pv    *redis.IntCmd
		route *redis.MapStringStringCmd
	}
	var replies []reply
	for _, a := range audiences {
		for _, u := range a.users {
			var rep reply
			if a.count {
				rep.pv = pipe.IncrBy(ctx, pvKey(u), a.n)
			}
			rep.route = pipe.HGetAll(ctx, routeKey(u))
			replies = append(replies, rep)
		}
	}
	if _, err := pipe.Exec(ctx); away(err) != nil {
		return "", away(err)
	}
	i := 0
	for _, a := range audiences {
		a.pvs, a.routes = make([]int64, len(a.users)), make([][]route, len(a.users))
		for k := range a.users {
			if replies[i].pv != nil {
				a.pvs[k] = replies[i].pv.Val()
			}
			for f, v := range replies[i].route.Val() {
				if rt, ok := parseRoute(f, v); ok {
					a.routes[k] = append(a.routes[k], rt)
				}
			}
			i++
		}
	}
	if epoch = epochCmd.Val(); epoch == "" {
		return r.ensureEpoch(ctx)
	}
	return epoch, nil
}

// ensureEpoch returns the epoch, making one if Redis has lost it.
func (r *routes) ensureEpoch(ctx context.Context) (string, error) {
	pipe := r.rdb.Pipeline()
	pipe.SetNX(ctx, epochKey, rand.Text(), 0)
	get := pipe.Get(ctx, epochKey)
	if _, err := pipe.Exec(ctx); away(err) != nil {
		return "", away(err)
	}
	return get.Val(), nil
}

// registerScript adds a route and returns the push counter and the time the
// route got, then the fields and values of the routes of the same platform that
// it displaced. A registration may be delayed until its client is back on another
// socket, and must not displace that: on its own gateway the higher connection id
// is the newer one; between gateways the later time is, as long as the times are
// so close that the clocks may be believed. Otherwise a new connection wins and
// counts as made after the other, whatever its gateway's clock says. One that
// loses gets -1 for the counter; so does one that is only registered again and
// finds a newer one there.
//
// KEYS: route hash, push counter. ARGV: field, platform, since, "1" to
// displace, "1" if new, gateway and slash, connection id, how far in ms clocks are believed.
var registerScript = redis.NewScript(`
local since = tonumber(ARGV[3])
local displaced = {}
if ARGV[4] == '1' then
  local all = redis.call('HGETALL', KEYS[1])
  for i = 1, #all, 2 do
    local p, s = string.match(all[i+1], '^(%d+):(%d+)$')
    if p == ARGV[2] and all[i] ~= ARGV[1] then
      s = tonumber(s)
      if string.sub(all[i], 1, #ARGV[6]) == ARGV[6] then
        local conn = tonumber(string.sub(all[i], #ARGV[6] + 1))
        if conn and conn > tonumber(ARGV[7]) then return {-1, since} end
      end
      if s >= since then
        if ARGV[5] ~= '1' or (s > since and s - since < tonumber(ARGV[8])) then return {-1, since} end
        since = s + 1
      end
      displaced[#displaced+1] = all[i]
      displaced[#displaced+1] = all[i+1]
    end
  end
  for i = 1, #displaced, 2 do redis.call('HDEL', KEYS[1], displaced[i]) end
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ':' .. string.format('%.0f', since))
local pv = redis.call('GET', KEYS[2])
local out = {tonumber(pv or '0'), since}
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
	// lost: a newer connection of the platform holds the place already.
	lost bool
}

// register adds the user's route. With displace, older routes of the same
// platform are removed and returned. It is one atomic step per user, and safe
// to repeat.
func (r *routes) register(ctx context.Context, u im.UserID, rt route, displace, fresh bool) (registration, error) {
	var reg registration
	flag := func(b bool) string {
		if b {
			return "1"
		}
		return "0"
	}
	res, err := registerScript.Run(ctx, r.rdb, []string{routeKey(u), pvKey(u)},
		rt.field(), strconv.Itoa(int(rt.platform)), strconv.FormatInt(rt.sinceMS, 10), flag(displace), flag(fresh),
		string(rt.gateway)+"/", strconv.FormatInt(int64(rt.conn), 10), lateRegistration.Milliseconds()).Slice()
	if away(err) != nil {
		return reg, away(err)
	}
	if len(res) < 2 {
		return reg, fmt.Errorf("register route: short answer")
	}
	pv, _ := res[0].(int64)
	reg.sinceMS, _ = res[1].(int64)
	reg.lost, reg.pv = pv < 0, im.PV(max(pv, 0))
	for i := 2; i+1 < len(res); i += 2 {
		f, _ := res[i].(string)
		v, _ := res[i+1].(string)
		if d, ok := parseRoute(f, v); ok && !reg.lost {
			reg.displaced = append(reg.displaced, d)
		}
	}
	if err := r.rdb.SAdd(ctx, gatewayKey(rt.gateway), int64(u)).Err(); away(err) != nil {
		return reg, away(err)
	}
	reg.epoch, err = r.ensureEpoch(ctx)
	return reg, err
}

// remove deletes routes, each by its own field: the route of a newer connection
// has another field and stays.
func (r *routes) remove(ctx context.Context, users []im.UserID, rts []route) error {
	pipe := r.rdb.Pipeline()
	for i, u := range users {
		pipe.HDel(ctx, routeKey(u), rts[i].field())
	}
	_, err := pipe.Exec(ctx)
	return away(err)
}

// userState is what the route store knows of one user.
type userState struct {
	pv     im.PV
	routes []route
}

// read returns the state of many users in one round trip.
func (r *routes) read(ctx context.Context, users []im.UserID) ([]userState, string, error) {
	pipe := r.rdb.Pipeline()
	pvs := make([]*redis.StringCmd, len(users))
	hashes := make([]*redis.MapStringStringCmd, len(users))
	for i, u := range users {
		pvs[i] = pipe.Get(ctx, pvKey(u))
		hashes[i] = pipe.HGetAll(ctx, routeKey(u))
	}
	if len(users) > 0 {
		if _, err := pipe.Exec(ctx); away(err) != nil {
			return nil, "", away(err)
		}
	}
	out := make([]userState, len(users))
	for i := range users {
		pv, _ := pvs[i].Int64()
		out[i].pv = im.PV(pv)
		for f, v := range hashes[i].Val() {
			if rt, ok := parseRoute(f, v); ok {
				out[i].routes = append(out[i].routes, rt)
			}
		}
	}
	epoch, err := r.ensureEpoch(ctx)
	return out, epoch, err
}
