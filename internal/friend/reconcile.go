package friend

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// reconcileBatch bounds the work of one look.
const reconcileBatch = 100

// Run finishes changes that logic has not confirmed and keeps ids in stock,
// until ctx ends. Every replica runs it; a change is worked on by one at a time.
func (s *Server) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { s.ids.run(ctx) })
	defer wg.Wait()
	for {
		pause := s.cfg.ReconcileInterval
		pause = pause/2 + rand.N(pause) //nolint:gosec // spreads the replicas' work; no secret
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		s.reconcile(ctx)
	}
}

// reconcile looks once. It gives up at the first failure of logic: the others
// would fail alike, and the next look is soon.
func (s *Server) reconcile(ctx context.Context) {
	rels, err := s.store.due(ctx, reconcileBatch)
	if err != nil {
		s.log.WarnContext(ctx, "cannot look for pending friend relations", "error", err)
		return
	}
	for _, rel := range rels {
		mine, err := s.store.claim(ctx, rel, s.cfg.ClaimFor)
		if err != nil {
			s.log.WarnContext(ctx, "cannot claim a pending friend relation", "error", err)
			return
		}
		if !mine {
			continue
		}
		if err := s.settle(ctx, rel); err != nil {
			s.log.WarnContext(ctx, "logic does not confirm a friend relation yet", "version", rel.version, "error", err)
			return
		}
		s.log.InfoContext(ctx, "finished a pending friend relation", "version", rel.version, "open", rel.open)
	}
}
