package auth

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	authv1 "im-services/api/proto/auth/v1"
	"im-services/internal/im"
)

func namesOf(users []*authv1.User) []string {
	out := []string{}
	for _, u := range users {
		out = append(out, u.GetName())
	}
	return out
}

func (e *env) search(query string, limit int32, exclude ...int64) []string {
	e.t.Helper()
	res, err := e.SearchUsers(e.t.Context(), &authv1.SearchUsersRequest{Query: query, Limit: limit, ExcludeIds: exclude})
	require.NoError(e.t, err)
	return namesOf(res.GetUsers())
}

func TestSearchUsers(t *testing.T) {
	e := newEnv(t, debugMode)
	ids := map[string]int64{}
	for i, u := range []struct{ email, name string }{
		{"alice@example.com", "Alice"},
		{"alan@example.com", "小艾"},
		{"bob@example.com", "al_bob"},
		{"carol@example.com", "al%carol"},
		{"dave@example.com", "alXdave"},
		{"pipe@example.com", "|pipe"},
		{"slash@example.com", `\slash`},
	} {
		ids[u.name] = e.registerAs(u.email, u.name).GetId()
		_, err := e.db.Exec("UPDATE users SET last_login_at = ? WHERE id = ?", 1000+i, ids[u.name])
		require.NoError(t, err)
	}
	require.Equal(t, []string{"alXdave", "al%carol", "al_bob", "小艾", "Alice"}, e.search("al", 10), "e-mail or name, newest login first, no bot")
	require.Equal(t, []string{"alXdave", "al%carol", "al_bob", "小艾", "Alice"}, e.search(" AL ", 10), "case and blanks do not matter")
	require.Equal(t, []string{"alXdave", "al%carol"}, e.search("al", 2))
	require.Equal(t, []string{"al_bob"}, e.search("al_", 10), "an underscore is an underscore")
	require.Equal(t, []string{"al%carol"}, e.search("al%", 10))
	require.Equal(t, []string{"|pipe"}, e.search("|", 10))
	require.Equal(t, []string{`\slash`}, e.search(`\`, 10))
	require.Equal(t, []string{"小艾"}, e.search("小", 10))
	require.Equal(t, []string{"小艾"}, e.search("alan@example.com", 10))
	require.Empty(t, e.search("example.com", 10), "prefix, not anywhere")
	require.Empty(t, e.search("bot@", 10), "no bots")
	require.Empty(t, e.search("机器人", 10))
	require.Len(t, e.search("", 10), 7)
	require.Equal(t, []string{"al_bob", "Alice"}, e.search("al", 10, ids["alXdave"], ids["小艾"], ids["al%carol"], 1, 999))
	require.Equal(t, []string{"小艾"}, e.search("al", 1, ids["alXdave"], ids["al_bob"], ids["al%carol"]), "excluded ones do not use up the limit")
	require.Len(t, e.search("", 10, ids["Alice"]), 6)
	for _, q := range []string{"' OR 1=1 --", "%", "_", "\x00", "al\x00", "\xff", strings.Repeat("a", 10_000), "\u200d"} {
		require.Empty(t, e.search(q, 10), "%.20q", q)
	}
	require.Len(t, e.search("", 0), 7, "10 by default")
	require.Len(t, e.search("", -5), 7)
	_, err := e.SearchUsers(t.Context(), &authv1.SearchUsersRequest{ExcludeIds: make([]int64, maxSearchExclude+1)})
	requireReason(t, "auth_too_many_ids", err)
}

func TestGetUsers(t *testing.T) {
	e := newEnv(t, debugMode)
	a, b := e.newUser(), e.newUser()
	get := func(ids ...int64) map[int64]*authv1.User {
		t.Helper()
		res, err := e.GetUsers(t.Context(), &authv1.GetUsersRequest{Ids: ids})
		require.NoError(t, err)
		out := map[int64]*authv1.User{}
		for _, u := range res.GetUsers() {
			require.NotContains(t, out, u.GetId(), "each once")
			out[u.GetId()] = u
		}
		return out
	}
	require.Empty(t, get())
	require.Empty(t, get(0, -1, 1<<62, 12345))
	got := get(a.GetId(), b.GetId(), a.GetId(), 1, 99_999, 0)
	require.Len(t, got, 3)
	require.Equal(t, a.GetName(), got[a.GetId()].GetName())
	require.True(t, got[1].GetBot())
	require.Len(t, get(a.GetId(), b.GetId()), 2, "from memory")

	require.Zero(t, got[a.GetId()].GetLastLoginAtMs())
	e.mustLogin(a.GetEmail())
	require.NotZero(t, get(a.GetId())[a.GetId()].GetLastLoginAtMs(), "a log in shows at once on its replica")

	c := e.registerAs("c@example.com", "c")
	require.Len(t, get(c.GetId()), 1, "unknown ids are not remembered as such")
	_, err := e.GetUsers(t.Context(), &authv1.GetUsersRequest{Ids: make([]int64, maxGetUsers+1)})
	requireReason(t, "auth_too_many_ids", err)
	many := make([]int64, maxGetUsers)
	for i := range many {
		many[i] = int64(i + 1)
	}
	require.Len(t, get(many...), 4)
}

func TestGetUsers_AnswersAreAsOldAsConfigured(t *testing.T) {
	e := newEnv(t, debugMode, func(c *Config) { c.ProfileTTL = time.Second })
	u := e.newUser()
	name := func() string {
		res, err := e.GetUsers(t.Context(), &authv1.GetUsersRequest{Ids: []int64{u.GetId()}})
		require.NoError(t, err)
		return res.GetUsers()[0].GetName()
	}
	require.Equal(t, u.GetName(), name())
	_, err := e.db.Exec("UPDATE users SET name = 'renamed' WHERE id = ?", u.GetId())
	require.NoError(t, err)
	require.Equal(t, u.GetName(), name())
	require.Eventually(t, func() bool { return name() == "renamed" }, 3*time.Second, 50*time.Millisecond)
}

func BenchmarkGetUsers_FromMemory(b *testing.B) {
	p := newProfiles(1000, time.Minute)
	for i := range 100 {
		p.put(account{ID: im.UserID(2 + i), Name: fmt.Sprint(i)}, time.Now())
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := p.get(50); !ok {
			b.Fatal("missing")
		}
	}
}
