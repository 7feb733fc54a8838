package conformance

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// scene is a small world in which everybody stands in another relation to the
// same things.
type scene struct {
	group   int64
	record  int64            // a waiting request from the friend to the owner
	session int64            // of the owner, with the friend
	actors  map[string]*user // by relation
}

func newScene(t *testing.T) *scene {
	us := newUsers(t, 6)
	owner, member, exMember, friend, exFriend, asker := us[0], us[1], us[2], us[3], us[4], us[5]
	for _, u := range []*user{member, exMember, friend, exFriend} {
		befriend(owner, u)
	}
	s := &scene{actors: map[string]*user{
		"anonymous": nobody(t), "owner": owner, "member": member, "ex-member": exMember,
		"stranger": newUser(t), "friend": friend, "ex-friend": exFriend, "asker": asker,
	}}
	s.group = owner.newGroup(member, exMember)
	exMember.del(fmt.Sprintf("/groups/%d", s.group)).ok()
	owner.del(fmt.Sprintf("/friends/%d", exFriend.ID)).ok()
	s.record = asker.ask(owner)
	s.session = num(owner.session("to_id", friend.ID)["id"])
	return s
}

var relations = []string{"anonymous", "owner", "member", "ex-member", "stranger", "friend", "ex-friend", "asker"}

// rule says with which code each relation is answered; rest is for those that
// are not named.
type rule struct {
	name  string
	call  func(s *scene, u *user) answer
	rest  int
	named map[string]int
	// changes: a success changes the scene, so each success gets a new one.
	changes bool
}

// matrix is the authorisation of the whole API: every endpoint that needs a
// login, once for every relation to the thing it is about. Anonymous is 401
// everywhere and not repeated.
var matrix = []rule{
	// own things: anybody with a login may see his own
	{name: "GET /sessions", rest: 200, call: func(_ *scene, u *user) answer { return u.get("/sessions") }},
	{name: "GET /friends", rest: 200, call: func(_ *scene, u *user) answer { return u.get("/friends") }},
	{name: "POST /friends", rest: 200, call: func(_ *scene, u *user) answer { return u.post("/friends") }},
	{name: "GET /friends/record", rest: 200, call: func(_ *scene, u *user) answer { return u.get("/friends/record") }},
	{name: "GET /friends/userQuery", rest: 200, call: func(_ *scene, u *user) answer { return u.get("/friends/userQuery?email=") }},
	{name: "GET /groups/list", rest: 200, call: func(_ *scene, u *user) answer { return u.get("/groups/list") }},
	{name: "POST /groups/store", rest: 200, call: func(_ *scene, u *user) answer {
		return u.post("/groups/store", "name", "crew", "info", "about", "avatar", base+"/avatars/1.png", "theme", "a")
	}},
	{name: "GET /address/list", rest: 200, call: func(_ *scene, u *user) answer { return u.get("/address/list") }},
	{name: "POST /address/list", rest: 200, call: func(_ *scene, u *user) answer { return u.post("/address/list") }},
	{name: "GET /messages/unread", rest: 200, call: func(_ *scene, u *user) answer { return u.get("/messages/unread") }},
	{name: "POST /sync", rest: 200, call: func(_ *scene, u *user) answer { return u.post("/sync") }},
	{name: "POST /auth/ws-ticket", rest: 200, call: func(_ *scene, u *user) answer { return u.post("/auth/ws-ticket") }},
	{name: "POST /upload/file", rest: 200, call: func(_ *scene, u *user) answer { return u.upload("a.txt", []byte("a")) }},

	// the owner as a person
	{name: "GET /user/:id", rest: 200, call: func(s *scene, u *user) answer { return u.get(fmt.Sprintf("/user/%d", s.owner().ID)) }},
	{name: "POST /sessions type 1", rest: 200, call: func(s *scene, u *user) answer {
		return u.post("/sessions", "id", s.owner().ID, "type", 1)
	}, named: map[string]int{"owner": 0}},
	{name: "GET /friends/:id", rest: 200, call: func(s *scene, u *user) answer { return u.get(fmt.Sprintf("/friends/%d", s.owner().ID)) }},
	{name: "GET /friends/status/:id", rest: 200, call: func(s *scene, u *user) answer { return u.get(fmt.Sprintf("/friends/status/%d", s.owner().ID)) }},
	{name: "GET /messages", rest: 200, call: func(s *scene, u *user) answer { return u.get(fmt.Sprintf("/messages?to_id=%d", s.owner().ID)) }},
	{name: "POST /messages/private", rest: 1003, named: map[string]int{"friend": 200, "member": 200, "ex-member": 200}, call: func(s *scene, u *user) answer {
		return u.trySay(s.owner().ID, 1, "may I?")
	}},
	{name: "POST /messages/video", rest: 1003, named: map[string]int{"friend": 500, "member": 500, "ex-member": 500}, call: func(s *scene, u *user) answer {
		return u.post("/messages/video", "to_id", s.owner().ID) // offline, which only friends are told
	}},
	{
		name: "POST /friends/record", rest: 200, changes: true, named: map[string]int{"owner": 1000, "friend": 1000, "member": 1000, "ex-member": 1000, "asker": 1000},
		call: func(s *scene, u *user) answer {
			return u.post("/friends/record", "to_id", s.owner().ID, "information", "x")
		},
	},
	{name: "DELETE /friends/:id", rest: 200, changes: true, call: func(s *scene, u *user) answer { return u.del(fmt.Sprintf("/friends/%d", s.owner().ID)) }},

	// a friend request to the owner
	{name: "PUT /friends/record", rest: 500, named: map[string]int{"owner": 200}, changes: true, call: func(s *scene, u *user) answer {
		return u.put("/friends/record", "id", s.record, "status", 1)
	}},

	// the owner's session
	{name: "PUT /sessions/:id", rest: 1000, named: map[string]int{"owner": 200}, call: func(s *scene, u *user) answer {
		return u.put(fmt.Sprintf("/sessions/%d", s.session), "note", "x")
	}},
	{name: "DELETE /sessions/:id", rest: 200, changes: true, call: func(s *scene, u *user) answer { return u.del(fmt.Sprintf("/sessions/%d", s.session)) }},

	// the owner's group
	{name: "GET /groups/info/:id", rest: 1003, named: map[string]int{"owner": 200, "member": 200}, call: func(s *scene, u *user) answer {
		return u.get(fmt.Sprintf("/groups/info/%d", s.group))
	}},
	{name: "GET /groups/users/:id", rest: 1003, named: map[string]int{"owner": 200, "member": 200}, call: func(s *scene, u *user) answer {
		return u.get(fmt.Sprintf("/groups/users/%d", s.group))
	}},
	{name: "GET /messages/groups", rest: 1003, named: map[string]int{"owner": 200, "member": 200}, call: func(s *scene, u *user) answer {
		return u.get(fmt.Sprintf("/messages/groups?to_id=%d", s.group))
	}},
	{name: "POST /messages/group", rest: 1003, named: map[string]int{"owner": 200, "member": 200}, call: func(s *scene, u *user) answer {
		return u.post("/messages/group", "msg_client_id", nextKey(), "msg_type", 1, "to_id", s.group, "channel_type", 2, "message", "may I?")
	}},
	{name: "POST /messages/read", rest: 1003, named: map[string]int{"owner": 200, "member": 200}, call: func(s *scene, u *user) answer {
		return u.post("/messages/read", "to_id", s.group, "channel_type", 2)
	}},
	{name: "POST /invite/:id", rest: 1003, named: map[string]int{"owner": 200, "member": 200}, call: func(s *scene, u *user) answer {
		return u.post(fmt.Sprintf("/invite/%d", s.group))
	}},
	{name: "POST /sessions type 2", rest: 1000, named: map[string]int{"owner": 200, "member": 200}, call: func(s *scene, u *user) answer {
		return u.post("/sessions", "id", s.group, "type", 2)
	}},
	{name: "POST /groups/createOrRemoveUser add", rest: 1000, named: map[string]int{"owner": 200}, changes: true, call: func(s *scene, u *user) answer {
		return u.post("/groups/createOrRemoveUser", "group_id", s.group, "type", 1, "select_user[]", s.actors["friend"].ID)
	}},
	{name: "POST /groups/createOrRemoveUser remove", rest: 1000, named: map[string]int{"owner": 200}, changes: true, call: func(s *scene, u *user) answer {
		return u.post("/groups/createOrRemoveUser", "group_id", s.group, "type", 2, "select_user[]", s.actors["member"].ID)
	}},
	{name: "POST /groups/applyJoin/:id", rest: 200, named: map[string]int{"owner": 1000, "member": 1000}, changes: true, call: func(s *scene, u *user) answer {
		return u.post(fmt.Sprintf("/groups/applyJoin/%d", s.group))
	}},
	{name: "DELETE /groups/:id", rest: 1000, named: map[string]int{"owner": 200, "member": 200}, changes: true, call: func(s *scene, u *user) answer {
		return u.del(fmt.Sprintf("/groups/%d", s.group))
	}},
	{name: "DELETE /groups/logout/:id", rest: 1000, named: map[string]int{"owner": 200, "member": 200}, changes: true, call: func(s *scene, u *user) answer {
		return u.del(fmt.Sprintf("/groups/logout/%d", s.group))
	}},
	{name: "PUT /groups/info/:id", rest: denied, named: map[string]int{"owner": 200}, call: func(s *scene, u *user) answer {
		return u.put(fmt.Sprintf("/groups/info/%d", s.group), "name", "renamed")
	}},
	{name: "PUT /groups/:id/announcement", rest: denied, named: map[string]int{"owner": 200}, call: func(s *scene, u *user) answer {
		return u.put(fmt.Sprintf("/groups/%d/announcement", s.group), "announcement", "x")
	}},
	{name: "POST /groups/:id/handOver", rest: denied, named: map[string]int{"owner": 200}, changes: true, call: func(s *scene, u *user) answer {
		return u.post(fmt.Sprintf("/groups/%d/handOver", s.group), "user_id", s.actors["member"].ID)
	}},
	{name: "POST /groups/:id/dissolve", rest: denied, named: map[string]int{"owner": 200}, changes: true, call: func(s *scene, u *user) answer {
		return u.post(fmt.Sprintf("/groups/%d/dissolve", s.group))
	}},
	{name: "POST /groups/:id/role", rest: denied, named: map[string]int{"owner": 200}, changes: true, call: func(s *scene, u *user) answer {
		return u.post(fmt.Sprintf("/groups/%d/role", s.group), "user_id", s.actors["member"].ID, "role", "admin")
	}},
	{name: "POST /groups/:id/mute", rest: denied, named: map[string]int{"owner": 200}, changes: true, call: func(s *scene, u *user) answer {
		return u.post(fmt.Sprintf("/groups/%d/mute", s.group), "user_id", s.actors["member"].ID, "seconds", 60)
	}},

	// a message the owner sent to the friend
	{name: "POST /messages/recall", rest: 1000, named: map[string]int{"owner": 200}, changes: true, call: func(s *scene, u *user) answer {
		sent := s.owner().say(s.actors["friend"], "mine")
		return u.post("/messages/recall", "msg_id", num(sent["msg_id"]))
	}},
	{name: "POST /auth/logout", rest: 200, changes: true, call: func(_ *scene, u *user) answer { return u.post("/auth/logout") }},
}

// denied is a refusal as an application error, 1000 or 1003.
const denied = -1

func (s *scene) owner() *user { return s.actors["owner"] }

func TestMatrix(t *testing.T) {
	shared := newScene(t)
	for _, r := range matrix {
		t.Run(strings.ReplaceAll(r.name, "/", "|"), func(t *testing.T) {
			for _, rel := range relations {
				want, ok := r.named[rel]
				switch {
				case rel == "anonymous":
					want = 401
				case !ok:
					want = r.rest
				}
				s := shared
				if r.changes && want == 200 {
					s = newScene(t)
				}
				got := r.call(s, s.actors[rel].with(t))
				switch want {
				case 0: // either way
				case denied:
					require.Contains(t, []int{1000, 1003}, got.code, "%s: %s", rel, got.body)
					got.refused(got.code)
				case 200:
					got.ok()
				default:
					require.Equal(t, want, got.code, "%s: %s", rel, got.body)
					got.refused(want)
				}
			}
		})
	}
}

// An endpoint without a row in the matrix is an endpoint nobody thought about.
func TestMatrix_HasEveryEndpoint(t *testing.T) {
	resp := nobody(t).raw(http.MethodGet, "/swagger/openapi.json", nil, "")
	var doc struct {
		Paths map[string]map[string]struct {
			Security []any
		}
	}
	a := answer{t: t, what: "openapi"}
	raw := readAll(t, resp)
	a.data = raw
	a.into(&doc)
	have := map[string]bool{}
	for _, r := range matrix {
		words := strings.Fields(r.name)
		have[words[0]+" /api"+words[1]] = true
	}
	var missing []string
	for path, methods := range doc.Paths {
		for method, op := range methods {
			open := op.Security != nil && len(op.Security) == 0
			name := strings.ToUpper(method) + " " + strings.ReplaceAll(path, "{id}", ":id")
			if !open && !have[name] {
				missing = append(missing, name)
			}
		}
	}
	slices.Sort(missing)
	require.Empty(t, missing)
	require.Greater(t, len(doc.Paths), 30)
}
