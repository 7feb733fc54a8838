package logic

import (
	"context"

	"github.com/jmoiron/sqlx"

	"im-services/internal/platform/database"
)

// duplicateTries bounds how often a transaction is run that loses races for
// unique keys; the second run finds the winner's row.
const duplicateTries = 4

// newTxSlots bounds the transactions on the pool. One holds a connection and may
// wait for the id allocator, which needs another one: if transactions could take
// the whole pool, all would wait for ever. Half of it is for reads and the allocator.
func newTxSlots(db *sqlx.DB) chan struct{} {
	open := db.Stats().MaxOpenConnections
	if open <= 0 {
		open = 128 // the pool has no bound
	}
	return make(chan struct{}, max(open/2, 1))
}

// inTx runs f in a transaction, again if another transaction made the same row
// just now, or if the database is served by another server than the known one (see
// life). f must not keep state from an earlier run. It waits its turn while
// ctx lasts. Errors are for callers.
func (s *store) inTx(ctx context.Context, f func(tx *sqlx.Tx) error) error {
	select {
	case s.txSlots <- struct{}{}:
		defer func() { <-s.txSlots }()
	case <-ctx.Done():
		return unavailable(ctx.Err())
	}
	for attempt := 1; ; attempt++ {
		err := database.InTx(ctx, s.db, f)
		elsewhere := database.IsNullRefused(err)
		if !database.IsDuplicate(err) && !elsewhere || attempt == duplicateTries {
			return failed(err)
		}
		if elsewhere {
			if _, err := s.look(ctx); err != nil {
				return failed(err)
			}
		}
	}
}
