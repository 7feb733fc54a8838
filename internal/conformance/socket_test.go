package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"
)

// wait is how long an expected frame may take, quiet how long a frame that must
// not come is waited for.
const (
	wait  = 8 * time.Second
	quiet = 400 * time.Millisecond
)

// frame is a frame from the server.
type frame map[string]any

func (f frame) code() int64 { return num(f["msg_code"]) }

// socket is a connection whose frames are kept until somebody asks for them.
type socket struct {
	t    testing.TB
	conn *websocket.Conn
	done chan struct{} // closed when reading has ended

	mu     sync.Mutex
	frames []frame
	latest int64         // code of the newest frame
	news   chan struct{} // capacity 1: something was added
	err    error         // why reading ended
}

func wsURL(u *user, query string) string {
	return strings.Replace(u.edge, "http", "ws", 1) + "/im/connect?token=" + url.QueryEscape(u.Token) + query
}

// connect opens a socket and waits until the server answers on it.
func (u *user) connect(query ...string) *socket {
	u.t.Helper()
	s := u.open(query...)
	s.send(map[string]any{"msg_code": 1004, "message": "ping"})
	s.expect("a pong", func(f frame) bool { return f.code() == 1004 })
	return s
}

// open opens a socket.
func (u *user) open(query ...string) *socket {
	u.t.Helper()
	ctx, cancel := context.WithTimeout(u.t.Context(), wait)
	defer cancel()
	conn, resp, err := websocket.Dial(ctx, wsURL(u, strings.Join(query, "")), &websocket.DialOptions{
		HTTPHeader: http.Header{"Origin": {"http://localhost:3000"}},
	})
	require.NoError(u.t, err)
	if resp.Body != nil {
		_ = resp.Body.Close()
	}
	conn.SetReadLimit(1 << 20)
	s := &socket{t: u.t, conn: conn, done: make(chan struct{}), news: make(chan struct{}, 1)}
	go s.read()
	u.t.Cleanup(s.close)
	return s
}

func (s *socket) close() {
	_ = s.conn.Close(websocket.StatusNormalClosure, "")
	<-s.done
}

// cut ends the connection without a word.
func (s *socket) cut() {
	_ = s.conn.CloseNow()
	<-s.done
}

func (s *socket) read() {
	defer close(s.done)
	for {
		kind, raw, err := s.conn.Read(context.Background())
		s.mu.Lock()
		switch {
		case err != nil:
			s.err = err
		case kind != websocket.MessageText:
			s.err = errors.New("a frame that is not text")
		default:
			var f frame
			if err := json.Unmarshal(raw, &f); err != nil {
				s.err = errors.New("a frame that is not one JSON object: " + string(raw))
			} else {
				s.frames = append(s.frames, f)
				if n, ok := f["msg_code"].(float64); ok {
					s.latest = int64(n)
				}
			}
		}
		ended := s.err != nil
		s.mu.Unlock()
		select {
		case s.news <- struct{}{}:
		default:
		}
		if ended {
			_ = s.conn.CloseNow()
			return
		}
	}
}

func (s *socket) send(v any) {
	s.t.Helper()
	raw, err := json.Marshal(v)
	require.NoError(s.t, err)
	s.sendText(string(raw))
}

func (s *socket) sendText(text string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), wait)
	defer cancel()
	require.NoError(s.t, s.conn.Write(ctx, websocket.MessageText, []byte(text)))
}

// take removes the first kept frame that fits.
func (s *socket) take(fits func(frame) bool) (frame, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, f := range s.frames {
		if fits(f) {
			s.frames = append(s.frames[:i:i], s.frames[i+1:]...)
			return f, true
		}
	}
	return nil, false
}

// expect waits for a frame and takes it; others stay.
func (s *socket) expect(what string, fits func(frame) bool) frame {
	s.t.Helper()
	limit := time.After(wait)
	for {
		if f, ok := s.take(fits); ok {
			return f
		}
		select {
		case <-s.news:
		case <-s.done:
			if f, ok := s.take(fits); ok {
				return f
			}
			require.FailNow(s.t, "the socket ended before "+what, "%v", s.failure())
		case <-limit:
			require.FailNow(s.t, "no "+what, "kept: %v", s.kept())
		}
	}
}

func (s *socket) expectCode(code int64) frame {
	s.t.Helper()
	return s.expect("frame", func(f frame) bool { return f.code() == code })
}

// expectText waits for a chat frame with the text.
func (s *socket) expectText(text string) frame {
	s.t.Helper()
	return s.expect("message "+text, chat(text))
}

func chat(text string) func(frame) bool {
	return func(f frame) bool { return f.code() == 200 && f["message"] == text }
}

// never checks that no such frame comes within a while.
func (s *socket) never(what string, fits func(frame) bool) {
	s.t.Helper()
	time.Sleep(quiet)
	f, ok := s.take(fits)
	require.False(s.t, ok, "%s: %v", what, f)
}

func (s *socket) kept() []frame {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]frame(nil), s.frames...)
}

func (s *socket) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// closed waits for the server to close and returns its code.
func (s *socket) closed() websocket.StatusCode {
	s.t.Helper()
	select {
	case <-s.done:
	case <-time.After(wait):
		require.FailNow(s.t, "the server did not close")
	}
	return websocket.CloseStatus(s.failure())
}

// chatFrame is a message as a client sends it.
func chatFrame(from *user, to int64, channel int, text string) map[string]any {
	return map[string]any{
		"msg_client_id": nextKey(), "msg_code": 200, "form_id": from.ID, "to_id": to,
		"msg_type": 1, "channel_type": channel, "message": text, "data": "",
	}
}

// post sends a chat frame and waits for its ack.
func (s *socket) post(f map[string]any) frame {
	s.t.Helper()
	s.send(f)
	key, _ := f["msg_client_id"].(int64)
	return s.expect("ack", func(a frame) bool { return a.code() == 1005 && num(a["msg_client_id"]) == key })
}
