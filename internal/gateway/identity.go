package gateway

import (
	"context"
	"crypto/ed25519"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	authv1 "im-services/api/proto/auth/v1"
	"im-services/internal/im"
	"im-services/internal/token"
)

// identity judges access tokens without asking anybody: it holds auth's public
// keys and what auth revoked. Both are fetched in the background; while auth is
// away, what is known holds.
type identity struct {
	auth     authv1.AuthServiceClient
	verifier *token.Verifier
	log      *slog.Logger
	onRevoke func(*authv1.Revocation)

	keyed   atomic.Bool // the keys were fetched once
	polled  atomic.Bool // everything revoked before the start was fetched
	fetchMu sync.Mutex  // one fetch at a time
	fetched time.Time   // guarded by fetchMu: the last attempt
	fresh   bool        // guarded by fetchMu: it succeeded

	mu       sync.RWMutex
	sessions map[string]int64          // login session → Unix seconds until it matters
	users    map[im.UserID]revokedUser // tokens issued before a time
	cursor   int64
}

type revokedUser struct{ notBefore, until int64 }

var errRevoked = errors.New("gateway: token is revoked")

func newIdentity(cfg *Config, auth authv1.AuthServiceClient, log *slog.Logger, onRevoke func(*authv1.Revocation)) *identity {
	issuer, audience := cfg.Issuer, cfg.Audience
	orDefault(&issuer, token.DefaultIssuer)
	orDefault(&audience, token.DefaultAudience)
	return &identity{
		auth: auth, log: log, onRevoke: onRevoke,
		verifier: token.NewVerifier(nil, issuer, audience, token.DefaultLeeway),
		sessions: map[string]int64{}, users: map[im.UserID]revokedUser{},
	}
}

// ready reports whether tokens can be judged.
func (d *identity) ready() bool { return d.keyed.Load() && d.polled.Load() }

var errNotReady = errors.New("gateway: neither keys nor revocations are known yet")

// verify judges an access token. What cannot be told is unavailable, not refused:
// clients throw away a token that is refused.
func (d *identity) verify(ctx context.Context, raw string) (token.Claims, error) {
	if !d.ready() {
		return token.Claims{}, im.E(im.KindUnavailable, "service_unavailable", errNotReady)
	}
	claims, err := d.verifier.Verify(raw)
	if errors.Is(err, token.ErrUnknownKey) {
		// A key newer than ours, or a forgery: look, but not too often. Somebody else
		// may have looked meanwhile, so it is judged again in any case.
		fresh := d.fetchKeys(ctx, time.Second)
		claims, err = d.verifier.Verify(raw)
		if errors.Is(err, token.ErrUnknownKey) && !fresh {
			return token.Claims{}, im.E(im.KindUnavailable, "service_unavailable", err)
		}
	}
	if err != nil {
		return token.Claims{}, err
	}
	if d.revoked(&claims) {
		return token.Claims{}, im.E(im.KindUnauthorized, "token_revoked", errRevoked)
	}
	return claims, nil
}

func (d *identity) revoked(c *token.Claims) bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if _, ok := d.sessions[c.SessionID]; ok && c.SessionID != "" {
		return true
	}
	u, ok := d.users[c.UserID]
	return ok && c.IssuedAt.Unix() < u.notBefore
}

const (
	// askTimeout is how long a replica of auth may be silent before others are
	// asked: with the pause between two looks it must leave something of the second
	// within which the end of a login is known.
	askTimeout = 400 * time.Millisecond
	// askAgain is how often that is done, before it is not one replica that is
	// stopped but all of them that are slow.
	askAgain = 2
)

// ofAnother makes a call, and while nobody answers makes it again; the first answer
// counts. Calls go to the replicas in turn, so of two at once one goes to another, even
// if other calls take turns as well.
func ofAnother[R any](ctx context.Context, ask func(context.Context) (R, error)) (R, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	type answer struct {
		r   R
		err error
	}
	answers := make(chan answer, 1+2*askAgain)
	asked := 0
	one := func() {
		asked++
		go func() {
			r, err := ask(ctx)
			answers <- answer{r, err}
		}()
	}
	one()
	silent := time.NewTicker(askTimeout)
	defer silent.Stop()
	for again := 0; ; {
		select {
		case a := <-answers:
			if asked--; a.err == nil || asked == 0 {
				return a.r, a.err
			}
		case <-silent.C:
			if again++; again <= askAgain {
				one()
				one()
			}
		}
	}
}

// fetchKeys fetches the keys unless that was tried less than age ago; it reports
// whether those known now are the ones of then.
func (d *identity) fetchKeys(ctx context.Context, age time.Duration) bool {
	d.fetchMu.Lock()
	defer d.fetchMu.Unlock()
	if !d.fetched.IsZero() && time.Since(d.fetched) < age {
		return d.fresh
	}
	d.fresh = false
	defer func() { d.fetched = time.Now() }() // whoever waited for this does not try again
	r, err := ofAnother(ctx, func(ctx context.Context) (*authv1.KeysResponse, error) {
		return d.auth.Keys(ctx, &authv1.KeysRequest{})
	})
	if err != nil || len(r.GetKeys()) == 0 {
		d.log.Warn("cannot fetch the keys of auth", "err", err)
		return false
	}
	keys := make(map[string]ed25519.PublicKey, len(r.GetKeys()))
	for _, k := range r.GetKeys() {
		keys[k.GetKid()] = ed25519.PublicKey(k.GetKey())
	}
	d.verifier.SetKeys(keys)
	d.keyed.Store(true)
	d.fresh = true
	return true
}

func (d *identity) runKeys(ctx context.Context, interval time.Duration) {
	for {
		pause := interval
		if !d.fetchKeys(ctx, 0) && !d.keyed.Load() {
			pause = min(interval, 200*time.Millisecond)
		}
		select {
		case <-time.After(jitter(pause)):
		case <-ctx.Done():
			return
		}
	}
}

func (d *identity) runRevocations(ctx context.Context, interval time.Duration) {
	for n := 0; ; n++ {
		pause := interval
		if err := d.pollAll(ctx); err == nil {
			d.polled.Store(true)
		} else if ctx.Err() == nil {
			if n%60 == 0 {
				d.log.Warn("cannot poll revocations", "err", err)
			}
			if !d.polled.Load() {
				pause = min(interval, 200*time.Millisecond)
			}
		}
		if n%1000 == 0 {
			d.forget(time.Now())
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

// pollAll takes everything that was revoked since the last time.
func (d *identity) pollAll(ctx context.Context) error {
	for {
		n, err := d.poll(ctx)
		if err != nil || n == 0 {
			return err
		}
	}
}

// poll takes as much of it as comes in one answer, and says how much.
func (d *identity) poll(ctx context.Context) (int, error) {
	d.mu.RLock()
	after := d.cursor
	d.mu.RUnlock()
	r, err := ofAnother(ctx, func(ctx context.Context) (*authv1.RevocationsResponse, error) {
		return d.auth.Revocations(ctx, &authv1.RevocationsRequest{After: after})
	})
	if err != nil {
		return 0, err
	}
	for _, v := range r.GetRevocations() {
		d.mu.Lock()
		if v.GetSessionId() != "" {
			d.sessions[v.GetSessionId()] = v.GetExpiresAt()
		} else {
			u := d.users[im.UserID(v.GetUserId())]
			d.users[im.UserID(v.GetUserId())] = revokedUser{
				max(u.notBefore, v.GetNotBefore()), max(u.until, v.GetExpiresAt()),
			}
		}
		d.cursor = max(d.cursor, v.GetId())
		d.mu.Unlock()
		d.onRevoke(v)
	}
	return len(r.GetRevocations()), nil
}

// clockSlack is how far our clock may be ahead for a while without a revocation
// being forgotten that matters again when it is right.
const clockSlack = 2 * time.Hour

// forget drops revocations that can hit no live token any more.
func (d *identity) forget(now time.Time) {
	past := now.Add(-clockSlack).Unix()
	d.mu.Lock()
	defer d.mu.Unlock()
	for k, until := range d.sessions {
		if until != 0 && until < past {
			delete(d.sessions, k)
		}
	}
	for k, u := range d.users {
		if u.until != 0 && u.until < past {
			delete(d.users, k)
		}
	}
}

// redeem judges what a client presents at connect: an access token or a
// single-use ticket. What has the form of neither is refused without asking
// anybody.
func (d *identity) redeem(ctx context.Context, raw string) (token.Claims, error) {
	if !token.IsTicket(raw) {
		return d.verify(ctx, raw)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	r, err := d.auth.RedeemTicket(ctx, &authv1.RedeemTicketRequest{Ticket: raw})
	if err != nil {
		return token.Claims{}, err
	}
	i := r.GetIdentity()
	claims := token.Claims{
		UserID: im.UserID(i.GetUserId()), Name: i.GetName(), Email: i.GetEmail(), Avatar: i.GetAvatar(),
		SessionID: i.GetSessionId(), IssuedAt: time.Unix(i.GetIssuedAt(), 0), ExpiresAt: time.Unix(i.GetExpiresAt(), 0),
	}
	if !claims.UserID.Valid() || d.revoked(&claims) || time.Now().After(claims.ExpiresAt.Add(token.DefaultLeeway)) {
		return token.Claims{}, im.E(im.KindUnauthorized, "token_revoked", errRevoked)
	}
	return claims, nil
}
