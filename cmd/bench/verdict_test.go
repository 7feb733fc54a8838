package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/stretchr/testify/require"

	"im-services/internal/bench"
)

// garbler is a deployment that makes accounts, and refuses every message after a
// frame that nobody can read.
type garbler struct {
	up    websocket.Upgrader
	users atomic.Int64
}

func (g *garbler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !strings.HasPrefix(r.URL.Path, "/im/") {
		id := g.users.Add(1)
		_, _ = fmt.Fprintf(w, `{"code":200,"data":{"id":%d,"token":"%d","expire_time":%d}}`, id, id, time.Now().Add(24*time.Hour).Unix())
		return
	}
	ws, err := g.up.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	defer func() { _ = ws.Close() }()
	for {
		var f struct {
			Code int   `json:"msg_code"`
			Key  int64 `json:"msg_client_id"`
		}
		if ws.ReadJSON(&f) != nil {
			return
		}
		if f.Code == 1004 {
			_ = ws.WriteMessage(websocket.TextMessage, []byte(`{"msg_code":1004}`))
			continue
		}
		_ = ws.WriteMessage(websocket.TextMessage, []byte(`garbage`))
		_ = ws.WriteMessage(websocket.TextMessage, fmt.Appendf(nil, `{"msg_code":500,"reason":"overloaded","msg_client_id":%d}`, f.Key))
	}
}

func flags(t *testing.T, command string, names ...string) []string {
	t.Helper()
	srv := httptest.NewServer(&garbler{})
	t.Cleanup(srv.Close)
	dir := t.TempDir()
	return append([]string{
		command, "-urls", srv.URL, "-accounts", filepath.Join(dir, "accounts.json"), "-out", dir, "-no-relay",
		"-users", "2", "-rates", "100", "-rate", "100", "-rounds", "1", "-warm", "20ms", "-measure", "100ms",
	}, names...)
}

func TestVerdict_ARunThatIsNotCleanFails(t *testing.T) {
	require.ErrorContains(t, dispatch(t.Context(), flags(t, "run", "open")), "altered")
	require.ErrorContains(t, dispatch(t.Context(), flags(t, "compare", "open")), "altered")
	require.ErrorContains(t, dispatch(t.Context(), flags(t, "knee")), "altered")
}

func TestVerdict_OneOfManyIsEnough(t *testing.T) {
	s := &settings{}
	require.NoError(t, s.verdict())
	s.show(&bench.Result{Checks: bench.Checks{Unsettled: 1}})
	s.show(&bench.Result{})
	require.Error(t, s.verdict())
}

func TestStrangers_AreNewEachTime(t *testing.T) {
	args := flags(t, "run", "open")
	s, err := parse(args[0], args[1:])
	require.NoError(t, err)
	defer s.close()
	require.NoError(t, s.open(t.Context()))
	seen := map[int64]bool{}
	meet := func(people bench.People) {
		users, err := people.Users(t.Context(), 2)
		require.NoError(t, err)
		for _, u := range users {
			require.False(t, seen[u.ID], "he may have written before")
			seen[u.ID] = true
		}
	}
	meet(s.target.People)
	for range 2 {
		target, err := s.strangers(t.Context())
		require.NoError(t, err)
		meet(target.People)
	}
}
