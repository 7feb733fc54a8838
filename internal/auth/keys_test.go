package auth

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	authv1 "im-services/api/proto/auth/v1"
	"im-services/internal/testkit"
)

func (e *env) kids() []string {
	e.t.Helper()
	res, err := e.Keys(e.t.Context(), &authv1.KeysRequest{})
	require.NoError(e.t, err)
	var out []string
	for _, k := range res.GetKeys() {
		require.Len(e.t, k.GetKey(), 32)
		out = append(out, k.GetKid())
	}
	return out
}

func TestKeys_ReplicasThatStartTogetherShareOne(t *testing.T) {
	e := &env{t: t, dsn: testkit.MySQL(t), redis: testkit.StartRedis(t)}
	migrate(t, e.dsn)
	replicas := make([]*env, 4)
	var wg sync.WaitGroup
	for i := range replicas {
		replicas[i] = &env{t: t, dsn: e.dsn, redis: e.redis}
		wg.Go(func() { replicas[i].start(debugMode) })
	}
	wg.Wait()
	l := func() *authv1.LoggedIn { u := replicas[0].newUser(); return replicas[0].mustLogin(u.GetEmail()) }()
	for _, r := range replicas {
		require.Equal(t, replicas[0].kids(), r.kids())
		require.Len(t, r.kids(), 1)
		require.Equal(t, replicas[0].secret, r.secret)
		r.mustVerify(l.GetAccessToken())
	}
	var bots int
	require.NoError(t, replicas[0].db.Get(&bots, "SELECT COUNT(*) FROM users"))
	require.Equal(t, 1+1, bots)
}

func TestRotateKey_LogsNobodyOut(t *testing.T) {
	e := newEnv(t, debugMode)
	u := e.newUser()
	old := e.mustLogin(u.GetEmail())
	first := e.kids()[0]
	second, err := RotateKey(t.Context(), e.db, e.cfg)
	require.NoError(t, err)
	require.NoError(t, e.keys.reload(t.Context()))
	require.Equal(t, []string{second, first}, e.kids(), "published at once")
	require.Equal(t, first, e.keys.signer(time.Now()).Kid(), "but not signing until everybody has it")
	require.Equal(t, second, e.keys.signer(time.Now().Add(keyActivation+time.Second)).Kid())
	e.mustVerify(old.GetAccessToken())
	e.mustVerify(e.mustLogin(u.GetEmail()).GetAccessToken())

	_, err = RotateKey(t.Context(), e.db, e.cfg)
	require.ErrorContains(t, err, first, "tokens of the first key are alive")
	require.Len(t, e.kids(), 2)

	_, err = e.db.Exec("UPDATE signing_keys SET active_at = ? WHERE kid = ?", time.Now().Add(-e.cfg.AccessTTL-time.Hour).UnixMilli(), second)
	require.NoError(t, err)
	_, err = e.db.Exec("UPDATE signing_keys SET active_at = 1 WHERE kid = ?", first)
	require.NoError(t, err)
	third, err := RotateKey(t.Context(), e.db, e.cfg)
	require.NoError(t, err)
	require.NoError(t, e.keys.reload(t.Context()))
	require.Equal(t, []string{third, second}, e.kids(), "two at most")
	e.mustVerify(e.mustLogin(u.GetEmail()).GetAccessToken())
}

// TestG16_ReplacedKeysEndOldTokensOnly: old access tokens end and sessions go on;
// meanwhile what one replica signs, the other's keys verify, although they look for
// keys at different times.
func TestG16_ReplacedKeysEndOldTokensOnly(t *testing.T) {
	a := newEnv(t, debugMode)
	b := a.replica(debugMode)
	old := a.mustLogin(a.newUser().GetEmail())
	var kid string
	replaced := make(chan error, 1)
	go func() {
		var err error
		kid, err = ReplaceKeys(t.Context(), a.db)
		replaced <- err
	}()
	begin := time.Now()
	next := map[*env]time.Duration{a: keyReload / 4, b: keyReload * 3 / 4}
	for end := time.Hour; time.Since(begin) < end; time.Sleep(20 * time.Millisecond) {
		for r, at := range next {
			if time.Since(begin) >= at {
				require.NoError(t, r.keys.reload(t.Context()))
				next[r] += keyReload
			}
		}
		require.Contains(t, b.kids(), a.keys.signer(time.Now()).Kid(), "after %s", time.Since(begin))
		require.Contains(t, a.kids(), b.keys.signer(time.Now()).Kid(), "after %s", time.Since(begin))
		select {
		case err := <-replaced:
			require.NoError(t, err)
			end = time.Since(begin) + keyReload + time.Second
		default:
		}
	}
	for _, r := range []*env{a, b} {
		require.Equal(t, []string{kid}, r.kids())
		_, err := r.verify(old.GetAccessToken())
		require.Error(t, err)
	}
	fresh, err := a.refreshWith(old.GetRefreshToken())
	require.NoError(t, err)
	b.mustVerify(fresh.GetAccessToken())
}

// Of two who replace the keys at once one is told that his are gone, and a key stays.
func TestReplaceKeys_NeverDropsTheLastKey(t *testing.T) {
	e := newEnv(t)
	first, second := newKey(time.Now()), newKey(time.Now())
	require.NoError(t, e.store.announceKey(t.Context(), first))
	require.NoError(t, e.store.announceKey(t.Context(), second))
	require.NoError(t, e.store.dropKeysBut(t.Context(), first.Kid))
	require.ErrorContains(t, e.store.dropKeysBut(t.Context(), second.Kid), "replace again")
	require.NoError(t, e.keys.reload(t.Context()))
	require.Equal(t, []string{first.Kid}, e.kids())
}
