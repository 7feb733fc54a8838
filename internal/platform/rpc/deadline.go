package rpc

import (
	"context"
	"errors"
	"time"

	"im-services/internal/im"
)

const (
	// minRemaining: with less than this left, the caller is gone before we are done.
	minRemaining = 5 * time.Millisecond
	// shave is what the server keeps of a deadline, at most a tenth, to report
	// its own timeout instead of letting the caller guess.
	shave = 20 * time.Millisecond
	// defaultServerDeadline is for callers that set none.
	defaultServerDeadline = 10 * time.Second
)

var errTooLate = errors.New("rpc: the deadline has all but passed")

// guardDeadline gives a handler its deadline, or refuses the work.
func guardDeadline(ctx context.Context) (context.Context, context.CancelFunc, error) {
	deadline, ok := ctx.Deadline()
	if !ok {
		ctx, cancel := context.WithTimeout(ctx, defaultServerDeadline)
		return ctx, cancel, nil
	}
	left := time.Until(deadline)
	if left < minRemaining {
		return nil, nil, im.E(im.KindUnavailable, reasonUnavailable, errTooLate)
	}
	ctx, cancel := context.WithDeadline(ctx, deadline.Add(-min(shave, left/10)))
	return ctx, cancel, nil
}
