package gateway

import (
	"errors"
	"sync"
	"time"

	"im-services/internal/seeded"
	"im-services/internal/wire"
)

// lingerTimeout is how long a closed connection may take to read our close
// frame and answer it.
const lingerTimeout = time.Second

// batchSize is how much is put together for one write.
const batchSize = 16 << 10

// maxQueued is how many frames may wait in an outbox: small ones take more memory than
// they have bytes.
const maxQueued = 4096

var batches = sync.Pool{New: func() any { b := make([]byte, 0, batchSize); return &b }}

// outbox is the queue of what is still to be written to one connection. Frames
// in it are shared and never changed.
type outbox struct {
	mu      sync.Mutex
	queue   [][]byte
	bytes   int  // of the queue and of what is being written
	slack   int  // what the limit is raised by until the outbox is empty
	writing bool // somebody writes or is about to
	closing bool // the last frame is queued or written: nothing more
	dead    bool // the socket is closed
	room    chan struct{}
}

var errClosing = errors.New("gateway: connection is closing")

// send queues a frame. It never blocks. A connection whose outbox is full is
// closed as too slow. Pushes do not come so far, see hasRoom.
func (c *conn) send(frame []byte) error { return c.enqueue(frame, c.s.cfg.OutboxBytes) }

// hasRoom reports whether a push of size bytes may be queued. Pushes leave a
// quarter of the outbox to answers and pings: a client that lags behind the
// pushes is not closed but reads them from the store, at its own pace.
func (c *conn) hasRoom(size int) bool {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	return c.hasRoomLocked(size)
}

func (c *conn) hasRoomLocked(size int) bool {
	return c.out.bytes == 0 || c.out.bytes+size <= c.s.cfg.OutboxBytes*3/4
}

// sendIfRoom queues a frame that may be lost: it does not fill the outbox by more than
// most bytes.
func (c *conn) sendIfRoom(frame []byte, most int) {
	c.out.mu.Lock()
	full := c.out.bytes+len(frame) > most && c.out.bytes > 0
	c.out.mu.Unlock()
	if full {
		c.s.m.dropped.Inc()
		return
	}
	_ = c.send(frame)
}

func (c *conn) enqueue(frame []byte, limit int) error {
	o := &c.out
	o.mu.Lock()
	if o.closing || o.dead {
		o.mu.Unlock()
		return errClosing
	}
	// One frame always fits, and what follows a large one has room as usual: a
	// single large message must reach its reader.
	if o.bytes == 0 {
		o.slack = 0
		if len(frame) > limit/2 {
			o.slack = len(frame)
		}
	}
	if o.bytes+len(frame) > limit+o.slack || len(o.queue) >= maxQueued {
		o.mu.Unlock()
		c.s.m.slow.Inc()
		c.shut(wire.CloseTooSlow, nil)
		return errClosing
	}
	if seeded.On(seeded.BlockingWrite) {
		defer o.mu.Unlock()
		return c.writeNow(frame)
	}
	o.queue = append(o.queue, frame)
	o.bytes += len(frame)
	start := !o.writing
	o.writing = true
	o.mu.Unlock()
	if start {
		c.startWriting()
	}
	return nil
}

// closeWith writes what is queued, then farewell (if any), then a close frame,
// and ends the connection. Only the first call has an effect. The caller must
// not hold c.mu.
func (c *conn) closeWith(code wire.CloseCode, farewell []byte) {
	c.shut(code, farewell)
	c.stop()
}

// shut is closeWith for callers that may hold c.mu: the writer stops the rest.
// What a too slow client still has queued is dropped.
func (c *conn) shut(code wire.CloseCode, farewell []byte) {
	o := &c.out
	o.mu.Lock()
	if o.closing || o.dead {
		o.mu.Unlock()
		return
	}
	o.closing = true
	if code == wire.CloseTooSlow {
		for _, f := range o.queue {
			o.bytes -= len(f)
		}
		clear(o.queue)
		o.queue = o.queue[:0]
	}
	if farewell != nil {
		o.queue = append(o.queue, farewell)
		o.bytes += len(farewell)
	}
	last := closeFrame(code)
	o.queue = append(o.queue, last)
	o.bytes += len(last)
	start := !o.writing
	o.writing = true
	o.mu.Unlock()
	c.s.m.closes.WithLabelValues(closeLabel(code)).Inc()
	if start {
		c.startWriting()
	}
}

// write is a writer goroutine of the connection's own: it writes until the
// outbox is empty, and may wait for the socket.
func (c *conn) write() {
	o := &c.out
	var spare [][]byte
	for {
		o.mu.Lock()
		if len(o.queue) == 0 || o.dead {
			o.restLocked()
			closing := o.closing && !o.dead
			o.mu.Unlock()
			if closing {
				// The reader takes it from here: it waits for the peer's close
				// frame, not for ever.
				halfClose(c.nc)
				_ = c.nc.SetReadDeadline(time.Now().Add(lingerTimeout))
			}
			return
		}
		queue := o.queue
		o.queue = spare
		closing := o.closing
		o.mu.Unlock()
		if closing {
			c.stop()
		}

		n, err := c.writeAll(queue)
		clear(queue)
		spare = queue[:0]
		c.wrote(n, err)
	}
}

// restLocked ends the writing of an empty outbox. A small queue is kept for next
// time; a burst's goes back.
func (o *outbox) restLocked() {
	o.writing = false
	if cap(o.queue) > 8 {
		o.queue = nil
	}
}

// wrote takes n bytes off the outbox that are written, or will never be.
func (c *conn) wrote(n int, err error) {
	o := &c.out
	o.mu.Lock()
	o.bytes -= n
	if err != nil {
		o.dead = true
		clear(o.queue)
		o.queue = nil
	}
	if o.room != nil && (err != nil || o.bytes <= c.s.cfg.OutboxBytes/2) {
		close(o.room)
		o.room = nil
	}
	o.mu.Unlock()
	if err != nil {
		c.s.m.writeErrors.Inc()
		c.kill()
	}
}

// writeAll writes frames in as few system calls as is sensible and returns the
// bytes they take, written or not.
func (c *conn) writeAll(queue [][]byte) (size int, err error) {
	for _, f := range queue {
		size += len(f)
	}
	if len(queue) == 1 {
		return size, c.writeNow(queue[0])
	}
	p := batches.Get().(*[]byte) //nolint:forcetypeassert // the pool holds nothing else
	defer batches.Put(p)
	batch := (*p)[:0]
	for i, f := range queue {
		if len(batch)+len(f) <= cap(batch) {
			batch = append(batch, f...)
			if i < len(queue)-1 {
				continue
			}
			f = nil
		}
		if len(batch) > 0 {
			if err = c.writeNow(batch); err != nil {
				return size, err
			}
			batch = batch[:0]
		}
		switch {
		case f == nil:
		case len(f) > cap(batch):
			if err = c.writeNow(f); err != nil {
				return size, err
			}
		default:
			batch = append(batch, f...)
			if i == len(queue)-1 {
				if err = c.writeNow(batch); err != nil {
					return size, err
				}
			}
		}
	}
	return size, nil
}

// writeNow writes b; the peer's kernel must take it within WriteTimeout.
func (c *conn) writeNow(b []byte) error {
	if err := c.nc.SetWriteDeadline(time.Now().Add(c.s.cfg.WriteTimeout)); err != nil {
		return err
	}
	_, err := c.nc.Write(b)
	if err == nil && c.raw != nil {
		err = c.nc.SetWriteDeadline(time.Time{}) // writes that do not wait must not meet it when it is over
	}
	return err
}

// roomFor returns nil if a frame of size bytes may be queued and the outbox is
// at most half full, or if the connection is over; else a channel that is
// closed when it is time to ask again.
func (c *conn) roomFor(size int) <-chan struct{} {
	o := &c.out
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.dead || o.closing || o.bytes <= c.s.cfg.OutboxBytes/2 && c.hasRoomLocked(size) {
		return nil
	}
	if o.room == nil {
		o.room = make(chan struct{})
	}
	return o.room
}

// kill ends the connection at once, without a word. The reader notices.
func (c *conn) kill() {
	o := &c.out
	o.mu.Lock()
	o.dead = true
	if o.room != nil {
		close(o.room)
		o.room = nil
	}
	o.mu.Unlock()
	_ = c.nc.Close()
	c.stop()
}

func (c *conn) closed() bool {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	return c.out.closing || c.out.dead
}
