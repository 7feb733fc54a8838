package lean

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/stretchr/testify/require"
)

// serve runs f on each connection of a server made with another library.
func serve(t *testing.T, f func(ws *websocket.Conn, r *http.Request)) string {
	t.Helper()
	up := websocket.Upgrader{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer good" {
			http.Error(w, `{"code":401}`, http.StatusUnauthorized)
			return
		}
		ws, err := up.Upgrade(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer ws.Close()
		f(ws, r)
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

func dial(t *testing.T, base string) *Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	c, err := Dial(ctx, base, "good", "pc")
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	return c
}

func TestConn_SpeaksWebSocket(t *testing.T) {
	base := serve(t, func(ws *websocket.Conn, r *http.Request) {
		if r.URL.Path != "/im/connect" || r.URL.Query().Get("platform") != "pc" {
			t.Errorf("asked for %s", r.URL)
		}
		// At once, so that it may come in one piece with the upgrade's answer.
		_ = ws.WriteMessage(websocket.TextMessage, []byte("hello"))
		for {
			kind, p, err := ws.ReadMessage()
			if err != nil {
				return
			}
			_ = ws.WriteMessage(kind, p)
		}
	})
	c := dial(t, base)
	p, err := c.Next()
	require.NoError(t, err)
	require.Equal(t, "hello", string(p))
	for _, n := range []int{0, 1, 125, 126, 1000, firstBuffer, 5000, 65535, 3} {
		want := strings.Repeat("x", n)
		require.NoError(t, c.WriteText([]byte(want)))
		p, err := c.Next()
		require.NoError(t, err)
		require.Equal(t, want, string(p))
	}
	require.Error(t, c.WriteText(make([]byte, 1<<16)))
}

func TestConn_ManyFramesInOneRead(t *testing.T) {
	base := serve(t, func(ws *websocket.Conn, _ *http.Request) {
		for i := range 5000 {
			_ = ws.WriteMessage(websocket.TextMessage, []byte(strings.Repeat("a", i%700)))
		}
		_, _, _ = ws.ReadMessage()
	})
	c := dial(t, base)
	for i := range 5000 {
		p, err := c.Next()
		require.NoError(t, err)
		require.Len(t, p, i%700)
	}
}

func TestConn_AnswersPingsAndReportsTheClose(t *testing.T) {
	pong := make(chan string, 1)
	base := serve(t, func(ws *websocket.Conn, _ *http.Request) {
		ws.SetPongHandler(func(s string) error { pong <- s; return nil })
		_ = ws.WriteControl(websocket.PingMessage, []byte("12345678"), time.Now().Add(time.Second))
		_ = ws.WriteMessage(websocket.TextMessage, []byte("x"))
		_, _, _ = ws.ReadMessage() // the heartbeat, after the pong
		_ = ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(4001, "replaced"), time.Now().Add(time.Second))
		_, _, _ = ws.ReadMessage()
	})
	c := dial(t, base)
	_, err := c.Next()
	require.NoError(t, err)
	require.Equal(t, 1, c.Pings)
	require.NoError(t, c.Heartbeat())
	require.Equal(t, "12345678", <-pong)
	_, err = c.Next()
	var closed *CloseError
	require.ErrorAs(t, err, &closed)
	require.Equal(t, &CloseError{4001, "replaced"}, closed)
}

func TestConn_SendsChatFramesTheServerCanRead(t *testing.T) {
	got := make(chan []byte, 1)
	base := serve(t, func(ws *websocket.Conn, _ *http.Request) {
		_, p, _ := ws.ReadMessage()
		got <- p
	})
	c := dial(t, base)
	c.Lock()
	err := c.SendLocked(&Chat{ClientMsgID: 9, From: 1, To: 2, Kind: 2, Body: []byte(strings.Repeat("b", 100))})
	c.Unlock()
	require.NoError(t, err)
	var frame map[string]any
	require.NoError(t, json.Unmarshal(<-got, &frame))
	require.Equal(t, map[string]any{
		"msg_code": 200., "msg_client_id": 9., "form_id": 1., "to_id": 2., "msg_type": 1., "channel_type": 2.,
		"message": strings.Repeat("b", 100), "data": "",
	}, frame)
}

func TestDial_SaysWhyItWasRefused(t *testing.T) {
	base := serve(t, func(*websocket.Conn, *http.Request) {})
	_, err := Dial(t.Context(), base, "bad", "")
	var refused *RefusedError
	require.ErrorAs(t, err, &refused)
	require.Equal(t, 401, refused.Status)
	_, err = Dial(t.Context(), "https://127.0.0.1", "good", "")
	require.Error(t, err)
}

func TestSendLocked_DoesNotAllocate(t *testing.T) {
	base := serve(t, func(ws *websocket.Conn, _ *http.Request) {
		for {
			if _, _, err := ws.NextReader(); err != nil {
				return
			}
		}
	})
	c := dial(t, base)
	m := &Chat{ClientMsgID: 9, From: 1, To: 2, Kind: 1, Body: []byte(strings.Repeat("b", 100))}
	send := func() {
		c.Lock()
		err := c.SendLocked(m)
		c.Unlock()
		if err != nil {
			t.Error(err)
		}
	}
	send()
	// The server of this test allocates in the same process: leave it room.
	require.Less(t, testing.AllocsPerRun(200, send), 3.0)
}
