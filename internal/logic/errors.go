package logic

import (
	"context"
	"errors"
	"time"

	"github.com/jmoiron/sqlx"

	"im-services/internal/im"
	"im-services/internal/platform/database"
)

// failed turns a failure of the database into what callers act on. Errors that
// are ours already stay as they are.
func failed(err error) error {
	if err == nil {
		return nil
	}
	if _, ours := asError(err); ours {
		return err
	}
	switch {
	case database.IsCommitUnknown(err):
		return im.E(im.KindUnknown, "outcome_unknown", err)
	case database.IsUnavailable(err), database.IsRetryable(err), errors.Is(err, context.Canceled):
		return &im.Error{Kind: im.KindUnavailable, Reason: "store_unavailable", RetryAfter: time.Second, Err: err}
	default:
		return im.E(im.KindInternal, "store_failed", err)
	}
}

// duplicateTries bounds how often a transaction is run that loses races for
// unique keys; the second run finds the winner's row.
const duplicateTries = 4

// inTx runs f in a transaction, again if another transaction made the same row
// just now. f must not keep state from an earlier run. Errors are for callers.
func (s *store) inTx(ctx context.Context, f func(tx *sqlx.Tx) error) error {
	for attempt := 1; ; attempt++ {
		err := database.InTx(ctx, s.db, f)
		if !database.IsDuplicate(err) || attempt == duplicateTries {
			return failed(err)
		}
	}
}
