package rest

import (
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	friendv1 "im-services/api/proto/friend/v1"
	logicv1 "im-services/api/proto/logic/v1"
	"im-services/internal/im"
	"im-services/internal/token"
)

// TestG13_UnreadPagesAreBounded: who does not read his pages and lists gets none of
// them but small ones, and takes nothing from others.
func TestG13_UnreadPagesAreBounded(t *testing.T) {
	large := strings.Repeat("x", 60<<10)
	for _, path := range []string{
		"/api/messages?to_id=35", "/api/messages/groups?to_id=24", "/api/friends", "/api/friends/record", "/api/address/list",
		"/api/sessions", "/api/groups/list", "/api/groups/users/24",
	} {
		t.Run(path, func(t *testing.T) {
			e := newEdge(t, func(d *Deps) {
				d.Config.ReadsPerUser = 2
				d.Verify = func(raw string) (token.Claims, error) {
					if raw == "Bob" {
						return token.Claims{UserID: 35}, nil
					}
					return verify(raw)
				}
			})
			e.largeLists(large) // more than sockets buffer
			srv, _ := e.listen()
			for range 2 {
				conn := dialEdge(t, srv)
				askFor(t, conn, path)
				_, err := io.ReadFull(conn, make([]byte, 1000)) // it is being written
				require.NoError(t, err)
			}
			r := e.get(path)
			e.refused(r, 1000)
			require.Equal(t, "reads_busy", r.reason)
			require.Equal(t, "1", r.Header().Get("Retry-After"))
			require.Empty(t, e.calls(markDelivered))
			e.ok(e.do(http.MethodGet, path, nil, "Authorization", "Bob"))
			r = e.form(http.MethodPost, "/api/messages/private", "msg_client_id", "7", "msg_type", "1", "to_id", "35", "message", large)
			e.refused(r, 1000)
			require.Equal(t, "reads_busy", r.reason)
			require.Empty(t, e.calls("Send"), "its answer would be large: it is not stored")
			e.smallLists()
			e.ok(e.get(path))
			e.ok(e.form(http.MethodPost, "/api/messages/private", "msg_client_id", "7", "msg_type", "1", "to_id", "35", "message", "x"))

			e.largeLists(large)
			srv.CloseClientConnections()
			require.Eventually(t, func() bool { return e.get(path).code == 200 }, 20*time.Second, 10*time.Millisecond)
			for range 3 {
				e.ok(e.get(path)) // a slot is given back
			}
		})
	}
}

// largeLists has every list and page of the services take 12 MB.
func (e *edge) largeLists(text string) {
	page := firstPage(200, text)
	var (
		friends  friendv1.ListFriendsResponse
		requests friendv1.ListRequestsResponse
		sessions logicv1.ListSessionsResponse
		groups   logicv1.ListGroupsResponse
		members  logicv1.ListMembersResponse
	)
	for i := range int64(200) {
		friends.Friends = append(friends.Friends, &friendv1.Friend{Id: i, UserId: 34, FriendId: 35, Note: text})
		requests.Requests = append(requests.Requests, &friendv1.FriendRequest{Id: i, RequesterId: 35, RecipientId: 34, Information: text})
		sessions.Sessions = append(sessions.Sessions, &logicv1.Session{Id: i, OwnerId: 34, PeerId: 35, Kind: 1, Note: text})
		groups.Groups = append(groups.Groups, &logicv1.GroupInfo{Id: i, Info: text})
		members.Members = append(members.Members, &logicv1.Member{Id: i, UserId: 35, Remark: text})
	}
	e.on("MessageService/History", page, nil)
	e.on("FriendService/ListFriends", &friends, nil)
	e.on("FriendService/ListRequests", &requests, nil)
	e.on("ConversationService/ListSessions", &sessions, nil)
	e.on("GroupService/ListGroups", &groups, nil)
	e.on("GroupService/ListMembers", &members, nil)
}

func (e *edge) smallLists() {
	for _, method := range []string{
		"MessageService/History", "FriendService/ListFriends", "FriendService/ListRequests",
		"ConversationService/ListSessions", "GroupService/ListGroups", "GroupService/ListMembers",
	} {
		e.on(method, nil, nil)
	}
}

// TestG13_PagesBeingMadeAreBounded: so is what is read for one user at once, which
// takes memory before there is an answer.
func TestG13_PagesBeingMadeAreBounded(t *testing.T) {
	e := newEdge(t, func(d *Deps) { d.Config.ReadsPerUser = 2 })
	started, finish := make(chan struct{}), make(chan struct{})
	e.handle("GroupService/ListMembers", func(proto.Message) (proto.Message, error) {
		started <- struct{}{}
		<-finish
		return nil, nil
	})
	var running sync.WaitGroup
	for range 2 {
		running.Go(func() { e.get("/api/groups/users/24") })
		<-started
	}
	for _, path := range []string{
		"/api/messages?to_id=35", "/api/messages/groups?to_id=24", "/api/friends", "/api/friends/record", "/api/friends/userQuery?email=x",
		"/api/address/list", "/api/sessions", "/api/groups/list", "/api/groups/users/24", "/api/messages/unread",
	} {
		r := e.get(path)
		e.refused(r, 1000)
		require.Equal(t, "reads_busy", r.reason, path)
	}
	body := strings.NewReader("limit=10")
	e.refused(e.do(http.MethodPost, "/api/sync", body, "Content-Type", "application/x-www-form-urlencoded"), 1000)
	require.Zero(t, body.Len(), "read away")
	e.ok(e.get("/api/user/35"))
	close(finish)
	running.Wait()
	e.ok(e.get("/api/sessions"))
}

// Nothing is remembered of users for whom nothing runs.
func TestSlots_AreGivenBack(t *testing.T) {
	s := newSlots[im.UserID](3, 2)
	require.True(t, s.take(1))
	require.True(t, s.take(1))
	require.False(t, s.take(1))
	require.True(t, s.take(2))
	require.False(t, s.take(3), "all are taken")
	require.False(t, s.takeN(3, 2))
	for _, user := range []im.UserID{1, 1, 2} {
		s.release(user)
	}
	require.Zero(t, s.running)
	require.Empty(t, s.by)
}
