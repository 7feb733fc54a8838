package logic

import (
	"context"
	"errors"
	"time"

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
	case database.IsUnavailable(err), database.IsRetryable(err), database.IsFull(err), errors.Is(err, context.Canceled):
		return unavailable(err)
	default:
		return im.E(im.KindInternal, "store_failed", err)
	}
}

// unavailable is what callers get while the database cannot be used: they may try
// again later.
func unavailable(err error) *im.Error {
	return &im.Error{Kind: im.KindUnavailable, Reason: "store_unavailable", RetryAfter: time.Second, Err: err}
}
