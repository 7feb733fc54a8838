package conformance

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/stretchr/testify/require"
)

// cast are the people and things the examples of the documentation are about.
type cast struct {
	alice, bob, carol, dave *user // alice asks; bob is her friend and in her group, carol her friend, dave a stranger
	group, spare            int64 // of alice; spare is there to be ended
	waiting                 int64 // a request from dave to alice
	session                 int64
	sent                    map[string]any // a message of alice to bob
	refresh                 string
	file                    string
}

// sample is how an operation's example is sent: as whom, and what stands for the
// ids in it.
type sample struct {
	op   string
	as   func(c *cast) *user // alice if nil
	path func(c *cast) map[string]any
	// body replaces members of the example that name somebody or something.
	body func(c *cast) map[string]any
	// query is for what has no body.
	query func(c *cast) url.Values
	code  int // if it is no success: what the endpoint answers without more set up
}

func id(f func(c *cast) int64) func(*cast) map[string]any {
	return func(c *cast) map[string]any { return map[string]any{"id": f(c)} }
}

func group(c *cast) int64   { return c.group }
func bob(c *cast) int64     { return c.bob.ID }
func session(c *cast) int64 { return c.session }

// samples are in an order in which each finds what it needs.
var samples = []sample{
	{op: "POST /api/auth/registered", as: anybody, body: func(c *cast) map[string]any {
		return map[string]any{"email": "doc" + c.alice.Email, "name": "doc" + c.alice.Name}
	}},
	{op: "POST /api/auth/login", as: anybody, body: func(c *cast) map[string]any {
		return map[string]any{"email": c.alice.Email, "password": password}
	}},
	{op: "POST /api/auth/sendEmailCode", as: anybody, body: func(c *cast) map[string]any { return map[string]any{"email": "mail" + c.alice.Email} }},
	{op: "POST /api/auth/resetPassword", as: anybody, body: func(c *cast) map[string]any { return map[string]any{"email": "doc" + c.alice.Email} }},
	{op: "POST /api/auth/refresh", as: anybody, body: func(c *cast) map[string]any { return map[string]any{"refresh_token": c.refresh} }},
	{op: "GET /api/auth/githubLogin", as: anybody, query: func(*cast) url.Values { return url.Values{"code": {"x"}} }, code: 500},
	{op: "GET /api/auth/oauthUrl", as: anybody, query: func(*cast) url.Values { return url.Values{"login_type": {"x"}} }, code: 500},
	{op: "POST /api/auth/ws-ticket"},

	{op: "GET /api/user/{id}", path: id(bob)},
	{op: "GET /api/address/list"},
	{op: "POST /api/address/list"},
	{op: "GET /api/sessions"},
	{op: "POST /api/sessions", body: id(bob)},
	{op: "PUT /api/sessions/{id}", path: id(session)},
	{op: "GET /api/friends"},
	{op: "POST /api/friends"},
	{op: "GET /api/friends/{id}", path: id(bob)},
	{op: "GET /api/friends/status/{id}", path: id(bob)},
	{op: "GET /api/friends/userQuery", query: func(c *cast) url.Values { return url.Values{"email": {c.dave.Email}} }},
	{op: "GET /api/friends/record"},
	{op: "PUT /api/friends/record", body: id(func(c *cast) int64 { return c.waiting })},
	{op: "POST /api/friends/record", as: func(c *cast) *user { return c.dave }, body: func(c *cast) map[string]any { return map[string]any{"to_id": c.bob.ID} }},

	{op: "GET /api/groups/list"},
	{op: "POST /api/groups/store", body: func(c *cast) map[string]any { return map[string]any{"select_user[]": []int64{c.bob.ID}} }},
	{op: "GET /api/groups/info/{id}", path: id(group)},
	{op: "GET /api/groups/users/{id}", path: id(group)},
	{op: "PUT /api/groups/info/{id}", path: id(group)},
	{op: "PUT /api/groups/{id}/announcement", path: id(group)},
	{op: "POST /api/groups/createOrRemoveUser", body: func(c *cast) map[string]any {
		return map[string]any{"group_id": c.group, "select_user[]": []int64{c.carol.ID}}
	}},
	{op: "POST /api/groups/applyJoin/{id}", as: func(c *cast) *user { return c.dave }, path: id(group)},
	{op: "POST /api/groups/{id}/role", path: id(group), body: func(c *cast) map[string]any { return map[string]any{"user_id": c.carol.ID} }},
	{op: "POST /api/groups/{id}/mute", path: id(group), body: func(c *cast) map[string]any { return map[string]any{"user_id": c.bob.ID} }},
	{op: "POST /api/invite/{id}", path: id(group)},

	{op: "POST /api/messages/private", body: func(c *cast) map[string]any { return map[string]any{"to_id": c.bob.ID} }},
	{op: "POST /api/messages/group", body: func(c *cast) map[string]any { return map[string]any{"to_id": c.group} }},
	{op: "GET /api/messages", query: func(c *cast) url.Values {
		return url.Values{"to_id": {fmt.Sprint(c.bob.ID)}, "page": {""}, "pageSize": {"20"}}
	}},
	{op: "GET /api/messages/groups", query: func(c *cast) url.Values { return url.Values{"to_id": {fmt.Sprint(c.group)}} }},
	{op: "POST /api/messages/recall", body: func(c *cast) map[string]any { return map[string]any{"msg_id": num(c.sent["msg_id"])} }},
	{op: "POST /api/messages/read", as: func(c *cast) *user { return c.bob }, body: func(c *cast) map[string]any { return map[string]any{"to_id": c.alice.ID} }},
	{op: "GET /api/messages/unread", as: func(c *cast) *user { return c.bob }},
	{op: "POST /api/messages/video", body: func(c *cast) map[string]any { return map[string]any{"to_id": c.bob.ID} }},
	{op: "POST /api/sync", body: func(c *cast) map[string]any {
		return map[string]any{"cursors": []any{map[string]any{"conversation_id": num(c.sent["conversation_id"]), "seq": 0}}, "epoch": ""}
	}},
	{op: "POST /api/upload/file"},
	{op: "GET /files/{key}/{name}", as: anybody},
	{op: "GET /avatars/{file}", as: anybody, path: func(c *cast) map[string]any { return map[string]any{"file": fmt.Sprintf("%d.png", c.bob.ID)} }},

	{op: "POST /api/groups/{id}/handOver", path: id(group), body: func(c *cast) map[string]any { return map[string]any{"user_id": c.bob.ID} }},
	{op: "DELETE /api/groups/{id}", path: id(group)},
	{op: "DELETE /api/groups/logout/{id}", as: func(c *cast) *user { return c.carol }, path: id(group)},
	{op: "POST /api/groups/{id}/dissolve", path: id(func(c *cast) int64 { return c.spare })},
	{op: "DELETE /api/sessions/{id}", path: id(session)},
	{op: "DELETE /api/friends/{id}", path: id(bob)},
	{op: "POST /api/auth/logout"},
}

func anybody(c *cast) *user { return nobody(c.alice.t) }

// Every operation of the documentation is sent as its example says and answered
// as its example says, in each encoding a body may have.
func TestOpenAPI_ExamplesAreTrue(t *testing.T) {
	raw := readAll(t, nobody(t).raw(http.MethodGet, "/swagger/openapi.json", nil, ""))
	doc, err := openapi3.NewLoader().LoadFromData(raw)
	require.NoError(t, err)
	var documented []string
	for path, item := range doc.Paths.Map() {
		for method := range item.Operations() {
			documented = append(documented, method+" "+path)
		}
	}
	sent := make([]string, 0, len(samples))
	for _, s := range samples {
		sent = append(sent, s.op)
	}
	require.ElementsMatch(t, documented, sent, "every operation, once")

	for _, encoding := range []string{"application/json", "multipart/form-data", "application/x-www-form-urlencoded"} {
		t.Run(encoding, func(t *testing.T) {
			c := newCast(t)
			bob := c.bob.connect() // to be rung, and online
			for _, s := range samples {
				method, path, _ := strings.Cut(s.op, " ")
				op := doc.Paths.Value(path).GetOperation(method)
				a := s.send(t, c, method, path, op, encoding)
				if s.code != 0 {
					a.refused(s.code)
					continue
				}
				require.Equal(t, 200, a.status, "%s: %s", a.what, a.body)
				if media := op.Responses.Status(200).Value.Content["application/json"]; media != nil {
					a.ok()
					var body any
					require.NoError(t, json.Unmarshal(a.body, &body))
					require.NoError(t, media.Schema.Value.VisitJSON(body, openapi3.EnableJSONSchema2020()), "%s: %s", a.what, a.body)
					require.NotNil(t, media.Example, a.what)
					require.Empty(t, differences("", media.Example, body), "%s: %s", a.what, a.body)
				}
			}
			bob.close()
		})
	}
}

func newCast(t *testing.T) *cast {
	t.Helper()
	us := newUsers(t, 4)
	c := &cast{alice: us[0], bob: us[1], carol: us[2], dave: us[3]}
	befriend(c.alice, c.bob)
	befriend(c.alice, c.carol)
	c.group, c.spare = c.alice.newGroup(c.bob), c.alice.newGroup()
	c.waiting = c.dave.ask(c.alice)
	c.session = num(c.alice.session("to_id", c.bob.ID)["id"])
	c.sent = c.alice.say(c.bob, "hi")
	login := nobody(t).post("/auth/login", "email", c.bob.Email, "password", password).ok().object()
	c.refresh, _ = login["refresh_token"].(string)
	url, _ := c.alice.upload("a.txt", []byte("a")).ok().object()["file_url"].(string)
	c.file = url[strings.Index(url, "/files/"):]
	return c
}

// send makes the call of an example.
func (s *sample) send(t *testing.T, c *cast, method, path string, op *openapi3.Operation, encoding string) answer {
	t.Helper()
	u := c.alice
	if s.as != nil {
		u = s.as(c)
	}
	u = u.with(t)
	switch s.op {
	case "POST /api/upload/file":
		return u.upload("photo.png", []byte("\x89PNG\r\n\x1a\n"))
	case "GET /files/{key}/{name}":
		return u.file(c.file)
	}
	if s.path != nil {
		for name, v := range s.path(c) {
			path = strings.ReplaceAll(path, "{"+name+"}", fmt.Sprint(v))
		}
	}
	if strings.HasPrefix(path, "/avatars/") {
		return u.file(path)
	}
	if s.query != nil {
		path += "?" + s.query(c).Encode()
	}
	path = strings.TrimPrefix(path, "/api")
	if op.RequestBody == nil {
		return u.call(method, path, nil, "")
	}
	examples := op.RequestBody.Value.Content[encoding].Schema.Value.Examples
	require.NotEmpty(t, examples, "%s has no example of a body", s.op)
	body, ok := examples[0].(map[string]any)
	require.True(t, ok, s.op)
	body = maps.Clone(body)
	if s.body != nil {
		for name, v := range s.body(c) {
			require.Contains(t, body, name, "%s: the example names nobody as %s", s.op, name)
			body[name] = v
		}
	}
	if _, ok := body["msg_client_id"]; ok {
		body["msg_client_id"] = nextKey()
	}
	if encoding == "application/json" {
		raw, err := json.Marshal(body)
		require.NoError(t, err)
		return u.json(method, path, string(raw))
	}
	var fields []any
	for _, name := range slices.Sorted(maps.Keys(body)) {
		switch v := body[name].(type) {
		case []int64:
			for _, n := range v {
				fields = append(fields, name, n)
			}
		case []any:
			raw, err := json.Marshal(v)
			require.NoError(t, err)
			fields = append(fields, name, string(raw))
		case float64:
			fields = append(fields, name, int64(v))
		default:
			fields = append(fields, name, v)
		}
	}
	if encoding == "multipart/form-data" {
		return u.multipart(method, path, fields...)
	}
	return u.form(method, path, fields...)
}

// mayBeAbsent are members that an answer may have or not.
var mayBeAbsent = map[string]bool{"last_message": true}

// differences are the members that one of two values has and the other has not,
// or has as another type. Lists are compared by their first elements.
func differences(at string, want, got any) (out []string) {
	switch w := want.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok {
			return []string{fmt.Sprintf("%s is %T", at, got)}
		}
		for name := range w {
			if _, ok := g[name]; ok {
				out = append(out, differences(at+"."+name, w[name], g[name])...)
			} else if !mayBeAbsent[name] {
				out = append(out, at+"."+name+" is not answered")
			}
		}
		for name := range g {
			if _, ok := w[name]; !ok && !mayBeAbsent[name] {
				out = append(out, at+"."+name+" is not documented")
			}
		}
	case []any:
		g, ok := got.([]any)
		if !ok {
			return []string{fmt.Sprintf("%s is %T", at, got)}
		}
		if len(w) > 0 && len(g) > 0 {
			out = differences(at+"[0]", w[0], g[0])
		}
	default:
		if fmt.Sprintf("%T", want) != fmt.Sprintf("%T", got) {
			out = append(out, fmt.Sprintf("%s is %T, documented as %T", at, got, want))
		}
	}
	return out
}
