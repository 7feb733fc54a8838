package logic

import (
	"context"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	pushv1 "im-services/api/proto/push/v1"
	"im-services/internal/im"
)

const (
	// presencePoll is how often a replica looks for users who are due.
	presencePoll = 100 * time.Millisecond
	// presenceSweep is how often a replica compares the gateways it knows with
	// those that live. With the lease of 5 s it bounds what a dead gateway's
	// users look like to their friends.
	presenceSweep = 500 * time.Millisecond
	// presenceLease is how long a claimed user belongs to the replica that
	// claimed him; if it dies, another one goes on after that.
	presenceLease = 5 * time.Second
	// presenceInFlight is how long an announcement that is not confirmed is left
	// to who makes it. It is shorter than the lease, so that after a crash the
	// next claim finds it over.
	presenceInFlight = 4 * time.Second
	// presencePage bounds the users of one claim.
	presencePage = 200
	// presencePause is how long a replica waits after Redis or the bus failed it.
	presencePause = time.Second
	// presenceKeep is how long the last state of a user who is away is kept.
	presenceKeep = 24 * time.Hour
	// maxRecent bounds the users remembered who came, or left, just now.
	maxRecent = 1 << 17
)

// dueKey is the queue of users to look at, by time, shared by all replicas.
const dueKey = "presence:due"

const presencePrefix = "presence:{"

// presenceKey holds what was last told of a user: s state, r the version under
// which that is told to all his friends, d "1" once it is, v the highest version
// handed out. Versions of changes are times (Redis's clock, ms) wherever that
// lets them rise. The key shares the hash tag of his routes.
func presenceKey(u im.UserID) string { return presencePrefix + strconv.FormatInt(int64(u), 10) + "}" }

// presence tells online friends who came and who went.
//
// It is level-triggered: an event only says "look at this user". The look itself
// compares, in one atomic step in Redis, whether he has a live route with what
// was last told, so events may be repeated, merged or out of order. The queue of
// users to look at is in Redis, and who makes or removes a route puts its user there
// in the same step: a replica that dies with the answer to a gateway loses nothing. A
// user who comes back within the debounce time was never away.
//
// Versions only rise, even when Redis loses its contents: they start from its
// clock. Each is told again after a while, in case that the bus lost it (repeats);
// gateways drop what they have seen, and older ones.
type presence struct {
	routes   *routes
	store    *store
	pub      *publisher
	gateways Gateways
	debounce time.Duration
	log      *slog.Logger
	wake     chan struct{}

	looked  map[im.GatewayID]bool // run's own: gateways whose users were looked at, as live or as dead
	repeats repeats               // run's own

	mu    sync.Mutex            // guards the following fields
	gone  map[im.UserID]leaving // who left just now
	newly map[im.UserID]arrival // users with a new connection, to be greeted
	known map[im.GatewayID]bool // gateways that live or have lived
	quiet time.Time             // do nothing before: Redis or the bus failed
}

// leaving is when a user left, and in which life of Redis that was noted.
type leaving struct {
	at    time.Time
	epoch string
}

func newPresence(rt *routes, st *store, pub *publisher, gw Gateways, debounce time.Duration, log *slog.Logger) *presence {
	return &presence{
		routes: rt, store: st, pub: pub, gateways: gw, debounce: debounce, log: log,
		wake: make(chan struct{}, 1), looked: map[im.GatewayID]bool{}, gone: map[im.UserID]leaving{}, newly: map[im.UserID]arrival{},
	}
}

// arrived notes that a user has a new connection. It does not block.
func (p *presence) arrived(u im.UserID) {
	p.mu.Lock()
	if len(p.newly) < maxRecent {
		p.newly[u] = arrival{at: time.Now()}
	}
	p.mu.Unlock()
	p.soon()
}

// soon has who is due looked at without waiting for the next poll. It does not block.
func (p *presence) soon() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// leave takes routes away. When it returns without an error, their users are due to be
// looked at, whatever becomes of this replica.
func (p *presence) leave(ctx context.Context, gone []departure) error {
	epochs, err := p.routes.remove(ctx, gone)
	if err != nil {
		return err
	}
	p.mu.Lock()
	for i, d := range gone {
		if _, known := p.gone[d.user]; known || len(p.gone) < maxRecent {
			p.gone[d.user] = leaving{at: time.Now(), epoch: epochs[i]}
		}
	}
	p.mu.Unlock()
	p.soon()
	return nil
}

// run looks at users until ctx ends; then the other replicas go on.
func (p *presence) run(ctx context.Context) {
	poll, sweep := time.NewTicker(presencePoll), time.NewTicker(presenceSweep)
	defer poll.Stop()
	defer sweep.Stop()
	p.attempt(ctx, p.watchGateways)
	for {
		select {
		case <-ctx.Done():
			return
		case <-sweep.C:
			p.attempt(ctx, p.watchGateways)
			p.attempt(ctx, p.hearAgain)
		case <-p.wake:
		case <-poll.C:
		}
		p.attempt(ctx, p.settleDue)
		p.attempt(ctx, p.greet)
		p.attempt(ctx, p.repeatDue)
	}
}

// attempt runs one step unless the last failure was just now.
func (p *presence) attempt(ctx context.Context, step func(context.Context) error) {
	p.mu.Lock()
	quiet := time.Now().Before(p.quiet)
	p.mu.Unlock()
	if quiet || ctx.Err() != nil {
		return
	}
	if err := step(ctx); err != nil && ctx.Err() == nil {
		p.log.WarnContext(ctx, "presence waits", "err", err)
		p.mu.Lock()
		p.quiet = time.Now().Add(presencePause)
		p.mu.Unlock()
	}
}

// hearAgain hears again of those whose leaving Redis was told and has forgotten, with
// all else, before they were looked at: they have no connection that a gateway would
// assert, so nobody else speaks of them.
func (p *presence) hearAgain(ctx context.Context) error {
	p.mu.Lock()
	nobody := len(p.gone) == 0
	p.mu.Unlock()
	if nobody {
		return nil
	}
	epoch, err := p.routes.rdb.Get(ctx, epochKey).Result()
	if away(err) != nil {
		return away(err)
	}
	var again []departure // of no route: theirs are forgotten
	p.mu.Lock()
	for u, l := range p.gone {
		switch {
		case l.epoch != epoch:
			again = append(again, departure{user: u, delay: p.debounce})
		case time.Since(l.at) > p.debounce+presenceLease:
			delete(p.gone, u) // he has been looked at
		}
	}
	p.mu.Unlock()
	for page := range slices.Chunk(again, presencePage) {
		if err := p.leave(ctx, page); err != nil {
			return err
		}
	}
	return nil
}

// claimScript takes due users and puts them back a lease later, in case that
// this replica does not get through. The half keeps a claim's score apart from
// that of any new event. KEYS: queue. ARGV: most, lease in ms.
var claimScript = redis.NewScript(`
local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.1f', now), 'LIMIT', 0, tonumber(ARGV[1]))
local score = string.format('%.1f', now + tonumber(ARGV[2]) + 0.5)
for i = 1, #due do redis.call('ZADD', KEYS[1], score, due[i]) end
table.insert(due, 1, score)
return due
`)

// releaseScript removes users whom nothing new was heard of since the claim.
// KEYS: queue. ARGV: the claim's score, users.
var releaseScript = redis.NewScript(`
for i = 2, #ARGV do
  local s = redis.call('ZSCORE', KEYS[1], ARGV[i])
  if s and tonumber(s) == tonumber(ARGV[1]) then redis.call('ZREM', KEYS[1], ARGV[i]) end
end
return 1
`)

// settleDue looks at the users who are due.
func (p *presence) settleDue(ctx context.Context) error {
	if len(p.gateways.Live()) == 0 {
		return nil // discovery knows nothing yet: everybody would look away
	}
	for ctx.Err() == nil {
		claimed, err := claimScript.Run(ctx, p.routes.rdb, []string{dueKey}, presencePage, presenceLease.Milliseconds()).StringSlice()
		if away(err) != nil {
			return away(err)
		}
		if len(claimed) < 2 {
			return nil
		}
		users := make([]im.UserID, 0, len(claimed)-1)
		for _, c := range claimed[1:] {
			if id, err := strconv.ParseInt(c, 10, 64); err == nil {
				users = append(users, im.UserID(id))
			}
		}
		inFlight, err := p.settle(ctx, users)
		if err != nil {
			return err // they are due again when the claim's lease ends
		}
		release := []any{claimed[0]}
		for _, u := range users {
			if !inFlight[u] {
				release = append(release, int64(u))
			}
		}
		if err := away(releaseScript.Run(ctx, p.routes.rdb, []string{dueKey}, release...).Err()); err != nil {
			return err
		}
	}
	return nil
}

// lookScript compares where a user is with what was told last. It returns the
// state, and a new version if that is to be told, 0 if it is known, -1 if
// somebody is telling it just now.
//
// KEYS: routes, presence. ARGV: how long (ms) a route counts whose gateway is
// not known, how long (ms) to keep the state of one who is away, how long (ms)
// an announcement is in flight, number of live gateways, those, then dead gateways.
var lookScript = redis.NewScript(`
local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
local young = tonumber(ARGV[1])
local n = tonumber(ARGV[4])
local life = {}
for i = 5, #ARGV do
  if i <= n + 4 then life[ARGV[i]] = 1 else life[ARGV[i]] = 0 end
end
local state = '0'
for entry in string.gmatch(redis.call('GET', KEYS[1]) or '', '%S+') do
  local g, since = string.match(entry, '^(.+)/%d+=%d+:(%d+)$')
  if g then
    local age = now - tonumber(since)
    if life[g] == 1 or (life[g] == nil and age < young and age > -young) then
      state = '1'
      break
    end
  end
end
local told = redis.call('HMGET', KEYS[2], 'v', 's', 'd', 'r')
if told[2] == state and told[3] == '1' then return {tonumber(state), 0} end
if told[2] == state and told[3] == '0' and now - (tonumber(told[4] or '') or 0) < tonumber(ARGV[3]) then return {tonumber(state), -1} end
if not told[2] and state == '0' then return {0, 0} end
local v = math.max(now, (tonumber(told[1] or '') or 0) + 1)
local version = string.format('%.0f', v)
redis.call('HSET', KEYS[2], 'v', version, 'r', version, 's', state, 'd', '0')
if state == '1' then redis.call('PERSIST', KEYS[2]) else redis.call('PEXPIRE', KEYS[2], ARGV[2]) end
return {tonumber(state), v}
`)

// toldScript notes that a version is told. KEYS: presence. ARGV: version.
var toldScript = redis.NewScript(`
if redis.call('HGET', KEYS[1], 'r') == ARGV[1] then redis.call('HSET', KEYS[1], 'd', '1') end
return 1
`)

// news is a change to tell of.
type news struct {
	user    im.UserID
	online  bool
	version int64
	change  int64 // if it tells of an earlier version again
}

// settle looks at users and tells the friends of those who changed. It returns
// whose change somebody else is telling: they are to be looked at once more, in
// case that he does not get through.
func (p *presence) settle(ctx context.Context, users []im.UserID) (inFlight map[im.UserID]bool, err error) {
	changed, inFlight, err := p.look(ctx, users)
	if err != nil || len(changed) == 0 {
		return inFlight, err
	}
	ids := make([]im.UserID, len(changed))
	for i, c := range changed {
		ids[i] = c.user
	}
	friends, err := p.store.friendsOf(ctx, ids)
	if err != nil {
		return nil, err
	}
	var events []*pushv1.Event
	for _, c := range changed {
		if f := friends[c.user]; len(f) > 0 {
			events = append(events, &pushv1.Event{UserIds: f, Body: &pushv1.Event_Presence{Presence: &pushv1.PresenceEvent{
				UserId: int64(c.user), Online: c.online, Version: c.version,
			}}})
		}
	}
	sent, _, err := p.pub.publishAddressed(ctx, events)
	if err != nil {
		return nil, err
	}
	p.repeats.add(time.Now(), changed, sent)
	_, err = p.routes.script(ctx, toldScript, len(changed), func(i int) ([]string, []any) {
		return []string{presenceKey(changed[i].user)}, []any{changed[i].version}
	})
	return inFlight, err
}

// look runs the comparison for many users in one round trip.
func (p *presence) look(ctx context.Context, users []im.UserID) (changed []news, inFlight map[im.UserID]bool, err error) {
	live := p.gateways.Live()
	args := []any{youngRoute.Milliseconds(), presenceKeep.Milliseconds(), presenceInFlight.Milliseconds(), len(live)}
	for _, g := range live {
		args = append(args, string(g))
	}
	p.mu.Lock()
	for g := range p.known {
		if !p.gateways.IsLive(g) {
			args = append(args, string(g))
		}
	}
	p.mu.Unlock()
	inFlight = map[im.UserID]bool{}
	answers, err := p.routes.script(ctx, lookScript, len(users), func(i int) ([]string, []any) {
		return []string{routesKey(users[i]), presenceKey(users[i])}, args
	})
	if err != nil {
		return nil, nil, err
	}
	for i, c := range answers {
		answer, err := c.Int64Slice()
		switch {
		case err != nil:
			return nil, nil, away(err)
		case len(answer) == 2 && answer[1] > 0:
			changed = append(changed, news{user: users[i], online: answer[0] == 1, version: answer[1]})
		case len(answer) == 2 && answer[1] < 0:
			inFlight[users[i]] = true
		}
	}
	return changed, inFlight, nil
}

// alive judges, for questions, whether a route still is one.
func (p *presence) alive(rt route, nowMS int64) bool {
	if p.gateways.IsLive(rt.gateway) {
		return true
	}
	p.mu.Lock()
	dead := p.known[rt.gateway]
	p.mu.Unlock()
	age := nowMS - rt.sinceMS
	return !dead && age < youngRoute.Milliseconds() && age > -youngRoute.Milliseconds()
}

// status answers who is online, and the version of what was last told of each.
func (p *presence) status(ctx context.Context, users []im.UserID) (map[im.UserID]news, error) {
	out := make(map[im.UserID]news, len(users))
	if len(users) == 0 {
		return out, nil
	}
	pipe := p.routes.rdb.Pipeline()
	lists := make([]*redis.StringCmd, len(users))
	versions := make([]*redis.StringCmd, len(users))
	for i, u := range users {
		lists[i] = pipe.Get(ctx, routesKey(u))
		versions[i] = pipe.HGet(ctx, presenceKey(u), "v")
	}
	if _, err := pipe.Exec(ctx); away(err) != nil {
		return nil, away(err)
	}
	now := time.Now().UnixMilli()
	for i, u := range users {
		n := news{user: u}
		n.version, _ = strconv.ParseInt(versions[i].Val(), 10, 64)
		for _, rt := range appendRoutes(nil, lists[i].Val()) {
			n.online = n.online || p.alive(rt, now)
		}
		out[u] = n
	}
	return out, nil
}

// friendsOf returns with whom each of the users has an open private
// conversation, the bot aside.
func (s *store) friendsOf(ctx context.Context, users []im.UserID) (map[im.UserID][]int64, error) {
	out := make(map[im.UserID][]int64, len(users))
	rows, err := s.db.QueryContext(ctx, `SELECT m.user_id, IF(c.user_lo = m.user_id, c.user_hi, c.user_lo)
		FROM members m JOIN conversations c ON c.id = m.conversation_id
		WHERE m.user_id IN (`+placeholders(len(users))+`) AND c.kind = ? AND c.open = 1 AND c.user_lo <> ?`,
		append(anys(users), int64(im.Private), int64(im.BotID))...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var (
			user   im.UserID
			friend int64
		)
		if err := rows.Scan(&user, &friend); err != nil {
			return nil, err
		}
		out[user] = append(out[user], friend)
	}
	return out, rows.Err()
}
