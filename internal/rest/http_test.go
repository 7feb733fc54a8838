package rest

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	authv1 "im-services/api/proto/auth/v1"
	"im-services/internal/catalog"
	"im-services/internal/im"
	"im-services/internal/token"
)

func TestToken_WhereItIsFound(t *testing.T) {
	e := newEdge(t)
	tests := []struct {
		name, query, header string
		status              int
	}{
		{"header", "", "Bearer alice", 200},
		{"header without prefix", "", "alice", 200},
		{"header, prefix in lower case", "", "bearer alice", 200},
		{"query", "?token=alice", "", 200},
		{"query with prefix", "?token=Bearer+alice", "", 200},
		{"query decides alone", "?token=bad", "Bearer alice", 401},
		{"good query, bad header", "?token=alice", "Bearer null", 200},
		{"empty query falls back", "?token=", "Bearer alice", 200},
		{"none", "", "", 401},
		{"client before login", "", "Bearer null", 401},
		{"only the prefix", "", "Bearer ", 401},
		{"malformed query beside it", "?%zz&token=alice", "", 200},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodGet, "/api/user/35"+tt.query, nil)
			if tt.header != "" {
				r.Header.Set("Authorization", tt.header)
			}
			got := e.send(r)
			require.Equal(t, tt.status, got.status, got.Body.String())
			require.Equal(t, tt.status, got.code)
			require.Equal(t, "*", got.Header().Get("Access-Control-Allow-Origin"))
			if tt.status == 401 {
				require.JSONEq(t, "{}", got.data)
			}
		})
	}
}

// A gateway that has not got its keys yet must not log people out.
func TestToken_KeysAway_IsNot401(t *testing.T) {
	e := newEdge(t)
	e.refused(e.do(http.MethodGet, "/api/sessions", nil, "Authorization", "keys-away"), 500)
}

func TestLogin_IgnoresAuthorization(t *testing.T) {
	e := newEdge(t)
	e.on("AuthService/Login", &authv1.LoginResponse{Login: &authv1.LoggedIn{User: e.users[34], AccessToken: "t", ExpiresAt: 5, TtlSeconds: 4, RefreshToken: "r"}}, nil)
	r := e.ok(e.do(http.MethodPost, "/api/auth/login", strings.NewReader("email=alice@example.com&password=secret"),
		"Authorization", "Bearer null", "Content-Type", "application/x-www-form-urlencoded"))
	require.JSONEq(t, `{"id":34,"uid":"`+im.UserID(34).UID()+`","name":"alice","email":"alice@example.com",
		"avatar":"https://im.example/avatars/34.png","token":"t","expire_time":5,"ttl":4,"refresh_token":"r"}`, r.data)
	require.Equal(t, "secret", last[*authv1.LoginRequest](t, e.backend, "AuthService/Login").GetPassword())
}

// What is limited per address has to know it.
func TestOpen_TellsTheAddress(t *testing.T) {
	e := newEdge(t)
	e.on("AuthService/Refresh", &authv1.RefreshResponse{Login: &authv1.LoggedIn{AccessToken: "t"}}, nil)
	e.ok(e.form(http.MethodPost, "/api/auth/refresh", "refresh_token", "x"))
	require.Equal(t, "192.0.2.1", last[*authv1.RefreshRequest](t, e.backend, "AuthService/Refresh").GetPeerIp())
}

// D1: application errors are HTTP 200, login failures all have code 500.
func TestLogin_Failures(t *testing.T) {
	e := newEdge(t)
	e.refused(e.form(http.MethodPost, "/api/auth/login"), 500)
	e.refused(e.form(http.MethodPost, "/api/auth/login", "email", "a@b.cn"), 500)
	e.refused(e.do(http.MethodPost, "/api/auth/login", strings.NewReader("{"), "Content-Type", "application/json"), 500)
	e.on("AuthService/Login", nil, im.E(im.KindUnauthorized, "unauthorized", nil))
	e.refused(e.form(http.MethodPost, "/api/auth/login", "email", "a@b.cn", "password", "x"), 500)
	e.on("AuthService/Login", nil, im.E(im.KindInvalid, "email_invalid", nil))
	e.refused(e.form(http.MethodPost, "/api/auth/login", "email", "a@b.cn", "password", "x"), 500)
	e.on("AuthService/Login", nil, &im.Error{Kind: im.KindExhausted, Reason: "uploads_busy", RetryAfter: 1500e6})
	r := e.form(http.MethodPost, "/api/auth/login", "email", "a@b.cn", "password", "x")
	e.refused(r, 1000)
	require.Equal(t, "2", r.Header().Get("Retry-After"))
	require.JSONEq(t, `{"code":1000,"message":"`+r.message+`","data":{},"reason":"uploads_busy","retry_after":2}`, r.Body.String())
}

func TestErrors_Language(t *testing.T) {
	e := newEdge(t)
	require.Regexp(t, `\p{Han}`, e.get("/api/user/99").message)
	en := e.do(http.MethodGet, "/api/user/99", nil, "Accept-Language", "en-US")
	require.NotRegexp(t, `\p{Han}`, en.message)
	e.refused(en, 1000)
}

func TestErrors_NothingInternalGetsOut(t *testing.T) {
	var log bytes.Buffer
	e := newEdge(t, func(d *Deps) { d.Log = slog.New(slog.NewJSONHandler(&log, nil)) })
	e.on("ConversationService/ListSessions", nil, errors.New("SELECT secret FROM x"))
	r := e.get("/api/sessions")
	e.refused(r, 500)
	require.NotContains(t, r.Body.String(), "SELECT")
	require.Contains(t, log.String(), "SELECT", "the cause is in the log")

	e.handle("ConversationService/ListSessions", func(proto.Message) (proto.Message, error) { panic("stack and all") })
	r = e.get("/api/sessions")
	e.refused(r, 500)
	require.NotContains(t, r.Body.String(), "stack")
	require.Equal(t, "*", r.Header().Get("Access-Control-Allow-Origin"))
	require.Contains(t, log.String(), r.Header().Get("X-Request-Id"))

	e.on("ConversationService/ListSessions", nil, im.E(im.KindForbidden, "a_reason_nobody_catalogued", nil))
	r = e.get("/api/sessions")
	e.refused(r, 500)
	require.Equal(t, catalog.Internal, r.reason)
}

func TestUnknownRoutesAndMethods(t *testing.T) {
	e := newEdge(t)
	for _, auth := range []string{"", "Bearer alice"} {
		for _, path := range []string{"/api/nothing", "/", "/api/", "/api/user/", "/api/auth/login/x", "/files/x", "/robots.txt"} {
			r := e.do(http.MethodGet, path, nil, "Authorization", auth)
			require.Equal(t, 404, r.status, path)
			require.Equal(t, 404, r.code, path)
			require.Equal(t, "*", r.Header().Get("Access-Control-Allow-Origin"))
		}
		for path, allow := range map[string]string{
			"/api/auth/login": "OPTIONS, POST", "/api/groups/store": "OPTIONS, POST", "/api/sessions/": "OPTIONS, GET, POST",
			"/api/upload/file": "OPTIONS, POST", "/api/messages/private": "OPTIONS, POST",
		} {
			r := e.do(http.MethodPatch, path, nil, "Authorization", auth)
			require.Equal(t, 405, r.status, path)
			require.Equal(t, 405, r.code, path)
			require.Equal(t, allow, r.Header().Get("Allow"), path)
		}
		r := e.do(http.MethodGet, "/api/groups/store", nil, "Authorization", auth)
		require.Equal(t, 405, r.status)
	}
}

// A fixed path is no id of the route beside it.
func TestUnknownMethods_OfFixedPaths(t *testing.T) {
	e := newEdge(t)
	for path, allow := range map[string]string{
		"/api/friends/record": "OPTIONS, GET, POST, PUT", "/api/friends/userQuery": "OPTIONS, GET", "/api/groups/list/": "OPTIONS, GET",
		"/api/groups/store": "OPTIONS, POST", "/api/groups/createOrRemoveUser": "OPTIONS, POST", "/api/friends/%72ecord": "OPTIONS, GET, POST, PUT",
	} {
		r := e.do(http.MethodDelete, path, nil)
		e.refused(r, 405)
		require.Equal(t, allow, r.Header().Get("Allow"), path)
	}
	r := e.do(http.MethodDelete, "/api/friends/records", nil)
	e.refused(r, 1000)
	require.Equal(t, "id_invalid", r.reason, "not a fixed path")
	e.ok(e.do(http.MethodDelete, "/api/friends/35", nil))
}

func TestTrailingSlash_ServedDirectly(t *testing.T) {
	e := newEdge(t)
	for _, path := range []string{"/api/friends/", "/api/sessions/", "/api/messages/?to_id=0", "/api/friends/record/", "/api/user/35/", "/api/%75ser/3%35"} {
		e.ok(e.get(path))
	}
	e.ok(e.do(http.MethodDelete, "/api/sessions/5/", nil))
}

func TestPreflight(t *testing.T) {
	e := newEdge(t)
	for _, path := range []string{"/api/sessions", "/api/nothing", "/", "/files/a/b.png", "/avatars/1.png", "/im/connect"} {
		r := e.do(http.MethodOptions, path, nil, "Authorization", "", "Origin", "http://localhost:3000",
			"Access-Control-Request-Method", "PUT", "Access-Control-Request-Headers", "authorization")
		require.Equal(t, http.StatusNoContent, r.status, path)
		h := r.Header()
		require.Equal(t, "*", h.Get("Access-Control-Allow-Origin"))
		require.Equal(t, "POST, GET, OPTIONS, DELETE, PATCH, PUT", h.Get("Access-Control-Allow-Methods"))
		require.Equal(t, "Content-Type, AccessToken, X-CSRF-Token, Authorization, Token, x-token", h.Get("Access-Control-Allow-Headers"))
		require.Equal(t, "Content-Length, Content-Type", h.Get("Access-Control-Expose-Headers"))
		require.NotEmpty(t, h.Get("Access-Control-Max-Age"))
		require.Empty(t, h.Get("Access-Control-Allow-Credentials"))
	}
}

func TestAccessLog_HasNoSecrets(t *testing.T) {
	var log bytes.Buffer
	e := newEdge(t, func(d *Deps) {
		d.Log = slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	for _, q := range []string{"?token=alice", "?%74oken=alice", "?TOKEN=alice&x", "?a;token=alice", "?token=alice&token=alice", "?token=%zzalice"} {
		e.do(http.MethodGet, "/api/user/35"+q, nil, "Authorization", "Bearer alice")
	}
	e.form(http.MethodPost, "/api/auth/login", "email", "a@b.cn", "password", "alice")
	require.NotContains(t, log.String(), "alice")
	require.Contains(t, log.String(), `"route":"/api/user/{id}"`)
	require.Contains(t, log.String(), `"user":34`)
}

// The key of a file is all that protects it: whatever becomes of a request for
// it, no log holds a link that works.
func TestAccessLog_HasNoLinksToFiles(t *testing.T) {
	var log bytes.Buffer
	e := newEdge(t, func(d *Deps) {
		d.Log = slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	path := e.uploaded("Report.pdf", []byte("x"))
	key := strings.Split(path, "/")[2]
	require.Equal(t, 200, e.get(path).status)
	require.Equal(t, 404, e.get("/files/"+key).status)
	require.Equal(t, 404, e.get("/"+path).status)
	require.Equal(t, 404, e.get(path+"/x").status)
	require.Equal(t, 405, e.do(http.MethodDelete, path, nil).status)
	require.NoError(t, os.Remove(filepath.Join(e.dir, key)))
	require.NoError(t, os.Symlink(key, filepath.Join(e.dir, key))) // cannot be opened
	require.Equal(t, 503, e.get(path).status)
	require.NotContains(t, log.String(), key)
	require.NotContains(t, log.String(), "Report")
	mark := `"path":"/files/` + keyMark(key) + `","route":"/files/{key}/{name}"`
	require.Equal(t, 2, strings.Count(log.String(), mark), "one file is told from another:\n%s", &log)
}

func TestHead(t *testing.T) {
	e := newEdge(t)
	r := e.do(http.MethodHead, "/avatars/5.png", nil)
	require.Equal(t, 200, r.status)
	require.Equal(t, "image/png", r.Header().Get("Content-Type"))
}

func TestNew_RefusesWhatCannotWork(t *testing.T) {
	var whole Deps
	newEdge(t, func(d *Deps) { whole = *d })
	for name, tt := range map[string]struct {
		change func(*Deps)
		says   string
	}{
		"public url missing":  {func(d *Deps) { d.Config.PublicURL = "" }, "public_url"},
		"public url relative": {func(d *Deps) { d.Config.PublicURL = "im.example" }, "public_url"},
		"public url scheme":   {func(d *Deps) { d.Config.PublicURL = "javascript:alert(1)" }, "public_url"},
		"zone":                {func(d *Deps) { d.Config.TimeZone = "Nowhere/Atlantis" }, "time_zone"},
		"negative limit":      {func(d *Deps) { d.Config.UploadLimit = -1 }, "negative"},
		"negative downloads":  {func(d *Deps) { d.Config.Downloads = -1 }, "negative"},
		"no room for a body":  {func(d *Deps) { d.Config.BodyBudget = 1 }, "body_budget"},
		"no verifier":         {func(d *Deps) { d.Verify = nil }, "dependency"},
		"no auth":             {func(d *Deps) { d.Auth = nil }, "dependency"},
		"no uploads":          {func(d *Deps) { d.Uploads = nil }, "dependency"},
	} {
		deps := whole
		tt.change(&deps)
		_, err := New(deps)
		require.ErrorContains(t, err, tt.says, name)
	}
}

func TestDeadline_EndsTheWork(t *testing.T) {
	e := newEdge(t, func(d *Deps) { d.Config.RequestTimeout = 1 })
	e.refused(e.get("/api/sessions"), 500)
}

// A body that keeps its pace may take longer than the work on it.
func TestDeadline_BeginsWithTheWork(t *testing.T) {
	e := newEdge(t)
	synctest.Test(t, func(*testing.T) {
		late := readerFunc(func([]byte) (int, error) {
			time.Sleep(paceWindow - time.Second)
			return 0, io.EOF
		})
		body := io.MultiReader(strings.NewReader("msg_client_id=7&msg_type=1&to_id=35&message=x"), late)
		e.ok(e.do(http.MethodPost, "/api/messages/private", body, "Content-Type", urlencoded))
	})
}

// TestG16_ALoginThatEndsWhileTheBodyComesIsOver: the last byte may come minutes after
// the first, and the token have been revoked in between.
func TestG16_ALoginThatEndsWhileTheBodyComesIsOver(t *testing.T) {
	var over atomic.Bool
	e := newEdge(t, func(d *Deps) {
		d.Verify = func(raw string) (token.Claims, error) {
			if over.Load() {
				return token.Claims{}, im.E(im.KindUnauthorized, "token_revoked", nil)
			}
			return verify(raw)
		}
	})
	part, multi := filePart(t, "file", "x.txt", []byte("x"))
	file, err := io.ReadAll(part)
	require.NoError(t, err)
	for path, req := range map[string]struct{ body, kind string }{
		"/api/messages/private": {"msg_client_id=7&msg_type=1&to_id=35&message=x", urlencoded},
		"/api/sync":             {"{}", "application/json"},
		"/api/upload/file":      {string(file), multi},
	} {
		synctest.Test(t, func(t *testing.T) {
			over.Store(false)
			late := readerFunc(func([]byte) (int, error) {
				time.Sleep(paceWindow - time.Second)
				over.Store(true)
				return 0, io.EOF
			})
			half := len(req.body) / 2
			body := io.MultiReader(strings.NewReader(req.body[:half]), late, strings.NewReader(req.body[half:]))
			r := e.do(http.MethodPost, path, body, "Content-Type", req.kind)
			require.Equal(t, http.StatusUnauthorized, r.Code, path)
		})
	}
	require.Empty(t, e.calls("MessageService/Send"))
	require.Empty(t, e.calls("ConversationService/RegisterUpload"))
	require.Zero(t, files(t, e.dir), "what is refused does not stay")
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// timed records the deadlines that are set.
type timed struct {
	*httptest.ResponseRecorder

	read, write []time.Time
}

func (d *timed) SetReadDeadline(t time.Time) error  { d.read = append(d.read, t); return nil }
func (d *timed) SetWriteDeadline(t time.Time) error { d.write = append(d.write, t); return nil }

func TestDeadlines_OfTheConnection(t *testing.T) {
	e := newEdge(t)
	path := e.uploaded("x.txt", []byte("x"))
	for _, target := range []string{path, "/avatars/5.png", "/api/user/35"} {
		w := &timed{ResponseRecorder: httptest.NewRecorder()}
		r := httptest.NewRequest(http.MethodGet, target, nil)
		r.Header.Set("Authorization", "alice")
		e.handler.ServeHTTP(w, r)
		require.Equal(t, 200, w.Code)
		require.Empty(t, w.read, "net/http would end a long download at it: %s", target)
		require.NotEmpty(t, w.write, target)
	}
	w := &timed{ResponseRecorder: httptest.NewRecorder()}
	r := httptest.NewRequest(http.MethodPost, "/api/messages/read", strings.NewReader("to_id=35"))
	r.Header.Set("Authorization", "alice")
	e.handler.ServeHTTP(w, r)
	require.NotEmpty(t, w.read)
	require.False(t, w.read[0].IsZero(), "a body has to come")
	require.True(t, w.read[len(w.read)-1].IsZero(), "and has come")
}

// A refusal that needs no body waits for it all the same: a browser that is
// still sending would show a network error instead.
func TestRefusals_ReadTheBodyAway(t *testing.T) {
	e := newEdge(t)
	for path, status := range map[string]int{"/api/upload/file": 401, "/api/sessions": 401, "/api/nothing": 404, "/api/groups/list": 405} {
		body := strings.NewReader(strings.Repeat("x", 3<<20))
		r := e.do(http.MethodPost, path, body, "Authorization", "")
		require.Equal(t, status, r.status, path)
		require.Zero(t, body.Len(), path)
	}
	body := strings.NewReader("x")
	e.do(http.MethodPost, "/api/upload/file", body, "Authorization", "", "Expect", "100-continue")
	require.Equal(t, 1, body.Len(), "who asks first is told before he sends")
}

func TestLogin_IsSeenAtOnce(t *testing.T) {
	e := newEdge(t)
	e.ok(e.get("/api/user/34"))
	fresh, _ := proto.Clone(e.users[34]).(*authv1.User)
	fresh.LastLoginAtMs = 1657111889000
	e.on("AuthService/Login", &authv1.LoginResponse{Login: &authv1.LoggedIn{User: fresh}}, nil)
	e.ok(e.form(http.MethodPost, "/api/auth/login", "email", "alice@example.com", "password", "secret"))
	require.Contains(t, e.ok(e.get("/api/user/34")).data, `"last_login_time":"2022-07-06 20:51:29"`)
}
