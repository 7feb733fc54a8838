package crowd

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// deployment answers the calls that a crowd makes, and counts them.
type deployment struct {
	mu      sync.Mutex
	users   map[string]int64 // e-mail
	calls   map[string]int
	members map[int64]int
	expires time.Time
	refuse  string // path that fails
}

func (d *deployment) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var in map[string]any
	_ = json.NewDecoder(r.Body).Decode(&in)
	kind := strings.TrimRight(r.URL.Path, "0123456789")
	d.calls[r.Method+" "+kind]++
	answer := func(code int, data any) {
		_ = json.NewEncoder(w).Encode(map[string]any{"code": code, "message": "m", "data": data})
	}
	me, _ := strconv.ParseInt(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer t"), 10, 64)
	last, _ := strconv.ParseInt(r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:], 10, 64)
	if d.refuse != "" && strings.HasPrefix(r.URL.Path, d.refuse) {
		answer(1000, nil)
		return
	}
	switch kind {
	case "/api/auth/registered":
		mail, _ := in["email"].(string)
		if d.users[mail] != 0 {
			answer(1000, nil)
			return
		}
		d.users[mail] = int64(len(d.users) + 1)
		answer(200, map[string]any{})
	case "/api/auth/login":
		mail, _ := in["email"].(string)
		id := d.users[mail]
		answer(200, map[string]any{"id": id, "token": fmt.Sprint("t", id), "expire_time": d.expires.Unix()})
	case "/api/user/":
		for mail, id := range d.users {
			if id == last && me == id {
				answer(200, map[string]any{"email": mail})
				return
			}
		}
		w.WriteHeader(http.StatusUnauthorized)
		answer(401, nil)
	case "/api/friends/record":
		answer(200, map[string]any{"id": 7})
	case "/api/groups/store":
		answer(200, map[string]any{"id": 50 + d.calls["POST /api/groups/store"]})
	case "/api/groups/applyJoin/":
		d.members[last]++
		answer(200, map[string]any{})
	default:
		http.NotFound(w, r)
	}
}

func deploy(t *testing.T) (*deployment, string) {
	t.Helper()
	d := &deployment{users: map[string]int64{}, calls: map[string]int{}, members: map[int64]int{}, expires: time.Now().Add(24 * time.Hour)}
	srv := httptest.NewServer(d)
	t.Cleanup(srv.Close)
	return d, srv.URL
}

func open(t *testing.T, base, file string) *Crowd {
	t.Helper()
	c, err := Open(t.Context(), base, file, nil)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

func TestCrowd_IsMadeOnceAndKept(t *testing.T) {
	d, base := deploy(t)
	file := filepath.Join(t.TempDir(), "sub", "accounts.json")
	c := open(t, base, file)
	users, err := c.Users(t.Context(), 6)
	require.NoError(t, err)
	require.Len(t, users, 6)
	ids := map[int64]bool{}
	for _, u := range users {
		ids[u.ID] = true
		require.NotEmpty(t, u.Token)
	}
	require.Len(t, ids, 6)
	pairs := [][2]User{{users[0], users[1]}, {users[2], users[3]}}
	require.NoError(t, c.Befriend(t.Context(), pairs))
	g, err := c.Group(t.Context(), users[:4])
	require.NoError(t, err)
	require.Len(t, g.Members, 4)
	require.Equal(t, 3, d.members[g.ID], "the owner is in already")

	// The same again, by another run: nothing is made.
	before := len(d.users)
	again := open(t, base, file)
	same, err := again.Users(t.Context(), 5)
	require.NoError(t, err)
	for i := range same {
		require.Equal(t, users[i].ID, same[i].ID)
	}
	require.NoError(t, again.Befriend(t.Context(), pairs))
	same2, err := again.Group(t.Context(), users[:4])
	require.NoError(t, err)
	require.Equal(t, g.ID, same2.ID)
	require.Equal(t, before, len(d.users))
	require.Equal(t, 2, d.calls["PUT /api/friends/record"])
	require.Equal(t, 1, d.calls["POST /api/groups/store"])

	// More of them.
	more, err := again.Users(t.Context(), 8)
	require.NoError(t, err)
	require.Len(t, more, 8)
	require.Len(t, d.users, 8)

	info, err := os.Stat(file)
	require.NoError(t, err)
	require.EqualValues(t, 0o600, info.Mode().Perm(), "it holds tokens")
}

func TestOpen_DropsWhatTheDeploymentForgot(t *testing.T) {
	d, base := deploy(t)
	file := filepath.Join(t.TempDir(), "accounts.json")
	_, err := open(t, base, file).Users(t.Context(), 3)
	require.NoError(t, err)

	d.mu.Lock()
	d.users = map[string]int64{}
	d.mu.Unlock()
	users, err := open(t, base, file).Users(t.Context(), 2)
	require.NoError(t, err)
	require.Len(t, users, 2)
	require.Len(t, d.users, 2, "made anew")
}

func TestOpen_DropsTokensThatSoonEnd(t *testing.T) {
	d, base := deploy(t)
	d.expires = time.Now().Add(time.Hour)
	file := filepath.Join(t.TempDir(), "accounts.json")
	_, err := open(t, base, file).Users(t.Context(), 1)
	require.NoError(t, err)
	_, err = open(t, base, file).Users(t.Context(), 1)
	require.NoError(t, err)
	require.Len(t, d.users, 2)
}

func TestOpen_AFileOfAnotherDeploymentOrNoFileAtAll(t *testing.T) {
	_, one := deploy(t)
	d2, two := deploy(t)
	file := filepath.Join(t.TempDir(), "accounts.json")
	_, err := open(t, one, file).Users(t.Context(), 1)
	require.NoError(t, err)
	_, err = open(t, two, file).Users(t.Context(), 1)
	require.NoError(t, err)
	require.Len(t, d2.users, 1)

	require.NoError(t, os.WriteFile(file, []byte("{"), 0o600))
	_, err = open(t, two, file).Users(t.Context(), 1)
	require.NoError(t, err)
}

func TestUsers_SaysWhatFailed(t *testing.T) {
	d, base := deploy(t)
	d.refuse = "/api/auth/registered"
	_, err := open(t, base, "").Users(t.Context(), 2)
	var refused *Error
	require.ErrorAs(t, err, &refused)
	require.Equal(t, 1000, refused.Code)
	require.Contains(t, err.Error(), "/api/auth/registered")
}
