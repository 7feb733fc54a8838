package logic

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	logicv1 "im-services/api/proto/logic/v1"
	pushv1 "im-services/api/proto/push/v1"
	"im-services/internal/im"
	"im-services/internal/logic/migrations"
	"im-services/internal/platform/cache"
	"im-services/internal/platform/config"
	"im-services/internal/platform/database"
	"im-services/internal/push"
	"im-services/internal/testkit"
)

// The gateway of the tests; every route points to it.
const testGateway = "gw1"

// recorder is a bus that keeps what is published, and can be told to fail.
type recorder struct {
	codec *push.Codec

	mu        sync.Mutex // guards the following fields
	envelopes []*pushv1.Envelope
	fail      error
}

func (r *recorder) Publish(_ context.Context, _ string, bodies ...[]byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fail != nil {
		return r.fail
	}
	for _, b := range bodies {
		e, err := r.codec.Unmarshal(b)
		if err != nil {
			return err
		}
		r.envelopes = append(r.envelopes, e)
	}
	return nil
}

func (r *recorder) failWith(err error) {
	r.mu.Lock()
	r.fail = err
	r.mu.Unlock()
}

func (r *recorder) all() []*pushv1.Envelope {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.envelopes)
}

// pushedTo returns the messages pushed to a user, in order.
func (r *recorder) pushedTo(user im.UserID) []*pushv1.Message {
	var out []*pushv1.Message
	for _, e := range r.all() {
		for _, d := range e.GetDeliveries() {
			if slices.Contains(d.GetUserIds(), int64(user)) {
				for _, i := range d.GetMessages() {
					out = append(out, e.GetMessages()[i])
				}
			}
		}
	}
	return out
}

// fixedGateways is a discovery in which these gateways live.
type fixedGateways []im.GatewayID

func (g fixedGateways) Live() []im.GatewayID        { return g }
func (g fixedGateways) IsLive(id im.GatewayID) bool { return slices.Contains(g, id) }

// harness is a Server over real MySQL and Redis.
type harness struct {
	*Server
	t        testing.TB
	bus      *recorder
	dsn      string
	redis    string
	gateways Gateways
}

func newHarness(t testing.TB, change ...func(*Config)) *harness {
	t.Helper()
	return newHarnessWith(t, fixedGateways{testGateway}, change...)
}

// newHarnessWith is newHarness in another world of gateways.
func newHarnessWith(t testing.TB, gateways Gateways, change ...func(*Config)) *harness {
	t.Helper()
	h := &harness{t: t, dsn: testkit.MySQL(t), redis: testkit.Redis(t), gateways: gateways}
	db, err := database.Open(t.Context(), database.Config{DSN: config.Secret(h.dsn)}.ForMigration()) // as long as it takes
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if err := database.Migrate(t.Context(), db, migrations.FS, ".", migrations.Table); err != nil {
		t.Fatal(err)
	}
	h.replica(change...)
	return h
}

// replicas returns the harness's Server and as many more as make n. Not to be written
// as a list of h.Server and h.replica(): the call may come before the field is read,
// and both be the same.
func (h *harness) replicas(n int) []*Server {
	all := []*Server{h.Server}
	for len(all) < n {
		all = append(all, h.replica())
	}
	return all
}

// replica starts a Server; a second call starts another one over the same data
// and makes it the harness's.
func (h *harness) replica(change ...func(*Config)) *Server {
	t := h.t
	t.Helper()
	db, err := database.Open(t.Context(), database.Config{DSN: config.Secret(h.dsn)})
	if err != nil {
		t.Fatal(err)
	}
	batches, err := database.OpenBatches(t.Context(), database.Config{DSN: config.Secret(h.dsn)})
	if err != nil {
		t.Fatal(err)
	}
	codec, err := push.NewCodec(bytes.Repeat([]byte{1}, push.MinKeySize))
	if err != nil {
		t.Fatal(err)
	}
	if h.bus == nil {
		h.bus = &recorder{codec: codec}
	}
	// In service an operation has 100 ms, which a busy test machine may well take.
	rdb := cache.Open(cache.Config{Addr: h.redis, OpTimeout: 2 * time.Second})
	var cfg Config
	for _, f := range change {
		f(&cfg)
	}
	s, err := New(t.Context(), Deps{
		DB: db, Batches: batches, Redis: rdb, Bus: h.bus, Gateways: h.gateways, Codec: codec,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Registry: prometheus.NewRegistry(), Config: cfg,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.Run(ctx) })
	t.Cleanup(func() {
		s.Close()
		cancel()
		wg.Wait()
		_ = rdb.Close()
		_ = batches.Close()
		_ = db.Close()
	})
	h.Server = s
	return s
}

var testVersion struct {
	sync.Mutex
	n int64
}

// post submits a send as if it had come just now.
func (h *harness) post(m *logicv1.Send, later []int64, done func(*logicv1.SendResult)) {
	h.submit(m, later, time.Now().Add(h.cfg.SendTimeout), done)
}

// befriend opens the private conversation of two users.
func (h *harness) befriend(a, b im.UserID) im.ConversationID {
	h.t.Helper()
	return h.setPrivate(a, b, true)
}

// befriendLongAgo is befriend where the conversation is no longer so new that notes of
// refusals are looked for.
func (h *harness) befriendLongAgo(a, b im.UserID) im.ConversationID {
	h.t.Helper()
	conv := h.befriend(a, b)
	h.exec(`UPDATE conversations SET refused_at_ms = 0 WHERE id = ?`, int64(conv))
	return conv
}

func (h *harness) setPrivate(a, b im.UserID, open bool) im.ConversationID {
	h.t.Helper()
	testVersion.Lock()
	testVersion.n++
	version := testVersion.n
	testVersion.Unlock()
	resp, err := h.SetPrivate(h.t.Context(), &logicv1.SetPrivateRequest{UserA: int64(a), UserB: int64(b), Open: open, Version: version})
	if err != nil {
		h.t.Fatal(err)
	}
	return im.ConversationID(resp.GetConversationId())
}

func privateSend(from, to im.UserID, client int64, text string) *logicv1.Send {
	return &logicv1.Send{
		SenderId: int64(from), ToId: int64(to), ClientMsgId: client, Kind: 1, Type: 1, Text: text, Platform: 1,
		Sender: &pushv1.Profile{Id: int64(from), Name: "u" + from.String()},
	}
}

// trySend sends and waits for the outcome.
func (h *harness) trySend(m *logicv1.Send) (*logicv1.SendResult, error) { return sendTo(h.Server, m) }

// sendTo sends to one replica and waits for the outcome.
func sendTo(s *Server, m *logicv1.Send) (*logicv1.SendResult, error) {
	settled := make(chan *logicv1.SendResult, 1)
	s.submit(m, nil, time.Now().Add(s.cfg.SendTimeout), func(r *logicv1.SendResult) { settled <- r })
	r := <-settled
	if e := r.GetError(); e != nil {
		return nil, im.E(im.Kind(e.GetKind()), e.GetReason(), nil)
	}
	return r, nil
}

func (h *harness) mustSend(m *logicv1.Send) *logicv1.SendResult {
	h.t.Helper()
	res, err := h.trySend(m)
	if err != nil {
		h.t.Fatalf("send: %v", err)
	}
	return res
}

// backlogStream collects a Backlog.
type backlogStream struct {
	logicv1.ConnectionService_BacklogServer
	ctx  context.Context
	resp []*logicv1.BacklogResponse
}

func (b *backlogStream) Context() context.Context { return b.ctx }
func (b *backlogStream) Send(r *logicv1.BacklogResponse) error {
	b.resp = append(b.resp, r)
	return nil
}

func (b *backlogStream) messages() []*pushv1.Message {
	var out []*pushv1.Message
	for _, r := range b.resp {
		for _, c := range r.GetConversations() {
			out = append(out, c.GetMessages()...)
		}
	}
	return out
}

// gatewayStream is a gateway's stream of sends to a replica, from the gateway's side.
type gatewayStream struct {
	grpc.ServerStream
	ctx  context.Context //nolint:containedctx // gRPC's own way
	up   chan *logicv1.SendStreamRequest
	dead chan struct{} // closed when the replica is killed, if it is
	send func(*logicv1.SendStreamResponse) error
}

func (st *gatewayStream) Context() context.Context                 { return st.ctx }
func (st *gatewayStream) Send(m *logicv1.SendStreamResponse) error { return st.send(m) }

func (st *gatewayStream) Recv() (*logicv1.SendStreamRequest, error) {
	select {
	case m := <-st.up:
		return m, nil
	case <-st.ctx.Done():
		return nil, st.ctx.Err()
	case <-st.dead:
		return nil, io.ErrUnexpectedEOF
	}
}

// connect registers a connection and returns its backlog.
func (h *harness) connect(user im.UserID, conn int64, platform im.Platform) *backlogStream {
	h.t.Helper()
	b := &backlogStream{ctx: h.t.Context()}
	err := h.Backlog(&logicv1.BacklogRequest{
		GatewayId: testGateway, Register: true,
		Conn: &logicv1.Conn{UserId: int64(user), ConnId: conn, Platform: int32(platform), SinceMs: time.Now().UnixMilli()},
	}, b)
	if err != nil {
		h.t.Fatal(err)
	}
	return b
}

func (h *harness) ack(user im.UserID, platform im.Platform, conv im.ConversationID, seq int64) {
	h.t.Helper()
	_, err := h.Acknowledge(h.t.Context(), &logicv1.AcknowledgeRequest{Acks: []*logicv1.Ack{{
		UserId: int64(user), Platform: int32(platform), ConversationId: int64(conv), Seq: seq,
	}}})
	if err != nil {
		h.t.Fatal(err)
	}
}

// busySlack is what a busy test machine may add to any limit.
const busySlack = 5 * time.Second

// eventually waits for a condition that other goroutines make true.
func eventually(t testing.TB, limit time.Duration, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(limit + busySlack); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v and %v more: %s", limit, busySlack, what)
		}
	}
}
