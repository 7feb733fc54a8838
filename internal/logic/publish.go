package logic

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	pushv1 "im-services/api/proto/push/v1"
	"im-services/internal/failpoint"
	"im-services/internal/im"
	"im-services/internal/push"
	"im-services/internal/seeded"
)

// Publisher is the bus. Publish puts bodies onto a topic in order: at least
// once when it returns nil, at most once otherwise. It must give up within a
// few hundred milliseconds whatever the bus does.
type Publisher interface {
	Publish(ctx context.Context, topic string, bodies ...[]byte) error
}

// ErrNotPublished is what a Publisher returns when the bus has got nothing.
var ErrNotPublished = errors.New("logic: not published")

// Gateways tells which gateway incarnations are alive. It must keep the last
// good answer while discovery is away.
type Gateways interface {
	Live() []im.GatewayID
	IsLive(im.GatewayID) bool
}

const (
	// publishQueue bounds the committed batches a lane's publisher may lag behind.
	publishQueue = 1024
	// publishBytes bounds the content of all of them, of which a batch may have
	// more than batchBytes.
	publishBytes = 64 << 20
	// blindGateways is the largest number of gateways an envelope is sent to
	// when nobody knows where its users are; with more, the outbox waits for Redis.
	blindGateways = 16
	// youngRoute is how long a route's gateway may be missing from discovery.
	youngRoute = 10 * time.Second
	// envelopeTarget is the size, in bytes, at which an envelope is closed.
	envelopeTarget = 512 << 10
)

// publisher turns committed messages into envelopes. One goroutine per lane
// keeps a conversation's envelopes in order; what it cannot keep up with stays
// in the outbox.
type publisher struct {
	bus      Publisher
	codec    *push.Codec
	routes   *routes
	gateways Gateways
	outbox   *outbox
	metrics  *metrics
	log      *slog.Logger
	blind    blindUsers
	late     lateEvents

	lanes  []chan *committed
	queued atomic.Int64 // bytes of content in lanes and under way
	wg     sync.WaitGroup
}

func newPublisher(bus Publisher, codec *push.Codec, rt *routes, gw Gateways, ob *outbox, lanes int, m *metrics, log *slog.Logger) *publisher {
	p := &publisher{bus: bus, codec: codec, routes: rt, gateways: gw, outbox: ob, metrics: m, log: log}
	for range lanes {
		ch := make(chan *committed, publishQueue)
		p.lanes = append(p.lanes, ch)
		p.wg.Go(func() { p.run(ch) })
	}
	return p
}

// enqueue hands a committed batch to its lane's publisher. It never blocks:
// when the publisher lags too far, the outbox takes over.
func (p *publisher) enqueue(lane int, c *committed) {
	size := c.size()
	if p.queued.Add(size) <= publishBytes {
		select {
		case p.lanes[lane] <- c:
			return
		default:
		}
	}
	p.queued.Add(-size)
	p.metrics.pushDropped.Inc()
}

// size is the content of what is to be pushed, in bytes.
func (c *committed) size() (n int64) {
	for _, m := range c.messages {
		n += int64(len(m.push.GetText()) + len(m.push.GetDataJson()))
	}
	return n
}

// close publishes what is queued and stops. No enqueue may follow.
func (p *publisher) close() {
	for _, ch := range p.lanes {
		close(ch)
	}
	p.wg.Wait()
}

func (p *publisher) run(ch <-chan *committed) {
	published, err := lru.New[int64, int64](1 << 16)
	if err != nil {
		panic(err) // the size is a constant
	}
	for c := range ch {
		batch := []*committed{c}
	more:
		for len(batch) < 16 {
			select {
			case c, ok := <-ch:
				if !ok {
					break more
				}
				batch = append(batch, c)
			default:
				break more
			}
		}
		var (
			msgs   []committedMessage
			rows   []int64
			events []*pushv1.Event
		)
		for _, c := range batch {
			msgs = append(msgs, c.messages...)
			rows = append(rows, c.outbox...)
			events = append(events, c.events...)
		}
		for _, m := range msgs {
			last, known := published.Get(m.push.GetConversationId())
			m.push.Contiguous = m.push.GetSeq() == 1 || known && last == m.push.GetSeq()-1
			published.Add(m.push.GetConversationId(), m.push.GetSeq())
		}
		counted, err := p.push(context.Background(), msgs)
		if err != nil {
			p.metrics.pushDropped.Inc()
			p.log.Warn("push left to the outbox", "messages", len(msgs), "err", err)
		} else {
			p.outbox.published(rows...)
		}
		if !counted { // who missed these cannot tell: the next must not claim to follow them
			for _, m := range msgs {
				published.Remove(m.push.GetConversationId())
			}
		}
		if _, err := p.announce(context.Background(), events); err != nil {
			p.log.Warn("events lost", "events", len(events), "err", err)
		}
		for _, c := range batch {
			p.queued.Add(-c.size())
		}
	}
}

// flush publishes messages, with counters or blind.
func (p *publisher) flush(ctx context.Context, msgs []committedMessage) error {
	_, err := p.push(ctx, msgs)
	return err
}

// push publishes messages: one look-up of counters and routes, one envelope per
// gateway that holds a recipient. counted: whoever does not get them finds out
// by his counter.
func (p *publisher) push(ctx context.Context, msgs []committedMessage) (counted bool, err error) {
	began := time.Now()
	defer func() { p.metrics.publishSeconds.Observe(time.Since(began).Seconds()) }()
	runs := splitRuns(msgs)
	audiences := make([]*audience, 0, 2*len(runs))
	for _, r := range runs {
		audiences = append(audiences, r.to)
		if r.self != nil {
			audiences = append(audiences, r.self)
		}
	}
	if err := failpoint.Hit("logic.before_lookup"); err != nil {
		return false, err
	}
	epoch, err := p.routes.lookup(ctx, audiences)
	if err != nil {
		p.metrics.routesDown.Inc()
		return false, p.flushBlind(ctx, runs)
	}
	if err := failpoint.Hit("logic.after_lookup"); err != nil {
		return true, err
	}
	if err := p.countSelf(ctx, runs, epoch); err != nil {
		p.metrics.routesDown.Inc()
		return false, p.flushBlind(ctx, runs)
	}
	now := time.Now().UnixMilli()
	out := newEnvelopes(epoch)
	for _, r := range runs {
		out.add(r, r.to, p.alive(now))
		if r.self != nil {
			out.add(r, r.self, p.alive(now))
		}
	}
	return true, p.send(ctx, out)
}

// alive judges whether a route's gateway can still be there.
func (p *publisher) alive(nowMS int64) func(route) bool {
	return func(rt route) bool {
		age := nowMS - rt.sinceMS // negative if the gateway's clock is ahead: so it may be, but not for ever
		return p.gateways.IsLive(rt.gateway) || age < youngRoute.Milliseconds() && age > -youngRoute.Milliseconds()
	}
}

// countSelf counts a private run for its sender, if it is to be pushed to
// connections of his other than the one it came from: those learn it from the ack.
// All counters of an envelope belong to one epoch.
func (p *publisher) countSelf(ctx context.Context, runs []*run, epoch string) error {
	var again []*audience
	for _, r := range runs {
		if r.self == nil {
			continue
		}
		others := r.self.routes[0][:0]
		for _, rt := range r.self.routes[0] {
			if !rt.hasField(r.origin) {
				others = append(others, rt)
			}
		}
		if len(others) == 0 {
			r.self = nil
			continue
		}
		r.self = &audience{users: r.self.users, n: r.self.n, count: !seeded.On(seeded.NoPushCounter)}
		again = append(again, r.self)
	}
	if len(again) == 0 {
		return nil
	}
	now, err := p.routes.lookup(ctx, again)
	if err == nil && now != epoch {
		err = fmt.Errorf("%w: another epoch began", errRoutesDown)
	}
	return err
}

// flushBlind publishes to every live gateway with unknown counters: Redis is
// away, so nobody knows where the recipients are.
func (p *publisher) flushBlind(ctx context.Context, runs []*run) error {
	for _, r := range runs {
		p.blind.owe(r.to.users)
		if r.self != nil {
			p.blind.owe(r.self.users)
		}
	}
	live := p.gateways.Live()
	if len(live) == 0 || len(live) > blindGateways { // nobody to tell, or too many to shout at
		return fmt.Errorf("%w: the routes of %d gateways are unknown", ErrNotPublished, len(live))
	}
	out := newEnvelopes("")
	for _, r := range runs {
		for _, g := range live {
			users := r.to.users
			if r.self != nil {
				users = append(append([]im.UserID(nil), users...), r.self.users...)
			}
			out.addTo(g, r, users, make([]int64, len(users)))
		}
	}
	return p.send(ctx, out)
}

func (p *publisher) send(ctx context.Context, out *envelopes) error {
	publish := func(g im.GatewayID, bodies [][]byte) error {
		if err := failpoint.Hit("logic.before_publish"); err != nil {
			return err
		}
		err := p.bus.Publish(ctx, push.Topic(g), bodies...)
		return cmp.Or(failpoint.Hit("logic.after_publish"), err)
	}
	atOnce := out.bytes() <= publishAtOnceBytes
	var first error
	all := make(map[im.GatewayID][][]byte, len(out.byGateway))
	for g, list := range out.byGateway {
		bodies, err := p.encode(g, list)
		if err != nil {
			return err
		}
		if atOnce {
			all[g] = bodies
		} else {
			first = cmp.Or(first, publish(g, bodies))
		}
	}
	return cmp.Or(first, toAll(all, publish))
}

func (p *publisher) encode(g im.GatewayID, list []*envelope) ([][]byte, error) {
	bodies := make([][]byte, 0, len(list))
	for _, e := range list {
		e.env.GatewayId = string(g)
		body, err := p.codec.Marshal(e.env)
		if err != nil {
			return nil, err
		}
		bodies = append(bodies, body)
		p.metrics.pushes.Add(float64(e.users))
	}
	p.metrics.envelopes.Add(float64(len(list)))
	return bodies, nil
}

// publishAtOnceBytes bounds what is published to several gateways at the same time:
// they share a connection, and the time that one publish may take. More goes to one
// after another.
const publishAtOnceBytes = 4 << 20

// publishAtOnce bounds the gateways that are published to at the same time.
const publishAtOnce = 64

// toAll publishes to all gateways, also if that fails for some, and returns the
// first failure. It does so at once: the bus then takes what is for several of
// them in one round trip.
func toAll(bodies map[im.GatewayID][][]byte, publish func(im.GatewayID, [][]byte) error) error {
	var all errgroup.Group
	all.SetLimit(publishAtOnce)
	for g, list := range bodies {
		if len(bodies) == 1 {
			return publish(g, list)
		}
		all.Go(func() error { return publish(g, list) })
	}
	return all.Wait()
}

// event publishes an event to the connections of its users: at most once, not
// stored. It returns the number of connections addressed.
func (p *publisher) event(ctx context.Context, e *pushv1.Event) (int, error) {
	users := make([]im.UserID, len(e.GetUserIds()))
	for i, u := range e.GetUserIds() {
		users[i] = im.UserID(u)
	}
	states, epoch, err := p.routes.read(ctx, users)
	byGateway := map[im.GatewayID][]int64{}
	conns := 0
	if err != nil {
		for _, g := range p.gateways.Live() {
			byGateway[g] = e.GetUserIds()
		}
	} else {
		alive := p.alive(time.Now().UnixMilli())
		for i, st := range states {
			seen := map[im.GatewayID]bool{}
			for _, rt := range st.routes {
				if !alive(rt) {
					continue
				}
				conns++
				if !seen[rt.gateway] {
					seen[rt.gateway] = true
					byGateway[rt.gateway] = append(byGateway[rt.gateway], int64(users[i]))
				}
			}
		}
	}
	for g, ids := range byGateway {
		if err := p.eventTo(ctx, g, epoch, &pushv1.Event{UserIds: ids, Body: e.GetBody()}); err != nil {
			return conns, err
		}
	}
	return conns, nil
}

// eventTo publishes an event to one gateway.
func (p *publisher) eventTo(ctx context.Context, g im.GatewayID, epoch string, e *pushv1.Event) error {
	body, err := p.codec.Marshal(&pushv1.Envelope{GatewayId: string(g), Epoch: epoch, Events: []*pushv1.Event{e}})
	if err != nil {
		return err
	}
	return p.bus.Publish(ctx, push.Topic(g), body)
}

// run is a stretch of messages that go to the same users: consecutive messages
// of one group, or of one sender in a private conversation.
type run struct {
	msgs []*pushv1.Message
	to   *audience
	// self is the sender of a private run, for his other connections.
	self   *audience
	origin string
}

// splitRuns groups messages by audience, keeping each conversation's order.
// Messages of different conversations may change places.
func splitRuns(msgs []committedMessage) []*run {
	var runs []*run
	open := make(map[int64]*run, len(msgs)) // conversation -> its last run
	for _, m := range msgs {
		conv := m.push.GetConversationId()
		r := open[conv]
		if r == nil || !r.takes(m) {
			r = &run{origin: m.push.GetOrigin(), to: &audience{users: m.recipients, count: !seeded.On(seeded.NoPushCounter)}}
			if m.sender != 0 {
				r.self = &audience{users: []im.UserID{m.sender}}
			}
			open[conv] = r
			runs = append(runs, r)
		}
		r.msgs = append(r.msgs, m.push)
		r.to.n++
		if r.self != nil {
			r.self.n++
		}
	}
	return runs
}

// takes reports whether m has the same audience as the run.
func (r *run) takes(m committedMessage) bool {
	if m.sender != 0 || r.self != nil {
		return r.self != nil && r.self.users[0] == m.sender && r.origin == m.push.GetOrigin()
	}
	return len(r.to.users) == len(m.recipients) && (len(m.recipients) == 0 || &r.to.users[0] == &m.recipients[0])
}

// envelopes gathers what goes to each gateway.
type envelopes struct {
	epoch     string
	byGateway map[im.GatewayID][]*envelope
}

type envelope struct {
	env   *pushv1.Envelope
	size  int
	users int
}

func newEnvelopes(epoch string) *envelopes {
	return &envelopes{epoch: epoch, byGateway: map[im.GatewayID][]*envelope{}}
}

// bytes is about what all of it takes.
func (o *envelopes) bytes() (n int) {
	for _, list := range o.byGateway {
		for _, e := range list {
			n += e.size
		}
	}
	return n
}

// add addresses a run to the audience's users, each at every gateway that holds him.
func (o *envelopes) add(r *run, a *audience, alive func(route) bool) {
	type target struct {
		users []im.UserID
		pvs   []int64
	}
	var targets map[im.GatewayID]*target
	for i, u := range a.users {
		for k, rt := range a.routes[i] {
			if !alive(rt) || sameGatewayBefore(a.routes[i][:k], rt.gateway) {
				continue
			}
			if targets == nil {
				targets = make(map[im.GatewayID]*target, 2)
			}
			t := targets[rt.gateway]
			if t == nil {
				t = &target{}
				targets[rt.gateway] = t
			}
			t.users = append(t.users, u)
			t.pvs = append(t.pvs, a.pvs[i])
		}
	}
	for g, t := range targets {
		o.addTo(g, r, t.users, t.pvs)
	}
}

func sameGatewayBefore(rts []route, g im.GatewayID) bool {
	for _, rt := range rts {
		if rt.gateway == g {
			return true
		}
	}
	return false
}

// addTo puts a run for some users into the gateway's last envelope, or splits
// it over several when it is large. pvs are the counters after the whole run.
func (o *envelopes) addTo(g im.GatewayID, r *run, users []im.UserID, pvs []int64) {
	ids := make([]int64, len(users))
	for i, u := range users {
		ids[i] = int64(u)
	}
	for start := 0; start < len(r.msgs); {
		e := o.last(g)
		first := len(e.env.GetMessages())
		d := &pushv1.Delivery{UserIds: ids}
		end := start
		for end < len(r.msgs) && (end == start || e.size < envelopeTarget) {
			d.Messages = append(d.Messages, int32(first+end-start)) //nolint:gosec // small
			e.env.Messages = append(e.env.Messages, r.msgs[end])
			e.size += proto.Size(r.msgs[end]) + 8
			end++
		}
		d.Pvs = make([]int64, len(pvs))
		for i, pv := range pvs {
			if pv > 0 {
				d.Pvs[i] = pv - int64(len(r.msgs)-end)
			}
		}
		e.env.Deliveries = append(e.env.Deliveries, d)
		e.size += 12 * len(ids)
		e.users += len(ids)
		start = end
	}
}

func (o *envelopes) last(g im.GatewayID) *envelope {
	list := o.byGateway[g]
	if n := len(list); n > 0 && list[n-1].size < envelopeTarget {
		return list[n-1]
	}
	e := &envelope{env: &pushv1.Envelope{Epoch: o.epoch}}
	o.byGateway[g] = append(list, e)
	return e
}
