package auth

import (
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	authv1 "im-services/api/proto/auth/v1"
)

// TestG16_BanEndsEveryLoginAndAllowsNoOther: who is banned by e-mail address or
// by id loses all logins, gets no new one by any way, and is told why only if he
// proves who he is; once it is lifted all is as before, but for the old logins.
func TestG16_BanEndsEveryLoginAndAllowsNoOther(t *testing.T) {
	e := newEnv(t, debugMode)
	for _, name := range []func(u *authv1.User) string{
		func(u *authv1.User) string { return u.GetEmail() },
		func(u *authv1.User) string { return strconv.FormatInt(u.GetId(), 10) },
	} {
		u, other := e.newUser(), e.newUser()
		one, two := e.mustLogin(u.GetEmail()), e.mustLogin(u.GetEmail())
		bystander := e.mustLogin(other.GetEmail())
		id, err := Ban(t.Context(), e.db, name(u))
		require.NoError(t, err)
		require.EqualValues(t, u.GetId(), id)

		for _, l := range []*authv1.LoggedIn{one, two} {
			require.True(t, e.revoked(e.mustVerify(l.GetAccessToken())))
			_, err = e.refreshWith(l.GetRefreshToken())
			requireReason(t, "refresh_invalid", err)
		}
		require.False(t, e.revoked(e.mustVerify(bystander.GetAccessToken())))
		_, err = e.Login(t.Context(), &authv1.LoginRequest{Email: u.GetEmail(), Password: goodPassword})
		requireReason(t, "account_banned", err)
		_, err = e.Login(t.Context(), &authv1.LoginRequest{Email: u.GetEmail(), Password: "not his"})
		requireReason(t, "login_failed", err, "a stranger learns nothing")
		_, err = e.ResetPassword(t.Context(), &authv1.ResetPasswordRequest{Email: u.GetEmail(), Code: "0000", Password: goodPassword})
		require.NoError(t, err)
		_, err = e.Login(t.Context(), &authv1.LoginRequest{Email: u.GetEmail(), Password: goodPassword})
		requireReason(t, "account_banned", err, "a new password lifts no ban")

		_, err = Unban(t.Context(), e.db, name(u))
		require.NoError(t, err)
		again := e.mustLogin(u.GetEmail())
		require.False(t, e.revoked(e.mustVerify(again.GetAccessToken())))
		require.True(t, e.revoked(e.mustVerify(one.GetAccessToken())))
	}
	for _, nobody := range []string{"", "nobody", "nobody@example.com", "999999999", "-1"} {
		_, err := Ban(t.Context(), e.db, nobody)
		require.Error(t, err, nobody)
	}
}
