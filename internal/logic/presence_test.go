package logic

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	logicv1 "im-services/api/proto/logic/v1"
	pushv1 "im-services/api/proto/push/v1"
	"im-services/internal/im"
	"im-services/internal/testkit"
)

// changingGateways is a discovery in which gateways come and go.
type changingGateways struct {
	mu   sync.Mutex // guards live
	live []im.GatewayID
}

func (g *changingGateways) set(live ...im.GatewayID) {
	g.mu.Lock()
	g.live = live
	g.mu.Unlock()
}

func (g *changingGateways) Live() []im.GatewayID {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.live)
}

func (g *changingGateways) IsLive(id im.GatewayID) bool { return slices.Contains(g.Live(), id) }

// connectAt registers a connection at a gateway.
func (h *harness) connectAt(gateway im.GatewayID, user im.UserID, conn int64, platform im.Platform) {
	h.t.Helper()
	since := time.Now().UnixMilli()
	insist(h.t, func() error { // a gateway asserts again what had no route
		b := &backlogStream{ctx: h.t.Context()}
		err := h.Backlog(&logicv1.BacklogRequest{
			GatewayId: string(gateway), Register: true,
			Conn: &logicv1.Conn{UserId: int64(user), ConnId: conn, Platform: int32(platform), SinceMs: since},
		}, b)
		if err == nil && b.resp[0].GetUnrouted() {
			err = errors.New("no route")
		}
		return err
	})
}

func (h *harness) disconnectAt(gateway im.GatewayID, user im.UserID, conn int64, platform im.Platform) {
	h.t.Helper()
	insist(h.t, func() error { // as gateways do
		_, err := h.Disconnect(h.t.Context(), &logicv1.DisconnectRequest{GatewayId: string(gateway), Conns: []*logicv1.Conn{{UserId: int64(user), ConnId: conn, Platform: int32(platform)}}})
		return err
	})
}

// rdb is a patient client of the harness's Redis: the services' own gives up
// after 100 ms, which a busy test machine may well take.
func (h *harness) rdb() *redis.Client {
	c := redis.NewClient(&redis.Options{Addr: h.redis})
	h.t.Cleanup(func() { _ = c.Close() })
	return c
}

// insist repeats what is harmless to repeat.
func insist(t testing.TB, f func() error) {
	t.Helper()
	var err error
	for range 10 {
		if err = f(); err == nil {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatal(err)
}

// seen is what a viewer was told of somebody: "+" came, "-" went. It fails if
// versions do not rise.
func (h *harness) seen(viewer, of im.UserID) string {
	h.t.Helper()
	out, last := "", int64(0)
	told := map[int64]bool{}
	for _, e := range h.bus.all() {
		for _, ev := range e.GetEvents() {
			p := ev.GetPresence()
			if p == nil || p.GetUserId() != int64(of) || !slices.Contains(ev.GetUserIds(), int64(viewer)) {
				continue
			}
			if told[p.GetVersion()] {
				continue // told again: gateways drop it
			}
			told[p.GetVersion()] = true
			if p.GetVersion() <= last {
				h.t.Fatalf("version %d after %d", p.GetVersion(), last)
			}
			last = p.GetVersion()
			if p.GetOnline() {
				out += "+"
			} else {
				out += "-"
			}
		}
	}
	return out
}

// presenceSlack is for a busy test machine: an operation of Redis that takes
// too long has presence pause for a second.
const presenceSlack = 8 * time.Second

// wantSeen waits until a viewer was told exactly this of somebody; limit 0: he
// was, and no more.
func (h *harness) wantSeen(limit time.Duration, viewer, of im.UserID, want string) {
	h.t.Helper()
	if limit > 0 {
		limit += presenceSlack
	}
	end := time.Now().Add(limit)
	for h.seen(viewer, of) != want {
		if time.Now().After(end) {
			h.t.Fatalf("%d was told %q of %d, want %q", viewer, h.seen(viewer, of), of, want)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (h *harness) online(viewer im.UserID, users ...im.UserID) []bool {
	h.t.Helper()
	resp, err := h.Presence(h.t.Context(), &logicv1.PresenceRequest{ViewerId: int64(viewer), UserIds: int64s(users)})
	must(h.t, err)
	out := make([]bool, len(users))
	for i, u := range resp.GetUsers() {
		if u.GetUserId() != int64(users[i]) {
			h.t.Fatal("answers out of order")
		}
		out[i] = u.GetOnline()
	}
	return out
}

func short(c *Config) { c.PresenceDebounce = 300 * time.Millisecond }

// The last device decides, whoever is no friend hears nothing, and who was only
// briefly away was never away.
func TestG9_LastDeviceDecidesAndOnlyFriendsHear(t *testing.T) {
	h := newHarness(t, short)
	h.befriend(2, 3)
	h.befriend(2, 5)
	h.befriend(4, 5)
	h.connectAt(testGateway, 3, 1, im.PlatformWeb)
	h.connectAt(testGateway, 4, 2, im.PlatformWeb)
	h.connectAt(testGateway, 2, 3, im.PlatformWeb)
	h.wantSeen(time.Second, 3, 2, "+")
	h.connectAt(testGateway, 2, 4, im.PlatformApp)
	h.disconnectAt(testGateway, 2, 3, im.PlatformWeb)
	time.Sleep(600 * time.Millisecond)
	h.wantSeen(0, 3, 2, "+")
	if got := h.online(3, 2, 4, 3, 99); !slices.Equal(got, []bool{true, false, true, false}) {
		t.Fatalf("3 sees %v of 2, 4, himself, nobody", got)
	}
	h.disconnectAt(testGateway, 2, 4, im.PlatformApp)
	if got := h.online(3, 2); got[0] {
		t.Error("asking shows him here without a connection")
	}
	h.wantSeen(2*time.Second, 3, 2, "+-")
	h.connectAt(testGateway, 2, 5, im.PlatformWeb)
	h.wantSeen(time.Second, 3, 2, "+-+")
	h.disconnectAt(testGateway, 2, 5, im.PlatformWeb)
	h.connectAt(testGateway, 2, 6, im.PlatformWeb) // back within the debounce time
	time.Sleep(700 * time.Millisecond)
	h.wantSeen(0, 3, 2, "+-+")
	for _, stranger := range []im.UserID{4, 2} {
		if got := h.seen(stranger, 2); got != "" {
			t.Errorf("%d was told %q", stranger, got)
		}
	}
	h.setPrivate(2, 3, false)
	h.disconnectAt(testGateway, 2, 6, im.PlatformWeb)
	time.Sleep(700 * time.Millisecond)
	h.wantSeen(0, 3, 2, "+-+")
	if got := h.online(3, 2); got[0] {
		t.Error("a former friend still sees")
	}
}

// Who connects while a friend does may have no route yet when that is told: he
// is told of it on arrival. What is older he has asked for himself.
func TestG9_WhoArrivesHearsWhatChangedJustBefore(t *testing.T) {
	h := newHarness(t, short)
	for f := im.UserID(10); f <= 13; f++ {
		h.befriend(2, f)
	}
	h.befriend(10, 99) // on the same gateway, and told of 10 before
	h.connectAt(testGateway, 99, 1, im.PlatformWeb)
	h.connectAt(testGateway, 10, 2, im.PlatformWeb)
	h.connectAt(testGateway, 11, 3, im.PlatformWeb)
	h.connectAt(testGateway, 12, 4, im.PlatformWeb)
	h.connectAt(testGateway, 14, 6, im.PlatformWeb) // a stranger
	h.wantSeen(time.Second, 99, 10, "+")
	rdb := h.rdb()
	eventually(t, time.Second+presenceSlack, "11 and 12 told", func() bool {
		return rdb.HGet(t.Context(), presenceKey(11), "d").Val() == "1" && rdb.HGet(t.Context(), presenceKey(12), "d").Val() == "1"
	})
	h.disconnectAt(testGateway, 11, 3, im.PlatformWeb)
	eventually(t, 2*time.Second+presenceSlack, "11 away", func() bool {
		return rdb.HGet(t.Context(), presenceKey(11), "s").Val() == "0" && rdb.HGet(t.Context(), presenceKey(11), "d").Val() == "1"
	})
	must(t, rdb.HSet(t.Context(), presenceKey(12), "r", time.Now().Add(-time.Minute).UnixMilli()).Err())
	h.connectAt(testGateway, 2, 7, im.PlatformWeb)
	h.wantSeen(time.Second, 2, 10, "+")
	h.wantSeen(time.Second, 2, 11, "-")
	for _, u := range []im.UserID{12, 13, 14} {
		h.wantSeen(0, 2, u, "") // long here, never here, a stranger
	}
	h.wantSeen(0, 99, 10, "+") // who knew it is not told again
	// Gateways take a version once: the greeting must be newer than the first news,
	// and name it.
	var first, greeting, of int64
	for _, e := range h.bus.all() {
		for _, ev := range e.GetEvents() {
			if p := ev.GetPresence(); p.GetUserId() == 10 && slices.Contains(ev.GetUserIds(), 99) {
				first = p.GetVersion()
			} else if p.GetUserId() == 10 && slices.Contains(ev.GetUserIds(), 2) {
				greeting, of = p.GetVersion(), p.GetChange()
			}
		}
	}
	if greeting <= first || of != first {
		t.Errorf("greeting %d of %d, news %d", greeting, of, first)
	}
	// And what comes after is newer still, and told.
	h.disconnectAt(testGateway, 10, 2, im.PlatformWeb)
	h.wantSeen(2*time.Second, 2, 10, "+-")
	h.wantSeen(2*time.Second, 99, 10, "+-")
	// A connection that is only registered again is no arrival.
	_, err := h.Assert(t.Context(), &logicv1.AssertRequest{GatewayId: testGateway, Conns: []*logicv1.Conn{{UserId: 2, ConnId: 7, Platform: 1, SinceMs: time.Now().UnixMilli()}}})
	must(t, err)
	time.Sleep(300 * time.Millisecond)
	h.wantSeen(0, 2, 10, "+-")
	h.wantSeen(0, 2, 11, "-")
}

// What is being told just now is not overtaken by a greeting: gateways would
// drop it for everybody else. The greeting follows it.
func TestG9_GreetingDoesNotOvertakeTheNews(t *testing.T) {
	h := newHarness(t, short)
	h.befriend(2, 10)
	ctx, rdb := t.Context(), h.rdb()
	now := time.Now().UnixMilli()
	must(t, rdb.HSet(ctx, presenceKey(10), "v", now, "r", now, "s", "1", "d", "0").Err())
	h.connectAt(testGateway, 2, 7, im.PlatformWeb)
	time.Sleep(400 * time.Millisecond)
	h.wantSeen(0, 2, 10, "")
	if v, err := rdb.HGet(ctx, presenceKey(10), "v").Int64(); err != nil || v != now {
		t.Fatalf("a version was taken meanwhile: %d, %v", v-now, err)
	}
	must(t, rdb.HSet(ctx, presenceKey(10), "d", "1").Err())
	h.wantSeen(time.Second, 2, 10, "+")
	time.Sleep(300 * time.Millisecond)
	h.wantSeen(0, 2, 10, "+") // once
}

// nearAndFar makes two replicas, of which the far one reaches Redis through a proxy.
// Its connections there are made: somebody has come by way of it.
func nearAndFar(t *testing.T) (near, far *Server, proxy *testkit.TCPProxy) {
	t.Helper()
	h := newHarness(t, short)
	near = h.Server
	proxy = testkit.Proxy(t, h.redis)
	h.redis = proxy.Addr
	far = h.replica(short)
	h.connectAt(testGateway, 99, 1, im.PlatformWeb)
	return near, far, proxy
}

// A connection ends while its registration is on a slow way to Redis, and its end
// goes another way and is there first: no route stays behind.
func TestG9_RegistrationThatArrivesAfterTheEndLeavesNoRoute(t *testing.T) {
	near, far, proxy := nearAndFar(t)
	proxy.Slow(200*time.Millisecond, 0)

	ctx, leave := context.WithCancel(t.Context())
	conn := &logicv1.Conn{UserId: 3, ConnId: 2, Platform: 1, SinceMs: time.Now().UnixMilli()}
	over := make(chan error, 1)
	go func() {
		over <- far.Backlog(&logicv1.BacklogRequest{GatewayId: testGateway, Register: true, Conn: conn}, &backlogStream{ctx: ctx})
	}()
	time.Sleep(100 * time.Millisecond)
	leave()
	_, err := near.Disconnect(t.Context(), &logicv1.DisconnectRequest{GatewayId: testGateway, Conns: []*logicv1.Conn{conn}})
	must(t, err)
	if err := <-over; err == nil {
		t.Error("a registration for nobody succeeded")
	}
	time.Sleep(300 * time.Millisecond) // what was sent has arrived
	states, _, err := near.routes.read(t.Context(), []im.UserID{3})
	must(t, err)
	if len(states[0].routes) != 0 {
		t.Errorf("routes without a connection: %v", states[0].routes)
	}
}

// A client that was given up has been silent for longer than any debounce: his
// friends hear it at once, unless he has just closed another device.
func TestG9_WhoVanishedIsAwayAtOnce(t *testing.T) {
	slow := func(c *Config) { c.PresenceDebounce = time.Minute }
	h := newHarness(t, slow)
	h.befriend(2, 3)
	h.befriend(4, 3)
	h.connectAt(testGateway, 3, 1, im.PlatformWeb)
	h.connectAt(testGateway, 2, 2, im.PlatformWeb)
	h.connectAt(testGateway, 4, 3, im.PlatformWeb)
	h.connectAt(testGateway, 4, 4, im.PlatformApp)
	h.wantSeen(time.Second, 3, 2, "+")
	h.wantSeen(time.Second, 3, 4, "+")
	vanish := func(user, conn int64, platform im.Platform) {
		insist(t, func() error {
			_, err := h.Disconnect(t.Context(), &logicv1.DisconnectRequest{GatewayId: testGateway, Conns: []*logicv1.Conn{
				{UserId: user, ConnId: conn, Platform: int32(platform), Vanished: true},
			}})
			return err
		})
	}
	h.disconnectAt(testGateway, 4, 3, im.PlatformWeb)
	time.Sleep(200 * time.Millisecond) // in the queue
	vanish(4, 4, im.PlatformApp)
	vanish(2, 2, im.PlatformWeb)
	h.wantSeen(time.Second, 3, 2, "+-")
	time.Sleep(300 * time.Millisecond)
	h.wantSeen(0, 3, 4, "+")
}

// A replica was frozen while a connection was registered, by way of another in the
// end: when it goes on, whoever comes first, the route stays.
func TestG9_RegistrationOfAFrozenReplicaTakesNoRouteAway(t *testing.T) {
	near, far, proxy := nearAndFar(t)
	routes := func(user im.UserID) []route {
		states, _, err := near.routes.read(t.Context(), []im.UserID{user})
		must(t, err)
		return states[0].routes
	}
	rt := route{gateway: testGateway, conn: 2, platform: im.PlatformWeb, sinceMS: time.Now().UnixMilli()}
	register := func(ctx context.Context, s *Server) error {
		return s.Backlog(&logicv1.BacklogRequest{GatewayId: testGateway, Register: true, Conn: &logicv1.Conn{
			UserId: 3, ConnId: int64(rt.conn), Platform: int32(rt.platform), SinceMs: rt.sinceMS,
		}}, &backlogStream{ctx: ctx})
	}
	ctx, leave := context.WithCancel(t.Context())
	insist(t, func() error { return register(t.Context(), near) })
	proxy.Slow(50*time.Millisecond, 0)
	over := make(chan error, 1)
	go func() { over <- register(ctx, far) }()
	time.Sleep(20 * time.Millisecond) // on its way to Redis
	leave()
	if err := <-over; err == nil {
		t.Error("a registration for nobody succeeded")
	}
	time.Sleep(300 * time.Millisecond) // what was sent has arrived
	if got := routes(3); len(got) != 1 {
		t.Errorf("the connection's routes: %v", got)
	}

	// The frozen one registered first, and takes its route back last.
	var first, second registration
	for _, reg := range []*registration{&first, &second} {
		insist(t, func() (err error) {
			*reg, err = near.routes.register(t.Context(), 4, rt, true, true)
			return err
		})
	}
	if !second.again {
		t.Error("registered twice, and told once")
	}
	takeBack := func(sinceMS int64) {
		rt.sinceMS = sinceMS
		insist(t, func() error {
			_, err := near.routes.remove(t.Context(), []departure{{user: 4, route: rt, exact: true}})
			return err
		})
	}
	takeBack(first.sinceMS)
	if got := routes(4); len(got) != 1 {
		t.Errorf("routes after the first was taken back: %v", got)
	}
	takeBack(second.sinceMS)
	if got := routes(4); len(got) != 0 {
		t.Errorf("routes after the last was taken back: %v", got)
	}
}

// A displaced connection's late end does not make its user look away.
func TestG9_DisplacedConnectionEndingLateIsNoGoing(t *testing.T) {
	h := newHarness(t, short)
	h.befriend(2, 3)
	h.connectAt(testGateway, 3, 1, im.PlatformWeb)
	h.connectAt(testGateway, 2, 2, im.PlatformWeb)
	h.connectAt(testGateway, 2, 3, im.PlatformWeb)
	h.disconnectAt(testGateway, 2, 2, im.PlatformWeb)
	h.wantSeen(time.Second, 3, 2, "+")
	time.Sleep(600 * time.Millisecond)
	h.wantSeen(0, 3, 2, "+")
}

// Many changes at once on two replicas: what is told last is the truth, and
// versions never go back.
func TestG9_ConvergesToTheTruthUnderChurn(t *testing.T) {
	h := newHarness(t, short)
	h.replica(short)
	users := make([]im.UserID, 12)
	h.connectAt(testGateway, 3, 1, im.PlatformPC)
	for i := range users {
		users[i] = im.UserID(100 + i)
		h.befriend(3, users[i])
	}
	var wg sync.WaitGroup
	for i, u := range users {
		wg.Go(func() {
			for n := range int64(30) {
				conn := 1000*int64(i+1) + n
				h.connectAt(testGateway, u, conn, im.PlatformWeb)
				time.Sleep(time.Duration(n%7) * 10 * time.Millisecond)
				if n%5 == 0 {
					time.Sleep(350 * time.Millisecond)
				}
				if n < 29 || i%2 == 0 {
					h.disconnectAt(testGateway, u, conn, im.PlatformWeb)
				}
				if n%6 == 0 {
					time.Sleep(400 * time.Millisecond)
				}
			}
		})
	}
	wg.Wait()
	eventually(t, 2*time.Second+2*presenceSlack, "nobody is due any more", func() bool {
		n, err := h.routes.rdb.ZCard(t.Context(), dueKey).Result()
		return err == nil && n == 0
	})
	for i, u := range users {
		got := h.seen(3, u)
		if want := string("-+"[i%2]); got == "" || got[len(got)-1:] != want {
			t.Errorf("%d ended as %q, truth %q", u, got, want)
		}
		for k := 1; k < len(got); k++ {
			if got[k] == got[k-1] {
				t.Errorf("%d: the same state twice in a row: %q", u, got)
			}
		}
		if on := h.online(3, u)[0]; on != (i%2 == 1) {
			t.Errorf("%d asked: %v", u, on)
		}
	}
}

// A gateway is killed: nobody disconnects. Friends hear it at once; users who
// have another connection stay.
func TestG9_GatewayDeathIsToldToFriends(t *testing.T) {
	gw := &changingGateways{}
	gw.set("gw1", "gw2")
	h := newHarnessWith(t, gw)
	h.replica()
	h.befriend(2, 3)
	h.befriend(4, 3)
	h.connectAt("gw2", 3, 1, im.PlatformWeb)
	h.connectAt("gw1", 2, 2, im.PlatformWeb)
	h.connectAt("gw1", 4, 3, im.PlatformWeb)
	h.connectAt("gw2", 4, 4, im.PlatformApp)
	h.wantSeen(time.Second, 3, 2, "+")
	h.wantSeen(time.Second, 3, 4, "+")
	time.Sleep(600 * time.Millisecond) // the replicas have seen both gateways
	gw.set("gw2")
	h.wantSeen(2*time.Second, 3, 2, "+-") // beyond the lease of discovery: no debounce, and not "young"
	if got := h.online(3, 2, 4); !slices.Equal(got, []bool{false, true}) {
		t.Errorf("asked: %v", got)
	}
	time.Sleep(700 * time.Millisecond)
	h.wantSeen(0, 3, 4, "+")
	// It was only frozen: it comes back with its sockets.
	gw.set("gw2", "gw1")
	h.wantSeen(2*time.Second, 3, 2, "+-+")
	gw.set("gw2")
	h.wantSeen(2*time.Second, 3, 2, "+-+-")
}

// Replicas learn of a death and of a return at different times, and whoever
// lags may be the one to look: the end is the truth all the same.
func TestG9_ReplicasThatLagDoNotHideADeath(t *testing.T) {
	early, late := &changingGateways{}, &changingGateways{}
	set := func(live ...im.GatewayID) {
		early.set(live...)
		time.Sleep(700 * time.Millisecond)
		late.set(live...)
	}
	early.set("gw1", "gw2")
	late.set("gw1", "gw2")
	h := newHarnessWith(t, early)
	h.gateways = late
	h.replica()
	users := make([]im.UserID, 20)
	h.connectAt("gw2", 3, 1, im.PlatformWeb)
	for i := range users {
		users[i] = im.UserID(100 + i)
		h.befriend(3, users[i])
		h.connectAt("gw1", users[i], int64(10+i), im.PlatformWeb)
	}
	ends := func(state string) func() bool {
		return func() bool {
			return !slices.ContainsFunc(users, func(u im.UserID) bool {
				got := h.seen(3, u)
				return got == "" || got[len(got)-1:] != state
			})
		}
	}
	eventually(t, time.Second+presenceSlack, "all here", ends("+"))
	set("gw2")
	eventually(t, 2*time.Second+presenceSlack, "all gone", ends("-"))
	set("gw1", "gw2")
	eventually(t, 2*time.Second+presenceSlack, "all back", ends("+"))
	time.Sleep(700 * time.Millisecond)
	if !ends("+")() {
		t.Error("not stable")
	}
}

// A replica that starts after a gateway died finds it, and buries it in time.
func TestG9_GatewayThatDiedUnseenIsFoundAndBuried(t *testing.T) {
	gw := &changingGateways{}
	h := newHarnessWith(t, gw)
	h.befriend(2, 3)
	rdb := h.rdb()
	ctx := t.Context()
	gone := route{gateway: "gone", conn: 7, platform: im.PlatformWeb, sinceMS: time.Now().UnixMilli()}
	here := route{gateway: testGateway, conn: 8, platform: 2, sinceMS: time.Now().UnixMilli()}
	must(t, rdb.Set(ctx, routesKey(2), gone.entry()+" "+here.entry(), 0).Err())
	must(t, rdb.SAdd(ctx, gatewayKey("gone"), 2, "rubbish").Err())
	must(t, rdb.SAdd(ctx, gatewaysKey, "gone").Err())
	must(t, rdb.HSet(ctx, presenceKey(2), "v", 1, "s", 1, "d", 1).Err())
	gw.set("gw1")
	h.connectAt(testGateway, 3, 1, im.PlatformWeb)
	eventually(t, 2*time.Second+presenceSlack, "found dead", func() bool { return rdb.HExists(ctx, deadKey, "gone").Val() })
	must(t, rdb.HSet(ctx, deadKey, "gone", time.Now().Add(-2*buryAfter).UnixMilli()).Err())
	eventually(t, 2*time.Second+presenceSlack, "buried", func() bool { return !rdb.SIsMember(ctx, gatewaysKey, "gone").Val() })
	if left := rdb.Get(ctx, routesKey(2)).Val(); left != here.entry() {
		t.Errorf("routes left: %q", left)
	}
	eventually(t, time.Second, "nothing of it is left", func() bool { // the lock goes last
		return rdb.Exists(ctx, gatewayKey("gone"), mournKey("gone")).Val() == 0 && !rdb.HExists(ctx, deadKey, "gone").Val()
	})
	h.wantSeen(0, 3, 2, "") // he was here all the time
}

// A gateway that is only cut off from discovery makes its routes again while it is
// being buried: they stay, and so does what is known of whose they are.
func TestG9_GatewayThatIsBuriedAliveKeepsItsUsers(t *testing.T) {
	h := newHarnessWith(t, &changingGateways{})
	rdb := h.rdb()
	ctx := t.Context()
	old := route{gateway: "cut", conn: 7, platform: im.PlatformWeb, sinceMS: time.Now().UnixMilli()}
	must(t, rdb.Set(ctx, routesKey(2), old.entry(), 0).Err())
	must(t, rdb.SAdd(ctx, gatewayKey("cut"), 2).Err())
	must(t, removeScript.Load(ctx, rdb).Err())
	again := sync.OnceFunc(func() { h.connectAt("cut", 2, 7, im.PlatformWeb) })
	h.routes.rdb.AddHook(after{script: removeScript, do: again})
	must(t, h.presence.bury(ctx, "cut"))
	states, _, err := h.routes.read(ctx, []im.UserID{2})
	must(t, err)
	if len(states[0].routes) != 1 || !rdb.SIsMember(ctx, gatewayKey("cut"), 2).Val() {
		t.Errorf("routes %v, on the gateway's list: %v", states[0].routes, rdb.SMembers(ctx, gatewayKey("cut")).Val())
	}
}

// While discovery knows nothing, nobody is taken for gone.
func TestG9_EmptyDiscoveryIsNoDeath(t *testing.T) {
	gw := &changingGateways{}
	gw.set("gw1")
	h := newHarnessWith(t, gw, short)
	h.befriend(2, 3)
	h.connectAt(testGateway, 3, 1, im.PlatformWeb)
	h.connectAt(testGateway, 2, 2, im.PlatformWeb)
	h.wantSeen(time.Second, 3, 2, "+")
	gw.set()
	time.Sleep(1500 * time.Millisecond)
	gw.set("gw1")
	time.Sleep(1200 * time.Millisecond)
	h.wantSeen(0, 3, 2, "+")
}

// Redis loses everything: versions still rise, and what changes from then on is told.
func TestG9_SurvivesTheLossOfRedis(t *testing.T) {
	h := newHarness(t, short)
	h.befriend(2, 3)
	h.connectAt(testGateway, 3, 1, im.PlatformWeb)
	h.connectAt(testGateway, 2, 2, im.PlatformWeb)
	h.wantSeen(time.Second, 3, 2, "+")
	must(t, h.rdb().FlushAll(t.Context()).Err())
	_, err := h.Assert(t.Context(), &logicv1.AssertRequest{GatewayId: testGateway, Conns: []*logicv1.Conn{{UserId: 3, ConnId: 1, Platform: 1, SinceMs: 5}}})
	must(t, err)
	// He went while Redis had forgotten him: his friends must hear it all the same.
	h.disconnectAt(testGateway, 2, 2, im.PlatformWeb)
	h.wantSeen(2*time.Second, 3, 2, "+-")
	h.connectAt(testGateway, 2, 3, im.PlatformWeb)
	h.wantSeen(2*time.Second, 3, 2, "+-+")
}

// Redis loses everything while it holds back that somebody left: he has no connection
// that could be asserted, and his friends hear of it all the same.
func TestG9_WhoLeftBeforeTheLossOfRedisIsTold(t *testing.T) {
	h := newHarness(t, func(c *Config) { c.PresenceDebounce = 1500 * time.Millisecond })
	h.befriend(2, 3)
	h.befriend(4, 3)
	h.connectAt(testGateway, 3, 1, im.PlatformWeb)
	h.connectAt(testGateway, 2, 2, im.PlatformWeb)
	h.connectAt(testGateway, 4, 3, im.PlatformWeb)
	h.wantSeen(time.Second, 3, 2, "+")
	h.wantSeen(time.Second, 3, 4, "+")
	h.disconnectAt(testGateway, 2, 2, im.PlatformWeb)
	rdb, ctx := h.rdb(), t.Context()
	eventually(t, presenceSlack, "it is held back", func() bool { return rdb.ZScore(ctx, dueKey, "2").Err() == nil })
	must(t, rdb.FlushAll(ctx).Err())
	_, err := h.Assert(ctx, &logicv1.AssertRequest{GatewayId: testGateway, Conns: []*logicv1.Conn{
		{UserId: 3, ConnId: 1, Platform: 1, SinceMs: 5}, {UserId: 4, ConnId: 3, Platform: 1, SinceMs: 5},
	}})
	must(t, err)
	h.wantSeen(4*time.Second, 3, 2, "+-")
	h.wantSeen(4*time.Second, 3, 4, "++") // asserted: told again
}

// The bus fails while somebody comes: he is told once it is back, if it is still true.
func TestG9_IsToldWhenTheBusIsBack(t *testing.T) {
	h := newHarness(t, short)
	h.befriend(2, 3)
	h.befriend(4, 3)
	h.connectAt(testGateway, 3, 1, im.PlatformWeb)
	h.bus.failWith(errors.New("bus is away"))
	h.connectAt(testGateway, 2, 2, im.PlatformWeb)
	h.connectAt(testGateway, 4, 3, im.PlatformWeb)
	time.Sleep(300 * time.Millisecond)
	h.disconnectAt(testGateway, 4, 3, im.PlatformWeb)
	time.Sleep(300 * time.Millisecond)
	h.bus.failWith(nil)
	h.wantSeen(8*time.Second, 3, 2, "+")
	h.wantSeen(8*time.Second, 3, 4, "-")
}

// A replica dies between looking at a user and telling: another one tells.
func TestG9_AnotherReplicaTellsForADeadOne(t *testing.T) {
	h := newHarness(t, short)
	h.befriend(2, 3)
	h.connectAt(testGateway, 3, 1, im.PlatformWeb)
	p := h.presence
	ctx := t.Context()
	// What the dead replica did: claimed the user, looked, and reserved a version.
	rt := route{gateway: testGateway, conn: 2, platform: im.PlatformWeb, sinceMS: time.Now().UnixMilli()}
	place(t, h.routes, 2, rt)
	if changed, _, err := p.look(ctx, []im.UserID{2}); err != nil || len(changed) != 1 {
		t.Fatalf("%v, %v", changed, err)
	}
	// Whoever looks while that is fresh leaves it to him, but comes back.
	if changed, inFlight, err := p.look(ctx, []im.UserID{2}); err != nil || len(changed) != 0 || !inFlight[2] {
		t.Fatalf("%v, %v, %v", changed, inFlight, err)
	}
	insist(t, func() error { return p.leave(ctx, []departure{{user: 2, delay: 500 * time.Millisecond}}) })
	h.wantSeen(7*time.Second, 3, 2, "+")
	if changed, _, err := p.look(ctx, []im.UserID{2}); err != nil || len(changed) != 0 {
		t.Errorf("told and told again: %v, %v", changed, err)
	}
}

// A replica is killed when it has answered that somebody came, or went: it was not
// the only one to know.
func TestG9_WhatWasAnsweredIsToldByTheOthers(t *testing.T) {
	h := newHarness(t, short)
	dying := *h
	h.replica(short)
	h.befriend(2, 3)
	h.connectAt(testGateway, 3, 1, im.PlatformWeb)
	p := dying.presence
	p.mu.Lock()
	p.quiet = time.Now().Add(time.Hour) // it does nothing but answer any more
	p.mu.Unlock()
	time.Sleep(300 * time.Millisecond)
	dying.connectAt(testGateway, 2, 2, im.PlatformWeb)
	h.wantSeen(time.Second, 3, 2, "+")
	dying.disconnectAt(testGateway, 2, 2, im.PlatformWeb)
	h.wantSeen(2*time.Second, 3, 2, "+-")
}

// A replica that starts, or a gateway that joins, has everybody looked at: that
// must not cut short the debounce of who reloads his page just then.
func TestG9_SweepsLeaveTheDebounceAlone(t *testing.T) {
	h := newHarness(t, func(c *Config) { c.PresenceDebounce = 1500 * time.Millisecond })
	h.befriend(2, 3)
	h.connectAt(testGateway, 3, 1, im.PlatformWeb)
	h.connectAt(testGateway, 2, 2, im.PlatformWeb)
	h.wantSeen(time.Second, 3, 2, "+")
	h.disconnectAt(testGateway, 2, 2, im.PlatformWeb)
	time.Sleep(300 * time.Millisecond) // in the queue
	insist(t, func() error { return h.presence.lookAtUsersOf(t.Context(), testGateway) })
	h.replica(func(c *Config) { c.PresenceDebounce = 1500 * time.Millisecond })
	time.Sleep(700 * time.Millisecond)
	h.wantSeen(0, 3, 2, "+")
	h.wantSeen(2*time.Second, 3, 2, "+-")

	// A claim is no news: a sweep overrides it.
	rdb, ctx := h.rdb(), t.Context()
	claim := fmt.Sprintf("%d.5", time.Now().Add(time.Hour).UnixMilli())
	must(t, rdb.SAdd(ctx, gatewayKey("other"), 77).Err())
	must(t, rdb.Do(ctx, "ZADD", dueKey, claim, "77").Err())
	insist(t, func() error { return h.presence.lookAtUsersOf(ctx, "other") })
	eventually(t, time.Second+presenceSlack, "looked at", func() bool { return rdb.ZScore(ctx, dueKey, "77").Err() != nil })
}

// News of a user that comes while he is being looked at is not forgotten with him.
func TestPresence_NewsDuringALookStays(t *testing.T) {
	h := newHarness(t)
	rdb, ctx := h.rdb(), t.Context()
	claim := fmt.Sprintf("%d.5", time.Now().Add(time.Hour).UnixMilli())
	claimed := func() {
		t.Helper()
		must(t, rdb.Do(ctx, "ZADD", dueKey, claim, "2").Err())
	}
	release := func() {
		t.Helper()
		must(t, releaseScript.Run(ctx, rdb, []string{dueKey}, claim, "2").Err())
	}
	claimed()
	insist(t, func() error { return h.presence.leave(ctx, []departure{{user: 2, delay: 2 * time.Hour}}) })
	release()
	if rdb.ZScore(ctx, dueKey, "2").Err() != nil {
		t.Error("the news is gone")
	}
	claimed()
	release()
	if rdb.ZScore(ctx, dueKey, "2").Err() == nil {
		t.Error("he stays due for ever")
	}
}

func TestPresence_WithoutRedisIsUnknownNotOffline(t *testing.T) {
	h := newHarness(t)
	h.befriend(2, 3)
	h.connectAt(testGateway, 2, 2, im.PlatformWeb)
	_ = h.routes.rdb.Close()
	_, err := h.Presence(t.Context(), &logicv1.PresenceRequest{UserIds: []int64{2}, ViewerId: 3})
	wantReason(t, "without Redis", err, "routes_unavailable")
	_, err = h.Presence(t.Context(), &logicv1.PresenceRequest{UserIds: make([]int64, maxPresenceUsers+1)})
	wantReason(t, "too many", err, "too_many_users")
}

func TestNotify_ReachesEveryConnectionAndCountsThem(t *testing.T) {
	h := newHarness(t)
	h.connectAt(testGateway, 2, 1, im.PlatformWeb)
	h.connectAt(testGateway, 2, 2, im.PlatformApp)
	h.connectAt(testGateway, 3, 3, im.PlatformWeb)
	event := &pushv1.Event{UserIds: []int64{2, 3, 4}, Body: &pushv1.Event_Friend{Friend: &pushv1.FriendEvent{RecordId: 9}}}
	resp, err := h.Notify(t.Context(), &logicv1.NotifyRequest{Event: event})
	if err != nil || resp.GetConnections() != 3 {
		t.Fatalf("%v, %v", resp, err)
	}
	var users []int64
	for _, e := range h.bus.all() {
		for _, ev := range e.GetEvents() {
			if ev.GetFriend().GetRecordId() == 9 {
				users = append(users, ev.GetUserIds()...)
			}
		}
	}
	slices.Sort(users)
	if !slices.Equal(users, []int64{2, 3}) {
		t.Fatalf("addressed %v", users)
	}
	for what, e := range map[string]*pushv1.Event{"nothing": nil, "nobody": {Body: event.GetBody()}, "no body": {UserIds: []int64{2}}} {
		_, err := h.Notify(t.Context(), &logicv1.NotifyRequest{Event: e})
		wantReason(t, what, err, "event_invalid")
	}
	h.bus.failWith(errors.New("away"))
	_, err = h.Notify(t.Context(), &logicv1.NotifyRequest{Event: event})
	wantReason(t, "bus away", err, "routes_unavailable")
}

// Many events with one look-up: envelopes are bounded, every user gets his own.
func TestPublishEvents_ManyInFewEnvelopes(t *testing.T) {
	h := newHarness(t)
	const n = 3000
	pipe := h.rdb().Pipeline()
	var list []*pushv1.Event
	big := string(make([]byte, 500))
	for u := int64(1); u <= n; u++ {
		rt := route{gateway: testGateway, conn: im.ConnID(u), platform: im.PlatformWeb, sinceMS: 1}
		pipe.Set(t.Context(), routesKey(im.UserID(u)), rt.entry(), 0)
		list = append(list, &pushv1.Event{UserIds: []int64{u}, Body: &pushv1.Event_Session{Session: &pushv1.SessionEvent{SessionId: u, GroupInfo: big}}})
	}
	_, err := pipe.Exec(t.Context())
	must(t, err)
	conns, err := h.pub.publishEvents(t.Context(), list)
	if err != nil || conns != n {
		t.Fatalf("%d, %v", conns, err)
	}
	envelopes, next := h.bus.all(), int64(1)
	if len(envelopes) < 2 || len(envelopes) > 8 {
		t.Errorf("%d envelopes", len(envelopes))
	}
	for _, e := range envelopes {
		for _, ev := range e.GetEvents() {
			if ev.GetSession().GetSessionId() != next || ev.GetUserIds()[0] != next {
				t.Fatalf("event %v, want %d", ev.GetUserIds(), next)
			}
			next++
		}
	}
	if next != n+1 {
		t.Fatalf("%d events", next-1)
	}
}
