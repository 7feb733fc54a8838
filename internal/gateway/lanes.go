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

	logicv1 "im-services/api/proto/logic/v1"
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
	turn   int64 // see Send.turn
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
		l.s.m.sends.WithLabelValues("refused").Inc()
		e := im.E(im.KindExhausted, "overloaded", nil)
		e.RetryAfter = time.Second
		return e
	}
	l.count++
	l.bytes += p.size
	p.send.Turn = l.turn
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
	k.lane.nudge()
}

// nudge has the lane's writer look at its queue.
func (n *lane) nudge() {
	select {
	case n.wake <- struct{}{}:
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
	if len(moved) > 0 {
		l.turn++
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

// noteLater tells each of the moved sends, which are in order, what came after it. What
// is sent again has come where it stands first.
func noteLater(moved []*pendingSend) {
	type source struct {
		from sender
		key  string
	}
	type message struct {
		source
		id int64
	}
	first := map[message]*pendingSend{}
	for _, p := range moved {
		m := message{source{p.from, p.key}, p.send.GetClientMsgId()}
		if first[m] == nil {
			first[m] = p
		}
	}
	later := map[source][]int64{}
	for _, p := range slices.Backward(moved) {
		m := message{source{p.from, p.key}, p.send.GetClientMsgId()}
		p.later = slices.Clone(later[m.source])
		if p.sent && first[m] == p {
			later[m.source] = append(later[m.source], m.id)
		}
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

// outstanding is the number of sends that are not settled.
func (l *lanes) outstanding() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.count
}
