package e2e

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"im-services/internal/auth"
	"im-services/internal/imclient"
	"im-services/internal/platform/config"
	"im-services/internal/platform/database"
)

// What G16 promises.
const (
	refusedWithin = time.Second
	closedWithin  = 2 * time.Second
)

// A login ends at one gateway: both refuse its token, and its sockets close at
// both, with the code that says so. Other logins live or end as they should.
func TestG16_TheEndOfALoginIsKnownAtBothGateways(t *testing.T) {
	login := func(t *testing.T, u *someone) *someone {
		t.Helper()
		user, err := api(2).Login(soon(t), u.Email, password)
		require.NoError(t, err)
		return &someone{User: user, api: api(2).As(user.Token)}
	}
	for _, c := range []struct {
		name string
		end  func(ctx context.Context, u *someone) error
		all  bool // his other logins end as well
	}{
		{"logout", func(ctx context.Context, u *someone) error {
			return u.api.Call(ctx, http.MethodPost, "/api/auth/logout", nil, nil)
		}, false},
		{"password", func(ctx context.Context, u *someone) error {
			return api(1).Call(ctx, http.MethodPost, "/api/auth/resetPassword", url.Values{
				"email": {u.Email}, "code": {"1234"}, "password": {"another1"}, "password_repeat": {"another1"},
			}, nil)
		}, true},
		{"ban", func(ctx context.Context, u *someone) error {
			dsn, err := system.DSN("im_auth")
			if err != nil {
				return err
			}
			db, err := database.Open(ctx, database.Config{DSN: config.Secret(dsn)})
			if err != nil {
				return err
			}
			defer func() { _ = db.Close() }()
			_, err = auth.Ban(ctx, db, u.Email)
			return err
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := newUser(t, 1)
			other := login(t, u)
			ended := []*imclient.Socket{dial(t, u, 1, "web"), dial(t, u, 2, "app")}
			lives := dial(t, other, 2, "pc")
			for _, s := range append(ended, lives) {
				quiet(t, s)
			}
			require.NoError(t, c.end(soon(t), u))
			begin := time.Now()
			if c.all {
				ended = append(ended, lives)
			}
			var wg sync.WaitGroup
			for _, s := range ended {
				wg.Go(func() {
					for {
						_, err := s.Read(closedWithin + busySlack)
						if err == nil {
							continue
						}
						closed, ok := errors.AsType[*imclient.CloseError](err)
						if !ok || closed.Code != 4001 {
							t.Errorf("the socket ended with %v", err)
						}
						if took := time.Since(begin); took > closedWithin+busySlack {
							t.Errorf("closed after %s", took)
						}
						return
					}
				})
			}
			for n := 1; n <= 2; n++ {
				wg.Go(func() {
					at := u.api.At(system.GatewayURL(n))
					for {
						if err := at.Call(soon(t), http.MethodGet, "/api/friends", nil, nil); imclient.CodeOf(err) == 401 {
							break
						}
						if time.Since(begin) > refusedWithin+busySlack {
							t.Errorf("gateway %d takes the token after %s", n, time.Since(begin))
							return
						}
						time.Sleep(20 * time.Millisecond)
					}
					_, err := imclient.Dial(soon(t), system.GatewayURL(n), u.Token, imclient.DialOptions{})
					if refused, ok := errors.AsType[*imclient.HandshakeError](err); !ok || refused.Status != 401 {
						t.Errorf("gateway %d opens a socket: %v", n, err)
					}
				})
			}
			wg.Wait()
			t.Logf("all closed and refused after %s", time.Since(begin).Round(time.Millisecond))
			if !c.all {
				quiet(t, lives)
				require.NoError(t, other.api.Call(soon(t), http.MethodGet, "/api/friends", nil, nil))
			}
		})
	}
}
