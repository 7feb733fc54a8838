package rest

import (
	"sync"
	"time"

	"im-services/internal/im"
)

// slots bounds what is taken at once of a kind, and each user's share of it: what waits
// for a slow line may last, so one user could take everything for hours.
type slots struct {
	all, each int

	mu      sync.Mutex // guards the following fields
	running int
	users   map[im.UserID]int // those who have taken some
}

func newSlots(all, each int) *slots {
	return &slots{all: all, each: each, users: map[im.UserID]int{}}
}

// take reports whether the user may have one more; then release must follow.
func (s *slots) take(user im.UserID) bool { return s.takeN(user, 1) }

func (s *slots) takeN(user im.UserID, n int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n > s.all-s.running || n > s.each-s.users[user] {
		return false
	}
	s.running += n
	s.users[user] += n
	return true
}

func (s *slots) release(user im.UserID) { s.releaseN(user, 1) }

func (s *slots) releaseN(user im.UserID, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running -= n
	if s.users[user] -= n; s.users[user] == 0 {
		delete(s.users, user)
	}
}

// largeAnswer is what an answer may take, in bytes, without a slot: about as much as
// the kernel holds of it anyway.
const largeAnswer = 64 << 10

// reading makes a handler whose answer may be large take one of the caller's slots
// while the answer is made, which takes memory here and in the services, and then,
// unless it is small, one of those for answers that wait to be read: it is built
// whole, and a client that does not read leaves it in memory. The two are apart, so
// that who does not read still gets what is small. It is for handlers that change nothing,
// for their answer may be refused when it is known.
func reading(h handler) handler {
	return func(c *call) (any, error) {
		if c.makes = c.reads.take(c.me); !c.makes {
			sink(c.w, c.r)
			return nil, readsBusy()
		}
		return h(c)
	}
}

func readsBusy() error {
	return &im.Error{Kind: im.KindExhausted, Reason: "reads_busy", RetryAfter: time.Second}
}

// made gives back the slot in which an answer of this size was made.
func (c *call) made(size int) error {
	if !c.makes {
		return nil
	}
	c.makes = false
	c.reads.release(c.me)
	if size <= largeAnswer {
		return nil
	}
	return c.keep()
}

// keep takes one of the caller's slots for an answer that waits to be read.
func (c *call) keep() error {
	if c.waits = c.unread.take(c.me); !c.waits {
		return readsBusy()
	}
	return nil
}

// end gives back what the call has taken.
func (c *call) end() {
	if c.work != nil {
		c.done()
	}
	if c.makes {
		c.reads.release(c.me)
	}
	if c.waits {
		c.unread.release(c.me)
	}
	c.forget()
}
