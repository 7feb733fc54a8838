package auth

import (
	"context"
	"encoding/hex"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"

	"im-services/internal/im"
)

// vault keeps values in Redis, each under a secret text that gets it out once.
// Redis sees only a hash of the text. Safe for concurrent use.
type vault struct{ rdb *redis.Client }

func vaultKey(kind, text string) string {
	return "auth:" + kind + ":" + hex.EncodeToString(digest(text))
}

// put stores a value for ttl and returns the text for it.
func (v *vault) put(ctx context.Context, kind string, value []byte, ttl time.Duration) (text string, err error) {
	text = newSecretText()
	if err := v.rdb.Set(ctx, vaultKey(kind, text), value, ttl).Err(); err != nil {
		return "", im.E(im.KindUnavailable, "service_unavailable", err)
	}
	return text, nil
}

// look returns the value of a text and keeps it; nil if there is none.
func (v *vault) look(ctx context.Context, kind, text string) ([]byte, error) {
	return fetch(ctx, v.rdb.Get, kind, text)
}

// take returns the value of a text and forgets it; nil if there is none. Of
// calls made at the same time one gets it.
func (v *vault) take(ctx context.Context, kind, text string) ([]byte, error) {
	return fetch(ctx, v.rdb.GetDel, kind, text)
}

// spend marks a text as used for ttl and reports whether it was not yet.
func (v *vault) spend(ctx context.Context, kind, text string, ttl time.Duration) (first bool, err error) {
	first, err = v.rdb.SetNX(ctx, vaultKey(kind, text), 1, ttl).Result()
	if err != nil {
		return false, im.E(im.KindUnavailable, "service_unavailable", err)
	}
	return first, nil
}

func fetch(ctx context.Context, get func(context.Context, string) *redis.StringCmd, kind, text string) ([]byte, error) {
	if text == "" || len(text) > 2*randomBytes {
		return nil, nil
	}
	value, err := get(ctx, vaultKey(kind, text)).Bytes()
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	if err != nil {
		return nil, im.E(im.KindUnavailable, "service_unavailable", err)
	}
	return value, nil
}
