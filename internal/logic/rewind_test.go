package logic

import (
	"testing"
	"time"

	"im-services/internal/im"
)

// TestG8_RedisThatGoesBackBeginsANewEpoch: another server has the counters and routes of
// some time ago, under the epoch of now. Its counters would make new messages repeats.
func TestG8_RedisThatGoesBackBeginsANewEpoch(t *testing.T) {
	h := newHarness(t)
	ctx, rdb := t.Context(), h.rdb()
	h.befriend(2, 3)
	epoch := h.connect(3, 1, im.PlatformWeb).resp[0].GetEpoch()
	eventually(t, 2*time.Second, "the server is known", func() bool { return rdb.Get(ctx, runKey).Val() != "" })
	run := rdb.Get(ctx, runKey).Val()
	time.Sleep(2 * rewindLook)
	if now := rdb.Get(ctx, epochKey).Val(); now != epoch {
		t.Fatalf("epoch %q though the server is the same; it was %q", now, epoch)
	}

	ghost := route{gateway: testGateway, conn: 99, platform: im.PlatformApp, sinceMS: time.Now().UnixMilli()}
	must(t, rdb.Set(ctx, routesKey(2), ghost.entry(), 0).Err())
	must(t, rdb.SAdd(ctx, gatewayKey(testGateway), 2).Err())
	must(t, rdb.Set(ctx, runKey, "the server before", 0).Err())
	eventually(t, 5*time.Second, "a new epoch", func() bool { return rdb.Get(ctx, epochKey).Val() != epoch })
	if n := rdb.Exists(ctx, routesKey(2), gatewayKey(testGateway)).Val(); n != 0 {
		t.Error("routes of before are still there")
	}
	if now := rdb.Get(ctx, runKey).Val(); now != run {
		t.Errorf("run %q noted, it is %q", now, run)
	}
}
