package gateway

import (
	"sync"
	"time"
)

// proofSlots is how many groups the connections that wait for their next proof
// are in, by when it is due: a busy gateway asks for a few proofs often, not for
// thousands at a time.
const proofSlots = 64

// proofs holds the connections that may not ask for proof yet: each asks at most
// once in an interval, however much it is sent. Its timer runs only while there
// are any.
type proofs struct {
	s    *Server
	tick time.Duration // the time between two slots

	mu      sync.Mutex
	slots   [proofSlots][]*conn
	waiting int
	next    int // the slot that is due first, counted from the server's start
	timer   *time.Timer
}

func newProofs(s *Server, interval time.Duration) *proofs {
	return &proofs{s: s, tick: max(interval/(proofSlots-2), 10*time.Millisecond)}
}

// add lets c ask at due, at most an interval from now. The caller adds it once
// until then.
func (p *proofs) add(c *conn, due time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.s.now()
	if p.waiting == 0 {
		p.next = int(now/p.tick) + 1
		if p.timer == nil {
			p.timer = time.AfterFunc(p.tick, p.ask)
		} else {
			p.timer.Reset(p.tick)
		}
	}
	slot := max(int(due/p.tick)+1, p.next) % proofSlots
	p.slots[slot] = append(p.slots[slot], c)
	p.waiting++
}

// ask lets the connections ask that are due.
func (p *proofs) ask() {
	if p.s.ctx.Err() != nil {
		return
	}
	var due []*conn
	p.mu.Lock()
	for last := int(p.s.now() / p.tick); p.next <= last; p.next++ {
		slot := &p.slots[p.next%proofSlots]
		due = append(due, *slot...)
		clear(*slot)
		*slot = (*slot)[:0]
	}
	p.waiting -= len(due)
	if p.waiting > 0 {
		p.timer.Reset(p.tick)
	}
	p.mu.Unlock()
	for _, c := range due {
		c.mu.Lock()
		c.proofDue = false
		if !c.stopped {
			c.proveLocked()
		}
		c.mu.Unlock()
	}
}
