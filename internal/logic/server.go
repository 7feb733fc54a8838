package logic

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	logicv1 "im-services/api/proto/logic/v1"
	"im-services/internal/im"
	"im-services/internal/platform/database"
	"im-services/internal/push"
	"im-services/internal/seeded"
)

// Topics lists and removes bus topics, so that those of dead gateways go.
type Topics interface {
	List(ctx context.Context) ([]string, error)
	Delete(ctx context.Context, topic string) error
}

// Deps is what a Server is made of. Everything is required but Topics.
type Deps struct {
	DB       *sqlx.DB
	Batches  *database.Batches // of the same database, a session for each lane
	Redis    *redis.Client
	Bus      Publisher
	Topics   Topics
	Gateways Gateways
	Codec    *push.Codec
	Log      *slog.Logger
	Registry prometheus.Registerer
	Config   Config
}

// Server implements logic's gRPC services. It is safe for concurrent use.
type Server struct {
	logicv1.UnimplementedMessageServiceServer
	logicv1.UnimplementedConnectionServiceServer
	logicv1.UnimplementedConversationServiceServer
	logicv1.UnimplementedGroupServiceServer

	cfg            Config
	log            *slog.Logger
	store          *store
	routes         *routes
	outbox         *outbox
	pub            *publisher
	batcher        *batcher
	presence       *presence
	tries          *tries
	groupPasswords *groupPasswords
	groupTurns     groupTurns
	gateways       Gateways
	topics         Topics

	streams  sync.WaitGroup
	draining chan struct{} // closed by Drain
	drain    sync.Once
}

var (
	_ logicv1.MessageServiceServer      = (*Server)(nil)
	_ logicv1.ConnectionServiceServer   = (*Server)(nil)
	_ logicv1.ConversationServiceServer = (*Server)(nil)
	_ logicv1.GroupServiceServer        = (*Server)(nil)
)

// New makes a Server and starts its lanes and publishers; Run starts the rest.
func New(ctx context.Context, d Deps) (*Server, error) {
	cfg := d.Config.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	m := newMetrics(d.Registry)
	st, err := newStore(ctx, d.DB, d.Batches, cfg, d.Log, m)
	if err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, log: d.Log, store: st, routes: newRoutes(d.Redis), gateways: d.Gateways, topics: d.Topics, draining: make(chan struct{})}
	if seeded.On(seeded.SeqFromRedis) {
		seededRedis = s.routes
	}
	s.outbox = &outbox{store: st, log: d.Log, m: m}
	s.pub = newPublisher(d.Bus, d.Codec, s.routes, d.Gateways, s.outbox, cfg.Lanes, m, d.Log)
	s.batcher = newBatcher(cfg, st, m, s.pub.enqueue)
	s.tries = &tries{rdb: d.Redis, log: d.Log}
	s.groupPasswords = newGroupPasswords(s.tries)
	s.groupTurns = newGroupTurns()
	s.presence = newPresence(s.routes, st, s.pub, d.Gateways, cfg.PresenceDebounce, d.Log)
	return s, nil
}

// Run sweeps the outbox, presence and dead gateways' topics, tells latecomers and
// watches the servers of the database and of Redis until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { s.outbox.run(ctx, s.pub.flush) })
	wg.Go(func() { s.presence.run(ctx) })
	wg.Go(func() { s.pub.blind.run(ctx, s.routes) })
	wg.Go(func() { s.routes.watchRun(ctx) })
	wg.Go(func() { s.pub.runLate(ctx) })
	wg.Go(func() { s.sweepTopics(ctx) })
	wg.Go(func() { s.store.watchLife(ctx) })
	wg.Go(func() { s.store.sweepRefusals(ctx) })
	wg.Wait()
	return nil
}

// every runs f once per interval until ctx ends; a run that takes longer delays the next.
func every(ctx context.Context, interval time.Duration, f func()) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		f()
	}
}

// Drain ends the send streams, once what they took in is answered, and refuses
// new ones. Call it after leaving discovery and before the gRPC server stops.
func (s *Server) Drain() { s.drain.Do(func() { close(s.draining) }) }

// Close settles what is queued and publishes what is committed. Call it after
// the gRPC server stopped and before Run's ctx ends.
func (s *Server) Close() {
	s.Drain()
	s.streams.Wait()
	s.batcher.close()
	s.pub.close()
}

// sweepTopics removes the bus topics of gateways that are gone: a late publish
// re-creates one, and nobody would ever read or delete it.
func (s *Server) sweepTopics(ctx context.Context) {
	if s.topics == nil {
		return
	}
	suspects := map[string]bool{} // seen dead in the previous round
	every(ctx, topicSweep, func() {
		var err error
		if suspects, err = s.sweepTopicsOnce(ctx, suspects); err != nil && ctx.Err() == nil {
			s.log.WarnContext(ctx, "topics of dead gateways not swept", "err", err)
		}
	})
}

// sweepTopicsOnce deletes topics whose gateway was dead in the last round and
// still is, and returns those found dead now.
func (s *Server) sweepTopicsOnce(ctx context.Context, suspects map[string]bool) (map[string]bool, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	topics, err := s.topics.List(ctx)
	if err != nil {
		return suspects, fmt.Errorf("list topics: %w", err)
	}
	if len(s.gateways.Live()) == 0 { // discovery knows nothing yet: touch nothing
		return suspects, nil
	}
	dead := map[string]bool{}
	var errs []error
	for _, topic := range topics {
		g, ours := push.GatewayOf(topic)
		switch {
		case !ours || s.gateways.IsLive(g):
		case suspects[topic]:
			errs = append(errs, s.topics.Delete(ctx, topic))
		default:
			dead[topic] = true
		}
	}
	return dead, errors.Join(errs...)
}

// lane returns which lane a group's messages go through, so that pushes made
// outside the batcher keep their conversation's order.
func (s *Server) lane(group im.ConversationID) int {
	return int(convKey{hi: int64(group)}.hash() % uint64(s.cfg.Lanes)) //nolint:gosec // below Lanes
}
