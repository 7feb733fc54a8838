package logic

import (
	"cmp"
	"context"
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	logicv1 "im-services/api/proto/logic/v1"
	"im-services/internal/im"
)

// The simulation drives the real streams, lanes and result writers of two
// replicas over a model of the store and of gateways, on a fake clock. What is
// sent, how long each transaction takes, whether it fails before or after its
// COMMIT, when streams break with answers on their way, when friendships end and
// when a replica drains or dies: all of it follows from a seed. What must hold is
// told by the table of the store alone.

const (
	simSenders = 4
	simSends   = 60
)

// TestG2_SimulatedWrites runs many schedules. SIM_SEED runs one, SIM_COUNT that many.
func TestG2_SimulatedWrites(t *testing.T) {
	count, first := 200, uint64(1)
	if testing.Short() {
		count = 50
	}
	if n, err := strconv.Atoi(os.Getenv("SIM_COUNT")); err == nil {
		count = n
	}
	if s, err := strconv.ParseUint(os.Getenv("SIM_SEED"), 10, 64); err == nil {
		first = s
		if os.Getenv("SIM_COUNT") == "" {
			count = 1
		}
	}
	began := time.Now()
	total := map[string]int{}
	for seed := first; seed < first+uint64(count); seed++ { //nolint:gosec // small
		synctest.Test(t, func(t *testing.T) {
			s := newWriteSim(t, seed)
			s.run()
			for k, n := range s.seen {
				total[k] += n
			}
		})
		if t.Failed() {
			return
		}
	}
	took := time.Since(began)
	t.Logf("%d schedules in %s, %.0f per minute", count, took.Round(time.Millisecond), float64(count)/took.Minutes())
	for _, k := range slices.Sorted(maps.Keys(total)) {
		t.Logf("%8d %s", total[k], k)
	}
	if count >= 200 { // else all of them may well have none of one
		for _, k := range []string{
			"acknowledged", "acknowledged as a repeat", "refused", "unknown", "lost answers", "repeats on another replica", "failed before COMMIT",
			"failed after COMMIT", "stuck transactions", "overloaded", "told to try again", "drained", "killed", "conflicts",
		} {
			if total[k] == 0 {
				t.Errorf("no schedule had %s", k)
			}
		}
	}
}

// A seed stands for a schedule: what is stored where, and what happened on the
// way, is the same every time.
func TestG2_SimulatedWritesRepeat(t *testing.T) {
	for seed := range uint64(20) {
		var tables, events []string
		for range 2 {
			synctest.Test(t, func(t *testing.T) {
				s := newWriteSim(t, seed)
				s.run()
				table := ""
				for _, key := range slices.SortedFunc(maps.Keys(s.list), func(a, b convKey) int { return cmp.Compare(fmt.Sprint(a), fmt.Sprint(b)) }) {
					for _, row := range s.list[key] {
						table += fmt.Sprintln(key, *row)
					}
				}
				tables, events = append(tables, table), append(events, fmt.Sprint(s.seen))
			})
		}
		require.Equal(t, tables[0], tables[1], "seed %d", seed)
		require.Equal(t, events[0], events[1], "seed %d", seed)

	}
}

// simKey names a message, as the store's unique key does.
type simKey struct {
	conv           convKey
	sender, client int64
}

// simRow is a stored message.
type simRow struct {
	seq, id int64
	hash    string
}

// writeSim is one schedule.
type writeSim struct {
	t    *testing.T
	seed uint64
	rng  *rand.Rand // of the set-up and the faults

	mu   sync.Mutex // guards the following fields
	rows map[simKey]*simRow
	list map[convKey][]*simRow
	seq  map[convKey]int64
	held map[convKey]bool // locked by a transaction
	free map[convKey]bool // may not be written to: the friendship has ended
	seen map[string]int
	id   int64

	replicas []*simReplica
	handlers sync.WaitGroup // of streams, which a drained replica lets finish
}

func newWriteSim(t *testing.T, seed uint64) *writeSim {
	s := &writeSim{
		t: t, seed: seed, rows: map[simKey]*simRow{}, list: map[convKey][]*simRow{},
		seq: map[convKey]int64{}, held: map[convKey]bool{}, free: map[convKey]bool{}, seen: map[string]int{},
	}
	s.rng = s.source("faults")
	for range 2 {
		s.replicas = append(s.replicas, s.start())
	}
	return s
}

// source is the randomness of one actor: what one draws does not change what
// others draw, in whichever order goroutines get to run.
func (s *writeSim) source(actor ...any) *rand.Rand {
	h := fnv.New64a()
	_, _ = fmt.Fprint(h, actor...)
	return rand.New(rand.NewPCG(s.seed, h.Sum64()))
}

// moments is a time of which no two are the same: what happens at one moment of the
// fake clock is one chain of events.
func moments(rng *rand.Rand, limit time.Duration) time.Duration {
	return time.Duration(rng.Int64N(int64(limit)))
}

func (s *writeSim) saw(what string) {
	s.mu.Lock()
	s.seen[what]++
	s.mu.Unlock()
}

// simReplica is a logic process.
type simReplica struct {
	sim    *writeSim
	server *Server
	dead   chan struct{} // closed when it is killed
	gone   bool          // guarded by sim.mu: it takes no streams any more

	handlers sync.WaitGroup // of its streams; gRPC's server waits for them as well
}

func (s *writeSim) start() *simReplica {
	cfg := Config{Lanes: 1 + s.rng.IntN(2), BatchMax: 1 + s.rng.IntN(8), QueueMax: 4 + s.rng.IntN(8)}.withDefaults()
	r := &simReplica{sim: s, dead: make(chan struct{})}
	r.server = &Server{cfg: cfg, draining: make(chan struct{})}
	r.server.batcher = newBatcher(cfg, r, newMetrics(prometheus.NewRegistry()), func(int, *committed) {})
	return r
}

// stop ends a replica. A killed one answers nothing any more, but what it has
// sent to the store is done.
func (r *simReplica) stop(kill bool) {
	r.sim.mu.Lock()
	r.gone = true
	r.sim.mu.Unlock()
	if kill {
		close(r.dead)
		synctest.Wait() // or streams would end for the one reason or the other
		r.sim.saw("killed")
	} else {
		r.sim.saw("drained")
	}
	r.server.Drain()
	r.handlers.Wait()
	r.server.streams.Wait()
	r.server.batcher.close()
}

func keyOfSend(q *sendReq) simKey {
	return simKey{q.key, q.send.GetSenderId(), q.send.GetClientMsgId()}
}

// commit implements committer: a transaction of a store that may be slow, and
// fail on either side of its COMMIT.
func (r *simReplica) commit(ctx context.Context, batch []*sendReq) ([]outcome, *committed) {
	s := r.sim
	first := batch[0].send
	rng := s.source("commit", first.GetSenderId(), first.GetClientMsgId(), time.Now().UnixNano())
	convs := map[convKey]bool{}
	for _, q := range batch {
		convs[q.key] = true
	}
	if !s.lock(ctx, convs) {
		return failAll(batch, false, im.E(im.KindUnavailable, "store_unavailable", ctx.Err())), nil
	}
	defer s.unlock(convs)
	time.Sleep(moments(rng, 30*time.Millisecond))
	switch rng.IntN(25) {
	case 0:
		s.saw("failed before COMMIT")
		return failAll(batch, false, im.E(im.KindUnavailable, "store_unavailable", nil)), nil
	case 1: // it takes effect in its own time, whatever becomes of who asked
		s.saw("stuck transactions")
		time.Sleep(500*time.Millisecond + moments(rng, 4*time.Second))
		if ctx.Err() != nil {
			if rng.IntN(2) == 0 {
				s.apply(batch)
			}
			return failAll(batch, true, im.E(im.KindUnavailable, "store_unavailable", ctx.Err())), nil
		}
	case 2:
		s.saw("failed after COMMIT")
		s.apply(batch)
		return failAll(batch, true, im.E(im.KindUnavailable, "store_unavailable", nil)), nil
	}
	return s.apply(batch), nil
}

// lock waits for the rows of conversations as a transaction does.
func (s *writeSim) lock(ctx context.Context, convs map[convKey]bool) bool {
	for {
		s.mu.Lock()
		busy := false
		for c := range convs {
			busy = busy || s.held[c]
		}
		if !busy {
			for c := range convs {
				s.held[c] = true
			}
		}
		s.mu.Unlock()
		if !busy {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(time.Millisecond):
		}
	}
}

func (s *writeSim) unlock(convs map[convKey]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range convs {
		delete(s.held, c)
	}
}

// apply is what a transaction does to the table.
func (s *writeSim) apply(batch []*sendReq) []outcome {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]outcome, len(batch))
	for i, q := range batch {
		key := keyOfSend(q)
		row, repeat := s.rows[key]
		switch {
		case repeat && row.hash != string(q.hash):
			out[i].err = im.E(im.KindConflict, "client_msg_id_reused", nil)
			continue
		case repeat:
		case s.free[q.key]:
			out[i].err = im.E(im.KindForbidden, "not_friends", nil)
			continue
		default:
			s.seq[q.key]++
			s.id++
			row = &simRow{seq: s.seq[q.key], id: s.id, hash: string(q.hash)}
			s.rows[key] = row
			s.list[q.key] = append(s.list[q.key], row)
		}
		out[i].result = &logicv1.SendResult{MessageId: row.id, Seq: row.seq, Duplicate: repeat}
	}
	return out
}

// simStream is a gateway's stream to one replica.
type simStream struct {
	*gatewayStream
	cancel  context.CancelFunc
	answers chan *logicv1.StreamResult
	replica *simReplica
	ended   chan struct{}
}

// open returns nil if the replica is not to be had.
func (r *simReplica) open() *simStream {
	r.sim.mu.Lock()
	gone := r.gone
	if !gone {
		r.handlers.Add(1) // before it is gone, so that stop waits for it
	}
	r.sim.mu.Unlock()
	if gone {
		return nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	st := &simStream{cancel: cancel, answers: make(chan *logicv1.StreamResult, 10000), replica: r, ended: make(chan struct{})}
	st.gatewayStream = &gatewayStream{ctx: ctx, up: make(chan *logicv1.SendStreamRequest), dead: r.dead, send: st.answer}
	r.sim.handlers.Go(func() {
		defer r.handlers.Done()
		defer close(st.ended)
		_ = r.server.SendStream(st)
		cancel()
	})
	return st
}

func (st *simStream) answer(m *logicv1.SendStreamResponse) error {
	select {
	case <-st.dead:
		return io.ErrClosedPipe
	default:
	}
	if st.ctx.Err() != nil {
		st.replica.sim.saw("lost answers")
		return st.ctx.Err()
	}
	for _, r := range m.GetResults() {
		st.answers <- r
	}
	return nil
}

// put hands a send to the replica; false if the stream has ended.
func (st *simStream) put(m *logicv1.Send) bool {
	select {
	case st.up <- &logicv1.SendStreamRequest{Sends: []*logicv1.StreamSend{{Ref: 1, Send: m}}}:
		return true
	case <-st.ctx.Done():
	case <-st.dead:
	case <-st.ended:
	}
	return false
}

func (s *writeSim) replica(n int) *simReplica {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.replicas[n]
}

// send tries once: on a stream of its own, so that its breaking concerns this
// attempt alone. Nil means that there was no answer.
func (s *writeSim) send(rng *rand.Rand, n int, m *logicv1.Send) *logicv1.SendResult {
	st := s.replica(n).open()
	if st == nil {
		return refused(im.E(im.KindUnavailable, "service_unavailable", nil))
	}
	defer st.cancel()
	if !st.put(m) {
		return nil
	}
	patience := 10 * time.Second
	if rng.IntN(6) == 0 { // the network is cut while the answer is on its way
		patience = moments(rng, 40*time.Millisecond)
	}
	for {
		select {
		case a := <-st.answers:
			return a.GetResult()
		case <-st.ended:
			select {
			case a := <-st.answers:
				return a.GetResult()
			default:
				return nil
			}
		case <-time.After(patience):
			return nil
		}
	}
}

// simSend is what a sender knows of a message.
type simSend struct {
	m        *logicv1.Send
	res      *logicv1.SendResult
	refused  bool // and no attempt before it was without an answer
	attempts int
}

// sender sends its messages one after another, each until it is settled.
func (s *writeSim) sender(user int64) []*simSend {
	rng := s.source("sender", user)
	time.Sleep(moments(rng, 5*time.Millisecond))
	var out []*simSend
	for n := range simSends / simSenders {
		to := user + 1
		if rng.IntN(3) == 0 {
			to = user%simSenders + 11
		}
		m := &logicv1.Send{SenderId: user, ClientMsgId: int64(n + 1), Kind: int32(im.Private), ToId: to, Type: 1, Text: fmt.Sprintf("%d/%d", user, n)}
		snd := &simSend{m: m}
		out = append(out, snd)
		s.settle(rng, snd)
		if snd.res.GetError() == nil && rng.IntN(5) == 0 {
			time.Sleep(moments(rng, time.Millisecond))
			other := &logicv1.Send{SenderId: user, ClientMsgId: m.GetClientMsgId(), Kind: m.GetKind(), ToId: to, Type: 1, Text: "other"}
			if r := s.send(rng, rng.IntN(2), other); r != nil && r.GetError() == nil {
				s.t.Errorf("user %d's message %d was accepted again with another text", user, m.GetClientMsgId())
			} else if im.Kind(r.GetError().GetKind()) == im.KindConflict { //nolint:gosec // logic made it
				s.saw("conflicts")
			}
		}
		time.Sleep(moments(rng, 20*time.Millisecond))
	}
	return out
}

// settle repeats a send until there is an answer to every attempt, or none of
// them can take effect any more.
func (s *writeSim) settle(rng *rand.Rand, snd *simSend) {
	defer func() {
		if snd.res.GetError().GetReason() == "overloaded" {
			s.saw("overloaded")
		}
	}()
	last, unknown := -1, false
	for range 200 {
		at := rng.IntN(2)
		if last >= 0 && at != last {
			s.saw("repeats on another replica")
		}
		last = at
		snd.attempts++
		r := s.send(rng, at, snd.m)
		kind := im.Kind(r.GetError().GetKind()) //nolint:gosec // logic made it
		switch {
		case r == nil, r.GetError() != nil && kind == im.KindUnknown:
			unknown = true
			s.saw("unknown")
		case r.GetError() == nil:
			snd.res = r
			s.saw("acknowledged")
			if r.GetDuplicate() {
				s.saw("acknowledged as a repeat")
			}
			return
		case (kind == im.KindExhausted || kind == im.KindUnavailable) && rng.IntN(4) > 0:
			s.saw("told to try again")
		default: // some give up
			s.saw("refused")
			snd.res, snd.refused = r, !unknown
			return
		}
		time.Sleep(20*time.Millisecond + moments(rng, 300*time.Millisecond))
	}
	s.t.Errorf("user %d's message %d is not settled after %d attempts", snd.m.GetSenderId(), snd.m.GetClientMsgId(), snd.attempts)
}

// burst fills a lane faster than its transactions empty it.
func (s *writeSim) burst() {
	const many = 40
	rng := s.source("burst")
	time.Sleep(moments(rng, 50*time.Millisecond))
	st := s.replica(rng.IntN(2)).open()
	if st == nil {
		return
	}
	defer st.cancel()
	for i := range many {
		if !st.put(&logicv1.Send{SenderId: 90, ClientMsgId: int64(i + 1), Kind: int32(im.Private), ToId: 91, Type: 1, Text: strconv.Itoa(i)}) {
			return
		}
		time.Sleep(1 + moments(rng, time.Microsecond))
	}
	last := int64(0)
	for range many {
		select {
		case a := <-st.answers:
			switch r := a.GetResult(); {
			case r.GetError() == nil:
				if r.GetSeq() <= last {
					s.t.Errorf("sends of one stream: seq %d came after %d", r.GetSeq(), last)
				}
				last = r.GetSeq()
			case r.GetError().GetReason() == "overloaded":
				s.saw("overloaded")
			}
		case <-st.ended:
			return
		}
	}
}

func (s *writeSim) run() {
	var wg sync.WaitGroup
	results := make([][]*simSend, simSenders)
	for i := range simSenders {
		wg.Go(func() { results[i] = s.sender(int64(10 + i)) })
	}
	stop := make(chan struct{})
	var faults sync.WaitGroup
	faults.Go(func() { s.fail(stop) })
	wg.Go(s.burst)
	wg.Wait()
	close(stop)
	faults.Wait()
	for n := range s.replicas {
		s.replica(n).stop(false)
	}
	s.handlers.Wait()
	s.judge(results)
	if s.t.Failed() {
		s.t.Logf("SIM_SEED=%d repeats it", s.seed)
	}
}

// fail ends and renews friendships, and replaces replicas, until stop.
func (s *writeSim) fail(stop chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(100*time.Millisecond + moments(s.rng, 700*time.Millisecond)):
		}
		if s.rng.IntN(3) > 0 {
			lo, hi := pairOf(im.UserID(10+s.rng.IntN(simSenders)), im.UserID(11+s.rng.IntN(simSenders)))
			s.mu.Lock()
			key := convKey{lo: lo, hi: int64(hi)}
			s.free[key] = !s.free[key]
			s.mu.Unlock()
			continue
		}
		n, kill := s.rng.IntN(2), s.rng.IntN(2) == 0
		old, fresh := s.replica(n), s.start()
		s.mu.Lock()
		s.replicas[n] = fresh
		s.mu.Unlock()
		old.stop(kill)
	}
}

// judge compares what senders were told with the table.
func (s *writeSim) judge(results [][]*simSend) {
	for key, list := range s.list {
		for i, row := range list {
			if row.seq != int64(i+1) {
				s.t.Errorf("conversation %v has seq %d in place %d", key, row.seq, i+1)
			}
		}
	}
	for _, sends := range results {
		last := map[convKey]int64{}
		for _, snd := range sends {
			q, err := newSendReq(snd.m)
			if err != nil {
				s.t.Fatal(err)
			}
			row := s.rows[keyOfSend(q)]
			switch {
			case snd.res == nil:
			case snd.res.GetError() == nil:
				if row == nil || row.seq != snd.res.GetSeq() || row.id != snd.res.GetMessageId() || row.hash != string(q.hash) {
					s.t.Errorf("user %d's message %d was acknowledged as %d/%d and is stored as %+v", snd.m.GetSenderId(), snd.m.GetClientMsgId(), snd.res.GetMessageId(), snd.res.GetSeq(), row)
					continue
				}
				if row.seq <= last[q.key] {
					s.t.Errorf("user %d's message %d has seq %d, one acknowledged before it was sent %d", snd.m.GetSenderId(), snd.m.GetClientMsgId(), row.seq, last[q.key])
				}
				last[q.key] = row.seq
			case snd.refused && row != nil:
				s.t.Errorf("user %d's message %d was refused (%s) and is stored", snd.m.GetSenderId(), snd.m.GetClientMsgId(), snd.res.GetError().GetReason())
			}
		}
	}
}
