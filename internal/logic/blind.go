package logic

import (
	"context"
	"crypto/rand"
	"sync"
	"time"

	"im-services/internal/im"
)

const (
	// maxBlind bounds the users who are remembered; with more, everybody counts.
	maxBlind = 1 << 17
	// blindPay is how often a replica tries to make up for it.
	blindPay = 500 * time.Millisecond
)

// blindUsers are those who were sent messages while Redis was away: without a
// count nobody would notice that one was lost on the bus. Once Redis is back
// their counters are moved, so that the next watermark makes their connections
// look. Safe for concurrent use.
type blindUsers struct {
	mu    sync.Mutex // guards the following fields
	users map[im.UserID]struct{}
	all   bool // too many
}

// owe notes that users were sent something without a count.
func (b *blindUsers) owe(users []im.UserID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.all {
		return
	}
	if b.users == nil {
		b.users = map[im.UserID]struct{}{}
	}
	for _, u := range users {
		b.users[u] = struct{}{}
	}
	if len(b.users) > maxBlind {
		b.users, b.all = nil, true
	}
}

// run pays what is owed until ctx ends.
func (b *blindUsers) run(ctx context.Context, rt *routes) {
	every(ctx, blindPay, func() { b.pay(ctx, rt) })
}

// pay moves the counters of everybody who is owed one, or begins a new epoch for
// all. What cannot be paid stays owed.
func (b *blindUsers) pay(ctx context.Context, rt *routes) {
	b.mu.Lock()
	users, all := b.users, b.all
	b.users, b.all = nil, false
	b.mu.Unlock()
	var err error
	switch {
	case all:
		err = rt.newEpoch(ctx)
	case len(users) > 0:
		list := make([]im.UserID, 0, len(users))
		for u := range users {
			list = append(list, u)
		}
		err = rt.skip(ctx, list)
	}
	if err != nil {
		b.mu.Lock()
		b.all = b.all || all
		b.mu.Unlock()
		for u := range users {
			b.owe([]im.UserID{u})
		}
	}
}

// newEpoch ends the life of all push counters: every gateway says again what it
// holds, and looks for what it missed.
func (r *routes) newEpoch(ctx context.Context) error {
	return away(r.rdb.Set(ctx, epochKey, rand.Text(), 0).Err())
}

// skip moves the counters of users by one, for no message: their connections
// find that they are behind, and look.
func (r *routes) skip(ctx context.Context, users []im.UserID) error {
	for len(users) > 0 {
		n := min(len(users), 1000)
		pipe := r.rdb.Pipeline()
		for _, u := range users[:n] {
			pipe.Incr(ctx, pvKey(u))
		}
		if _, err := pipe.Exec(ctx); away(err) != nil {
			return away(err)
		}
		users = users[n:]
	}
	return nil
}
