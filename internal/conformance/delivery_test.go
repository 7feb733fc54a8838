package conformance

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// One message, a hundred times at once, over sockets of all gateways and over
// HTTP: one row, one delivery, a hundred equal answers.
func TestIdempotency_AHundredAtOnce(t *testing.T) {
	a, b := newUser(t), newUser(t)
	befriend(a, b)
	sb := b.connect()
	f := chatFrame(a, b.ID, 1, "a hundred times")
	var wg sync.WaitGroup
	ids := make(chan int64, 100)
	for i, platform := range []string{"web", "pc", "app"} {
		on := *a
		on.edge = edges[i%len(edges)]
		s := on.connect("&platform=" + platform)
		wg.Go(func() {
			for range 25 {
				s.send(f)
			}
			for range 25 {
				ids <- num(s.expectCode(1005)["msg_id"])
			}
		})
	}
	for range 5 {
		wg.Go(func() {
			for range 5 {
				sent := a.post("/messages/private", "msg_client_id", f["msg_client_id"], "msg_type", 1, "to_id", b.ID, "message", f["message"]).ok().object()
				ids <- num(sent["msg_id"])
			}
		})
	}
	wg.Wait()
	close(ids)
	first := <-ids
	for id := range ids {
		require.Equal(t, first, id)
	}
	require.Equal(t, first, num(sb.expectText("a hundred times")["msg_id"]))
	sb.never("it again", chat("a hundred times"))
	require.Len(t, b.private(a.ID), 1)
}

// A thousand messages sent while somebody is away: all of them, once, in order.
func TestOffline_AThousandMessages(t *testing.T) {
	const n = 1000
	a, b := newUser(t), newUser(t)
	befriend(a, b)
	sa := a.connect()
	for i := range n {
		sa.send(chatFrame(a, b.ID, 1, fmt.Sprint(i)))
	}
	for range n {
		sa.expectCode(1005)
	}
	sb := b.connect()
	for i := range n {
		f := sb.expect("message", func(f frame) bool { return f.code() == 200 })
		require.Equal(t, fmt.Sprint(i), f["message"])
	}
	sb.never("anything else", func(f frame) bool { return f.code() == 200 || f.code() == 2006 })
}

// A receipt moves the delivered cursor of who sends it, and of nobody else.
func TestReceipts(t *testing.T) {
	us := newUsers(t, 3)
	a, b, c := us[0], us[1], us[2]
	befriend(a, b)
	a.say(b, "one")
	two := num(a.say(b, "two")["msg_id"])

	sc := c.connect() // may say what he likes of others' messages
	sc.send(map[string]any{"msg_code": 1005, "msg_id": two})
	raw := b.openRaw() // answers no ping
	var one map[string]any
	for one == nil || one["message"] != "one" {
		op, p, err := raw.next()
		require.NoError(t, err)
		if op == opText {
			require.NoError(t, json.Unmarshal(p, &one))
		}
	}
	_, err := raw.nc.Write(frameOf(final|opText, fmt.Sprintf(`{"msg_code":1005,"msg_id":"%d"}`, num(one["msg_id"]))))
	require.NoError(t, err)
	sc.send(map[string]any{"msg_code": 1005, "conversation_id": num(one["conversation_id"]), "seq": 99})
	time.Sleep(600 * time.Millisecond) // the receipts are taken down
	require.NoError(t, raw.nc.Close())

	s := b.connect()
	s.expectText("two")
	s.never("what he received", chat("one"))
	sc.never("an answer to a receipt", func(f frame) bool { return f.code() != 1004 })
}

// D7: what a page of another origin shows of a group message's sender is in its
// data, whatever the sender put there, and the picture has a whole URL.
func TestDefect31_GroupDataNamesTheSender(t *testing.T) {
	a, b := newUser(t), newUser(t)
	befriend(a, b)
	id := a.newGroup(b)
	sa, sb := a.connect(), b.connect()
	for i, data := range []any{
		"", nil, "null", "plain", 7, `[1]`, `{"id":1,"uid":"x","name":"boss","avatar":"","email":"","mood":"ok"}`, `{"\u0069d":1}`, `{"id":1,"id":2}`, "\x00",
	} {
		text := fmt.Sprintf("data %d", i)
		f := chatFrame(a, id, 2, text)
		f["data"] = data
		sa.post(f)
		for _, s := range []*socket{sa, sb} {
			who := profile(t, s.expectText(text)["data"])
			require.Equal(t, a.ID, num(who["id"]), "%v", data)
			require.Equal(t, a.UID, who["uid"])
			require.Equal(t, a.Name, who["name"])
			require.Equal(t, a.Email, who["email"])
			require.True(t, strings.HasPrefix(fmt.Sprint(who["avatar"]), "http"), "absolute: %v", who["avatar"])
			switch i {
			case 3:
				require.Equal(t, "plain", who["data"])
			case 6:
				require.Equal(t, "ok", who["mood"])
			}
		}
	}
}

// 60 KiB are 60 KiB, whatever they are made of and however it must be escaped.
func TestLargestMessages(t *testing.T) {
	a, b := newUser(t), newUser(t)
	befriend(a, b)
	id := a.newGroup(b)
	sb := b.connect()
	for i, tt := range []struct{ text, data string }{
		{strings.Repeat("\x00", 60<<10), ""},
		{strings.Repeat(`"`, 30<<10), strings.Repeat(`\`, 30<<10)},
		{"x", strings.Repeat("\x00", 60<<10-1)},
		{strings.Repeat("😀", 15<<10), ""},
	} {
		for kind, to := range map[int]int64{1: b.ID, 2: id} {
			a.post("/messages/private", "msg_client_id", nextKey(), "msg_type", 1, "to_id", to, "channel_type", kind, "message", tt.text, "data", tt.data).ok()
			f := sb.expect("the message", func(f frame) bool { return f.code() == 200 && f["message"] == tt.text })
			if kind == 1 {
				require.Equal(t, tt.data, f["data"], "case %d", i)
			} else if tt.data != "" {
				require.Equal(t, tt.data, profile(t, f["data"])["data"], "case %d", i)
			}
			a.post("/messages/private", "msg_client_id", nextKey(), "msg_type", 1, "to_id", to, "channel_type", kind, "message", tt.text, "data", tt.data+"x").refused(1000)
		}
	}
	require.Len(t, b.private(a.ID), 4)
}

// News of presence is not told for nothing: not when the line drops and is back,
// not while another device is there, not when a newer connection takes over.
func TestPresence_IsNotToldForNothing(t *testing.T) {
	a, b := newUser(t), newUser(t)
	befriend(a, b)
	sa := a.connect()
	web := b.connect()
	news := func(f frame) bool { return f.code() == 2000 || f.code() == 2001 }
	sa.expectCode(2001)
	time.Sleep(quiet)
	sa.take(news) // who connects just then may be told twice

	web.cut()
	web = b.connect()
	app := b.connect("&platform=app")
	web.close()
	web = b.connect()
	newer := b.connect()
	web.expectCode(2004)
	app.close()
	time.Sleep(4 * time.Second) // longer than news are held back
	sa.never("news", news)

	newer.close()
	f := sa.expectCode(2000)
	require.Equal(t, b.ID, num(f["id"]))
	require.Equal(t, a.ID, num(f["to_id"]))
	require.EqualValues(t, 0, f["status"])
}
