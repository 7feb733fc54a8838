package rest

import (
	"context"
	"net/http"
	"time"

	"github.com/go-chi/chi/v5"

	pushv1 "im-services/api/proto/push/v1"
	"im-services/internal/im"
	"im-services/internal/peer"
	"im-services/internal/token"
	"im-services/internal/wire"
)

// api is the state the handlers share; all of it is safe for concurrent use.
type api struct {
	Deps

	zone     *time.Location
	profiles *profiles
	uploads  *slots[im.UserID]
	files    *slots[string]    // that are being fetched, by host
	reads    *slots[im.UserID] // of large answers that are being made
	unread   *slots[im.UserID] // of large answers that wait to be read
	bodies   *slots[im.UserID] // of bytes of bodies, those that nobody answers for being user 0's
	metrics  *metrics
}

// handler answers a request: the value of the envelope's data member, or why not.
type handler func(c *call) (any, error)

// call is one request on its way through a handler.
type call struct {
	*api
	w   http.ResponseWriter
	r   *http.Request
	me  im.UserID    // 0 on the endpoints that need no login
	who token.Claims // of me
	at  time.Time    // when it came, as far as this process knows

	work context.Context // see ctx; nil before
	done context.CancelFunc

	makes bool // has one of the reads
	waits bool // has one of the unread
	held  int  // what it has of bodies
}

// ctx is for the work on the call. Its time begins with the first use, which is when
// the body has been read: a body takes what it takes, within its pace.
func (c *call) ctx() context.Context {
	if c.work == nil {
		c.work, c.done = context.WithTimeout(c.r.Context(), c.Config.RequestTimeout)
	}
	return c.work
}

// id reads the path parameter "id".
func (c *call) id() (int64, error) {
	n, ok := wire.ParseInt(chi.URLParam(c.r, "id"))
	if !ok || n <= 0 || n > im.MaxID {
		return 0, refuse("id_invalid")
	}
	return n, nil
}

// sender is the caller as others see him.
func (c *call) sender() *pushv1.Profile {
	return &pushv1.Profile{
		Id:     int64(c.me),
		Name:   c.who.Name,
		Avatar: c.avatar(c.who.Avatar, c.me),
		Email:  c.who.Email,
	}
}

func (c *call) peerIP() string { return peer.IP(c.r, c.Config.TrustedProxies) }

// time spells a time in Unix milliseconds.
func (a *api) time(ms int64) string { return wire.Time(ms, a.zone) }

func refuse(reason string) error { return im.E(im.KindInvalid, reason, nil) }

// open makes a route of a handler that needs no login.
func (a *api) open(h handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		a.answer(&call{api: a, w: w, r: r}, h)
	}
}

// authed makes a route of a handler that needs a login.
func (a *api) authed(h handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		a.answer(&call{api: a, w: w, r: r, at: time.Now()}, func(c *call) (any, error) {
			claims, err := a.identify(r)
			if err != nil {
				sink(w, r)
				return nil, err
			}
			c.me, c.who = claims.UserID, claims
			return h(c)
		})
	}
}

// freshLogin is how long a login that was good when a request came is taken for good.
const freshLogin = 500 * time.Millisecond

// stillMe refuses who was logged in when his request came and is not any more. To be
// asked when the body has been read, which may have taken minutes.
func (c *call) stillMe() error {
	if c.me == 0 || time.Since(c.at) < freshLogin {
		return nil
	}
	_, err := c.identify(c.r)
	return err
}

// identify checks the token of a request.
func (a *api) identify(r *http.Request) (token.Claims, error) {
	t := bearer(r)
	if t == "" {
		return token.Claims{}, im.E(im.KindUnauthorized, "unauthorized", nil)
	}
	claims, err := a.Verify(t)
	switch {
	case err == nil:
		if l := recordOf(r); l != nil {
			l.user = claims.UserID
		}
		return claims, nil
	case im.KindOf(err) == im.KindUnavailable:
		return token.Claims{}, err
	default:
		return token.Claims{}, im.E(im.KindUnauthorized, "unauthorized", err)
	}
}
