package gateway

import (
	"bytes"
	"context"
	"runtime"
	"sync"
	"syscall"
)

// writerShare is how many connections a writer takes at once.
const writerShare = 64

// writers write to the connections that have something queued: as many
// goroutines as there are processors, which never wait for a socket. What a
// socket does not take at once, and what is too much for one write, is left to a
// goroutine of the connection's own (see conn.write), so a slow client costs
// others nothing. A fan-out to hundreds of members then costs hundreds of writes
// and not as many goroutines.
type writers struct {
	mu    sync.Mutex // guards the following fields
	queue []*conn    // each once, its outbox's writing set
	idle  int
	wake  chan struct{}
}

func newWriters() *writers {
	return &writers{wake: make(chan struct{}, runtime.GOMAXPROCS(0))}
}

// add has c written soon. The caller has set c's outbox to writing.
func (w *writers) add(c *conn) {
	w.mu.Lock()
	w.queue = append(w.queue, c)
	wake := w.idle > 0
	if wake {
		w.idle--
	}
	w.mu.Unlock()
	if wake {
		w.wake <- struct{}{}
	}
}

// run is one writer. After ctx nothing is written: every connection is dead.
func (w *writers) run(ctx context.Context) {
	var (
		try   = newAttempt()
		share = make([]*conn, 0, writerShare)
	)
	for {
		w.mu.Lock()
		n := min(len(w.queue), writerShare)
		if n == 0 {
			w.idle++
			w.mu.Unlock()
			select {
			case <-w.wake:
				continue
			case <-ctx.Done():
				return
			}
		}
		share = append(share[:0], w.queue[:n]...)
		rest := copy(w.queue, w.queue[n:])
		clear(w.queue[rest:])
		w.queue = w.queue[:rest]
		w.mu.Unlock()
		for _, c := range share {
			c.flush(try)
		}
		clear(share)
	}
}

// startWriting has the outbox written: by the writers, if the socket can be
// written without waiting. The caller has set writing.
func (c *conn) startWriting() {
	if c.raw == nil {
		c.s.wg.Go(c.write)
		return
	}
	c.s.writers.add(c)
}

// flush writes the outbox without waiting.
func (c *conn) flush(try *attempt) {
	o := &c.out
	for {
		o.mu.Lock()
		if o.closing || o.dead || o.bytes > cap(try.buf) {
			o.mu.Unlock()
			c.s.wg.Go(c.write)
			return
		}
		if len(o.queue) == 0 {
			o.restLocked()
			o.mu.Unlock()
			return
		}
		b := o.queue[0]
		if len(o.queue) > 1 {
			b = try.buf[:0]
			for _, f := range o.queue {
				b = append(b, f...)
			}
		}
		clear(o.queue)
		o.queue = o.queue[:0]
		o.mu.Unlock()

		n := try.write(c.raw, b)
		if n < len(b) {
			rest, size := bytes.Clone(b[n:]), len(b)
			c.s.wg.Go(func() {
				c.wrote(size, c.writeNow(rest))
				c.write()
			})
			return
		}
		c.wrote(n, nil)
	}
}

// attempt is what one write needs, for one writer to use again and again.
type attempt struct {
	buf []byte // to put frames together
	b   []byte
	n   int
	try func(fd uintptr) bool
}

func newAttempt() *attempt {
	a := &attempt{buf: make([]byte, 0, batchSize)}
	a.try = func(fd uintptr) bool {
		a.n, _ = syscall.Write(int(fd), a.b)
		return true // whatever came of it: never wait
	}
	return a
}

// write writes what the socket takes at once, and says how much that was. What went
// wrong, the next ordinary write finds out.
func (a *attempt) write(raw syscall.RawConn, b []byte) int {
	a.b, a.n = b, 0
	_ = raw.Write(a.try)
	a.b = nil
	return max(a.n, 0)
}
