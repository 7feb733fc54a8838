package auth

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	authv1 "im-services/api/proto/auth/v1"
	"im-services/internal/im"
	"im-services/internal/testkit"
)

// G17: with Redis down, log in goes on and limits fall to the process.
func TestG17_LoginGoesOnWithoutRedis(t *testing.T) {
	for name, hurt := range map[string]func(*testkit.RedisServer){
		"killed": func(r *testkit.RedisServer) { r.Kill() },
		"paused": func(r *testkit.RedisServer) { r.Pause() },
	} {
		t.Run(name, func(t *testing.T) {
			e := newEnvWithin(t, 0, debugMode, func(c *Config) { c.Limits.LoginsPerMinute = 40 })
			u := e.newUser()
			before := e.mustLogin(u.GetEmail())
			hurt(e.redis)
			t.Cleanup(e.redis.Resume)

			for range 3 {
				start := time.Now()
				l := e.mustLogin(u.GetEmail())
				require.Less(t, time.Since(start), 6*time.Second)
				c := e.mustVerify(l.GetAccessToken())
				next, err := e.refreshWith(l.GetRefreshToken())
				require.NoError(t, err)
				e.mustLogout(c)
				require.True(t, e.revoked(e.mustVerify(next.GetAccessToken())))
			}
			e.newUser() // debug mode: no code to look up
			require.NotEmpty(t, e.search("user", 10))
			_, err := e.GetUsers(t.Context(), &authv1.GetUsersRequest{Ids: []int64{u.GetId()}})
			require.NoError(t, err)

			for range e.cfg.Limits.FreeAttempts {
				_, err := e.Login(t.Context(), &authv1.LoginRequest{Email: u.GetEmail(), Password: "wrong password"})
				requireReason(t, "login_failed", err)
			}
			_, err = e.Login(t.Context(), &authv1.LoginRequest{Email: u.GetEmail(), Password: goodPassword})
			requireReason(t, "auth_too_often", err, "guessing is limited all the same")
			limited, start := 0, time.Now()
			for range 100 {
				_, err := e.Login(t.Context(), &authv1.LoginRequest{Email: "x", Password: goodPassword, PeerIp: "198.51.100.1"})
				if im.ReasonOf(err) == "auth_too_often" {
					limited++
				}
			}
			slow := int(time.Since(start).Minutes() * 40) // so many more are let in the longer it takes
			require.InDelta(t, max(0, 60-slow), limited, 3)

			// What lives in Redis says so, and nothing else.
			_, err = e.SendEmailCode(t.Context(), &authv1.SendEmailCodeRequest{Email: "new@example.com", Purpose: forRegister})
			require.Equal(t, im.KindUnavailable, im.KindOf(err))
			_, err = e.IssueTicket(t.Context(), &authv1.IssueTicketRequest{Identity: identity(e.mustVerify(before.GetAccessToken()))})
			require.Equal(t, im.KindUnavailable, im.KindOf(err))
			_, err = e.RedeemTicket(t.Context(), &authv1.RedeemTicketRequest{Ticket: newSecretText()})
			require.Equal(t, im.KindUnavailable, im.KindOf(err))
			_, err = e.refreshWith(before.GetRefreshToken())
			require.NoError(t, err)
		})
	}
}

// A start without Redis works, and Redis coming back is noticed.
func TestG17_StartsWithoutRedisAndFindsItAgain(t *testing.T) {
	e := newEnv(t, debugMode)
	e.redis.Kill()
	late := e.replica(debugMode)
	late.newUser()
	late.redis.Restart()
	require.Eventually(t, func() bool {
		_, err := late.SendEmailCode(t.Context(), &authv1.SendEmailCodeRequest{Email: "new@example.com", Purpose: forRegister})
		return err == nil
	}, 10*time.Second, 100*time.Millisecond)
}

func TestMySQLAway_IsSaidInTimeAndHeals(t *testing.T) {
	server := testkit.StartMySQL(t)
	e := &env{t: t, dsn: server.DSN, redis: testkit.StartRedis(t)}
	migrate(t, e.dsn)
	e.start(debugMode)
	u := e.newUser()
	l := e.mustLogin(u.GetEmail())
	server.Kill()
	unavailable := func(what string, f func(ctx context.Context) error) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		start := time.Now()
		err := f(ctx)
		require.Equal(t, im.KindUnavailable, im.KindOf(err), "%s: %v", what, err)
		require.Less(t, time.Since(start), 5*time.Second, what)
	}
	unavailable("log in", func(ctx context.Context) error {
		_, err := e.Login(ctx, &authv1.LoginRequest{Email: u.GetEmail(), Password: goodPassword})
		return err
	})
	unavailable("refresh", func(ctx context.Context) error {
		_, err := e.Refresh(ctx, &authv1.RefreshRequest{RefreshToken: l.GetRefreshToken()})
		return err
	})
	unavailable("revocations", func(ctx context.Context) error {
		_, err := e.Revocations(ctx, &authv1.RevocationsRequest{})
		return err
	})
	require.Error(t, e.keys.reload(t.Context()))
	e.mustVerify(l.GetAccessToken()) // the keys are still known
	server.Restart()
	require.Eventually(t, func() bool {
		_, err := e.Login(t.Context(), &authv1.LoginRequest{Email: u.GetEmail(), Password: goodPassword})
		return err == nil
	}, 10*time.Second, 100*time.Millisecond)
	_, err := e.refreshWith(l.GetRefreshToken())
	require.NoError(t, err, "the refused refresh had not used the token up")
}

func TestRun_PicksUpNewKeysAndStops(t *testing.T) {
	e := newEnv(t, debugMode)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	kid, err := RotateKey(t.Context(), e.db, e.cfg)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return e.kids()[0] == kid }, keyReload+10*time.Second, 50*time.Millisecond)
	cancel()
	select {
	case err := <-done:
		require.NoError(t, err)
	case <-time.After(10 * time.Second):
		t.Fatal("Run does not stop")
	}
}
