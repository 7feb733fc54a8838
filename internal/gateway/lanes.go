package gateway

import (
	"cmp"
	"context"
	"io"
	"slices"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	logicv1 "im-services/api/proto/logic/v1"
	"im-services/internal/failpoint"
	"im-services/internal/im"
)

const (
	laneBatch      = 256       // sends in one stream message
	laneBatchBytes = 384 << 10 // their size
	laneTick       = 100 * time.Millisecond
	laneProbe      = time.Second // how long a replica may take to say that it lives
	laneBackoffMin = 100 * time.Millisecond
	laneBackoffMax = time.Second
	maxPending     = 1 << 16
	// laneMost is how many sends may be outstanding on a lane whose replica answers
	// all the time: it is given more than it can store, and would refuse them itself
	// at a higher price.
	laneMost = 2048
)

// Replica is one instance of logic.
type Replica struct {
	ID   string
	Addr string
}

// ClientConn is a connection to one replica.
type ClientConn interface {
	grpc.ClientConnInterface
	io.Closer
}

// sender is who waits for the outcome of sends: a connection, or a request over HTTP.
type sender interface {
	// settle takes the outcome of p, once: what is stored, or why nothing is. After an
	// error of im.KindUnknown it may be. It must not block.
	settle(p *pendingSend, r *logicv1.SendResult, err error)
	// gone reports whether it is over, and nobody waits any more.
	gone() bool
}

// pendingSend is a send on its way. Guarded by lanes.mu until it is done.
type pendingSend struct {
	send *logicv1.Send
	size int
	from sender
	at   time.Duration // when it came

	key    string
	ref    uint64        // within its lane
	queued time.Duration // when it came to its lane
	sent   bool          // some replica may have got it: the outcome may be unknown
	// moved: another replica had it before, and may still store it.
	moved bool
	// later are the sends of the same sender to the same conversation after this
	// one that some replica had as well, by client_msg_id: they may be stored, and this
	// one refused, without our having heard of either.
	later []int64
}

// lanes carries all sends to the logic replicas: one lane, that is
// one stream, to each. The sends of one conversation go through one lane in the
// order in which they came, also when a lane breaks and another takes over.
type lanes struct {
	s *Server

	mu     sync.Mutex // guards everything below, and the lanes
	all    map[string]*lane
	ranked []*lane // all, in the order of their use
	spread spread
	keys   map[string]*keyLane
	wait   []*pendingSend // while no lane is up
	count  int
	bytes  int
}

// keyLane ties a conversation to a lane while it has sends there, so that a
// replica coming back does not let later sends overtake.
type keyLane struct {
	lane *lane
	n    int
}

// lane is the stream to one replica.
type lane struct {
	replica Replica
	hash    uint64
	leaving bool // no longer in discovery: takes no new conversations
	over    bool // left and emptied: it ends
	up      bool
	life    int // counts the streams, so that a late end of one does not hit the next
	queue   []*pendingSend
	pending map[uint64]*pendingSend
	ref     uint64
	heard   time.Duration // the last result
	ahead   time.Duration // of this process's clock was the replica's, at least, at aheadAt
	aheadAt time.Duration
	wake    chan struct{}
	breakUp context.CancelFunc // ends the current stream
	quit    context.CancelFunc // ends the lane
}

func newLanes(s *Server) *lanes {
	return &lanes{s: s, all: map[string]*lane{}, keys: map[string]*keyLane{}, spread: spread{lanes: 1}}
}

func laneKey(s *logicv1.Send) string {
	var b [48]byte
	k := b[:0]
	if s.GetKind() == int32(im.Group) {
		k = append(k, "g:"...)
		k = strconv.AppendInt(k, s.GetToId(), 10)
		return string(k)
	}
	k = append(k, "p:"...)
	k = strconv.AppendInt(k, min(s.GetSenderId(), s.GetToId()), 10)
	k = append(k, ':')
	k = strconv.AppendInt(k, max(s.GetSenderId(), s.GetToId()), 10)
	return string(k)
}

func fnv1a(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h
}

// score ranks a lane for a key (rendezvous hashing); all gateways agree on it.
func score(key, lane uint64) uint64 {
	x := key ^ lane
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// set tells which replicas there are.
func (l *lanes) set(replicas []Replica) {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.rankLocked()
	seen := map[string]bool{}
	for _, r := range replicas {
		seen[r.ID] = true
		if old := l.all[r.ID]; old != nil && !old.over {
			if old.replica.Addr == r.Addr {
				old.leaving = false
				continue
			}
			old.quit()
			l.breakLocked(old, old.life)
			delete(l.all, r.ID)
			l.rankLocked()
		}
		if l.s.ctx.Err() != nil {
			return
		}
		ctx, quit := context.WithCancel(l.s.ctx)
		n := &lane{
			replica: r, hash: fnv1a(r.ID), pending: map[uint64]*pendingSend{},
			wake: make(chan struct{}, 1), quit: quit,
		}
		l.all[r.ID] = n
		l.s.wg.Go(func() { l.run(ctx, n) })
	}
	for id, n := range l.all {
		if !seen[id] {
			n.leaving = true
		}
	}
}

// submit takes a send; its outcome goes to its sender. An error means that
// it was not taken.
func (l *lanes) submit(p *pendingSend) error {
	p.key = laneKey(p.send)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.count >= maxPending || l.bytes+p.size > l.s.cfg.PendingBytes || l.count >= laneMost && l.floodedLocked(p.key) {
		e := im.E(im.KindExhausted, "overloaded", nil)
		e.RetryAfter = time.Second
		return e
	}
	l.count++
	l.bytes += p.size
	l.routeLocked(p)
	return nil
}

// floodedLocked reports whether the lane for key has all it can take. One that is
// silent has not: its sends may move on.
func (l *lanes) floodedLocked(key string) bool {
	var n *lane
	if k := l.keys[key]; k != nil {
		n = k.lane
	} else {
		n = l.pickLocked(fnv1a(key))
	}
	return n != nil && len(n.queue)+len(n.pending) >= laneMost && l.s.now()-n.heard < laneTick
}

// routeLocked puts p at the end of its lane's queue.
func (l *lanes) routeLocked(p *pendingSend) {
	k := l.keys[p.key]
	if k == nil {
		best := l.pickLocked(fnv1a(p.key))
		if best == nil {
			l.wait = append(l.wait, p)
			return
		}
		k = &keyLane{lane: best}
		l.keys[p.key] = k
	}
	k.n++
	p.queued = l.s.now()
	k.lane.queue = append(k.lane.queue, p)
	select {
	case k.lane.wake <- struct{}{}:
	default:
	}
}

// leaveLocked undoes what routeLocked did to the key.
func (l *lanes) leaveLocked(p *pendingSend) {
	if k := l.keys[p.key]; k != nil {
		if k.n--; k.n <= 0 {
			delete(l.keys, p.key)
		}
	}
}

// doneLocked counts p out. The caller then settles it without the lock.
func (l *lanes) doneLocked(p *pendingSend) {
	l.count--
	l.bytes -= p.size
}

// breakLocked ends a lane's stream and moves what it held, in order, to others.
func (l *lanes) breakLocked(n *lane, life int) {
	if n.life != life {
		return
	}
	n.life++
	n.up = false
	if n.breakUp != nil {
		n.breakUp()
		n.breakUp = nil
	}
	moved := make([]*pendingSend, 0, len(n.pending)+len(n.queue))
	for _, p := range n.pending {
		p.moved = true
		moved = append(moved, p)
	}
	slices.SortFunc(moved, func(a, b *pendingSend) int { return cmp.Compare(a.ref, b.ref) })
	moved = append(moved, n.queue...)
	noteLater(moved)
	clear(n.pending)
	n.queue = nil
	for key, k := range l.keys {
		if k.lane == n {
			delete(l.keys, key)
		}
	}
	if len(moved) > 0 {
		l.s.m.resends.Add(float64(len(moved)))
	}
	for _, p := range moved {
		l.routeLocked(p)
	}
}

// noteLater tells each of the moved sends, which are in order, what came after it.
func noteLater(moved []*pendingSend) {
	type source struct {
		from sender
		key  string
	}
	later := map[source][]int64{}
	for i := len(moved) - 1; i >= 0; i-- {
		p := moved[i]
		from := source{p.from, p.key}
		p.later = slices.Clone(later[from])
		if p.sent {
			later[from] = append(later[from], p.send.GetClientMsgId())
		}
	}
}

// run keeps a lane to one replica open until it is told to quit or the replica
// has left and nothing is outstanding.
func (l *lanes) run(ctx context.Context, n *lane) {
	cc, err := l.s.deps.DialLogic(n.replica.Addr)
	if err != nil {
		l.s.log.Error("dial logic", "addr", n.replica.Addr, "err", err)
		l.drop(n)
		return
	}
	defer func() { _ = cc.Close() }()
	pause := laneBackoffMin
	for {
		began := l.s.now()
		err := l.stream(ctx, n, cc)
		if ctx.Err() != nil || l.gone(n) {
			l.drop(n)
			return
		}
		l.s.log.Warn("stream to logic ended", "replica", n.replica.ID, "err", err)
		if l.s.now()-began > laneBackoffMax {
			pause = laneBackoffMin
		}
		select {
		case <-time.After(jitter(pause)):
		case <-ctx.Done():
		}
		pause = min(2*pause, laneBackoffMax)
	}
}

// gone reports whether a lane that left discovery has nothing left to do; then
// it never will again.
func (l *lanes) gone(n *lane) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !n.over && n.leaving && len(n.pending) == 0 && len(n.queue) == 0 {
		n.over, n.up = true, false
	}
	return n.over
}

func (l *lanes) drop(n *lane) {
	n.quit()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.breakLocked(n, n.life)
	if l.all[n.replica.ID] == n {
		delete(l.all, n.replica.ID)
		l.rankLocked()
	}
}

// alive asks a replica whether it answers at all, and whether it serves.
func alive(ctx context.Context, cc ClientConn) (answers, serves bool) {
	ctx, cancel := context.WithTimeout(ctx, laneProbe)
	defer cancel()
	r, err := grpc_health_v1.NewHealthClient(cc).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	switch status.Code(err) {
	case codes.OK:
		return true, r.GetStatus() != grpc_health_v1.HealthCheckResponse_NOT_SERVING
	case codes.Unimplemented, codes.NotFound:
		return true, true
	}
	return false, false
}

// stream opens one stream and runs it until it breaks.
func (l *lanes) stream(ctx context.Context, n *lane, cc ClientConn) error {
	if _, serves := alive(ctx, cc); !serves {
		return errNotServing
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	st, err := logicv1.NewMessageServiceClient(cc).SendStream(ctx)
	if err != nil {
		return err
	}
	late := time.AfterFunc(laneProbe, cancel)
	hello, err := st.Recv()
	late.Stop()
	if err != nil {
		return err
	}
	l.mu.Lock()
	life := n.life
	n.up, n.breakUp, n.heard = true, cancel, l.s.now()
	n.aheadAt = n.heard
	n.ahead = clockOf(hello) - n.heard
	waiting := l.wait
	l.wait = nil
	for _, p := range waiting {
		l.routeLocked(p)
	}
	l.mu.Unlock()
	l.s.m.lanesUp.Inc()
	defer l.s.m.lanesUp.Dec()

	var wg sync.WaitGroup
	wg.Go(func() {
		defer cancel()
		l.write(ctx, n, life, st)
	})
	wg.Go(func() { l.watch(ctx, n, life, cc) })
	err = l.read(n, life, st)
	cancel()
	l.mu.Lock()
	l.breakLocked(n, life)
	l.mu.Unlock()
	wg.Wait()
	return err
}

// clockOf is the replica's clock when it answered.
func clockOf(r *logicv1.SendStreamResponse) time.Duration {
	return time.Duration(r.GetClockUs()) * time.Microsecond
}

// clockDrift is how fast two clocks may drift apart: a ten-thousandth, many times what
// quartzes do.
const clockDrift = 10_000

// aheadLocked is how far the replica's clock is ahead, at least. What is known of it
// fades as the clocks drift; replicas tell theirs now and then.
func (n *lane) aheadLocked(now time.Duration) time.Duration {
	return n.ahead - (now-n.aheadAt)/clockDrift
}

// tuneLocked takes in that the replica's clock had come to clock before now.
func (n *lane) tuneLocked(clock, now time.Duration) {
	if ahead := clock - now; ahead >= n.aheadLocked(now) {
		n.ahead, n.aheadAt = ahead, now
	}
}

var errNotServing = im.E(im.KindUnavailable, "service_unavailable", nil)

// write sends what is queued, everything that came meanwhile in one message. What it
// hands to gRPC may lie there while this process sleeps, or in a network that is
// cut, while its client is answered elsewhere; so it says until when, by the replica's
// own clock, it may be taken. By then silence would have moved it to another replica.
func (l *lanes) write(ctx context.Context, n *lane, life int, st logicv1.MessageService_SendStreamClient) {
	var batch []*logicv1.StreamSend
	for {
		select {
		case <-n.wake:
		case <-ctx.Done():
			return
		}
		for {
			now := l.s.now()
			l.s.checkStall(now)
			l.mu.Lock()
			if n.life != life {
				l.mu.Unlock()
				return
			}
			if slices.ContainsFunc(n.queue[:min(len(n.queue), laneBatch)], func(p *pendingSend) bool { return l.stale(p, now) }) {
				l.mu.Unlock()
				l.expireNow()
				continue
			}
			notAfter := n.aheadLocked(now) + now + l.s.cfg.SendFailover
			batch = batch[:0]
			size := 0
			for len(batch) < len(n.queue) && len(batch) < laneBatch && size < laneBatchBytes {
				p := n.queue[len(batch)]
				n.ref++
				p.ref, p.sent = n.ref, true
				n.pending[p.ref] = p
				size += p.size
				batch = append(batch, &logicv1.StreamSend{Ref: p.ref, Send: p.send, Later: p.later})
			}
			if len(batch) == len(n.queue) {
				clear(n.queue)
				n.queue = n.queue[:0]
			} else {
				n.queue = n.queue[len(batch):]
			}
			l.mu.Unlock()
			if len(batch) == 0 {
				break
			}
			if err := failpoint.Hit("gateway.before_forward"); err != nil {
				return
			}
			if err := st.Send(&logicv1.SendStreamRequest{Sends: batch, NotAfterUs: notAfter.Microseconds()}); err != nil {
				return // read has the reason
			}
			if err := failpoint.Hit("gateway.after_forward"); err != nil {
				return
			}
		}
	}
}

// read takes results until the stream ends.
func (l *lanes) read(n *lane, life int, st logicv1.MessageService_SendStreamClient) error {
	type settled struct {
		p *pendingSend
		r *logicv1.SendResult
	}
	var done []settled
	for {
		resp, err := st.Recv()
		if err != nil {
			return err
		}
		if err := failpoint.Hit("gateway.on_result"); err != nil {
			return err
		}
		done = done[:0]
		l.mu.Lock()
		if n.life == life {
			n.tuneLocked(clockOf(resp), l.s.now())
			if len(resp.GetResults()) > 0 {
				n.heard = l.s.now()
			}
			for _, r := range resp.GetResults() {
				p := n.pending[r.GetRef()]
				if p == nil {
					continue
				}
				delete(n.pending, r.GetRef())
				l.leaveLocked(p)
				l.doneLocked(p)
				res := r.GetResult()
				if res == nil {
					res = new(logicv1.SendResult)
					res.Error = &logicv1.SendError{Kind: int32(im.KindUnknown)}
				}
				done = append(done, settled{p, p.final(res)})
			}
		}
		l.mu.Unlock()
		for _, d := range done {
			l.settle(d.p, d.r, nil)
		}
		clear(done)
	}
}

// settle counts an outcome and hands it on. To be called without the lock.
func (l *lanes) settle(p *pendingSend, r *logicv1.SendResult, err error) {
	if e := r.GetError(); e != nil {
		refusal := im.E(im.Kind(e.GetKind()), e.GetReason(), nil) //nolint:gosec // logic made it
		refusal.RetryAfter = time.Duration(e.GetRetryAfterMs()) * time.Millisecond
		r, err = nil, refusal
	}
	switch {
	case err == nil:
		l.s.m.sends.WithLabelValues("stored").Inc()
		l.s.m.sendSeconds.Observe((l.s.now() - p.at).Seconds())
	case im.KindOf(err) == im.KindUnknown:
		l.s.m.sends.WithLabelValues("unknown").Inc()
	default:
		l.s.m.sends.WithLabelValues("refused").Inc()
	}
	p.from.settle(p, r, err)
}

// final is what a replica's answer means. A refusal of a send that another
// replica had before settles nothing, because that one may still store it: the
// client gets no answer and asks again. Only what can never be stored is refused.
func (p *pendingSend) final(r *logicv1.SendResult) *logicv1.SendResult {
	e := r.GetError()
	if e == nil || !p.moved {
		return r
	}
	switch im.Kind(e.GetKind()) { //nolint:gosec // logic made it
	case im.KindInvalid, im.KindConflict:
		return r
	}
	return &logicv1.SendResult{Error: &logicv1.SendError{Kind: int32(im.KindUnknown), Reason: "outcome_unknown"}}
}

// watch breaks the stream when the replica says that it does not serve, or has
// gone silent with sends outstanding, and ends a lane that left when it is empty.
// Silence alone may be a slow store: only a replica that does not answer a probe
// is given up. One that is leaving settles what it has.
func (l *lanes) watch(ctx context.Context, n *lane, life int, cc ClientConn) {
	t := time.NewTicker(laneTick)
	defer t.Stop()
	next, knownSilent := l.s.now()+laneProbe, false
	for {
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
		if l.gone(n) {
			n.quit()
			return
		}
		silent := l.silent(n)
		if l.s.now() < next && (knownSilent || !silent) {
			continue
		}
		answers, serves := alive(ctx, cc)
		if ctx.Err() != nil {
			return
		}
		if answers && (serves || l.isLeaving(n)) || !answers && !l.silent(n) {
			next, knownSilent = l.s.now()+laneProbe, silent // ask again in a while
			continue
		}
		l.s.m.laneStalls.Inc()
		l.mu.Lock()
		l.breakLocked(n, life)
		l.mu.Unlock()
		return
	}
}

func (l *lanes) isLeaving(n *lane) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return n.leaving
}

// silent reports whether sends have been outstanding without any result for so
// long that, with the probe, the failover time is up.
func (l *lanes) silent(n *lane) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	limit := max(l.s.cfg.SendFailover-laneProbe, l.s.cfg.SendFailover/2)
	now := l.s.now()
	if now-n.heard < limit {
		return false
	}
	for _, p := range n.pending {
		if now-p.queued >= limit {
			return true
		}
	}
	return len(n.queue) > 0 && now-n.queue[0].queued >= limit
}

// expire gives up sends whose time is over: refused if they never left this
// process, else unknown.
func (l *lanes) expire(ctx context.Context) {
	t := time.NewTicker(laneTick)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			l.expireNow()
		case <-ctx.Done():
			return
		}
	}
}

// late reports whether the time of a send is over.
func (l *lanes) late(p *pendingSend, now time.Duration) bool {
	if p.sent {
		return now-p.at >= l.s.cfg.SendTimeout
	}
	return now-p.at >= l.s.cfg.SendFailover
}

// goneFor is how long a send may wait here after which it is not handed on unless its
// sender is still there: who is not may have been answered elsewhere by then.
const goneFor = laneTick

// stale reports whether a send must not be handed on any more.
func (l *lanes) stale(p *pendingSend, now time.Duration) bool {
	return l.late(p, now) || l.s.sleptAfter(p.at) || now-p.at >= goneFor && p.from.gone()
}

func (l *lanes) expireNow() {
	now := l.s.now()
	var over []*pendingSend
	l.mu.Lock()
	l.wait = slices.DeleteFunc(l.wait, func(p *pendingSend) bool {
		if !l.stale(p, now) {
			return false
		}
		over = append(over, p)
		return true
	})
	for _, n := range l.all {
		for ref, p := range n.pending {
			if l.late(p, now) {
				delete(n.pending, ref)
				l.leaveLocked(p)
				over = append(over, p)
			}
		}
		n.queue = slices.DeleteFunc(n.queue, func(p *pendingSend) bool {
			if !l.stale(p, now) {
				return false
			}
			l.leaveLocked(p)
			over = append(over, p)
			return true
		})
	}
	for _, p := range over {
		l.doneLocked(p)
	}
	l.spread.adjust(now, l.count, len(l.all))
	l.mu.Unlock()
	for _, p := range over {
		if p.sent {
			l.settle(p, nil, im.E(im.KindUnknown, "outcome_unknown", nil))
			continue
		}
		e := im.E(im.KindUnavailable, "service_unavailable", nil)
		e.RetryAfter = time.Second
		l.settle(p, nil, e)
	}
}

// outstanding is the number of sends that are not settled.
func (l *lanes) outstanding() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.count
}
