package logic

import (
	"context"
	"log/slog"
	"time"

	"im-services/internal/im"
)

// presence tells friends who comes and goes.
type presence struct{}

func newPresence(*routes, *store, *publisher, Gateways, time.Duration, *slog.Logger) *presence {
	return &presence{}
}
func (*presence) connected(im.UserID)     {}
func (*presence) disconnected(im.UserID)  {}
func (*presence) run(ctx context.Context) { <-ctx.Done() }
