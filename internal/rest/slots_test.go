package rest

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"im-services/internal/im"
	"im-services/internal/token"
)

// TestG13_UnreadPagesAreBounded: who does not read his pages gets no more of them
// built, and takes nothing from others.
func TestG13_UnreadPagesAreBounded(t *testing.T) {
	e := newEdge(t, func(d *Deps) {
		d.Config.ReadsPerUser = 2
		d.Verify = func(raw string) (token.Claims, error) {
			if raw == "Bob" {
				return token.Claims{UserID: 35}, nil
			}
			return verify(raw)
		}
	})
	e.on("MessageService/History", firstPage(200, strings.Repeat("x", 60<<10)), nil) // more than sockets buffer
	srv, _ := e.listen()
	for range 2 {
		conn := dialEdge(t, srv)
		ask(t, conn)
		_, err := io.ReadFull(conn, make([]byte, 1000)) // it is being written
		require.NoError(t, err)
		defer func() { _ = conn.Close() }()
	}
	for _, path := range []string{"/api/messages?to_id=35", "/api/messages/groups?to_id=24"} {
		r := e.get(path)
		e.refused(r, 1000)
		require.Equal(t, "1", r.Header().Get("Retry-After"))
	}
	body := strings.NewReader("limit=10")
	e.refused(e.do(http.MethodPost, "/api/sync", body, "Content-Type", "application/x-www-form-urlencoded"), 1000)
	require.Zero(t, body.Len(), "read away")
	require.Len(t, e.calls("MessageService/History"), 2)
	e.ok(e.get("/api/sessions"))
	e.ok(e.do(http.MethodGet, "/api/messages?to_id=34", nil, "Authorization", "Bob"))
	srv.CloseClientConnections()
	require.Eventually(t, func() bool { return e.get("/api/messages?to_id=35").code == 200 }, 5*time.Second, 10*time.Millisecond)
	for range 3 {
		e.ok(e.get("/api/messages?to_id=35")) // a slot is given back
	}
}

// Nothing is remembered of users for whom nothing runs.
func TestSlots_AreGivenBack(t *testing.T) {
	s := newSlots(3, 2)
	require.True(t, s.take(1))
	require.True(t, s.take(1))
	require.False(t, s.take(1))
	require.True(t, s.take(2))
	require.False(t, s.take(3), "all are taken")
	for _, user := range []im.UserID{1, 1, 2} {
		s.release(user)
	}
	require.Zero(t, s.running)
	require.Empty(t, s.users)
}
