package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	authv1 "im-services/api/proto/auth/v1"
	logicv1 "im-services/api/proto/logic/v1"
	pushv1 "im-services/api/proto/push/v1"
	"im-services/internal/im"
	"im-services/internal/wire"
)

func TestSendIsAckedAndPushed(t *testing.T) {
	w := newWorld(t, testConfig())
	a, b := w.connect(34), w.connect(35)
	a.chat(1, 35, 1, "hello")
	ack := a.wait(1005, 1)
	if ack.num("msg_client_id") != 1 || ack.num("seq") != 1 || ack.num("ack") != 1 || ack.num("msg_id") == 0 {
		t.Fatalf("ack %v", ack)
	}
	f := b.wait(200, 1)
	if f.str("message") != "hello" || f.num("form_id") != 34 || f.num("to_id") != 35 || f.num("msg_id") != ack.num("msg_id") ||
		f.str("uid") != im.UserID(34).UID() || f.num("conversation_id") != ack.num("conversation_id") || f.num("seq") != 1 {
		t.Fatalf("frame %v", f)
	}
	time.Sleep(50 * time.Millisecond)
	if got := a.texts(); len(got) != 0 {
		t.Fatalf("the sender's web socket got %q back", got)
	}
}

// TestDefect7_GroupFanOut: one frame to every member, the sender included.
func TestDefect7_GroupFanOut(t *testing.T) {
	w := newWorld(t, testConfig())
	w.store.group(24, 34, 35, 36)
	a, b, c := w.connect(34), w.connect(35), w.connect(36)
	a.chat(1, 24, 2, "hi all")
	a.chat(2, 24, 2, "again")
	for _, x := range []*client{a, b, c} {
		x.waitTexts("hi all", "again")
	}
}

func TestOwnMessageReachesOtherPlatforms(t *testing.T) {
	w := newWorld(t, testConfig())
	web, app, peer := w.connect(34), w.connect(34, "platform=app"), w.connect(35)
	web.chat(1, 35, 1, "one")
	web.wait(1005, 1)
	app.chat(2, 35, 1, "two")
	peer.waitTexts("one", "two")
	app.waitTexts("one")
	peer.chat(3, 34, 1, "three")
	web.waitTexts("three") // not its own, nor the app's: a web client would show them wrong
	app.waitTexts("one", "three")
	if f := web.wait(2006, 1); f.num("seq") != 1 || f.num("conversation_id") != web.wait(200, 1).num("conversation_id") {
		t.Errorf("of what the app sent the web is told %v", f)
	}
}

// TestG6_WhatASyncPassesOverIsTold: also when the push is lost and a sync finds it, a web
// client is told of what its user's app sent.
func TestG6_WhatASyncPassesOverIsTold(t *testing.T) {
	w := newWorld(t, testConfig())
	web, app := w.connect(34), w.connect(34, "platform=app")
	web.chat(1, 35, 1, "one")
	web.wait(1005, 1)
	w.store.mu.Lock()
	w.store.push = func(*pushv1.Envelope) {}
	w.store.mu.Unlock()
	app.chat(2, 35, 1, "two")
	app.wait(1005, 1)
	if f := web.wait(2006, 1); f.num("seq") != 1 {
		t.Errorf("of what the app sent the web is told %v", f)
	}
}

// TestDefect17_BacklogComesFirstAndOnce: what was missed comes at connect, in
// order, before live messages; what is proved to be received does not come again.
func TestDefect17_BacklogComesFirstAndOnce(t *testing.T) {
	w := newWorld(t, testConfig())
	a := w.connect(34)
	for i := range 50 {
		a.chat(int64(i+1), 35, 1, fmt.Sprint(i))
	}
	a.wait(1005, 50)
	b := w.connect(35)
	b.wait(200, 50)
	for i, text := range b.texts() {
		if text != fmt.Sprint(i) {
			t.Fatalf("frame %d is %q", i, text)
		}
	}
	// gorilla's client answers our ping: that is the proof.
	conv := b.wait(200, 1).num("conversation_id")
	w.proved(35, conv, 50)
	_ = b.ws.Close()
	b2 := w.connect(35)
	a.chat(51, 35, 1, "live")
	b2.waitTexts("live")
}

func TestReceiptMovesTheCursor(t *testing.T) {
	w := newWorld(t, testConfig())
	a, b := w.connect(34), w.connect(35)
	b.ws.SetPingHandler(func(string) error { return nil }) // proves nothing
	a.chat(1, 35, 1, "x")
	f := b.wait(200, 1)
	b.send(`{"msg_code":1005,"msg_id":%d}`, f.num("msg_id"))
	key := fakeCursor{35, f.num("conversation_id"), 1}
	cursor := func() int64 {
		w.store.mu.Lock()
		defer w.store.mu.Unlock()
		return w.store.delivered[key]
	}
	w.eventually("cursor by message", func() bool { return cursor() == 1 })
	a.chat(2, 35, 1, "y")
	b.wait(200, 2)
	time.Sleep(100 * time.Millisecond)
	if cursor() != 1 {
		t.Fatal("the cursor moved without a receipt")
	}
	b.send(`{"msg_code":1005,"conversation_id":%d,"seq":2}`, key.conv)
	w.eventually("cursor by place", func() bool { return cursor() == 2 })
}

// Who sends receipts for some of what he gets proves the rest as everybody does.
func TestReceiptsAndPongsBothCount(t *testing.T) {
	w := newWorld(t, testConfig())
	a, b, c := w.connect(34), w.connect(35), w.connect(36)
	a.chat(1, 35, 1, "x")
	b.send(`{"msg_code":1005,"msg_id":%d}`, b.wait(200, 1).num("msg_id"))
	time.Sleep(20 * time.Millisecond)
	c.chat(1, 35, 1, "y")
	other := fakeCursor{35, b.wait(200, 2).num("conversation_id"), 1}
	w.eventually("the cursor of the conversation without receipts moves", func() bool {
		w.store.mu.Lock()
		defer w.store.mu.Unlock()
		return w.store.delivered[other] == 1
	})
}

// A message written but not proved to be received comes again.
func TestUnprovedComesAgain(t *testing.T) {
	w := newWorld(t, testConfig())
	a, b := w.connect(34), w.connect(35)
	b.ws.SetPingHandler(func(string) error { return nil })
	a.chat(1, 35, 1, "x")
	b.wait(200, 1)
	_ = b.ws.Close()
	w.connect(35).waitTexts("x")
}

// TestG3_RepeatGetsTheFirstAck and is not pushed again.
func TestG3_RepeatGetsTheFirstAck(t *testing.T) {
	w := newWorld(t, testConfig())
	a, b := w.connect(34), w.connect(35)
	for range 3 {
		a.chat(7, 35, 1, "once")
	}
	first := a.wait(1005, 1)
	for i := 2; i <= 3; i++ {
		if f := a.wait(1005, i); f.num("msg_id") != first.num("msg_id") || f.num("seq") != first.num("seq") {
			t.Fatalf("%v, first %v", f, first)
		}
	}
	b.waitTexts("once")
}

// TestG5_PipelinedSendsKeepOrder also when the pushes are scrambled.
func TestG5_PipelinedSendsKeepOrder(t *testing.T) {
	w := newWorld(t, testConfig())
	a, b := w.connect(34), w.connect(35)
	const n = 1000
	for i := range n {
		a.chat(int64(i+1), 35, 1, fmt.Sprint(i))
	}
	a.wait(1005, n)
	b.wait(200, n)
	for i, f := range b.all(200) {
		if f.str("message") != fmt.Sprint(i) || f.num("seq") != int64(i+1) {
			t.Fatalf("frame %d: %v", i, f)
		}
	}
}

func TestRefusals(t *testing.T) {
	w := newWorld(t, testConfig())
	w.store.refuse["stranger"] = &logicv1.SendError{Kind: int32(im.KindForbidden), Reason: "not_friends"}
	w.store.refuse["busy"] = &logicv1.SendError{Kind: int32(im.KindExhausted), Reason: "overloaded", RetryAfterMs: 1500}
	w.store.refuse["reused"] = &logicv1.SendError{Kind: int32(im.KindConflict), Reason: "client_msg_id_reused"}
	w.store.refuse["unknown"] = &logicv1.SendError{Kind: int32(im.KindUnknown), Reason: "outcome_unknown"}
	a := w.connect(34)
	a.chat(1, 35, 1, "stranger")
	f := a.wait(1003, 1)
	if f.num("msg_client_id") != 1 || f.num("form_id") != 34 || f.num("to_id") != 35 || f.num("channel_type") != 1 ||
		f.str("reason") != "not_friends" || f.str("message") == "" {
		t.Fatalf("%v", f)
	}
	a.chat(2, 35, 1, "busy")
	if f := a.wait(500, 1); f.num("retry_after") != 2 || f.str("reason") != "overloaded" || f.num("msg_client_id") != 2 {
		t.Fatalf("%v", f)
	}
	a.chat(3, 35, 1, "reused")
	if f := a.wait(500, 2); f.str("reason") != "client_msg_id_reused" || f.num("msg_client_id") != 3 {
		t.Fatalf("%v", f)
	}
	a.chat(4, 35, 1, "unknown") // no answer, and nothing is stuck
	a.chat(5, 24, 2, "not in there")
	if f := a.wait(1003, 2); f.num("msg_client_id") != 5 || f.num("channel_type") != 2 {
		t.Fatalf("%v", f)
	}
	a.send(`{"msg_client_id":6,"msg_code":200,"form_id":99,"to_id":35,"msg_type":1,"channel_type":1,"message":"x"}`)
	if f := a.wait(500, 3); f.str("reason") != "sender_mismatch" || f.num("msg_client_id") != 6 {
		t.Fatalf("%v", f)
	}
	a.send(`{"msg_client_id":7,"msg_code":200,"uid":"1a573f1e-a29a-4d88-8aa7-349f19dc1f4f","to_id":35,"msg_type":1,"channel_type":1,"message":"x"}`)
	if f := a.wait(500, 4); f.str("reason") != "sender_mismatch" {
		t.Fatalf("%v", f)
	}
	time.Sleep(50 * time.Millisecond)
	if len(a.all(1005)) != 0 {
		t.Fatal("something was acked")
	}
}

// TestDefect1_OddFramesAreAnswered: a 500 frame each, and the connection stays.
func TestDefect1_OddFramesAreAnswered(t *testing.T) {
	w := newWorld(t, testConfig())
	a := w.connect(34)
	odd := []string{"", "ping", "{", "[]", "null", `{}`, `{"msg_code":"200"}`, `{"msg_code":200}`, `{"msg_code":2001,"id":1}`, `{"msg_code":1003}`, "\x00"}
	for i, s := range odd {
		a.send("%s", s)
		a.wait(500, i+1)
	}
	a.send(`{"msg_code":1004,"message":"ping"}`)
	if f := a.wait(1004, 1); f.str("message") != "pong" {
		t.Fatalf("%v", f)
	}
}

func TestPresenceQuestion(t *testing.T) {
	w := newWorld(t, testConfig())
	w.store.online[35] = true
	a := w.connect(34)
	a.send(`{"msg_code":2002,"to_id":35,"msg_client_id":8}`)
	if f := a.wait(2001, 1); f.num("id") != 35 || f.num("form_id") != 35 || f.num("to_id") != 34 || f.num("status") != 1 || f.num("msg_client_id") != 8 {
		t.Fatalf("%v", f)
	}
	a.send(`{"msg_code":2002,"id":"36"}`)
	if f := a.wait(2000, 1); f.num("id") != 36 || f.num("status") != 0 {
		t.Fatalf("%v", f)
	}
}

func TestFriendFramesIn(t *testing.T) {
	w := newWorld(t, testConfig())
	a := w.connect(34)
	a.send(`{"msg_code":1000,"to_id":35,"information":"hi","msg_client_id":3}`)
	if f := a.wait(1005, 1); f.num("msg_id") != 46 || f.num("msg_client_id") != 3 {
		t.Fatalf("%v", f)
	}
	if r := w.friend.requests[0]; r.GetRequester().GetId() != 34 || r.GetRequester().GetName() != "user34" || r.GetRequester().GetAvatar() != "https://im.example/avatars/34.png" || r.GetToUserId() != 35 {
		t.Fatalf("%v", r)
	}
	a.send(`{"msg_code":1001,"id":46}`)
	a.wait(1005, 2)
	a.send(`{"msg_code":1002,"id":47}`)
	a.wait(1005, 3)
	if x := w.friend.answers; !x[0].GetAccept() || x[1].GetAccept() || x[0].GetAnswerer().GetId() != 34 {
		t.Fatalf("%v", x)
	}
	for i, s := range []string{
		`{"msg_code":1000,"to_id":5000,"information":"nobody"}`, `{"msg_code":1000,"to_id":34,"information":"me"}`, `{"msg_code":1001,"id":404}`,
	} {
		a.send("%s", s)
		a.wait(500, i+1)
	}
}

func TestEventsOut(t *testing.T) {
	w := newWorld(t, testConfig())
	a := w.connect(34)
	event := func(e *pushv1.Event) {
		e.UserIds = []int64{34, 99}
		w.publish(&pushv1.Envelope{GatewayId: testGateway, Events: []*pushv1.Event{e}})
	}
	who := &pushv1.Profile{Id: 35, Name: "latent", Avatar: "https://x/y.png", Email: "l@example.com"}
	event(&pushv1.Event{Body: &pushv1.Event_Friend{Friend: &pushv1.FriendEvent{RecordId: 46, RequesterId: 35, AnswererId: 34, Information: "i", Profile: who}}})
	event(&pushv1.Event{Body: &pushv1.Event_Friend{Friend: &pushv1.FriendEvent{RecordId: 46, RequesterId: 34, AnswererId: 35, Status: 1, Profile: who}}})
	event(&pushv1.Event{Body: &pushv1.Event_Friend{Friend: &pushv1.FriendEvent{RecordId: 47, RequesterId: 34, AnswererId: 35, Status: 2, Profile: who}}})
	event(&pushv1.Event{Body: &pushv1.Event_Session{Session: &pushv1.SessionEvent{SessionId: 900, OwnerId: 34, GroupId: 24, GroupName: "g"}}})
	event(&pushv1.Event{Body: &pushv1.Event_Recall{Recall: &pushv1.RecallEvent{MessageId: 812, SenderId: 35, ToId: 34, Kind: 1}}})
	event(&pushv1.Event{Body: &pushv1.Event_Call{Call: &pushv1.CallEvent{CallerId: 35, CalleeId: 34, Text: "come", Caller: who}}})
	event(&pushv1.Event{Body: &pushv1.Event_Presence{Presence: &pushv1.PresenceEvent{UserId: 35, Online: true, Version: 2}}})
	event(&pushv1.Event{Body: &pushv1.Event_Presence{Presence: &pushv1.PresenceEvent{UserId: 35, Online: false, Version: 1}}}) // late: dropped
	for code, form := range map[int]int64{1000: 35, 1001: 34, 1002: 34} {
		if f := a.wait(code, 1); f.num("form_id") != form {
			t.Errorf("%d: %v", code, f)
		}
	}
	if f := a.wait(2003, 1); f["sessions"].(map[string]any)["form_id"].(interface{ String() string }).String() != "34" {
		t.Errorf("%v", f)
	}
	a.wait(2005, 1)
	if f := a.wait(600, 1); f["users"].(map[string]any)["name"] != "latent" {
		t.Errorf("%v", f)
	}
	if f := a.wait(2001, 1); f.num("to_id") != 34 || f.num("id") != 35 {
		t.Errorf("%v", f)
	}
	time.Sleep(30 * time.Millisecond)
	if len(a.all(2000)) != 0 {
		t.Error("presence went backwards")
	}
}

// News is told again in case that it was lost: who has heard it does not hear it
// twice, and who was greeted with it does not keep it from the others.
func TestG9_RepeatedNewsReachesOnlyWhoMissedIt(t *testing.T) {
	w := newWorld(t, testConfig())
	a, b := w.connect(34), w.connect(36)
	tell := func(online bool, version, change int64, to ...int64) {
		w.publish(&pushv1.Envelope{GatewayId: testGateway, Events: []*pushv1.Event{{UserIds: to, Body: &pushv1.Event_Presence{
			Presence: &pushv1.PresenceEvent{UserId: 35, Online: online, Version: version, Change: change},
		}}}})
	}
	heard := func(when string, of *client, here, gone int) {
		t.Helper()
		w.eventually(when, func() bool { return len(of.all(2001)) >= here && len(of.all(2000)) >= gone })
		time.Sleep(30 * time.Millisecond)
		if h, g := len(of.all(2001)), len(of.all(2000)); h != here || g != gone {
			t.Fatalf("%s: told here %d times, gone %d, want %d and %d", when, h, g, here, gone)
		}
	}
	// 10 was lost. Who comes later is greeted with it, and again on a bus that repeats itself.
	tell(true, 11, 10, 36)
	tell(true, 11, 10, 36)
	heard("the greeting", b, 1, 0)
	tell(true, 10, 0, 34)
	heard("the news, again", a, 1, 0)
	tell(true, 10, 0, 34)
	heard("the news, for the third time", a, 1, 0)
	tell(false, 20, 0, 34, 36)
	heard("a newer change", a, 1, 1)
	tell(true, 10, 0, 34)
	tell(true, 12, 10, 34)
	heard("what is out of date", a, 1, 1)
	heard("what was for another", b, 1, 1)
}

func TestPresenceVersions_ForgetTheOldestOnly(t *testing.T) {
	var p presenceVersions
	for u := range int64(maxPresence + 10) {
		if !p.fresh(&pushv1.PresenceEvent{UserId: u + 1, Version: 5}) {
			t.Fatalf("%d is not new", u)
		}
	}
	for u := range int64(maxPresence + 10) {
		if p.fresh(&pushv1.PresenceEvent{UserId: u + 1, Version: 5}) {
			t.Fatalf("%d is forgotten", u)
		}
	}
}

// TestDefect13_NewerConnectionDisplaces: 2004 is the last frame, then 4001; the
// newer one keeps working, and so do other platforms.
func TestDefect13_NewerConnectionDisplaces(t *testing.T) {
	w := newWorld(t, testConfig())
	app := w.connect(34, "platform=app")
	old := w.connect(34)
	time.Sleep(5 * time.Millisecond)
	fresh := w.connect(34)
	if code := old.closed(); code != 4001 {
		t.Fatalf("close code %d", code)
	}
	old.mu.Lock()
	last := old.frames[len(old.frames)-1]
	old.mu.Unlock()
	for _, k := range []string{"message", "ip", "pro", "city"} {
		if _, ok := last[k].(string); !ok {
			t.Errorf("%s is missing in %v", k, last)
		}
	}
	if last.code() != 2004 || last.str("ip") != "127.0.0.1" {
		t.Fatalf("last frame %v", last)
	}
	w.connect(35).chat(1, 34, 1, "hi")
	fresh.waitTexts("hi")
	app.waitTexts("hi")
}

// TestG18_LoserOfARegistrationComesBack: that another connection counts as newer
// may be a clock's mistake, so it is no end of the login (2004, 4001).
func TestG18_LoserOfARegistrationComesBack(t *testing.T) {
	w := newWorld(t, testConfig())
	refuse := func(err error) {
		w.store.mu.Lock()
		w.store.refuseBacklog = err
		w.store.mu.Unlock()
	}
	refuse(im.E(im.KindForbidden, "connection_displaced", nil))
	loser := w.dial(34)
	code := wire.CloseCode(loser.closed()) //nolint:gosec // two bytes
	if !code.Reconnect() || len(loser.all(2004)) != 0 {
		t.Fatalf("close code %d, frames %v", code, loser.all(2004))
	}
	refuse(nil)
	w.connect(34)
}

// TestG9_AnEndThatPassesItsRegistrationIsReportedAgain: the route is made after
// its connection's end was reported, and does not stay.
func TestG9_AnEndThatPassesItsRegistrationIsReportedAgain(t *testing.T) {
	w := newWorld(t, testConfig())
	begun, slow := make(chan struct{}, 2), make(chan struct{})
	w.store.mu.Lock()
	w.store.registering = func() { begun <- struct{}{}; <-slow }
	w.store.mu.Unlock()
	reports := func() (n, routes int) {
		w.store.mu.Lock()
		defer w.store.mu.Unlock()
		return len(w.store.gone), len(w.store.routes[34])
	}
	c := w.dial(34)
	<-begun
	_ = c.ws.Close()
	w.eventually("the end is reported", func() bool { n, _ := reports(); return n == 1 })
	close(slow)
	w.eventually("the route is made all the same", func() bool { _, routes := reports(); return routes == 1 })
	w.eventually("the end is reported again", func() bool { n, _ := reports(); return n == 2 })
	if _, routes := reports(); routes != 0 {
		t.Fatal("the user is online without a connection")
	}
	c = w.connect(34)
	_ = c.ws.Close()
	w.eventually("the end of one with a route is reported", func() bool { n, _ := reports(); return n == 3 })
	w.srv.reports.mu.Lock()
	defer w.srv.reports.mu.Unlock()
	if n := len(w.srv.reports.again); n != 0 {
		t.Fatalf("%d ends to be reported again", n)
	}
}

// TestG9_AnEndWhileItsRouteIsAssertedLeavesNoRoute: Redis forgot the route, and it is
// made again when the end has been reported; the gateway is told that this failed.
func TestG9_AnEndWhileItsRouteIsAssertedLeavesNoRoute(t *testing.T) {
	w := newWorld(t, testConfig())
	c := w.connect(34)
	begun, over := make(chan struct{}, 10), make(chan struct{})
	w.store.mu.Lock()
	clear(w.store.routes) // FLUSHALL
	w.store.epoch = "e2"
	w.store.asserting = func() error {
		begun <- struct{}{}
		<-over
		return errors.New("redis is away")
	}
	w.store.mu.Unlock()
	state := func() (reports, asserts, routes int) {
		w.store.mu.Lock()
		defer w.store.mu.Unlock()
		return len(w.store.gone), w.store.asserted, len(w.store.routes[34])
	}
	<-begun
	_ = c.ws.Close()
	w.eventually("the end is reported", func() bool { n, _, _ := state(); return n > 0 })
	close(over)
	w.eventually("the route is made all the same", func() bool { _, n, _ := state(); return n > 0 })
	w.eventually("nothing is left of it", func() bool { _, _, n := state(); return n == 0 })
}

// TestG8_AStoppedReplicaHoldsNoConnectUp: a replica that is stopped takes a
// registration and says nothing; another is asked.
func TestG8_AStoppedReplicaHoldsNoConnectUp(t *testing.T) {
	w := newWorld(t, testConfig())
	var first atomic.Bool
	resume := make(chan struct{})
	defer close(resume)
	w.store.mu.Lock()
	w.store.registering = func() {
		if first.CompareAndSwap(false, true) {
			<-resume
		}
	}
	w.store.mu.Unlock()
	began := time.Now()
	w.connect(34)
	if took := time.Since(began); took > 3500*time.Millisecond {
		t.Errorf("live after %v", took)
	}
	// The one that was stopped may make a route yet.
	w.srv.hub.each(34, func(c *conn) {
		if c.registeredOnce() {
			t.Error("its end is reported once only")
		}
	})
}

func TestKickEvent(t *testing.T) {
	w := newWorld(t, testConfig())
	a, b := w.connect(34), w.connect(35)
	id := func(user int64) (id int64) {
		w.srv.hub.each(im.UserID(user), func(c *conn) { id = int64(c.id) })
		return id
	}
	kick := func(user, conn int64, reason string) {
		w.publish(&pushv1.Envelope{GatewayId: testGateway, Events: []*pushv1.Event{{
			UserIds: []int64{user}, Body: &pushv1.Event_Kick{Kick: &pushv1.KickEvent{ConnId: conn, Reason: reason, PeerIp: "192.0.2.9"}},
		}}})
	}
	kick(34, id(34)+1000, "displaced") // of another connection
	kick(34, id(34), "displaced")
	if f := a.wait(2004, 1); f.str("ip") != "192.0.2.9" {
		t.Fatalf("%v", f)
	}
	if code := a.closed(); code != 4001 {
		t.Fatalf("close code %d", code)
	}
	kick(35, id(35), "revoked")
	if code := b.closed(); code != 4001 || len(b.all(2004)) != 0 {
		t.Fatalf("close code %d", code)
	}
	w.eventually("logic hears of both", func() bool {
		w.store.mu.Lock()
		defer w.store.mu.Unlock()
		return len(w.store.gone) == 2
	})
}

func TestForgedAndForeignPushesAreDropped(t *testing.T) {
	w := newWorld(t, testConfig())
	a := w.connect(34)
	m := &pushv1.Message{ConversationId: 7, Kind: 1, Seq: 1, Id: 1, SenderId: 35, ToId: 34, Text: "forged", Contiguous: true}
	env := &pushv1.Envelope{GatewayId: testGateway, Epoch: "e1", Messages: []*pushv1.Message{m}, Deliveries: []*pushv1.Delivery{{UserIds: []int64{34}, Pvs: []int64{1}, Messages: []int32{0}}}}
	body, err := w.codec.Marshal(env)
	if err != nil {
		t.Fatal(err)
	}
	for i := range body {
		bad := append([]byte(nil), body...)
		bad[i] ^= 1
		w.srv.HandlePush(bad)
	}
	for _, b := range [][]byte{nil, {}, body[:10], body[:len(body)-1]} {
		w.srv.HandlePush(b)
	}
	env.GatewayId = "another"
	w.forcePublish(env)
	env.GatewayId = testGateway
	env.Deliveries[0].Messages = []int32{5}
	w.forcePublish(env)
	env.Deliveries[0].Messages = []int32{-1}
	w.forcePublish(env)
	time.Sleep(50 * time.Millisecond)
	if got := a.texts(); len(got) != 0 {
		t.Fatalf("got %q", got)
	}
}

// TestG16_RevocationClosesSockets within two seconds.
func TestG16_RevocationClosesSockets(t *testing.T) {
	w := newWorld(t, testConfig())
	a, b, c := w.connect(34), w.connect(35), w.connect(36)
	raw := w.auth.token(t, 34)
	w.auth.revoke(&authv1.Revocation{UserId: 34, SessionId: "s34", ExpiresAt: time.Now().Add(time.Hour).Unix()})
	w.auth.revoke(&authv1.Revocation{UserId: 35, NotBefore: time.Now().Unix() + 1, ExpiresAt: time.Now().Add(time.Hour).Unix()})
	w.auth.revoke(&authv1.Revocation{UserId: 36, SessionId: "another"})
	start := time.Now()
	if x, y := a.closed(), b.closed(); x != 4001 || y != 4001 || time.Since(start) > 5*time.Second {
		t.Fatalf("close codes %d, %d after %v", x, y, time.Since(start))
	}
	if _, err := w.srv.Verify(raw); im.KindOf(err) != im.KindUnauthorized {
		t.Fatalf("the old token still works: %v", err)
	}
	if code, _, _ := get(t, w.http.URL+"/im/connect?token="+raw, nil); code != 401 {
		t.Fatalf("handshake with the old token: %d", code)
	}
	c.send(`{"msg_code":1004}`)
	c.wait(1004, 1)
}

func TestHandshakeRefusals(t *testing.T) {
	w := newWorld(t, testConfig())
	good := w.auth.token(t, 34)
	claims := w.auth.claims(34)
	claims.IssuedAt, claims.ExpiresAt = time.Now().Add(-3*time.Hour), time.Now().Add(-2*time.Hour)
	expired, err := w.auth.signer.Sign(claims)
	if err != nil {
		t.Fatal(err)
	}
	other, err := newFakeAuth(t).signer.Sign(w.auth.claims(34)) // right kid, wrong key
	if err != nil {
		t.Fatal(err)
	}
	up := http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="}}
	with := func(kv ...string) http.Header {
		h := up.Clone()
		for i := 0; i < len(kv); i += 2 {
			h.Set(kv[i], kv[i+1])
		}
		return h
	}
	tests := map[string]struct {
		path   string
		header http.Header
		code   int
	}{
		"no token":                    {"", up, 401},
		"empty token":                 {"?token=", up, 401},
		"null":                        {"?token=null", up, 401},
		"bearer null":                 {"?token=Bearer+null", up, 401},
		"garbage":                     {"?token=a.b.c", up, 401},
		"expired":                     {"?token=" + expired, up, 401},
		"wrong key":                   {"?token=" + other, up, 401},
		"cut":                         {"?token=" + good[:len(good)-2], up, 401},
		"bad query beats good header": {"?token=x.y.z", with("Authorization", good), 401},
		"unknown ticket":              {"?token=ticket", up, 401},
		"bad header":                  {"", with("Authorization", "Bearer null"), 401},
		"subprotocol without token":   {"", with("Sec-Websocket-Protocol", "bearer"), 401},
		"platform":                    {"?platform=fridge&token=" + good, up, 400},
		"no upgrade":                  {"?token=" + good, nil, 400},
		"no ticket either":            {"?token=" + strings.Repeat("x", 42) + "A", up, 401},
		"wrong version":               {"?token=" + good, with("Sec-Websocket-Version", "12"), 426},
		"no key":                      {"?token=" + good, with("Sec-Websocket-Key", ""), 400},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			code, body, h := get(t, w.http.URL+"/im/connect"+tt.path, tt.header)
			if code != tt.code || !strings.HasPrefix(body, fmt.Sprintf(`{"code":%d,"message":"`, tt.code)) || !strings.HasSuffix(body, `,"data":{}}`) {
				t.Fatalf("%d %s", code, body)
			}
			if h.Get("Access-Control-Allow-Origin") != "*" || !strings.HasPrefix(h.Get("Content-Type"), "application/json") {
				t.Errorf("headers %v", h)
			}
			if tt.code == 426 && h.Get("Sec-Websocket-Version") != "13" {
				t.Errorf("no version offered: %v", h)
			}
		})
	}
	if n := w.auth.lookups.Load(); n != 1 {
		t.Errorf("auth was asked %d times, only what may be a ticket is looked up", n)
	}
	resp, err := http.Post(w.http.URL+"/im/connect?token="+good, "text/plain", nil) //nolint:noctx // a test
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != 405 {
		t.Errorf("POST: %d", resp.StatusCode)
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestHandshakeWaysIn(t *testing.T) {
	w := newWorld(t, testConfig())
	good := w.auth.token(t, 34)
	ticket := strings.Repeat("abcdefg", 6) + "A"
	w.auth.tickets[ticket] = &authv1.Identity{UserId: 34, Name: "n", SessionId: "s", IssuedAt: time.Now().Unix(), ExpiresAt: time.Now().Add(time.Hour).Unix()}
	type try struct {
		query  string
		header http.Header
		sub    []string
	}
	for name, tt := range map[string]try{
		"query":                  {query: "?token=" + good},
		"query bearer":           {query: "?token=Bearer+" + good},
		"header":                 {header: http.Header{"Authorization": {good}}},
		"header bearer":          {header: http.Header{"Authorization": {"Bearer " + good}}},
		"header lower":           {header: http.Header{"Authorization": {"bearer " + good}}},
		"empty query, header":    {query: "?token=", header: http.Header{"Authorization": {"Bearer " + good}}},
		"good query, bad header": {query: "?token=" + good, header: http.Header{"Authorization": {"Bearer null"}}},
		"subprotocol":            {sub: []string{"bearer", good}},
		"ticket":                 {query: "?token=" + ticket},
		"foreign origin":         {query: "?token=" + good, header: http.Header{"Origin": {"https://evil.example"}}},
	} {
		t.Run(name, func(t *testing.T) {
			d := websocket.Dialer{Subprotocols: tt.sub}
			ws, resp, err := d.Dial(w.url()+tt.query, tt.header)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if len(tt.sub) > 0 && ws.Subprotocol() != "bearer" {
				t.Errorf("subprotocol %q", ws.Subprotocol())
			}
			_ = ws.Close()
		})
	}
	if _, _, err := websocket.DefaultDialer.Dial(w.url()+"?token="+ticket, nil); err == nil { //nolint:bodyclose // an error
		t.Error("the ticket worked twice")
	}
}

func TestRefuseQueryTokens(t *testing.T) {
	cfg := testConfig()
	cfg.RefuseQueryTokens = true
	w := newWorld(t, cfg)
	good := w.auth.token(t, 34)
	if code, _, _ := get(t, w.http.URL+"/im/connect?token="+good, nil); code != 401 {
		t.Fatalf("query token: %d", code)
	}
	if code, _, _ := get(t, w.http.URL+"/im/connect", http.Header{"Authorization": {good}}); code != 400 { // as far as the handshake
		t.Fatalf("header token: %d", code)
	}
}

func TestConnectionLimits(t *testing.T) {
	cfg := testConfig()
	cfg.MaxConnections = 2
	w := newWorld(t, cfg)
	w.connect(1)
	w.connect(2)
	code, _, h := get(t, w.http.URL+"/im/connect?token="+w.auth.token(t, 3), nil)
	if code != 503 || h.Get("Retry-After") == "" {
		t.Fatalf("%d %v", code, h)
	}
	var r connectRates
	now := time.Unix(1000, 0)
	for i := range 5 {
		if got := r.allow("ip", 3, now); got != (i < 3) {
			t.Errorf("connection %d: %v", i, got)
		}
	}
	if !r.allow("ip", 3, now.Add(time.Minute)) || !r.allow("ip", 0, now) {
		t.Error("limit hits too wide")
	}
}

// Whoever has many addresses gets no more by it, nor does he take away what others
// were counted for.
func TestConnectRate_ManyAddresses(t *testing.T) {
	var r connectRates
	now := time.Unix(1000, 0)
	for i := range 5 {
		if got := r.allow(fmt.Sprintf("2001:db8::%x", i), 3, now); got != (i < 3) {
			t.Errorf("address %d of a household: %v", i, got)
		}
	}
	refused := 0
	for i := range 100_000 {
		if !r.allow(fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&0xff, i&0xff), 30, now) {
			refused++
		}
	}
	if refused > 0 {
		t.Errorf("%d of 100,000 addresses with one connection each were refused", refused)
	}
	if r.allow("2001:db8::ffff", 3, now) {
		t.Error("forgotten")
	}
}

// TestDrain: every client gets 1012, spread over the window; sends that were
// taken are answered; new connections are refused.
func TestDrain(t *testing.T) {
	w := newWorld(t, testConfig())
	var clients []*client
	for u := range int64(20) {
		clients = append(clients, w.connect(100+u))
	}
	release := make(chan struct{})
	r := w.replicas["r1"]
	r.mu.Lock()
	r.gate = func(*logicv1.Send) { <-release }
	r.mu.Unlock()
	clients[0].chat(1, 35, 1, "in flight")
	w.eventually("in flight", func() bool { return w.srv.lanes.outstanding() == 1 })
	done := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		done <- w.srv.Drain(ctx)
	}()
	w.eventually("draining", w.srv.draining.Load)
	if code, _, h := get(t, w.http.URL+"/im/connect?token="+w.auth.token(t, 3), nil); code != 503 || h.Get("Retry-After") == "" {
		t.Errorf("new connection: %d", code)
	}
	for _, c := range clients[1:] {
		if code := c.closed(); code != 1012 {
			t.Errorf("close code %d", code)
		}
	}
	select {
	case <-clients[0].done:
		t.Error("closed before its send was answered")
	default:
	}
	close(release)
	clients[0].wait(1005, 1)
	if code := clients[0].closed(); code != 1012 {
		t.Errorf("close code %d", code)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	w.store.mu.Lock()
	defer w.store.mu.Unlock()
	if len(w.store.gone) != len(clients) {
		t.Errorf("logic was told of %d of %d", len(w.store.gone), len(clients))
	}
}

// A drain closes a connection when none of its sends is without an answer: a
// send counts as answered only once the answer is queued, or the close frame
// could come in between.
func TestDrain_AnswersAreQueuedBeforeTheyCount(t *testing.T) {
	for name, settle := range map[string]func(*conn, *pendingSend){
		"stored": func(c *conn, p *pendingSend) { c.settle(p, &logicv1.SendResult{MessageId: 9, Seq: 1}, nil) },
		"refused": func(c *conn, p *pendingSend) {
			c.settle(p, nil, im.E(im.KindUnavailable, "service_unavailable", nil))
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, testConfig())
			cl := w.connect(100)
			c := w.srv.hub.all()[0]
			if !c.acquire(1) {
				t.Fatal("no room")
			}
			c.out.mu.Lock()
			done := make(chan struct{})
			go func() {
				defer close(done)
				settle(c, &pendingSend{send: &logicv1.Send{SenderId: 100, ClientMsgId: 1, Kind: 1, ToId: 35}, size: 1, from: c})
			}()
			time.Sleep(50 * time.Millisecond)
			idle := c.idle()
			c.out.mu.Unlock()
			if idle {
				t.Error("counted as answered while the answer is not queued")
			}
			<-done
			if !c.idle() {
				t.Error("not counted as answered")
			}
			code := 1005
			if name == "refused" {
				code = 500
			}
			cl.wait(code, 1)
		})
	}
}

func TestOrigins(t *testing.T) {
	o := newOrigins([]string{"https://app.example.com", "http://localhost:3000", "https://[2001:db8::1]:8443"})
	good := []string{
		"https://app.example.com", "https://APP.example.com", "HTTPS://app.example.com", "https://app.example.com:443",
		"http://localhost:3000", "https://[2001:db8::1]:8443",
	}
	bad := []string{
		"", "null", "https://app.example.com.", "https://app.example.com:8443", "http://app.example.com", "https://evilapp.example.com",
		"https://app.example.com.evil.test", "https://app.example.comevil.test", "https://evil.test/https://app.example.com",
		"https://app.example.com@evil.test", "https://user@app.example.com", "https://app.example.com/", "https://app.example.com/x",
		"https://app.example.com?x", "https://app.example.com#", "https://app.example.com#x", "app.example.com", "//app.example.com",
		"https:app.example.com", "https://app.example.com:", "https://app.example.com:0443", "https://app.example.com%00", "https://app.example.com ",
		" https://app.example.com", "https://app.example.com, https://app.example.com", "https://аpp.example.com", "https://xn--pp-8cd.example.com",
		"http://localhost", "http://localhost:3001", "http://127.0.0.1:3000", "ws://localhost:3000", "file://", "javascript:alert(1)", "data:text/html,x",
		"https://[2001:db8::1]", "https://[2001:db8::2]:8443", "https://*.example.com", "*",
	}
	for _, s := range good {
		if !o.allow([]string{s}, false) {
			t.Errorf("%q is refused", s)
		}
	}
	for _, s := range bad {
		if o.allow([]string{s}, true) {
			t.Errorf("%q is allowed", s)
		}
	}
	if o.allow(nil, false) || !o.allow(nil, true) {
		t.Error("no Origin: only with a token in a header")
	}
	if o.allow([]string{good[0], good[0]}, true) {
		t.Error("two Origins are allowed")
	}
	if !newOrigins(nil).allow([]string{"null"}, false) || !newOrigins([]string{"*"}).allow(nil, false) {
		t.Error("the default allows any")
	}
}

func FuzzOrigin(f *testing.F) {
	f.Add("https://app.example.com:443")
	f.Fuzz(func(t *testing.T, s string) {
		norm, ok := parseOrigin(s)
		if !ok {
			return
		}
		if again, ok := parseOrigin(norm); !ok || again != norm {
			t.Fatalf("%q → %q → %q %v", s, norm, again, ok)
		}
	})
}
