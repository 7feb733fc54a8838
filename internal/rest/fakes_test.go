package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	authv1 "im-services/api/proto/auth/v1"
	friendv1 "im-services/api/proto/friend/v1"
	logicv1 "im-services/api/proto/logic/v1"
	"im-services/internal/catalog"
	"im-services/internal/im"
	"im-services/internal/token"
	"im-services/internal/upload"
)

// backend stands in for all services: it answers each method with what a test
// set for it (else with an empty answer) and remembers what it was asked.
type backend struct {
	mu      sync.Mutex
	answers map[string]func(proto.Message) (proto.Message, error)
	asked   map[string][]proto.Message
	users   map[int64]*authv1.User
}

// on sets the answer of a method, by its full name after the package:
// "AuthService/Login". What is sent goes to "Send".
func (b *backend) on(method string, resp proto.Message, err error) {
	b.handle(method, func(proto.Message) (proto.Message, error) { return resp, err })
}

func (b *backend) handle(method string, f func(proto.Message) (proto.Message, error)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answers[method] = f
}

// calls returns the requests a method got.
func (b *backend) calls(method string) []proto.Message {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.asked[method]
}

// last returns the latest request a method got.
func last[T proto.Message](t *testing.T, b *backend, method string) T {
	t.Helper()
	calls := b.calls(method)
	require.NotEmpty(t, calls, "%s was not called", method)
	req, ok := calls[len(calls)-1].(T)
	require.True(t, ok)
	return req
}

// Invoke is grpc.ClientConnInterface: the generated clients run unchanged.
func (b *backend) Invoke(ctx context.Context, full string, args, reply any, _ ...grpc.CallOption) error {
	if err := ctx.Err(); err != nil {
		return im.E(im.KindUnavailable, "service_unavailable", err)
	}
	method := full[strings.Index(full, ".v1.")+len(".v1."):]
	req, out := args.(proto.Message), reply.(proto.Message)
	b.mu.Lock()
	b.asked[method] = append(b.asked[method], proto.Clone(req))
	f := b.answers[method]
	b.mu.Unlock()
	if f == nil {
		return nil
	}
	resp, err := f(req)
	if err != nil {
		return err
	}
	if resp != nil {
		proto.Merge(out, resp)
	}
	return nil
}

func (b *backend) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	panic("the HTTP edge uses no streams")
}

// edge is a running HTTP edge over a backend.
type edge struct {
	*backend
	t       testing.TB
	handler http.Handler
	dir     string // of the uploads
}

const public = "https://im.example"

func newEdge(t testing.TB, change ...func(*Deps)) *edge {
	t.Helper()
	b := &backend{answers: map[string]func(proto.Message) (proto.Message, error){}, asked: map[string][]proto.Message{}, users: map[int64]*authv1.User{}}
	for id, name := range map[int64]string{1: "bot", 34: "alice", 35: "bob", 36: "carol"} {
		b.users[id] = &authv1.User{Id: id, Name: name, Email: name + "@example.com", Bot: id == 1}
	}
	b.handle("AuthService/GetUsers", func(m proto.Message) (proto.Message, error) {
		req, _ := m.(*authv1.GetUsersRequest)
		resp := &authv1.GetUsersResponse{}
		for _, id := range req.GetIds() {
			if u := b.users[id]; u != nil {
				resp.Users = append(resp.Users, u)
			}
		}
		return resp, nil
	})
	dir := filepath.Join(t.TempDir(), "files")
	store, err := upload.Open(context.Background(), upload.Config{Bucket: dir}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(func() { _ = store.Close() })
	deps := Deps{
		Auth: authv1.NewAuthServiceClient(b), Friend: friendv1.NewFriendServiceClient(b),
		Messages: logicv1.NewMessageServiceClient(b), Conversations: logicv1.NewConversationServiceClient(b),
		Groups: logicv1.NewGroupServiceClient(b), Verify: verify, Uploads: store,
		Send: func(ctx context.Context, s *logicv1.Send) (*logicv1.SendResult, error) {
			r := new(logicv1.SendResult)
			return r, b.Invoke(ctx, "gateway.v1.Send", s, r)
		},
		SleptSince: func(time.Time) bool { return false },
		Config:     Config{PublicURL: public},
	}
	for _, f := range change {
		f(&deps)
	}
	h, err := New(deps)
	require.NoError(t, err)
	return &edge{backend: b, t: t, handler: h, dir: dir}
}

// verify knows one token: "alice" is user 34.
func verify(t string) (token.Claims, error) {
	switch t {
	case "alice":
		return token.Claims{
			UserID: 34, Name: "alice", Email: "alice@example.com", Avatar: "/avatars/34.png", SessionID: "s1",
			IssuedAt: time.Unix(1_700_000_000, 0), ExpiresAt: time.Unix(1_800_000_000, 0),
		}, nil
	case "keys-away":
		return token.Claims{}, im.E(im.KindUnavailable, "service_unavailable", nil)
	}
	return token.Claims{}, im.E(im.KindUnauthorized, "token_invalid", nil)
}

// reply is an answer, its envelope taken apart.
type reply struct {
	*httptest.ResponseRecorder
	status  int
	code    int
	message string
	data    string
	reason  string
	after   int64 // retry_after
}

// do sends a request as alice.
func (e *edge) do(method, path string, body io.Reader, header ...string) reply {
	e.t.Helper()
	r := httptest.NewRequest(method, path, body)
	r.Header.Set("Authorization", "Bearer alice")
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return e.send(r)
}

func (e *edge) send(r *http.Request) reply {
	e.t.Helper()
	w := httptest.NewRecorder()
	e.handler.ServeHTTP(w, r)
	out := reply{ResponseRecorder: w, status: w.Code}
	if strings.HasPrefix(w.Header().Get("Content-Type"), "application/json") && w.Body.Len() > 0 {
		var env struct {
			Code    int
			Message string
			Data    json.RawMessage
			Reason  string
			After   int64 `json:"retry_after"`
		}
		dec := json.NewDecoder(bytes.NewReader(w.Body.Bytes()))
		require.NoError(e.t, dec.Decode(&env), w.Body.String())
		require.False(e.t, dec.More(), "one document only: %s", w.Body.String())
		out.code, out.message, out.data, out.reason, out.after = env.Code, env.Message, string(env.Data), env.Reason, env.After
	}
	return out
}

func (e *edge) get(path string) reply { e.t.Helper(); return e.do(http.MethodGet, path, nil) }

// form sends url encoded fields: name, value, name, value.
func (e *edge) form(method, path string, fields ...string) reply {
	e.t.Helper()
	v := url.Values{}
	for i := 0; i+1 < len(fields); i += 2 {
		v.Add(fields[i], fields[i+1])
	}
	return e.do(method, path, strings.NewReader(v.Encode()), "Content-Type", "application/x-www-form-urlencoded")
}

// multipart sends fields the way the web client does.
func (e *edge) multipart(method, path string, fields ...string) reply {
	e.t.Helper()
	var buf bytes.Buffer
	w := multipart.NewWriter(&buf)
	for i := 0; i+1 < len(fields); i += 2 {
		require.NoError(e.t, w.WriteField(fields[i], fields[i+1]))
	}
	require.NoError(e.t, w.Close())
	return e.do(method, path, &buf, "Content-Type", w.FormDataContentType())
}

func (e *edge) json(method, path, body string) reply {
	e.t.Helper()
	return e.do(method, path, strings.NewReader(body), "Content-Type", "application/json")
}

// refused checks that an answer is the refusal with the code.
func (e *edge) refused(r reply, code int) {
	e.t.Helper()
	require.Equal(e.t, httpStatus(code), r.status, r.Body.String())
	require.Equal(e.t, code, r.code, r.Body.String())
	require.JSONEq(e.t, "{}", r.data)
	require.NotEmpty(e.t, r.message)
	_, ok := catalog.Lookup(r.reason)
	require.True(e.t, ok, "a reason of the catalogue: %s", r.Body.String())
}

func (e *edge) ok(r reply) reply {
	e.t.Helper()
	require.Equal(e.t, http.StatusOK, r.status, r.Body.String())
	require.Equal(e.t, 200, r.code, r.Body.String())
	return r
}
