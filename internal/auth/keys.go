package auth

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jmoiron/sqlx"

	"im-services/internal/token"
)

const (
	// keyReload is how often a replica looks for new signing keys.
	keyReload = 5 * time.Second
	// keyActivation is how long a new key is only published before it signs, so
	// that every replica and gateway has it first.
	keyActivation = time.Minute
	// keyHandover is the same after a leak, when it is short: every replica has the
	// key first. Gateways fetch a key that they meet and do not know.
	keyHandover = 2 * keyReload
	// keyOverlap is how long the old keys stay once the new one signs, because not
	// all clocks are equal.
	keyOverlap = time.Second
	// liveKeys is how many keys may verify at any time.
	liveKeys = 2
)

// signingKey is a row of signing_keys.
type signingKey struct {
	Kid      string `db:"kid"`
	Seed     []byte `db:"seed"`
	ActiveAt int64  `db:"active_at"` // Unix ms
}

func newKey(activeAt time.Time) signingKey {
	seed := make([]byte, ed25519.SeedSize)
	_, _ = rand.Read(seed) // never fails
	return signingKey{Kid: strings.ToLower(rand.Text()[:12]), Seed: seed, ActiveAt: activeAt.UnixMilli()}
}

func (k signingKey) private() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(k.Seed) }

func insertKey(ctx context.Context, tx *sqlx.Tx, k signingKey) error {
	_, err := tx.NamedExecContext(ctx, "INSERT INTO signing_keys (kid, seed, active_at) VALUES (:kid, :seed, :active_at)", k)
	return err
}

// selectKeys returns the keys, newest first.
func selectKeys(ctx context.Context, q sqlx.QueryerContext) ([]signingKey, error) {
	var keys []signingKey
	err := sqlx.SelectContext(ctx, q, &keys, "SELECT kid, seed, active_at FROM signing_keys ORDER BY active_at DESC, kid")
	return keys, err
}

// inSetup is inTx for the only transaction at a time that prepares the tables.
func (s store) inSetup(ctx context.Context, f func(tx *sqlx.Tx) error) error {
	return s.inTx(ctx, func(tx *sqlx.Tx) error {
		var ignored int64
		if err := tx.GetContext(ctx, &ignored, "SELECT next_id FROM id_blocks WHERE name = 'setup' FOR UPDATE"); err != nil {
			return err
		}
		return f(tx)
	})
}

// ensureKey makes the first key.
func (s store) ensureKey(ctx context.Context) error {
	return s.inSetup(ctx, func(tx *sqlx.Tx) error {
		keys, err := selectKeys(ctx, tx)
		if err != nil || len(keys) > 0 {
			return err
		}
		now, err := dbTime(ctx, tx)
		if err != nil {
			return err
		}
		return insertKey(ctx, tx, newKey(now))
	})
}

// RotateKey adds a signing key, which signs a minute later, and drops the one
// that no live token needs any more. It refuses while the older of two keys may
// still be needed. Running replicas pick the change up by themselves.
func RotateKey(ctx context.Context, db *sqlx.DB, cfg Config) (kid string, err error) {
	cfg = cfg.WithDefaults()
	err = store{db}.inSetup(ctx, func(tx *sqlx.Tx) error {
		keys, err := selectKeys(ctx, tx)
		if err != nil {
			return err
		}
		now, err := dbTime(ctx, tx)
		if err != nil {
			return err
		}
		if len(keys) >= liveKeys {
			needed := time.UnixMilli(keys[0].ActiveAt).Add(cfg.AccessTTL + token.DefaultLeeway)
			if now.Before(needed) {
				return fmt.Errorf("auth: tokens of key %s live until %s: rotate then, or replace all keys if one has leaked",
					keys[1].Kid, needed.UTC().Format(time.RFC3339))
			}
			for _, old := range keys[1:] {
				if _, err := tx.ExecContext(ctx, "DELETE FROM signing_keys WHERE kid = ?", old.Kid); err != nil {
					return err
				}
			}
		}
		k := newKey(now)
		if len(keys) > 0 {
			k.ActiveAt = now.Add(keyActivation).UnixMilli()
		}
		kid = k.Kid
		return insertKey(ctx, tx, k)
	})
	return kid, err
}

// ReplaceKeys drops all signing keys for a new one, for when a key has leaked:
// every access token ends; refresh tokens go on. It takes keyHandover, in which
// replicas learn of the new key: if they dropped the old ones at once, one of
// them would sign with a key that another does not know, and gateways that ask
// that one would refuse new logins. If it fails the old keys stay: do it again.
func ReplaceKeys(ctx context.Context, db *sqlx.DB) (kid string, err error) {
	st := store{db}
	now, err := dbTime(ctx, db)
	if err != nil {
		return "", storeError(err)
	}
	k := newKey(now.Add(keyHandover))
	if err := st.announceKey(ctx, k); err != nil {
		return "", err
	}
	select {
	case <-time.After(keyHandover + keyOverlap):
	case <-ctx.Done():
		return "", fmt.Errorf("auth: the old keys are still there, replace again: %w", ctx.Err())
	}
	return k.Kid, st.dropKeysBut(ctx, k.Kid)
}

func (s store) announceKey(ctx context.Context, k signingKey) error {
	return s.inSetup(ctx, func(tx *sqlx.Tx) error { return insertKey(ctx, tx, k) })
}

func (s store) dropKeysBut(ctx context.Context, kid string) error {
	return s.inSetup(ctx, func(tx *sqlx.Tx) error {
		keys, err := selectKeys(ctx, tx)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(keys, func(k signingKey) bool { return k.Kid == kid }) {
			return fmt.Errorf("auth: somebody else replaced the keys meanwhile, and key %s with them: "+
				"if that was after the leak, all is well; if not, replace again", kid)
		}
		_, err = tx.ExecContext(ctx, "DELETE FROM signing_keys WHERE kid <> ?", kid)
		return err
	})
}

// keyring holds the keys in memory. Safe for concurrent use.
type keyring struct {
	store            store
	issuer, audience string
	keys             atomic.Pointer[[]signingKey] // newest first, never empty
}

// reload reads the keys again; on an error the old ones stay.
func (k *keyring) reload(ctx context.Context) error {
	keys, err := selectKeys(ctx, k.store.db)
	if err != nil {
		return storeError(err)
	}
	keys = slices.DeleteFunc(keys, func(k signingKey) bool { return len(k.Seed) != ed25519.SeedSize })
	if len(keys) == 0 {
		return errors.New("auth: no signing key in the database")
	}
	k.keys.Store(&keys)
	return nil
}

// signer returns the newest key that is active, the oldest if none is.
func (k *keyring) signer(now time.Time) *token.Signer {
	keys := *k.keys.Load()
	chosen := keys[len(keys)-1]
	for _, key := range keys {
		if key.ActiveAt <= now.UnixMilli() {
			chosen = key
			break
		}
	}
	return token.NewSigner(chosen.Kid, chosen.private(), k.issuer, k.audience)
}
