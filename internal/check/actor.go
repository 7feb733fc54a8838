package check

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"im-services/internal/imclient"
)

// lifeSpan is how many connections one life of a client may have: connection
// numbers of the history count through all lives.
const lifeSpan = 10000

// actor is one person: a client, the conversations it writes to, and a source
// of randomness of its own.
type actor struct {
	run  *run
	n    int
	user imclient.User
	api  *imclient.API
	rng  *rand.Rand

	targets []target // set before the start, then fixed

	lives   sync.Mutex // held while a client begins or ends; taken before mu
	mu      sync.Mutex
	client  *imclient.Client // guarded by mu; nil while away
	life    int              // guarded by mu
	conn    int              // guarded by mu; the newest, of the history's numbers
	nextID  int64            // guarded by mu
	acked   []imclient.Outgoing
	posted  map[int64]imclient.Outgoing // guarded by mu; not settled
	orphans []imclient.Outgoing         // guarded by mu; unknown when the last client was closed

	syncs syncSession

	aside sync.WaitGroup
	busy  chan struct{} // capacity 1: something is done aside
}

// besides does f while the actor goes on, unless something is being done so
// already: who waits for an answer over HTTP does not stop writing.
func (a *actor) besides(f func()) {
	select {
	case a.busy <- struct{}{}:
	default:
		return
	}
	a.aside.Go(func() {
		defer func() { <-a.busy }()
		f()
	})
}

// target is a conversation the actor writes to.
type target struct {
	channel int
	to      int64
}

// keepAcked is how many acknowledged messages an actor remembers, to send them
// again.
const keepAcked = 64

// ackTimeout is how long an actor's client waits for an answer at first.
const ackTimeout = 3 * time.Second

// connect starts the actor's client and sends again what an earlier one had not
// settled.
func (a *actor) connect() {
	a.lives.Lock()
	again := a.begin()
	a.lives.Unlock()
	for _, m := range again {
		a.post(a.run.ctx, m)
	}
}

// begin starts a client and returns what is to be sent again. The caller holds
// lives.
func (a *actor) begin() []imclient.Outgoing {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.life++
	base := (a.life - 1) * lifeSpan
	first := a.n + a.life
	client := imclient.Start(imclient.Config{
		User: a.user, Addresses: a.run.system.addresses, First: first % len(a.run.system.addresses),
		Heartbeat: time.Second, Silence: 5 * time.Second, AckTimeout: ackTimeout, BackoffMax: time.Second,
		Window: 256, MaxPending: 1024, // nobody writes on and on while nothing goes out
		Receipts: a.n%2 == 0,
		Record: func(e *imclient.Event) {
			if e.Conn > 0 {
				e.Conn += base
			}
			a.run.log.add(e)
		},
		OnConnect: func(n int) {
			a.mu.Lock()
			a.conn = base + n
			a.mu.Unlock()
		},
		OnFrame:   a.frame,
		OnSettled: a.settled,
	})
	a.client = client
	again := a.orphans
	a.orphans = nil
	return again
}

// frame records what is no message of the conversation.
func (a *actor) frame(f *imclient.Frame) {
	switch f.Code {
	case imclient.CodeOnline, imclient.CodeOffline:
		a.run.log.add(&Event{Client: a.user.ID, Type: imclient.OK, Op: OpPresence, From: f.From, Code: f.Code})
	case imclient.CodeSyncNeeded:
		a.mu.Lock()
		conn := a.conn
		a.mu.Unlock()
		a.run.log.add(&Event{Client: a.user.ID, Conn: conn, Type: imclient.OK, Op: OpSyncNeeded, Conversation: f.Conversation})
	}
}

func (a *actor) settled(s *imclient.Settled) {
	a.mu.Lock()
	defer a.mu.Unlock()
	m, ok := a.posted[s.ClientID]
	delete(a.posted, s.ClientID)
	switch {
	case !ok:
	case s.Unknown:
		a.orphans = append(a.orphans, m)
	case s.Acked:
		a.remember(m)
	}
}

// remember keeps m for a repeat. The caller holds mu.
func (a *actor) remember(m imclient.Outgoing) {
	if len(a.acked) < keepAcked {
		a.acked = append(a.acked, m)
		return
	}
	a.acked[m.ClientID%keepAcked] = m
}

// leave ends the actor's client as an app that is closed does, and returns when
// it is gone.
func (a *actor) leave() {
	a.lives.Lock()
	defer a.lives.Unlock()
	a.end()
}

// end is leave for who holds lives.
func (a *actor) end() {
	a.mu.Lock()
	client := a.client
	a.client = nil
	a.mu.Unlock()
	if client != nil {
		client.Close()
	}
}

// current returns the client, nil while away. A client that the server ended for
// good, as when a late handshake displaced it, is replaced.
func (a *actor) current() *imclient.Client {
	a.mu.Lock()
	client := a.client
	a.mu.Unlock()
	if client == nil || !errors.Is(client.Err(), imclient.ErrEnded) {
		return client
	}
	a.lives.Lock()
	a.mu.Lock()
	first := a.client == client // and not somebody else who saw the same
	a.mu.Unlock()
	var again []imclient.Outgoing
	if first {
		a.end()
		again = a.begin()
	}
	a.mu.Lock()
	client = a.client
	a.mu.Unlock()
	a.lives.Unlock()
	for _, m := range again {
		a.post(a.run.ctx, m)
	}
	return client
}

// compose makes the next message to t.
func (a *actor) compose(t target) imclient.Outgoing {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.nextID++
	id := a.nextID
	key := keyOf(t.channel, a.user.ID, t.to)
	return imclient.Outgoing{ClientID: id, Channel: t.channel, To: t.to, Text: canary(a.run.o.Seed, key, a.user.ID, id, a.rng.Uint64())}
}

// post hands m to the client, or keeps it for the next one.
func (a *actor) post(ctx context.Context, m imclient.Outgoing) {
	for {
		client := a.current()
		a.mu.Lock()
		if a.client == nil || ctx.Err() != nil {
			a.orphans = append(a.orphans, m)
			a.mu.Unlock()
			return
		}
		if a.client != client { // it ended just now
			a.mu.Unlock()
			continue
		}
		a.posted[m.ClientID] = m
		a.mu.Unlock()
		if _, err := client.Post(ctx, m); err == nil {
			return
		}
		a.mu.Lock()
		_, still := a.posted[m.ClientID]
		delete(a.posted, m.ClientID)
		a.mu.Unlock()
		if !still {
			return
		}
	}
}

// adopt sends what an earlier client left behind and no new one took up.
func (a *actor) adopt() {
	a.mu.Lock()
	var again []imclient.Outgoing
	if a.client != nil {
		again, a.orphans = a.orphans, nil
	}
	a.mu.Unlock()
	for _, m := range again {
		a.post(a.run.ctx, m)
	}
}

// pending is how many messages are neither acknowledged nor refused.
func (a *actor) pending() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.posted) + len(a.orphans)
}

// calm is how many messages per second somebody sends for whom the chances of
// act are meant. Who sends more does not connect, sync and repeat more often.
const calm = 8

// talk acts until ctx ends.
func (a *actor) talk(ctx context.Context) {
	defer a.aside.Wait()
	pause := time.Second * time.Duration(len(a.run.actors)) / time.Duration(a.run.o.Rate)
	due := time.Now()
	for ctx.Err() == nil {
		// What is due is posted however slow the answers are.
		due = due.Add(time.Duration(a.rng.ExpFloat64() * float64(pause)))
		if late := time.Since(due); late > time.Second {
			due = due.Add(late) // this machine was too slow: do not pour it all out at once
		}
		sleep(ctx, time.Until(due))
		if ctx.Err() != nil {
			return
		}
		a.run.hush.wait(ctx)
		if ctx.Err() != nil {
			return
		}
		a.act(ctx)
	}
}

// act does one thing. Every branch draws what it needs from the actor's own
// randomness before anything depends on the system.
func (a *actor) act(ctx context.Context) {
	dice, t := a.rng.Float64(), a.targets[a.rng.IntN(len(a.targets))]
	pick := a.rng.IntN(keepAcked)
	dice *= max(1, float64(a.run.o.Rate)/float64(calm*len(a.run.actors)))
	switch {
	case dice < 0.015:
		a.besides(func() { a.again(ctx, pick) })
	case dice < 0.018:
		a.besides(func() { a.conflict(ctx, pick) })
	case dice < 0.035:
		m := a.compose(t)
		a.besides(func() { a.sendHTTP(ctx, m) })
	case dice < 0.040:
		if c := a.current(); c != nil {
			c.Cut()
		}
	case dice < 0.044:
		if c := a.current(); c != nil {
			c.Abandon()
		}
	case dice < 0.047:
		away := time.Duration(a.rng.Float64() * float64(4*time.Second))
		a.leave()
		sleep(ctx, away)
		a.connect()
	case dice < 0.059:
		a.besides(func() { a.syncs.round(ctx, a) })
	default:
		for range 1 + a.rng.IntN(3)/2 { // now and then two in one go
			a.post(ctx, a.compose(t))
		}
	}
}

// sample returns an acknowledged message.
func (a *actor) sample(pick int) (imclient.Outgoing, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.acked) == 0 {
		return imclient.Outgoing{}, false
	}
	return a.acked[pick%len(a.acked)], true
}

// again sends an acknowledged message once more: the answer must be the first.
func (a *actor) again(ctx context.Context, pick int) {
	if m, ok := a.sample(pick); ok {
		a.repeat(ctx, OpAgain, m)
	}
}

// conflict sends another text under an acknowledged message's id: that must be refused.
func (a *actor) conflict(ctx context.Context, pick int) {
	m, ok := a.sample(pick)
	if !ok {
		return
	}
	m.Text = canary(a.run.o.Seed, keyOf(m.Channel, a.user.ID, m.To), a.user.ID, m.ClientID, 0)
	a.repeat(ctx, OpConflict, m)
}

func (a *actor) repeat(ctx context.Context, op string, m imclient.Outgoing) {
	e := Event{Client: a.user.ID, Type: imclient.Invoke, Op: op, ClientID: m.ClientID, Channel: m.Channel, To: m.To, Text: m.Text}
	a.run.log.add(&e)
	sent, err := a.api.Send(ctx, &m)
	e = Event{Client: a.user.ID, Op: op, ClientID: m.ClientID, Channel: m.Channel, To: m.To}
	e.Type, e.Code = outcome(err)
	e.Reason = reasonOf(err)
	if err == nil {
		e.ID, e.Conversation, e.Seq = sent.ID, sent.Conversation, sent.Seq
	}
	a.run.log.add(&e)
}

// outcome says how a call ended.
func outcome(err error) (kind string, code int) {
	switch refusal, ok := errors.AsType[*imclient.Error](err); {
	case err == nil:
		return imclient.OK, 0
	case ok && refusal.Code != 500 && refusal.Status < 500:
		return imclient.Fail, refusal.Code
	case ok:
		return imclient.Info, refusal.Code // it failed inside: that may be after it took effect
	default:
		return imclient.Info, 0
	}
}

// reasonOf is the reason that a refusal gives, "" if err is none.
func reasonOf(err error) string {
	if refusal, ok := errors.AsType[*imclient.Error](err); ok {
		return refusal.Reason
	}
	return ""
}

// sendHTTP sends m over HTTP; while its outcome is not known it is handed to the
// client, which settles it under the same id.
func (a *actor) sendHTTP(ctx context.Context, m imclient.Outgoing) {
	e := Event{Client: a.user.ID, Type: imclient.Invoke, Op: imclient.OpSend, ClientID: m.ClientID, Channel: m.Channel, To: m.To, Text: m.Text}
	a.run.log.add(&e)
	sent, err := a.api.Send(ctx, &m)
	e = Event{Client: a.user.ID, Op: imclient.OpSend, ClientID: m.ClientID, Channel: m.Channel, To: m.To}
	if e.Type, e.Code = outcome(err); err == nil {
		e.ID, e.Conversation, e.Seq = sent.ID, sent.Conversation, sent.Seq
		a.mu.Lock()
		a.remember(m)
		a.mu.Unlock()
	}
	a.run.log.add(&e)
	if e.Type == imclient.Info {
		a.post(context.WithoutCancel(ctx), m)
	}
}
