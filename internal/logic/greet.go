package logic

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	pushv1 "im-services/api/proto/push/v1"
	"im-services/internal/im"
)

const (
	// greetWindow is how far back changes are told to who arrives: longer than
	// a client takes from asking who is here to having its route.
	greetWindow = 5 * time.Second
	// greetMost bounds what one who arrives is told, and greetPage how many are
	// greeted at once.
	greetMost = 64
	greetPage = 100
)

// arrival is a new connection of a user.
type arrival struct {
	at time.Time // when it had its route
	of []int64   // whose news he is to be told; nil: all of his friends'
}

// greet tells users who have just connected which of their friends came or went
// just before: while they had no route, nobody could tell them, and what they
// asked for before may be out of date. It is done once; if it fails, they learn
// it from the friend's next change or by asking. What was on its way when they
// came they may hear twice, under rising versions: whether the first reached them
// nobody knows.
func (p *presence) greet(ctx context.Context) error {
	p.mu.Lock()
	newly := p.newly
	p.newly = map[im.UserID]arrival{}
	p.mu.Unlock()
	users := make([]im.UserID, 0, len(newly))
	for u := range newly {
		users = append(users, u)
	}
	for page := range slices.Chunk(users, greetPage) {
		if err := p.greetSome(ctx, page, newly); err != nil {
			return err
		}
	}
	return nil
}

func (p *presence) greetSome(ctx context.Context, users []im.UserID, newly map[im.UserID]arrival) error {
	friends := make(map[im.UserID][]int64, len(users))
	var all []im.UserID
	for _, u := range users {
		if friends[u] = newly[u].of; friends[u] == nil {
			all = append(all, u)
		}
	}
	if len(all) > 0 {
		of, err := p.store.friendsOf(ctx, all)
		if err != nil {
			return err
		}
		for u, list := range of {
			friends[u] = list
		}
	}
	changed, nowMS, err := p.changedLately(ctx, friends)
	if err != nil || len(changed) == 0 {
		return err
	}
	// Of whom to tell each: changes from before he had his route. Whoever tells a
	// later one looks up routes after that, and finds his.
	wanted := make(map[im.UserID][]im.UserID, len(users))
	asked := map[im.UserID]bool{}
	var ids []im.UserID
	for _, u := range users {
		arrivedMS := nowMS - time.Since(newly[u].at).Milliseconds()
		for _, id := range friends[u] {
			f := im.UserID(id)
			if r, ok := changed[f]; !ok || r > arrivedMS || len(wanted[u]) == greetMost {
				continue
			}
			wanted[u] = append(wanted[u], f)
			if !asked[f] {
				asked[f] = true
				ids = append(ids, f)
			}
		}
	}
	told, inFlight, err := p.retell(ctx, ids)
	if err != nil {
		return err
	}
	receivers := make(map[im.UserID][]int64, len(told))
	for _, u := range users {
		var later []int64
		for _, f := range wanted[u] {
			if inFlight[f] {
				later = append(later, int64(f))
			}
			if _, ok := told[f]; ok {
				receivers[f] = append(receivers[f], int64(u))
			}
		}
		p.greetLater(u, arrival{at: newly[u].at, of: later})
	}
	var events []*pushv1.Event // one for each piece of news: a gateway takes a version of a user once only
	for f, to := range receivers {
		events = append(events, &pushv1.Event{UserIds: to, Body: &pushv1.Event_Presence{Presence: &pushv1.PresenceEvent{
			UserId: int64(f), Online: told[f].online, Version: told[f].version, Change: told[f].change,
		}}})
	}
	_, err = p.pub.publishEvents(ctx, events)
	return err
}

// greetLater has a user told of what is in flight in the next round. It ends by
// itself: what is older than the window is not told.
func (p *presence) greetLater(u im.UserID, a arrival) {
	if len(a.of) == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, again := p.newly[u]; !again && len(p.newly) < maxRecent {
		p.newly[u] = a
	}
}

// changedLately returns those of the friends whose state changed within the
// window, and when, and Redis's clock.
func (p *presence) changedLately(ctx context.Context, friends map[im.UserID][]int64) (changed map[im.UserID]int64, nowMS int64, err error) {
	var all []im.UserID
	seen := map[int64]bool{}
	for _, list := range friends {
		for _, f := range list {
			if !seen[f] {
				seen[f] = true
				all = append(all, im.UserID(f))
			}
		}
	}
	changed = map[im.UserID]int64{}
	for page := range slices.Chunk(all, routePage) {
		pipe := p.routes.rdb.Pipeline()
		clock := pipe.Time(ctx)
		versions := make([]*redis.StringCmd, len(page))
		for i, f := range page {
			versions[i] = pipe.HGet(ctx, presenceKey(f), "r")
		}
		if _, err := pipe.Exec(ctx); away(err) != nil {
			return nil, 0, away(err)
		}
		nowMS = clock.Val().UnixMilli()
		since := nowMS - greetWindow.Milliseconds()
		for i, f := range page {
			if r, err := strconv.ParseInt(versions[i].Val(), 10, 64); err == nil && r >= since {
				changed[f] = r
			}
		}
	}
	return changed, nowMS, nil
}

// retellScript takes a fresh version for the state that was told last. It
// returns the state, the version, which is 0 if there is nothing to tell and
// -1 if all friends are being told just now, and the version of the change. KEYS:
// presence.
var retellScript = redis.NewScript(`
local told = redis.call('HMGET', KEYS[1], 's', 'd', 'r')
if not told[1] or not told[2] then return {0, 0, 0} end
if told[2] ~= '1' then return {0, -1, 0} end
return {tonumber(told[1]), redis.call('HINCRBY', KEYS[1], 'v', 1), tonumber(told[3] or '') or 0}
`)

// retell takes a fresh version for the state of each user: gateways would drop
// one that they have seen, whoever it was for. For the same reason it leaves
// alone what is in flight: a version that overtook it would have the gateway
// drop the news for all the others.
func (p *presence) retell(ctx context.Context, users []im.UserID) (told map[im.UserID]news, inFlight map[im.UserID]bool, err error) {
	told, inFlight = make(map[im.UserID]news, len(users)), map[im.UserID]bool{}
	for page := range slices.Chunk(users, routePage) {
		answers, err := p.routes.script(ctx, retellScript, len(page), func(i int) ([]string, []any) {
			return []string{presenceKey(page[i])}, nil
		})
		if err != nil {
			return nil, nil, err
		}
		for i, c := range answers {
			answer, err := c.Int64Slice()
			switch {
			case err != nil:
				return nil, nil, away(err)
			case len(answer) == 3 && answer[1] > 0:
				told[page[i]] = news{user: page[i], online: answer[0] == 1, version: answer[1], change: answer[2]}
			case len(answer) == 3 && answer[1] < 0:
				inFlight[page[i]] = true
			}
		}
	}
	return told, inFlight, nil
}
