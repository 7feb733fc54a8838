package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nsqio/go-nsq"

	"im-services/internal/platform/config"
)

var (
	// ErrUnavailable says that no nsqd could take the message; nothing was sent.
	ErrUnavailable = errors.New("bus: no nsqd is available")
	// ErrUnknown says that the message was handed to a connection and no answer came in
	// time. It may still arrive, now or later.
	ErrUnknown = errors.New("bus: no answer from nsqd")
	// ErrRejected says that the message can never be published as it is.
	ErrRejected = errors.New("bus: message rejected")
)

// Limits below nsqd's defaults of 1 MiB for a message and 5 MiB for a batch:
// above them nsqd closes the connection under everybody else's messages.
const (
	MaxBody      = 1<<20 - 64
	maxBatch     = 4 << 20
	maxBatchSize = 1024 // messages
)

// ProducerConfig says where to publish. Zero durations take the defaults named.
type ProducerConfig struct {
	Addrs          []string      // nsqd host:port, the preferred one first
	PublishTimeout time.Duration // 200ms
	AuthSecret     config.Secret
}

// Producer publishes. It keeps one connection to each nsqd and uses the first
// healthy one. Safe for concurrent use.
type Producer struct {
	timeout time.Duration
	links   []*producerLink
	cancel  context.CancelFunc
	wg      sync.WaitGroup
}

// NewProducer starts connecting and returns at once: nsqd being away is no
// reason not to start.
func NewProducer(cfg ProducerConfig, log *slog.Logger) (*Producer, error) {
	if len(cfg.Addrs) == 0 {
		return nil, errors.New("bus: no nsqd address")
	}
	if cfg.PublishTimeout <= 0 {
		cfg.PublishTimeout = 200 * time.Millisecond
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &Producer{timeout: cfg.PublishTimeout, cancel: cancel}
	for _, addr := range cfg.Addrs {
		l := newProducerLink(addr, cfg.AuthSecret.Reveal(), log)
		p.links = append(p.links, l)
		p.wg.Go(func() { l.run(ctx) })
	}
	return p, nil
}

// Publish sends the bodies, in order, to topic and waits until nsqd has them
// all. It returns within PublishTimeout (or the context's deadline if that is
// sooner) whatever nsqd does, with ErrUnavailable, ErrUnknown or ErrRejected.
// Several bodies go in as few commands as the limits allow; after an error some
// of them may have been published. It keeps no reference to the bodies once it
// has returned nil; after an error they must not be changed.
//
// One caller's successive calls keep their order as long as no call fails.
func (p *Producer) Publish(ctx context.Context, topic string, bodies ...[]byte) error {
	if !nsq.IsValidTopicName(topic) {
		return fmt.Errorf("%w: topic %q", ErrRejected, topic)
	}
	for _, b := range bodies {
		if len(b) == 0 { // nsqd would read the next command as the body
			return fmt.Errorf("%w: empty body", ErrRejected)
		}
		if len(b) > MaxBody {
			return fmt.Errorf("%w: body of %d bytes", ErrRejected, len(b))
		}
	}
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	for sent := false; len(bodies) > 0; sent = true {
		n := batch(bodies)
		cmd := nsq.Publish(topic, bodies[0])
		if n > 1 {
			var err error
			if cmd, err = nsq.MultiPublish(topic, bodies[:n]); err != nil {
				return fmt.Errorf("%w: %w", ErrRejected, err)
			}
		}
		err := p.send(ctx, cmd)
		if sent && errors.Is(err, ErrUnavailable) {
			return fmt.Errorf("%w: only a part was taken", ErrUnknown)
		}
		if err != nil {
			return err
		}
		bodies = bodies[n:]
	}
	return nil
}

// batch returns how many of bodies fit into one command, at least one.
func batch(bodies [][]byte) int {
	size := 0
	for i, b := range bodies {
		size += len(b) + 4
		if i > 0 && (size > maxBatch || i == maxBatchSize) {
			return i
		}
	}
	return len(bodies)
}

// send gives cmd to the first healthy link; it tries the next one only while
// nothing has been sent.
func (p *Producer) send(ctx context.Context, cmd *nsq.Command) error {
	err := ErrUnavailable
	for _, l := range p.links {
		err = l.publish(ctx, cmd)
		if !errors.Is(err, ErrUnavailable) {
			return err
		}
	}
	return err
}

// Healthy reports whether a Publish would have somewhere to go now.
func (p *Producer) Healthy() bool {
	for _, l := range p.links {
		if l.healthy() {
			return true
		}
	}
	return false
}

// Close ends the connections. What is being published fails with ErrUnknown.
func (p *Producer) Close() error {
	p.cancel()
	p.wg.Wait()
	return nil
}
