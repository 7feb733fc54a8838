package rest

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"im-services/internal/im"
	"im-services/internal/token"
)

// TestG13_BodiesAreBounded: what stalled requests have brought is bounded, of one
// user and of all who are not logged in. Small requests pass all the same.
func TestG13_BodiesAreBounded(t *testing.T) {
	e := newEdge(t, func(d *Deps) {
		d.Config.BodyLimit, d.Config.BodyBudget = 64<<10, 256<<10
		d.Verify = func(raw string) (token.Claims, error) {
			if n, ok := strings.CutPrefix(raw, "user"); ok {
				return token.Claims{UserID: im.UserID(len(n) + 100)}, nil
			}
			return verify(raw)
		}
	})
	large := strings.Repeat("x", 40<<10)
	login := func(password string) reply {
		return e.form(http.MethodPost, "/api/auth/login", "email", "a@example.com", "password", password)
	}
	send := func(who, text string) reply {
		body := "msg_client_id=7&msg_type=1&to_id=35&message=" + text
		return e.do(http.MethodPost, "/api/messages/private", strings.NewReader(body), "Authorization", who, "Content-Type", urlencoded)
	}
	over := make(chan struct{})
	var stalled sync.WaitGroup
	stall := func(path, who string) {
		body := &stalledBody{rest: []byte("message=" + large), read: make(chan struct{}), over: over}
		stalled.Go(func() { e.do(http.MethodPost, path, body, "Authorization", who, "Content-Type", urlencoded) })
		<-body.read
	}
	busy := func(r reply) {
		t.Helper()
		e.refused(r, 1000)
		require.Equal(t, "bodies_busy", r.reason)
		require.Equal(t, "1", r.Header().Get("Retry-After"))
	}

	e.ok(login(large))
	stall("/api/auth/login", "")
	busy(login(large))
	body := strings.NewReader("password=" + large)
	e.refused(e.do(http.MethodPost, "/api/auth/registered", body, "Content-Type", urlencoded), 1000)
	require.Zero(t, body.Len(), "read away")
	e.ok(login("secret"))

	e.ok(send("alice", large))
	stall("/api/messages/private", "alice")
	busy(send("alice", large))
	e.ok(send("alice", "small"))
	e.ok(send("user", large))

	for _, who := range []string{"user1", "user22", "user333", "user4444"} {
		stall("/api/messages/private", who)
	}
	busy(send("user", large))
	e.ok(send("user", "small"))
	e.ok(login("secret"))

	close(over)
	stalled.Wait()
	e.ok(login(large))
	for range 5 {
		e.ok(send("alice", large)) // what was held is given back
	}
}

// stalledBody brings what it has and then nothing.
type stalledBody struct {
	rest []byte
	read chan struct{} // closed when all of it is read
	over chan struct{} // until then
}

func (b *stalledBody) Read(p []byte) (int, error) {
	if len(b.rest) == 0 {
		close(b.read)
		<-b.over
		return 0, io.ErrUnexpectedEOF
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

// Without a login a body is small.
func TestG13_OpenBodiesAreSmall(t *testing.T) {
	e := newEdge(t)
	password := strings.Repeat("x", 64<<10)
	for _, path := range []string{"login", "registered", "sendEmailCode", "resetPassword", "refresh"} {
		body := strings.NewReader("password=" + password)
		r := e.do(http.MethodPost, "/api/auth/"+path, body, "Content-Type", urlencoded)
		require.Equal(t, "body_too_large", r.reason, path)
		require.Zero(t, body.Len(), "read away")
	}
	escaped := strings.Repeat(`\u4e2d`, 20<<10)
	e.ok(e.json(http.MethodPost, "/api/messages/private", `{"msg_client_id":7,"msg_type":1,"to_id":35,"message":"`+escaped+`"}`))
}

// TestG13_ParametersAreBounded: what is made of a parameter takes many times its bytes.
func TestG13_ParametersAreBounded(t *testing.T) {
	join := func(n int, sep, format string) string {
		out := make([]string, n)
		for i := range out {
			out[i] = fmt.Sprintf(format, i)
		}
		return strings.Join(out, sep)
	}
	part := "--b\r\nContent-Disposition: form-data; name=\"a%d\"\r\n\r\n1\r\n"
	for name, tt := range map[string]struct {
		contentType string
		body        func(n int) string
	}{
		"urlencoded":  {urlencoded, func(n int) string { return join(n, "&", "a%d=0") }},
		"repeated":    {urlencoded, func(n int) string { return join(n, "&", "a=%d") }},
		"multipart":   {"multipart/form-data; boundary=b", func(n int) string { return join(n, "", part) + "--b--\r\n" }},
		"json":        {"application/json", func(n int) string { return "{" + join(n, ",", `"a%d":0`) + "}" }},
		"json nested": {"application/json", func(n int) string { return `{"x":{` + join(n, ",", `"a%d":0`) + "}}" }},
		"json list":   {"application/json", func(n int) string { return `{"x":[` + join(n, ",", `%d`) + "]}" }},
	} {
		const room = 200
		_, err := parseBody(strings.NewReader(tt.body(room)), tt.contentType, room)
		require.NoError(t, err, name)
		_, err = parseBody(strings.NewReader(tt.body(room+1)), tt.contentType, room)
		require.ErrorIs(t, err, errTooMany, name)
	}

	e := newEdge(t)
	e.ok(e.json(http.MethodPost, "/api/auth/login", `{"email":"a@example.com","password":"secret",`+join(maxParameters-2, ",", `"a%d":0`)+"}"))
	r := e.json(http.MethodPost, "/api/auth/login", `{"email":"a@example.com","password":"secret",`+join(maxParameters-1, ",", `"a%d":0`)+"}")
	require.Equal(t, "body_invalid", r.reason)
	list := "group_id=24&type=2&select_user=[1" + strings.Repeat(",1", maxListItems) + "]"
	r = e.do(http.MethodPost, "/api/groups/createOrRemoveUser", strings.NewReader(list), "Content-Type", urlencoded)
	require.Equal(t, "body_invalid", r.reason)
}
