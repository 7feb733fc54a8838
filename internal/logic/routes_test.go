package logic

import (
	"context"
	"strconv"
	"testing"
	"time"

	logicv1 "im-services/api/proto/logic/v1"
	"im-services/internal/im"
)

// After Redis lost its memory everybody's route is to be made again, and until it is,
// pushes wait: the way to Redis may be slow, and that takes no longer for many.
func TestG8_ManyForgottenRoutesAreMadeInTheTimeOfOne(t *testing.T) {
	near, far, proxy := nearAndFar(t)
	const n, roundTrip = 100, 100 * time.Millisecond
	req := &logicv1.AssertRequest{GatewayId: testGateway}
	users := usersFrom(1000, n)
	for i, u := range users {
		req.Conns = append(req.Conns, &logicv1.Conn{UserId: int64(u), ConnId: int64(10 + i), Platform: 1, SinceMs: 5})
	}
	proxy.Slow(roundTrip/2, 0)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second) // as long as a gateway waits
	defer cancel()
	resp, err := far.Assert(ctx, req)
	must(t, err)
	states, epoch, err := near.routes.read(t.Context(), users)
	must(t, err)
	known := near.routes.rdb.SMembersMap(t.Context(), gatewayKey(testGateway)).Val()
	for i, u := range users {
		if m := resp.GetMarks()[i]; !m.GetRouted() || m.GetDisplaced() {
			t.Errorf("%d was answered %v", u, m)
		}
		want := route{gateway: testGateway, conn: im.ConnID(10 + i), platform: im.PlatformWeb, sinceMS: 5}
		if got := states[i].routes; len(got) != 1 || got[0] != want {
			t.Errorf("%d has the routes %v, want %v", u, got, want)
		}
		if _, ok := known[strconv.FormatInt(int64(u), 10)]; !ok {
			t.Errorf("%d would be forgotten when the gateway dies", u)
		}
	}
	if resp.GetEpoch() != epoch {
		t.Errorf("asserted in epoch %q, it is %q", resp.GetEpoch(), epoch)
	}
}

// Of two connections to one gateway the later one has the place, whatever the clock
// says, which may be set back between them.
func TestNewerConnection_OfOneGatewayIsTheOneWithTheHigherID(t *testing.T) {
	h := newHarness(t)
	older := route{gateway: testGateway, conn: 10, platform: im.PlatformWeb, sinceMS: 1_000_500}
	newer := route{gateway: testGateway, conn: 11, platform: im.PlatformWeb, sinceMS: 1_000_000}
	for _, fresh := range []bool{true, false} {
		user := im.UserID(20)
		if !fresh {
			user++
		}
		if reg, err := h.routes.register(t.Context(), user, older, true, true); err != nil || reg.lost {
			t.Fatalf("%+v, %v", reg, err)
		}
		reg, err := h.routes.register(t.Context(), user, newer, true, fresh)
		if err != nil || reg.lost || len(reg.displaced) != 1 || reg.sinceMS <= older.sinceMS {
			t.Errorf("fresh %v: the newer one: %+v, %v", fresh, reg, err)
		}
		if reg, err := h.routes.register(t.Context(), user, older, true, fresh); err != nil || !reg.lost {
			t.Errorf("fresh %v: the older one, late: %+v, %v", fresh, reg, err)
		}
	}
}
