package rest

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	friendv1 "im-services/api/proto/friend/v1"
	logicv1 "im-services/api/proto/logic/v1"
	"im-services/internal/im"
)

const urlencoded = "application/x-www-form-urlencoded"

func parse(t testing.TB, contentType, body string) *form {
	t.Helper()
	f, err := parseBody(strings.NewReader(body), contentType, maxParameters+maxListItems)
	require.NoError(t, err)
	return f
}

func TestParseBody_Encodings(t *testing.T) {
	const mp = "multipart/form-data; boundary=b"
	part := func(name, text string) string {
		return "--b\r\nContent-Disposition: form-data; name=\"" + name + "\"\r\n\r\n" + text + "\r\n"
	}
	tests := []struct{ name, contentType, body string }{
		{"multipart", mp, part("name", "x y") + part("id", "7") + "--b--\r\n"},
		{"multipart, no newline at the end", mp, part("name", "x y") + part("id", "7") + "--b--"},
		{"multipart, a field twice: the first counts", mp, part("name", "x y") + part("id", "7") + part("id", "8") + "--b--\r\n"},
		{"multipart, a file is no field", mp, "--b\r\nContent-Disposition: form-data; name=\"id\"; filename=\"f\"\r\n\r\n99\r\n" + part("name", "x y") + part("id", "7") + "--b--\r\n"},
		{"urlencoded", urlencoded, "name=x+y&id=7"},
		{"urlencoded with charset", urlencoded + "; charset=UTF-8", "name=x%20y&id=7&id=8"},
		{"json number", "application/json", `{"name":"x y","id":7}`},
		{"json numeric string", "application/json; charset=utf-8", `{"name":"x y","id":"7","other":{"a":[1,{"b":null}]}}`},
		{"json by another name", "application/problem+json", ` {"id":7,"name":"x\u0020y"} `},
		{"no content type, json", "", `{"name":"x y","id":7}`},
		{"no content type, form", "", "name=x+y&id=7"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := parse(t, tt.contentType, tt.body)
			require.Equal(t, "x y", f.text("name"))
			require.Equal(t, int64(7), f.id("id"))
			require.Empty(t, f.text("missing"))
			require.NoError(t, f.err())
		})
	}
}

// A semicolon parts nothing: it once was an alternative to the ampersand.
func TestParseQuery_SemicolonIsText(t *testing.T) {
	const query = "message=a;b&c;d=1;"
	for _, contentType := range []string{urlencoded, ""} {
		f := parse(t, contentType, query)
		require.Equal(t, "a;b", f.text("message"))
		require.Equal(t, "1;", f.text("c;d"))
		require.Len(t, f.values, 2)
	}
	f, err := parseQuery(query, maxParameters)
	require.NoError(t, err)
	require.Equal(t, "a;b", f.text("message"))
}

func TestParseBody_NoFields(t *testing.T) {
	for _, ct := range []string{"", "multipart/form-data; boundary=b", "multipart/form-data", urlencoded, "application/json", "text/plain", "nonsense;;"} {
		require.Empty(t, parse(t, ct, "").values, ct)
	}
	require.Empty(t, parse(t, "multipart/form-data; boundary=b", "--b--\r\n").values, "just the closing boundary")
	require.Empty(t, parse(t, "application/json", "{}").values)
}

func TestParseBody_Malformed(t *testing.T) {
	tests := []struct{ name, contentType, body string }{
		{"multipart without boundary", "multipart/form-data", "x"},
		{"multipart cut", "multipart/form-data; boundary=b", "--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nx"},
		{"multipart with another boundary", "multipart/form-data; boundary=b", "--c\r\n\r\n"},
		{"multipart not UTF-8", "multipart/form-data; boundary=b", "--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n\xff\r\n--b--\r\n"},
		{"urlencoded escape", urlencoded, "a=%zz"},
		{"urlencoded not UTF-8", urlencoded, "a=%ff"},
		{"json array", "application/json", `[1]`},
		{"json null", "application/json", `null`},
		{"json cut", "application/json", `{"a":1`},
		{"json twice", "application/json", `{} {}`},
		{"json duplicate key", "application/json", `{"a":1,"a":2}`},
		{"json duplicate key, escaped", "application/json", `{"a":1,"\u0061":2}`},
		{"json duplicate key, nested", "application/json", `{"x":[{"a":1,"a":2}]}`},
		{"json not UTF-8", "application/json", "{\"a\":\"\xff\"}"},
		{"json half a character", "application/json", `{"a":"\ud83d"}`},
		{"json half a character, the second half", "application/json", `{"a":"\ude00\ud83d"}`},
		{"json too deep", "application/json", strings.Repeat(`{"a":`, 17) + "1" + strings.Repeat("}", 17)},
		{"json single quotes", "application/json", `{'a':1}`},
		{"another type", "text/plain", "a=1"},
		{"broken type", "application/json;;;=", `{"a":1}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := parseBody(strings.NewReader(tt.body), tt.contentType, maxParameters+maxListItems)
			require.Equal(t, "body_invalid", im.ReasonOf(err))
		})
	}
}

func TestJSON_CharactersArriveIntact(t *testing.T) {
	f := parse(t, "application/json", `{"a":"\u0000 \ud83d\ude00 \\ud83d \" 😀 \u2028"}`)
	require.Equal(t, "\x00 😀 \\ud83d \" 😀 \u2028", f.text("a"))
}

func TestIDs_AllSpellings(t *testing.T) {
	want := []int64{3, 1, 2}
	for name, f := range map[string]*form{
		"k[]":                parse(t, urlencoded, "k[]=3&k[]=1&k[]=2&k[]=3"),
		"k":                  parse(t, urlencoded, "k=3&k=1&k=2"),
		"k[i]":               parse(t, urlencoded, "k[1]=1&k[0]=3&k[2]=2"),
		"k[i] with gaps":     parse(t, urlencoded, "k[10]=2&k[7]=1&k[2]=3"),
		"JSON in a field":    parse(t, urlencoded, `k=[3,"1",2]`),
		"empty elements":     parse(t, urlencoded, "k[]=3&k[]=&k[]=1&k[]=2"),
		"JSON":               parse(t, "application/json", `{"k":[3,"1",2,3]}`),
		"JSON with brackets": parse(t, "application/json", `{"k[]":[3,"1",2]}`),
	} {
		require.Equal(t, want, f.ids("k"), name)
		require.NoError(t, f.err(), name)
	}
	require.Equal(t, []int64{5}, parse(t, "application/json", `{"k":5}`).ids("k"))
	require.Empty(t, parse(t, "application/json", `{"k":[]}`).ids("k"))
	for _, bad := range []string{`{"k":[0]}`, `{"k":[-1]}`, `{"k":[1.5]}`, `{"k":[1e3]}`, `{"k":["x"]}`, `{"k":[null]}`, `{"k":[[1]]}`, `{"k":{"a":1}}`, `{"k":[9007199254740992]}`, `{"k":[true]}`, `{"k":true}`, `{"k":"[1]"}`} {
		f := parse(t, "application/json", bad)
		f.ids("k")
		require.Error(t, f.err(), bad)
	}
	for _, bad := range []string{"k[]=x", "k[]=null", "k=undefined", "k[]=1.0", "k[]=+1", "k[]= 1", "k[]=01"} {
		f := parse(t, "", bad)
		f.ids("k")
		require.Error(t, f.err(), bad)
	}
}

func TestNumbers(t *testing.T) {
	for text, want := range map[string]int64{"1": 1, "2": 2, "": 9, "null": 9, "undefined": 9} {
		f := parse(t, urlencoded, "n="+text)
		require.Equal(t, want, f.number("n", 9, 1, 2, "number_invalid"), text)
		require.NoError(t, f.err())
	}
	for _, text := range []string{"0", "3", "1.0", "1e0", "x", "9223372036854775808", "0x1", "-1"} {
		f := parse(t, urlencoded, "n="+text)
		f.number("n", 9, 1, 2, "number_invalid")
		require.Equal(t, "number_invalid", im.ReasonOf(f.err()), text)
	}
	require.Equal(t, int64(1), parse(t, "application/json", `{"n":true}`).number("n", 0, 0, 1, "number_invalid"))
}

// The web client sends multipart for every POST and PUT.
func TestMultipart_EndToEnd(t *testing.T) {
	e := newEdge(t)
	e.on("Send", &logicv1.SendResult{MessageId: 812, Seq: 3, ConversationId: 9, SentAtMs: 1657111889000, DataJson: `"{\"id\":34}"`}, nil)
	e.ok(e.multipart(http.MethodPost, "/api/messages/private", "msg_client_id", "1795390858378", "msg_type", "1", "to_id", "35",
		"channel_type", "1", "message", "null", "data", ""))
	send := last[*logicv1.Send](t, e.backend, "Send")
	require.Equal(t, "null", send.GetText(), "text is text, whatever it says")
	require.Empty(t, send.GetDataJson())
	require.Equal(t, int32(1), send.GetPlatform())
	require.Equal(t, "https://im.example/avatars/34.png", send.GetSender().GetAvatar())

	e.ok(e.multipart(http.MethodPut, "/api/sessions/900", "top_status", "0", "note", ""))
	up := last[*logicv1.UpdateSessionRequest](t, e.backend, "ConversationService/UpdateSession")
	require.NotNil(t, up.Pinned, "0 is a value")
	require.False(t, up.GetPinned())
	require.NotNil(t, up.Note, "an empty note clears")

	e.ok(e.multipart(http.MethodPut, "/api/sessions/900"))
	up = last[*logicv1.UpdateSessionRequest](t, e.backend, "ConversationService/UpdateSession")
	require.Nil(t, up.Pinned)
	require.Nil(t, up.Note)

	e.on("FriendService/FilterFriends", &friendv1.FilterFriendsResponse{UserIds: many(1500)}, nil)
	fields := []string{"name", "my group", "info", "about", "avatar", "https://x/a.png", "theme", "a,b", "is_pwd", "0", "password", ""}
	for _, id := range many(1500) {
		fields = append(fields, "select_user[]", fmt.Sprint(id))
	}
	e.on("GroupService/CreateGroup", &logicv1.CreateGroupResponse{Group: &logicv1.GroupInfo{Id: 5, Name: "my group"}}, nil)
	e.ok(e.multipart(http.MethodPost, "/api/groups/store", fields...))
	require.Len(t, last[*logicv1.CreateGroupRequest](t, e.backend, "GroupService/CreateGroup").GetMemberIds(), 1500)
}

func many(n int) []int64 {
	out := make([]int64, n)
	for i := range out {
		out[i] = int64(1000 + i)
	}
	return out
}

func TestBody_NoneIsNoFields(t *testing.T) {
	e := newEdge(t)
	e.ok(e.do(http.MethodPost, "/api/groups/applyJoin/7", nil))
	e.ok(e.do(http.MethodPost, "/api/groups/applyJoin/7", strings.NewReader(""), "Content-Type", "multipart/form-data; boundary=x"))
	e.ok(e.do(http.MethodDelete, "/api/friends/35", nil))
	e.refused(e.do(http.MethodPost, "/api/messages/private", nil), 1000)
}

func TestBody_TooLarge(t *testing.T) {
	e := newEdge(t)
	big := "message=" + strings.Repeat("x", 2<<20)
	r := e.do(http.MethodPost, "/api/messages/private", strings.NewReader(big), "Content-Type", urlencoded)
	e.refused(r, 1000)
	require.Contains(t, r.message, "过大")
	exact := strings.NewReader("note=" + strings.Repeat("x", 1<<20-5))
	e.refused(e.do(http.MethodPut, "/api/sessions/1", exact, "Content-Type", urlencoded), 1000) // the limit itself passes: the note is what is refused
	require.NotContains(t, e.do(http.MethodPut, "/api/sessions/1", strings.NewReader("note="+strings.Repeat("x", 1<<20-5)), "Content-Type", urlencoded).message, "过大")
}

func TestPageSizeAndCursor(t *testing.T) {
	for text, want := range map[string]int{"": 50, "0": 50, "-3": 50, "x": 50, "20": 20, "200": 200, "201": 200, "99999999999999999999": 50, "1.5": 50} {
		f, err := parseQuery("pageSize="+text, maxParameters)
		require.NoError(t, err)
		require.Equal(t, want, f.pageSize(), text)
	}
	for _, text := range []string{"", "0", "null", "undefined"} {
		f, _ := parseQuery("page="+text, maxParameters)
		echo, id := f.cursor()
		require.NoError(t, f.err())
		require.Equal(t, text, echo)
		require.Zero(t, id)
	}
	for _, text := range []string{"x", "-1", "1.5"} {
		f, _ := parseQuery("page="+text, maxParameters)
		f.cursor()
		require.Error(t, f.err(), text)
	}
}

func FuzzParseBody(f *testing.F) {
	f.Add("application/json", `{"a":1,"b[]":["2"],"c":"\ud83d\ude00"}`)
	f.Add(urlencoded, "a=1&b[]=2&b[0]=3")
	f.Add("multipart/form-data; boundary=b", "--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--b--\r\n")
	f.Add("multipart/form-data; boundary=\"\"", "--\r\n")
	f.Add("", "{")
	f.Fuzz(func(t *testing.T, contentType, body string) {
		got, err := parseBody(strings.NewReader(body), contentType, maxParameters+maxListItems)
		if err != nil {
			require.Equal(t, im.KindInvalid, im.KindOf(err), "whatever is sent is the sender's fault")
			require.Nil(t, got)
			return
		}
		for name := range got.values {
			_ = got.text(name)
			for _, id := range got.ids(strings.TrimSuffix(name, "[]")) {
				require.True(t, id > 0 && id <= im.MaxID)
			}
			got.number(name, 0, 0, 9, "number_invalid")
			data, size := got.data(name)
			require.True(t, size > 0 == (data != ""))
		}
	})
}

func TestJSON_DeepNestingIsCheap(t *testing.T) {
	start := time.Now()
	deep := strings.Repeat("[", 1<<19)
	_, err := parseBody(strings.NewReader(`{"a":`+deep), "application/json", maxParameters)
	require.Error(t, err)
	require.Less(t, time.Since(start), 5*time.Second)
}

// A browser whose JavaScript lost an id must not silence the whole group.
func TestMute_WhoIsMeant(t *testing.T) {
	e := newEdge(t)
	for sent, want := range map[string]int64{"": 0, "0": 0, "35": 35} {
		e.ok(e.multipart(http.MethodPost, "/api/groups/24/mute", "user_id", sent, "seconds", "60"))
		require.Equal(t, want, last[*logicv1.MuteRequest](t, e.backend, "GroupService/Mute").GetUserId(), sent)
	}
	n := len(e.calls("GroupService/Mute"))
	for _, sent := range []string{"null", "undefined", "-1", "x", "9007199254740992"} {
		e.refused(e.multipart(http.MethodPost, "/api/groups/24/mute", "user_id", sent, "seconds", "60"), 1000)
	}
	require.Len(t, e.calls("GroupService/Mute"), n)
}

func TestSync_CursorsMayBeText(t *testing.T) {
	e := newEdge(t)
	e.ok(e.json(http.MethodPost, "/api/sync", `{"cursors":[{"conversation_id":"77","seq":"3"}]}`))
	cur := last[*logicv1.SyncRequest](t, e.backend, "MessageService/Sync").GetCursors()
	require.Len(t, cur, 1)
	require.Equal(t, int64(77), cur[0].GetConversationId())
	require.Equal(t, int64(3), cur[0].GetSeq())
	for _, bad := range []string{`"x"`, `""`, `1.5`, `"1.5"`, `true`, `{}`, `9007199254740992`} {
		e.refused(e.json(http.MethodPost, "/api/sync", `{"cursors":[{"conversation_id":`+bad+`,"seq":3}]}`), 1000)
	}
}

// true and false are the 1 and 0 of switches, never text, an id or data.
func TestJSON_TruthIsForSwitches(t *testing.T) {
	e := newEdge(t)
	e.ok(e.json(http.MethodPut, "/api/sessions/900", `{"top_status":true}`))
	require.True(t, last[*logicv1.UpdateSessionRequest](t, e.backend, "ConversationService/UpdateSession").GetPinned())
	e.refused(e.json(http.MethodPut, "/api/sessions/900", `{"note":true}`), 1000)
	e.refused(e.json(http.MethodPost, "/api/sessions", `{"id":true,"type":1}`), 1000)
	for _, bad := range []string{`"message":true`, `"message":"x","data":true`, `"message":"x","data":false`} {
		e.refused(e.json(http.MethodPost, "/api/messages/private", `{"msg_client_id":1,"to_id":35,"msg_type":1,`+bad+`}`), 1000)
	}
}

// "Load more" in a group asks for user 0 with a cursor that is not there.
func TestHistory_OfNobodyAlwaysSucceeds(t *testing.T) {
	e := newEdge(t)
	for _, page := range []string{"", "12", "undefined", "x", "-1"} {
		r := e.ok(e.get("/api/messages?to_id=0&pageSize=20&page=" + page))
		require.JSONEq(t, `{"list":[],"mate":{"pageSize":20,"page":"`+page+`","total":0}}`, r.data)
	}
	require.Empty(t, e.calls("MessageService/History"))
}
