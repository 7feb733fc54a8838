package auth

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	authv1 "im-services/api/proto/auth/v1"
	"im-services/internal/im"
	"im-services/internal/token"
)

// at starts a replica whose database's clock stands still at a time: its own
// clock is as far from that as now is.
func (e *env) at(now time.Time, change ...func(*Config)) *env {
	e.t.Helper()
	join := "?"
	if strings.Contains(e.dsn, "?") {
		join = "&"
	}
	other := &env{
		t: e.t, off: time.Since(now).Abs(), redis: e.redis, redisTimeout: e.redisTimeout,
		dsn: e.dsn + join + fmt.Sprintf("timestamp=%d", now.Unix()), // a variable of every session
	}
	other.start(change...)
	return other
}

// G16: who resets his password, or is banned and forgiven, by a replica whose
// clock is wrong gets tokens that count at once, wherever he logs in; nothing that
// a replica stores or signs has its time from its own clock.
func TestG16_WrongClockOfAReplicaShowsInNothing(t *testing.T) {
	for name, off := range map[string]time.Duration{"an hour fast": time.Hour, "an hour slow": -time.Hour} {
		t.Run(name, func(t *testing.T) {
			home := newEnv(t, debugMode)
			now := time.Now().Add(-off).Truncate(time.Second)
			e := home.at(now, debugMode)
			u := e.newUser()
			before := e.mustLogin(u.GetEmail())
			require.Equal(t, now.Unix(), e.mustVerify(before.GetAccessToken()).IssuedAt.Unix())

			_, err := e.ResetPassword(t.Context(), &authv1.ResetPasswordRequest{Email: u.GetEmail(), Code: "0000", Password: goodPassword, PeerIp: "203.0.113.9"})
			require.NoError(t, err)
			reset := e.mustLogin(u.GetEmail())
			_, err = Ban(t.Context(), e.db, u.GetEmail())
			require.NoError(t, err)
			_, err = Unban(t.Context(), e.db, u.GetEmail())
			require.NoError(t, err)
			after := e.mustLogin(u.GetEmail())
			next, err := e.refreshWith(after.GetRefreshToken())
			require.NoError(t, err)
			for _, l := range []*authv1.LoggedIn{before, reset} {
				require.True(t, e.revoked(e.mustVerify(l.GetAccessToken())))
			}
			for _, l := range []*authv1.LoggedIn{reset, after, next} {
				c := e.mustVerify(l.GetAccessToken())
				require.WithinRange(t, c.IssuedAt, now, now.Add(2*time.Second), "one second for each of two revocations")
				require.Equal(t, now.Add(e.cfg.AccessTTL).Unix(), c.ExpiresAt.Unix())
				require.EqualValues(t, e.cfg.AccessTTL/time.Second, l.GetTtlSeconds())
				require.Equal(t, now.UnixMilli(), l.GetUser().GetLastLoginAtMs())
			}
			require.False(t, e.revoked(e.mustVerify(next.GetAccessToken())))
			ticket := e.ticket(identity(e.mustVerify(next.GetAccessToken())))
			_, err = e.redeem(ticket)
			require.NoError(t, err)
			e.mustLogout(e.mustVerify(next.GetAccessToken()))
			_, _, err = e.accountOf(t.Context(), "github", subject{ID: 7})
			require.NoError(t, err)

			// Every time there is lies at now or a life after it; not_before and what
			// follows from it a second or two later, the end of a revocation two leeways.
			lives := []int64{0}
			for _, ttl := range []time.Duration{e.cfg.AccessTTL, e.cfg.RefreshTTL, e.cfg.SessionTTL} {
				lives = append(lives, int64(ttl/time.Second))
			}
			for query, unit := range map[string]int64{
				"SELECT created_at FROM users WHERE is_bot = 0":            1000,
				"SELECT last_login_at FROM users WHERE last_login_at <> 0": 1000,
				"SELECT not_before FROM users WHERE not_before <> 0":       1,
				"SELECT token_at FROM users WHERE token_at <> 0":           1,
				"SELECT token_until FROM users WHERE token_until <> 0":     1,
				"SELECT created_at FROM identities":                        1000,
				"SELECT created_at FROM login_sessions":                    1000,
				"SELECT used_at FROM login_sessions":                       1000,
				"SELECT expires_at FROM login_sessions":                    1000,
				"SELECT ended_at FROM login_sessions WHERE ended_at <> 0":  1000,
				"SELECT expires_at FROM refresh_tokens":                    1000,
				"SELECT used_at FROM refresh_tokens WHERE used_at <> 0":    1000,
				"SELECT used_at FROM login_places":                         1000,
				"SELECT not_before FROM revocations":                       1,
				"SELECT expires_at FROM revocations":                       1,
			} {
				var times []int64
				require.NoError(t, e.db.Select(&times, query))
				require.NotEmpty(t, times, query)
				for _, at := range times {
					gone, known := at/unit-now.Unix(), false
					for _, life := range lives {
						known = known || gone >= life && gone <= life+2+int64(2*token.DefaultLeeway/time.Second)
					}
					require.True(t, known, "%s: %d s from now", query, gone)
				}
			}
		})
	}
}

// G16: lives end, and what is left of them is deleted, when the database's clock
// says so. To the replicas' own clocks all of it was over long ago.
func TestG16_LivesEndByTheClockOfTheDatabase(t *testing.T) {
	home := newEnv(t, debugMode)
	start := time.Now().Add(-48 * time.Hour)
	after := func(d time.Duration) *env {
		return home.at(start.Add(d), debugMode, func(c *Config) { c.AccessTTL, c.RefreshTTL, c.SessionTTL = time.Hour, time.Hour, time.Hour })
	}
	e := after(0)
	u := e.newUser()
	one, two, three := e.mustLogin(u.GetEmail()), e.mustLogin(u.GetEmail()), e.mustLogin(u.GetEmail())
	require.EqualValues(t, 3600, one.GetTtlSeconds())
	id := &authv1.Identity{UserId: u.GetId(), ExpiresAt: start.Add(time.Hour).Unix()}
	require.NoError(t, e.db.Get(&id.SessionId, "SELECT id FROM login_sessions LIMIT 1"))

	early, late := after(59*time.Minute), after(61*time.Minute)
	_, err := early.redeem(early.ticket(id))
	require.NoError(t, err)
	_, err = late.redeem(early.ticket(id))
	requireReason(t, "ticket_invalid", err)
	_, err = late.IssueTicket(t.Context(), &authv1.IssueTicketRequest{Identity: id})
	requireReason(t, "ticket_invalid", err)
	_, err = early.refreshWith(one.GetRefreshToken())
	require.NoError(t, err)
	_, err = late.refreshWith(two.GetRefreshToken())
	requireReason(t, "refresh_invalid", err)
	_, err = early.refreshWith(three.GetRefreshToken())
	require.NoError(t, err)

	early.mustLogout(token.Claims{UserID: im.UserID(u.GetId()), SessionID: id.GetSessionId()})
	left := func(e *env) (revocations, rows int) {
		res, err := e.Revocations(t.Context(), &authv1.RevocationsRequest{})
		require.NoError(t, err)
		require.NoError(t, e.purge(t.Context()))
		require.NoError(t, e.db.Get(&rows,
			"SELECT (SELECT COUNT(*) FROM login_sessions) + (SELECT COUNT(*) FROM refresh_tokens) + (SELECT COUNT(*) FROM revocations)"))
		return len(res.GetRevocations()), rows
	}
	revocations, rows := left(after(time.Hour + clockSlack - time.Minute))
	require.Equal(t, 1, revocations)
	require.Equal(t, 3+5+1, rows)
	revocations, rows = left(after(time.Hour + clockSlack + 5*time.Minute))
	require.Zero(t, revocations)
	require.Zero(t, rows)
}
