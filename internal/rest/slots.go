package rest

import (
	"sync"
	"time"

	"im-services/internal/im"
)

// slots bounds what runs at once of a kind, and each user's share of it: what waits
// for a slow line may last, so one user could take every slot for hours.
type slots struct {
	all, each int

	mu      sync.Mutex // guards the following fields
	running int
	users   map[im.UserID]int // those with a running one
}

func newSlots(all, each int) *slots {
	return &slots{all: all, each: each, users: map[im.UserID]int{}}
}

// take reports whether the user may start now; then release must follow.
func (s *slots) take(user im.UserID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running >= s.all || s.users[user] >= s.each {
		return false
	}
	s.running++
	s.users[user]++
	return true
}

func (s *slots) release(user im.UserID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running--
	if s.users[user]--; s.users[user] == 0 {
		delete(s.users, user)
	}
}

// reading makes a handler take one of the caller's slots for reading, until all
// of its answer is written: it is built whole, and a client that does not read
// leaves it in memory.
func reading(h handler) handler {
	return func(c *call) (any, error) {
		if !c.reads.take(c.me) {
			sink(c.w, c.r)
			return nil, &im.Error{Kind: im.KindExhausted, Reason: "reads_busy", RetryAfter: time.Second}
		}
		c.ended = func() { c.reads.release(c.me) }
		return h(c)
	}
}
