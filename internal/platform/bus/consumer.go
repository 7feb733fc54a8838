package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/nsqio/go-nsq"

	"im-services/internal/platform/config"
)

// lookupEvery is how often nsqlookupd is asked for new nsqds.
const lookupEvery = time.Second

// ConsumerConfig says what to consume. At least one of Addrs and LookupAddrs is
// needed; with both, the union is used.
type ConsumerConfig struct {
	Addrs       []string // nsqd host:port
	LookupAddrs []string // nsqlookupd host:port (HTTP); every nsqd it knows is used
	Topic       string
	Channel     string
	MaxInFlight int // messages per nsqd taken before they are handled; 512
	AuthSecret  config.Secret

	// OnConnect is called each time the consumer has become connected, again
	// after each loss: what was published in between is gone. OnDisconnect is
	// called each time it stops being connected. Both must return quickly, are
	// never called at the same time, and come before Connected changes back.
	OnConnect    func()
	OnDisconnect func()
}

// Consumer hands messages to a handler. Safe for concurrent use.
type Consumer struct {
	cfg     ConsumerConfig
	log     *slog.Logger
	handler func(body []byte)
	turn    sync.Mutex // held while the handler runs

	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu        sync.Mutex // guards the following fields
	links     map[string]*consumerLink
	connected bool
	change    chan struct{} // closed and replaced when connected changes
	hooks     sync.Mutex    // keeps the hooks in order; taken before mu
}

// NewConsumer starts connecting and returns at once. Topic and channel come
// into being with the first connection; see WaitConnected.
//
// The handler runs on one message at a time; messages of one nsqd come in the
// order nsqd sends them. It owns body. It cannot refuse a message: when it
// returns, the message is done, even after a panic. It must return quickly.
func NewConsumer(cfg ConsumerConfig, handler func(body []byte), log *slog.Logger) (*Consumer, error) {
	switch {
	case len(cfg.Addrs) == 0 && len(cfg.LookupAddrs) == 0:
		return nil, errors.New("bus: no nsqd and no nsqlookupd address")
	case !nsq.IsValidTopicName(cfg.Topic):
		return nil, fmt.Errorf("bus: topic %q is not valid", cfg.Topic)
	case !nsq.IsValidChannelName(cfg.Channel):
		return nil, fmt.Errorf("bus: channel %q is not valid", cfg.Channel)
	}
	if cfg.MaxInFlight <= 0 {
		cfg.MaxInFlight = 512
	}
	ctx, cancel := context.WithCancel(context.Background())
	c := &Consumer{
		cfg:     cfg,
		log:     log.With("topic", cfg.Topic),
		handler: handler,
		cancel:  cancel,
		links:   make(map[string]*consumerLink),
		change:  make(chan struct{}),
	}
	for _, addr := range cfg.Addrs {
		c.add(ctx, addr, true)
	}
	if len(cfg.LookupAddrs) > 0 {
		c.wg.Go(func() { c.lookup(ctx) })
	}
	return c, nil
}

// Connected reports whether every nsqd that a message could come through is
// connected and has shown a sign of life within the last seconds.
func (c *Consumer) Connected() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.connected
}

// WaitConnected returns when Connected, or with the context's error.
func (c *Consumer) WaitConnected(ctx context.Context) error {
	for {
		c.mu.Lock()
		ok, change := c.connected, c.change
		c.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-change:
		case <-ctx.Done():
			return fmt.Errorf("bus: consumer: %w", ctx.Err())
		}
	}
}

// Close ends the subscription, lets the handler finish what has been received
// and returns. The hooks are not called any more.
func (c *Consumer) Close() error {
	c.cancel()
	c.wg.Wait()
	return nil
}

// add starts a link to addr unless there is one.
func (c *Consumer) add(ctx context.Context, addr string, fixed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.links[addr]; ok {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	l := &consumerLink{owner: c, addr: addr, fixed: fixed, cancel: cancel, log: c.log.With("nsqd", addr)}
	c.links[addr] = l
	c.wg.Go(func() { defer cancel(); l.run(ctx) })
}

// drop forgets the links that nsqlookupd no longer lists and that are down.
func (c *Consumer) drop(ctx context.Context, listed map[string]bool) {
	c.mu.Lock()
	for addr, l := range c.links {
		if !l.fixed && !l.up && !listed[addr] {
			l.cancel()
			delete(c.links, addr)
		}
	}
	c.mu.Unlock()
	c.settle(ctx, nil, false)
}

// settle records that a link went up or down and tells the hooks if that
// changed the whole.
func (c *Consumer) settle(ctx context.Context, l *consumerLink, up bool) {
	c.hooks.Lock()
	defer c.hooks.Unlock()
	c.mu.Lock()
	if l != nil {
		l.up = up
	}
	all := len(c.links) > 0
	for _, l := range c.links {
		all = all && l.up
	}
	changed := all != c.connected
	if changed {
		c.connected = all
		close(c.change)
		c.change = make(chan struct{})
	}
	c.mu.Unlock()
	if !changed || ctx.Err() != nil {
		return
	}
	if hook := c.cfg.OnConnect; all && hook != nil {
		hook()
	}
	if hook := c.cfg.OnDisconnect; !all && hook != nil {
		hook()
	}
}

// lookup keeps one link for every nsqd that any nsqlookupd knows.
func (c *Consumer) lookup(ctx context.Context) {
	for ctx.Err() == nil {
		listed := make(map[string]bool)
		complete := true
		for _, addr := range c.cfg.LookupAddrs {
			nodes, err := lookupNodes(ctx, addr)
			if err != nil {
				complete = false
				c.log.Warn("nsqlookupd does not answer", "nsqlookupd", addr, "err", err)
				continue
			}
			for _, n := range nodes {
				listed[n] = true
				c.add(ctx, n, false)
			}
		}
		if complete { // a silent nsqlookupd takes nothing away
			c.drop(ctx, listed)
		}
		pause(ctx, lookupEvery*2/3)
	}
}

// handle runs the handler on one message, alone.
func (c *Consumer) handle(body []byte) {
	c.turn.Lock()
	defer c.turn.Unlock()
	defer func() {
		if p := recover(); p != nil {
			c.log.Error("handler panicked", "panic", p, "stack", string(debug.Stack()))
		}
	}()
	c.handler(body)
}
