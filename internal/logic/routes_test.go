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
