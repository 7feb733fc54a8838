package logic

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"im-services/internal/im"
	"im-services/internal/platform/cache"
	"im-services/internal/testkit"
)

// openRoutes opens the route store at addr with as much patience as a busy test
// machine wants.
func openRoutes(t testing.TB, addr string) *routes {
	t.Helper()
	rdb := cache.Open(cache.Config{Addr: addr, OpTimeout: 2 * time.Second})
	t.Cleanup(func() { _ = rdb.Close() })
	return newRoutes(rdb)
}

// place gives a user these routes.
func place(t testing.TB, r *routes, u im.UserID, rts ...route) {
	t.Helper()
	entries := make([]string, len(rts))
	for i, rt := range rts {
		entries[i] = rt.entry()
	}
	must(t, r.rdb.Set(t.Context(), routesKey(u), strings.Join(entries, " "), 0).Err())
}

func someRoute(u im.UserID) route {
	return route{gateway: im.GatewayID("g" + strconv.Itoa(int(u%2))), conn: im.ConnID(1000 + u), platform: im.PlatformWeb, sinceMS: 1_700_000_000_000 + int64(u)}
}

func usersFrom(first im.UserID, n int) []im.UserID {
	out := make([]im.UserID, n)
	for i := range out {
		out[i] = first + im.UserID(i)
	}
	return out
}

func mustRemove(t *testing.T, r *routes, gone ...departure) {
	t.Helper()
	_, err := r.remove(t.Context(), gone)
	must(t, err)
}

func mustLookup(t *testing.T, r *routes, audiences ...*audience) string {
	t.Helper()
	epoch, err := r.lookup(t.Context(), audiences)
	must(t, err)
	if epoch == "" {
		t.Fatal("no epoch")
	}
	return epoch
}

func TestLookup_CountsEveryRunAndReadsRoutes(t *testing.T) {
	r := openRoutes(t, testkit.Redis(t))
	pc := route{gateway: "g9", conn: 7, platform: im.PlatformPC, sinceMS: 5}
	place(t, r, 1, someRoute(1))
	place(t, r, 2, someRoute(2), pc)
	must(t, r.rdb.Set(t.Context(), routesKey(4), "rubbish "+pc.entry()+" =1:2 g/1= "+someRoute(4).entry(), 0).Err())
	must(t, r.rdb.Set(t.Context(), pvKey(2), 40, 0).Err())

	group := &audience{users: []im.UserID{1, 2, 3, 4}, n: 3, count: true} // 3 is nowhere
	looked := &audience{users: []im.UserID{2}, n: 9}
	again := &audience{users: []im.UserID{2}, n: 2, count: true}
	nobody := &audience{n: 1, count: true}
	epoch := mustLookup(t, r, group, looked, nobody, again)

	if !slices.Equal(group.pvs, []int64{3, 43, 3, 3}) || !slices.Equal(looked.pvs, []int64{0}) || !slices.Equal(again.pvs, []int64{45}) {
		t.Errorf("counters %v %v %v", group.pvs, looked.pvs, again.pvs)
	}
	want := [][]route{{someRoute(1)}, {someRoute(2), pc}, {}, {pc, someRoute(4)}}
	for i := range want {
		if !slices.Equal(group.routes[i], want[i]) {
			t.Errorf("routes of %d: %v", group.users[i], group.routes[i])
		}
	}
	if !slices.Equal(looked.routes[0], want[1]) || !slices.Equal(again.routes[0], want[1]) || len(nobody.routes) != 0 {
		t.Error("routes of the other audiences")
	}
	states, same, err := r.read(t.Context(), []im.UserID{3, 2, 5})
	must(t, err)
	if same != epoch || states[0].pv != 3 || states[1].pv != 45 || states[2].pv != 0 ||
		len(states[0].routes) != 0 || !slices.Equal(states[1].routes, want[1]) {
		t.Errorf("read %+v of epoch %q, not %q", states, same, epoch)
	}
}

// More users than one answer of Redis has time for, in audiences larger and smaller than
// a page, are looked up in several; all of them under one epoch.
func TestLookup_LargeAudiences(t *testing.T) {
	r := openRoutes(t, testkit.Redis(t))
	small := &audience{users: usersFrom(1, 100), n: 1, count: true}
	large := &audience{users: usersFrom(50, 2*lookupPage+300), n: 2, count: true}
	last := &audience{users: usersFrom(1, 10)}
	place(t, r, 60, someRoute(60))
	far := large.users[len(large.users)-1]
	place(t, r, far, someRoute(far))
	epoch := mustLookup(t, r, small, large, last)
	for i, u := range large.users {
		want := int64(2)
		if u <= 100 {
			want = 3
		}
		if large.pvs[i] != want {
			t.Fatalf("user %d is at %d, not %d", u, large.pvs[i], want)
		}
	}
	if !slices.Equal(large.routes[10], []route{someRoute(60)}) || !slices.Equal(large.routes[len(large.users)-1], []route{someRoute(far)}) ||
		!slices.Equal(small.routes[59], []route{someRoute(60)}) || len(last.routes) != 10 {
		t.Error("routes are missing")
	}
	if mustLookup(t, r) != epoch {
		t.Error("of nobody there is another epoch")
	}
	page := []stretch{{last, 0, 10}}
	other := "another"
	if _, err := r.lookupStretches(t.Context(), page, nil, &other); !errors.Is(err, errRoutesDown) {
		t.Errorf("counters of two epochs: %v", err)
	}
}

// What one audience does with its routes is nothing to the next one.
func TestLookup_AudiencesShareNothing(t *testing.T) {
	r := openRoutes(t, testkit.Redis(t))
	place(t, r, 1, someRoute(1))
	place(t, r, 2, someRoute(2))
	one, two := &audience{users: []im.UserID{1}}, &audience{users: []im.UserID{2}}
	mustLookup(t, r, one, two)
	one.routes[0] = append(one.routes[0], someRoute(9))
	one.pvs = append(one.pvs, 9)
	if two.routes[0][0] != someRoute(2) || two.pvs[0] != 0 {
		t.Errorf("%+v", two)
	}
}

func TestLookup_ManyUsersTakeSeveralReads(t *testing.T) {
	r := openRoutes(t, testkit.Redis(t))
	const n = 2*keysAtOnce + 3
	for _, size := range []int{n, keysAtOnce, keysAtOnce + 1, 1, 0} { // the query is used again, larger and smaller
		users := usersFrom(1, size)
		pipe := r.rdb.Pipeline()
		for _, u := range users {
			pipe.Set(t.Context(), routesKey(u), someRoute(u).entry(), 0)
		}
		if _, err := pipe.Exec(t.Context()); size > 0 {
			must(t, err)
		}
		must(t, r.rdb.Del(t.Context(), epochKey).Err())
		before, _, err := r.read(t.Context(), users)
		must(t, err)
		all := &audience{users: users, n: 2, count: true}
		epoch := mustLookup(t, r, all)
		after, same, err := r.read(t.Context(), users)
		must(t, err)
		if same != epoch {
			t.Errorf("epoch %q, not %q", same, epoch)
		}
		for i, u := range users {
			if all.pvs[i] != int64(before[i].pv)+2 || int64(after[i].pv) != all.pvs[i] {
				t.Fatalf("%d of %d: counter %d after %d", i, size, all.pvs[i], before[i].pv)
			}
			if want := []route{someRoute(u)}; !slices.Equal(all.routes[i], want) || !slices.Equal(after[i].routes, want) {
				t.Fatalf("%d of %d: routes %v", i, size, all.routes[i])
			}
		}
	}
}

// Every number of a counter is handed out once, whoever counts at the same time.
func TestLookup_AtTheSameTime(t *testing.T) {
	r := openRoutes(t, testkit.Redis(t))
	users := usersFrom(1, 20)
	for _, u := range users {
		place(t, r, u, someRoute(u))
	}
	const workers, rounds = 8, 25
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		seen = map[string]int{}
	)
	for w := range workers {
		wg.Go(func() {
			for k := range rounds {
				a := &audience{users: users[(w+k)%3:], n: 1, count: true}
				if _, err := r.lookup(context.Background(), []*audience{a}); err != nil {
					t.Error(err)
					return
				}
				for i, u := range a.users {
					if len(a.routes[i]) != 1 || a.routes[i][0] != someRoute(u) {
						t.Errorf("routes of %d: %v", u, a.routes[i])
					}
				}
				mu.Lock()
				for i, u := range a.users {
					seen[fmt.Sprint(u, " ", a.pvs[i])]++
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for i := range workers * rounds {
		if k := fmt.Sprint(users[10], " ", i+1); seen[k] != 1 {
			t.Errorf("%s handed out %d times", k, seen[k])
		}
	}
}

// Redis counts, and its answer is lost with the connection: the look-up fails
// and nobody is counted again.
func TestLookup_LostAnswerIsNotCountedTwice(t *testing.T) {
	addr := testkit.Redis(t)
	direct := openRoutes(t, addr)
	proxy := testkit.Proxy(t, addr)
	r := openRoutes(t, proxy.Addr)
	a := &audience{users: []im.UserID{1, 2}, n: 1, count: true}
	mustLookup(t, r, a)
	count := func() int64 {
		n, err := direct.rdb.Get(t.Context(), pvKey(2)).Int64()
		must(t, err)
		return n
	}
	proxy.LoseAnswers()
	failed := make(chan error, 1)
	go func() {
		_, err := r.lookup(context.Background(), []*audience{{users: a.users, n: 1, count: true}})
		failed <- err
	}()
	eventually(t, time.Second, "it is counted", func() bool { return count() == 2 })
	proxy.Heal()
	proxy.Reset()
	if err := <-failed; !errors.Is(err, errRoutesDown) {
		t.Errorf("got %v", err)
	}
	if n := count(); n != 2 {
		t.Errorf("counter %d after two runs", n)
	}
	mustLookup(t, r, a)
	if a.pvs[1] != 3 {
		t.Errorf("counter %d after three runs", a.pvs[1])
	}
}

func TestLookup_RedisForgets(t *testing.T) {
	r := openRoutes(t, testkit.Redis(t))
	a := &audience{users: usersFrom(1, 3), n: 5, count: true}
	old := mustLookup(t, r, a)
	must(t, r.rdb.FlushAll(t.Context()).Err())
	if _, err := r.lookup(t.Context(), []*audience{a}); !errors.Is(err, errRoutesDown) {
		t.Errorf("counts without an epoch: %v", err)
	}
	epoch := mustLookup(t, r, a)
	if epoch == old || a.pvs[0] != 10 {
		t.Errorf("counter %d of epoch %q after %q", a.pvs[0], epoch, old)
	}
	// Who reads finds the beginning of the next epoch.
	must(t, r.rdb.FlushAll(t.Context()).Err())
	states, next, err := r.read(t.Context(), a.users)
	must(t, err)
	if next == "" || next == epoch || states[0].pv != 0 {
		t.Errorf("counter %d of epoch %q after %q", states[0].pv, next, epoch)
	}
	must(t, r.newEpoch(t.Context()))
	if last := mustLookup(t, r, a); last == next || a.pvs[0] != 5 {
		t.Errorf("counter %d of epoch %q after %q", a.pvs[0], last, next)
	}
}

// Counters of two epochs never travel in one envelope.
func TestCountSelf_AnotherEpochIsAnError(t *testing.T) {
	r := openRoutes(t, testkit.Redis(t))
	p := &publisher{routes: r}
	from, other := someRoute(1), route{gateway: "g9", conn: 9, platform: im.PlatformPC, sinceMS: 5}
	place(t, r, 1, from, other)
	newRun := func() *run {
		return &run{origin: from.field(), self: &audience{users: []im.UserID{1}, n: 2}}
	}
	one := newRun()
	epoch := mustLookup(t, r, one.self)
	must(t, p.countSelf(t.Context(), []*run{one}, epoch))
	if one.self.pvs[0] != 2 {
		t.Errorf("counter %d", one.self.pvs[0])
	}
	two := newRun()
	mustLookup(t, r, two.self)
	must(t, r.newEpoch(t.Context()))
	if err := p.countSelf(t.Context(), []*run{two}, epoch); !errors.Is(err, errRoutesDown) {
		t.Errorf("got %v", err)
	}
	// Whose only connection is the one it came from is not counted.
	place(t, r, 1, from)
	three := newRun()
	mustLookup(t, r, three.self)
	must(t, p.countSelf(t.Context(), []*run{three}, "any"))
	if n := r.rdb.Get(t.Context(), pvKey(1)).Val(); three.self != nil || n != "4" {
		t.Errorf("counter %s, %+v", n, three.self)
	}
}

func TestLookup_RedisRestarts(t *testing.T) {
	server := testkit.StartRedis(t)
	r := openRoutes(t, server.Addr)
	a := &audience{users: usersFrom(1, 3), n: 1000, count: true}
	rt := someRoute(1)
	_, err := r.register(t.Context(), 1, rt, true, true)
	must(t, err)
	old := mustLookup(t, r, a)
	server.Kill()
	if _, err := r.lookup(t.Context(), []*audience{a}); !errors.Is(err, errRoutesDown) {
		t.Errorf("without Redis: %v", err)
	}
	server.Restart()
	tries, epoch := int64(0), ""
	eventually(t, 10*time.Second, "a look-up", func() bool {
		tries++
		e, err := r.lookup(t.Context(), []*audience{a})
		epoch = e
		return err == nil
	})
	if epoch == old || a.pvs[2]%1000 != 0 || a.pvs[2] < 1000 || a.pvs[2] > 1000*tries || len(a.routes[0]) != 0 {
		t.Errorf("counter %d after %d tries in epoch %q after %q, routes %v", a.pvs[2], tries, epoch, old, a.routes[0])
	}
	// The scripts are gone too.
	mustRemove(t, r, departure{user: 1, route: rt})
	reg, err := r.register(t.Context(), 1, rt, true, false)
	must(t, err)
	if reg.lost || reg.epoch != epoch || int64(reg.pv) != a.pvs[0] {
		t.Errorf("registered again: %+v", reg)
	}
}

func TestLookup_ValuesOfTheWrongType(t *testing.T) {
	r := openRoutes(t, testkit.Redis(t))
	ctx := t.Context()
	must(t, r.rdb.HSet(ctx, routesKey(1), "g/1", "1:1").Err())
	must(t, r.rdb.RPush(ctx, pvKey(2), "x").Err())
	must(t, r.rdb.Set(ctx, pvKey(3), "many", 0).Err())
	a := &audience{users: []im.UserID{1}, n: 1, count: true}
	mustLookup(t, r, a)
	if a.pvs[0] != 1 || len(a.routes[0]) != 0 {
		t.Errorf("%+v", a)
	}
	for u := im.UserID(2); u <= 3; u++ {
		if _, err := r.lookup(ctx, []*audience{{users: []im.UserID{u}, n: 1, count: true}}); !errors.Is(err, errRoutesDown) {
			t.Errorf("user %d: %v", u, err)
		}
	}
	states, _, err := r.read(ctx, []im.UserID{1, 2, 3})
	must(t, err)
	if states[0].pv != 1 || states[1].pv != 0 || states[2].pv != 0 {
		t.Errorf("%+v", states)
	}
}

// fakeRedis answers commands by name with raw bytes; what it has no answer for is an error.
func fakeRedis(t *testing.T, answers map[string]string) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				in := bufio.NewReader(conn)
				for {
					name, err := readCommand(in)
					if err != nil {
						return
					}
					answer, ok := answers[name]
					if !ok {
						answer = "-ERR unknown command\r\n"
					}
					if _, err := io.WriteString(conn, answer); err != nil {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() { _ = ln.Close(); wg.Wait() })
	return ln.Addr().String()
}

// readCommand reads one command and returns its name.
func readCommand(in *bufio.Reader) (name string, err error) {
	line := func() (string, error) {
		s, err := in.ReadString('\n')
		return strings.TrimSpace(s), err
	}
	head, err := line()
	if err != nil {
		return "", err
	}
	n, err := strconv.Atoi(strings.TrimPrefix(head, "*"))
	if err != nil {
		return "", err
	}
	for i := range n {
		if _, err := line(); err != nil { // its length
			return "", err
		}
		arg, err := line()
		if err != nil {
			return "", err
		}
		if i == 0 {
			name = strings.ToLower(arg)
		}
	}
	return name, nil
}

func TestLookup_AnswersOfTheWrongShape(t *testing.T) {
	good := "*2\r\n$3\r\ng/1\r\n$1\r\ne\r\n"
	for what, answers := range map[string]map[string]string{
		"count is no number":  {"incrby": "$1\r\nx\r\n", "mget": good},
		"count is null":       {"incrby": "$-1\r\n", "mget": "*4\r\n$3\r\ng/1\r\n$1\r\ne\r\n$1\r\ne\r\n$1\r\ne\r\n"},
		"count is a list":     {"incrby": "*1\r\n:1\r\n", "mget": good},
		"too few values":      {"incrby": ":1\r\n", "mget": "*1\r\n$1\r\ne\r\n"},
		"too many values":     {"incrby": ":1\r\n", "mget": "*4\r\n$1\r\na\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\ne\r\n"},
		"no values":           {"incrby": ":1\r\n", "mget": "*0\r\n"},
		"values are a number": {"incrby": ":1\r\n", "mget": ":7\r\n"},
		"value is a list":     {"incrby": ":1\r\n", "mget": "*2\r\n*1\r\n:1\r\n$1\r\ne\r\n"},
		"values are null":     {"incrby": ":1\r\n", "mget": "*-1\r\n"},
		"no protocol at all":  {"incrby": "hello\r\n", "mget": "hello\r\n"},
		"refused":             {"incrby": "-OOM command not allowed\r\n", "mget": good},
		"epoch is missing":    {"incrby": ":1\r\n", "mget": "*2\r\n$3\r\ng/1\r\n$-1\r\n"},
	} {
		t.Run(what, func(t *testing.T) {
			r := openRoutes(t, fakeRedis(t, answers))
			r.named.Store(true)
			_, err := r.lookup(t.Context(), []*audience{{users: []im.UserID{1}, n: 1, count: true}})
			if !errors.Is(err, errRoutesDown) {
				t.Errorf("look-up: %v", err)
			}
			if _, _, err := r.read(t.Context(), []im.UserID{1}); !errors.Is(err, errRoutesDown) {
				t.Errorf("read: %v", err)
			}
		})
	}
	r := openRoutes(t, fakeRedis(t, map[string]string{"incrby": ":1\r\n", "mget": good})) // the fake is not what is wrong
	r.named.Store(true)
	a := &audience{users: []im.UserID{1}, n: 1, count: true}
	if epoch := mustLookup(t, r, a); epoch != "e" || a.pvs[0] != 1 {
		t.Errorf("%q %+v", epoch, a)
	}
}

func TestRoutes_RemoveTakesOneAndLeavesOthers(t *testing.T) {
	r := openRoutes(t, testkit.Redis(t))
	ctx := t.Context()
	web := route{gateway: "g1", conn: 1, platform: im.PlatformWeb, sinceMS: 10}
	pc := route{gateway: "g1", conn: 11, platform: im.PlatformPC, sinceMS: 11}
	app := route{gateway: "g1", conn: 111, platform: im.PlatformApp, sinceMS: 12}
	for i, rt := range []route{web, pc, app, pc} { // one of them again
		reg, err := r.register(ctx, 1, rt, true, i < 3)
		must(t, err)
		if reg.lost || len(reg.displaced) != 0 || reg.sinceMS != rt.sinceMS || reg.again != (i == 3) {
			t.Fatalf("%+v", reg)
		}
	}
	check := func(want ...route) {
		t.Helper()
		states, _, err := r.read(ctx, []im.UserID{1})
		must(t, err)
		slices.SortFunc(states[0].routes, func(a, b route) int { return int(a.conn - b.conn) })
		if !slices.Equal(states[0].routes, want) {
			t.Fatalf("routes %v, want %v", states[0].routes, want)
		}
	}
	check(web, pc, app)
	must(t, r.rdb.ScriptFlush(ctx).Err())
	mustRemove(t, r, departure{user: 1, route: pc}, departure{user: 1, route: route{gateway: "g1", conn: 1111}}, departure{user: 2, route: web})
	check(web, app)
	must(t, r.rdb.ScriptFlush(ctx).Err())
	newer := route{gateway: "g1", conn: 2, platform: im.PlatformWeb, sinceMS: 20}
	reg, err := r.register(ctx, 1, newer, true, true)
	must(t, err)
	if !slices.Equal(reg.displaced, []route{web}) {
		t.Fatalf("displaced %v", reg.displaced)
	}
	mustRemove(t, r, departure{user: 1, route: web}) // it is late: it went already
	check(newer, app)
	mustRemove(t, r, departure{user: 1, route: newer}, departure{user: 1, route: app})
	check()
	if n := r.rdb.Exists(ctx, routesKey(1)).Val(); n != 0 {
		t.Error("an empty key is left")
	}
}

func TestUserKey_IsWhatTheKeyFunctionsSay(t *testing.T) {
	for _, u := range []im.UserID{1, 42, 1<<53 - 1, 1<<63 - 1} {
		for prefix, want := range map[string]string{routesPrefix: routesKey(u), pvPrefix: pvKey(u)} {
			k := userKey{prefix: prefix, user: u}
			if b, err := k.MarshalBinary(); err != nil || string(b) != want {
				t.Errorf("%q, %v", b, err)
			}
		}
	}
}

// BenchmarkLookup also reports what a look-up costs Redis. Of private messages
// one user is counted and one looked up.
func BenchmarkLookup(b *testing.B) {
	r := openRoutes(b, testkit.Redis(b))
	pipe := r.rdb.Pipeline()
	for _, u := range usersFrom(100_000, 1000) {
		rt := someRoute(u)
		rt.gateway = "g" + im.GatewayID(strings.Repeat(string(rt.gateway[1]), 16)) // as long as they are
		pipe.Set(b.Context(), routesKey(u), rt.entry(), 0)
	}
	if _, err := pipe.Exec(b.Context()); err != nil {
		b.Fatal(err)
	}
	private := func(n int) (out []*audience) {
		for i := range im.UserID(n) {
			out = append(out, &audience{users: usersFrom(100_000+2*i, 1), n: 1, count: true}, &audience{users: usersFrom(100_001+2*i, 1), n: 1})
		}
		return out
	}
	groups := func(n int) (out []*audience) {
		for i := range im.UserID(n) {
			out = append(out, &audience{users: usersFrom(100_000+100*i, 100), n: 1, count: true})
		}
		return out
	}
	for _, c := range []struct {
		name      string
		audiences []*audience
	}{{"private=1", private(1)}, {"private=50", private(50)}, {"groups=1x100", groups(1)}, {"groups=10x100", groups(10)}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			before := redisCPU(b, r.rdb)
			for b.Loop() {
				if _, err := r.lookup(b.Context(), c.audiences); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64((redisCPU(b, r.rdb)-before).Nanoseconds())/float64(b.N), "redis-cpu-ns/op")
		})
	}
}

// redisCPU is the processor time that the server has used.
func redisCPU(t testing.TB, rdb *redis.Client) (total time.Duration) {
	t.Helper()
	info, err := rdb.Info(context.Background(), "cpu").Result()
	must(t, err)
	for line := range strings.Lines(info) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		if name == "used_cpu_sys" || name == "used_cpu_user" {
			seconds, err := strconv.ParseFloat(value, 64)
			must(t, err)
			total += time.Duration(seconds * float64(time.Second))
		}
	}
	return total
}

// after does something just after Redis ran a script in a pipeline.
type after struct {
	script *redis.Script
	do     func()
}

func (f after) DialHook(next redis.DialHook) redis.DialHook { return next }

func (f after) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (f after) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := next(ctx, cmds)
		if args := cmds[0].Args(); len(args) > 1 && args[1] == f.script.Hash() {
			f.do()
		}
		return err
	}
}

// TestG8_RegistrationBelongsToOneLifeOfRedis: Redis forgets everything while a
// connection registers. A counter of before with the epoch of after would make
// the connection take all its pushes for repeats.
func TestG8_RegistrationBelongsToOneLifeOfRedis(t *testing.T) {
	h := newHarness(t)
	h.befriend(2, 3)
	first := h.connect(3, 1, im.PlatformWeb).resp[0]
	for i := range int64(5) {
		h.mustSend(privateSend(2, 3, i+1, "x"))
	}
	eventually(t, 2*time.Second, "five pushes", func() bool { return len(h.bus.pushedTo(3)) == 5 })
	other := redis.NewClient(&redis.Options{Addr: h.redis})
	defer func() { _ = other.Close() }()
	flushed := false
	h.routes.rdb.AddHook(after{script: registerScript, do: func() {
		if err := other.FlushAll(context.Background()).Err(); err != nil {
			t.Error(err)
		}
		flushed = true
	}})
	got := h.connect(3, 2, im.PlatformWeb).resp[0]
	states, epoch, err := h.routes.read(t.Context(), []im.UserID{3})
	if err != nil || !flushed || states[0].pv != 0 || epoch == first.GetEpoch() {
		t.Fatalf("Redis has not forgotten: %v, %q, %v", states, epoch, err)
	}
	if got.GetPv() != 5 || got.GetEpoch() != first.GetEpoch() {
		t.Fatalf("pv %d with epoch %q; it is 5 with %q, or 0 with %q", got.GetPv(), got.GetEpoch(), first.GetEpoch(), epoch)
	}
}
