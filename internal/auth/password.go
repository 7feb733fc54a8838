package auth

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/argon2"

	"im-services/internal/im"
)

// The form of new hashes (argon2id); their cost is in HashConfig.
const (
	argonThreads = 1
	argonSalt    = 16
	argonKey     = 32
)

// hasher hashes passwords, a few at a time: each takes 19 MiB and a core.
// Safe for concurrent use.
type hasher struct {
	memory     uint32 // KiB
	passes     uint32
	slots      chan struct{}
	waiting    atomic.Int64
	maxWaiting int64
	wait       time.Duration
	// dummy is compared with when there is no hash, so that an unknown user
	// costs as much as a wrong password.
	dummy string
}

func newHasher(c HashConfig) *hasher {
	h := &hasher{
		memory:     uint32(c.MemoryKiB), //nolint:gosec // Config.Validate bounds both
		passes:     uint32(c.Passes),    //nolint:gosec // the same
		slots:      make(chan struct{}, c.Concurrent),
		maxWaiting: int64(c.MaxWaiting),
		wait:       c.Wait,
	}
	h.dummy = h.encode(rand.Text())
	return h
}

// acquire takes a slot; release gives it back. It fails with auth_busy if too
// many wait already or none is free in time.
func (h *hasher) acquire(ctx context.Context) (release func(), err error) {
	if h.waiting.Add(1) > h.maxWaiting {
		h.waiting.Add(-1)
		return nil, busy()
	}
	defer h.waiting.Add(-1)
	timer := time.NewTimer(h.wait)
	defer timer.Stop()
	select {
	case h.slots <- struct{}{}:
		return func() { <-h.slots }, nil
	case <-timer.C:
		return nil, busy()
	case <-ctx.Done():
		return nil, im.E(im.KindUnavailable, "service_unavailable", ctx.Err())
	}
}

func busy() error {
	return &im.Error{Kind: im.KindExhausted, Reason: "auth_busy", RetryAfter: time.Second}
}

// matches reports whether phc is the hash of password; an empty phc never is,
// but takes as long. The caller holds a slot.
func (h *hasher) matches(phc, password string) bool {
	if phc == "" {
		_ = compare(h.dummy, password)
		return false
	}
	return compare(phc, password)
}

// encode returns the PHC string of a password. The caller holds a slot.
func (h *hasher) encode(password string) string {
	salt := make([]byte, argonSalt)
	_, _ = rand.Read(salt) // never fails
	key := argon2.IDKey([]byte(password), salt, h.passes, h.memory, argonThreads, argonKey)
	b64 := base64.RawStdEncoding
	return h.current() + b64.EncodeToString(salt) + "$" + b64.EncodeToString(key)
}

// current is how hashes of the configured cost begin.
func (h *hasher) current() string {
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$", argon2.Version, h.memory, h.passes, argonThreads)
}

// outdated reports whether a hash has another cost than is configured.
func (h *hasher) outdated(phc string) bool { return !strings.HasPrefix(phc, h.current()) }

func compare(phc, password string) bool {
	parts := strings.Split(phc, "$")
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" || parts[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return false
	}
	var memory, cost uint32
	var threads uint8
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &memory, &cost, &threads); err != nil ||
		memory > 1<<18 || cost < 1 || cost > 16 || threads < 1 {
		return false
	}
	salt, err := base64.RawStdEncoding.DecodeString(parts[4])
	if err != nil {
		return false
	}
	want, err := base64.RawStdEncoding.DecodeString(parts[5])
	if err != nil || len(want) < 16 || len(want) > 64 {
		return false
	}
	got := argon2.IDKey([]byte(password), salt, cost, memory, threads, uint32(len(want)))
	return subtle.ConstantTimeCompare(got, want) == 1
}
