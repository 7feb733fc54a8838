package gateway

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	logicv1 "im-services/api/proto/logic/v1"
	pushv1 "im-services/api/proto/push/v1"
	"im-services/internal/im"
	"im-services/internal/push"
	"im-services/internal/token"
)

// The simulation drives the real delivery, sync, watermark and receipt code of a
// Server over a model of logic and of the bus, on a fake clock. Everything that
// happens follows from a seed: what is sent, when each push comes, twice, late
// or never, when Redis forgets or goes away, when a backlog breaks, when the
// client's network is cut with frames in flight. Each event is worked off before
// the next, so a seed repeats its schedule.

const (
	simUser  = 35
	simPeers = 3
	simSteps = 60
)

// TestSim_Delivery runs many schedules. SIM_SEED runs one, SIM_COUNT that many.
func TestSim_Delivery(t *testing.T) {
	count, first := 300, uint64(1)
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
	auth := newFakeAuth(t)
	began := time.Now()
	total := map[string]int{}
	for seed := first; seed < first+uint64(count); seed++ { //nolint:gosec // small
		var s *sim
		synctest.Test(t, func(t *testing.T) {
			s = newSim(t, auth, seed)
			s.run()
		})
		for k, n := range s.seen {
			total[k] += n
		}
		if len(s.faults) > 0 {
			t.Fatalf("seed %d, go on with SIM_SEED=%d:\n%s\n%s", seed, seed, strings.Join(s.log[max(0, len(s.log)-400):], "\n"), strings.Join(s.faults, "\n"))
		}
	}
	took := time.Since(began)
	t.Logf("%d schedules in %v, %.0f per minute; %v", count, took.Round(time.Millisecond), float64(count)/took.Minutes(), total)
	if count >= 50 { // a simulation in which nothing happens proves nothing
		for _, k := range []string{"chat", "reconnect", "dropped", "repeated", "flush", "redis away", "backlog broken", "blind", "asserted", "acknowledged", "stalled"} {
			if total[k] == 0 {
				t.Errorf("it never came to %q", k)
			}
		}
	}
}

// A seed must say everything: otherwise a failure could not be looked at again.
func TestSim_SameSeedSameSchedule(t *testing.T) {
	auth := newFakeAuth(t)
	for seed := uint64(1); seed <= 20; seed++ {
		var logs [2][]string
		for i := range logs {
			synctest.Test(t, func(t *testing.T) {
				s := newSim(t, auth, seed)
				s.run()
				logs[i] = s.log
			})
		}
		for i, line := range logs[0] {
			if i >= len(logs[1]) || line != logs[1][i] {
				t.Errorf("seed %d, line %d: %q, then %q", seed, i, line, logs[1][min(i, len(logs[1])-1)])
				break
			}
		}
	}
}

// sim is one schedule.
type sim struct {
	t     *testing.T
	rng   *rand.Rand
	seed  uint64
	srv   *Server
	codec *push.Codec
	start time.Time
	queue []simEvent
	order int

	mu     sync.Mutex // guards the following fields: RPCs come from goroutines of the Server
	model  simLogic
	client simClient
	calm   bool // no more faults
	calls  uint64
	seen   map[string]int

	logMu  sync.Mutex // guards the following fields
	log    []string
	faults []string
}

// simEvent is something that happens at a time of the fake clock.
type simEvent struct {
	at    time.Duration
	order int
	what  string
	do    func()
}

// simLogic is the model of logic, Redis and MySQL.
type simLogic struct {
	convs     []*simConv
	nextID    int64
	pv        int64
	epoch     int
	away      bool // Redis
	blind     bool // something was published without a counter
	routes    map[int64]*logicv1.Conn
	delivered map[int64]int64
	published map[int64]int64 // what the publisher pushed last, for contiguous
}

type simConv struct {
	id   int64
	kind int32
	msgs []*pushv1.Message
}

// simClient is the model of a client over all its connections.
type simClient struct {
	sock *simSocket
	sent bool // away by the server: he comes back
	have map[int64]map[int64]bool
}

// simSocket is one connection: what the server writes is with the client a
// little later, unless the network is cut before.
type simSocket struct {
	s    *sim
	n    int
	mu   sync.Mutex // guards the following fields
	wake *sync.Cond
	in   []byte // to the server
	cut  bool
	way  [][]byte // to the client

	read   sync.Mutex      // held while the client takes in frames; guards the following fields
	last   map[int64]int64 // the last seq of each conversation on this connection
	jumped map[int64]bool
}

func newSim(t *testing.T, auth *fakeAuth, seed uint64) *sim {
	codec, err := push.NewCodec([]byte(strings.Repeat("k", 32)))
	if err != nil {
		t.Fatal(err)
	}
	s := &sim{
		t: t, rng: rand.New(rand.NewPCG(seed, 1)), seed: seed, codec: codec, start: time.Now(), seen: map[string]int{},
		model:  simLogic{nextID: 100, epoch: 1, routes: map[int64]*logicv1.Conn{}, delivered: map[int64]int64{}, published: map[int64]int64{}},
		client: simClient{have: map[int64]map[int64]bool{}},
	}
	for i := range simPeers {
		s.model.convs = append(s.model.convs, &simConv{id: int64(i + 1), kind: int32(1 + i%2)})
	}
	spread := jitter
	t.Cleanup(func() { jitter = spread })
	jitter = func(d time.Duration) time.Duration { return d*3/4 + 77*time.Microsecond }
	s.srv, err = New(Deps{
		ID: testGateway, Auth: auth, Friends: new(fakeFriend), Connections: &simConnections{s: s},
		Conversations: struct {
			logicv1.ConversationServiceClient
		}{},
		DialLogic: func(string) (ClientConn, error) { return nil, errors.New("not here") },
		Codec:     codec, Describe: func(string) (int, string) { return 500, "" },
		// Odd intervals: ticks of two loops do not meet.
		Config: Config{
			WatermarkInterval: time.Second, RevocationInterval: time.Hour, KeysInterval: time.Hour,
			ProofInterval: 97_001 * time.Microsecond, ReportInterval: 193_003 * time.Microsecond,
			StallThreshold: 3701 * time.Millisecond,
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *sim) now() time.Duration { return time.Since(s.start) }

// note writes a line of the log.
func (s *sim) note(format string, args ...any) {
	s.logMu.Lock()
	defer s.logMu.Unlock()
	s.log = append(s.log, fmt.Sprintf("%9.3f ", s.now().Seconds())+fmt.Sprintf(format, args...))
}

func (s *sim) fault(format string, args ...any) {
	s.note("FAULT "+format, args...)
	s.logMu.Lock()
	s.faults = append(s.faults, fmt.Sprintf(format, args...))
	s.logMu.Unlock()
}

func (s *sim) after(d time.Duration, what string, do func()) {
	s.order++
	s.queue = append(s.queue, simEvent{s.now() + d, s.order, what, do})
}

// run plays the schedule, then lets everything heal, then judges.
func (s *sim) run() {
	synctest.Wait()
	s.connect()
	at := time.Duration(0)
	for range simSteps {
		at += s.ms(120)
		s.after(at, "step", s.step)
	}
	s.play(at + time.Second)
	s.mu.Lock()
	s.calm, s.model.away = true, false
	s.model.recount()
	s.note("calm")
	s.mu.Unlock()
	s.play(12 * time.Second)
	s.judge()
	s.srv.Close()
}

// play works off the queue until the time is over.
func (s *sim) play(d time.Duration) {
	end := s.now() + d
	for {
		s.mu.Lock()
		again := s.client.sent
		s.client.sent = false
		s.mu.Unlock()
		if again {
			s.after(s.ms(800), "reconnect", s.connect)
		}
		next := -1
		for i, e := range s.queue {
			if e.at <= end && (next < 0 || cmp.Or(cmp.Compare(e.at, s.queue[next].at), cmp.Compare(e.order, s.queue[next].order)) < 0) {
				next = i
			}
		}
		if next < 0 {
			left := end - s.now()
			time.Sleep(min(left, simLook))
			synctest.Wait()
			if left <= simLook {
				return
			}
			continue
		}
		e := s.queue[next]
		s.queue = slices.Delete(s.queue, next, next+1)
		if wait := e.at - s.now(); wait > 0 {
			time.Sleep(wait)
		}
		synctest.Wait()
		e.do()
		synctest.Wait()
	}
}

// simLook is how often it is looked whether the client was sent away, while nothing
// else happens.
const simLook = 97*time.Millisecond + 31*time.Microsecond

// ms is a time of 1 to n milliseconds. It is never a round one: what happens at
// the same instant as a tick of the Server would happen in any order.
func (s *sim) ms(n int) time.Duration { return simTime(s.rng, n) }

func simTime(rng *rand.Rand, n int) time.Duration {
	return time.Duration(1+rng.IntN(n))*time.Millisecond + time.Duration(1+rng.IntN(899_999))
}

// chance is true in one of n cases.
func (s *sim) chance(n int) bool { return s.rng.IntN(n) == 0 }

func (s *sim) step() {
	switch n := s.rng.IntN(40); {
	case n < 26:
		s.send()
	case n < 30:
		s.ownSend()
	case n < 33:
		s.cut()
	case n == 33:
		s.mu.Lock()
		s.model.flush()
		s.seen["flush"]++
		s.note("redis forgets")
		s.mu.Unlock()
	case n == 34:
		s.mu.Lock()
		s.model.away = !s.model.away
		s.model.recount()
		s.seen["redis away"]++
		s.note("redis away: %v", s.model.away)
		s.mu.Unlock()
	case n == 35:
		// The process slept: what it holds may be old.
		s.mu.Lock()
		s.seen["stalled"]++
		s.note("stalled")
		s.mu.Unlock()
		s.srv.awake.Store(int64(s.srv.now() - s.srv.cfg.StallThreshold - time.Second))
	case n == 36:
		s.mu.Lock()
		clear(s.model.published) // another replica publishes from here on
		s.mu.Unlock()
	case n == 37:
		s.srv.BusReconnected()
	}
}

func (m *simLogic) flush() {
	m.epoch++
	m.pv = 0
	m.routes = map[int64]*logicv1.Conn{}
}

func (m *simLogic) epochName() string { return "e" + strconv.Itoa(m.epoch) }

// recount moves the counter for what was published without it, so that whoever
// missed it finds out.
func (m *simLogic) recount() {
	if m.blind && !m.away {
		m.blind = false
		m.pv++
	}
}

// store adds messages to a conversation.
func (s *sim) store(c *simConv, sender int64, n int) []*pushv1.Message {
	for range n {
		s.model.nextID++
		c.msgs = append(c.msgs, &pushv1.Message{
			ConversationId: c.id, Kind: c.kind, Seq: int64(len(c.msgs) + 1), Id: s.model.nextID, ClientMsgId: s.model.nextID,
			SenderId: sender, ToId: simUser, Type: 1, Text: "x", SenderPlatform: 1, Status: 1,
		})
	}
	return c.msgs[len(c.msgs)-n:]
}

// send is what logic does with messages of others: store, count, publish.
func (s *sim) send() {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.model.convs[s.rng.IntN(len(s.model.convs))]
	msgs := s.store(c, 100+c.id, 1+s.rng.IntN(3)*s.rng.IntN(2))
	first := msgs[0].GetSeq()
	env := &pushv1.Envelope{GatewayId: testGateway, Epoch: s.model.epochName()}
	d := &pushv1.Delivery{UserIds: []int64{simUser}}
	for i, m := range msgs {
		pub := &pushv1.Message{
			ConversationId: m.GetConversationId(), Kind: m.GetKind(), Seq: m.GetSeq(), Id: m.GetId(), ClientMsgId: m.GetClientMsgId(),
			SenderId: m.GetSenderId(), ToId: m.GetToId(), Type: 1, Text: "x", SenderPlatform: 1, Status: 1,
			Contiguous: m.GetSeq() == 1 || s.model.published[c.id] == m.GetSeq()-1,
		}
		s.model.published[c.id] = m.GetSeq()
		env.Messages = append(env.Messages, pub)
		d.Messages = append(d.Messages, int32(i)) //nolint:gosec // small
	}
	last := msgs[len(msgs)-1].GetSeq()
	if s.model.away {
		s.seen["blind"]++
		s.model.blind = true
		delete(s.model.published, c.id)
		env.Epoch = ""
		d.Pvs = []int64{0}
	} else {
		s.model.pv += int64(len(msgs))
		d.Pvs = []int64{s.model.pv}
		if len(s.model.routes) == 0 {
			s.note("store %d: %d-%d, pv %d, nobody there", c.id, first, last, s.model.pv)
			return
		}
	}
	env.Deliveries = append(env.Deliveries, d)
	body, err := s.codec.Marshal(env)
	if err != nil {
		s.t.Fatal(err)
	}
	copies := 1
	switch {
	case s.chance(10):
		copies = 0
		s.seen["dropped"]++
	case s.chance(8):
		copies = 2
		s.seen["repeated"]++
	}
	s.note("store %d: %d-%d, pv %d, %d copies", c.id, first, last, d.GetPvs()[0], copies)
	for range copies {
		delay := s.ms(3)
		if s.chance(4) {
			delay = s.ms(400) // overtaken, also by a sync
		}
		if s.chance(40) {
			delay = s.ms(8000)
		}
		s.after(delay, "push", func() {
			s.mu.Lock()
			s.note("push %d: %d-%d, pv %d", c.id, first, last, d.GetPvs()[0])
			s.mu.Unlock()
			s.srv.HandlePush(body)
		})
	}
}

// ownSend is a private message of the user himself on his connection: stored,
// not counted, not pushed; its answer comes to the connection.
func (s *sim) ownSend() {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.model.convs[0]
	m := s.store(c, simUser, 1)[0]
	s.note("own %d: %d", c.id, m.GetSeq())
	var on *conn
	s.srv.hub.each(simUser, func(o *conn) { on = o })
	if on == nil {
		return
	}
	s.after(s.ms(60), "answer", func() {
		on.mu.Lock()
		on.inflight++
		on.mu.Unlock()
		on.settle(&pendingSend{from: on, send: &logicv1.Send{Kind: 1, ClientMsgId: m.GetClientMsgId()}},
			&logicv1.SendResult{MessageId: m.GetId(), ConversationId: c.id, Seq: m.GetSeq()}, nil)
	})
}

// connect makes a connection as an upgraded handshake does.
func (s *sim) connect() {
	s.mu.Lock()
	s.seen["reconnect"]++
	sock := &simSocket{s: s, n: s.seen["reconnect"], last: map[int64]int64{}, jumped: map[int64]bool{}}
	sock.wake = sync.NewCond(&sock.mu)
	s.client.sock = sock
	s.note("connect %d", sock.n)
	s.mu.Unlock()
	s.srv.accept(sock, &token.Claims{
		UserID: simUser, SessionID: "s", IssuedAt: time.Now(), ExpiresAt: time.Now().Add(time.Hour),
	}, im.PlatformWeb, "192.0.2.1", time.Now().UnixMilli())
}

// cut ends the client's network; he is back after a while. Half the time the
// server does not notice at once.
func (s *sim) cut() {
	s.mu.Lock()
	sock := s.client.sock
	s.client.sock = nil
	s.mu.Unlock()
	if sock == nil {
		return
	}
	s.note("cut %d", sock.n)
	sock.mu.Lock()
	sock.cut = true
	sock.mu.Unlock()
	end := func() { _ = sock.Close() }
	if s.chance(2) {
		s.after(s.ms(1500), "noticed", end)
	} else {
		end()
	}
	s.after(s.ms(800), "reconnect", s.connect)
}

// judge looks at the end: the client has everything.
func (s *sim) judge() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.model.convs {
		for _, m := range c.msgs {
			if m.GetSenderId() != simUser && !s.client.have[c.id][m.GetSeq()] {
				s.fault("G1, G8: %d of %d never came", m.GetSeq(), c.id)
			}
		}
	}
}

// got is the client taking in a frame.
func (s *sim) got(sock *simSocket, op byte, payload []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if op == opPing {
		s.note("pong")
		sock.feed(clientFrame(finBit|opPong, string(payload)))
		return
	}
	if op == opClose && s.client.sock == sock {
		s.note("server closes %d", sock.n)
		s.client.sock, s.client.sent = nil, true
		return
	}
	if op != opText {
		return
	}
	var f struct {
		Code         int   `json:"msg_code"`
		Conversation int64 `json:"conversation_id"`
		Seq          int64 `json:"seq"`
	}
	if err := json.Unmarshal(payload, &f); err != nil {
		s.fault("bad frame %q", payload)
		return
	}
	switch f.Code {
	case 200:
		s.seen["chat"]++
		s.note("client %d gets %d: %d", sock.n, f.Conversation, f.Seq)
		s.arrived(sock, f.Conversation, f.Seq)
	case 2006:
		// The client reads the history.
		s.note("client %d must sync %d", sock.n, f.Conversation)
		sock.jumped[f.Conversation] = true
	}
}

// arrived holds a push to G6: on one connection seqs rise by one, from at most
// the one after what the client has. His own messages are not pushed to him.
func (s *sim) arrived(sock *simSocket, conv, seq int64) {
	have := s.client.have[conv]
	if have == nil {
		have = map[int64]bool{}
		s.client.have[conv] = have
	}
	last, known := sock.last[conv]
	msgs := s.model.convs[conv-1].msgs
	switch {
	case known && seq <= last:
		s.fault("G6: %d of %d came after %d on connection %d", seq, conv, last, sock.n)
	case sock.jumped[conv]:
	default:
		for q := int64(1); q < seq; q++ {
			if (known && q > last || !known && !have[q]) && msgs[q-1].GetSenderId() != simUser {
				s.fault("G6: %d of %d came on connection %d before %d", seq, conv, sock.n, q)
				break
			}
		}
	}
	sock.last[conv] = seq
	have[seq] = true
}

// Write takes frames of the server; the client has them some 5 ms later.
func (c *simSocket) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.cut { // else it is on its way to nowhere
		c.way = append(c.way, slices.Clone(b))
		time.AfterFunc(5*time.Millisecond+113*time.Microsecond, c.arrive)
	}
	return len(b), nil
}

// arrive hands the client what was written first.
func (c *simSocket) arrive() {
	c.read.Lock()
	defer c.read.Unlock()
	c.mu.Lock()
	frames := c.way[0]
	c.way = c.way[1:]
	cut := c.cut
	c.mu.Unlock()
	for len(frames) > 0 && !cut {
		n, head := int(frames[1]), 2
		switch n {
		case 126:
			n, head = int(binary.BigEndian.Uint16(frames[2:])), 4
		case 127:
			n, head = int(binary.BigEndian.Uint64(frames[2:])), 10 //nolint:gosec // our own
		}
		c.s.got(c, frames[0]&0x0f, frames[head:head+n])
		frames = frames[head+n:]
	}
}

// feed hands bytes to the server.
func (c *simSocket) feed(b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.cut {
		c.in = append(c.in, b...)
		c.wake.Signal()
	}
}

// Read is the server's reading.
func (c *simSocket) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.in) == 0 {
		if c.n < 0 {
			return 0, io.EOF
		}
		c.wake.Wait()
	}
	n := copy(p, c.in)
	c.in = c.in[n:]
	return n, nil
}

// Close ends the socket for the server.
func (c *simSocket) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut, c.n = true, -1
	c.wake.Broadcast()
	return nil
}

func (c *simSocket) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (c *simSocket) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (c *simSocket) SetDeadline(time.Time) error      { return nil }
func (c *simSocket) SetReadDeadline(time.Time) error  { return nil }
func (c *simSocket) SetWriteDeadline(time.Time) error { return nil }

// simConnections is logic as the gateway sees it. Each call takes a time of its
// own, so that calls begun by the same tick have one order.
type simConnections struct {
	logicv1.ConnectionServiceClient
	s *sim
}

var errSim = im.E(im.KindUnavailable, "service_unavailable", nil)

// Backlog registers, reads the counter, and later reads messages: between any
// two of its steps others may be stored, and it may break.
func (l *simConnections) Backlog(ctx context.Context, req *logicv1.BacklogRequest, _ ...grpc.CallOption) (grpc.ServerStreamingClient[logicv1.BacklogResponse], error) {
	time.Sleep(129 * time.Microsecond)
	s := l.s
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	st := &simStream{s: s, ctx: ctx, rng: rand.New(rand.NewPCG(s.seed, 1000+s.calls)), from: map[int64]int64{}}
	if !s.calm && st.rng.IntN(4) == 0 {
		st.breaks = 1 + st.rng.IntN(6)
	}
	first := &logicv1.BacklogResponse{SinceMs: req.GetConn().GetSinceMs()}
	if !s.model.away {
		if req.GetRegister() {
			first.SinceMs, _ = s.model.register(req.GetConn(), true)
		}
		first.Pv, first.Epoch = s.model.pv, s.model.epochName()
	}
	s.note("backlog of %d, register %v, pv %d %s", req.GetConn().GetConnId(), req.GetRegister(), first.GetPv(), first.GetEpoch())
	for conv, seq := range s.model.delivered {
		st.from[conv] = seq
	}
	for _, p := range req.GetPositions() {
		st.from[p.GetConversationId()] = p.GetSeq()
	}
	st.next = append(st.next, first)
	return st, nil
}

// register is logic's: a new connection wins its platform, one that comes again
// loses to a newer.
func (m *simLogic) register(c *logicv1.Conn, fresh bool) (since int64, lost bool) {
	since = c.GetSinceMs()
	for id, o := range m.routes {
		if id == c.GetConnId() {
			continue
		}
		if o.GetSinceMs() >= since {
			if !fresh {
				return since, true
			}
			since = o.GetSinceMs() + 1
		}
	}
	m.routes = map[int64]*logicv1.Conn{c.GetConnId(): {ConnId: c.GetConnId(), SinceMs: since}}
	return since, false
}

// simStream is one answer of Backlog.
type simStream struct {
	grpc.ClientStream
	s      *sim
	ctx    context.Context
	rng    *rand.Rand
	from   map[int64]int64
	next   []*logicv1.BacklogResponse
	conv   int
	breaks int // at this response; 0: never
	count  int
}

// Recv takes its time, and reads each conversation when its turn comes.
func (st *simStream) Recv() (*logicv1.BacklogResponse, error) {
	delay := simTime(st.rng, 20)
	if st.rng.IntN(20) == 0 {
		delay = simTime(st.rng, 600)
	}
	select {
	case <-time.After(delay):
	case <-st.ctx.Done():
		return nil, st.ctx.Err()
	}
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	if st.count++; st.count == st.breaks && !st.s.calm {
		st.s.seen["backlog broken"]++
		st.s.note("backlog breaks")
		return nil, errSim
	}
	for len(st.next) == 0 {
		switch {
		case st.conv < len(st.s.model.convs):
			st.read(st.s.model.convs[st.conv])
			st.conv++
		case st.conv == len(st.s.model.convs):
			st.conv++
			return &logicv1.BacklogResponse{Done: true}, nil
		default:
			return nil, io.EOF
		}
	}
	r := st.next[0]
	st.next = st.next[1:]
	return r, nil
}

func (st *simStream) read(c *simConv) {
	from, last := st.from[c.id], int64(len(c.msgs))
	if from >= last {
		return
	}
	for part := range slices.Chunk(c.msgs[from:], 3) {
		run := &logicv1.BacklogConversation{ConversationId: c.id, Position: part[len(part)-1].GetSeq()}
		for _, m := range part {
			if c.kind != 1 || m.GetSenderId() != simUser {
				run.Messages = append(run.Messages, m)
			}
		}
		st.next = append(st.next, &logicv1.BacklogResponse{Conversations: []*logicv1.BacklogConversation{run}})
	}
	st.next = append(st.next, &logicv1.BacklogResponse{Conversations: []*logicv1.BacklogConversation{{ConversationId: c.id, Position: last}}})
}

// mark is what logic answers of one connection.
func (m *simLogic) mark(c *logicv1.Conn) *logicv1.Watermark {
	w := &logicv1.Watermark{Pv: m.pv, Routed: m.routes[c.GetConnId()] != nil}
	if !w.GetRouted() {
		for _, o := range m.routes {
			w.Displaced = w.GetDisplaced() || o.GetSinceMs() > c.GetSinceMs()
		}
	}
	return w
}

func (l *simConnections) Watermark(_ context.Context, req *logicv1.WatermarkRequest, _ ...grpc.CallOption) (*logicv1.WatermarkResponse, error) {
	time.Sleep(311 * time.Microsecond)
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	if l.s.model.away {
		return nil, errSim
	}
	resp := &logicv1.WatermarkResponse{Epoch: l.s.model.epochName()}
	for _, c := range req.GetConns() {
		resp.Marks = append(resp.Marks, l.s.model.mark(c))
	}
	return resp, nil
}

func (l *simConnections) Assert(_ context.Context, req *logicv1.AssertRequest, _ ...grpc.CallOption) (*logicv1.AssertResponse, error) {
	time.Sleep(517 * time.Microsecond)
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	if l.s.model.away {
		return nil, errSim
	}
	resp := &logicv1.AssertResponse{Epoch: l.s.model.epochName()}
	conns := slices.SortedFunc(slices.Values(req.GetConns()), func(a, b *logicv1.Conn) int { return cmp.Compare(a.GetConnId(), b.GetConnId()) })
	marks := map[int64]*logicv1.Watermark{}
	for _, c := range conns {
		l.s.seen["asserted"]++
		l.s.note("assert %d", c.GetConnId())
		_, lost := l.s.model.register(c, false)
		marks[c.GetConnId()] = &logicv1.Watermark{Pv: l.s.model.pv, Routed: !lost, Displaced: lost}
	}
	for _, c := range req.GetConns() {
		resp.Marks = append(resp.Marks, marks[c.GetConnId()])
	}
	return resp, nil
}

// Acknowledge holds receipts to what the client really has: a cursor that is
// ahead of it loses messages for good.
func (l *simConnections) Acknowledge(_ context.Context, req *logicv1.AcknowledgeRequest, _ ...grpc.CallOption) (*logicv1.AcknowledgeResponse, error) {
	time.Sleep(713 * time.Microsecond)
	s := l.s
	s.mu.Lock()
	defer s.mu.Unlock()
	acks := slices.SortedFunc(slices.Values(req.GetAcks()), func(a, b *logicv1.Ack) int { return cmp.Compare(a.GetConversationId(), b.GetConversationId()) })
	for _, a := range acks {
		conv, seq := a.GetConversationId(), a.GetSeq()
		s.seen["acknowledged"]++
		s.note("acknowledge %d: %d", conv, seq)
		if !s.client.have[conv][seq] {
			s.fault("a receipt for %d of %d, which never came (has %v)", seq, conv, slices.Sorted(maps.Keys(s.client.have[conv])))
		}
		s.model.delivered[conv] = max(s.model.delivered[conv], seq)
	}
	return &logicv1.AcknowledgeResponse{}, nil
}

func (l *simConnections) Disconnect(_ context.Context, req *logicv1.DisconnectRequest, _ ...grpc.CallOption) (*logicv1.DisconnectResponse, error) {
	time.Sleep(919 * time.Microsecond)
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	if l.s.model.away {
		return nil, errSim
	}
	for _, c := range req.GetConns() {
		l.s.note("gone %d", c.GetConnId())
		delete(l.s.model.routes, c.GetConnId())
	}
	return &logicv1.DisconnectResponse{}, nil
}
