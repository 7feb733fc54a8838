package conformance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// web is shared by all calls; the web client's own time limit is 20 s.
var web = &http.Client{
	Timeout:       20 * time.Second,
	Transport:     &http.Transport{MaxIdleConnsPerHost: 64, IdleConnTimeout: 10 * time.Second},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

const password = "secret123"

var (
	runID    = strconv.FormatInt(time.Now().UnixMilli()%1e10, 36)
	accounts atomic.Int64
	keys     = time.Now().UnixMilli() * 1000
)

// nextKey is a msg_client_id that nobody used before.
func nextKey() int64 { return atomic.AddInt64(&keys, 1) }

// user is somebody with an account; the zero user is anonymous.
type user struct {
	t    testing.TB
	edge string // where he calls
	lang string // his Accept-Language

	patience time.Duration // with an answer, if it is not the web client's
	ID       int64
	UID      string
	Name     string
	Email    string
	Token    string
}

func nobody(t testing.TB) *user { return &user{t: t, edge: base} }

// newUser registers and logs in. Users are spread over the gateways.
func newUser(t testing.TB) *user {
	t.Helper()
	n := accounts.Add(1)
	u := &user{t: t, edge: edges[int(n)%len(edges)], Name: fmt.Sprintf("u%sx%d", runID, n)}
	u.Email = u.Name + "@example.com"
	a := patiently(func() answer {
		return u.post("/auth/registered", "email", u.Email, "name", u.Name, "password", password, "password_repeat", password, "code", "1234", "email_type", "1")
	})
	require.Contains(t, []int{200, 1000}, a.code, "%s: %s", a.what, a.body) // 1000: an earlier try did it all the same
	u.login()
	return u
}

// patiently repeats a call that is safe to repeat until the system is not too
// busy for it: a machine that builds something else beside is no defect.
func patiently(call func() answer) answer {
	for range 10 {
		a := call()
		if a.code != 500 && a.code != 1001 && a.header.Get("Retry-After") == "" {
			return a
		}
		time.Sleep(500 * time.Millisecond)
	}
	return call()
}

func newUsers(t testing.TB, n int) []*user {
	t.Helper()
	out := make([]*user, n)
	for i := range out {
		out[i] = newUser(t)
	}
	return out
}

func (u *user) login() {
	u.t.Helper()
	a := patiently(func() answer { return u.post("/auth/login", "email", u.Email, "password", password) }).ok()
	var in struct {
		ID         int64
		UID        string
		Token      string
		ExpireTime int64 `json:"expire_time"`
	}
	a.into(&in)
	require.Positive(u.t, in.ID)
	require.NotEmpty(u.t, in.Token)
	u.ID, u.UID, u.Token = in.ID, in.UID, in.Token
}

// with is the same user for a subtest.
func (u *user) with(t testing.TB) *user {
	v := *u
	v.t = t
	return &v
}

// answer is an HTTP answer of the API.
type answer struct {
	t       testing.TB
	what    string
	status  int
	header  http.Header
	body    []byte
	code    int
	message string
	data    json.RawMessage
	reason  string // of a refusal
}

// ok checks for success.
func (a answer) ok() answer {
	a.t.Helper()
	require.Equal(a.t, 200, a.status, "%s: %s", a.what, a.body)
	require.Equal(a.t, 200, a.code, "%s: %s", a.what, a.body)
	var data any
	if json.Unmarshal(a.data, &data) == nil {
		plain(a.t, a.what, data)
	}
	return a
}

// refused checks for a refusal: the code, the status that goes with it, a text
// for people and empty data.
func (a answer) refused(code int) answer {
	a.t.Helper()
	status := 200
	if code == 401 || code == 404 || code == 405 {
		status = code
	}
	require.Equal(a.t, code, a.code, "%s: %s", a.what, a.body)
	require.Equal(a.t, status, a.status, "%s: %s", a.what, a.body)
	require.NotEmpty(a.t, a.message, a.what)
	require.JSONEq(a.t, "{}", string(a.data), a.what)
	return a
}

func (a answer) into(v any) answer {
	a.t.Helper()
	require.NoError(a.t, json.Unmarshal(a.data, v), "%s: %s", a.what, a.data)
	return a
}

// object is the data member as an object.
func (a answer) object() map[string]any {
	a.t.Helper()
	var m map[string]any
	a.into(&m)
	return m
}

// list is the data member as a list of objects.
func (a answer) list() []map[string]any {
	a.t.Helper()
	var l []map[string]any
	a.into(&l)
	return l
}

// call sends a request and takes the envelope apart. Whatever the answer, it
// is one JSON document with exactly the three members, a refusal's reason and
// retry_after beside them, readable cross-origin.
func (u *user) call(method, path string, body io.Reader, contentType string) answer {
	u.t.Helper()
	return u.callAt(method, "/api"+path, body, contentType)
}

// callAt is call for any path.
func (u *user) callAt(method, path string, body io.Reader, contentType string) answer {
	u.t.Helper()
	resp := u.raw(method, path, body, contentType)
	a := answer{t: u.t, what: method + " " + path, status: resp.StatusCode, header: resp.Header}
	var err error
	a.body, err = io.ReadAll(resp.Body)
	require.NoError(u.t, err)
	require.NoError(u.t, resp.Body.Close())
	require.Equal(u.t, "application/json; charset=utf-8", resp.Header.Get("Content-Type"), a.what)
	require.Equal(u.t, "*", resp.Header.Get("Access-Control-Allow-Origin"), a.what)
	require.Empty(u.t, resp.Header.Get("Access-Control-Allow-Credentials"), a.what)
	var env map[string]json.RawMessage
	require.NoError(u.t, json.Unmarshal(a.body, &env), "%s: %s", a.what, a.body)
	require.NoError(u.t, json.Unmarshal(env["code"], &a.code), a.what)
	require.NoError(u.t, json.Unmarshal(env["message"], &a.message), a.what)
	if reason, ok := env["reason"]; ok && a.code != 200 {
		require.NoError(u.t, json.Unmarshal(reason, &a.reason), a.what)
		delete(env, "reason")
		delete(env, "retry_after")
	}
	require.Len(u.t, env, 3, "%s: %s", a.what, a.body)
	require.Contains(u.t, env, "data", "%s: %s", a.what, a.body)
	a.data = env["data"]
	return a
}

// raw sends a request to any path, as the web client does: with its token, and
// with an Origin that is not ours.
func (u *user) raw(method, path string, body io.Reader, contentType string, header ...string) *http.Response {
	u.t.Helper()
	req, err := http.NewRequestWithContext(u.t.Context(), method, u.edge+path, body)
	require.NoError(u.t, err)
	req.Header.Set("Origin", "http://localhost:3000")
	if u.lang != "" {
		req.Header.Set("Accept-Language", u.lang)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	if u.Token != "" {
		req.Header.Set("Authorization", "Bearer "+u.Token)
	} else {
		req.Header.Set("Authorization", "Bearer null") // what the web client sends before a login
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	if host := req.Header.Get("Host"); host != "" {
		req.Host = host
	}
	client := *web
	if u.patience > 0 {
		client.Timeout = u.patience
	}
	resp, err := client.Do(req)
	require.NoError(u.t, err)
	return resp
}

func (u *user) get(path string) answer { u.t.Helper(); return u.call(http.MethodGet, path, nil, "") }

func (u *user) del(path string) answer {
	u.t.Helper()
	return u.call(http.MethodDelete, path, nil, "")
}

// post sends fields the way the web client does: name, value, name, value.
func (u *user) post(path string, fields ...any) answer {
	u.t.Helper()
	return u.multipart(http.MethodPost, path, fields...)
}

func (u *user) put(path string, fields ...any) answer {
	u.t.Helper()
	return u.multipart(http.MethodPut, path, fields...)
}

func (u *user) multipart(method, path string, fields ...any) answer {
	u.t.Helper()
	var buf bytes.Buffer
	w := multipart.NewWriter(&buf)
	for i := 0; i+1 < len(fields); i += 2 {
		require.NoError(u.t, w.WriteField(fmt.Sprint(fields[i]), fmt.Sprint(fields[i+1])))
	}
	require.NoError(u.t, w.Close())
	return u.call(method, path, &buf, w.FormDataContentType())
}

func (u *user) form(method, path string, fields ...any) answer {
	u.t.Helper()
	v := url.Values{}
	for i := 0; i+1 < len(fields); i += 2 {
		v.Add(fmt.Sprint(fields[i]), fmt.Sprint(fields[i+1]))
	}
	return u.call(method, path, strings.NewReader(v.Encode()), "application/x-www-form-urlencoded")
}

func (u *user) json(method, path, body string) answer {
	u.t.Helper()
	return u.call(method, path, strings.NewReader(body), "application/json")
}

// --- what tests build their situations from

// ask makes u ask v to be a friend and returns the record's id.
func (u *user) ask(v *user) int64 {
	u.t.Helper()
	return num(u.post("/friends/record", "to_id", v.ID, "information", "hello").ok().object()["id"])
}

// befriend makes friends of two users and returns the record's id.
func befriend(a, b *user) int64 {
	a.t.Helper()
	id := a.ask(b)
	patiently(func() answer { return b.put("/friends/record", "id", id, "status", 1) }).ok()
	return id
}

// say sends a private message over HTTP.
func (u *user) say(v *user, text string) map[string]any {
	u.t.Helper()
	return u.post("/messages/private", "msg_client_id", nextKey(), "msg_type", 1, "to_id", v.ID, "channel_type", 1, "message", text, "data", "").ok().object()
}

// tell sends a group message over HTTP.
func (u *user) tell(group int64, text string) map[string]any {
	u.t.Helper()
	return u.trySay(group, 2, text).ok().object()
}

func (u *user) trySay(to int64, channel int, text string) answer {
	u.t.Helper()
	return u.post("/messages/private", "msg_client_id", nextKey(), "msg_type", 1, "to_id", to, "channel_type", channel, "message", text)
}

// newGroup makes a group of u's friends; u becomes the owner.
func (u *user) newGroup(members ...*user) int64 {
	u.t.Helper()
	fields := []any{"name", "g" + u.Name[:min(len(u.Name), 18)], "info", "about us", "avatar", base + "/avatars/1.png", "theme", "a,b", "is_pwd", 0, "password", ""}
	for _, m := range members {
		fields = append(fields, "select_user[]", m.ID)
	}
	return num(u.post("/groups/store", fields...).ok().object()["id"])
}

// private is a page of the private history with a peer.
func (u *user) private(peer int64) []map[string]any {
	u.t.Helper()
	return u.page(fmt.Sprintf("/messages?page=&pageSize=200&to_id=%d", peer))
}

func (u *user) group(id int64) []map[string]any {
	u.t.Helper()
	return u.page(fmt.Sprintf("/messages/groups?page=&pageSize=200&to_id=%d", id))
}

func (u *user) page(path string) []map[string]any {
	u.t.Helper()
	var p struct {
		List []map[string]any
		Mate *struct {
			PageSize int
			Page     string
			Total    int
		}
	}
	patiently(func() answer { return u.get(path) }).ok().into(&p)
	require.NotNil(u.t, p.Mate, "mate is always there")
	require.NotNil(u.t, p.List, "list is an array")
	return p.List
}

// session finds the entry of the conversation list with a peer or a group.
func (u *user) session(member string, id int64) map[string]any {
	u.t.Helper()
	for _, s := range u.get("/sessions").ok().list() {
		if num(s[member]) == id {
			return s
		}
	}
	return nil
}

// num is a JSON number as an id, which must be exact in JavaScript.
func num(v any) int64 {
	f, ok := v.(float64)
	if !ok || f != float64(int64(f)) || f > 1<<53-1 {
		panic(fmt.Sprintf("%v (%T) is no id that JavaScript holds", v, v))
	}
	return int64(f)
}

// soon waits for something to become so. It asks in the test's own goroutine,
// which require.Eventually does not: a call that outlived the test would end
// the whole run.
func soon(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(wait); !is(); time.Sleep(50 * time.Millisecond) {
		require.True(t, time.Now().Before(end), what)
	}
}

func texts(rows []map[string]any, member string) []string {
	out := make([]string, 0, len(rows))
	for _, r := range rows {
		s, _ := r[member].(string)
		out = append(out, s)
	}
	return out
}

func readAll(t testing.TB, resp *http.Response) []byte {
	t.Helper()
	raw, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return raw
}
