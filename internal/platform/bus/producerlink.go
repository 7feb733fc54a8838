package bus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nsqio/go-nsq"
)

const (
	// queueLimit bounds the commands waiting to be written, pendingLimit those
	// written and not answered, both per nsqd.
	queueLimit   = 256
	pendingLimit = 1024
	// suspectLimit: a connection that let one publish time out and then shows
	// no sign of life for this long is closed.
	suspectLimit = time.Second
)

// producerLink owns the connection to one nsqd.
type producerLink struct {
	addr  string
	auth  string
	log   *slog.Logger
	tried chan struct{} // closed when the first attempt to connect is over
	once  sync.Once

	mu   sync.RWMutex // guards live
	live *producerConn
}

// producerConn is one life of the connection.
type producerConn struct {
	*conn
	queue   chan *publishing
	pending chan *publishing // written, oldest first; nil entries never occur
	down    chan struct{}    // closed when this life is over
	suspect atomic.Bool      // a publish timed out and nothing was answered since
}

// publishing is one command on its way; done has room for its only result.
type publishing struct {
	cmd  *nsq.Command
	done chan error
}

func newProducerLink(addr, auth string, log *slog.Logger) *producerLink {
	return &producerLink{addr: addr, auth: auth, log: log.With("nsqd", addr), tried: make(chan struct{})}
}

func (l *producerLink) current() *producerConn {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.live
}

func (l *producerLink) setCurrent(c *producerConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.live = c
}

func (l *producerLink) healthy() bool {
	c := l.current()
	return c != nil && !c.suspect.Load()
}

// publish hands cmd to the connection and waits for the answer.
func (l *producerLink) publish(ctx context.Context, cmd *nsq.Command) error {
	c := l.current()
	if c == nil {
		select {
		case <-l.tried: // it is down, not just starting
			c = l.current()
		case <-ctx.Done():
		}
	}
	if c == nil || c.suspect.Load() {
		return ErrUnavailable
	}
	req := &publishing{cmd: cmd, done: make(chan error, 1)}
	select {
	case c.queue <- req:
	case <-c.down:
		return ErrUnavailable
	case <-ctx.Done():
		c.doubt()
		return ErrUnavailable
	}
	select {
	case err := <-req.done:
		return err
	case <-ctx.Done():
		select {
		case err := <-req.done: // this process was asleep, nsqd was not
			return err
		default:
		}
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			c.doubt()
		}
		return fmt.Errorf("%w: %w", ErrUnknown, ctx.Err())
	}
}

// doubt makes later publishes go elsewhere until nsqd answers something, and
// ends the connection if it stays silent. One that owes no answer is not doubted: it
// would stay silent.
func (c *producerConn) doubt() {
	if c.owesNothing() || !c.suspect.CompareAndSwap(false, true) {
		return
	}
	_ = c.nc.SetReadDeadline(time.Now().Add(suspectLimit))
	if c.owesNothing() { // the last answer was just read
		c.suspect.Store(false)
		_ = c.nc.SetReadDeadline(time.Now().Add(silenceLimit))
	}
}

func (c *producerConn) owesNothing() bool { return len(c.queue) == 0 && len(c.pending) == 0 }

// run connects, serves, and connects again until ctx ends.
func (l *producerLink) run(ctx context.Context) {
	defer l.once.Do(func() { close(l.tried) })
	for up := true; ctx.Err() == nil; {
		c, err := dial(ctx, l.addr, l.auth, answersOnly)
		if err == nil {
			pc := &producerConn{
				conn:    c,
				queue:   make(chan *publishing, queueLimit),
				pending: make(chan *publishing, pendingLimit),
				down:    make(chan struct{}),
			}
			l.setCurrent(pc)
			l.once.Do(func() { close(l.tried) })
			l.log.Info("producer connected")
			up = true
			err = pc.serve(ctx)
			l.setCurrent(nil)
			pc.fail()
		}
		l.once.Do(func() { close(l.tried) })
		if up && ctx.Err() == nil {
			l.log.Warn("producer disconnected", "err", err)
		}
		up = false
		pause(ctx, redialEvery)
	}
}

// serve runs the two loops and returns when either has ended.
func (c *producerConn) serve(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	beats := make(chan struct{}, 1)
	var wg sync.WaitGroup
	wg.Go(func() { cancel(c.writeLoop(ctx, beats)) })
	wg.Go(func() { cancel(c.readLoop(beats)) })
	<-ctx.Done()
	close(c.down)
	_ = c.nc.Close()
	wg.Wait()
	return context.Cause(ctx)
}

// writeLoop writes what is queued and flushes when nothing more is.
func (c *producerConn) writeLoop(ctx context.Context, beats <-chan struct{}) error {
	for {
		var err error
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-beats:
			err = c.write(nop)
		case req := <-c.queue:
			select {
			case c.pending <- req: // before writing: the answer may be quick
			case <-ctx.Done():
				req.done <- ErrUnavailable // it was not written
				return ctx.Err()
			}
			err = c.write(req.cmd)
		}
		if err == nil && len(c.queue) == 0 && len(beats) == 0 {
			err = c.bw.Flush()
		}
		if err != nil {
			return err
		}
	}
}

// readLoop pairs answers with what waits for them, in order.
func (c *producerConn) readLoop(beats chan<- struct{}) error {
	for {
		frame, data, err := c.read()
		if err != nil {
			return err
		}
		c.suspect.Store(false)
		if isHeartbeat(frame, data) {
			select {
			case beats <- struct{}{}:
			default: // the writer has one to send already
			}
			continue
		}
		var result error
		if frame == nsq.FrameTypeError {
			result = refusal(data)
		}
		select {
		case req := <-c.pending:
			req.done <- result
		default:
			return fmt.Errorf("unexpected answer %q", data)
		}
	}
}

// refusal tells what can never be published from what nsqd failed to do.
func refusal(data []byte) error {
	if bytes.HasPrefix(data, []byte("E_BAD_")) || bytes.HasPrefix(data, []byte("E_INVALID")) {
		return fmt.Errorf("%w: %s", ErrRejected, data)
	}
	return fmt.Errorf("%w: %s", ErrUnknown, data)
}

// fail answers everything that this life of the connection left open. What was not
// written yet may go elsewhere.
func (c *producerConn) fail() {
	for {
		select {
		case req := <-c.pending:
			req.done <- fmt.Errorf("%w: connection lost", ErrUnknown)
		case req := <-c.queue:
			req.done <- ErrUnavailable
		default:
			return
		}
	}
}

// pause waits for d and up to half of it more.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d + rand.N(d/2)): //nolint:gosec // jitter
	case <-ctx.Done():
	}
}
