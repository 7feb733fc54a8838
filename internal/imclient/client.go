package imclient

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"
)

// Config says how a Client behaves. Only User and Addresses are required.
type Config struct {
	User User
	// Addresses are the gateways, http(s)://host:port. The first connection goes
	// to Addresses[First], every further attempt to the next one.
	Addresses []string
	First     int
	Dial      DialOptions

	// Heartbeat is the pause between frames 1004; default 5s, negative: none.
	Heartbeat time.Duration
	// Silence is how long the server may say nothing, not even a pong or a ping,
	// before the connection counts as dead, the handshake included; default 15s.
	Silence time.Duration
	// AckTimeout is how long a sent message may stay unanswered before it is
	// sent again; default 5s. On the same connection each further time comes
	// after twice as long: a server that is slow does not become faster by being
	// asked more often. It does not become longer than that: whoever waits longer
	// than a fault lasts adds to it, and holds up all that wait for the window.
	AckTimeout time.Duration
	// Window is how many messages may be on their way at once; those after them
	// wait for their turn. Default 512.
	Window int
	// BackoffMin and BackoffMax bound the pause before a reconnect, which doubles
	// with every failure and is jittered; defaults 50ms and 2s.
	BackoffMin, BackoffMax time.Duration
	// MaxPending is how many messages may be unsettled before Post waits; default 4096.
	MaxPending int
	// FirstClientID is the first client message id; default: from the clock.
	FirstClientID int64
	// Receipts makes the client acknowledge what it has shown, at every heartbeat.
	Receipts bool
	// Retry decides whether a refused message is sent again, and after how long at
	// first; twice as long after the second refusal on the same connection, and
	// four times from the third on. Default: what the server calls temporary, when
	// it says. Return a negative time to give up.
	Retry func(f *Frame) time.Duration

	// Hooks run one at a time per Client and must be quick; nil: none. A frame
	// is valid until the hook returns.

	// OnMessage is told each message of others, once. late: one with a higher
	// seq of the same conversation was shown before.
	OnMessage func(f *Frame, late bool)
	// OnSettled is told how each posted message ended.
	OnSettled func(s *Settled)
	// OnFrame is told every frame that is no chat message and settles nothing.
	OnFrame func(f *Frame)
	// OnConnect is told that connection number n stands.
	OnConnect func(n int)
	// Record is told everything, for a history. It must not call the Client.
	Record func(e *Event)
}

// Settled is how a posted message ended.
type Settled struct {
	ClientID     int64
	Posted       time.Duration // clock of Now
	At           time.Duration
	Acked        bool
	Unknown      bool // neither acked nor refused when the Client was closed
	ID           int64
	Conversation int64
	Seq          int64
	Code         int // of the refusal
	Reason       string
}

// Stats count what a Client did and saw.
type Stats struct {
	Connects   int // connections that stood
	Acked      int
	Refused    int
	Resent     int
	Shown      int
	Late       int // shown after a later one
	Duplicates int // dropped, because shown before
	Pending    int // not settled now
}

// Client keeps a user connected. See the package comment for its promises. All
// methods are safe for concurrent use.
type Client struct {
	cfg    Config
	ctx    context.Context //nolint:containedctx // the Client's life
	cancel context.CancelFunc
	wg     sync.WaitGroup
	slots  chan struct{} // one token per unsettled message
	wake   chan struct{} // capacity 1: the writer has work

	showMu sync.Mutex // held while a hook about messages runs

	mu        sync.Mutex // guards the following fields
	sock      *Socket    // nil while not connected
	abandoned *Socket    // sock, if it is to be left open
	conn      int
	standing  chan struct{} // closed while connected
	pending   map[int64]*pending
	head      *pending // unsettled messages in the order posted
	tail      *pending
	next      *pending // the first that this connection has not sent
	flying    int      // how many this connection has sent that are not settled
	nextID    int64
	seen      map[int64]*seen
	receipted map[int64]int64
	waiters   map[int64]chan Settled
	stats     Stats
	err       error // why it stopped for good
}

// pending is a message that is not settled.
type pending struct {
	msg        Outgoing
	posted     time.Duration
	sentAt     time.Time // the last time; zero: not yet
	retryAt    time.Time // after a refusal that is no end; zero: none
	sent       bool      // ever
	postedOn   int       // the connection at that time
	on         int       // the connection that sent it last
	ignored    int       // how often that one got no answer in time
	refused    int       // how often that one got a refusal that is no end
	prev, next *pending
}

// Waits are doubled so often at most.
const (
	mostIgnored = 1
	mostRefused = 2
)

// patience is how long to wait for an answer.
func (p *pending) patience(ackTimeout time.Duration) time.Duration {
	return ackTimeout << min(p.ignored, mostIgnored)
}

// pause is how long to wait after the refusal that has just been counted, where
// first is for the first one.
func (p *pending) pause(first time.Duration) time.Duration {
	return first << min(p.refused-1, mostRefused)
}

// ErrEnded is in the chain of errors of a Client that stopped for good: its
// token was refused, or a newer connection took its place.
var ErrEnded = errors.New("imclient: the client has ended")

// Start connects in the background; it does not wait for that.
func Start(cfg Config) *Client {
	setDefault(&cfg.Heartbeat, 5*time.Second)
	setDefault(&cfg.Silence, 15*time.Second)
	setDefault(&cfg.AckTimeout, 5*time.Second)
	setDefault(&cfg.BackoffMin, 50*time.Millisecond)
	setDefault(&cfg.BackoffMax, 2*time.Second)
	setDefault(&cfg.MaxPending, 4096)
	setDefault(&cfg.Window, 512)
	setDefault(&cfg.FirstClientID, time.Now().UnixMilli()*1000)
	if cfg.Retry == nil {
		cfg.Retry = RetryTemporary
	}
	c := &Client{
		cfg: cfg, slots: make(chan struct{}, cfg.MaxPending), wake: make(chan struct{}, 1),
		standing: make(chan struct{}), pending: map[int64]*pending{}, nextID: cfg.FirstClientID,
		seen: map[int64]*seen{}, receipted: map[int64]int64{}, waiters: map[int64]chan Settled{},
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.wg.Go(c.keepConnected)
	c.wg.Go(c.write)
	return c
}

func setDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// RetryTemporary sends again what was refused because something was away or
// busy, after the time the server names or half a second.
func RetryTemporary(f *Frame) time.Duration {
	switch {
	case f.RetryAfter > 0:
		return time.Duration(f.RetryAfter) * time.Second
	case f.Reason() == "service_unavailable":
		return 500 * time.Millisecond
	}
	return -1
}

// Post takes a message to send and returns its client message id. It waits only
// when too many messages are unsettled. m.ClientID, if given, must not be
// unsettled already.
func (c *Client) Post(ctx context.Context, m Outgoing) (int64, error) {
	return c.post(ctx, m, nil)
}

func (c *Client) post(ctx context.Context, m Outgoing, waiter chan Settled) (int64, error) {
	select {
	case c.slots <- struct{}{}:
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-c.ctx.Done():
		return 0, ErrEnded
	}
	p := &pending{msg: m, posted: Now()}
	c.mu.Lock()
	if c.ctx.Err() != nil {
		c.mu.Unlock()
		return 0, ErrEnded
	}
	if p.msg.ClientID == 0 {
		p.msg.ClientID = c.nextID
		c.nextID++
	}
	id := p.msg.ClientID
	c.pending[id] = p
	if p.prev = c.tail; p.prev == nil {
		c.head = p
	} else {
		p.prev.next = p
	}
	c.tail = p
	if c.next == nil {
		c.next = p
	}
	if waiter != nil {
		c.waiters[id] = waiter
	}
	conn := c.conn
	p.postedOn = conn
	// Under the lock: the answer must not be recorded first.
	c.record(&Event{T: p.posted, Conn: conn, Type: Invoke, Op: OpSend, ClientID: id, Channel: max(m.Channel, Private), To: m.To, Text: m.Text})
	c.mu.Unlock()
	c.poke()
	return id, nil
}

// Send posts a message and waits until it is settled.
func (c *Client) Send(ctx context.Context, m Outgoing) (Settled, error) {
	settled := make(chan Settled, 1)
	id, err := c.post(ctx, m, settled)
	if err != nil {
		return Settled{}, err
	}
	select {
	case s := <-settled:
		return s, nil
	case <-ctx.Done():
		c.mu.Lock()
		delete(c.waiters, id)
		c.mu.Unlock()
		return Settled{ClientID: id, Unknown: true}, ctx.Err()
	}
}

// WaitConnected returns when a connection stands.
func (c *Client) WaitConnected(ctx context.Context) error {
	for {
		c.mu.Lock()
		standing, up, err := c.standing, c.sock != nil, c.err
		c.mu.Unlock()
		if up {
			return nil
		}
		if err != nil {
			return err
		}
		select {
		case <-standing:
		case <-ctx.Done():
			return ctx.Err()
		case <-c.ctx.Done():
			return c.Err()
		}
	}
}

// Stats returns the counts so far.
func (c *Client) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.stats
	s.Pending = len(c.pending)
	return s
}

// Err says why the Client stopped for good; nil while it has not.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Cut breaks the connection, if one stands, as a network would; the Client
// reconnects.
func (c *Client) Cut() {
	c.mu.Lock()
	sock := c.sock
	c.mu.Unlock()
	if sock != nil {
		sock.Cut()
	}
}

// abandonedFor is how long the other end of an abandoned connection finds nobody
// there before it finds it closed.
const abandonedFor = 20 * time.Second

// Abandon leaves the connection, if one stands, without a word and without
// closing it, as a phone does that changes its network; the Client reconnects.
func (c *Client) Abandon() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sock != nil {
		c.abandoned = c.sock
		c.sock.ExtendRead(-time.Second)
	}
}

var errAbandoned = errors.New("imclient: the connection is abandoned")

// left says so if sock is abandoned.
func (c *Client) left(sock *Socket) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.abandoned == sock {
		return errAbandoned
	}
	return nil
}

// Close disconnects and waits for the goroutines. Messages that are not settled
// are reported as unknown.
func (c *Client) Close() {
	c.cancel()
	c.mu.Lock()
	sock := c.sock
	c.mu.Unlock()
	if sock != nil {
		sock.Shut()
	}
	c.wg.Wait()
	c.mu.Lock()
	head := c.head
	c.head, c.tail, c.next = nil, nil, nil
	clear(c.pending)
	if c.err == nil {
		c.err = ErrEnded
	}
	c.mu.Unlock()
	for p := head; p != nil; p = p.next {
		c.report(p, &Settled{ClientID: p.msg.ClientID, Posted: p.posted, At: Now(), Unknown: true})
	}
}

func (c *Client) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *Client) record(e *Event) {
	if c.cfg.Record != nil {
		e.Client = c.cfg.User.ID
		c.cfg.Record(e)
	}
}

// keepConnected connects, reads until the connection ends, and again.
func (c *Client) keepConnected() {
	defer c.cancel() // the writer must not outlive the reader
	pause := c.cfg.BackoffMin
	for attempt := 0; c.ctx.Err() == nil; attempt++ {
		began := time.Now()
		err := c.connection(c.cfg.Addresses[(c.cfg.First+attempt)%len(c.cfg.Addresses)])
		if final(err) {
			c.mu.Lock()
			c.err = errors.Join(ErrEnded, err)
			c.mu.Unlock()
			return
		}
		if time.Since(began) > c.cfg.BackoffMax {
			pause = c.cfg.BackoffMin // it had worked for a while
		}
		select {
		case <-time.After(pause/2 + rand.N(pause)): //nolint:gosec // spreads clients
		case <-c.ctx.Done():
			return
		}
		pause = min(2*pause, c.cfg.BackoffMax)
	}
}

// final reports that connecting again is of no use.
func final(err error) bool {
	if e, ok := errors.AsType[*HandshakeError](err); ok {
		return e.Status == 401
	}
	e, ok := errors.AsType[*CloseError](err)
	return ok && e.Code == 4001
}

// connection is the life of one connection; the error is why it ended.
func (c *Client) connection(address string) error {
	c.mu.Lock()
	c.conn++
	conn := c.conn
	c.mu.Unlock()
	c.record(&Event{T: Now(), Conn: conn, Type: Invoke, Op: OpConnect, Text: address})
	ctx, cancel := context.WithTimeout(c.ctx, c.cfg.Silence)
	sock, err := Dial(ctx, address, c.cfg.User.Token, c.cfg.Dial)
	cancel()
	if err != nil {
		c.record(&Event{T: Now(), Conn: conn, Type: Fail, Op: OpConnect, Reason: err.Error()})
		return err
	}
	sock.OnPing(func() { sock.ExtendRead(c.cfg.Silence) })
	c.record(&Event{T: Now(), Conn: conn, Type: OK, Op: OpConnect})

	c.mu.Lock()
	c.sock = sock
	c.next, c.flying = c.head, 0
	c.stats.Connects++
	close(c.standing)
	c.mu.Unlock()
	if c.cfg.OnConnect != nil {
		c.cfg.OnConnect(conn)
	}
	c.poke()
	if c.ctx.Err() != nil {
		sock.Cut() // Close may have come before sock was there to be shut
	}
	for err == nil {
		var f *Frame
		if f, err = sock.Read(c.cfg.Silence); err == nil {
			c.handle(f, conn)
			err = c.left(sock)
		}
	}

	c.mu.Lock()
	c.sock = nil
	c.standing = make(chan struct{})
	abandoned := c.abandoned == sock
	c.abandoned = nil
	c.mu.Unlock()
	if abandoned {
		time.AfterFunc(abandonedFor, sock.Cut)
	} else {
		sock.Cut()
	}
	c.record(&Event{T: Now(), Conn: conn, Type: Info, Op: OpConnect, Code: closeCode(err), Reason: err.Error()})
	return err
}

func closeCode(err error) int {
	if e, ok := errors.AsType[*CloseError](err); ok {
		return e.Code
	}
	return 0
}

func (c *Client) handle(f *Frame, conn int) {
	switch f.Code {
	case CodeChat:
		c.arrived(f, conn, OpPush)
	case CodeAck:
		if !c.acked(f, conn) {
			c.other(f)
		}
	case CodeError, CodeNotAllowed:
		if !c.refused(f, conn) {
			c.other(f)
		}
	case CodeRecall:
		c.mu.Lock()
		if f.Seq > 0 {
			c.seenLocked(f.Conversation).add(f.Seq)
		}
		c.mu.Unlock()
		c.other(f)
	default:
		c.other(f)
	}
}

func (c *Client) other(f *Frame) {
	if c.cfg.OnFrame != nil {
		c.showMu.Lock()
		defer c.showMu.Unlock()
		c.cfg.OnFrame(f)
	}
}

func (c *Client) seenLocked(conversation int64) *seen {
	s := c.seen[conversation]
	if s == nil {
		s = &seen{}
		c.seen[conversation] = s
	}
	return s
}

// arrived takes in a message that was pushed or synced.
func (c *Client) arrived(f *Frame, conn int, op string) {
	c.showMu.Lock()
	defer c.showMu.Unlock()
	c.mu.Lock()
	s := c.seenLocked(f.Conversation)
	late := f.Seq < s.shown
	fresh := f.Seq > 0 && s.add(f.Seq)
	s.shown = max(s.shown, f.Seq)
	if !fresh {
		c.stats.Duplicates++
	} else {
		c.stats.Shown++
		if late && op == OpPush {
			c.stats.Late++
		}
	}
	c.mu.Unlock()
	kind := OK
	switch {
	case !fresh:
		kind = Fail
	case late:
		kind = Info
	}
	if c.cfg.Record != nil {
		c.record(&Event{
			T: Now(), Conn: conn, Type: kind, Op: op, ClientID: f.ClientID, Channel: f.Channel, To: f.To, From: f.From,
			Text: f.Text(), ID: f.ID, Conversation: f.Conversation, Seq: f.Seq,
		})
	}
	if fresh && c.cfg.OnMessage != nil {
		c.cfg.OnMessage(f, late)
	}
}

// acked settles the message an ack is for; false if it is for none.
func (c *Client) acked(f *Frame, conn int) bool {
	c.mu.Lock()
	p := c.settleLocked(f.ClientID)
	if p == nil {
		c.mu.Unlock()
		return false
	}
	if f.Seq > 0 && p.msg.Channel != Group {
		// One's own private message is not pushed back; a group's is.
		c.seenLocked(f.Conversation).add(f.Seq)
	}
	c.stats.Acked++
	c.mu.Unlock()
	s := &Settled{
		ClientID: f.ClientID, Posted: p.posted, At: Now(), Acked: true,
		ID: f.ID, Conversation: f.Conversation, Seq: f.Seq,
	}
	c.record(&Event{T: s.At, Conn: conn, Type: OK, Op: OpSend, ClientID: f.ClientID, Channel: max(p.msg.Channel, Private), To: p.msg.To, ID: f.ID, Conversation: f.Conversation, Seq: f.Seq})
	c.report(p, s)
	return true
}

// refused settles the message a refusal is for, or keeps it for another try;
// false if it is for none.
func (c *Client) refused(f *Frame, conn int) bool {
	again := c.cfg.Retry(f)
	c.mu.Lock()
	p := c.pending[f.ClientID]
	if p == nil {
		c.mu.Unlock()
		return false
	}
	if again >= 0 {
		p.refused++
		p.retryAt = time.Now().Add(p.pause(again))
		c.mu.Unlock()
		return true
	}
	c.settleLocked(f.ClientID)
	c.stats.Refused++
	c.mu.Unlock()
	s := &Settled{ClientID: f.ClientID, Posted: p.posted, At: Now(), Code: f.Code, Reason: f.Reason()}
	c.record(&Event{T: s.At, Conn: conn, Type: Fail, Op: OpSend, ClientID: f.ClientID, Channel: max(p.msg.Channel, Private), To: p.msg.To, Code: f.Code, Reason: s.Reason})
	c.report(p, s)
	return true
}

// settleLocked takes a message out of the pending ones.
func (c *Client) settleLocked(clientID int64) *pending {
	p := c.pending[clientID]
	if p == nil {
		return nil
	}
	delete(c.pending, clientID)
	if p.on == c.conn {
		c.flying--
		c.poke()
	}
	if c.next == p {
		c.next = p.next
	}
	if p.prev == nil {
		c.head = p.next
	} else {
		p.prev.next = p.next
	}
	if p.next == nil {
		c.tail = p.prev
	} else {
		p.next.prev = p.prev
	}
	return p
}

// report tells of a settled message and frees its place.
func (c *Client) report(p *pending, s *Settled) {
	if s.Unknown {
		c.record(&Event{T: s.At, Type: Info, Op: OpSend, ClientID: s.ClientID, Channel: max(p.msg.Channel, Private), To: p.msg.To})
	}
	c.mu.Lock()
	waiter := c.waiters[s.ClientID]
	delete(c.waiters, s.ClientID)
	c.mu.Unlock()
	if waiter != nil {
		waiter <- *s
	}
	if c.cfg.OnSettled != nil {
		c.showMu.Lock()
		c.cfg.OnSettled(s)
		c.showMu.Unlock()
	}
	<-c.slots
}
