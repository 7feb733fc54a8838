package logic

import (
	"sync/atomic"
	"time"
)

// clock is the database's: what one replica stores and another compares with the
// time, it must not be the clocks of two machines. It is read with every look (see
// life) and goes on by the monotonic clock in between, which nobody sets. A server
// that takes over may have another time; then that counts.
type clock struct{ last atomic.Pointer[reading] }

// reading is what the database's clock said, and when.
type reading struct{ said, at time.Time }

// set takes a reading that was asked for at a time and has just come. What took
// long says little, unless nothing better is known.
func (c *clock) set(said, asked time.Time) {
	took := time.Since(asked)
	if took > lifeLook && c.last.Load() != nil {
		return
	}
	c.last.Store(&reading{said: said, at: asked.Add(took / 2)})
}

// now is the database's time.
func (c *clock) now() time.Time {
	r := c.last.Load()
	return r.said.Add(time.Since(r.at))
}

// nowMS is now in Unix milliseconds, as it is stored.
func (s *store) nowMS() int64 { return s.clock.now().UnixMilli() }
