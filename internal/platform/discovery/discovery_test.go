package discovery_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"im-services/internal/platform/discovery"
	"im-services/internal/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, testkit.LeakOptions()...) }

func open(t *testing.T, endpoints []string, ttl time.Duration) *discovery.Registry {
	t.Helper()
	r, err := discovery.Open(discovery.Config{Endpoints: endpoints, LeaseTTL: ttl}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// raw is a client beside the registry, to do what the registry never would.
func raw(t *testing.T, endpoints []string) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: endpoints, DialTimeout: 5 * time.Second, Logger: zap.NewNop()})
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestOpen_ShowsItsCertificateAndWantsOneOfTheCA(t *testing.T) {
	ca, other := testkit.NewCA(t), testkit.NewCA(t)
	cert, key := ca.Issue(t, "localhost", time.Hour)
	serverPair, err := tls.LoadX509KeyPair(cert, key)
	require.NoError(t, err)
	pool := x509.NewCertPool()
	pem, err := os.ReadFile(ca.File)
	require.NoError(t, err)
	require.True(t, pool.AppendCertsFromPEM(pem))
	// Not an etcd: whom the client talks to, and who it is, shows in the handshake.
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"},
		Certificates: []tls.Certificate{serverPair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert,
	})
	require.NoError(t, err)
	shaken := make(chan error, 100)
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	t.Cleanup(func() { _ = ln.Close() })
	wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			select {
			case shaken <- conn.(*tls.Conn).Handshake():
			default:
			}
			_ = conn.Close()
		}
	})
	_, port, err := net.SplitHostPort(ln.Addr().String())
	require.NoError(t, err)
	handshake := func(conf discovery.TLSConfig) error {
		r, err := discovery.Open(discovery.Config{Endpoints: []string{"localhost:" + port}, TLS: conf}, slog.New(slog.DiscardHandler))
		require.NoError(t, err)
		defer func() { _ = r.Close() }()
		r.Watch("logic")
		select {
		case err := <-shaken:
			return err
		case <-time.After(10 * time.Second):
			return errors.New("nobody came")
		}
	}
	require.NoError(t, handshake(discovery.TLSConfig{Cert: cert, Key: key, CA: ca.File}))
	require.Error(t, handshake(discovery.TLSConfig{Cert: cert, Key: key, CA: other.File}))

	for _, conf := range []discovery.TLSConfig{{Cert: cert, Key: key}, {Cert: "absent", Key: "absent", CA: ca.File}} {
		_, err := discovery.Open(discovery.Config{Endpoints: []string{"localhost:1"}, TLS: conf}, slog.New(slog.DiscardHandler))
		require.Error(t, err)
	}
}

func ids(w *discovery.Watcher) []string {
	out := []string{}
	for _, i := range w.Instances() {
		out = append(out, i.ID)
	}
	return out
}

// busySlack is what a busy machine may add to any limit.
const busySlack = 5 * time.Second

func eventually(t *testing.T, w *discovery.Watcher, within time.Duration, want ...string) {
	t.Helper()
	if want == nil {
		want = []string{}
	}
	require.Eventually(t, func() bool { return fmt.Sprint(ids(w)) == fmt.Sprint(want) }, within+busySlack, 10*time.Millisecond,
		"want %v, have %v", want, ids(w))
}

func never(t *testing.T, w *discovery.Watcher, within time.Duration, always ...string) {
	t.Helper()
	require.Never(t, func() bool { return fmt.Sprint(ids(w)) != fmt.Sprint(always) }, within, 10*time.Millisecond)
}

func register(t *testing.T, r *discovery.Registry, id string) *discovery.Registration {
	t.Helper()
	g, err := r.Register(t.Context(), "logic", id, "127.0.0.1:"+id, map[string]string{"v": "1"})
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = g.Deregister(ctx)
	})
	return g
}

func TestRegisterWatchDeregister(t *testing.T) {
	endpoints := testkit.Etcd(t)
	r, other := open(t, endpoints, 0), open(t, endpoints, 0)
	w := other.Watch("logic")
	require.Same(t, w, other.Watch("logic"))
	require.NoError(t, w.Ready(t.Context()))
	require.Empty(t, w.Instances())

	var mu sync.Mutex
	var seen []int
	w.OnChange(func(list []discovery.Instance) { mu.Lock(); seen = append(seen, len(list)); mu.Unlock() })

	change := w.Changed()
	a := register(t, r, "1")
	select {
	case <-change:
	case <-time.After(5 * time.Second):
		require.Fail(t, "no change")
	}
	register(t, r, "2")
	eventually(t, w, 5*time.Second, "1", "2")
	require.Equal(t, discovery.Instance{ID: "1", Addr: "127.0.0.1:1", Meta: map[string]string{"v": "1"}}, w.Instances()[0])
	require.Empty(t, other.Watch("auth").Instances(), "another service")

	begin := time.Now()
	require.NoError(t, a.Deregister(t.Context()))
	eventually(t, w, 5*time.Second, "2")
	require.Less(t, time.Since(begin), 3*time.Second, "who says goodbye is gone before his lease is")
	require.NoError(t, a.Deregister(t.Context()), "twice is harmless")

	mu.Lock()
	defer mu.Unlock()
	require.Equal(t, []int{0, 1, 2, 1}, seen)
}

func TestRegister_Refuses(t *testing.T) {
	r := open(t, []string{"127.0.0.1:1"}, 0)
	for _, c := range [][3]string{{"", "1", "a"}, {"s", "", "a"}, {"s/x", "1", "a"}, {"s", "1", ""}} {
		_, err := r.Register(t.Context(), c[0], c[1], c[2], nil)
		require.Error(t, err)
	}
	_, err := discovery.Open(discovery.Config{}, slog.Default())
	require.Error(t, err)
	_, err = discovery.Open(discovery.Config{Endpoints: []string{"x"}, Prefix: "im"}, slog.Default())
	require.Error(t, err)
}

func TestDeadInstanceGoesAwayInTime(t *testing.T) {
	t.Parallel() // with the others that wait for leases
	endpoints := testkit.Etcd(t)
	r := open(t, endpoints, 2*time.Second)
	w := r.Watch("logic")
	register(t, r, "1")
	c := raw(t, endpoints)
	lease, err := c.Grant(t.Context(), 2)
	require.NoError(t, err)
	_, err = c.Put(t.Context(), "/im/logic/dead", `{"addr":"127.0.0.1:9"}`, clientv3.WithLease(lease.ID))
	require.NoError(t, err)
	eventually(t, w, 2*time.Second, "1", "dead")
	begin := time.Now()
	eventually(t, w, 10*time.Second, "1")
	t.Logf("a lease of %ds is gone after %s", lease.TTL, time.Since(begin))
	require.Less(t, time.Since(begin), time.Duration(lease.TTL)*time.Second+4*time.Second)
}

func TestLostLeaseIsReplaced(t *testing.T) {
	endpoints := testkit.Etcd(t)
	r := open(t, endpoints, 2*time.Second)
	w := r.Watch("logic")
	register(t, r, "1")
	eventually(t, w, 2*time.Second, "1")
	c := raw(t, endpoints)
	leases, err := c.Leases(t.Context())
	require.NoError(t, err)
	require.Len(t, leases.Leases, 1)
	_, err = c.Revoke(t.Context(), leases.Leases[0].ID)
	require.NoError(t, err)
	// Watchers do not even notice, or at most for a moment: the lease is
	// missed at the next keep-alive, a third of its life later.
	require.Eventually(t, func() bool {
		res, err := c.Get(t.Context(), "/im/logic/1")
		return err == nil && len(res.Kvs) == 1
	}, 3*time.Second+busySlack, 20*time.Millisecond)
	eventually(t, w, 2*time.Second, "1")
}

// Somebody cleans up: the key is gone, and the lease lives on.
func TestG17_ADeletedKeyIsMadeAgain(t *testing.T) {
	t.Parallel()
	endpoints := testkit.Etcd(t)
	r := open(t, endpoints, 2*time.Second)
	w := r.Watch("logic")
	register(t, r, "1")
	eventually(t, w, 5*time.Second, "1")
	c := raw(t, endpoints)
	before, err := c.Get(t.Context(), "/im/logic/1")
	require.NoError(t, err)
	_, err = c.Delete(t.Context(), "/im/", clientv3.WithPrefix())
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		after, err := c.Get(t.Context(), "/im/logic/1")
		return err == nil && len(after.Kvs) == 1 && after.Kvs[0].Lease != before.Kvs[0].Lease
	}, 10*time.Second, 50*time.Millisecond)
	eventually(t, w, 5*time.Second, "1")
	require.Eventually(t, func() bool {
		leases, err := c.Leases(t.Context())
		return err == nil && len(leases.Leases) == 1
	}, 5*time.Second, 50*time.Millisecond, "the old lease is given back")
}

func TestRubbishIsNotAnInstance(t *testing.T) {
	endpoints := testkit.Etcd(t)
	r := open(t, endpoints, 0)
	w := r.Watch("logic")
	c := raw(t, endpoints)
	for key, value := range map[string]string{"a": "nonsense", "b": `{}`, "c/d": `{"addr":"x:1"}`, "": `{"addr":"x:1"}`} {
		_, err := c.Put(t.Context(), "/im/logic/"+key, value)
		require.NoError(t, err)
	}
	register(t, r, "1")
	eventually(t, w, 2*time.Second, "1")
}

func TestEtcdDown_TheListStays(t *testing.T) {
	t.Parallel()
	etcd := testkit.StartEtcd(t)
	r, other := open(t, etcd.Endpoints, 2*time.Second), open(t, etcd.Endpoints, 2*time.Second)
	w := other.Watch("logic")
	register(t, r, "1")
	register(t, r, "2")
	eventually(t, w, 5*time.Second, "1", "2")

	etcd.Kill()
	never(t, w, 4*time.Second, "1", "2")
	_, err := r.Register(t.Context(), "auth", "9", "127.0.0.1:9", nil)
	require.NoError(t, err, "registering goes on in the background")
	etcd.Restart()
	never(t, w, 3*time.Second, "1", "2")
	auth := other.Watch("auth")
	eventually(t, auth, 5*time.Second, "9")
}

func TestEtcdFrozen_TheListStays(t *testing.T) {
	t.Parallel()
	etcd := testkit.StartEtcd(t)
	r, other := open(t, etcd.Endpoints, 2*time.Second), open(t, etcd.Endpoints, 2*time.Second)
	w := other.Watch("logic")
	register(t, r, "1")
	register(t, r, "2")
	eventually(t, w, 5*time.Second, "1", "2")
	etcd.Pause() // long enough for every lease to run out
	never(t, w, 5*time.Second, "1", "2")
	etcd.Resume()
	never(t, w, 4*time.Second, "1", "2")
}

func TestEtcdWiped_TheListStaysAndIsFollowedAgain(t *testing.T) {
	t.Parallel()
	before, after := testkit.Etcd(t), testkit.Etcd(t)
	proxy := testkit.Proxy(t, before[0])
	way := []string{proxy.Addr}
	r, other := open(t, way, 2*time.Second), open(t, way, 2*time.Second)
	w := other.Watch("logic")
	c := raw(t, before)
	for i := range 50 { // a revision that the new store takes long to reach
		_, err := c.Put(t.Context(), "/noise", fmt.Sprint(i))
		require.NoError(t, err)
	}
	register(t, r, "1")
	register(t, r, "2")
	eventually(t, w, 5*time.Second, "1", "2")

	// As if etcd had come back without its data directory.
	proxy.Retarget(after[0])
	proxy.Reset()
	never(t, w, 5*time.Second, "1", "2")
	res, err := raw(t, after).Get(t.Context(), "/im/logic/", clientv3.WithPrefix())
	require.NoError(t, err)
	require.Len(t, res.Kvs, 2, "the instances have announced themselves to the new store")

	third := register(t, r, "3")
	eventually(t, w, 10*time.Second, "1", "2", "3")
	require.NoError(t, third.Deregister(t.Context()))
	eventually(t, w, 2*time.Second, "1", "2")
}

// TestG17_WipedEtcdIsNoticedThoughItCameAsFarAgain: where little was ever written,
// the new store reaches the old one's revision before anybody looks. Whoever
// registered on the way there is found, and who did not come back goes.
func TestG17_WipedEtcdIsNoticedThoughItCameAsFarAgain(t *testing.T) {
	t.Parallel()
	before, after := testkit.Etcd(t), testkit.Etcd(t)
	proxy := testkit.Proxy(t, before[0])
	r, gone, other := open(t, after, 2*time.Second), open(t, before, 2*time.Second), open(t, []string{proxy.Addr}, 2*time.Second)
	w := other.Watch("logic")
	register(t, gone, "1")
	register(t, gone, "2")
	eventually(t, w, 5*time.Second, "1", "2")
	register(t, r, "2")
	register(t, r, "3")
	c := raw(t, after)
	for i := range 5 {
		_, err := c.Put(t.Context(), "/noise", fmt.Sprint(i))
		require.NoError(t, err)
	}
	proxy.Retarget(after[0])
	proxy.Reset()
	eventually(t, w, 15*time.Second, "2", "3")
}

func TestCloseEndsRegistrations(t *testing.T) {
	endpoints := testkit.Etcd(t)
	r, err := discovery.Open(discovery.Config{Endpoints: endpoints}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	_, err = r.Register(t.Context(), "logic", "1", "127.0.0.1:1", nil)
	require.NoError(t, err)
	require.NoError(t, r.Close()) // goleak sees whether something stays behind
}

func TestOpen_EtcdAway(t *testing.T) {
	r := open(t, []string{"127.0.0.1:1"}, 0)
	begin := time.Now()
	g, err := r.Register(t.Context(), "logic", "1", "127.0.0.1:1", nil)
	require.NoError(t, err)
	require.Less(t, time.Since(begin), 4*time.Second)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, r.Watch("logic").Ready(ctx), context.DeadlineExceeded)
	require.NoError(t, g.Deregister(ctx), "nothing was announced")
}
