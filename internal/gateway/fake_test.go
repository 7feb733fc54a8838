package gateway

import (
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"maps"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	authv1 "im-services/api/proto/auth/v1"
	friendv1 "im-services/api/proto/friend/v1"
	logicv1 "im-services/api/proto/logic/v1"
	pushv1 "im-services/api/proto/push/v1"
	"im-services/internal/im"
	"im-services/internal/token"
)

// fakeStore is what all replicas of the fake logic share: an in-memory logic
// that obeys the promises of the proto.
type fakeStore struct {
	mu        sync.Mutex
	convs     map[string]*fakeConv
	byID      map[int64]*fakeConv
	nextID    int64
	pv        map[int64]int64
	epoch     string
	routes    map[int64]map[int64]*logicv1.Conn // user → conn id
	delivered map[fakeCursor]int64
	gone      []*logicv1.Conn
	asserted  int
	backlogs  int
	redisAway bool
	// registering is called before a route is made, which it may delay.
	registering func()
	// asserting is called before routes are made again, and may say that the answer is
	// an error all the same.
	asserting func() error
	// paged is called when a backlog is read and nothing of it sent yet.
	paged func()
	// acknowledging is called before receipts are taken, which it may refuse.
	acknowledging func(context.Context) error
	// refuseBacklog answers backlogs with an error, as package rpc makes it.
	refuseBacklog error
	// generous repeats in backlogs what the connection has written.
	generous bool
	// push gets every envelope, under mu.
	push func(*pushv1.Envelope)
	// refuse answers a send with an error.
	refuse map[string]*logicv1.SendError // by text
	online map[int64]bool
}

type fakeConv struct {
	id      int64
	kind    int32
	members []int64
	msgs    []*pushv1.Message
	byKey   map[[2]int64]*pushv1.Message
}

type fakeCursor struct {
	user, conv int64
	platform   int32
}

func newFakeStore() *fakeStore {
	return &fakeStore{
		convs: map[string]*fakeConv{}, byID: map[int64]*fakeConv{}, pv: map[int64]int64{}, epoch: "e1",
		routes: map[int64]map[int64]*logicv1.Conn{}, delivered: map[fakeCursor]int64{}, nextID: 1000,
		push: func(*pushv1.Envelope) {}, refuse: map[string]*logicv1.SendError{}, online: map[int64]bool{},
	}
}

// group makes a group with members.
func (f *fakeStore) group(id int64, members ...int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := &fakeConv{id: id, kind: 2, members: members, byKey: map[[2]int64]*pushv1.Message{}}
	f.convs["g:"+strconv.FormatInt(id, 10)] = c
	f.byID[id] = c
}

// store is the write path: everybody is everybody's friend.
func (f *fakeStore) store(s *logicv1.Send) *logicv1.SendResult {
	f.mu.Lock()
	defer f.mu.Unlock()
	if e := f.refuse[s.GetText()]; e != nil {
		return &logicv1.SendResult{Error: e}
	}
	key := laneKey(s)
	c := f.convs[key]
	if c == nil {
		if s.GetKind() == 2 {
			return &logicv1.SendResult{Error: &logicv1.SendError{Kind: int32(im.KindForbidden), Reason: "not_a_member"}}
		}
		f.nextID++
		c = &fakeConv{
			id: f.nextID, kind: 1, members: []int64{s.GetSenderId(), s.GetToId()}, byKey: map[[2]int64]*pushv1.Message{},
		}
		f.convs[key], f.byID[c.id] = c, c
	}
	if m := c.byKey[[2]int64{s.GetSenderId(), s.GetClientMsgId()}]; m != nil {
		return &logicv1.SendResult{MessageId: m.GetId(), ConversationId: c.id, Seq: m.GetSeq(), Duplicate: true}
	}
	f.nextID++
	m := &pushv1.Message{
		ConversationId: c.id, Kind: c.kind, Seq: int64(len(c.msgs) + 1), Id: f.nextID, ClientMsgId: s.GetClientMsgId(),
		SenderId: s.GetSenderId(), ToId: s.GetToId(), Type: s.GetType(), Text: s.GetText(), DataJson: s.GetDataJson(),
		SentAtMs: 1657111889000, SenderPlatform: s.GetPlatform(), Contiguous: true, Status: 1,
	}
	c.msgs = append(c.msgs, m)
	c.byKey[[2]int64{s.GetSenderId(), s.GetClientMsgId()}] = m
	f.publish(c.members, m)
	return &logicv1.SendResult{MessageId: m.GetId(), ConversationId: c.id, Seq: m.GetSeq(), SentAtMs: m.GetSentAtMs()}
}

// publish counts and pushes one message; f.mu is held.
func (f *fakeStore) publish(members []int64, m *pushv1.Message) {
	d := &pushv1.Delivery{Messages: []int32{0}}
	gateways := map[string]bool{}
	for _, u := range members {
		var pv int64
		if !f.redisAway {
			f.pv[u]++
			pv = f.pv[u]
		}
		if len(f.routes[u]) > 0 || f.redisAway {
			d.UserIds = append(d.UserIds, u)
			d.Pvs = append(d.Pvs, pv)
			gateways[testGateway] = true
		}
	}
	for range gateways {
		env := &pushv1.Envelope{GatewayId: testGateway, Epoch: f.epoch, Messages: []*pushv1.Message{m}, Deliveries: []*pushv1.Delivery{d}}
		if f.redisAway {
			env.Epoch = ""
		}
		f.push(env)
	}
}

// replica is one instance of the fake logic, reachable by its address.
type replica struct {
	logicv1.UnimplementedMessageServiceServer
	logicv1.UnimplementedConnectionServiceServer
	logicv1.UnimplementedConversationServiceServer
	*fakeStore
	grpc   *grpc.Server
	health *health.Server
	lis    *bufconn.Listener

	mu      sync.Mutex
	stalled chan struct{} // non-nil: every RPC waits for it
	streams int
	batches []int
	gate    func(*logicv1.Send) // called before a send is stored
	transit func()              // what a request goes through on its way here
}

func newReplica(t testing.TB, store *fakeStore) *replica {
	r := &replica{fakeStore: store, lis: bufconn.Listen(1 << 20), health: health.NewServer()}
	wait := func(ctx context.Context) error {
		r.mu.Lock()
		s := r.stalled
		r.mu.Unlock()
		if s == nil {
			return nil
		}
		select {
		case <-s:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	r.grpc = grpc.NewServer(
		grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
			if err := wait(ctx); err != nil {
				return nil, err
			}
			return h(ctx, req)
		}),
		grpc.StreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) error {
			if err := wait(ss.Context()); err != nil {
				return err
			}
			return h(srv, ss)
		}),
	)
	logicv1.RegisterMessageServiceServer(r.grpc, r)
	logicv1.RegisterConnectionServiceServer(r.grpc, r)
	logicv1.RegisterConversationServiceServer(r.grpc, r)
	grpc_health_v1.RegisterHealthServer(r.grpc, r.health)
	done := make(chan struct{})
	go func() { defer close(done); _ = r.grpc.Serve(r.lis) }()
	t.Cleanup(func() { r.resume(); r.grpc.Stop(); <-done })
	return r
}

func (r *replica) stall() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stalled = make(chan struct{})
}

func (r *replica) resume() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stalled != nil {
		close(r.stalled)
		r.stalled = nil
	}
}

func (r *replica) client(t testing.TB) *grpc.ClientConn {
	cc, err := grpc.NewClient("passthrough:///replica", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return r.lis.DialContext(ctx) }),
		grpc.WithStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			r.fakeStore.mu.Lock()
			err := r.refuseBacklog
			r.fakeStore.mu.Unlock()
			if err != nil && method == logicv1.ConnectionService_Backlog_FullMethodName {
				return nil, err
			}
			return open(ctx, desc, cc, method, opts...)
		}))
	if err != nil {
		t.Fatal(err)
	}
	return cc
}

func (r *replica) SendStream(st grpc.BidiStreamingServer[logicv1.SendStreamRequest, logicv1.SendStreamResponse]) error {
	r.mu.Lock()
	r.streams++
	r.mu.Unlock()
	began := time.Now()
	clock := func() int64 { return max(time.Since(began).Microseconds(), 1) }
	if err := st.Send(&logicv1.SendStreamResponse{ClockUs: clock()}); err != nil {
		return err
	}
	for {
		req, err := st.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		r.mu.Lock()
		transit := r.transit
		r.mu.Unlock()
		if transit != nil {
			transit()
		}
		if end := req.GetNotAfterUs(); end == 0 || clock() > end {
			return status.Error(codes.Aborted, "too late")
		}
		r.mu.Lock()
		r.batches = append(r.batches, len(req.GetSends()))
		gate, stalled := r.gate, r.stalled
		r.mu.Unlock()
		if stalled != nil {
			select {
			case <-stalled:
			case <-st.Context().Done():
				return st.Context().Err()
			}
		}
		resp := &logicv1.SendStreamResponse{ClockUs: clock()}
		for _, s := range req.GetSends() {
			if gate != nil {
				gate(s.GetSend())
			}
			resp.Results = append(resp.Results, &logicv1.StreamResult{Ref: s.GetRef(), Result: r.store(s.GetSend())})
		}
		if err := st.Send(resp); err != nil {
			return err
		}
	}
}

func (r *replica) Backlog(req *logicv1.BacklogRequest, st grpc.ServerStreamingServer[logicv1.BacklogResponse]) error {
	f := r.fakeStore
	f.mu.Lock()
	if wait := f.registering; wait != nil && req.GetRegister() {
		f.mu.Unlock()
		wait() // a script that Redis was sent is executed, whoever leaves
		f.mu.Lock()
	}
	f.backlogs++
	c := req.GetConn()
	first := &logicv1.BacklogResponse{}
	if !f.redisAway {
		if req.GetRegister() {
			if f.routes[c.GetUserId()] == nil {
				f.routes[c.GetUserId()] = map[int64]*logicv1.Conn{}
			}
			f.routes[c.GetUserId()][c.GetConnId()] = c
		}
		first.Pv, first.Epoch = f.pv[c.GetUserId()], f.epoch
	}
	positions := map[int64]int64{}
	for _, p := range req.GetPositions() {
		positions[p.GetConversationId()] = p.GetSeq()
	}
	var runs []*logicv1.BacklogConversation
	for _, id := range slices.Sorted(maps.Keys(f.byID)) {
		conv := f.byID[id]
		if !slices.Contains(conv.members, c.GetUserId()) {
			continue
		}
		from := max(f.delivered[fakeCursor{c.GetUserId(), id, c.GetPlatform()}], positions[id])
		if f.generous && !req.GetRegister() {
			from = 0
		}
		if from >= int64(len(conv.msgs)) {
			continue
		}
		run := &logicv1.BacklogConversation{ConversationId: id, Position: int64(len(conv.msgs))}
		for _, m := range conv.msgs[from:] {
			if m.GetKind() == 1 && m.GetSenderId() == c.GetUserId() && c.GetPlatform() == 1 {
				continue
			}
			run.Messages = append(run.Messages, m)
		}
		runs = append(runs, run)
	}
	paged := f.paged
	f.mu.Unlock()
	if paged != nil {
		paged()
	}
	if err := st.Send(first); err != nil {
		return err
	}
	for _, run := range runs {
		for part := range slices.Chunk(run.GetMessages(), 20) {
			if err := st.Send(&logicv1.BacklogResponse{Conversations: []*logicv1.BacklogConversation{{
				ConversationId: run.GetConversationId(), Messages: part, Position: part[len(part)-1].GetSeq(),
			}}}); err != nil {
				return err
			}
		}
		run.Messages = nil
		if err := st.Send(&logicv1.BacklogResponse{Conversations: []*logicv1.BacklogConversation{run}}); err != nil {
			return err
		}
	}
	return st.Send(&logicv1.BacklogResponse{Done: true})
}

func (r *replica) Disconnect(_ context.Context, req *logicv1.DisconnectRequest) (*logicv1.DisconnectResponse, error) {
	f := r.fakeStore
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gone = append(f.gone, req.GetConns()...)
	for _, c := range req.GetConns() {
		delete(f.routes[c.GetUserId()], c.GetConnId())
	}
	return &logicv1.DisconnectResponse{}, nil
}

func (r *replica) Acknowledge(ctx context.Context, req *logicv1.AcknowledgeRequest) (*logicv1.AcknowledgeResponse, error) {
	f := r.fakeStore
	f.mu.Lock()
	defer f.mu.Unlock()
	if wait := f.acknowledging; wait != nil {
		f.mu.Unlock()
		err := wait(ctx)
		f.mu.Lock()
		if err != nil {
			return nil, err
		}
	}
	for _, a := range req.GetAcks() {
		conv, seq := a.GetConversationId(), a.GetSeq()
		for id, c := range f.byID {
			for _, m := range c.msgs {
				if conv == 0 && m.GetId() == a.GetMessageId() {
					conv, seq = id, m.GetSeq()
				}
			}
		}
		key := fakeCursor{a.GetUserId(), conv, a.GetPlatform()}
		f.delivered[key] = max(f.delivered[key], seq)
	}
	return &logicv1.AcknowledgeResponse{}, nil
}

func (f *fakeStore) marks(conns []*logicv1.Conn) (string, []*logicv1.Watermark) {
	marks := make([]*logicv1.Watermark, 0, len(conns))
	for _, c := range conns {
		w := &logicv1.Watermark{Pv: f.pv[c.GetUserId()], Routed: f.routes[c.GetUserId()][c.GetConnId()] != nil}
		if !w.GetRouted() {
			for _, o := range f.routes[c.GetUserId()] {
				w.Displaced = w.GetDisplaced() || o.GetPlatform() == c.GetPlatform()
			}
		}
		marks = append(marks, w)
	}
	return f.epoch, marks
}

func (r *replica) Watermark(_ context.Context, req *logicv1.WatermarkRequest) (*logicv1.WatermarkResponse, error) {
	r.fakeStore.mu.Lock()
	defer r.fakeStore.mu.Unlock()
	if r.redisAway {
		return nil, status.Error(codes.Unavailable, "redis")
	}
	epoch, marks := r.marks(req.GetConns())
	return &logicv1.WatermarkResponse{Epoch: epoch, Marks: marks}, nil
}

func (r *replica) Assert(_ context.Context, req *logicv1.AssertRequest) (*logicv1.AssertResponse, error) {
	f := r.fakeStore
	f.mu.Lock()
	asserting := f.asserting
	f.mu.Unlock()
	var fault error
	if asserting != nil {
		fault = asserting()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range req.GetConns() {
		f.asserted++
		displaced := false
		for _, o := range f.routes[c.GetUserId()] {
			displaced = displaced || o.GetPlatform() == c.GetPlatform() && o.GetConnId() != c.GetConnId()
		}
		if !displaced {
			if f.routes[c.GetUserId()] == nil {
				f.routes[c.GetUserId()] = map[int64]*logicv1.Conn{}
			}
			f.routes[c.GetUserId()][c.GetConnId()] = c
		}
	}
	epoch, marks := f.marks(req.GetConns())
	return &logicv1.AssertResponse{Epoch: epoch, Marks: marks}, fault
}

func (r *replica) Presence(_ context.Context, req *logicv1.PresenceRequest) (*logicv1.PresenceResponse, error) {
	f := r.fakeStore
	f.mu.Lock()
	defer f.mu.Unlock()
	resp := &logicv1.PresenceResponse{}
	for _, u := range req.GetUserIds() {
		resp.Users = append(resp.Users, &logicv1.UserPresence{UserId: u, Online: f.online[u] && req.GetViewerId() != 0, Version: 1})
	}
	return resp, nil
}

// fakeAuth issues and judges tokens.
type fakeAuth struct {
	authv1.AuthServiceClient
	signer *token.Signer
	kid    string
	pub    ed25519.PublicKey
	priv   ed25519.PrivateKey

	mu          sync.Mutex
	tickets     map[string]*authv1.Identity
	lookups     atomic.Int32 // of tickets
	revocations []*authv1.Revocation
	away        bool
}

const testKid = "k1"

func newFakeAuth(t testing.TB) *fakeAuth {
	pub, priv, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	signer := token.NewSigner(testKid, priv, token.DefaultIssuer, token.DefaultAudience)
	return &fakeAuth{signer: signer, kid: testKid, pub: pub, priv: priv, tickets: map[string]*authv1.Identity{}}
}

func (a *fakeAuth) claims(user int64) token.Claims {
	now := time.Now()
	return token.Claims{
		UserID: im.UserID(user), Name: "user" + strconv.FormatInt(user, 10), Email: "u@example.com", Avatar: "/avatars/" + strconv.FormatInt(user, 10) + ".png",
		SessionID: "s" + strconv.FormatInt(user, 10), IssuedAt: now, ExpiresAt: now.Add(time.Hour),
	}
}

func (a *fakeAuth) token(t testing.TB, user int64) string {
	raw, err := a.signer.Sign(a.claims(user))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func (a *fakeAuth) Keys(context.Context, *authv1.KeysRequest, ...grpc.CallOption) (*authv1.KeysResponse, error) {
	return &authv1.KeysResponse{Keys: []*authv1.PublicKey{{Kid: a.kid, Key: a.pub}}}, nil
}

func (a *fakeAuth) Revocations(_ context.Context, req *authv1.RevocationsRequest, _ ...grpc.CallOption) (*authv1.RevocationsResponse, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.away {
		return nil, im.E(im.KindUnavailable, "service_unavailable", nil)
	}
	r := &authv1.RevocationsResponse{}
	for _, v := range a.revocations {
		if v.GetId() > req.GetAfter() {
			r.Revocations = append(r.Revocations, v)
		}
	}
	return r, nil
}

func (a *fakeAuth) revoke(v *authv1.Revocation) {
	a.mu.Lock()
	defer a.mu.Unlock()
	v.Id = int64(len(a.revocations) + 1)
	a.revocations = append(a.revocations, v)
}

func (a *fakeAuth) RedeemTicket(_ context.Context, req *authv1.RedeemTicketRequest, _ ...grpc.CallOption) (*authv1.RedeemTicketResponse, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lookups.Add(1)
	id := a.tickets[req.GetTicket()]
	if id == nil {
		return nil, im.E(im.KindUnauthorized, "ticket_invalid", nil)
	}
	delete(a.tickets, req.GetTicket())
	return &authv1.RedeemTicketResponse{Identity: id}, nil
}

func (a *fakeAuth) GetUsers(_ context.Context, req *authv1.GetUsersRequest, _ ...grpc.CallOption) (*authv1.GetUsersResponse, error) {
	r := &authv1.GetUsersResponse{}
	for _, id := range req.GetIds() {
		if id < 1000 {
			r.Users = append(r.Users, &authv1.User{Id: id})
		}
	}
	return r, nil
}

// fakeFriend takes requests and answers.
type fakeFriend struct {
	friendv1.FriendServiceClient
	mu       sync.Mutex
	requests []*friendv1.RequestFriendRequest
	answers  []*friendv1.AnswerRequestRequest
}

func (f *fakeFriend) RequestFriend(_ context.Context, req *friendv1.RequestFriendRequest, _ ...grpc.CallOption) (*friendv1.RequestFriendResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests = append(f.requests, req)
	return &friendv1.RequestFriendResponse{Request: &friendv1.FriendRequest{Id: 46}}, nil
}

func (f *fakeFriend) AnswerRequest(_ context.Context, req *friendv1.AnswerRequestRequest, _ ...grpc.CallOption) (*friendv1.AnswerRequestResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if req.GetRequestId() == 404 {
		return nil, im.E(im.KindNotFound, "friend_request_not_answerable", nil)
	}
	f.answers = append(f.answers, req)
	return &friendv1.AnswerRequestResponse{}, nil
}
