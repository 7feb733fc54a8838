package gateway

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/prometheus/client_golang/prometheus"

	authv1 "im-services/api/proto/auth/v1"
	friendv1 "im-services/api/proto/friend/v1"
	logicv1 "im-services/api/proto/logic/v1"
	"im-services/internal/im"
	"im-services/internal/push"
	"im-services/internal/seeded"
	"im-services/internal/token"
	"im-services/internal/wire"
)

// Deps is what a Server works with. All are required but Log, Registry,
// PublicURL and BusConnected.
type Deps struct {
	// ID is this incarnation: random at every start of the process.
	ID            im.GatewayID
	Auth          authv1.AuthServiceClient
	Friends       friendv1.FriendServiceClient
	Connections   logicv1.ConnectionServiceClient
	Conversations logicv1.ConversationServiceClient
	// DialLogic opens a connection to one replica of logic, without waiting.
	DialLogic func(addr string) (ClientConn, error)
	Codec     *push.Codec
	// Describe returns the frame code and the text for people of an error's reason.
	Describe func(reason string) (code int, text string)
	// PublicURL is where clients reach the deployment, without a trailing slash:
	// it makes the pictures of those who write absolute.
	PublicURL string
	// BusConnected reports whether pushes can come in; while they cannot, logic
	// is asked more often.
	BusConnected func() bool
	Log          *slog.Logger
	Registry     prometheus.Registerer
	Config       Config
}

// Server holds the connections of one gateway process. Its methods may be
// called concurrently.
type Server struct {
	id       im.GatewayID
	idPrefix string
	cfg      Config
	deps     Deps
	log      *slog.Logger
	m        *metrics
	zone     *time.Location
	start    time.Time
	origins  origins
	upgrader websocket.Upgrader

	hub      *hub
	lanes    *lanes
	marks    *marks
	reports  *reports
	proofs   *proofs
	writers  *writers
	identity *identity
	presence presenceVersions
	recalled *lru.Cache[im.MessageID, struct{}] // lately, see handleRecall
	rates    connectRates

	httpWindows httpWindows

	connIDs  atomic.Int64
	awake    atomic.Int64 // when the process last ran, since start
	slept    atomic.Int64 // when it was last found to have slept, since start; 0: never
	stalled  sync.Mutex   // held while connections are fenced
	draining atomic.Bool
	syncs    chan struct{} // one slot per backlog that is read and not waiting for its client
	streams  chan struct{} // one slot per backlog, for all its life
	asks     chan struct{}

	gate   sync.RWMutex // held for reading while a connection is taken in
	closed bool         // guarded by gate

	ctx    context.Context //nolint:containedctx // the life of everything the server runs
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// maxAsks bounds the frames that wait for a service beside the sends.
const maxAsks = 256

// New makes a Server and starts its background work; Close ends it. Nothing is
// accepted before the first request comes to ServeHTTP.
func New(deps Deps) (*Server, error) {
	if err := deps.Config.Validate(); err != nil {
		return nil, err
	}
	cfg := deps.Config.withDefaults()
	switch {
	case deps.ID == "":
		return nil, errors.New("gateway: no incarnation id")
	case deps.Auth == nil, deps.Friends == nil, deps.Connections == nil, deps.Conversations == nil,
		deps.DialLogic == nil, deps.Codec == nil, deps.Describe == nil:
		return nil, errors.New("gateway: a dependency is missing")
	}
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	zone, err := time.LoadLocation(cfg.TimeZone)
	if err != nil {
		return nil, err
	}
	recalled, err := lru.New[im.MessageID, struct{}](maxRecalled)
	if err != nil {
		return nil, err
	}
	s := &Server{
		id: deps.ID, idPrefix: string(deps.ID) + "/", cfg: cfg, deps: deps, log: deps.Log, zone: zone,
		start: time.Now(), origins: newOrigins(cfg.AllowedOrigins), hub: newHub(),
		recalled: recalled, syncs: make(chan struct{}, cfg.SyncConcurrency), streams: make(chan struct{}, cfg.SyncStreams),
		asks: make(chan struct{}, maxAsks),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.lanes = newLanes(s)
	s.proofs = newProofs(s, cfg.ProofInterval)
	s.writers = newWriters()
	for range cap(s.writers.wake) {
		s.wg.Go(func() { s.writers.run(s.ctx) })
	}
	s.marks = &marks{s: s}
	s.reports = &reports{s: s}
	s.m = newMetrics(deps.Registry, s)
	s.identity = newIdentity(&cfg, deps.Auth, deps.Log, s.revoke)
	s.upgrader = s.newUpgrader()

	for _, loop := range []func(context.Context){
		s.heartbeat,
		s.stayAwake,
		s.tidy,
		s.marks.run,
		s.lanes.expire,
		func(ctx context.Context) { s.reports.loop(ctx, cfg.ReportInterval, s.reports.flushReceipts) },
		func(ctx context.Context) { s.reports.loop(ctx, goneInterval, s.reports.flushGone) },
		func(ctx context.Context) { s.identity.runKeys(ctx, cfg.KeysInterval) },
		func(ctx context.Context) { s.identity.runRevocations(ctx, cfg.RevocationInterval) },
	} {
		s.wg.Go(func() { loop(s.ctx) })
	}
	return s, nil
}

// now is the time since the server started; it never jumps.
func (s *Server) now() time.Duration { return time.Since(s.start) }

// Ready reports whether tokens can be judged: auth's keys and revocations were
// fetched once.
func (s *Server) Ready() bool { return s.identity.ready() }

// Verify judges an access token, for the HTTP API: signature, life and
// revocation. It asks nobody unless the token names a key newer than those known.
func (s *Server) Verify(raw string) (token.Claims, error) { return s.identity.verify(s.ctx, raw) }

// SetLogic tells which replicas of logic there are. An empty list keeps no
// lane: callers hand on the last good list while discovery is in trouble.
func (s *Server) SetLogic(replicas []Replica) { s.lanes.set(replicas) }

// BusReconnected is called when the bus is there again after a loss: what was
// published meanwhile is gone, so everybody is compared with logic at once.
func (s *Server) BusReconnected() { s.marks.soon(true) }

// Connections is the number of open connections.
func (s *Server) Connections() int { return int(s.hub.count.Load()) }

// Close ends everything at once and waits for it; see Drain for the gentle way.
func (s *Server) Close() {
	s.draining.Store(true)
	s.gate.Lock()
	s.closed = true
	s.gate.Unlock()
	for _, c := range s.hub.all() {
		c.kill()
	}
	s.cancel()
	s.wg.Wait()
}

// forget takes a closed connection out; called once, by its reader.
func (s *Server) forget(c *conn) {
	s.reports.disconnect(c) // before it is gone: a drain waits for the last to be gone
	s.hub.remove(c)
}

// origin names a connection in the whole system.
func (s *Server) origin(id im.ConnID) string { return s.idPrefix + im.UserID(id).String() }

// revoke closes the connections that a revocation hits.
func (s *Server) revoke(v *authv1.Revocation) {
	if seeded.On(seeded.SocketsOutliveLogin) {
		return
	}
	var hit []*conn
	s.hub.each(im.UserID(v.GetUserId()), func(c *conn) {
		if v.GetSessionId() != "" && c.who.session == v.GetSessionId() ||
			v.GetSessionId() == "" && c.who.issuedAt < v.GetNotBefore() {
			hit = append(hit, c)
		}
	})
	for _, c := range hit {
		c.closeWith(wire.CloseReplaced, nil)
	}
}

// description of an error's reason for a client.
type description struct {
	Code wire.Code
	Text string
}

func (s *Server) describe(reason string) description {
	code, text := s.deps.Describe(reason)
	d := description{wire.Code(code), text}
	if d.Code != wire.CodeNotAllowed {
		d.Code = wire.CodeError
	}
	return d
}

func asError(err error) (*im.Error, bool) { return errors.AsType[*im.Error](err) }
