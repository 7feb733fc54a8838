package check

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"sync"
	"time"

	"im-services/internal/imclient"
)

// How a login ends.
const (
	byLogout   = "logout"
	byPassword = "password"
)

// stillOpen is for how long at least what must end with a login is watched; while
// people talk it is watched on and on.
const stillOpen = 3 * time.Second

// logins lets somebody new log in, connect at every gateway and end his login,
// again and again until ctx ends, and watches what becomes of his token and his
// sockets.
func (r *run) logins(ctx context.Context) {
	rng := prng(r.o.Seed, "logins", 0)
	var watching sync.WaitGroup
	defer watching.Wait()
	for n := 0; ; n++ {
		pause := time.Duration((0.5 + 2*rng.Float64()) * float64(time.Second))
		if r.system.cluster == nil {
			pause *= 5 // a system that is not ours limits the logins of an address
		}
		sleep(ctx, pause)
		how := []string{byLogout, byPassword}[rng.IntN(2)]
		stay := time.Duration(rng.Float64() * float64(time.Second))
		if ctx.Err() != nil {
			return
		}
		user, api, ok := r.guest(ctx, "login", n)
		if !ok {
			return
		}
		l := &login{run: r, user: user, api: api}
		watched, giveUp := context.WithCancel(r.ctx)
		settled := make(chan struct{})
		context.AfterFunc(ctx, func() {
			defer giveUp()
			<-settled
			sleep(r.ctx, stillOpen)
		})
		for at := range r.system.addresses {
			watching.Go(func() { l.connect(watched, at) })
		}
		sleep(ctx, stay)
		if l.end(n, how) {
			for at := range r.system.addresses {
				watching.Go(func() { l.try(watched, at) })
			}
		}
		close(settled)
	}
}

// login is one login of one person.
type login struct {
	run  *run
	user imclient.User
	api  *imclient.API
}

// connect holds a socket at one gateway until it is closed or watched ends.
func (l *login) connect(watched context.Context, at int) {
	e := Event{Client: l.user.ID, Conn: at + 1, Type: imclient.OK, Op: OpSocket}
	ctx, cancel := context.WithTimeout(l.run.ctx, callLimit)
	socket, err := imclient.Dial(ctx, l.run.address(at), l.user.Token, imclient.DialOptions{Platform: []string{"web", "app", "pc"}[at%3]})
	cancel()
	if err != nil {
		return // something fails: the other one may do
	}
	l.run.log.add(&e)
	defer socket.Cut()
	stop := context.AfterFunc(watched, socket.Cut)
	for err == nil {
		_, err = socket.Read(0)
	}
	e = Event{Client: l.user.ID, Conn: at + 1, Type: imclient.Info, Op: OpSocket, Reason: err.Error()}
	if c, ok := errors.AsType[*imclient.CloseError](err); ok {
		e.Code = c.Code
	}
	if !stop() { // it was not the server
		e.Type, e.Reason = imclient.Fail, ownEnd
	}
	l.run.log.add(&e)
}

// end ends the login and reports whether the server confirmed it.
func (l *login) end(at int, how string) bool {
	ctx, cancel := context.WithTimeout(l.run.ctx, churnLimit)
	defer cancel()
	l.run.log.add(&Event{Client: l.user.ID, Type: imclient.Invoke, Op: OpEndLogin, Reason: how})
	api := l.api.At(l.run.address(at + 1)) // not where he logged in
	if !until(ctx, func(ctx context.Context) error {
		if how == byPassword { // the code is one that servers in debug mode accept
			return api.Call(ctx, http.MethodPost, "/api/auth/resetPassword", url.Values{
				"email": {l.user.Email}, "code": {"0000"}, "password": {"another123"}, "password_repeat": {"another123"},
			}, nil)
		}
		err := api.Call(ctx, http.MethodPost, "/api/auth/logout", nil, nil)
		if imclient.CodeOf(err) == http.StatusUnauthorized && l.refusedAt(ctx, at) {
			return nil // it took effect unheard
		}
		return err
	}) {
		return false
	}
	l.run.log.add(&Event{Client: l.user.ID, Type: imclient.OK, Op: OpEndLogin, Reason: how})
	return true
}

// refusedAt reports whether a gateway refuses the token. One alone may do so because its
// clock is behind and the token is not valid yet for it.
func (l *login) refusedAt(ctx context.Context, at int) bool {
	err := l.api.At(l.run.address(at)).Call(ctx, http.MethodGet, "/api/friends", nil, nil)
	return imclient.CodeOf(err) == http.StatusUnauthorized
}

// try shows the token to one gateway, over HTTP and to connect, until both are
// refused or watched ends.
func (l *login) try(watched context.Context, at int) {
	api := l.api.At(l.run.address(at))
	ways := []struct {
		name string
		f    func(ctx context.Context) (code int, err error)
	}{
		{"a request", func(ctx context.Context) (int, error) {
			err := api.Call(ctx, http.MethodGet, "/api/friends", nil, nil)
			return imclient.CodeOf(err), err
		}},
		{"a connection", func(ctx context.Context) (int, error) {
			socket, err := imclient.Dial(ctx, l.run.address(at), l.user.Token, imclient.DialOptions{Platform: "pc"})
			if err == nil {
				socket.Cut()
				return 0, nil
			}
			if refused, ok := errors.AsType[*imclient.HandshakeError](err); ok {
				return refused.Status, err
			}
			return 0, err
		}},
	}
	for _, way := range ways {
		for refused := false; !refused; {
			began := imclient.Now()
			ctx, cancel := context.WithTimeout(l.run.ctx, callLimit)
			code, err := way.f(ctx)
			cancel()
			e := Event{Client: l.user.ID, Conn: at + 1, Op: OpToken, Text: way.name, Code: code}
			switch {
			case err == nil:
				e.T, e.Type = began, imclient.OK // it was taken no earlier
				l.run.log.add(&e)
			case code == http.StatusUnauthorized:
				e.Type = imclient.Fail
				l.run.log.add(&e)
				refused = true
			}
			select {
			case <-watched.Done():
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
}
