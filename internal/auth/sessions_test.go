package auth

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/stretchr/testify/require"

	authv1 "im-services/api/proto/auth/v1"
	"im-services/internal/im"
	"im-services/internal/token"
)

func (e *env) refreshWith(refresh string) (*authv1.LoggedIn, error) {
	res, err := e.Refresh(e.t.Context(), &authv1.RefreshRequest{RefreshToken: refresh})
	return res.GetLogin(), err
}

func (e *env) mustLogout(c token.Claims) {
	e.t.Helper()
	_, err := e.Logout(e.t.Context(), &authv1.LogoutRequest{UserId: int64(c.UserID), SessionId: c.SessionID})
	require.NoError(e.t, err)
}

func TestRefresh_Rotates(t *testing.T) {
	e := newEnv(t, debugMode)
	u := e.newUser()
	l := e.mustLogin(u.GetEmail())
	session := e.mustVerify(l.GetAccessToken()).SessionID
	refresh := l.GetRefreshToken()
	for range 3 {
		next, err := e.refreshWith(refresh)
		require.NoError(t, err)
		require.NotEqual(t, refresh, next.GetRefreshToken())
		c := e.mustVerify(next.GetAccessToken())
		require.Equal(t, session, c.SessionID, "still the same login session")
		require.Equal(t, u.GetId(), next.GetUser().GetId())
		require.False(t, e.revoked(c))
		refresh = next.GetRefreshToken()
	}
}

func TestG16_RefreshReuseEndsTheLoginSession(t *testing.T) {
	e := newEnv(t, debugMode)
	u := e.newUser()
	l := e.mustLogin(u.GetEmail())
	bystander := e.mustLogin(u.GetEmail())
	stolen := l.GetRefreshToken()
	next, err := e.refreshWith(stolen)
	require.NoError(t, err)
	newest, err := e.refreshWith(next.GetRefreshToken())
	require.NoError(t, err)

	_, err = e.refreshWith(stolen)
	requireReason(t, "refresh_invalid", err, "its successor has been used: the answer was not lost")
	require.Equal(t, im.KindUnauthorized, im.KindOf(err))
	e.requireOver(l, next, newest)

	require.False(t, e.revoked(e.mustVerify(bystander.GetAccessToken())), "the user's other session goes on")
	_, err = e.refreshWith(bystander.GetRefreshToken())
	require.NoError(t, err)
}

// requireOver demands that nothing of these logins, which are one session, counts.
func (e *env) requireOver(all ...*authv1.LoggedIn) {
	e.t.Helper()
	for _, l := range all {
		_, err := e.refreshWith(l.GetRefreshToken())
		requireReason(e.t, "refresh_invalid", err)
		require.True(e.t, e.revoked(e.mustVerify(l.GetAccessToken())))
	}
}

// Who never saw the answer, as the service died on it, repeats his request: the
// tokens he gets take the place of those he did not.
func TestG16_RefreshWhoseAnswerWasLostMayBeRepeated(t *testing.T) {
	e := newEnv(t, debugMode)
	l := e.mustLogin(e.newUser().GetEmail())
	lost, err := e.refreshWith(l.GetRefreshToken())
	require.NoError(t, err)
	lostToo, err := e.replica(debugMode).refreshWith(l.GetRefreshToken())
	require.NoError(t, err)
	seen, err := e.refreshWith(l.GetRefreshToken())
	require.NoError(t, err)
	require.False(t, e.revoked(e.mustVerify(seen.GetAccessToken())))
	next, err := e.refreshWith(seen.GetRefreshToken())
	require.NoError(t, err, "and goes on from there")
	require.False(t, e.revoked(e.mustVerify(next.GetAccessToken())))

	_, err = e.refreshWith(lost.GetRefreshToken())
	requireReason(t, "refresh_invalid", err, "somebody had seen that answer: one of the two is a thief")
	e.requireOver(l, lost, lostToo, seen, next)
}

func TestG16_RefreshMayBeRepeatedForAMinute(t *testing.T) {
	home := newEnv(t, debugMode)
	start := time.Now().Add(-time.Hour)
	e := home.at(start, debugMode)
	u := e.newUser()
	one, two := e.mustLogin(u.GetEmail()), e.mustLogin(u.GetEmail())
	for _, l := range []*authv1.LoggedIn{one, two} {
		_, err := e.refreshWith(l.GetRefreshToken())
		require.NoError(t, err)
	}
	again, err := home.at(start.Add(59*time.Second), debugMode).refreshWith(one.GetRefreshToken())
	require.NoError(t, err)
	late := home.at(start.Add(61*time.Second), debugMode)
	_, err = late.refreshWith(two.GetRefreshToken())
	requireReason(t, "refresh_invalid", err)
	late.requireOver(two)
	_, err = late.refreshWith(one.GetRefreshToken())
	requireReason(t, "refresh_invalid", err, "a repeat does not begin another minute")
	late.requireOver(one, again)
}

// However many change one refresh token at once, one of all they get is good.
func TestG16_ParallelRefreshLeavesOneUsableToken(t *testing.T) {
	e := newEnv(t, debugMode)
	other := e.replica(debugMode)
	l := e.mustLogin(e.newUser().GetEmail())
	var mu sync.Mutex
	var won []*authv1.LoggedIn
	var wg sync.WaitGroup
	for i := range 10 {
		s := []*env{e, other}[i%2]
		wg.Go(func() {
			res, err := s.Refresh(context.Background(), &authv1.RefreshRequest{RefreshToken: l.GetRefreshToken()})
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Errorf("unexpected: %v", err)
				return
			}
			won = append(won, res.GetLogin())
		})
	}
	wg.Wait()
	require.Len(t, won, 10)
	good := slices.DeleteFunc(slices.Clone(won), func(l *authv1.LoggedIn) bool {
		var used int64
		require.NoError(t, e.db.Get(&used, "SELECT used_at FROM refresh_tokens WHERE hash = ?", digest(l.GetRefreshToken())))
		return used != 0
	})
	require.Len(t, good, 1)
	next, err := e.refreshWith(good[0].GetRefreshToken())
	require.NoError(t, err)
	void := slices.DeleteFunc(won, func(l *authv1.LoggedIn) bool { return l == good[0] })
	e.requireOver(void...)
	e.requireOver(good[0], next)
}

func TestRefresh_RefusesWhatIsNoRefreshToken(t *testing.T) {
	e := newEnv(t, debugMode)
	l := e.mustLogin(e.newUser().GetEmail())
	for _, bad := range []string{
		"", "x", l.GetAccessToken(), l.GetRefreshToken() + "A", l.GetRefreshToken()[1:], newSecretText(), strings.Repeat("A", 43), strings.Repeat("A", 1<<16),
	} {
		_, err := e.refreshWith(bad)
		requireReason(t, "refresh_invalid", err)
	}
	_, err := e.verify(l.GetRefreshToken())
	require.Error(t, err, "and a refresh token is no access token")
	_, err = e.refreshWith(l.GetRefreshToken())
	require.NoError(t, err, "guesses ended nothing")
}

// Guessing tokens costs a look into the database each.
func TestRefresh_IsLimitedPerAddress(t *testing.T) {
	e := newEnv(t, func(c *Config) {
		c.Limits.RefreshesPerMinute = 1
		require.NoError(t, c.Limits.addExempt("127.0.0.0/8"))
	})
	guess := func(ip string) string {
		_, err := e.Refresh(t.Context(), &authv1.RefreshRequest{RefreshToken: newSecretText(), PeerIp: ip})
		return im.ReasonOf(err)
	}
	for range usersFactor {
		require.Equal(t, "refresh_invalid", guess("198.51.100.1"))
	}
	require.Equal(t, "auth_too_often", guess("198.51.100.1"))
	require.Equal(t, "refresh_invalid", guess("198.51.100.2"), "a neighbour")
	for range 5 * usersFactor {
		require.Equal(t, "refresh_invalid", guess("127.0.0.1"), "exempt")
	}
}

// One login must not be enough to fill the table with used tokens.
func TestRefresh_IsLimited(t *testing.T) {
	e := newEnv(t, debugMode, func(c *Config) { c.Limits.RefreshesPerMinute = 3 })
	u := e.newUser()
	one, two := e.mustLogin(u.GetEmail()), e.mustLogin(u.GetEmail())
	bystander := e.mustLogin(e.newUser().GetEmail())
	over := e.mustLogin(u.GetEmail())
	e.mustLogout(e.mustVerify(over.GetAccessToken()))
	for range 10 {
		_, err := e.refreshWith(over.GetRefreshToken())
		requireReason(t, "refresh_invalid", err, "and uses up nothing of the others'")
	}
	for range 3 {
		next, err := e.refreshWith(one.GetRefreshToken())
		require.NoError(t, err)
		one = next
	}
	count := func() (n int) {
		require.NoError(t, e.db.Get(&n, "SELECT COUNT(*) FROM refresh_tokens"))
		return n
	}
	before := count()
	for _, l := range []*authv1.LoggedIn{one, two} {
		_, err := e.refreshWith(l.GetRefreshToken())
		requireReason(t, "auth_too_often", err, "all sessions of a user together")
		require.Equal(t, im.KindExhausted, im.KindOf(err))
	}
	require.Equal(t, before, count())
	_, err := e.refreshWith(bystander.GetRefreshToken())
	require.NoError(t, err)
	require.NoError(t, e.rdb.Del(t.Context(), fmt.Sprintf("rate:auth:refresh:%d", u.GetId())).Err()) // a minute later
	for _, l := range []*authv1.LoggedIn{one, two} {
		_, err := e.refreshWith(l.GetRefreshToken())
		require.NoError(t, err, "the refusal did not use it up")
	}
}

func TestRefresh_Expires(t *testing.T) {
	e := newEnv(t, debugMode)
	l := e.mustLogin(e.newUser().GetEmail())
	_, err := e.db.Exec("UPDATE refresh_tokens SET expires_at = ?", time.Now().Add(-time.Second).UnixMilli())
	require.NoError(t, err)
	_, err = e.refreshWith(l.GetRefreshToken())
	requireReason(t, "refresh_invalid", err)

	l = e.mustLogin(l.GetUser().GetEmail())
	_, err = e.db.Exec("UPDATE login_sessions SET expires_at = ?", time.Now().Add(-time.Second).UnixMilli())
	require.NoError(t, err)
	_, err = e.refreshWith(l.GetRefreshToken())
	requireReason(t, "refresh_invalid", err, "a session cannot be drawn out for ever")
}

func TestTokens_DoNotOutliveTheirLoginSession(t *testing.T) {
	e := newEnv(t, debugMode)
	l := e.mustLogin(e.newUser().GetEmail())
	end := time.Now().Add(time.Hour)
	_, err := e.db.Exec("UPDATE login_sessions SET expires_at = ?", end.UnixMilli())
	require.NoError(t, err)
	next, err := e.refreshWith(l.GetRefreshToken())
	require.NoError(t, err)
	require.LessOrEqual(t, next.GetExpiresAt(), end.Unix())
	require.InDelta(t, 3600, next.GetTtlSeconds(), 2)
}

func TestG16_LogoutEndsTheLoginSession(t *testing.T) {
	e := newEnv(t, debugMode)
	u := e.newUser()
	one, two := e.mustLogin(u.GetEmail()), e.mustLogin(u.GetEmail())
	c := e.mustVerify(one.GetAccessToken())
	require.False(t, e.revoked(c))
	start := time.Now()
	e.mustLogout(c)
	require.True(t, e.replica(debugMode).revoked(c), "every replica's feed has it")
	require.Less(t, time.Since(start), 5*time.Second)
	_, err := e.refreshWith(one.GetRefreshToken())
	requireReason(t, "refresh_invalid", err)
	require.False(t, e.revoked(e.mustVerify(two.GetAccessToken())))
	_, err = e.refreshWith(two.GetRefreshToken())
	require.NoError(t, err)

	count := func() (n int) {
		require.NoError(t, e.db.Get(&n, "SELECT COUNT(*) FROM revocations"))
		return n
	}
	before := count()
	e.mustLogout(c) // again
	e.mustLogout(token.Claims{UserID: c.UserID, SessionID: "no such session"})
	e.mustLogout(token.Claims{UserID: 999_999, SessionID: c.SessionID})
	stranger := e.newUser()
	e.mustLogout(token.Claims{UserID: im.UserID(stranger.GetId()), SessionID: e.mustVerify(two.GetAccessToken()).SessionID})
	require.Equal(t, before, count(), "nothing more to revoke")
	require.False(t, e.revoked(e.mustVerify(two.GetAccessToken())), "nobody ends another's session")
}

func TestG16_RevocationLastsAsLongAsTheTokens(t *testing.T) {
	e := newEnv(t, debugMode)
	u := e.newUser()
	c := e.mustVerify(e.mustLogin(u.GetEmail()).GetAccessToken())
	// Tokens issued from now on live shorter; the revocation must outlive the old one.
	short := e.replica(debugMode, func(cfg *Config) { cfg.AccessTTL = time.Minute })
	c2 := short.mustVerify(short.mustLogin(u.GetEmail()).GetAccessToken())
	short.mustLogout(c2)
	short.mustLogout(c)
	res, err := e.Revocations(t.Context(), &authv1.RevocationsRequest{})
	require.NoError(t, err)
	require.Len(t, res.GetRevocations(), 2)
	for _, r := range res.GetRevocations() {
		require.Greater(t, r.GetExpiresAt(), c.ExpiresAt.Add(token.DefaultLeeway).Unix())
	}
}

// However often one logs in, what a ban or a new password has to end is bounded:
// a login too many ends the session that was used longest ago.
func TestG16_LoginSessionsOfAUserAreBounded(t *testing.T) {
	e := newEnv(t, debugMode)
	u := e.newUser()
	oldest := e.mustLogin(u.GetEmail())
	time.Sleep(2 * time.Millisecond) // their order is that of the clock
	second := e.mustLogin(u.GetEmail())
	time.Sleep(2 * time.Millisecond)
	third := e.mustLogin(u.GetEmail())
	for range maxSessions - 3 {
		e.mustLogin(u.GetEmail())
	}
	used, err := e.refreshWith(oldest.GetRefreshToken())
	require.NoError(t, err)
	require.False(t, e.revoked(e.mustVerify(second.GetAccessToken())), "a hundred are not too many")
	newest := e.mustLogin(u.GetEmail())
	require.True(t, e.revoked(e.mustVerify(second.GetAccessToken())))
	_, err = e.refreshWith(second.GetRefreshToken())
	requireReason(t, "refresh_invalid", err)
	for _, l := range []*authv1.LoggedIn{used, third, newest} {
		require.False(t, e.revoked(e.mustVerify(l.GetAccessToken())))
		_, err = e.refreshWith(l.GetRefreshToken())
		require.NoError(t, err)
	}
	live := func() (n int) {
		require.NoError(t, e.db.Get(&n, "SELECT COUNT(*) FROM login_sessions WHERE user_id = ? AND ended_at = 0", u.GetId()))
		return n
	}
	require.Equal(t, maxSessions, live())

	// Who has more from before there was a bound loses them login by login.
	_, err = e.db.Exec(`INSERT INTO login_sessions (id, user_id, created_at, used_at, expires_at)
		SELECT MD5(id), user_id, 0, 0, expires_at FROM login_sessions WHERE user_id = ? LIMIT 50`, u.GetId())
	require.NoError(t, err)
	bystander := e.mustLogin(e.newUser().GetEmail())
	for range 4 {
		e.mustLogin(u.GetEmail())
	}
	require.Equal(t, maxSessions, live())
	require.False(t, e.revoked(e.mustVerify(bystander.GetAccessToken())))
}

// G16: a new password ends every session and token, and only those before it.
func TestG16_PasswordResetEndsEverythingBeforeIt(t *testing.T) {
	e := newEnv(t)
	require.NoError(t, e.tryCode("a@example.com", e.ask("a@example.com", forRegister)))
	one, two := e.mustLogin("a@example.com"), e.mustLogin("a@example.com")
	c1, c2 := e.mustVerify(one.GetAccessToken()), e.mustVerify(two.GetAccessToken())

	e.forgetPause("a@example.com")
	_, err := e.ResetPassword(t.Context(), &authv1.ResetPasswordRequest{
		Email: "A@example.com", Code: e.ask("a@example.com", forReset), Password: "a new password",
	})
	require.NoError(t, err)
	require.True(t, e.revoked(c1))
	require.True(t, e.revoked(c2), "issued in the same second as the reset or not")
	for _, l := range []*authv1.LoggedIn{one, two} {
		_, err := e.refreshWith(l.GetRefreshToken())
		requireReason(t, "refresh_invalid", err)
	}
	_, err = e.Login(t.Context(), &authv1.LoginRequest{Email: "a@example.com", Password: goodPassword})
	requireReason(t, "login_failed", err)

	// A log in right after it, in the same second, must count.
	res, err := e.Login(t.Context(), &authv1.LoginRequest{Email: "a@example.com", Password: "a new password"})
	require.NoError(t, err)
	c3 := e.mustVerify(res.GetLogin().GetAccessToken())
	require.False(t, e.revoked(c3))
	_, err = e.refreshWith(res.GetLogin().GetRefreshToken())
	require.NoError(t, err)
}

func TestResetPassword_Refuses(t *testing.T) {
	e := newEnv(t)
	require.NoError(t, e.tryCode("a@example.com", e.ask("a@example.com", forRegister)))
	e.forgetPause("a@example.com")
	code := e.ask("a@example.com", forReset)
	for _, c := range []struct{ email, code, password, reason string }{
		{"x", code, goodPassword, "email_invalid"},
		{"a@example.com", code, "short", "password_invalid"},
		{"a@example.com", otherCode(code, 3), goodPassword, "code_wrong"},
		{"b@example.com", code, goodPassword, "code_wrong"},
	} {
		_, err := e.ResetPassword(t.Context(), &authv1.ResetPasswordRequest{Email: c.email, Code: c.code, Password: c.password})
		requireReason(t, c.reason, err)
	}
	e.mustLogin("a@example.com")
	_, err := e.ResetPassword(t.Context(), &authv1.ResetPasswordRequest{Email: "a@example.com", Code: code, Password: "a new password"})
	require.NoError(t, err)
	_, err = e.ResetPassword(t.Context(), &authv1.ResetPasswordRequest{Email: "a@example.com", Code: code, Password: "a newer password"})
	requireReason(t, "code_wrong", err, "a code works once")
}

func TestResetPassword_LiftsTheLockOfTheAccount(t *testing.T) {
	e := newEnv(t, debugMode)
	u := e.newUser()
	for range 6 {
		_, err := e.Login(t.Context(), &authv1.LoginRequest{Email: u.GetEmail(), Password: "wrong password"})
		require.Error(t, err)
	}
	_, err := e.ResetPassword(t.Context(), &authv1.ResetPasswordRequest{Email: u.GetEmail(), Code: "0000", Password: goodPassword})
	require.NoError(t, err)
	e.mustLogin(u.GetEmail())
}

// Logins and refreshes race resets; afterwards no live session may hold a token
// that was issued on the old password and is not revoked.
func TestG16_NoTokenSlipsPastARacingReset(t *testing.T) {
	e := newEnv(t, debugMode, func(c *Config) { c.Limits.FreeAttempts = 1000 })
	other := e.replica(debugMode, func(c *Config) { c.Limits.FreeAttempts = 1000 })
	u := e.newUser()
	for round := range 4 {
		was, becomes := goodPassword, "another password"
		if round%2 == 1 {
			was, becomes = becomes, was
		}
		var mu sync.Mutex
		var issued []*authv1.LoggedIn
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				res, err := other.Login(context.Background(), &authv1.LoginRequest{Email: u.GetEmail(), Password: was})
				if err != nil {
					return
				}
				mu.Lock()
				issued = append(issued, res.GetLogin())
				mu.Unlock()
				if next, err := other.Refresh(context.Background(), &authv1.RefreshRequest{RefreshToken: res.GetLogin().GetRefreshToken()}); err == nil {
					mu.Lock()
					issued = append(issued, next.GetLogin())
					mu.Unlock()
				}
			})
		}
		wg.Go(func() {
			time.Sleep(time.Duration(round) * 25 * time.Millisecond)
			_, err := e.ResetPassword(context.Background(), &authv1.ResetPasswordRequest{Email: u.GetEmail(), Code: "0000", Password: becomes})
			if err != nil {
				t.Error(err)
			}
		})
		wg.Wait()
		for _, l := range issued {
			require.True(t, e.revoked(e.mustVerify(l.GetAccessToken())), "round %d", round)
		}
	}
}

// requireResetEnds demands that a password reset ends a token of the user that was
// issued in the database's future, and none that is issued after it.
func (e *env) requireResetEnds(u *authv1.User, ahead token.Claims) {
	e.t.Helper()
	_, err := e.db.Exec("UPDATE users SET token_at = ? WHERE id = ?", ahead.IssuedAt.Unix(), u.GetId())
	require.NoError(e.t, err)
	_, err = e.ResetPassword(e.t.Context(), &authv1.ResetPasswordRequest{Email: u.GetEmail(), Code: "0000", Password: goodPassword})
	require.NoError(e.t, err)
	require.True(e.t, e.revoked(ahead))
	require.False(e.t, e.revoked(e.mustVerify(e.mustLogin(u.GetEmail()).GetAccessToken())), "and a new one counts at once")
}

func TestG16_TokenOfAFastClockIsRevokedToo(t *testing.T) {
	e := newEnv(t, debugMode)
	u := e.newUser()
	// The database's clock has been set back by 20 s since a login.
	ahead := token.Claims{UserID: im.UserID(u.GetId()), SessionID: "s", IssuedAt: time.Now().Add(20 * time.Second)}
	e.requireResetEnds(u, ahead)
}

// The database's clock has been set back by an hour since a login: its token is
// ended by its session, as no time can end it.
func TestG16_TokenOfAClockFarAheadIsRevokedToo(t *testing.T) {
	e := newEnv(t, debugMode)
	u := e.newUser()
	ahead := e.mustVerify(e.mustLogin(u.GetEmail()).GetAccessToken())
	ahead.IssuedAt = ahead.IssuedAt.Add(time.Hour)
	e.requireResetEnds(u, ahead)
}

// A reader that polls with its cursor gets every revocation once, in order,
// whatever the order of commits.
func TestG16_RevocationFeedMissesNothing(t *testing.T) {
	e := newEnv(t, debugMode)
	other := e.replica(debugMode)
	const users, each = 8, 25
	ids, sessions := make([]int64, users), make([][]string, users)
	for i := range users {
		ids[i] = e.newUser().GetId()
		for j := range each {
			sessions[i] = append(sessions[i], fmt.Sprintf("%032x", i*1000+j))
			require.NoError(t, e.store.inTx(t.Context(), func(tx *sqlx.Tx) error {
				return insertSession(t.Context(), tx, sessions[i][j], im.UserID(ids[i]), time.Now(), time.Now().Add(time.Hour))
			}))
		}
	}
	var wg sync.WaitGroup
	for i := range users { // all at once
		s := []*env{e, other}[i%2]
		wg.Go(func() {
			for _, id := range sessions[i] {
				if _, err := s.Logout(context.Background(), &authv1.LogoutRequest{UserId: ids[i], SessionId: id}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	var cursor int64
	seen := map[string]bool{}
	poll := func() int {
		res, err := e.Revocations(t.Context(), &authv1.RevocationsRequest{After: cursor})
		require.NoError(t, err)
		for _, r := range res.GetRevocations() {
			require.Greater(t, r.GetId(), cursor)
			require.False(t, seen[r.GetSessionId()])
			seen[r.GetSessionId()] = true
			cursor = r.GetId()
		}
		return len(res.GetRevocations())
	}
	done := make(chan struct{})
	go func() { defer close(done); wg.Wait() }()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		poll()
	}
	poll()
	require.Equal(t, users*each, len(seen), "a reader with a cursor missed some")
	require.Zero(t, poll())
}

func TestRevocations_LeavesOutWhatHasExpiredAndPurges(t *testing.T) {
	e := newEnv(t, debugMode)
	u := e.newUser()
	c := e.mustVerify(e.mustLogin(u.GetEmail()).GetAccessToken())
	e.mustLogout(c)
	keep := e.mustVerify(e.mustLogin(u.GetEmail()).GetAccessToken())
	e.mustLogout(keep)
	expire := func(ago time.Duration) {
		_, err := e.db.Exec("UPDATE revocations SET expires_at = ? WHERE session_id = ?", time.Now().Add(-ago).Unix(), c.SessionID)
		require.NoError(t, err)
	}
	expire(time.Hour)
	require.True(t, e.revoked(c), "our clock may be an hour fast, and others' tokens alive")
	require.NoError(t, e.purge(t.Context()))
	require.True(t, e.revoked(c))
	expire(3 * time.Hour)
	require.False(t, e.revoked(c))
	require.True(t, e.revoked(keep))

	past := time.Now().Add(-3 * time.Hour).UnixMilli()
	_, err := e.db.Exec("UPDATE login_sessions SET expires_at = ? WHERE id = ?", past, c.SessionID)
	require.NoError(t, err)
	_, err = e.db.Exec("UPDATE refresh_tokens SET expires_at = ? WHERE session_id = ?", past, c.SessionID)
	require.NoError(t, err)
	require.NoError(t, e.purge(t.Context()))
	for table, want := range map[string]int{"revocations": 1, "login_sessions": 1, "refresh_tokens": 1} {
		var n int
		require.NoError(t, e.db.Get(&n, "SELECT COUNT(*) FROM "+table))
		require.Equal(t, want, n, table)
	}
	require.True(t, e.revoked(keep), "ids go on after a purge")
	next := e.mustVerify(e.mustLogin(u.GetEmail()).GetAccessToken())
	e.mustLogout(next)
	require.True(t, e.revoked(next))
}
