package logic

import (
	"testing"
	"time"

	"im-services/internal/im"
)

// TestG9_RedisThatGoesBackHidesNobody: the snapshot says that friends know of somebody who
// is there; he has gone since, and they were told.
func TestG9_RedisThatGoesBackHidesNobody(t *testing.T) {
	h := newHarness(t)
	ctx, rdb := t.Context(), h.rdb()
	h.befriend(2, 3)
	h.connect(3, 1, im.PlatformWeb)
	epoch := rdb.Get(ctx, epochKey).Val()
	eventually(t, 2*time.Second, "the server is known", func() bool { return rdb.Get(ctx, runKey).Val() != "" })
	h.connectAt(testGateway, 2, 2, im.PlatformWeb)
	h.wantSeen(2*time.Second, 3, 2, "+")
	snapshot := rdb.HGetAll(ctx, presenceKey(2)).Val()
	h.disconnectAt(testGateway, 2, 2, im.PlatformWeb)
	h.wantSeen(10*time.Second, 3, 2, "+-")
	eventually(t, 15*time.Second, "he is forgotten", func() bool {
		h.presence.mu.Lock()
		defer h.presence.mu.Unlock()
		return len(h.presence.gone) == 0
	})
	must(t, rdb.HSet(ctx, presenceKey(2), snapshot).Err())
	must(t, rdb.Set(ctx, runKey, "the server before", 0).Err())
	eventually(t, 5*time.Second, "a new epoch", func() bool { return rdb.Get(ctx, epochKey).Val() != epoch })
	h.connect(3, 1, im.PlatformWeb)
	h.connectAt(testGateway, 2, 4, im.PlatformWeb)
	h.wantSeen(5*time.Second, 3, 2, "+-+")
}

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
