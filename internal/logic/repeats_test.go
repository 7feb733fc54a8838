package logic

import (
	"slices"
	"testing"
	"time"

	pushv1 "im-services/api/proto/push/v1"
	"im-services/internal/im"
)

// What the bus took and lost is told again, word for word, and no more than that.
func TestG9_ChangesAreToldAgain(t *testing.T) {
	was := repeatAfter
	t.Cleanup(func() { repeatAfter = was })
	repeatAfter = [...]time.Duration{time.Second, 2 * time.Second}
	h := newHarness(t, short)
	h.befriend(2, 3)
	h.connectAt(testGateway, 3, 1, im.PlatformWeb)
	h.connectAt(testGateway, 2, 2, im.PlatformWeb)
	news := func() (out []*pushv1.PresenceEvent) {
		for _, e := range h.bus.all() {
			for _, ev := range e.GetEvents() {
				if p := ev.GetPresence(); p.GetUserId() == 2 && slices.Contains(ev.GetUserIds(), 3) {
					out = append(out, p)
				}
			}
		}
		return out
	}
	h.wantSeen(time.Second, 3, 2, "+")
	eventually(t, 2*time.Second+presenceSlack, "told three times", func() bool { return len(news()) == 3 })
	time.Sleep(500 * time.Millisecond)
	for i, p := range news() {
		if i > 2 || !p.GetOnline() || p.GetVersion() != news()[0].GetVersion() || p.GetChange() != 0 {
			t.Errorf("%d: %v", i, p)
		}
	}
}

func TestRepeats(t *testing.T) {
	const gw, other = im.GatewayID("gw"), im.GatewayID("other")
	start := time.Now()
	at := func(d time.Duration) time.Time { return start.Add(d) }
	event := func(user im.UserID, version int64, to ...int64) *pushv1.Event {
		return &pushv1.Event{UserIds: to, Body: &pushv1.Event_Presence{Presence: &pushv1.PresenceEvent{UserId: int64(user), Version: version}}}
	}
	due := func(q *repeats, when time.Duration, g im.GatewayID, want ...int64) {
		t.Helper()
		var got []int64
		for _, e := range q.due(at(when))[g] {
			got = append(got, e.GetPresence().GetVersion())
		}
		if !slices.Equal(got, want) {
			t.Errorf("at %v due %v, want %v", when, got, want)
		}
	}
	var q repeats
	q.add(at(0), []news{{user: 1}, {user: 2}, {user: 3}}, map[im.GatewayID][]*pushv1.Event{
		gw: {event(1, 10, 7, 8), event(2, 20, 7)}, other: {event(1, 10, 9)},
	})
	due(&q, repeatAfter[0]-1, gw)
	q.add(at(time.Second), []news{{user: 2}}, map[im.GatewayID][]*pushv1.Event{gw: {event(2, 21, 7)}})
	due(&q, repeatAfter[0], gw, 10) // 20 is out of date
	due(&q, repeatAfter[0]+time.Second, gw, 21)
	due(&q, repeatAfter[0]+time.Second, gw)
	q.add(at(10*time.Second), []news{{user: 1}}, nil) // nobody to tell: the last change is forgotten all the same
	due(&q, repeatAfter[1]+time.Second, gw, 21)
	due(&q, time.Hour, gw)
	if len(q.of) != 0 || q.viewers != 0 {
		t.Errorf("left: %d, with %d viewers", len(q.of), q.viewers)
	}

	most := make([]int64, maxRepeatViewers-1)
	q.add(at(0), []news{{user: 1}}, map[im.GatewayID][]*pushv1.Event{gw: {event(1, 10, most...)}})
	q.add(at(0), []news{{user: 2}}, map[im.GatewayID][]*pushv1.Event{gw: {event(2, 20, 7, 8)}})
	q.add(at(0), []news{{user: 3}}, map[im.GatewayID][]*pushv1.Event{gw: {event(3, 30, 7)}})
	due(&q, repeatAfter[0], gw, 10, 30)
}
