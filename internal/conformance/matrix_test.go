package conformance

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// scene is a small world in which everybody stands in another relation to the
// same things.
type scene struct {
	group   int64
	record  int64            // a waiting request from the asker to the owner
	session int64            // of the owner, with the friend
	message int64            // from the owner to the friend
	file    string           // path of a file of the owner
	actors  map[string]*user // by relation
}

var relations = []string{"anonymous", "owner", "member", "ex-member", "stranger", "friend", "ex-friend", "asker"}

// newScene makes the people; arrange gives them their relations.
func newScene(t *testing.T) *scene {
	t.Helper()
	s := &scene{actors: map[string]*user{"anonymous": nobody(t)}}
	for _, rel := range relations[1:] {
		s.actors[rel] = newUser(t)
	}
	url, _ := s.owner().upload("a.txt", []byte("a")).ok().object()["file_url"].(string)
	s.file = url[strings.Index(url, "/files/"):]
	s.arrange(t)
	return s
}

func (s *scene) owner() *user { return s.actors["owner"] }

// arrange makes the relations what they are called, whatever happened before.
func (s *scene) arrange(t *testing.T) {
	t.Helper()
	as := func(rel string) *user { return s.actors[rel].with(t) }
	owner := as("owner")
	for _, r := range owner.get("/friends/record").ok().list() {
		if num(r["status"]) == 0 && num(r["to_id"]) == owner.ID {
			owner.put("/friends/record", "id", num(r["id"]), "status", 2).ok()
		}
	}
	friends := map[int64]bool{}
	for _, f := range owner.get("/friends").ok().list() {
		friends[num(f["to_id"])] = true
	}
	for _, rel := range []string{"member", "ex-member", "friend", "ex-friend"} {
		if u := as(rel); !friends[u.ID] {
			befriend(u, owner)
		}
	}
	for _, rel := range []string{"ex-friend", "stranger", "asker"} {
		owner.del(fmt.Sprintf("/friends/%d", s.actors[rel].ID)).ok()
	}
	if s.group != 0 {
		owner.post(fmt.Sprintf("/groups/%d/dissolve", s.group)) // he may have handed it over
	}
	s.group = owner.newGroup(as("member"), as("ex-member"))
	as("ex-member").del(fmt.Sprintf("/groups/%d", s.group)).ok()
	s.record = as("asker").ask(owner)
	s.session = num(owner.post("/sessions", "id", s.actors["friend"].ID, "type", 1).ok().object()["id"])
}

// seen is a profile's last login, which is nobody's doing here.
var seen = regexp.MustCompile(`"last_login_time":"[^"]*"`)

// state is all that the scene's people see of it and of each other.
func (s *scene) state(t *testing.T) string {
	t.Helper()
	var out strings.Builder
	look := func(rel, path string) {
		out.WriteString(rel + " " + path + " ")
		out.Write(seen.ReplaceAll(s.actors[rel].with(t).get(path).ok().data, nil))
		out.WriteByte('\n')
	}
	for _, rel := range relations[1:] {
		for _, path := range []string{"/sessions", "/friends", "/friends/record", "/groups/list"} {
			look(rel, path)
		}
		look(rel, fmt.Sprintf("/messages?to_id=%d&pageSize=5", s.owner().ID))
	}
	for _, path := range []string{"/groups/info/%d", "/groups/users/%d", "/messages/groups?to_id=%d&pageSize=200"} {
		look("owner", fmt.Sprintf(path, s.group))
	}
	return out.String()
}

// rule says with which code each relation is answered; rest is for those that
// are not named.
type rule struct {
	name  string
	call  func(s *scene, u *user) answer
	rest  int
	named map[string]int
	// open endpoints need no login: anonymous is answered like the rest.
	open bool
	// prepare comes before the refusals and before each success.
	prepare func(t *testing.T, s *scene)
	// changes: a success changes the scene, which is arranged again after it.
	changes bool
	// idle are relations whose success must change nothing; "rest" are those
	// that are not named.
	idle []string
	// check looks into a success.
	check func(t *testing.T, s *scene, rel string, a answer)
}

func (r *rule) want(rel string) int {
	if rel == "anonymous" && !r.open {
		return 401
	}
	if code, ok := r.named[rel]; ok {
		return code
	}
	return r.rest
}

// keeps reports whether the relation's call must leave everything as it is.
func (r *rule) keeps(rel string) bool {
	_, named := r.named[rel]
	return r.want(rel) != 200 || slices.Contains(r.idle, rel) || !named && slices.Contains(r.idle, "rest")
}

// befriended are the relations that include a friendship with the owner.
var befriended = []string{"member", "ex-member", "friend"}

// matrix is the authorisation of the whole API: every endpoint, once for every
// relation to the thing it is about.
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
	}, named: map[string]int{"owner": 1000}},
	{
		name: "GET /friends/:id", rest: 200,
		call: func(s *scene, u *user) answer { return u.get(fmt.Sprintf("/friends/%d", s.owner().ID)) },
		check: func(t *testing.T, s *scene, rel string, a answer) {
			if !slices.Contains(befriended, rel) {
				require.JSONEq(t, "{}", string(a.data), rel)
				return
			}
			require.Equal(t, s.owner().ID, num(a.object()["to_id"]), rel)
			require.Equal(t, s.actors[rel].ID, num(a.object()["form_id"]), rel)
		},
	},
	{
		name: "GET /friends/status/:id", rest: 200,
		call: func(s *scene, u *user) answer { return u.get(fmt.Sprintf("/friends/status/%d", s.owner().ID)) },
		check: func(t *testing.T, _ *scene, rel string, a answer) {
			require.EqualValues(t, 2000, a.object()["status"], rel) // offline, or none of his business
		},
	},
	{
		name: "GET /messages", rest: 200,
		call: func(s *scene, u *user) answer { return u.get(fmt.Sprintf("/messages?to_id=%d", s.owner().ID)) },
		check: func(t *testing.T, _ *scene, rel string, a answer) {
			if rel == "stranger" || rel == "asker" || rel == "owner" {
				require.JSONEq(t, "[]", string(mustMember(t, a.data, "list")), rel)
			}
		},
	},
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
	{name: "DELETE /friends/:id", rest: 200, changes: true, idle: []string{"owner", "stranger", "ex-friend", "asker"}, call: func(s *scene, u *user) answer { return u.del(fmt.Sprintf("/friends/%d", s.owner().ID)) }},

	// a friend request to the owner
	{name: "PUT /friends/record", rest: 500, named: map[string]int{"owner": 200}, changes: true, call: func(s *scene, u *user) answer {
		return u.put("/friends/record", "id", s.record, "status", 1)
	}},

	// the owner's session
	{name: "PUT /sessions/:id", rest: 1000, named: map[string]int{"owner": 200}, call: func(s *scene, u *user) answer {
		return u.put(fmt.Sprintf("/sessions/%d", s.session), "note", "x")
	}},
	{name: "DELETE /sessions/:id", rest: 200, named: map[string]int{"owner": 200}, changes: true, idle: []string{"rest"}, call: func(s *scene, u *user) answer { return u.del(fmt.Sprintf("/sessions/%d", s.session)) }},

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
	{
		name: "POST /messages/recall", rest: 1000, named: map[string]int{"owner": 200},
		prepare: func(t *testing.T, s *scene) {
			t.Helper()
			s.message = num(s.owner().with(t).say(s.actors["friend"], "mine")["msg_id"])
		},
		call: func(s *scene, u *user) answer { return u.post("/messages/recall", "msg_id", s.message) },
	},
	{name: "POST /auth/logout", rest: 200, call: func(_ *scene, u *user) answer {
		guest := *u // with a login of its own to end
		if u.Token != "" {
			guest.login()
		}
		return guest.post("/auth/logout")
	}},

	// what needs no login does not look at one either
	{name: "POST /auth/login", rest: 200, open: true, call: func(s *scene, u *user) answer {
		return u.post("/auth/login", "email", s.owner().Email, "password", password)
	}},
	{name: "POST /auth/registered", rest: 1000, open: true, call: func(s *scene, u *user) answer {
		return u.post("/auth/registered", "email", s.owner().Email, "name", "x"+s.owner().Name, "password", password, "password_repeat", password, "code", "1234")
	}},
	{name: "POST /auth/sendEmailCode", rest: 1000, open: true, call: func(s *scene, u *user) answer {
		return u.post("/auth/sendEmailCode", "email", s.owner().Email, "email_type", 1)
	}},
	{name: "POST /auth/resetPassword", rest: 1000, open: true, call: func(s *scene, u *user) answer {
		return u.post("/auth/resetPassword", "email", s.owner().Email, "code", "12345", "password", "another1", "password_repeat", "another1")
	}},
	{name: "GET /auth/githubLogin", rest: 500, open: true, call: func(_ *scene, u *user) answer { return u.get("/auth/githubLogin?login_type=github&code=") }},
	{name: "GET /auth/oauthUrl", rest: 500, open: true, call: func(_ *scene, u *user) answer { return u.get("/auth/oauthUrl?login_type=nobody") }},
	{name: "POST /auth/refresh", rest: 1000, open: true, call: func(_ *scene, u *user) answer { return u.post("/auth/refresh") }},
	{name: "GET /files/:key/:name", rest: 200, open: true, call: func(s *scene, u *user) answer { return u.file(s.file) }},
	{name: "GET /avatars/:file", rest: 200, open: true, call: func(s *scene, u *user) answer {
		return u.file(fmt.Sprintf("/avatars/%d.png", s.owner().ID))
	}},
}

// denied is a refusal as an application error, 1000 or 1003.
const denied = -1

// file fetches what is no part of the API.
func (u *user) file(path string) answer {
	u.t.Helper()
	resp := u.raw(http.MethodGet, path, nil, "")
	a := answer{t: u.t, what: path, status: resp.StatusCode, code: resp.StatusCode, header: resp.Header}
	a.body = readAll(u.t, resp)
	return a
}

func mustMember(t *testing.T, object json.RawMessage, name string) json.RawMessage {
	t.Helper()
	var m map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(object, &m))
	return m[name]
}

// Each refusal is checked for its code and for saying nothing, and all of them
// for having changed nothing that anybody can see.
func TestMatrix(t *testing.T) {
	s := newScene(t)
	for _, r := range matrix {
		t.Run(strings.ReplaceAll(r.name, "/", "|"), func(t *testing.T) {
			prepare := func() {
				if r.prepare != nil {
					r.prepare(t, s)
				}
			}
			prepare()
			reads := strings.HasPrefix(r.name, http.MethodGet+" ")
			before := ""
			if !reads && slices.ContainsFunc(relations, r.keeps) {
				before = s.state(t)
			}
			for _, rel := range relations {
				if r.keeps(rel) {
					r.judge(t, s, rel)
				}
			}
			if before != "" {
				require.Equal(t, before, s.state(t), "a refusal changed something")
			}
			for _, rel := range relations {
				if !r.keeps(rel) {
					prepare()
					r.judge(t, s, rel)
					if r.changes {
						s.arrange(t)
					}
				}
			}
		})
	}
}

// judge makes the call as somebody of the relation and checks the answer.
func (r *rule) judge(t *testing.T, s *scene, rel string) {
	t.Helper()
	got := r.call(s, s.actors[rel].with(t))
	switch want := r.want(rel); want {
	case denied:
		require.Contains(t, []int{1000, 1003}, got.code, "%s: %s", rel, got.body)
		got.refused(got.code)
	case 200:
		got.ok()
		if r.check != nil {
			r.check(t, s, rel, got)
		}
	default:
		require.Equal(t, want, got.code, "%s: %s", rel, got.body)
		got.refused(want)
	}
}

// An endpoint without a row in the matrix is an endpoint nobody thought about.
func TestMatrix_HasEveryEndpoint(t *testing.T) {
	resp := nobody(t).raw(http.MethodGet, "/swagger/openapi.json", nil, "")
	var doc struct {
		Paths map[string]map[string]struct{}
	}
	a := answer{t: t, what: "openapi"}
	raw := readAll(t, resp)
	a.data = raw
	a.into(&doc)
	have := map[string]bool{}
	for _, r := range matrix {
		words := strings.Fields(r.name)
		have[words[0]+" "+words[1]] = true
	}
	var missing []string
	for path, methods := range doc.Paths {
		for method := range methods {
			name := strings.ToUpper(method) + " " + strings.NewReplacer("{", ":", "}", "").Replace(strings.TrimPrefix(path, "/api"))
			if !have[name] {
				missing = append(missing, name)
			}
		}
	}
	slices.Sort(missing)
	require.Empty(t, missing)
	require.Greater(t, len(doc.Paths), 30)
}
