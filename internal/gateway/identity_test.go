package gateway

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	authv1 "im-services/api/proto/auth/v1"
	"im-services/internal/im"
	"im-services/internal/token"
)

// slowAuth answers after a while, and not at all while it is away.
type slowAuth struct {
	*fakeAuth
	delay time.Duration
}

func (a *slowAuth) wait() error {
	time.Sleep(a.delay)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.away {
		return im.E(im.KindUnavailable, "service_unavailable", nil)
	}
	return nil
}

func (a *slowAuth) Keys(ctx context.Context, req *authv1.KeysRequest, opts ...grpc.CallOption) (*authv1.KeysResponse, error) {
	if err := a.wait(); err != nil {
		return nil, err
	}
	return a.fakeAuth.Keys(ctx, req, opts...)
}

func (a *slowAuth) Revocations(ctx context.Context, req *authv1.RevocationsRequest, opts ...grpc.CallOption) (*authv1.RevocationsResponse, error) {
	if err := a.wait(); err != nil {
		return nil, err
	}
	return a.fakeAuth.Revocations(ctx, req, opts...)
}

func (a *slowAuth) setAway(away bool) {
	a.mu.Lock()
	a.away = away
	a.mu.Unlock()
}

// startIdentity returns an identity that fetches in the background until the
// test ends.
func startIdentity(t *testing.T, auth authv1.AuthServiceClient) *identity {
	t.Helper()
	d := newIdentity(&Config{}, auth, slog.New(slog.DiscardHandler), func(*authv1.Revocation) {})
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { d.runKeys(ctx, time.Minute) })
	wg.Go(func() { d.runRevocations(ctx, 500*time.Millisecond) })
	t.Cleanup(func() { stop(); wg.Wait() })
	return d
}

// TestG16_AStartingGatewayRefusesNoGoodTokenAndTakesNoEndedOne: until it knows
// keys and revocations it can tell neither, and says so: whoever is refused logs
// in again, and whoever is let in with a login that has ended stays.
func TestG16_AStartingGatewayRefusesNoGoodTokenAndTakesNoEndedOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		auth := &slowAuth{fakeAuth: newFakeAuth(t), delay: 10 * time.Millisecond}
		auth.setAway(true)
		auth.revoke(&authv1.Revocation{UserId: 35, SessionId: "s35", ExpiresAt: time.Now().Add(time.Hour).Unix()})
		good, ended := auth.token(t, 34), auth.token(t, 35)
		d := startIdentity(t, auth)
		for began := time.Now(); time.Since(began) < 3*time.Second; time.Sleep(time.Millisecond) {
			if time.Since(began) > time.Second {
				auth.setAway(false)
			}
			_, err := d.verify(t.Context(), good)
			if err != nil && im.KindOf(err) != im.KindUnavailable {
				t.Fatalf("a good token was refused after %v: %v", time.Since(began), err)
			}
			if took := time.Since(began); err != nil && took > 1500*time.Millisecond {
				t.Fatalf("not ready after %v: %v", took, err)
			}
			if _, err := d.verify(t.Context(), ended); err == nil {
				t.Fatalf("an ended login was taken after %v", time.Since(began))
			}
		}
	})
}

// TestVerify_NewKeyWhileOthersFetch: everybody who comes with a key that is new
// waits for the one look that is under way, and is judged by what it brought.
func TestVerify_NewKeyWhileOthersFetch(t *testing.T) {
	auth := &slowAuth{fakeAuth: newFakeAuth(t)}
	d := newIdentity(&Config{}, auth, slog.New(slog.DiscardHandler), func(*authv1.Revocation) {})
	if !d.fetchKeys(t.Context(), 0) || d.pollAll(t.Context()) != nil {
		t.Fatal("auth does not answer")
	}
	d.polled.Store(true)
	long := func() { // since the last look
		d.fetchMu.Lock()
		d.fetched = time.Now().Add(-time.Hour)
		d.fetchMu.Unlock()
	}

	rotated := newFakeAuth(t)
	auth.signer = token.NewSigner("k2", rotated.priv, token.DefaultIssuer, token.DefaultAudience)
	auth.kid, auth.pub, auth.delay = "k2", rotated.pub, 50*time.Millisecond
	raw := auth.token(t, 34)
	long()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := d.verify(t.Context(), raw); err != nil {
				t.Errorf("refused: %v", err)
			}
		})
		time.Sleep(5 * time.Millisecond)
	}
	wg.Wait()

	// A key nobody can look up may be a new one; one that auth does not have is forged.
	forged := newFakeAuth(t)
	forged.signer = token.NewSigner("k9", forged.priv, token.DefaultIssuer, token.DefaultAudience)
	for range 2 {
		auth.setAway(true)
		if _, err := d.verify(t.Context(), forged.token(t, 34)); !errors.Is(err, token.ErrUnknownKey) {
			t.Errorf("just looked up: %v", err)
		}
		long()
		for range 2 {
			if _, err := d.verify(t.Context(), forged.token(t, 34)); im.KindOf(err) != im.KindUnavailable {
				t.Errorf("while auth is away: %v", err)
			}
		}
		auth.setAway(false)
		long()
		if _, err := d.verify(t.Context(), forged.token(t, 34)); !errors.Is(err, token.ErrUnknownKey) {
			t.Errorf("with auth there: %v", err)
		}
	}
}

// halfAuth has two replicas, of which one is stopped: every other call gets no answer.
type halfAuth struct {
	*fakeAuth
	calls  atomic.Int64
	asking chan struct{} // somebody waits for the one that is stopped
}

func (a *halfAuth) stopped(ctx context.Context) error {
	if a.calls.Add(1)%2 == 0 {
		return nil
	}
	select {
	case a.asking <- struct{}{}:
	default:
	}
	<-ctx.Done()
	return im.E(im.KindUnavailable, "service_unavailable", ctx.Err())
}

func (a *halfAuth) Keys(ctx context.Context, req *authv1.KeysRequest, opts ...grpc.CallOption) (*authv1.KeysResponse, error) {
	if err := a.stopped(ctx); err != nil {
		return nil, err
	}
	return a.fakeAuth.Keys(ctx, req, opts...)
}

func (a *halfAuth) Revocations(ctx context.Context, req *authv1.RevocationsRequest, opts ...grpc.CallOption) (*authv1.RevocationsResponse, error) {
	if err := a.stopped(ctx); err != nil {
		return nil, err
	}
	return a.fakeAuth.Revocations(ctx, req, opts...)
}

// One replica of auth is stopped: logins end as fast as ever, and a gateway that
// starts is ready as soon.
func TestG16_AStoppedReplicaOfAuthHoldsNothingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		auth := &halfAuth{fakeAuth: newFakeAuth(t), asking: make(chan struct{})}
		began := time.Now()
		d := startIdentity(t, auth)
		for !d.ready() {
			time.Sleep(time.Millisecond)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("ready after %v", took)
		}
		tok := auth.token(t, 35)
		for range 5 {
			<-auth.asking // the worst moment
			auth.revoke(&authv1.Revocation{UserId: 35, NotBefore: time.Now().Add(time.Hour).Unix(), ExpiresAt: time.Now().Add(2 * time.Hour).Unix()})
			began := time.Now()
			for {
				if _, err := d.verify(t.Context(), tok); err != nil {
					break
				}
				time.Sleep(time.Millisecond)
			}
			if took := time.Since(began); took > time.Second {
				t.Errorf("known after %v", took)
			}
			d.mu.Lock()
			clear(d.users)
			d.mu.Unlock()
		}
	})
}
