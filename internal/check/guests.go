package check

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"im-services/internal/imclient"
)

// guestsClient is for those who are no talkers: they must not wait for their
// connections, nor the talkers for theirs.
var guestsClient = &http.Client{Timeout: callLimit, Transport: &http.Transport{MaxIdleConnsPerHost: 16, IdleConnTimeout: 10 * time.Second}}

const guestPassword = "secret123"

// guest makes an account of that kind and logs it in at the n-th address; false
// if ctx ended first.
func (r *run) guest(ctx context.Context, kind string, n int) (imclient.User, *imclient.API, bool) {
	name := fmt.Sprintf("%s%sx%d", kind, intText(time.Now().UnixMilli()%1e9), n)
	api := imclient.NewAPI(r.address(n), guestsClient)
	var user imclient.User
	ok := until(ctx, func(ctx context.Context) error {
		_ = api.Register(ctx, name+"@example.com", name, guestPassword) // it may exist by now
		var err error
		user, err = api.Login(ctx, name+"@example.com", guestPassword)
		return err
	})
	return user, api.As(user.Token), ok
}

// address is that of a gateway; they are taken in turn.
func (r *run) address(n int) string { return r.system.addresses[n%len(r.system.addresses)] }
