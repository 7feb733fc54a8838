package logic

import (
	"context"
	"fmt"
	"strconv"
	"sync"

	"github.com/redis/go-redis/v9"

	"im-services/internal/im"
)

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

// lookupPage bounds the users of one round trip: its answer has to be there within the
// time of one operation, however many a group has.
const lookupPage = 8192

// lookup counts the pushes of every audience and reads where its users are, in
// one round trip for lookupPage of them. It returns the epoch of the counters. That is
// read after them: whoever registers under a newer one registers after the messages were
// stored, and has them from his backlog.
//
// After an error some may have been counted, but nobody twice.
func (r *routes) lookup(ctx context.Context, audiences []*audience) (epoch string, err error) {
	if !r.named.Load() {
		if err := r.ensureEpoch(ctx); err != nil {
			return "", err
		}
		r.named.Store(true)
	}
	total := 0
	for _, a := range audiences {
		total += len(a.users)
	}
	pvs, lists, all := make([]int64, total), make([][]route, total), make([]route, 0, total)
	page, size := make([]stretch, 0, len(audiences)), 0
	ask := func() error {
		if all, err = r.lookupStretches(ctx, page, all, &epoch); err != nil {
			return err
		}
		page, size = page[:0], 0
		return nil
	}
	i := 0
	for _, a := range audiences {
		end := i + len(a.users)
		a.pvs, a.routes = pvs[i:end:end], lists[i:end:end]
		i = end
		for from := 0; from < len(a.users); {
			to := min(len(a.users), from+lookupPage-size)
			page = append(page, stretch{a, from, to})
			size += to - from
			from = to
			if size == lookupPage {
				if err := ask(); err != nil {
					return "", err
				}
			}
		}
	}
	if size > 0 || epoch == "" { // also of nobody: there is an epoch all the same
		if err := ask(); err != nil {
			return "", err
		}
	}
	return epoch, nil
}

// stretch is some users of an audience.
type stretch struct {
	*audience
	from, to int
}

// lookupStretches looks up the users of a page in one round trip. Their routes are
// appended to all. The epoch is noted, and must be the one that was noted before.
func (r *routes) lookupStretches(ctx context.Context, page []stretch, all []route, epoch *string) ([]route, error) {
	q := queries.Get().(*query)
	defer q.release()
	for _, s := range page {
		for _, u := range s.users[s.from:s.to] {
			if s.count {
				q.count(u, s.n)
			}
			q.want(routesPrefix, u)
		}
	}
	now, err := q.ask(ctx, r.rdb)
	if err != nil {
		return all, err
	}
	if now == "" || *epoch != "" && now != *epoch {
		// Redis has just lost everything, where users are included. What was counted
		// has no epoch, so it counts for nothing; the next look-up makes one.
		r.named.Store(false)
		return all, fmt.Errorf("%w: it has forgotten everything", errRoutesDown)
	}
	*epoch = now
	i, counted := 0, 0
	for _, s := range page {
		for k := s.from; k < s.to; k++ {
			if s.count {
				s.pvs[k] = q.increments[counted].Val()
				counted++
			}
			from := len(all)
			all = appendRoutes(all, q.value(i))
			s.routes[k] = all[from:len(all):len(all)]
			i++
		}
	}
	return all, nil
}

// userState is what the route store knows of one user.
type userState struct {
	pv     im.PV
	routes []route
}

// read returns the state of many users in one round trip, and the epoch of all
// their counters.
func (r *routes) read(ctx context.Context, users []im.UserID) ([]userState, string, error) {
	q := queries.Get().(*query)
	defer q.release()
	for _, u := range users {
		q.want(pvPrefix, u)
		q.want(routesPrefix, u)
	}
	epoch, err := q.ask(ctx, r.rdb)
	if err == nil && !q.sameEpoch() { // begun just now, or in between: once more
		if err = r.ensureEpoch(ctx); err == nil {
			epoch, err = q.ask(ctx, r.rdb)
		}
	}
	switch {
	case err != nil:
		return nil, "", err
	case !q.sameEpoch():
		return nil, "", fmt.Errorf("%w: its epoch does not last", errRoutesDown)
	}
	out := make([]userState, len(users))
	all := make([]route, 0, len(users))
	for i := range users {
		pv, _ := strconv.ParseInt(q.value(2*i), 10, 64)
		from := len(all)
		all = appendRoutes(all, q.value(2*i+1))
		out[i] = userState{pv: im.PV(pv), routes: all[from:len(all):len(all)]}
	}
	return out, epoch, nil
}

// keysAtOnce bounds the keys of one MGET: Redis does nothing else meanwhile, for
// some 50 µs.
const keysAtOnce = 256

// query is one round trip: increments, then what is to be read. These commands
// cost Redis a third of what a script that does the same costs it. Here they cost
// mostly their objects, so a query is used again and again.
type query struct {
	increments []*increment
	counts     int // increments in use
	keys       []userKey

	args []any
	cmds []redis.Cmder
	gets []*redis.StringSliceCmd // each reads some keys and the epoch
}

var queries = sync.Pool{New: func() any { return new(query) }}

func (q *query) release() {
	q.counts, q.keys, q.args, q.cmds, q.gets = 0, q.keys[:0], q.args[:0], q.cmds[:0], q.gets[:0]
	queries.Put(q)
}

// count adds n to a user's counter.
func (q *query) count(u im.UserID, n int64) {
	if q.counts == len(q.increments) {
		q.increments = append(q.increments, newIncrement())
	}
	c := q.increments[q.counts]
	c.key.user, c.by = u, n
	q.counts++
}

// want reads one more key.
func (q *query) want(prefix string, u im.UserID) {
	q.keys = append(q.keys, userKey{prefix: prefix, user: u})
}

// value is what the key of the i-th want holds, "" if there is none.
func (q *query) value(i int) string { return q.gets[i/keysAtOnce].Val()[i%keysAtOnce] }

// ask sends the query and returns the epoch, which is read last.
func (q *query) ask(ctx context.Context, rdb *redis.Client) (epoch string, err error) {
	q.args, q.cmds, q.gets = q.args[:0], q.cmds[:0], q.gets[:0]
	for _, c := range q.increments[:q.counts] {
		q.cmds = append(q.cmds, c)
	}
	for start := 0; start == 0 || start < len(q.keys); start += keysAtOnce {
		from := len(q.args)
		q.args = append(q.args, "mget")
		for i := start; i < min(start+keysAtOnce, len(q.keys)); i++ {
			q.args = append(q.args, &q.keys[i])
		}
		q.args = append(q.args, epochKey)
		get := redis.NewStringSliceCmd(ctx, q.args[from:len(q.args):len(q.args)]...)
		q.gets, q.cmds = append(q.gets, get), append(q.cmds, get)
	}
	pipe := rdb.Pipeline()
	if err := pipe.BatchProcess(ctx, q.cmds...); err != nil {
		return "", err
	}
	if _, err := pipe.Exec(ctx); err != nil { // redis.Nil too: none of the answers may be null
		return "", fmt.Errorf("%w: %w", errRoutesDown, err)
	}
	for _, get := range q.gets {
		values := get.Val()
		if len(values) != len(get.Args())-1 {
			return "", fmt.Errorf("%w: %d values for %d keys", errRoutesDown, len(values), len(get.Args())-1)
		}
		epoch = values[len(values)-1]
	}
	return epoch, nil
}

// sameEpoch reports whether all that was read belongs to one epoch.
func (q *query) sameEpoch() bool {
	epoch := func(get *redis.StringSliceCmd) string { return get.Val()[len(get.Val())-1] }
	for _, get := range q.gets {
		if e := epoch(get); e == "" || e != epoch(q.gets[0]) {
			return false
		}
	}
	return true
}

// userKey is a key of a user. It is put together only when it is sent.
type userKey struct {
	prefix string
	user   im.UserID
	buf    [32]byte
}

// MarshalBinary implements encoding.BinaryMarshaler, which the client asks.
func (k *userKey) MarshalBinary() ([]byte, error) {
	b := strconv.AppendInt(append(k.buf[:0], k.prefix...), int64(k.user), 10)
	return append(b, '}'), nil
}

// increment is one INCRBY of a push counter. The client must not repeat it when
// it loses the connection: it cannot know whether it was carried out, and who is
// counted twice looks for a message that does not exist.
type increment struct {
	*redis.IntCmd
	args [3]any // IntCmd keeps it: name, &key, &by
	key  userKey
	by   int64
}

func newIncrement() *increment {
	c := &increment{key: userKey{prefix: pvPrefix}}
	c.args = [3]any{"incrby", &c.key, &c.by}
	c.IntCmd = redis.NewIntCmd(context.Background(), c.args[:]...)
	return c
}

// NoRetry implements redis.Cmder.
func (c *increment) NoRetry() bool { return true }
