package conformance

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"
)

// The seed's own walk: register, log in, connect with the token, send a frame.
func TestSeedFlow(t *testing.T) {
	a, b := newUser(t), newUser(t)
	befriend(a, b)
	sa, sb := a.connect(), b.connect()
	ack := sa.post(chatFrame(a, b.ID, 1, "hello"))
	require.EqualValues(t, 1, ack["ack"])
	require.Positive(t, num(ack["msg_id"]))
	f := sb.expectText("hello")
	require.Equal(t, num(ack["msg_id"]), num(f["msg_id"]))
	require.Equal(t, a.ID, num(f["form_id"]))
	require.Equal(t, b.ID, num(f["to_id"]))
	require.Equal(t, a.UID, f["uid"])
	require.Equal(t, b.UID, f["to_uid"])
	require.EqualValues(t, 1, f["msg_type"])
	require.EqualValues(t, 1, f["channel_type"])
	require.Equal(t, "", f["data"])
	require.Regexp(t, `^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$`, f["send_time"])
	sa.never("a private frame on the sender's own web socket (D8)", chat("hello"))
}

// D3: every new account starts with one session, with the bot.
func TestLogin_BodyAndBotSession(t *testing.T) {
	u := newUser(t)
	in := u.post("/auth/login", "email", strings.ToUpper(u.Email), "password", password).ok().object()
	for _, member := range []string{"id", "uid", "name", "avatar", "email", "token", "expire_time", "ttl", "refresh_token"} {
		require.Contains(t, in, member)
	}
	require.Equal(t, u.ID, num(in["id"]))
	require.Greater(t, num(in["expire_time"]), time.Now().Unix())
	require.True(t, strings.HasPrefix(fmt.Sprint(in["avatar"]), "http"), "absolute: %v", in["avatar"])

	list := u.get("/sessions").ok().list()
	require.Len(t, list, 1)
	s := list[0]
	require.EqualValues(t, 1, s["to_id"])
	require.EqualValues(t, 1, s["channel_type"])
	require.EqualValues(t, 0, s["group_id"])
	require.Equal(t, u.ID, num(s["form_id"]))
	require.NotEmpty(t, s["name"])
	peer, _ := s["Users"].(map[string]any)
	require.IsType(t, "", peer["email"])
	none, _ := s["Groups"].(map[string]any)
	require.EqualValues(t, 0, none["id"])

	u.get("/user/1").ok()
	u.trySay(1, 1, "a bot needs no friendship").ok()
}

func TestRegister_Refusals(t *testing.T) {
	u := newUser(t)
	n := nobody(t)
	try := func(change ...any) answer {
		fields := map[string]any{"email": "x" + u.Email, "name": "x" + u.Name, "password": password, "password_repeat": password, "code": "1234"}
		for i := 0; i < len(change); i += 2 {
			fields[change[i].(string)] = change[i+1] //nolint:forcetypeassert // names are text
		}
		var list []any
		for k, v := range fields {
			list = append(list, k, v)
		}
		return n.post("/auth/registered", list...)
	}
	taken := try("email", u.Email).refused(1000)
	name := try("name", u.Name).refused(1000)
	require.NotEqual(t, taken.message, name.message, "it says which is taken")
	try("email", strings.ToUpper(u.Email)).refused(1000)
	for _, bad := range [][2]any{
		{"email", ""},
		{"email", "nope"},
		{"email", "a@b.com\r\nBcc: x@y.com"},
		{"name", ""},
		{"name", "   "},
		{"name", strings.Repeat("x", 51)},
		{"name", "a\u202eb"},
		{"password", "short"},
		{"password", strings.Repeat("x", 129)},
		{"password_repeat", "other"},
		{"code", "123"},
		{"code", "12345"},
		{"code", ""},
		{"email_type", "3"},
	} {
		if bad[0] == "password" {
			try("password", bad[1], "password_repeat", bad[1]).refused(1000)
			continue
		}
		try(bad[0], bad[1]).refused(1000)
	}
}

func TestDefect27_EmailCodesAreRationed(t *testing.T) {
	n, u := nobody(t), newUser(t)
	fresh := "c" + u.Email
	n.post("/auth/sendEmailCode", "email", fresh, "email_type", 1).ok()
	n.post("/auth/sendEmailCode", "email", fresh, "email_type", 1).refused(1000)
	n.post("/auth/sendEmailCode", "email", u.Email, "email_type", 1).refused(1000)
	n.post("/auth/sendEmailCode", "email", "unknown"+u.Email, "email_type", 2).refused(1000)
	n.post("/auth/sendEmailCode", "email", "nope").refused(1000)
	n.post("/auth/sendEmailCode").refused(1000)
	n.post("/auth/sendEmailCode", "email", "d"+u.Email, "email_type", 3).refused(1000)
}

func TestTokens_RefreshLogoutTicketReset(t *testing.T) {
	u := newUser(t)
	in := u.post("/auth/login", "email", u.Email, "password", password).ok().object()
	u.Token, _ = in["token"].(string)
	re := nobody(t).post("/auth/refresh", "refresh_token", in["refresh_token"]).ok().object()
	require.NotEmpty(t, re["token"])
	require.NotEqual(t, in["refresh_token"], re["refresh_token"])
	require.Positive(t, num(re["expire_time"]))
	nobody(t).post("/auth/refresh", "refresh_token", "x").refused(401)
	nobody(t).post("/auth/refresh").refused(1000)

	u.Token, _ = re["token"].(string)
	ticket := u.post("/auth/ws-ticket").ok().object()
	require.Positive(t, num(ticket["expires_in"]))
	guest := *u
	guest.Token, _ = ticket["ticket"].(string)
	s := guest.connect()
	s.close()
	_, resp, err := websocket.Dial(t.Context(), wsURL(&guest, ""), nil)
	require.Error(t, err, "a ticket works once")
	require.Equal(t, 401, resp.StatusCode)
	nobody(t).post("/auth/ws-ticket").refused(401)

	// A refresh token whose successor was used as well is stolen: its login ends.
	nobody(t).post("/auth/refresh", "refresh_token", re["refresh_token"]).ok()
	nobody(t).post("/auth/refresh", "refresh_token", in["refresh_token"]).refused(401)
	soon(t, "the login ends", func() bool { return u.get("/sessions").status == 401 })

	u.login()
	u.post("/auth/logout").ok()
	soon(t, "the login ends", func() bool { return u.get("/sessions").status == 401 })
	nobody(t).post("/auth/logout").refused(401)

	u.login()
	n := nobody(t)
	n.post("/auth/resetPassword", "email", u.Email, "code", "1234", "password", "another1", "password_repeat", "different").refused(1000)
	n.post("/auth/resetPassword", "email", u.Email, "code", "1234", "password", "another1", "password_repeat", "another1").ok()
	n.post("/auth/login", "email", u.Email, "password", password).refused(500)
	n.post("/auth/login", "email", u.Email, "password", "another1").ok()
	soon(t, "the login ends", func() bool { return u.get("/sessions").status == 401 })
}

func TestTokens_Refused(t *testing.T) {
	u := newUser(t)
	for _, token := range []string{"", "x", "null", "a.b.c", u.Token + "x", u.Token[:len(u.Token)-2], "eyJhbGciOiJub25lIn0." + strings.Split(u.Token, ".")[1] + "."} {
		n := nobody(t)
		n.Token = token
		n.get("/sessions").refused(401)
		_, resp, err := websocket.Dial(t.Context(), wsURL(n, ""), nil)
		require.Error(t, err)
		require.Equal(t, 401, resp.StatusCode)
		require.Contains(t, resp.Header.Get("Content-Type"), "application/json")
	}
	n := nobody(t)
	n.get("/user/1?token=" + u.Token).ok()
	u.get("/user/1?token=bad").refused(401)
	u.get("/user/1?token=").ok()
}

func TestPreflightAndUnknownPaths(t *testing.T) {
	n := nobody(t)
	for _, path := range []string{"/api/sessions", "/api/friends/record", "/nothing", "/im/connect"} {
		resp := n.raw(http.MethodOptions, path, nil, "", "Access-Control-Request-Method", "PUT", "Access-Control-Request-Headers", "authorization")
		require.NoError(t, resp.Body.Close())
		require.Less(t, resp.StatusCode, 300)
		require.Equal(t, "*", resp.Header.Get("Access-Control-Allow-Origin"))
		require.Contains(t, resp.Header.Get("Access-Control-Allow-Methods"), "PUT")
		require.Contains(t, resp.Header.Get("Access-Control-Allow-Headers"), "Authorization")
	}
	n.get("/nothing").refused(404)
	newUser(t).get("/nothing").refused(404)
	n.call(http.MethodPatch, "/sessions", nil, "").refused(405)
	n.call("TRACE", "/sessions", nil, "").refused(405)
	u := newUser(t)
	for _, path := range []string{"/friends/", "/sessions/", "/messages/?to_id=0", "/friends/record/"} {
		u.get(path).ok()
	}
}

func TestEncodings(t *testing.T) {
	u := newUser(t)
	body := fmt.Sprintf(`{"id":"%d","type":1}`, 1)
	for i := range 3 {
		var a answer
		switch i {
		case 0:
			a = u.post("/sessions", "id", 1, "type", 1)
		case 1:
			a = u.form(http.MethodPost, "/sessions", "id", 1, "type", 1)
		case 2:
			a = u.json(http.MethodPost, "/sessions", body)
		}
		require.EqualValues(t, 1, a.ok().object()["to_id"])
	}
	u.json(http.MethodPost, "/sessions", `{"id":1,"id":1,"type":1}`).refused(1000)
	u.json(http.MethodPost, "/sessions", `{"id":1`).refused(1000)
	u.form(http.MethodPost, "/sessions", "id", "null", "type", 1).refused(1000)
	u.form(http.MethodPost, "/sessions", "id", "1.0", "type", 1).refused(1000)
	id := num(u.session("to_id", 1)["id"])
	for i, note := range []string{"multi", "form", "json"} {
		switch i {
		case 0:
			u.put(fmt.Sprintf("/sessions/%d", id), "note", note).ok()
		case 1:
			u.form(http.MethodPut, fmt.Sprintf("/sessions/%d", id), "note", note).ok()
		case 2:
			u.json(http.MethodPut, fmt.Sprintf("/sessions/%d", id), `{"note":"json"}`).ok()
		}
		require.Equal(t, note, u.session("to_id", 1)["note"])
	}
}

func TestDocs(t *testing.T) {
	n := nobody(t)
	for path, kind := range map[string]string{"/swagger/index.html": "text/html", "/swagger/openapi.json": "application/json", "/swagger/asyncapi.yaml": "application/yaml", "/swagger/asyncapi.html": "text/html"} {
		resp := n.raw(http.MethodGet, path, nil, "")
		require.NoError(t, resp.Body.Close())
		require.Equal(t, 200, resp.StatusCode, path)
		require.Contains(t, resp.Header.Get("Content-Type"), kind)
	}
}

// D4, D5: the requester can chat straight from the acceptance frame.
func TestFriends_FromRequestToEnd(t *testing.T) {
	a, b := newUser(t), newUser(t)
	sa, sb := a.connect(), b.connect()
	rec := a.post("/friends/record", "to_id", b.ID, "information", "it is me").ok().object()
	require.EqualValues(t, 0, rec["status"])
	require.Equal(t, a.ID, num(rec["form_id"]))
	require.Equal(t, b.ID, num(rec["to_id"]))
	id := num(rec["id"])

	f := sb.expectCode(1000)
	require.Equal(t, id, num(f["id"]))
	require.Equal(t, a.ID, num(f["form_id"]))
	require.Equal(t, b.ID, num(f["to_id"]))
	require.Equal(t, "it is me", f["information"])
	who, _ := f["users"].(map[string]any)
	require.Equal(t, a.ID, num(who["id"]))
	require.True(t, strings.HasPrefix(fmt.Sprint(who["avatar"]), "http"), "absolute: %v", who["avatar"])
	for _, u := range []*user{a, b} {
		list := u.get("/friends/record").ok().list()
		require.Len(t, list, 1)
		require.Equal(t, a.ID, num(list[0]["users"].(map[string]any)["id"])) //nolint:forcetypeassert // an object
	}

	friend := b.put("/friends/record", "id", id, "status", 1).ok().object()
	require.Equal(t, b.ID, num(friend["form_id"]))
	require.Equal(t, a.ID, num(friend["to_id"]))
	require.Equal(t, a.UID, friend["uid"])
	f = sa.expectCode(1001)
	require.Equal(t, id, num(f["id"]))
	require.Equal(t, a.ID, num(f["form_id"]), "form_id stays the requester (D4)")
	require.Equal(t, b.ID, num(f["to_id"]))
	require.EqualValues(t, 1, f["status"])
	who, _ = f["users"].(map[string]any)
	require.Equal(t, b.ID, num(who["id"]))
	require.Equal(t, id, num(a.session("to_id", b.ID)["id"]), "the requester's session has the record's id (D5)")
	require.NotNil(t, b.session("to_id", a.ID))

	list := a.get("/friends").ok().list()
	require.Len(t, list, 1)
	peer, _ := list[0]["Users"].(map[string]any)
	require.Equal(t, b.ID, num(peer["id"]))
	require.Equal(t, b.Email, peer["email"])
	require.Equal(t, b.ID, num(a.get(fmt.Sprintf("/friends/%d", b.ID)).ok().object()["to_id"]))
	require.EqualValues(t, 2001, a.get(fmt.Sprintf("/friends/status/%d", b.ID)).ok().object()["status"])
	a.post("/friends/record", "to_id", b.ID, "information", "again").refused(1000)

	a.del(fmt.Sprintf("/friends/%d", b.ID)).ok()
	a.del(fmt.Sprintf("/friends/%d", b.ID)).ok()
	require.JSONEq(t, "[]", string(a.get("/friends").ok().data))
	require.JSONEq(t, "[]", string(b.get("/friends").ok().data))
	require.JSONEq(t, "{}", string(a.get(fmt.Sprintf("/friends/%d", b.ID)).ok().data))
	a.trySay(b.ID, 1, "gone").refused(1003)
	b.trySay(a.ID, 1, "gone").refused(1003)
	befriend(b, a) // and back again
	b.say(a, "friends again")
	sa.expectText("friends again")
}

func TestFriends_Refuse(t *testing.T) {
	a, b := newUser(t), newUser(t)
	sa := a.connect()
	id := a.ask(b)
	got := b.put("/friends/record", "id", id, "status", 2).ok().object()
	require.EqualValues(t, 2, got["status"])
	require.EqualValues(t, 0, got["id"])
	f := sa.expectCode(1002)
	require.EqualValues(t, 2, f["status"])
	b.put("/friends/record", "id", id, "status", 1).refused(500)
	require.JSONEq(t, "[]", string(a.get("/friends").ok().data))
	b.put("/friends/record", "id", 999999999, "status", 1).refused(500)
	b.put("/friends/record", "id", id, "status", 3).refused(1000)
	b.put("/friends/record", "id", "x", "status", 1).refused(1000)
	b.put("/friends/record").refused(1000)
	a.ask(b) // may ask again
}

func TestFriends_OverTheSocket(t *testing.T) {
	a, b := newUser(t), newUser(t)
	sa, sb := a.connect(), b.connect()
	sa.send(map[string]any{"msg_code": 1000, "to_id": b.ID, "information": 1, "msg_client_id": 5}) // the seed's sample has a number
	ack := sa.expectCode(1005)
	ask := sb.expectCode(1000)
	id := num(ask["id"])
	require.Equal(t, id, num(ack["msg_id"]))
	require.Equal(t, "1", ask["information"], "text, whatever came in")
	shown, _ := ask["users"].(map[string]any)
	require.Equal(t, a.ID, num(shown["id"]))
	require.True(t, strings.HasPrefix(fmt.Sprint(shown["avatar"]), "http"), "absolute: %v", shown["avatar"])
	sb.send(map[string]any{"msg_code": 1001, "id": id, "msg_client_id": 6})
	require.Equal(t, id, num(sb.expectCode(1005)["msg_id"]))
	sa.expectCode(1001)
	sb.send(map[string]any{"msg_code": 1002, "id": id, "msg_client_id": 7})
	require.EqualValues(t, 7, sb.expectCode(500)["msg_client_id"])
	require.Len(t, a.get("/friends").ok().list(), 1)
}

func TestGroups_FromStoreToLeave(t *testing.T) {
	us := newUsers(t, 3)
	owner, m1, m2 := us[0], us[1], us[2]
	befriend(owner, m1)
	befriend(owner, m2)
	so, s1 := owner.connect(), m1.connect()
	id := owner.newGroup(m1)
	for _, pair := range []struct {
		s *socket
		u *user
	}{{so, owner}, {s1, m1}} {
		f := pair.s.expectCode(2003)
		row, _ := f["sessions"].(map[string]any)
		require.Equal(t, id, num(row["group_id"]))
		require.EqualValues(t, 0, row["to_id"], "D6")
		require.EqualValues(t, 2, row["channel_type"])
		require.Equal(t, pair.u.ID, num(row["form_id"]), "one's own row")
		group, _ := row["Groups"].(map[string]any)
		require.NotEmpty(t, group["name"])
		require.Equal(t, num(row["id"]), num(pair.u.session("group_id", id)["id"]))
	}
	sent := m1.tell(id, "hello all")
	require.EqualValues(t, 2, sent["channel_type"])
	for _, s := range []*socket{so, s1} { // the sender too: D8
		f := s.expectText("hello all")
		require.Equal(t, m1.ID, num(f["form_id"]))
		require.Equal(t, id, num(f["to_id"]))
		data := profile(t, f["data"])
		require.Equal(t, m1.ID, num(data["id"]))
		require.Equal(t, m1.Name, data["name"])
		require.Equal(t, m1.Email, data["email"])
		require.True(t, strings.HasPrefix(fmt.Sprint(data["avatar"]), "http"), "absolute: %v", data["avatar"])
	}

	owner.post("/groups/createOrRemoveUser", "group_id", id, "type", 1, "select_user[]", m2.ID).ok()
	notice := s1.expect("a notice", func(f frame) bool { return f.code() == 200 && num(f["msg_type"]) == 6 })
	require.Equal(t, id, num(notice["to_id"]), "D9")
	require.Equal(t, owner.ID, num(notice["form_id"]))
	profile(t, notice["data"])
	members := m2.get(fmt.Sprintf("/groups/users/%d", id)).ok().object()
	require.Equal(t, owner.ID, num(members["groups"].(map[string]any)["user_id"])) //nolint:forcetypeassert // an object
	rows, _ := members["group_users"].([]any)
	require.Len(t, rows, 3)
	first, _ := rows[0].(map[string]any)
	require.Equal(t, owner.ID, num(first["user_id"]), "the owner first")
	require.Equal(t, id, num(first["group_id"]))

	m2.del(fmt.Sprintf("/groups/%d", id)).ok()
	m2.trySay(id, 2, "still here?").refused(1003)
	require.Len(t, m1.get("/groups/list").ok().list(), 1)
	require.JSONEq(t, "[]", string(m2.get("/groups/list").ok().data))

	owner.del(fmt.Sprintf("/groups/%d", id)).ok() // hands over
	members = m1.get(fmt.Sprintf("/groups/users/%d", id)).ok().object()
	require.Equal(t, m1.ID, num(members["groups"].(map[string]any)["user_id"])) //nolint:forcetypeassert // an object
	m1.del(fmt.Sprintf("/groups/%d", id)).ok()                                  // dissolves
	m1.post(fmt.Sprintf("/groups/applyJoin/%d", id)).refused(1000)
}

func profile(t testing.TB, data any) map[string]any {
	t.Helper()
	text, ok := data.(string)
	require.True(t, ok, "data is a string (D7): %v", data)
	var m map[string]any
	a := answer{t: t, data: []byte(text), what: "data"}
	a.into(&m)
	return m
}

func TestGroups_Administration(t *testing.T) {
	us := newUsers(t, 3)
	owner, admin, member := us[0], us[1], us[2]
	befriend(owner, admin)
	befriend(owner, member)
	id := owner.newGroup(admin, member)
	path := func(tail string) string { return fmt.Sprintf("/groups/%d/%s", id, tail) }
	member.post(path("role"), "user_id", admin.ID, "role", "admin").refused(1000)
	owner.post(path("role"), "user_id", admin.ID, "role", "king").refused(1000)
	owner.post(path("role"), "user_id", admin.ID, "role", "admin").ok()
	admin.post(path("mute"), "user_id", member.ID, "seconds", 60).ok()
	require.NotEqual(t, 200, member.trySay(id, 2, "muted").code)
	admin.post(path("mute"), "user_id", member.ID, "seconds", 0).ok()
	member.tell(id, "free")
	admin.post(path("mute"), "seconds", 60).ok()
	require.NotEqual(t, 200, member.trySay(id, 2, "muted").code)
	owner.tell(id, "the owner may")
	admin.post(path("mute"), "seconds", 0).ok()
	require.Equal(t, "read this", owner.put(path("announcement"), "announcement", "read this").ok().object()["announcement"])
	require.Equal(t, "read this", member.get(fmt.Sprintf("/groups/info/%d", id)).ok().object()["announcement"])
	require.NotEqual(t, 200, member.put(path("announcement"), "announcement", "no").code)
	owner.put(fmt.Sprintf("/groups/info/%d", id), "name", "renamed").ok()
	require.Equal(t, "renamed", member.get(fmt.Sprintf("/groups/info/%d", id)).ok().object()["name"])
	owner.post(path("handOver"), "user_id", member.ID).ok()
	require.NotEqual(t, 200, owner.post(path("dissolve")).code)
	member.post(path("dissolve")).ok()
	require.JSONEq(t, "[]", string(owner.get("/groups/list").ok().data))
}

func TestSync_AndReadState(t *testing.T) {
	a, b := newUser(t), newUser(t)
	befriend(a, b)
	for i := range 5 {
		a.say(b, fmt.Sprintf("m%d", i))
	}
	un := b.get("/messages/unread").ok().object()
	require.EqualValues(t, 5, un["total"])
	require.EqualValues(t, 5, b.session("to_id", a.ID)["unread"])
	rows := a.private(b.ID)
	require.EqualValues(t, 0, rows[0]["is_read"])
	read := b.post("/messages/read", "to_id", a.ID, "seq", 3).ok().object()
	require.EqualValues(t, 3, read["read_seq"])
	require.EqualValues(t, 2, read["unread"])
	rows = a.private(b.ID)
	require.EqualValues(t, 1, rows[2]["is_read"])
	require.EqualValues(t, 0, rows[3]["is_read"])
	require.EqualValues(t, 0, b.post("/messages/read", "to_id", a.ID).ok().object()["unread"])

	type conv struct {
		ConversationID int64 `json:"conversation_id"`
		ToID           int64 `json:"to_id"`
		Seq            int64
		Messages       []map[string]any
	}
	var got struct {
		Epoch         string
		Complete      bool
		Conversations []conv
	}
	b.json(http.MethodPost, "/sync", `{"limit":3}`).ok().into(&got)
	require.False(t, got.Complete)
	var c conv
	for _, x := range got.Conversations {
		if x.ToID == a.ID {
			c = x
		}
	}
	require.Equal(t, []string{"m0", "m1", "m2"}, texts(c.Messages, "message"))
	b.json(http.MethodPost, "/sync", fmt.Sprintf(`{"epoch":%q,"cursors":[{"conversation_id":%d,"seq":%d}]}`, got.Epoch, c.ConversationID, c.Seq)).ok().into(&got)
	for _, x := range got.Conversations {
		if x.ToID == a.ID {
			require.Equal(t, []string{"m3", "m4"}, texts(x.Messages, "message"))
		}
	}
	require.True(t, got.Complete)
	b.json(http.MethodPost, "/sync", `{"cursors":[{"conversation_id":-1,"seq":0}]}`).refused(1000)
}
