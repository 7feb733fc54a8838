package rest

import (
	"sync"
	"time"

	"im-services/internal/im"
)

// slots bounds what is taken at once of a kind, and each taker's share of it: what waits
// for a slow line may last, so one could take everything for hours. Takers are users, or
// hosts.
type slots[K comparable] struct {
	all, each int

	mu      sync.Mutex // guards the following fields
	running int
	by      map[K]int // those who have taken some
}

func newSlots[K comparable](all, each int) *slots[K] {
	return &slots[K]{all: all, each: each, by: map[K]int{}}
}

// take reports whether the taker may have one more; then release must follow.
func (s *slots[K]) take(by K) bool { return s.takeN(by, 1) }

func (s *slots[K]) takeN(by K, n int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n > s.all-s.running || n > s.each-s.by[by] {
		return false
	}
	s.running += n
	s.by[by] += n
	return true
}

func (s *slots[K]) release(by K) { s.releaseN(by, 1) }

func (s *slots[K]) releaseN(by K, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running -= n
	if s.by[by] -= n; s.by[by] == 0 {
		delete(s.by, by)
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
