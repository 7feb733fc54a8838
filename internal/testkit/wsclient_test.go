package testkit_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"im-services/internal/testkit"
)

// script serves one socket with f and answers every REST call with answer.
func script(t *testing.T, answer string, f func(*websocket.Conn)) string {
	t.Helper()
	upgrader := websocket.Upgrader{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/im/connect" {
			_, _ = w.Write([]byte(answer))
			return
		}
		if r.URL.Query().Get("token") != "T" {
			http.Error(w, "no", http.StatusUnauthorized)
			return
		}
		conn, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		f(conn)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func TestWS_KeepsFramesInOrderAndTellsTheCloseCode(t *testing.T) {
	base := script(t, "", func(conn *websocket.Conn) {
		for _, text := range []string{`{"msg_code":2001}`, `{"msg_code":200,"msg_id":5,"message":"a"}`, `{"msg_code":1005,"msg_id":6,"msg_client_id":9}`} {
			_ = conn.WriteMessage(websocket.TextMessage, []byte(text))
		}
		_ = conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(4001, ""), time.Now().Add(time.Second))
	})
	u := &testkit.User{Token: "T"}
	w := u.Connect(t, base, "platform=app")
	if f := w.MustAwait("a chat", func(f testkit.Frame) bool { return f.Code == 200 }); f.ID != 5 || f.Message != "a" {
		t.Errorf("got %+v", f)
	}
	if id := w.Acked(9); id != 6 {
		t.Errorf("acked as %d, want 6", id)
	}
	if code, err := w.CloseCode(5 * time.Second); err != nil || code != 4001 {
		t.Errorf("close code %d, %v; want 4001", code, err)
	}
	if n := len(w.Frames()); n != 3 {
		t.Errorf("%d frames kept, want 3", n)
	}
	if _, err := w.Await(time.Second, func(testkit.Frame) bool { return true }); err == nil {
		t.Error("an ended connection yields another frame")
	}
}

func TestWS_AwaitGivesUpAndARefusedConnectSaysSo(t *testing.T) {
	quiet := make(chan struct{})
	base := script(t, "", func(*websocket.Conn) { <-quiet })
	t.Cleanup(func() { close(quiet) })
	u := &testkit.User{Token: "T"}
	if _, err := u.Connect(t, base, "").Await(50*time.Millisecond, func(testkit.Frame) bool { return true }); err == nil {
		t.Error("a silent server yields a frame")
	}
	u.Token = "other"
	if _, err := u.TryConnect(t, base, ""); err == nil {
		t.Error("a refused connect is no error")
	}
}

func TestUser_TryTellsTheAnswersCode(t *testing.T) {
	base := script(t, `{"code":1000,"message":"no","data":{}}`, nil)
	err := (&testkit.User{}).Try(http.MethodGet, base+"/api/x", nil, nil)
	if rest, ok := errors.AsType[*testkit.RESTError](err); !ok || rest.Code != 1000 || rest.Message != "no" {
		t.Errorf("got %v, want code 1000", err)
	}
}
