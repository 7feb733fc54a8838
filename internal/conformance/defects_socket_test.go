package conformance

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"
)

// The tests below are named after the numbered defects of the original. A
// defect that cannot be seen from outside is tested by what it led to.

func TestDefect01_BadFramesDoNotKillTheProcess(t *testing.T) {
	a, b := newUser(t), newUser(t)
	befriend(a, b)
	sa, sb := a.connect(), b.connect()
	for _, bad := range []string{
		"x", "{", "[]", "[1,2]", "null", "1", `"text"`, "{}", `{"msg_code":"200"}`, `{"msg_code":null}`, `{"msg_code":200}`, `{"msg_code":200.5}`,
		`{"msg_code":99999}`, `{"msg_code":200,"msg_client_id":1}`, `{"msg_code":2002}`, `{"msg_code":1000}`, `{"msg_code":1001}`, `{"msg_code":500}`,
		`{"msg_code":2001,"id":1}`, `{"msg_code":2004}`, `{"msg_code":200,"msg_code":200}`, `{"msg_code":200} {}`, strings.Repeat("[", 5000),
		`{"msg_code":200,"msg_client_id":1,"to_id":{},"msg_type":1,"channel_type":1,"message":"x"}`,
		`{"msg_code":200,"msg_client_id":1,"to_id":1e3,"msg_type":1,"channel_type":1,"message":"x"}`,
		`{"msg_code":200,"msg_client_id":1,"to_id":-5,"msg_type":1,"channel_type":1,"message":"x"}`,
		`{"msg_code":200,"msg_client_id":1,"to_id":9007199254740992,"msg_type":1,"channel_type":1,"message":"x"}`,
		`{"msg_code":200,"msg_client_id":1,"to_id":1,"msg_type":0,"channel_type":1,"message":"x"}`,
		`{"msg_code":200,"msg_client_id":1,"to_id":1,"msg_type":128,"channel_type":1,"message":"x"}`,
		`{"msg_code":200,"msg_client_id":1,"to_id":1,"msg_type":1,"message":"x"}`,
		`{"msg_code":200,"msg_client_id":1,"to_id":1,"msg_type":1,"channel_type":1,"message":""}`,
		`{"msg_code":200,"msg_client_id":0,"to_id":1,"msg_type":1,"channel_type":1,"message":"x"}`,
		`{"msg_code":200,"msg_client_id":1,"to_id":1,"msg_type":1,"channel_type":1,"message":"x","data":{}}`,
	} {
		sa.sendText(bad)
		f := sa.expectCode(500)
		require.NotEmpty(t, f["message"], bad)
		require.Contains(t, f, "msg_client_id")
	}
	sa.post(chatFrame(a, b.ID, 1, "still alive"))
	sb.expectText("still alive")
}

func TestDefect02_AckIsOneJSONObject(t *testing.T) {
	a, b := newUser(t), newUser(t)
	befriend(a, b)
	f := chatFrame(a, b.ID, 1, "x")
	ack := a.connect().post(f)
	for _, member := range []string{"ack", "msg_code", "msg_id", "msg_client_id"} {
		require.IsType(t, float64(0), ack[member], member)
	}
	require.EqualValues(t, f["msg_client_id"], ack["msg_client_id"])
}

var awkward = []string{
	`quote " backslash \ slash /`, "line\nbreak\r\ttab", "\x00\x01\x1f\x7f", "</script><b>&amp;", "emoji 😀 \U0001f469\u200d\U0001f467", "right\u200fto\u200eleft \u202e", "\u2028\u2029", "null", "undefined", "{\"a\":1}", "中文，标点。", "trailing ", " ",
}

func TestDefect03_TextArrivesAsItWasWritten(t *testing.T) {
	a, b := newUser(t), newUser(t)
	befriend(a, b)
	sa, sb := a.connect(), b.connect()
	for _, text := range awkward {
		f := chatFrame(a, b.ID, 1, text)
		f["data"] = text
		sa.post(f)
		got := sb.expectText(text)
		require.Equal(t, text, got["data"])
	}
	for _, text := range awkward {
		a.post("/messages/private", "msg_client_id", nextKey(), "msg_type", 1, "to_id", b.ID, "message", text, "data", text).ok()
		require.Equal(t, text, sb.expectText(text)["data"])
	}
	rows := texts(b.private(a.ID), "msg")
	require.Equal(t, append(append([]string{}, awkward...), awkward...), rows)
}

func TestDefect03_DataKeepsItsType(t *testing.T) {
	a, b := newUser(t), newUser(t)
	befriend(a, b)
	sa, sb := a.connect(), b.connect()
	for i, data := range []any{7, "7", "", -3} {
		f := chatFrame(a, b.ID, 1, fmt.Sprintf("d%d", i))
		f["data"] = data
		sa.post(f)
		want, err := json.Marshal(data)
		require.NoError(t, err)
		got, err := json.Marshal(sb.expectText(fmt.Sprintf("d%d", i))["data"])
		require.NoError(t, err)
		require.JSONEq(t, string(want), string(got))
	}
}

func TestDefect04_MessageIsNotTheKey(t *testing.T) {
	a, b := newUser(t), newUser(t)
	befriend(a, b)
	sb := b.connect()
	f := chatFrame(a, b.ID, 1, "the text")
	a.connect().post(f)
	require.EqualValues(t, f["msg_client_id"], sb.expectText("the text")["msg_client_id"])
}

func TestDefect05_NobodySpeaksForAnother(t *testing.T) {
	us := newUsers(t, 3)
	a, b, c := us[0], us[1], us[2]
	befriend(a, b)
	befriend(a, c)
	befriend(b, c)
	sc, sb := c.connect(), b.connect()
	f := chatFrame(a, b.ID, 1, "forged") // c says that he is a
	sc.send(f)
	require.EqualValues(t, f["msg_client_id"], sc.expectCode(500)["msg_client_id"])
	f = chatFrame(c, b.ID, 1, "forged")
	f["uid"] = a.UID
	sc.send(f)
	sc.expectCode(500)
	sb.never("a forged message", chat("forged"))
	require.Empty(t, b.private(a.ID))
	require.Empty(t, b.private(c.ID), "nothing is stored either")

	f = chatFrame(c, b.ID, 1, "filled in")
	f["form_id"] = 0
	sc.post(f)
	require.Equal(t, c.ID, num(sb.expectText("filled in")["form_id"]))
	f = chatFrame(c, b.ID, 1, "own uid")
	f["uid"], f["to_uid"] = c.UID, "nonsense"
	sc.post(f)
	require.Equal(t, b.UID, sb.expectText("own uid")["to_uid"])
}

func TestDefect06_SocketSendsAreCheckedAndKept(t *testing.T) {
	a, b := newUser(t), newUser(t)
	sa, sb := a.connect(), b.connect()
	f := chatFrame(a, b.ID, 1, "stranger")
	sa.send(f)
	no := sa.expectCode(1003)
	require.Equal(t, a.ID, num(no["form_id"]))
	require.Equal(t, b.ID, num(no["to_id"]))
	require.EqualValues(t, 1, no["channel_type"])
	require.EqualValues(t, f["msg_client_id"], no["msg_client_id"])
	sb.never("a stranger's message", chat("stranger"))
	require.Empty(t, a.private(b.ID))

	befriend(a, b)
	ack := sa.post(chatFrame(a, b.ID, 1, "kept"))
	rows := b.private(a.ID)
	require.Len(t, rows, 1)
	require.Equal(t, num(ack["msg_id"]), num(rows[0]["id"]))
	sa.send(chatFrame(a, a.ID, 1, "to myself"))
	sa.expectCode(1003)
}

func TestDefect07_GroupSendsFromTheSocketReachEverybody(t *testing.T) {
	us := newUsers(t, 3)
	for _, u := range us[1:] {
		befriend(us[0], u)
	}
	id := us[0].newGroup(us[1:]...)
	socks := make([]*socket, len(us))
	for i, u := range us {
		socks[i] = u.connect()
	}
	ack := socks[1].post(chatFrame(us[1], id, 2, "to all"))
	for _, s := range socks {
		f := s.expectText("to all")
		require.Equal(t, num(ack["msg_id"]), num(f["msg_id"]))
		require.EqualValues(t, 2, f["channel_type"])
		require.Equal(t, us[1].ID, num(profile(t, f["data"])["id"]))
	}
	require.Contains(t, texts(us[2].group(id), "Message"), "to all")
	stranger := newUser(t)
	ss := stranger.connect()
	ss.send(chatFrame(stranger, id, 2, "let me in"))
	ss.expectCode(1003)
	socks[0].never("a stranger's message", chat("let me in"))
}

func TestDefect08_HeartbeatIsAnswered(t *testing.T) {
	s := newUser(t).open()
	s.sendText(`{"msg_code":1004,"message":"ping"}`)
	require.Equal(t, "pong", s.expectCode(1004)["message"])
	s.sendText(`{"msg_code":1004}`)
	s.expectCode(1004)
}

func TestDefect09_BroadcastIsRefused(t *testing.T) {
	a, b := newUser(t), newUser(t)
	befriend(a, b)
	a.trySay(b.ID, 3, "to the world").refused(1000)
	s := a.connect()
	s.send(chatFrame(a, b.ID, 3, "to the world"))
	s.expectCode(500)
	require.Empty(t, a.private(b.ID))
}

// Defects 10, 12 and 14: one writer per socket, no map without a lock, nobody
// blocks another. Many people write to one socket at once; every frame arrives
// whole and once, in each sender's order.
func TestDefect10_ManySendersOneSocket(t *testing.T) {
	const senders, each = 6, 15
	target := newUser(t)
	st := target.connect()
	us := newUsers(t, senders)
	var wg sync.WaitGroup
	for i, u := range us {
		befriend(u, target)
		s := u.connect()
		wg.Go(func() {
			for n := range each {
				s.send(chatFrame(u, target.ID, 1, fmt.Sprintf("%d-%d", i, n)))
			}
		})
	}
	wg.Wait()
	next := make([]int, senders)
	for range senders * each {
		f := st.expect("message", func(f frame) bool { return f.code() == 200 })
		var i, n int
		_, err := fmt.Sscanf(fmt.Sprint(f["message"]), "%d-%d", &i, &n)
		require.NoError(t, err)
		require.Equal(t, next[i], n, "sender %d", i)
		next[i]++
	}
	st.never("a message twice", func(f frame) bool { return f.code() == 200 })
}

func TestDefect11_SimultaneousConnectsAreNotSwapped(t *testing.T) {
	us := newUsers(t, 8)
	hub := newUser(t)
	for _, u := range us {
		befriend(hub, u)
	}
	socks := make([]*socket, len(us))
	var wg sync.WaitGroup
	for i, u := range us {
		wg.Go(func() { socks[i] = u.connect() })
	}
	wg.Wait()
	for _, u := range us {
		hub.say(u, "for "+u.Name)
	}
	for i, u := range us {
		require.Equal(t, u.ID, num(socks[i].expectText("for " + u.Name)["to_id"]))
	}
	for i := range us {
		for _, f := range socks[i].kept() {
			require.NotEqual(t, int64(200), f.code(), "somebody else's message: %v", f)
		}
	}
}

// D11: the newer connection of a platform displaces the older, on whichever
// gateway; the end of the older leaves the newer alone.
// Everything at once, on everybody's shared state: connects, cuts, searches,
// sends. What is sent is there afterwards.
func TestDefect12_EverythingAtOnce(t *testing.T) {
	us := newUsers(t, 5)
	hub := us[0]
	for _, u := range us[1:] {
		befriend(hub, u)
	}
	var wg sync.WaitGroup
	for i, u := range us[1:] {
		wg.Go(func() {
			for n := range 8 {
				s := u.open()
				hub.get(fmt.Sprintf("/friends/status/%d", u.ID)).ok()
				u.get("/friends/userQuery?email=u").ok()
				u.say(hub, fmt.Sprintf("%d-%d", i, n))
				u.trySay(1, 1, "to the bot").ok()
				u.get("/sessions").ok()
				s.cut()
			}
		})
	}
	wg.Wait()
	for i, u := range us[1:] {
		var want []string
		for n := range 8 {
			want = append(want, fmt.Sprintf("%d-%d", i, n))
		}
		require.Equal(t, want, texts(hub.private(u.ID), "msg"))
	}
}

func TestDefect13_NewerConnectionWins(t *testing.T) {
	a, b := newUser(t), newUser(t)
	befriend(a, b)
	for i := range edges {
		b.edge = edges[i]
		old := b.connect()
		a.say(b, "to the old one")
		old.expectText("to the old one") // so logic knows of it before the new one comes
		b.edge = edges[(i+1)%len(edges)]
		fresh := b.connect()
		f := old.expectCode(2004)
		for _, member := range []string{"message", "ip", "pro", "city"} {
			require.IsType(t, "", f[member], member)
		}
		require.EqualValues(t, 4001, old.closed())
		require.EqualValues(t, 2004, old.latest, "2004 is the last frame")
		time.Sleep(100 * time.Millisecond) // the old one's end is processed
		text := fmt.Sprintf("to the new one %d", i)
		a.say(b, text)
		fresh.expectText(text)
		require.EqualValues(t, 2001, a.get(fmt.Sprintf("/friends/status/%d", b.ID)).ok().object()["status"])
		phone := b.connect("&platform=app")
		a.say(b, text+" both")
		fresh.expectText(text + " both")
		phone.expectText(text + " both")
		phone.close()
		fresh.close()
	}
}

func TestDefect14_AReaderThatDoesNotReadBlocksNobody(t *testing.T) {
	us := newUsers(t, 3)
	a, lazy, b := us[0], us[1], us[2]
	befriend(a, lazy)
	befriend(a, b)
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	conn, resp, err := websocket.Dial(ctx, wsURL(lazy, ""), nil)
	require.NoError(t, err)
	if resp.Body != nil {
		_ = resp.Body.Close()
	}
	defer func() { _ = conn.CloseNow() }()
	sa, sb := a.connect(), b.connect()
	big := strings.Repeat("x", 50<<10)
	start := time.Now()
	for range 60 {
		sa.post(chatFrame(a, lazy.ID, 1, big))
	}
	sa.post(chatFrame(a, b.ID, 1, "quick"))
	sb.expectText("quick")
	require.Less(t, time.Since(start), 15*time.Second)
}

func TestDefect15_FramesAreLimited(t *testing.T) {
	a, b := newUser(t), newUser(t)
	befriend(a, b)
	s := a.connect()
	s.send(chatFrame(a, b.ID, 1, strings.Repeat("x", 60<<10))) // the limit itself
	s.expectCode(1005)
	s.send(chatFrame(a, b.ID, 1, strings.Repeat("x", 60<<10+1)))
	s.expectCode(500)
	s.sendText(strings.Repeat("x", 70<<10))
	require.Equal(t, websocket.StatusMessageTooBig, s.closed())
	s = a.connect()
	s.sendText("{\"msg_code\":1004,\"message\":\"\xff\"}")
	require.Equal(t, websocket.StatusInvalidFramePayloadData, s.closed())
}

func TestDefect16_ConnectsDoNotWaitForEachOther(t *testing.T) {
	us := newUsers(t, 10)
	start := time.Now()
	var wg sync.WaitGroup
	for _, u := range us {
		wg.Go(func() { u.connect() })
	}
	wg.Wait()
	require.Less(t, time.Since(start), 5*time.Second)
}

func TestDefect17_OfflineMessagesAreKeptInOrderUntilReceived(t *testing.T) {
	us := newUsers(t, 2)
	a, b := us[0], us[1]
	befriend(a, b)
	id := a.newGroup(b)
	want := []string{}
	for i := range 20 {
		want = append(want, fmt.Sprintf("p%d", i))
		a.say(b, want[i])
		a.tell(id, fmt.Sprintf("g%d", i))
	}
	s := b.connect()
	for i := range 20 {
		require.Equal(t, want[i], s.expect("offline message", func(f frame) bool {
			return f.code() == 200 && num(f["channel_type"]) == 1
		})["message"])
		require.Equal(t, fmt.Sprintf("g%d", i), s.expect("offline group message", func(f frame) bool {
			return f.code() == 200 && num(f["channel_type"]) == 2 && num(f["msg_type"]) == 1
		})["message"])
	}
	time.Sleep(600 * time.Millisecond) // the receipts arrive
	s.close()
	s = b.connect()
	s.never("a received message again", func(f frame) bool { return f.code() == 200 })
	s.close()

	// Messages sent while he connects are lost between neither two steps.
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range 30 {
			a.say(b, fmt.Sprintf("w%d", i))
		}
	})
	for range 3 {
		s = b.connect()
		s.cut() // nothing is proved received but what was answered
		time.Sleep(100 * time.Millisecond)
	}
	s = b.connect()
	wg.Wait()
	for i := range 30 {
		if !contains(b, a, fmt.Sprintf("w%d", i)) {
			t.Fatalf("w%d is not stored", i)
		}
	}
	s.expectText("w29")
}

func contains(u, peer *user, text string) bool {
	for _, m := range texts(u.private(peer.ID), "msg") {
		if m == text {
			return true
		}
	}
	return false
}

// Somebody whose line drops again and again is not displaced by what is left of
// his earlier connections: 2004 would log his web client out.
func TestReconnect_NobodyIsDisplacedByHisOwnPast(t *testing.T) {
	u := newUser(t)
	for range 4 {
		for range 5 {
			u.open().cut()
		}
		s := u.connect()
		s.never("2004", func(f frame) bool { return f.code() == 2004 })
		require.NoError(t, s.failure())
		s.close()
	}
}

// A frame that nobody proved to have received comes again on the next connect.
func TestDefect17_UnprovedFramesComeAgain(t *testing.T) {
	a, b := newUser(t), newUser(t)
	befriend(a, b)
	a.say(b, "not received")
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	conn, resp, err := websocket.Dial(ctx, wsURL(b, ""), nil) // reads nothing, so answers no ping
	require.NoError(t, err)
	if resp.Body != nil {
		_ = resp.Body.Close()
	}
	time.Sleep(300 * time.Millisecond)
	require.NoError(t, conn.CloseNow())
	b.connect().expectText("not received")
}

// D12: what the first page of the history showed does not come again.
func TestOffline_FirstPageCountsAsDelivered(t *testing.T) {
	us := newUsers(t, 3)
	a, b, c := us[0], us[1], us[2]
	befriend(a, b)
	befriend(c, b)
	for i := range 5 {
		a.say(b, fmt.Sprintf("a%d", i))
	}
	c.say(b, "from c")
	page := b.page(fmt.Sprintf("/messages?page=&pageSize=3&to_id=%d", a.ID))
	require.Equal(t, []string{"a2", "a3", "a4"}, texts(page, "msg"))
	b.get(fmt.Sprintf("/messages?page=%d&pageSize=1&to_id=%d", num(page[0]["id"]), a.ID)).ok() // a later page changes nothing
	s := b.connect()
	s.expectText("a0")
	s.expectText("a1")
	s.expectText("from c")
	s.never("a message of the page", func(f frame) bool { return f.code() == 200 })
}

func TestDefect18_PresenceIsTrueOnEveryGateway(t *testing.T) {
	a, b, stranger := newUser(t), newUser(t), newUser(t)
	befriend(a, b)
	status := func(u *user) int64 {
		return num(u.get(fmt.Sprintf("/friends/status/%d", b.ID)).ok().object()["status"])
	}
	sa := a.connect()
	require.EqualValues(t, 2000, status(a))
	for i := range edges {
		b.edge = edges[i]
		s := b.connect()
		require.Equal(t, b.ID, num(sa.expectCode(2001)["id"]))
		for j := range edges {
			a.edge = edges[j]
			require.EqualValues(t, 2001, status(a))
		}
		require.EqualValues(t, 2000, status(stranger), "strangers are told nothing")
		sa.send(map[string]any{"msg_code": 2002, "to_id": b.ID, "msg_client_id": 9})
		f := sa.expectCode(2001)
		require.EqualValues(t, 9, f["msg_client_id"])
		require.Equal(t, b.ID, num(f["id"]))
		require.Equal(t, a.ID, num(f["to_id"]))
		s.close()
		require.Equal(t, b.ID, num(sa.expectCode(2000)["id"]))
		soon(t, "who left is offline", func() bool { return status(a) == 2000 })
	}
}

func TestDefect19_AcrossGateways(t *testing.T) {
	a, b := newUser(t), newUser(t)
	befriend(a, b)
	for i := range edges {
		for j := range edges {
			a.edge, b.edge = edges[i], edges[j]
			sa, sb := a.connect(), b.connect()
			text := fmt.Sprintf("from %d to %d", i, j)
			f := chatFrame(a, b.ID, 1, text)
			ack := sa.post(f)
			got := sb.expectText(text)
			require.Equal(t, num(ack["msg_id"]), num(got["msg_id"]))
			require.EqualValues(t, f["msg_client_id"], got["msg_client_id"])
			sa.close()
			sb.close()
		}
	}
}

func TestDefect20_IdsAreExactAndRise(t *testing.T) {
	a, b := newUser(t), newUser(t)
	befriend(a, b)
	s := a.connect()
	seen := map[int64]bool{}
	before := int64(0)
	for range 20 {
		id := num(s.post(chatFrame(a, b.ID, 1, "x"))["msg_id"]) // num fails on what JavaScript would change
		require.False(t, seen[id])
		require.Greater(t, id, before)
		seen[id], before = true, id
	}
}

func TestDefect21_PresenceQuestionAboutStrangers(t *testing.T) {
	a, b := newUser(t), newUser(t)
	b.connect()
	s := a.connect()
	for _, id := range []int64{b.ID, 999_999_999} {
		s.send(map[string]any{"msg_code": 2002, "id": id})
		f := s.expectCode(2000)
		require.Equal(t, id, num(f["id"]))
		require.EqualValues(t, 0, f["status"])
	}
}

// The original asked a foreign service, without a time limit, where the newer
// login came from.
func TestDefect22_DisplacingIsQuickAndNamesTheAddress(t *testing.T) {
	u := newUser(t)
	old := u.connect()
	start := time.Now()
	u.login()
	u.connect()
	ip, _ := old.expectCode(2004)["ip"].(string)
	require.Less(t, time.Since(start), 3*time.Second)
	_, err := netip.ParseAddr(ip)
	require.NoError(t, err)
}

// Retransmission (3.5.5): the same key and content is stored and delivered once.
func TestIdempotency(t *testing.T) {
	a, b := newUser(t), newUser(t)
	befriend(a, b)
	sa, sb := a.connect(), b.connect()
	f := chatFrame(a, b.ID, 1, "once")
	first := num(sa.post(f)["msg_id"])
	require.Equal(t, first, num(sa.post(f)["msg_id"]))
	again := a.post("/messages/private", "msg_client_id", f["msg_client_id"], "msg_type", 1, "to_id", b.ID, "message", "once").ok().object()
	require.Equal(t, first, num(again["msg_id"]), "across socket and REST")
	sb.expectText("once")
	sb.never("the message twice", chat("once"))
	require.Len(t, b.private(a.ID), 1)

	f["message"] = "other"
	sa.send(f)
	no := sa.expectCode(500)
	require.NotEmpty(t, no["message"])
	a.post("/messages/private", "msg_client_id", f["msg_client_id"], "msg_type", 1, "to_id", b.ID, "message", "other").refused(1000)
	a.post("/messages/private", "msg_client_id", f["msg_client_id"], "msg_type", 2, "to_id", b.ID, "message", "once").refused(1000)
	a.post("/messages/private", "msg_client_id", f["msg_client_id"], "msg_type", 1, "to_id", b.ID, "message", "once", "data", "more").refused(1000)
}

func TestSocket_NumbersAsText(t *testing.T) {
	a, b := newUser(t), newUser(t)
	befriend(a, b)
	sb := b.connect()
	s := a.connect()
	s.sendText(fmt.Sprintf(`{"msg_client_id":"%d","msg_code":200,"form_id":"%d","to_id":"%d","msg_type":"1","channel_type":"1","message":"text numbers"}`, nextKey(), a.ID, b.ID))
	s.expectCode(1005)
	f := sb.expectText("text numbers")
	require.EqualValues(t, 1, f["msg_type"])
	require.Equal(t, b.ID, num(f["to_id"]))
}

func TestSocket_BadTokenIs401BeforeTheUpgrade(t *testing.T) {
	resp := nobody(t).raw(http.MethodGet, "/im/connect?token=x", nil, "", "Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
	defer func() { _ = resp.Body.Close() }()
	require.Equal(t, 401, resp.StatusCode)
	var env map[string]any
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&env))
	require.EqualValues(t, 401, env["code"])
}
