package auth

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	authv1 "im-services/api/proto/auth/v1"
	"im-services/internal/im"
	"im-services/internal/platform/rpc"
)

// The service as its callers meet it: errors keep kind, reason and pause.
func TestService_OverRPC(t *testing.T) {
	e := newEnv(t, debugMode)
	server, err := rpc.NewServer(nil, rpc.ServerConfig{Listen: "127.0.0.1:0"})
	require.NoError(t, err)
	authv1.RegisterAuthServiceServer(server.GRPC(), e)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	defer func() {
		cancel()
		require.NoError(t, <-done)
	}()
	conn, err := rpc.DialAddr(server.Addr(), nil)
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	c := authv1.NewAuthServiceClient(conn)

	call, stop := context.WithTimeout(t.Context(), 10*time.Second)
	defer stop()
	reg, err := c.Register(call, &authv1.RegisterRequest{Email: "a@example.com", Name: "a", Password: goodPassword, Code: "0000"})
	require.NoError(t, err)
	require.EqualValues(t, 2, reg.GetUser().GetId())
	login, err := c.Login(call, &authv1.LoginRequest{Email: "a@example.com", Password: goodPassword})
	require.NoError(t, err)
	e.mustVerify(login.GetLogin().GetAccessToken())
	keys, err := c.Keys(call, &authv1.KeysRequest{})
	require.NoError(t, err)
	require.Len(t, keys.GetKeys(), 1)

	for range 5 {
		_, err = c.Login(call, &authv1.LoginRequest{Email: "a@example.com", Password: "wrong password"})
		requireReason(t, "login_failed", err)
		require.Equal(t, im.KindForbidden, im.KindOf(err))
	}
	_, err = c.Login(call, &authv1.LoginRequest{Email: "a@example.com", Password: "wrong password"})
	requireReason(t, "auth_too_often", err)
	var limit *im.Error
	require.ErrorAs(t, err, &limit)
	require.InDelta(t, 10, limit.RetryAfter.Seconds(), 1)
	_, err = c.Register(call, &authv1.RegisterRequest{Email: "a@example.com", Name: "b", Password: goodPassword, Code: "0000"})
	requireReason(t, "email_taken", err)
	_, err = c.Refresh(call, &authv1.RefreshRequest{RefreshToken: "x"})
	requireReason(t, "refresh_invalid", err)
}
