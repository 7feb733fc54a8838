package bus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nsqio/go-nsq"
)

// consumerLink owns the subscription at one nsqd.
type consumerLink struct {
	owner  *Consumer
	addr   string
	fixed  bool // configured, not found by nsqlookupd
	cancel context.CancelFunc
	log    *slog.Logger
	up     bool // guarded by owner.mu
}

// run subscribes, consumes, and subscribes again until ctx ends.
func (l *consumerLink) run(ctx context.Context) {
	for up := true; ctx.Err() == nil; {
		c, inFlight, err := l.subscribe(ctx)
		if err == nil {
			l.log.Info("consumer connected")
			up = true
			l.owner.settle(ctx, l, true)
			err = l.consume(ctx, c, inFlight)
			l.owner.settle(ctx, l, false)
		}
		if up && ctx.Err() == nil {
			l.log.Warn("consumer disconnected", "err", err)
		}
		up = false
		pause(ctx, redialEvery)
	}
}

// subscribe connects and asks for messages.
func (l *consumerLink) subscribe(ctx context.Context) (*conn, int, error) {
	cfg := &l.owner.cfg
	c, err := dial(ctx, l.addr, cfg.AuthSecret.Reveal(), unbuffered)
	if err != nil {
		return nil, 0, err
	}
	inFlight := cfg.MaxInFlight
	if c.maxRDY > 0 {
		inFlight = min(inFlight, c.maxRDY)
	}
	if _, err = c.ask(nsq.Subscribe(cfg.Topic, cfg.Channel)); err == nil {
		if err = c.write(nsq.Ready(inFlight)); err == nil {
			err = c.bw.Flush()
		}
	}
	if err != nil {
		_ = c.nc.Close()
		return nil, 0, fmt.Errorf("subscribe: %w", err)
	}
	return c, inFlight, nil
}

// consume runs the loops of one connection until it breaks or ctx ends.
//
// nsqd sends no more than inFlight messages ahead, so received never fills and
// heartbeats are answered however long the handler takes.
func (l *consumerLink) consume(ctx context.Context, c *conn, inFlight int) error {
	life, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	received := make(chan *nsq.Message, inFlight)
	done := make(chan *nsq.Command, inFlight+2)

	var loops, worker sync.WaitGroup
	loops.Go(func() { cancel(l.writeLoop(life, c, done)) })
	loops.Go(func() {
		defer close(received)
		cancel(l.readLoop(life, c, received, done))
	})
	worker.Go(func() {
		for m := range received {
			l.owner.handle(m.Body)
			select {
			case done <- nsq.Finish(m.ID):
				continue // there is room even when the writer has ended
			default:
			}
			select {
			case done <- nsq.Finish(m.ID):
			case <-life.Done():
			}
		}
	})

	select {
	case <-life.Done():
	case <-ctx.Done():
		// Ask nsqd to stop sending; the read loop ends at its answer, and
		// what was received before is still handled and finished.
		select {
		case done <- nsq.StartClose():
		case <-life.Done():
		}
		select {
		case <-life.Done():
		case <-time.After(closeLimit):
			cancel(errors.New("no answer to the close"))
		}
	}
	err := context.Cause(life)
	if errors.Is(err, errClosed) {
		loops.Wait()
		worker.Wait()
		_ = l.finish(c, done)
	}
	_ = c.nc.Close()
	loops.Wait()
	// Handle what has been received before receiving anything again: a new
	// connection must not overtake the old one.
	worker.Wait()
	return err
}

// closeLimit bounds waiting for nsqd to confirm the end of a subscription.
const closeLimit = time.Second

// errClosed: nsqd has confirmed the end of the subscription.
var errClosed = errors.New("closed")

// writeLoop writes commands and flushes when there are no more.
func (l *consumerLink) writeLoop(ctx context.Context, c *conn, cmds <-chan *nsq.Command) error {
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case cmd := <-cmds:
			if err := c.write(cmd); err != nil {
				return err
			}
			if len(cmds) == 0 {
				if err := c.bw.Flush(); err != nil {
					return err
				}
			}
		}
	}
}

// readLoop sorts what nsqd sends.
func (l *consumerLink) readLoop(ctx context.Context, c *conn, received chan<- *nsq.Message, cmds chan<- *nsq.Command) error {
	for {
		frame, data, err := c.read()
		if err != nil {
			return err
		}
		switch frame {
		case nsq.FrameTypeMessage:
			m, err := nsq.DecodeMessage(data)
			if err != nil {
				return err
			}
			select {
			case received <- m:
			case <-ctx.Done(): // nsqd sent more than was asked for
				return context.Cause(ctx)
			}
		case nsq.FrameTypeResponse:
			switch {
			case isHeartbeat(frame, data):
				select {
				case cmds <- nop:
				case <-ctx.Done():
					return context.Cause(ctx)
				}
			case bytes.Equal(data, []byte("CLOSE_WAIT")):
				return errClosed
			}
		case nsq.FrameTypeError:
			// A late FIN of a message that has timed out: nothing is lost.
			if bytes.HasPrefix(data, []byte("E_FIN_FAILED")) {
				l.log.Debug("finish refused", "answer", string(data))
				continue
			}
			return errors.New(string(data))
		}
	}
}

// finish writes the commands that the handler left after the loops have ended.
func (l *consumerLink) finish(c *conn, cmds <-chan *nsq.Command) error {
	for {
		select {
		case cmd := <-cmds:
			if err := c.write(cmd); err != nil {
				return err
			}
		default:
			return c.bw.Flush()
		}
	}
}
