package conformance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Ordinary accounts are people, not bots: they need friendship, they are found,
// and what is sent to them while they are away is kept.
func TestDefect24_AccountsArePeople(t *testing.T) {
	a, b := newUser(t), newUser(t)
	a.trySay(b.ID, 1, "hi").refused(1003)
	require.NotEmpty(t, a.get("/friends/userQuery?email="+b.Name).ok().list())
	befriend(a, b)
	a.say(b, "kept for you")
	b.connect().expectText("kept for you")
	require.Len(t, b.private(a.ID), 1, "nobody answers in his place")
}

func TestDefect25_OtherPeoplesThings(t *testing.T) {
	us := newUsers(t, 3)
	a, b, c := us[0], us[1], us[2]
	id := a.ask(b)
	a.put("/friends/record", "id", id, "status", 1).refused(500)
	c.put("/friends/record", "id", id, "status", 1).refused(500)
	b.put("/friends/record", "id", id, "status", 1).ok()
	session := num(a.session("to_id", b.ID)["id"])
	c.put(fmt.Sprintf("/sessions/%d", session), "note", "mine").refused(1000)
	c.del(fmt.Sprintf("/sessions/%d", session)).ok()
	require.NotNil(t, a.session("to_id", b.ID), "somebody else's deletion changes nothing")
	require.Empty(t, a.session("to_id", b.ID)["note"])
	require.JSONEq(t, "{}", string(c.get(fmt.Sprintf("/friends/%d", a.ID)).ok().data))
	group := a.newGroup(b)
	c.get(fmt.Sprintf("/groups/users/%d", group)).refused(1003)
	c.get(fmt.Sprintf("/messages/groups?to_id=%d", group)).refused(1003)
}

func TestDefect26_NoPasswordsInAnswers(t *testing.T) {
	u := newUser(t)
	a := u.post("/groups/store", "name", "locked", "info", "about", "avatar", base+"/avatars/1.png", "theme", "a", "is_pwd", 1, "password", "opensesame").ok()
	require.EqualValues(t, 1, a.object()["is_pwd"])
	for _, body := range [][]byte{a.body, u.get("/groups/list").body, u.get("/sessions").body, u.get(fmt.Sprintf("/user/%d", u.ID)).body} {
		require.NotContains(t, string(body), "opensesame")
		require.NotContains(t, string(body), `"password"`)
		require.NotContains(t, string(body), "argon2")
	}
}

func TestDefect28_LoginTellsNothing(t *testing.T) {
	u, n := newUser(t), nobody(t)
	wrong := n.post("/auth/login", "email", u.Email, "password", "wrong-password").refused(500)
	unknown := n.post("/auth/login", "email", "nobody"+u.Email, "password", "wrong-password").refused(500)
	require.Equal(t, wrong.message, unknown.message)
	n.post("/auth/login", "email", "", "password", "").refused(500)
	n.post("/auth/login").refused(500)
	n.post("/auth/login", "email", "nope", "password", "x").refused(500)
}

func TestDefect29_RacesMakeNoDuplicates(t *testing.T) {
	const n = 6
	a, b := newUser(t), newUser(t)
	together := func(f func(i int) answer) (codes []int, answers []answer) {
		var (
			wg sync.WaitGroup
			mu sync.Mutex
		)
		for i := range n {
			wg.Go(func() {
				r := f(i)
				mu.Lock()
				defer mu.Unlock()
				codes, answers = append(codes, r.code), append(answers, r)
			})
		}
		wg.Wait()
		slices.Sort(codes)
		return codes, answers
	}
	email := "race" + a.Email
	codes, _ := together(func(i int) answer {
		return nobody(t).post("/auth/registered", "email", email, "name", fmt.Sprintf("race%d%s", i, a.Name), "password", password, "password_repeat", password, "code", "1234")
	})
	require.Equal(t, []int{200, 1000, 1000, 1000, 1000, 1000}, codes)
	codes, _ = together(func(i int) answer {
		return nobody(t).post("/auth/registered", "email", fmt.Sprintf("race%d%s", i, a.Email), "name", "same"+a.Name, "password", password, "password_repeat", password, "code", "1234")
	})
	require.Equal(t, []int{200, 1000, 1000, 1000, 1000, 1000}, codes)

	_, answers := together(func(int) answer { return a.post("/sessions", "id", b.ID, "type", 1) })
	ids := map[int64]bool{}
	for _, r := range answers {
		ids[num(r.ok().object()["id"])] = true
	}
	require.Len(t, ids, 1)

	codes, _ = together(func(i int) answer {
		if i%2 == 0 {
			return a.post("/friends/record", "to_id", b.ID, "information", "x")
		}
		return b.post("/friends/record", "to_id", a.ID, "information", "x")
	})
	require.Equal(t, 1, 1+slices.Index(codes, 200), "one request: %v", codes)
	require.Equal(t, 1000, codes[1])
	rec := a.get("/friends/record").ok().list()
	require.Len(t, rec, 1)
	asker, asked := a, b
	if num(rec[0]["form_id"]) == b.ID {
		asker, asked = b, a
	}
	codes, _ = together(func(int) answer {
		return asked.put("/friends/record", "id", num(rec[0]["id"]), "status", 1)
	})
	require.Equal(t, 200, codes[0])
	require.Len(t, asker.get("/friends").ok().list(), 1)
	require.Len(t, asked.get("/friends").ok().list(), 1)

	group := asker.newGroup()
	together(func(int) answer {
		return asker.post("/groups/createOrRemoveUser", "group_id", group, "type", 1, "select_user[]", asked.ID)
	})
	members := asked.get(fmt.Sprintf("/groups/users/%d", group)).ok().object()
	require.Len(t, members["group_users"], 2)

	key := nextKey()
	_, answers = together(func(int) answer {
		return a.post("/messages/private", "msg_client_id", key, "msg_type", 1, "to_id", b.ID, "message", "once")
	})
	ids = map[int64]bool{}
	for _, r := range answers {
		ids[num(r.ok().object()["msg_id"])] = true
	}
	require.Len(t, ids, 1)
	require.Len(t, b.private(a.ID), 1)
}

// upload sends a file and returns its URL.
func (u *user) upload(name string, content []byte) answer {
	u.t.Helper()
	const boundary = "xxBOUNDARYxx"
	var buf bytes.Buffer
	fmt.Fprintf(&buf, "--%s\r\nContent-Disposition: form-data; name=\"file\"; filename=\"%s\"\r\nContent-Type: application/octet-stream\r\n\r\n", boundary, name)
	buf.Write(content)
	fmt.Fprintf(&buf, "\r\n--%s--\r\n", boundary)
	return u.call(http.MethodPost, "/upload/file", &buf, "multipart/form-data; boundary="+boundary)
}

func TestDefect30_Uploads(t *testing.T) {
	u := newUser(t)
	url := func(a answer) string { s, _ := a.ok().object()["file_url"].(string); return s }
	fetch := func(url string, header ...string) (*http.Response, []byte) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		require.NoError(t, err)
		for i := 0; i+1 < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		resp, err := web.Do(req)
		require.NoError(t, err)
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		return resp, body
	}
	wav := append([]byte("RIFF\x24\x00\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00"), make([]byte, 40)...)
	one, two := url(u.upload("1795390858378.wav", wav)), url(u.upload("1795390858378.wav", append(wav, 1)))
	require.NotEqual(t, one, two, "the same name overwrites nothing")
	require.True(t, strings.HasPrefix(one, "http"))
	require.True(t, strings.HasSuffix(one, "/1795390858378.wav"))
	resp, body := fetch(one)
	require.Equal(t, wav, body)
	require.Equal(t, "audio/wav", resp.Header.Get("Content-Type"))
	require.Equal(t, "*", resp.Header.Get("Access-Control-Allow-Origin"))
	require.Equal(t, "nosniff", resp.Header.Get("X-Content-Type-Options"))
	resp, body = fetch(one, "Range", "bytes=8-11")
	require.Equal(t, 206, resp.StatusCode)
	require.Equal(t, "WAVE", string(body))
	for _, e := range edges { // every gateway serves it
		resp, _ = fetch(e + one[strings.Index(one, "/files/"):])
		require.Equal(t, 200, resp.StatusCode)
	}

	require.True(t, strings.HasSuffix(url(u.upload("Photo.PNG", []byte("\x89PNG\r\n\x1a\n"))), "/Photo.png"), "the extension in lower case")
	for _, name := range []string{"../../../etc/passwd", `..\\..\\x.txt`, "..", "%2e%2e%2fx.txt", strings.Repeat("n", 300) + ".txt"} {
		resp, body = fetch(url(u.upload(name, []byte("content"))))
		require.Equal(t, 200, resp.StatusCode, name)
		require.Equal(t, "content", string(body))
	}
	for name, content := range map[string]string{"x.html": "<!DOCTYPE html><script>1</script>", "x.svg": `<svg xmlns="http://www.w3.org/2000/svg"><script>1</script></svg>`, "lie.png": "<!DOCTYPE html><script>1</script>", "x.js": "alert(1)"} {
		resp, _ = fetch(url(u.upload(name, []byte(content))))
		require.Contains(t, resp.Header.Get("Content-Disposition"), "attachment", name)
		require.Contains(t, resp.Header.Get("Content-Security-Policy"), "sandbox", name)
	}
	u.post("/upload/file").refused(1000)
	u.post("/upload/file", "file", "no file").refused(1000)
	u.upload("empty.txt", nil).refused(1000)
	nobody(t).upload("x.txt", []byte("x")).refused(401)
	resp, _ = fetch(base + "/files/00000000000000000000000000000000/x.txt")
	require.Equal(t, 404, resp.StatusCode)
	require.Equal(t, "*", resp.Header.Get("Access-Control-Allow-Origin"))
}

func TestUpload_TooLargeIsAnAnswer(t *testing.T) {
	u := newUser(t)
	u.patience = 3 * time.Minute // 63 MiB take as long as they take
	u.upload("big.bin", make([]byte, 63<<20)).refused(1000)
}

func TestAvatars_AreServedForCanvases(t *testing.T) {
	u := newUser(t)
	avatar, _ := u.get(fmt.Sprintf("/user/%d", u.ID)).ok().object()["avatar"].(string)
	require.True(t, strings.HasSuffix(avatar, ".png"))
	resp, err := web.Get(avatar) //nolint:noctx // a test
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, 200, resp.StatusCode)
	require.Equal(t, "image/png", resp.Header.Get("Content-Type"))
	require.Equal(t, "*", resp.Header.Get("Access-Control-Allow-Origin"))
}

func TestDefect31_GroupDataIsTheTrueSender(t *testing.T) {
	a, b := newUser(t), newUser(t)
	befriend(a, b)
	id := a.newGroup(b)
	s := b.connect()
	for i, c := range []struct {
		data string
		kept map[string]any
	}{
		{`{"id":1,"uid":"x","name":"bot","avatar":"javascript:1","email":"root@x","extra":[1,2]}`, map[string]any{"extra": []any{1.0, 2.0}}},
		{``, nil},
		{`plain text`, map[string]any{"data": "plain text"}},
		{`[1]`, nil},
		{`null`, nil},
		{`5`, nil},
	} {
		text := fmt.Sprintf("spoof %d", i)
		a.post("/messages/private", "msg_client_id", nextKey(), "msg_type", 1, "to_id", id, "channel_type", 2, "message", text, "data", c.data).ok()
		got := profile(t, s.expectText(text)["data"])
		require.Equal(t, a.ID, num(got["id"]))
		require.Equal(t, a.UID, got["uid"])
		require.Equal(t, a.Name, got["name"])
		require.Equal(t, a.Email, got["email"])
		require.True(t, strings.HasPrefix(fmt.Sprint(got["avatar"]), "http"))
		for k, v := range c.kept {
			require.Equal(t, v, got[k])
		}
	}
}

func TestDefect32_NothingInternalIsTold(t *testing.T) {
	u := newUser(t)
	for _, a := range []answer{
		u.get("/user/' OR 1=1 --"), u.get("/user/9223372036854775808"), u.get("/friends/userQuery?email=%27%22%5C%00"), u.get("/friends/userQuery?email=%25"),
		u.json(http.MethodPost, "/messages/private", "\x00"), u.post("/friends/record", "to_id", "1;DROP TABLE users", "information", "'"),
		u.json(http.MethodPost, "/sync", `{"cursors":{"a":1}}`), u.put("/sessions/5", "note", strings.Repeat("ü", 300)),
	} {
		for _, word := range []string{"SQL", "goroutine", "panic", ".go:", "rpc error", "sqlx", "validator", "strconv"} {
			require.NotContains(t, string(a.body), word, a.what)
		}
		require.NotEqual(t, 500, a.code, "%s: %s", a.what, a.body)
	}
}

func TestDefect33_OAuthFailuresAreAnswers(t *testing.T) {
	n := nobody(t)
	n.get("/auth/githubLogin").refused(500)
	n.get("/auth/githubLogin?code=").refused(500)
	n.get("/auth/githubLogin?code=x&login_type=nobody").refused(500)
	n.get("/auth/oauthUrl?login_type=nobody").refused(500)
	start := time.Now()
	n.get("/auth/githubLogin?code=bogus").refused(500)
	n.get("/auth/githubLogin?code=bogus&login_type=gitee").refused(500)
	require.Less(t, time.Since(start), 20*time.Second)
}

func TestDefect34_RefusedMessagesAreNotKept(t *testing.T) {
	a, b := newUser(t), newUser(t)
	a.trySay(b.ID, 1, "before").refused(1003)
	befriend(a, b)
	require.Empty(t, a.private(b.ID))
	b.del(fmt.Sprintf("/friends/%d", a.ID)).ok()
	a.trySay(b.ID, 1, "after").refused(1003)
	b.trySay(a.ID, 1, "after").refused(1003)
	require.Empty(t, a.private(b.ID))
	a.trySay(a.ID, 1, "myself").refused(1003)
	a.trySay(999_999_999, 1, "nobody").refused(1003)
}

func TestDefect35_AddressListIsOneDocument(t *testing.T) {
	a, b := newUser(t), newUser(t)
	befriend(a, b)
	a.newGroup()
	for _, answer := range []answer{a.get("/address/list"), a.post("/address/list")} {
		m := answer.ok().object()
		require.Len(t, m["friends"], 1)
		require.Len(t, m["groups"], 1)
	}
}

func TestDefect36_JoiningStays(t *testing.T) {
	us := newUsers(t, 3)
	owner, joiner := us[0], us[1]
	id := owner.newGroup()
	so, sj := owner.connect(), joiner.connect()
	require.Equal(t, 200, joiner.call(http.MethodPost, fmt.Sprintf("/groups/applyJoin/%d", id), nil, "").code, "no body at all")
	row, _ := sj.expectCode(2003)["sessions"].(map[string]any)
	require.Equal(t, id, num(row["group_id"]))
	so.expect("the notice", func(f frame) bool {
		return f.code() == 200 && num(f["msg_type"]) == 6 && num(f["form_id"]) == joiner.ID && num(f["to_id"]) == id
	})
	s := joiner.session("group_id", id)
	require.EqualValues(t, 0, s["to_id"])
	require.Len(t, joiner.get(fmt.Sprintf("/groups/users/%d", id)).ok().object()["group_users"], 2)
	joiner.tell(id, "here")
	joiner.post(fmt.Sprintf("/groups/applyJoin/%d", id)).refused(1000)
	joiner.post("/groups/applyJoin/999999999").refused(1000)

	inv := joiner.post(fmt.Sprintf("/invite/%d", id)).ok().object()
	for _, member := range []string{"id", "user_id", "group_id", "token", "created_at", "end_time", "avatar", "name"} {
		require.Contains(t, inv, member)
	}
	require.Greater(t, num(inv["end_time"]), num(inv["created_at"]))
	us[2].post(fmt.Sprintf("/invite/%d", id)).refused(1003)
}

func TestDefect37_GroupPasswords(t *testing.T) {
	us := newUsers(t, 4)
	owner := us[0]
	id := num(owner.post("/groups/store", "name", "locked", "info", "about", "avatar", base+"/avatars/1.png", "theme", "red,blue", "is_pwd", 1, "password", "sesame").ok().object()["id"])
	path := fmt.Sprintf("/groups/applyJoin/%d", id)
	us[1].post(path).refused(1000)
	us[1].post(path, "password", "wrong").refused(1000)
	us[1].post(path, "password", "sesame").ok()
	token := owner.post(fmt.Sprintf("/invite/%d", id)).ok().object()["token"]
	us[2].post(path, "token", "wrong").refused(1000)
	us[2].post(path, "token", token).ok()
	list := owner.get("/groups/list").ok().list()
	require.EqualValues(t, 1, list[0]["is_pwd"])
	require.Equal(t, "red,blue", list[0]["theme"])
	other := us[3].newGroup()
	us[1].post(fmt.Sprintf("/groups/applyJoin/%d", other), "token", token).refused(1000) // another group's
	owner.post("/groups/store", "name", "locked", "info", "about", "avatar", base+"/avatars/1.png", "theme", "a", "is_pwd", 1, "password", "").refused(1000)
}

func TestDefect38_RemovingIsFromOneGroup(t *testing.T) {
	us := newUsers(t, 3)
	owner, m1, m2 := us[0], us[1], us[2]
	befriend(owner, m1)
	befriend(owner, m2)
	one, two := owner.newGroup(m1, m2), owner.newGroup(m1, m2)
	s1, s2 := m1.connect(), m2.connect()
	change := func(u *user, kind any, ids ...any) answer {
		fields := []any{"group_id", one, "type", kind}
		for _, id := range ids {
			fields = append(fields, "select_user[]", id)
		}
		return u.post("/groups/createOrRemoveUser", fields...)
	}
	change(m1, 2, m2.ID).refused(1000)
	change(owner, 3, m2.ID).refused(1000)
	change(owner, "", m2.ID).refused(1000)
	change(owner, 2).refused(1000)
	change(owner, 2, "x").refused(1000)
	change(owner, 1, m1.ID, m1.ID).ok() // in already, named twice
	change(owner, 2, m2.ID).ok()
	isNotice := func(f frame) bool {
		return f.code() == 200 && num(f["msg_type"]) == 6 && num(f["to_id"]) == one && num(f["form_id"]) == owner.ID
	}
	s1.expect("the notice", isNotice)
	s2.expect("the notice to the removed one", isNotice)
	require.Len(t, owner.get(fmt.Sprintf("/groups/users/%d", one)).ok().object()["group_users"], 2)
	require.Len(t, owner.get(fmt.Sprintf("/groups/users/%d", two)).ok().object()["group_users"], 3)
	m2.trySay(one, 2, "out").refused(1003)
	m2.tell(two, "in")
	require.Nil(t, m2.session("group_id", one))
	change(owner, 2, owner.ID)
	require.Len(t, owner.get(fmt.Sprintf("/groups/users/%d", one)).ok().object()["group_users"], 2, "the owner stays")
	stranger := newUser(t)
	change(owner, 1, stranger.ID).refused(1000)
	change(owner, 1, 999_999_999).refused(1000)
}

func TestDefect39_LeavingBySessionID(t *testing.T) {
	us := newUsers(t, 3)
	owner, member, stranger := us[0], us[1], us[2]
	befriend(owner, member)
	id := owner.newGroup(member)
	before := len(owner.group(id))
	stranger.del(fmt.Sprintf("/groups/%d", id)).refused(1000)
	foreign := num(owner.session("group_id", id)["id"])
	stranger.del(fmt.Sprintf("/groups/%d", foreign)).refused(1000)
	require.Len(t, owner.group(id), before, "no false notice")

	so := owner.connect()
	session := num(member.session("group_id", id)["id"])
	require.NotEqual(t, id, session, "D5")
	member.del(fmt.Sprintf("/groups/%d", session)).ok()
	member.del(fmt.Sprintf("/sessions/%d", session)).ok()
	so.expect("the notice", func(f frame) bool {
		return f.code() == 200 && num(f["msg_type"]) == 6 && num(f["form_id"]) == member.ID && num(f["to_id"]) == id
	})
	require.Len(t, owner.get(fmt.Sprintf("/groups/users/%d", id)).ok().object()["group_users"], 1)
	member.del(fmt.Sprintf("/groups/%d", id)).refused(1000)
	require.Nil(t, member.session("group_id", id))
}

func TestDefect40_EverybodyGetsHisOwnSession(t *testing.T) {
	us := newUsers(t, 3)
	socks := []*socket{}
	for i, u := range us {
		if i > 0 {
			befriend(us[0], u)
		}
		socks = append(socks, u.connect())
	}
	id := us[0].newGroup(us[1:]...)
	seen := map[int64]bool{}
	for i, u := range us {
		row, _ := socks[i].expectCode(2003)["sessions"].(map[string]any)
		session := num(row["id"])
		require.False(t, seen[session])
		seen[session] = true
		require.Equal(t, session, num(u.session("group_id", id)["id"]))
		require.Equal(t, u.ID, num(row["form_id"]))
		socks[i].never("2003 again", func(f frame) bool { return f.code() == 2003 })
	}
}

func TestDefect41_SessionsOfBothKinds(t *testing.T) {
	us := newUsers(t, 3)
	a, b, stranger := us[0], us[1], us[2]
	s := a.post("/sessions", "id", b.ID, "type", 1).ok().object() // no friendship needed
	require.Equal(t, b.Name, s["name"])
	require.Equal(t, b.ID, num(s["Users"].(map[string]any)["id"])) //nolint:forcetypeassert // an object
	a.post("/sessions", "id", 999_999_999, "type", 1).refused(1000)
	id := a.newGroup()
	row := num(a.session("group_id", id)["id"])
	a.del(fmt.Sprintf("/sessions/%d", row)).ok()
	require.Nil(t, a.session("group_id", id))
	g := a.post("/sessions", "id", id, "type", 2).ok().object()
	require.Equal(t, id, num(g["group_id"]))
	require.EqualValues(t, 0, g["to_id"])
	require.NotEmpty(t, g["Groups"].(map[string]any)["name"]) //nolint:forcetypeassert // an object
	require.NotEqual(t, 200, stranger.post("/sessions", "id", id, "type", 2).code)
	a.post("/sessions", "id", id).refused(1000)
	a.post("/sessions", "type", 1).refused(1000)
	a.post("/sessions", "id", b.ID, "type", 3).refused(1000)
	a.post("/sessions", "id", "undefined", "type", 1).refused(1000)
}

func TestDefect42_SessionsCanBeUnpinnedAndNotesCleared(t *testing.T) {
	u := newUser(t)
	path := fmt.Sprintf("/sessions/%d", num(u.session("to_id", 1)["id"]))
	u.put(path, "top_status", 1, "note", "my bot").ok()
	s := u.session("to_id", 1)
	require.EqualValues(t, 1, s["top_status"])
	require.NotEmpty(t, s["top_time"])
	require.Equal(t, "my bot", s["note"])
	u.put(path, "top_status", 0).ok()
	s = u.session("to_id", 1)
	require.EqualValues(t, 0, s["top_status"])
	require.Equal(t, "my bot", s["note"], "only what was sent changes")
	u.put(path, "note", "").ok()
	require.Empty(t, u.session("to_id", 1)["note"])
	u.put(path, "top_status", 2).refused(1000)
	u.put(path).ok()
	u.del(path).ok()
	u.del(path).ok()
	require.Equal(t, "null", string(u.get("/sessions").ok().data), "D2: no sessions is null")
}

func TestDefect43_PagesHaveNoGaps(t *testing.T) {
	a, b := newUser(t), newUser(t)
	befriend(a, b)
	id := a.newGroup(b)
	for i := range 23 {
		a.say(b, fmt.Sprintf("p%d", i))
		a.tell(id, fmt.Sprintf("g%d", i))
	}
	for _, kind := range []struct{ path, id, text, prefix string }{
		{fmt.Sprintf("/messages?to_id=%d", a.ID), "id", "msg", "p"}, {fmt.Sprintf("/messages/groups?to_id=%d", id), "Id", "Message", "g"},
	} {
		var got []string
		page, total := "", -1
		for range 10 {
			var p struct {
				List []map[string]any
				Mate struct {
					PageSize int
					Page     string
					Total    int
				}
			}
			b.get(kind.path + "&pageSize=5&page=" + page).ok().into(&p)
			require.Equal(t, 5, p.Mate.PageSize)
			require.Equal(t, page, p.Mate.Page)
			if total < 0 {
				total = p.Mate.Total
			}
			require.Equal(t, total, p.Mate.Total, "the total is the conversation's, on every page")
			if len(p.List) == 0 {
				break
			}
			for _, row := range p.List {
				who, _ := row["Users"].(map[string]any)
				require.NotEmpty(t, who["name"], "every row has its sender")
			}
			got = append(texts(p.List, kind.text), got...)
			page = fmt.Sprint(num(p.List[0][kind.id]))
		}
		require.Equal(t, total, len(got))
		var chats []string
		for _, text := range got {
			if strings.HasPrefix(text, kind.prefix) && len(text) <= 3 {
				chats = append(chats, text)
			}
		}
		require.Len(t, chats, 23)
		require.Equal(t, kind.prefix+"0", chats[0])
		require.Equal(t, kind.prefix+"22", chats[22])
	}
	for _, size := range []string{"", "0", "-1", "x"} {
		require.Len(t, b.page(fmt.Sprintf("/messages?to_id=%d&pageSize=%s&page=", a.ID, size)), 23)
	}
	b.get("/messages?to_id=0&page=12&pageSize=20").ok()
	require.Empty(t, b.page("/messages?to_id=0&page=12&pageSize=20"))
	b.get("/messages?page=&pageSize=20").refused(1000)
	require.Empty(t, b.page("/messages?to_id=999999999"))
	b.get("/messages/groups?to_id=999999999").refused(1003)
	row := b.group(id)[0]
	for _, member := range []string{"Id", "Message", "CreatedAt", "Data", "SendTime", "MsgType", "MessageId", "ClientMessageId", "FormId", "GroupId", "Users"} {
		require.Contains(t, row, member)
	}
	require.InDelta(t, time.Now().Unix(), num(row["SendTime"]), 600, "seconds")
}

func TestDefect44_FriendRequests(t *testing.T) {
	a, b := newUser(t), newUser(t)
	a.post("/friends/record", "to_id", a.ID, "information", "me").refused(1000)
	a.post("/friends/record", "to_id", 999_999_999, "information", "x").refused(1000)
	a.post("/friends/record", "to_id", b.ID).refused(1000)
	a.post("/friends/record", "information", "x").refused(1000)
	a.post("/friends/record", "to_id", "null", "information", "x").refused(1000)
	id := a.ask(b)
	a.post("/friends/record", "to_id", b.ID, "information", "again").refused(1000)
	b.post("/friends/record", "to_id", a.ID, "information", "the other way").refused(1000)
	b.put("/friends/record", "id", id, "status", 1).ok()
	require.Len(t, a.get("/friends").ok().list(), 1)
	require.Len(t, b.get("/friends").ok().list(), 1)
	b.post("/friends/record", "to_id", a.ID, "information", "x").refused(1000)
}

func TestDefect45_EmptyListsHaveTheirShape(t *testing.T) {
	u := newUser(t)
	for path, want := range map[string]string{
		"/friends": "[]", "/friends/record": "[]", "/groups/list": "[]", "/friends/userQuery?email=nobodyhasthisname": "[]",
		"/address/list": `{"friends":[],"groups":[]}`, "/messages?to_id=1&page=1": "",
	} {
		a := u.get(path).ok()
		if want != "" {
			require.JSONEq(t, want, string(a.data), path)
		}
	}
	var p map[string]json.RawMessage
	u.get("/messages?to_id=0").ok().into(&p)
	require.JSONEq(t, "[]", string(p["list"]))
	require.JSONEq(t, `{"pageSize":50,"page":"","total":0}`, string(p["mate"]))
}

func TestDefect46_UserQuery(t *testing.T) {
	us := newUsers(t, 3)
	a, friend, other := us[0], us[1], us[2]
	befriend(a, friend)
	find := func(text string) []int64 {
		var ids []int64
		for _, r := range a.get("/friends/userQuery?email=" + text).ok().list() {
			ids = append(ids, num(r["id"]))
			for _, member := range []string{"id", "name", "email", "avatar", "status", "bio", "sex"} {
				require.Contains(t, r, member)
			}
		}
		require.LessOrEqual(t, len(ids), 10)
		return ids
	}
	require.Equal(t, []int64{other.ID}, find(other.Name), "by name")
	require.Equal(t, []int64{other.ID}, find(other.Email[:len(other.Email)-4]), "by the start of the e-mail")
	require.Empty(t, find(friend.Name), "not one's friends")
	require.Empty(t, find(a.Name), "not oneself")
	require.Empty(t, find("%25"), "no wildcard")
	require.Empty(t, find("_"+other.Name[1:]), "no wildcard")
	require.NotContains(t, find(""), int64(1), "no bots")
	require.NotContains(t, find(""), a.ID)
}

func TestDefect47_RecallAndVideo(t *testing.T) {
	us := newUsers(t, 3)
	a, b, c := us[0], us[1], us[2]
	befriend(a, b)
	sb := b.connect()
	sent := a.say(b, "take it back")
	sb.expectText("take it back")
	id := num(sent["msg_id"])
	a.post("/messages/recall").refused(1000)
	b.post("/messages/recall", "msg_id", id).refused(1000)
	c.post("/messages/recall", "msg_id", id).refused(1000)
	a.post("/messages/recall", "msg_id", 999_999_999).refused(1000)
	got := a.post("/messages/recall", "msg_id", id, "channel_type", 1, "to_id", b.ID).ok().object()
	require.Equal(t, id, num(got["msg_id"]))
	f := sb.expectCode(2005)
	require.Equal(t, id, num(f["msg_id"]))
	require.Equal(t, a.ID, num(f["form_id"]))
	row := b.private(a.ID)[0]
	require.EqualValues(t, 2, row["status"])
	require.Empty(t, row["msg"])
	sent = a.say(b, "by its key")
	a.post("/messages/recall", "msg_client_id", num(sent["msg_client_id"]), "channel_type", 1, "to_id", b.ID).ok()

	a.post("/messages/video").refused(1000)
	a.post("/messages/video", "to_id", c.ID).refused(1003)
	ring := a.post("/messages/video", "to_id", b.ID).ok().object()
	require.EqualValues(t, 600, ring["msg_code"])
	f = sb.expectCode(600)
	require.Equal(t, a.ID, num(f["form_id"]))
	require.Equal(t, b.ID, num(f["to_id"]))
	require.Equal(t, a.Name, f["users"].(map[string]any)["name"]) //nolint:forcetypeassert // an object
	sb.close()
	soon(t, "who left cannot be rung", func() bool { return a.post("/messages/video", "to_id", b.ID).code == 500 })
}

func TestDefect48_LongAndPlainTexts(t *testing.T) {
	a, b := newUser(t), newUser(t)
	befriend(a, b)
	id := a.newGroup(b)
	long := strings.Repeat("很长", 10_000)
	a.say(b, long)
	a.tell(id, long)
	a.tell(id, "plain, not JSON")
	require.Equal(t, long, b.private(a.ID)[0]["msg"])
	rows := texts(b.group(id), "Message")
	require.Contains(t, rows, long)
	require.Contains(t, rows, "plain, not JSON")
	a.trySay(b.ID, 1, strings.Repeat("x", 60<<10+1)).refused(1000)
}

// Every answer of the suite is checked for exactly code, message and data (and
// what a refusal has beside them); this says so once by name.
func TestDefect49_NoOtherMembersInTheEnvelope(t *testing.T) {
	var env map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(newUser(t).get("/friends").body, &env))
	require.Len(t, env, 3)
}

func TestGroups_CreationRefusals(t *testing.T) {
	us := newUsers(t, 2)
	u, stranger := us[0], us[1]
	try := func(change ...any) answer {
		fields := map[string]any{"name": "crew", "info": "about", "avatar": base + "/avatars/1.png", "theme": "a"}
		for i := 0; i < len(change); i += 2 {
			fields[change[i].(string)] = change[i+1] //nolint:forcetypeassert // names are text
		}
		var list []any
		for k, v := range fields {
			list = append(list, k, v)
		}
		return u.post("/groups/store", list...)
	}
	for _, bad := range [][]any{
		{"name", ""},
		{"name", "x"},
		{"name", strings.Repeat("x", 21)},
		{"info", ""},
		{"info", "x"},
		{"info", strings.Repeat("x", 256)},
		{"avatar", ""},
		{"avatar", "javascript:alert(1)"},
		{"theme", ""},
		{"is_pwd", 1},
		{"is_pwd", 2},
		{"select_user[]", "x"},
		{"select_user[]", stranger.ID},
		{"select_user[]", 999_999_999},
	} {
		try(bad...).refused(1000)
	}
	require.JSONEq(t, "[]", string(u.get("/groups/list").ok().data), "nothing was made")
	try().ok()
	u.json(http.MethodPost, "/groups/store", fmt.Sprintf(`{"name":"crew","info":"about","avatar":%q,"theme":"a","is_pwd":0,"select_user":[]}`, base+"/avatars/1.png")).ok()
}

// A member sees the history from joining on.
func TestGroups_HistoryBeginsWithJoining(t *testing.T) {
	us := newUsers(t, 2)
	id := us[0].newGroup()
	us[0].tell(id, "before")
	us[1].post(fmt.Sprintf("/groups/applyJoin/%d", id)).ok()
	us[0].tell(id, "after")
	rows := texts(us[1].group(id), "Message")
	require.Contains(t, rows, "after")
	require.NotContains(t, rows, "before")
}
