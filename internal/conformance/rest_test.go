package conformance

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var (
	idMember   = regexp.MustCompile(`^(id|Id|MessageId|ClientMessageId|FormId|GroupId|.*_id)$`)
	timeMember = regexp.MustCompile(`^(created_at|updated_at|send_time|top_time|last_login_time|muted_until|CreatedAt)$`)
	timeText   = regexp.MustCompile(`^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)?$`)
)

// plain checks what holds for every answer: ids are numbers that JavaScript
// holds, times are "YYYY-MM-DD HH:mm:ss" or empty. Those of an invite are the
// exception.
func plain(t testing.TB, what string, v any) {
	t.Helper()
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			plain(t, what, e)
		}
	case map[string]any:
		_, invite := v["end_time"]
		for name, e := range v {
			switch {
			case idMember.MatchString(name):
				f, ok := e.(float64)
				require.True(t, ok && f == float64(int64(f)) && f >= 0 && f <= 1<<53-1, "%s: %s is %v", what, name, e)
			case timeMember.MatchString(name) && !invite:
				s, ok := e.(string)
				require.True(t, ok && timeText.MatchString(s), "%s: %s is %v", what, name, e)
			default:
				plain(t, what, e)
			}
		}
	}
}

// A browser follows no redirect of a preflight, and shows an answer without the
// header as a broken network.
func TestPaths_AreAnsweredWhereTheyAre(t *testing.T) {
	u := newUser(t)
	for _, path := range []string{"/api//sessions", "//api/sessions", "/api/./sessions", "/api/x/../sessions", "/api/sessions//", "/files/../x", "/im/connect/", "/im", "/"} {
		for _, method := range []string{http.MethodOptions, http.MethodGet, http.MethodPut} {
			resp := u.raw(method, path, nil, "", "Access-Control-Request-Method", "PUT")
			require.NoError(t, resp.Body.Close())
			require.NotContains(t, []int{301, 302, 303, 307, 308}, resp.StatusCode, "%s %s", method, path)
			require.Equal(t, "*", resp.Header.Get("Access-Control-Allow-Origin"), "%s %s", method, path)
			if method == http.MethodOptions {
				require.Less(t, resp.StatusCode, 300, path)
			}
		}
	}
	resp := u.raw(http.MethodOptions, "/im/connect", nil, "")
	require.NoError(t, resp.Body.Close())
	require.Less(t, resp.StatusCode, 300)
	u.callAt(http.MethodPost, "/im/connect", nil, "").refused(405)
	require.Equal(t, u.ID, num(u.get("/%75ser/" + strings.ReplaceAll(fmt.Sprint(u.ID), "1", "%31")).ok().object()["id"]), "percent-encoding makes no other path")
}

func TestEncodings_Lists(t *testing.T) {
	us := newUsers(t, 3)
	u, one, two := us[0], us[1], us[2]
	befriend(u, one)
	befriend(u, two)
	base := url.Values{"name": {"crew"}, "info": {"about"}, "avatar": {base + "/avatars/1.png"}, "theme": {"a"}}
	members := func(a answer) (got []int64) {
		t.Helper()
		id := num(a.ok().object()["id"])
		var body struct {
			Members []struct {
				User int64 `json:"user_id"`
			} `json:"group_users"`
		}
		u.get(fmt.Sprintf("/groups/users/%d", id)).ok().into(&body)
		for _, m := range body.Members {
			got = append(got, m.User)
		}
		u.post(fmt.Sprintf("/groups/%d/dissolve", id)).ok()
		return got
	}
	want := []int64{u.ID, one.ID, two.ID}
	a, b := fmt.Sprint(one.ID), fmt.Sprint(two.ID)
	for name, list := range map[string]url.Values{
		"k[]":             {"select_user[]": {a, b}},
		"k":               {"select_user": {a, b}},
		"k[i]":            {"select_user[0]": {a}, "select_user[1]": {b}},
		"k[i] with gaps":  {"select_user[2]": {a}, "select_user[5]": {b}},
		"JSON in a field": {"select_user": {"[" + a + "," + b + "]"}},
		"repeated":        {"select_user[]": {a, b, a, b}},
		"with oneself":    {"select_user[]": {fmt.Sprint(u.ID), a, b}},
	} {
		fields := []any{}
		form := url.Values{}
		for _, v := range []url.Values{base, list} {
			for k, texts := range v {
				form[k] = texts
				for _, text := range texts {
					fields = append(fields, k, text)
				}
			}
		}
		require.Equal(t, want, members(u.call(http.MethodPost, "/groups/store", strings.NewReader(form.Encode()), "application/x-www-form-urlencoded")), name)
		require.Equal(t, want, members(u.post("/groups/store", fields...)), name)
	}
	for _, list := range []string{`"select_user":[%s,%s]`, `"select_user":["%s","%s"]`, `"select_user[]":[%s,"%s"]`} {
		body := fmt.Sprintf(`{"name":"crew","info":"about","avatar":%q,"theme":"a",`+list+`}`, base.Get("avatar"), a, b)
		require.Equal(t, want, members(u.json(http.MethodPost, "/groups/store", body)), list)
	}
	for _, list := range []string{`0`, `-1`, `1.5`, `1e2`, `true`, `"x"`, `[null]`, `[[1]]`, `{"0":1}`, `["undefined"]`, `9007199254740992`} {
		body := fmt.Sprintf(`{"name":"crew","info":"about","avatar":%q,"theme":"a","select_user":%s}`, base.Get("avatar"), list)
		u.json(http.MethodPost, "/groups/store", body).refused(1000)
	}
	require.JSONEq(t, "[]", string(u.get("/groups/list").ok().data))
}

// A body without parts, a body without bytes and no body are no fields.
func TestEncodings_Nothing(t *testing.T) {
	u := newUser(t)
	session := fmt.Sprintf("/sessions/%d", num(u.session("to_id", 1)["id"]))
	for _, c := range []struct{ kind, body string }{
		{"multipart/form-data; boundary=b", "--b--\r\n"},
		{"multipart/form-data; boundary=b", "--b--"},
		{"multipart/form-data; boundary=b", ""},
		{"application/x-www-form-urlencoded", ""},
		{"application/json", ""},
		{"application/json", "{}"},
		{"", ""},
	} {
		u.call(http.MethodPut, session, strings.NewReader(c.body), c.kind).ok()
		u.call(http.MethodPost, "/sessions", strings.NewReader(c.body), c.kind).refused(1000)
		u.call(http.MethodPost, "/friends", strings.NewReader(c.body), c.kind).ok()
		u.call(http.MethodPost, "/auth/ws-ticket", strings.NewReader(c.body), c.kind).ok()
	}
	u.call(http.MethodDelete, session, nil, "").ok()
}

// Pinned ones first, then by the newest activity.
func TestSessions_Order(t *testing.T) {
	us := newUsers(t, 4)
	u, peers := us[0], us[1:]
	for _, p := range peers {
		befriend(u, p)
	}
	order := func() (got []int64) {
		for _, s := range u.get("/sessions").ok().list() {
			if to := num(s["to_id"]); to != 1 {
				got = append(got, to)
			}
		}
		return got
	}
	for i, p := range peers { // whoever spoke last comes first, be it in the same second
		if i%2 == 0 {
			u.say(p, "x")
		} else {
			p.say(u, "x")
		}
	}
	require.Equal(t, []int64{peers[2].ID, peers[1].ID, peers[0].ID}, order())
	peers[0].say(u, "y")
	require.Equal(t, []int64{peers[0].ID, peers[2].ID, peers[1].ID}, order())
	u.put(fmt.Sprintf("/sessions/%d", num(u.session("to_id", peers[1].ID)["id"])), "top_status", 1).ok()
	require.Equal(t, []int64{peers[1].ID, peers[0].ID, peers[2].ID}, order())
}

// An owner who selects himself among those to be removed stays.
func TestGroups_TheOwnerIsNotRemoved(t *testing.T) {
	us := newUsers(t, 3)
	owner, one, two := us[0], us[1], us[2]
	befriend(owner, one)
	befriend(owner, two)
	id := owner.newGroup(one, two)
	owner.post("/groups/createOrRemoveUser", "group_id", id, "type", 2, "select_user[]", owner.ID, "select_user[]", one.ID, "select_user[]", 999_999_999).ok()
	members := owner.get(fmt.Sprintf("/groups/users/%d", id)).ok().object()
	require.Len(t, members["group_users"], 2)
	require.Equal(t, owner.ID, num(members["groups"].(map[string]any)["user_id"])) //nolint:forcetypeassert // an object
	one.trySay(id, 2, "out").refused(1003)
	owner.post(fmt.Sprintf("/groups/%d/role", id), "user_id", two.ID, "role", "admin").ok()
	two.post("/groups/createOrRemoveUser", "group_id", id, "type", 2, "select_user[]", owner.ID).refused(1000)
}

// "null" is what a browser makes of an id that it lost; it means nobody.
func TestGroups_MutingNobodyMutesNobody(t *testing.T) {
	u := newUser(t)
	id := u.newGroup()
	for _, lost := range []string{"null", "undefined", "-1", "x"} {
		u.post(fmt.Sprintf("/groups/%d/mute", id), "user_id", lost, "seconds", 60).refused(1000)
	}
	require.EqualValues(t, 0, u.get(fmt.Sprintf("/groups/info/%d", id)).ok().object()["muted_all"])
}

// Texts arrive as they were sent, whatever they say.
func TestTexts_ArriveIntact(t *testing.T) {
	a, b := newUser(t), newUser(t)
	befriend(a, b)
	for _, text := range []string{"null", "undefined", "0", " ", "a\x00b", "😀\u200d\"\\\r\n\t<>&'%_", "\u2028\u202e", strings.Repeat("x", 60<<10)} {
		sent := a.post("/messages/private", "msg_client_id", nextKey(), "msg_type", 1, "to_id", b.ID, "channel_type", 1, "message", text).ok().object()
		require.Equal(t, text, sent["message"])
		rows := b.page(fmt.Sprintf("/messages?to_id=%d&pageSize=1", a.ID))
		require.Equal(t, text, rows[0]["msg"])
		raw, err := json.Marshal(map[string]any{"msg_client_id": fmt.Sprint(nextKey()), "msg_type": "1", "to_id": fmt.Sprint(b.ID), "message": text})
		require.NoError(t, err)
		require.Equal(t, text, a.json(http.MethodPost, "/messages/private", string(raw)).ok().object()["message"])
	}
	for _, data := range []string{`5`, `"5"`, `"null"`, `"{\"a\":1}"`} {
		sent := a.json(http.MethodPost, "/messages/private", fmt.Sprintf(`{"msg_client_id":%d,"msg_type":1,"to_id":%d,"message":"x","data":%s}`, nextKey(), b.ID, data)).ok()
		var body struct{ Data json.RawMessage }
		sent.into(&body)
		require.JSONEq(t, data, string(body.Data), "text stays text, a number stays one")
	}
}

// The same key and content is the same message, however it comes.
func TestSends_AreIdempotent(t *testing.T) {
	a, b := newUser(t), newUser(t)
	befriend(a, b)
	key := nextKey()
	send := func(change ...any) answer {
		fields := []any{"msg_client_id", key, "msg_type", 1, "to_id", b.ID, "channel_type", 1, "message", "one", "data", "d"}
		return a.post("/messages/private", append(change, fields...)...)
	}
	first := num(send().ok().object()["msg_id"])
	require.Equal(t, first, num(send().ok().object()["msg_id"]))
	s := a.connect()
	f := chatFrame(a, b.ID, 1, "one")
	f["msg_client_id"], f["data"] = key, "d"
	require.Equal(t, first, num(s.post(f)["msg_id"]), "across socket and HTTP")
	send("message", "two").refused(1000)
	send("msg_type", 2).refused(1000)
	send("data", "e").refused(1000)
	require.Len(t, b.private(a.ID), 1)
}

// A login shows at once where people are shown.
func TestLogin_IsSeen(t *testing.T) {
	u := newUser(t)
	last := func() any { return u.get(fmt.Sprintf("/user/%d", u.ID)).ok().object()["last_login_time"] }
	before := last()
	require.NotEmpty(t, before)
	time.Sleep(1100 * time.Millisecond)
	u.login()
	require.NotEqual(t, before, last())
}

// Nobody can make the system hand out addresses of his own.
func TestURLs_AreThePublicOnes(t *testing.T) {
	u := newUser(t)
	const kind = "multipart/form-data; boundary=b"
	const body = "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\n\r\nx\r\n--b--\r\n"
	forged := []string{"Host", "evil.example", "X-Forwarded-Host", "evil.example", "X-Forwarded-Proto", "ftp", "Forwarded", "host=evil.example"}
	for _, call := range []struct{ method, path, body, kind string }{
		{http.MethodPost, "/api/upload/file", body, kind},
		{http.MethodGet, fmt.Sprintf("/api/user/%d", u.ID), "", ""},
		{http.MethodGet, "/api/sessions", "", ""},
		{http.MethodGet, "/swagger/openapi.json", "", ""},
	} {
		resp := u.raw(call.method, call.path, strings.NewReader(call.body), call.kind, forged...)
		raw := string(readAll(t, resp))
		require.Equal(t, 200, resp.StatusCode, call.path)
		require.NotContains(t, raw, "evil.example", call.path)
		require.NotContains(t, raw, "ftp://", call.path)
	}
}
