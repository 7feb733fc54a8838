package logic

import (
	"errors"
	"slices"
	"testing"
	"time"

	logicv1 "im-services/api/proto/logic/v1"
	pushv1 "im-services/api/proto/push/v1"
	"im-services/internal/im"
)

// friendEvents returns whom a friend frame was published to, in order.
func (r *recorder) friendEvents(record int64) []int64 {
	var users []int64
	for _, e := range r.all() {
		for _, ev := range e.GetEvents() {
			if ev.GetFriend().GetRecordId() == record {
				users = append(users, ev.GetUserIds()...)
			}
		}
	}
	return users
}

func (h *harness) notify(record int64, users ...int64) error {
	_, err := h.Notify(h.t.Context(), &logicv1.NotifyRequest{Event: &pushv1.Event{
		UserIds: users, Body: &pushv1.Event_Friend{Friend: &pushv1.FriendEvent{RecordId: record}},
	}})
	return err
}

// connectSince is connect of a connection that was made at that moment.
func (h *harness) connectSince(user im.UserID, conn int64, made time.Time) {
	h.t.Helper()
	must(h.t, h.Backlog(&logicv1.BacklogRequest{
		GatewayId: testGateway, Register: true,
		Conn: &logicv1.Conn{UserId: int64(user), ConnId: conn, Platform: int32(im.PlatformWeb), SinceMs: made.UnixMilli()},
	}, &backlogStream{ctx: h.t.Context()}))
}

// A client knows that it is connected before its connection has a route. What
// happens to its user in between reaches it all the same, once; what happened
// before it was there does not.
func TestNotify_ReachesAConnectionWhoseRouteIsNotThereYet(t *testing.T) {
	h := newHarness(t)
	h.connect(4, 4, im.PlatformWeb)
	made := time.Now()
	must(t, h.notify(9, 2, 3, 4))
	if got := h.bus.friendEvents(9); !slices.Equal(got, []int64{4}) {
		t.Fatalf("told %v before anybody else had a route", got)
	}
	h.connectSince(2, 1, made)
	h.connectSince(3, 2, time.Now().Add(2*time.Millisecond))
	eventually(t, 10*time.Second, "the latecomer is told", func() bool { return slices.Contains(h.bus.friendEvents(9), 2) })

	// However often it is looked for others: nobody is told twice, nor without
	// having been there.
	for range lateLooks {
		must(t, h.pub.tellLatecomers(t.Context(), h.pub.late.due(time.Now().Add(time.Hour))))
	}
	if got := h.bus.friendEvents(9); !slices.Equal(got, []int64{4, 2}) {
		t.Fatalf("told %v", got)
	}
}

// What the bus did not take is not lost if the bus is back soon; whether it
// arrived although the bus did not answer, nobody knows, and it is not repeated.
func TestNotify_IsToldWhenTheBusIsBack(t *testing.T) {
	h := newHarness(t)
	h.connect(2, 1, im.PlatformWeb)
	h.bus.failWith(errors.New("no answer"))
	wantReason(t, "no answer", h.notify(8, 2), "routes_unavailable")
	h.bus.failWith(ErrNotPublished)
	wantReason(t, "bus away", h.notify(9, 2), "routes_unavailable")
	h.bus.failWith(nil)
	eventually(t, 10*time.Second, "told", func() bool { return len(h.bus.friendEvents(9)) == 1 })
	if got := h.bus.friendEvents(8); len(got) != 0 {
		t.Errorf("repeated: %v", got)
	}
}

// A call is of the moment: its caller has been told that nobody is there.
func TestNotify_ACallDoesNotComeLate(t *testing.T) {
	h := newHarness(t)
	made := time.Now()
	resp, err := h.Notify(t.Context(), &logicv1.NotifyRequest{Event: &pushv1.Event{
		UserIds: []int64{2}, Body: &pushv1.Event_Call{Call: &pushv1.CallEvent{CalleeId: 2}},
	}})
	if err != nil || resp.GetConnections() != 0 {
		t.Fatalf("%v, %v", resp, err)
	}
	must(t, h.notify(9, 2))
	h.connectSince(2, 1, made)
	eventually(t, 10*time.Second, "the other event", func() bool { return len(h.bus.friendEvents(9)) == 1 })
	for _, e := range h.bus.all() {
		for _, ev := range e.GetEvents() {
			if ev.GetCall() != nil {
				t.Fatal("the call came late")
			}
		}
	}
}

// More than can be remembered is no reason to grow.
func TestLateEvents_AreBounded(t *testing.T) {
	var q lateEvents
	now := time.Now()
	for range maxLate + 10 {
		q.add(&lateEvent{at: now})
	}
	if n := len(q.due(now.Add(lateLooks[0]))); n != maxLate {
		t.Fatalf("%d remembered", n)
	}
	if n := len(q.due(now.Add(time.Hour))); n != 0 {
		t.Fatalf("%d taken out twice", n)
	}
}
