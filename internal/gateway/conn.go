package gateway

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unicode/utf8"

	logicv1 "im-services/api/proto/logic/v1"
	"im-services/internal/im"
	"im-services/internal/wire"
)

// conn is one connection.
type conn struct {
	s        *Server
	nc       net.Conn
	raw      syscall.RawConn // of nc, to write without waiting; nil if it cannot
	id       im.ConnID
	user     im.UserID
	platform im.Platform
	sinceMS  atomic.Int64 // when it counts as made, wall clock: the newer of two wins
	ip       string
	who      identityOf
	next     *conn // guarded by the hub shard's lock

	in  frameReader // reader goroutine only
	out outbox

	heard    atomic.Int64 // when bytes last came in, time since Server.start
	vanished atomic.Bool  // given up because nothing came in
	leaving  atomic.Bool  // closes once its sends are answered; hears nothing new

	// Reader goroutine only: a token bucket, how many frames it refused in a row,
	// whether a send was too much for logic since the last read, and how often in a row
	// it has paused for that.
	tokens     float64
	tokensAt   time.Duration
	refused    int
	overloaded bool
	pauses     uint8

	mu sync.Mutex // guards the following fields
	// stopped: nothing more is read from or delivered to this connection.
	stopped bool
	// ousted: logic has said once that a newer connection has its place.
	ousted bool
	// asleep is when the process was found to have slept, until logic says that the
	// connection is still its client's: until then no send is taken from it.
	asleep time.Duration
	// roomWait is where the reader waits for an answer to one of its sends.
	inflight      int
	inflightBytes int
	roomWait      chan struct{}
	stopSync      context.CancelFunc // ends the running sync
	registrations uint8              // how often logic was asked for a route: once, or more often
	delivery
}

// identityOf is what of the token's claims a connection needs.
type identityOf struct {
	name, email, avatar, session string
	issuedAt                     int64         // Unix seconds
	expires                      time.Duration // since Server.start
}

func (c *conn) pb() *logicv1.Conn {
	return &logicv1.Conn{UserId: int64(c.user), ConnId: int64(c.id), Platform: int32(c.platform), SinceMs: c.sinceMS.Load()}
}

// overloadPause is how long a connection is not read after one of its sends was
// too much for logic, and twice as long each further time, overloadPauses times,
// until one is taken. Whoever goes on regardless is then read in bites of many
// frames, refused in as few writes, and held up himself: were he refused as fast
// as he sends, that would take from the others what is refused him.
const (
	overloadPause  = 20 * time.Millisecond
	overloadPauses = 3
)

// Read is what the frame reader reads from: it notes when bytes came in.
func (c *conn) Read(p []byte) (int, error) {
	if c.overloaded {
		c.overloaded = false
		time.Sleep(overloadPause << c.pauses)
		c.pauses = min(c.pauses+1, overloadPauses)
	}
	n, err := c.nc.Read(p)
	if n > 0 {
		c.heard.Store(int64(c.s.now()))
	}
	return n, err
}

// read is the reader goroutine. It ends when the socket is done with, and
// cleans up.
func (c *conn) read() {
	err := c.readFrames()
	var fault *closeError
	if errors.As(err, &fault) {
		c.closeWith(fault.code, nil)
		// The peer may still be sending: take it, so that our close frame is not
		// lost to a reset.
		c.discard()
	}
	c.in.release()
	c.kill()
	c.s.forget(c)
}

// discard reads until the end, at most for lingerTimeout.
func (c *conn) discard() {
	_ = c.nc.SetReadDeadline(time.Now().Add(lingerTimeout))
	var sink [smallBuffer]byte
	for {
		if _, err := c.nc.Read(sink[:]); err != nil {
			return
		}
	}
}

// readFrames reads until the connection is over. The error is a *closeError if
// the client must be told why.
func (c *conn) readFrames() (err error) {
	defer func() {
		if p := recover(); p != nil {
			c.s.m.panics.Inc()
			c.s.log.Error("panic in a connection's reader", "panic", p, "stack", string(debug.Stack()))
			err = &closeError{wire.CloseTryLater, "internal error"}
		}
	}()
	var (
		msg       []byte // a message in fragments
		fragments int
		text      bool
	)
	for {
		h, err := c.in.header()
		if err != nil {
			return err
		}
		if h.op >= opClose {
			if err := c.control(h); err != nil {
				return err
			}
			continue
		}
		switch {
		case h.op == opContinuation && fragments == 0:
			return protocolError("continuation of nothing")
		case h.op != opContinuation && fragments > 0:
			return protocolError("new message inside a fragmented one")
		case h.op == opBinary:
			return &closeError{wire.CloseUnsupported, "binary frame"}
		case h.op == opText:
			text = true
		}
		if len(msg)+h.length > wire.MaxFrame {
			return &closeError{wire.CloseTooBig, "message too big"}
		}
		if fragments++; fragments > maxFragments {
			return &closeError{wire.ClosePolicy, "too many fragments"}
		}
		if h.fin && fragments == 1 {
			if p, ok, err := c.in.inPlace(h); ok {
				if err == nil {
					err = c.message(p)
				}
				if err != nil {
					return err
				}
				fragments = 0
				continue
			}
		}
		if msg, err = c.in.payload(msg, h); err != nil {
			return err
		}
		if !h.fin {
			continue
		}
		if text {
			if err := c.message(msg); err != nil {
				return err
			}
		}
		msg, fragments, text = nil, 0, false
	}
}

// control handles a control frame. io.EOF-like errors end the connection.
func (c *conn) control(h frameHeader) error {
	p, ok, err := c.in.inPlace(h)
	if err != nil || !ok {
		return errors.Join(err, errClosing)
	}
	if err := c.allowance(); err != nil {
		return err
	}
	switch h.op {
	case opPing:
		// A client that floods us with pings fills its own outbox.
		return c.ignoreClosing(c.send(seal(append(newFrame(len(p)), p...), opPong)))
	case opPong:
		if len(p) == 8 {
			c.proved(binary.BigEndian.Uint64(p))
		}
		return nil
	default: // close
		code, err := checkClose(p)
		if err != nil {
			return err
		}
		// Answer with the same code, then wait for the end.
		c.closeWith(code, nil)
		c.discard()
		return errClosing
	}
}

func (c *conn) ignoreClosing(err error) error {
	if errors.Is(err, errClosing) {
		return nil
	}
	return err
}

// message handles one text message. b is only good until it returns.
func (c *conn) message(b []byte) error {
	if !utf8.Valid(b) {
		return &closeError{wire.CloseBadText, "text is not UTF-8"}
	}
	c.s.m.framesIn.Inc()
	if c.leaving.Load() || c.closed() {
		return nil // not heard: the client will try again elsewhere
	}
	if err := c.allowance(); err != nil {
		return err
	}
	return c.handle(b)
}

// allowance takes one frame off the connection's rate. Refusing is up to the
// handler of text frames; whoever goes on regardless is thrown out.
func (c *conn) allowance() error {
	cfg := &c.s.cfg
	if cfg.FrameRate < 0 {
		return nil
	}
	now := c.s.now()
	c.tokens = min(c.tokens+(now-c.tokensAt).Seconds()*float64(cfg.FrameRate), float64(cfg.FrameBurst))
	c.tokensAt = now
	if c.tokens >= 1 {
		c.tokens--
		c.refused = 0
		return nil
	}
	c.s.m.limited.Inc()
	if c.refused++; c.refused > cfg.FrameBurst {
		return &closeError{wire.ClosePolicy, "too many frames"}
	}
	return nil
}

// acquire counts one unanswered send of size bytes. When the window is full it
// blocks the reader, and so the client, until an answer makes room. It reports
// false when the connection is over.
func (c *conn) acquire(size int) bool {
	for {
		c.mu.Lock()
		if c.stopped {
			c.mu.Unlock()
			return false
		}
		if c.inflight == 0 || c.inflight < c.s.cfg.Window && c.inflightBytes+size <= c.s.cfg.WindowBytes {
			c.inflight++
			c.inflightBytes += size
			c.mu.Unlock()
			return true
		}
		wait := make(chan struct{})
		c.roomWait = wait
		c.mu.Unlock()
		<-wait
	}
}

// answered takes back what acquire counted.
func (c *conn) answered(size int) {
	c.mu.Lock()
	c.inflight--
	c.inflightBytes -= size
	c.wakeLocked()
	c.mu.Unlock()
}

func (c *conn) wakeLocked() {
	if c.roomWait != nil {
		close(c.roomWait)
		c.roomWait = nil
	}
}

// stop makes the connection deaf and dumb: what is queued is still written.
func (c *conn) stop() {
	c.mu.Lock()
	if !c.stopped {
		c.stopped = true
		c.wakeLocked()
		c.dropDeliveryLocked()
		if c.stopSync != nil {
			c.stopSync()
		}
	}
	c.mu.Unlock()
}

// idle reports whether all sends of the connection are answered.
func (c *conn) idle() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.inflight == 0
}
