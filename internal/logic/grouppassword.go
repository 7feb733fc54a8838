package logic

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strings"
	"time"

	"golang.org/x/crypto/argon2"

	"im-services/internal/im"
)

// The cost of a group password's hash: argon2id, about 30 ms and 19 MiB.
const (
	argonMemory  = 19456 // KiB
	argonTime    = 2
	argonThreads = 1
	argonSize    = 32

	// passwordSlots is how many are hashed at once, passwordWait how long the
	// next one waits: hashing must not take the machine from the messages.
	passwordSlots = 2
	passwordWait  = time.Second
	// maxPassword bounds what is hashed, in bytes.
	maxPassword = 1024

	// passwordTries wrong passwords of one user for one group, and he waits
	// until passwordPause after the first.
	passwordTries = 10
	passwordPause = 10 * time.Minute
)

// groupPasswords hashes and checks the passwords of groups. It is safe for
// concurrent use.
type groupPasswords struct {
	tries *tries
	slots chan struct{}
}

func newGroupPasswords(t *tries) *groupPasswords {
	return &groupPasswords{tries: t, slots: make(chan struct{}, passwordSlots)}
}

// hash returns what to store for a password; "" for none.
func (p *groupPasswords) hash(ctx context.Context, password string) (string, error) {
	if password == "" {
		return "", nil
	}
	if len(password) > maxPassword {
		return "", im.E(im.KindInvalid, "group_password_wrong", nil)
	}
	salt := make([]byte, 16)
	_, _ = rand.Read(salt) // never fails
	key, err := p.derive(ctx, password, salt)
	if err != nil {
		return "", err
	}
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, argonMemory, argonTime, argonThreads,
		b64.EncodeToString(salt), b64.EncodeToString(key)), nil
}

// check compares in constant time. A try counts until it proves right, or could
// not be made.
func (p *groupPasswords) check(ctx context.Context, user im.UserID, group int64, stored, password string) error {
	wrong := im.E(im.KindForbidden, "group_password_wrong", nil)
	if password == "" || len(password) > maxPassword {
		return wrong
	}
	fields := strings.Split(stored, "$")
	if len(fields) != 6 {
		return im.E(im.KindInternal, "store_failed", fmt.Errorf("group %d has a malformed password hash", group))
	}
	salt, err1 := base64.RawStdEncoding.DecodeString(fields[4])
	want, err2 := base64.RawStdEncoding.DecodeString(fields[5])
	if err1 != nil || err2 != nil {
		return im.E(im.KindInternal, "store_failed", fmt.Errorf("group %d has a malformed password hash", group))
	}
	try := fmt.Sprintf("grouptries:%d:%d", user, group)
	if !p.tries.take(ctx, try, passwordTries, passwordPause) {
		return &im.Error{Kind: im.KindExhausted, Reason: "group_password_too_often", RetryAfter: passwordPause}
	}
	key, err := p.derive(ctx, password, salt)
	if err == nil && subtle.ConstantTimeCompare(key, want) != 1 {
		return wrong
	}
	p.tries.giveBack(ctx, try, passwordPause)
	return err
}

// derive hashes, a few at a time.
func (p *groupPasswords) derive(ctx context.Context, password string, salt []byte) ([]byte, error) {
	timer := time.NewTimer(passwordWait)
	defer timer.Stop()
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-timer.C:
		return nil, &im.Error{Kind: im.KindExhausted, Reason: "group_busy", RetryAfter: time.Second}
	case <-ctx.Done():
		return nil, im.E(im.KindUnavailable, "service_unavailable", ctx.Err())
	}
	return argon2.IDKey([]byte(password), salt, argonTime, argonMemory, argonThreads, argonSize), nil
}
