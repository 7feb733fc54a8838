package rest

import (
	"bytes"
	"flag"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	authv1 "im-services/api/proto/auth/v1"
	friendv1 "im-services/api/proto/friend/v1"
	logicv1 "im-services/api/proto/logic/v1"
	pushv1 "im-services/api/proto/push/v1"
	"im-services/internal/catalog"
	"im-services/internal/im"
)

var update = flag.Bool("update", false, "write the golden files anew")

const at = int64(1657111889000) // 2022-07-06 20:51:29 in Asia/Shanghai

var testGroup = &logicv1.GroupInfo{Id: 24, OwnerId: 34, Name: "crew", Info: "about", Avatar: "https://x/g.png", Theme: "a,b", HasPassword: true, Hot: 3, CreatedAtMs: at, MemberCount: 2}

// TestGolden holds the body of every answer against a file: the casing, the
// types and the presence of every member are the protocol.
func TestGolden(t *testing.T) {
	tests := []struct {
		name   string
		method string // of the backend
		answer proto.Message
		call   func(e *edge) reply
	}{
		{
			"user", "ConversationService/Presence", &logicv1.PresenceResponse{Users: []*logicv1.UserPresence{{UserId: 35, Online: true}}},
			func(e *edge) reply {
				e.users[35] = &authv1.User{Id: 35, Name: "b<o>b", Email: "bob@example.com", Avatar: "/avatars/35.png", Bio: "hi", Sex: 1, Age: 9, ClientType: 3, LastLoginAtMs: at}
				return e.get("/api/user/35")
			},
		},
		{"sessions", "ConversationService/ListSessions", &logicv1.ListSessionsResponse{Sessions: []*logicv1.Session{
			{
				Id: 900, OwnerId: 34, Kind: 1, PeerId: 35, Pinned: true, PinnedAtMs: at, Note: "n", CreatedAtMs: at, Unread: 2, LastSeq: 5, ReadSeq: 3, ConversationId: 77,
				LastMessage: &pushv1.Message{Id: 812, SenderId: 35, Type: 1, Text: "hi", SentAtMs: at},
			},
			{Id: 901, OwnerId: 34, Kind: 2, GroupId: 24, CreatedAtMs: at, Group: testGroup, ConversationId: 24},
			{Id: 902, OwnerId: 34, Kind: 1, PeerId: 36, Hidden: true},
		}}, func(e *edge) reply { return e.get("/api/sessions") }},
		{"sessions_none", "", nil, func(e *edge) reply { return e.get("/api/sessions") }},
		{
			"session_created", "ConversationService/CreateSession", &logicv1.CreateSessionResponse{Session: &logicv1.Session{Id: 900, OwnerId: 34, Kind: 1, PeerId: 35, CreatedAtMs: at}},
			func(e *edge) reply { return e.multipart(http.MethodPost, "/api/sessions", "id", "35", "type", "1") },
		},
		{"friends", "FriendService/ListFriends", &friendv1.ListFriendsResponse{Friends: []*friendv1.Friend{
			{Id: 3, UserId: 34, FriendId: 35, Note: "n", Pinned: true, PinnedAtMs: at, CreatedAtMs: at, UpdatedAtMs: at},
			{Id: 4, UserId: 34, FriendId: 99, CreatedAtMs: at},
		}}, func(e *edge) reply { return e.get("/api/friends") }},
		{"friends_none", "", nil, func(e *edge) reply { return e.get("/api/friends") }},
		{"friend_none", "", nil, func(e *edge) reply { return e.get("/api/friends/35") }},
		{
			"friend", "FriendService/GetFriend", &friendv1.GetFriendResponse{Friend: &friendv1.Friend{Id: 3, UserId: 34, FriendId: 35, CreatedAtMs: at}},
			func(e *edge) reply { return e.get("/api/friends/35") },
		},
		{
			"friend_status", "ConversationService/Presence", &logicv1.PresenceResponse{Users: []*logicv1.UserPresence{{UserId: 35, Online: true}}},
			func(e *edge) reply { return e.get("/api/friends/status/35") },
		},
		{"friend_status_offline", "", nil, func(e *edge) reply { return e.get("/api/friends/status/35") }},
		{"user_query", "AuthService/SearchUsers", &authv1.SearchUsersResponse{Users: []*authv1.User{
			{Id: 36, Name: "carol", Email: "carol@example.com", Sex: 2, Bio: "b"}, {Id: 34, Name: "alice"}, {Id: 1, Bot: true},
		}}, func(e *edge) reply { return e.get("/api/friends/userQuery?email=c") }},
		{"user_query_none", "", nil, func(e *edge) reply { return e.get("/api/friends/userQuery?email=") }},
		{"records", "FriendService/ListRequests", &friendv1.ListRequestsResponse{Requests: []*friendv1.FriendRequest{
			{Id: 46, RequesterId: 35, RecipientId: 34, Status: 0, Information: "hello", CreatedAtMs: at},
		}}, func(e *edge) reply { return e.get("/api/friends/record") }},
		{"records_none", "", nil, func(e *edge) reply { return e.get("/api/friends/record") }},
		{
			"record_created", "FriendService/RequestFriend", &friendv1.RequestFriendResponse{Request: &friendv1.FriendRequest{Id: 46, RequesterId: 34, RecipientId: 35, Information: "hello", CreatedAtMs: at}},
			func(e *edge) reply {
				return e.multipart(http.MethodPost, "/api/friends/record", "to_id", "35", "information", "hello")
			},
		},
		{
			"record_accepted", "FriendService/AnswerRequest", &friendv1.AnswerRequestResponse{Friend: &friendv1.Friend{Id: 3, UserId: 34, FriendId: 35, CreatedAtMs: at}},
			func(e *edge) reply {
				return e.multipart(http.MethodPut, "/api/friends/record", "id", "46", "status", "1")
			},
		},
		{
			"record_refused", "FriendService/AnswerRequest", &friendv1.AnswerRequestResponse{},
			func(e *edge) reply {
				return e.multipart(http.MethodPut, "/api/friends/record", "id", "46", "status", "2")
			},
		},
		{
			"groups", "GroupService/ListGroups", &logicv1.ListGroupsResponse{Groups: []*logicv1.GroupInfo{testGroup}},
			func(e *edge) reply { return e.get("/api/groups/list") },
		},
		{"groups_none", "", nil, func(e *edge) reply { return e.get("/api/groups/list") }},
		{"group_members", "GroupService/ListMembers", &logicv1.ListMembersResponse{Group: testGroup, Members: []*logicv1.Member{
			{Id: 1, GroupId: 24, UserId: 34, Role: logicv1.Role_ROLE_OWNER, JoinedAtMs: at}, {Id: 2, GroupId: 24, UserId: 35, Role: logicv1.Role_ROLE_MEMBER, JoinedAtMs: at, MutedUntilMs: at},
		}}, func(e *edge) reply { return e.get("/api/groups/users/24") }},
		{
			"invite", "GroupService/CreateInvite", &logicv1.CreateInviteResponse{Id: 6, Token: "tok", CreatedAtMs: at, ExpiresAtMs: at + 86_400_000, Group: testGroup},
			func(e *edge) reply { return e.do(http.MethodPost, "/api/invite/24", nil) },
		},
		{
			"address", "GroupService/ListGroups", &logicv1.ListGroupsResponse{Groups: []*logicv1.GroupInfo{testGroup}},
			func(e *edge) reply { return e.do(http.MethodPost, "/api/address/list", nil) },
		},
		{
			"sent_private", "Send", &logicv1.SendResult{MessageId: 812, ConversationId: 77, Seq: 5, SentAtMs: at, DataJson: `"x"`},
			func(e *edge) reply {
				return e.json(http.MethodPost, "/api/messages/private", `{"msg_client_id":1795390858378,"to_id":"35","msg_type":1,"message":"<hi>","data":"x"}`)
			},
		},
		{
			"sent_group", "Send", &logicv1.SendResult{MessageId: 813, ConversationId: 24, Seq: 6, SentAtMs: at, DataJson: `"{\"id\":34}"`},
			func(e *edge) reply {
				return e.json(http.MethodPost, "/api/messages/private", `{"msg_client_id":1,"to_id":24,"msg_type":1,"channel_type":2,"message":"hi"}`)
			},
		},
		{"history_private", "MessageService/History", &logicv1.HistoryResponse{Total: 57, PeerReadSeq: 1, ReadSeq: 2, Messages: []*pushv1.Message{
			{Id: 811, Seq: 1, SenderId: 34, ToId: 35, Type: 1, Text: "one", DataJson: `5`, SentAtMs: at, Status: 1, ClientMsgId: 7},
			{Id: 812, Seq: 2, SenderId: 35, ToId: 34, Type: 3, Text: "two", SentAtMs: at, Status: 1},
			{Id: 813, Seq: 3, SenderId: 34, ToId: 35, Type: 1, SentAtMs: at, Status: 2},
		}}, func(e *edge) reply { return e.get("/api/messages?page=900&pageSize=20&to_id=35") }},
		{"history_private_nobody", "", nil, func(e *edge) reply { return e.get("/api/messages?page=12&pageSize=20&to_id=0") }},
		{"history_group", "MessageService/History", &logicv1.HistoryResponse{Total: 2, Messages: []*pushv1.Message{
			{Id: 901, Seq: 1, Kind: 2, SenderId: 35, ToId: 24, Type: 6, Text: "joined", DataJson: `"{\"id\":35}"`, SentAtMs: at + 999, ClientMsgId: 8},
		}}, func(e *edge) reply { return e.get("/api/messages/groups?page=&pageSize=&to_id=24") }},
		{
			"recall", "MessageService/Recall", &logicv1.RecallResponse{Recall: &pushv1.RecallEvent{MessageId: 812, ClientMsgId: 1, SenderId: 34, ToId: 35, Kind: 1}},
			func(e *edge) reply { return e.form(http.MethodPost, "/api/messages/recall", "msg_id", "812") },
		},
		{
			"read", "MessageService/MarkRead", &logicv1.MarkReadResponse{ReadSeq: 5, Unread: 1},
			func(e *edge) reply { return e.form(http.MethodPost, "/api/messages/read", "to_id", "35", "seq", "5") },
		},
		{"unread", "ConversationService/ListSessions", &logicv1.ListSessionsResponse{Sessions: []*logicv1.Session{
			{Id: 900, Kind: 1, PeerId: 35, Unread: 2, LastSeq: 5, ReadSeq: 3}, {Id: 901, Kind: 2, GroupId: 24}, {Id: 902, Kind: 2, GroupId: 25, Unread: 1, LastSeq: 1},
		}}, func(e *edge) reply { return e.get("/api/messages/unread") }},
		{"sync", "MessageService/Sync", &logicv1.SyncResponse{Epoch: "e1", Complete: true, Conversations: []*logicv1.SyncConversation{
			{ConversationId: 77, Kind: 1, ToId: 35, Seq: 2, LastSeq: 2, ReadSeq: 1, Unread: 1, Complete: true, FirstSeq: 1, Messages: []*pushv1.Message{
				{ConversationId: 77, Kind: 1, Seq: 1, Id: 811, ClientMsgId: 7, SenderId: 34, ToId: 35, Type: 1, Text: "one", SentAtMs: at, Status: 1},
				{ConversationId: 77, Kind: 1, Seq: 2, Id: 812, SenderId: 35, ToId: 34, Type: 1, SentAtMs: at, Status: 2},
			}},
		}}, func(e *edge) reply {
			return e.json(http.MethodPost, "/api/sync", `{"epoch":"e1","cursors":[{"conversation_id":77,"seq":0}],"limit":10}`)
		}},
		{
			"refresh", "AuthService/Refresh", &authv1.RefreshResponse{Login: &authv1.LoggedIn{AccessToken: "t", RefreshToken: "r", ExpiresAt: 5, TtlSeconds: 4}},
			func(e *edge) reply { return e.form(http.MethodPost, "/api/auth/refresh", "refresh_token", "x") },
		},
		{
			"ticket", "AuthService/IssueTicket", &authv1.IssueTicketResponse{Ticket: "t", ExpiresInSeconds: 30},
			func(e *edge) reply { return e.do(http.MethodPost, "/api/auth/ws-ticket", nil) },
		},
		{
			"oauth_url", "AuthService/OAuthURL", &authv1.OAuthURLResponse{Url: "https://x/?a=1&b=2", State: "s"},
			func(e *edge) reply { return e.get("/api/auth/oauthUrl?login_type=gitee") },
		},
		{"logout", "", nil, func(e *edge) reply { return e.do(http.MethodPost, "/api/auth/logout", nil) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := newEdge(t)
			if tt.method != "" {
				e.on(tt.method, tt.answer, nil)
			}
			r := e.ok(tt.call(e))
			require.Equal(t, "application/json; charset=utf-8", r.Header().Get("Content-Type"))
			path := filepath.Join("testdata", tt.name+".json")
			if *update {
				require.NoError(t, os.MkdirAll("testdata", 0o755))
				require.NoError(t, os.WriteFile(path, r.Body.Bytes(), 0o600))
			}
			want, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Equal(t, string(want), r.Body.String())
		})
	}
}

// D2: no sessions is null, which is not what the golden file's reader may notice.
func TestSessions_NoneIsNull(t *testing.T) {
	e := newEdge(t)
	require.Equal(t, "null", e.ok(e.get("/api/sessions")).data)
}

func TestHistory_FirstPageAndCursor(t *testing.T) {
	e := newEdge(t)
	e.ok(e.get("/api/messages?to_id=35&page=&pageSize=20"))
	req := last[*logicv1.HistoryRequest](t, e.backend, "MessageService/History")
	require.Zero(t, req.GetBeforeId())
	require.Equal(t, int32(20), req.GetLimit())
	require.Equal(t, int32(im.PlatformWeb), req.GetPlatform())
	e.ok(e.get("/api/messages?to_id=35&page=77&platform=app"))
	req = last[*logicv1.HistoryRequest](t, e.backend, "MessageService/History")
	require.Equal(t, int64(77), req.GetBeforeId())
	require.Equal(t, int32(50), req.GetLimit())
	require.Equal(t, int32(im.PlatformApp), req.GetPlatform())
	for _, bad := range []string{"", "?to_id=", "?to_id=x", "?to_id=-1", "?to_id=null", "?to_id=35&page=x"} {
		e.refused(e.get("/api/messages"+bad), 1000)
		e.refused(e.get("/api/messages/groups"+bad), 1000)
	}
	e.refused(e.get("/api/messages/groups?to_id=0"), 1000)
}

func TestSend_Validation(t *testing.T) {
	e := newEdge(t)
	good := map[string]string{"msg_client_id": "1", "to_id": "35", "msg_type": "1", "message": "m"}
	for field, values := range map[string][]string{
		"msg_client_id": {"", "0", "x", "-1", "9007199254740992", "undefined"},
		"to_id":         {"", "0", "-1", "null", "1.5"},
		"msg_type":      {"", "0", "128", "x", "null"},
		"channel_type":  {"0", "3", "x"},
		"message":       {""},
		"platform":      {"tv"},
	} {
		for _, v := range values {
			fields := []string{field, v}
			for k, g := range good {
				if k != field {
					fields = append(fields, k, g)
				}
			}
			e.refused(e.multipart(http.MethodPost, "/api/messages/private", fields...), 1000)
		}
	}
	for _, body := range []string{
		`{"msg_client_id":1,"to_id":35,"msg_type":1,"message":5}`, `{"msg_client_id":1,"to_id":35,"msg_type":1,"message":{}}`,
		`{"msg_client_id":1,"to_id":35,"msg_type":1,"message":"m","data":{}}`, `{"msg_client_id":1,"to_id":35,"msg_type":1,"message":"m","data":1.5}`,
		`{"msg_client_id":1,"to_id":35,"msg_type":1,"message":"m","data":true1}`, `{"msg_client_id":1e3,"to_id":35,"msg_type":1,"message":"m"}`,
	} {
		e.refused(e.json(http.MethodPost, "/api/messages/private", body), 1000)
	}
	require.Empty(t, e.calls("Send"))
}

func TestSend_Data(t *testing.T) {
	for body, want := range map[string]string{`"data":"x\"y"`: `"x\"y"`, `"data":5`: "5", `"data":-7`: "-7", `"data":null`: "", `"data":""`: ""} {
		e := newEdge(t)
		e.ok(e.json(http.MethodPost, "/api/messages/private", `{"msg_client_id":1,"to_id":35,"msg_type":"1","message":"m",`+body+`}`))
		require.Equal(t, want, last[*logicv1.Send](t, e.backend, "Send").GetDataJson())
	}
}

func TestSend_SizeIsOfTextAndData(t *testing.T) {
	e := newEdge(t)
	text := make([]byte, 60<<10-3)
	for i := range text {
		text[i] = 'x'
	}
	fields := []string{"msg_client_id", "1", "to_id", "35", "msg_type", "1", "message", string(text), "data"}
	e.ok(e.multipart(http.MethodPost, "/api/messages/private", append(fields, "abc")...))
	e.refused(e.multipart(http.MethodPost, "/api/messages/private", append(fields, "abcd")...), 1000)
}

// What is read when the process wakes up may have been sent again elsewhere,
// answered there, and forgotten.
func TestG2_NothingIsSentAfterASleep(t *testing.T) {
	body := `{"msg_client_id":1,"to_id":35,"msg_type":1,"message":"m"}`
	for _, c := range []struct {
		name   string
		ago    time.Duration // when the sleep was found
		sends  int
		code   int
		reason string
	}{
		{name: "just now", ago: 0, code: 500, reason: "service_unavailable"},
		{name: "when the request may have come before it", ago: sleepDoubt / 2, code: 500, reason: "service_unavailable"},
		{name: "long ago", ago: 2 * sleepDoubt, sends: 1, code: 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			var log bytes.Buffer
			slept := time.Now().Add(-c.ago)
			e := newEdge(t, func(d *Deps) {
				d.SleptSince = func(t time.Time) bool { return !slept.Before(t) }
				d.Log = slog.New(slog.NewJSONHandler(&log, nil))
			})
			e.on("Send", &logicv1.SendResult{MessageId: 5}, nil)
			r := e.json(http.MethodPost, "/api/messages/private", body)
			require.Equal(t, c.code, r.code, r.Body.String())
			require.Contains(t, log.String(), `"reason":"`+c.reason+`"`)
			require.Len(t, e.calls("Send"), c.sends)
			if c.reason != "" {
				require.Equal(t, "1", r.Header().Get("Retry-After"))
			}
		})
	}
}

func TestG2_OutcomesOfASend(t *testing.T) {
	for reason, c := range map[string]struct {
		kind im.Kind
		code int
	}{
		"not_friends":          {im.KindForbidden, 1003},
		"overloaded":           {im.KindExhausted, 1000},
		"client_msg_id_reused": {im.KindConflict, 1000},
		"service_unavailable":  {im.KindUnavailable, 500},
		"outcome_unknown":      {im.KindUnknown, 500},
	} {
		t.Run(reason, func(t *testing.T) {
			e := newEdge(t)
			e.on("Send", nil, im.E(c.kind, reason, nil))
			r := e.json(http.MethodPost, "/api/messages/private", `{"msg_client_id":1,"to_id":35,"msg_type":1,"message":"m"}`)
			e.refused(r, c.code)
			require.Len(t, e.calls("Send"), 1)
			require.Equal(t, catalog.Text(reason, catalog.Chinese), r.message)
			require.Equal(t, reason, r.reason, "the code alone says nothing")
		})
	}
}

func TestPresence_AwayDoesNotFail(t *testing.T) {
	e := newEdge(t)
	e.on("ConversationService/Presence", nil, im.E(im.KindUnavailable, "service_unavailable", nil))
	e.ok(e.get("/api/user/35"))
	e.on("FriendService/ListFriends", &friendv1.ListFriendsResponse{Friends: []*friendv1.Friend{{Id: 1, UserId: 34, FriendId: 35}}}, nil)
	e.ok(e.get("/api/friends"))
	e.refused(e.get("/api/friends/status/35"), 500)
}

func TestProfiles_AreCachedAndNewUsersAreNot(t *testing.T) {
	e := newEdge(t)
	for range 3 {
		e.ok(e.get("/api/user/35"))
	}
	require.Len(t, e.calls("AuthService/GetUsers"), 1)
	e.refused(e.get("/api/user/77"), 1000)
	e.users[77] = &authv1.User{Id: 77, Name: "new"}
	e.ok(e.get("/api/user/77"))
}

func TestVideo(t *testing.T) {
	e := newEdge(t)
	ring := func() reply { return e.multipart(http.MethodPost, "/api/messages/video", "to_id", "35") }
	e.refused(e.multipart(http.MethodPost, "/api/messages/video"), 1000)
	e.refused(ring(), 1003)
	e.on("FriendService/FilterFriends", &friendv1.FilterFriendsResponse{UserIds: []int64{35}}, nil)
	e.refused(ring(), 500)
	e.on("ConversationService/Presence", &logicv1.PresenceResponse{Users: []*logicv1.UserPresence{{UserId: 35, Online: true}}}, nil)
	e.refused(ring(), 500)
	e.on("ConversationService/Notify", &logicv1.NotifyResponse{Connections: 1}, nil)
	r := e.ok(ring())
	require.Contains(t, r.data, `"msg_code":600,"form_id":34,"to_id":35`)
	require.Contains(t, r.data, `"users":{"name":"alice","email":"alice@example.com","avatar":"https://im.example/avatars/34.png"}`)
	call := last[*logicv1.NotifyRequest](t, e.backend, "ConversationService/Notify").GetEvent().GetCall()
	require.Equal(t, int64(34), call.GetCallerId())
}

func TestGroup_Create(t *testing.T) {
	e := newEdge(t)
	good := map[string]string{"name": "crew", "info": "about", "avatar": "https://x/a.png", "theme": "a"}
	try := func(change ...string) reply {
		fields := []string{}
		for k, v := range good {
			replaced := false
			for i := 0; i+1 < len(change); i += 2 {
				replaced = replaced || change[i] == k
			}
			if !replaced {
				fields = append(fields, k, v)
			}
		}
		return e.multipart(http.MethodPost, "/api/groups/store", append(fields, change...)...)
	}
	for field, values := range map[string][]string{
		"name": {"", "x", "123456789012345678901", "a\u202eb", "a\x00b"}, "info": {"", "x"}, "theme": {""}, "is_pwd": {"2", "x"},
		"avatar": {"", "x", "/a.png", "javascript:alert(1)", "data:image/png;base64,xx", "//x/a.png"}, "select_user[]": {"x", "0", "-1"},
	} {
		for _, v := range values {
			e.refused(try(field, v), 1000)
		}
	}
	e.refused(try("is_pwd", "1", "password", ""), 1000)
	e.refused(try("select_user[]", "35"), 1000)
	require.Empty(t, e.calls("GroupService/CreateGroup"))

	e.on("GroupService/CreateGroup", &logicv1.CreateGroupResponse{Group: testGroup}, nil)
	e.ok(try())
	e.ok(try("is_pwd", "0", "password", "left over"))
	require.Empty(t, last[*logicv1.CreateGroupRequest](t, e.backend, "GroupService/CreateGroup").GetPassword())
	e.ok(try("is_pwd", "1", "password", "secret", "select_user[]", "34"))
	req := last[*logicv1.CreateGroupRequest](t, e.backend, "GroupService/CreateGroup")
	require.Equal(t, "secret", req.GetPassword())
	require.Empty(t, req.GetMemberIds(), "the creator is in anyway")

	e.on("GroupService/CreateGroup", nil, im.E(im.KindUnavailable, "service_unavailable", nil))
	e.refused(try(), 1001)
}

func TestGroup_AddOnlyFriendsOrMembers(t *testing.T) {
	e := newEdge(t)
	add := func(ids ...string) reply {
		fields := []string{"group_id", "24", "type", "1"}
		for _, id := range ids {
			fields = append(fields, "select_user[]", id)
		}
		return e.multipart(http.MethodPost, "/api/groups/createOrRemoveUser", fields...)
	}
	e.refused(add(), 1000)
	e.on("FriendService/FilterFriends", &friendv1.FilterFriendsResponse{UserIds: []int64{35}}, nil)
	e.on("GroupService/ListMembers", &logicv1.ListMembersResponse{Members: []*logicv1.Member{{UserId: 34, Role: logicv1.Role_ROLE_OWNER}, {UserId: 36}}}, nil)
	e.ok(add("35", "36"))
	e.refused(add("35", "37"), 1000)
	require.Len(t, e.calls("GroupService/AddMembers"), 1)

	e.on("GroupService/ListMembers", nil, im.E(im.KindForbidden, "not_a_member", nil))
	e.on("GroupService/AddMembers", nil, im.E(im.KindForbidden, "not_a_member", nil))
	e.refused(add("37"), 1003)
	for _, bad := range [][]string{{"type", "3"}, {"type", ""}, {"group_id", "x"}, {"select_user[]", "x"}} {
		e.refused(e.multipart(http.MethodPost, "/api/groups/createOrRemoveUser", append(bad, "group_id", "24", "type", "2", "select_user[]", "35")...), 1000)
	}
}

func TestPathIDs(t *testing.T) {
	e := newEdge(t)
	for _, id := range []string{"x", "0", "-1", "1.5", "9007199254740992", "99999999999999999999", "null", "1%20", "%201", "1%2e0"} {
		e.refused(e.get("/api/user/"+id), 1000)
		e.refused(e.get("/api/friends/"+id), 1000)
		e.refused(e.get("/api/friends/status/"+id), 1000)
		e.refused(e.get("/api/groups/users/"+id), 1000)
		e.refused(e.do(http.MethodDelete, "/api/friends/"+id, nil), 1000)
		e.refused(e.do(http.MethodDelete, "/api/sessions/"+id, nil), 1000)
		e.refused(e.do(http.MethodDelete, "/api/groups/"+id, nil), 1000)
		e.refused(e.do(http.MethodPut, "/api/sessions/"+id, nil), 1000)
		e.refused(e.do(http.MethodPost, "/api/groups/applyJoin/"+id, nil), 1000)
		e.refused(e.do(http.MethodPost, "/api/invite/"+id, nil), 1000)
	}
}

func TestRegister_Validation(t *testing.T) {
	e := newEdge(t)
	good := []string{"email", "a@b.cn", "name", "ann", "password", "secret", "password_repeat", "secret", "code", "1234"}
	e.ok(e.multipart(http.MethodPost, "/api/auth/registered", good...))
	for i := 0; i < len(good); i += 2 {
		e.refused(e.multipart(http.MethodPost, "/api/auth/registered", append(append([]string{}, good[:i]...), good[i+2:]...)...), 1000)
	}
	for _, bad := range [][]string{{"password", "short"}, {"code", "123"}, {"code", "12345"}, {"email_type", "3"}, {"password_repeat", "other1"}} {
		e.refused(e.multipart(http.MethodPost, "/api/auth/registered", append(bad, good...)...), 1000)
	}
	require.Len(t, e.calls("AuthService/Register"), 1)
	require.Equal(t, "192.0.2.1", last[*authv1.RegisterRequest](t, e.backend, "AuthService/Register").GetPeerIp())
}

func TestRecall_Validation(t *testing.T) {
	e := newEdge(t)
	e.refused(e.multipart(http.MethodPost, "/api/messages/recall"), 1000)
	e.refused(e.form(http.MethodPost, "/api/messages/recall", "msg_client_id", "5"), 1000)
	e.refused(e.form(http.MethodPost, "/api/messages/recall", "msg_id", "x"), 1000)
	e.ok(e.form(http.MethodPost, "/api/messages/recall", "msg_client_id", "5", "channel_type", "1", "to_id", "35"))
}

func TestFriendRequest_Recipient(t *testing.T) {
	e := newEdge(t)
	e.refused(e.form(http.MethodPost, "/api/friends/record", "to_id", "99", "information", "x"), 1000)
	e.refused(e.form(http.MethodPost, "/api/friends/record", "to_id", "35"), 1000)
	e.refused(e.form(http.MethodPost, "/api/friends/record", "information", "x"), 1000)
	e.refused(e.form(http.MethodPut, "/api/friends/record", "id", "5", "status", "0"), 1000)
	e.refused(e.form(http.MethodPut, "/api/friends/record", "id", "5", "status", "3"), 1000)
	require.Empty(t, e.calls("FriendService/RequestFriend"))
}
