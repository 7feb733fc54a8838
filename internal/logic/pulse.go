package logic

import (
	"context"
	"log/slog"
	"time"

	"github.com/jmoiron/sqlx"
)

const (
	// pulseEvery is how often a replica asks its database for a sign of life.
	pulseEvery = 250 * time.Millisecond
	// pulseLimit is how long one answer may take.
	pulseLimit = 500 * time.Millisecond
	// pulseGrace is how long the database may be silent before the replica says
	// that it does not serve. It covers a fail-over of a connection, and is short
	// enough for a send that came first to be stored by a sibling in time.
	pulseGrace = time.Second
)

// Pulse tells serving whether the replica has its database, at each change, until
// ctx ends: with several replicas it may be only this one that has lost it, and
// callers must go to the others. It begins as one that has.
//
// db is to be a pool of Pulse's own: one that is merely full does not answer either.
func Pulse(ctx context.Context, db *sqlx.DB, log *slog.Logger, serving func(bool)) {
	tick := time.NewTicker(pulseEvery)
	defer tick.Stop()
	heard, has := time.Now(), true
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		op, cancel := context.WithTimeout(ctx, pulseLimit)
		err := db.PingContext(op)
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			heard = time.Now()
			if !has {
				log.InfoContext(ctx, "the database is back: serving again")
			}
		case time.Since(heard) < pulseGrace:
			continue
		case has:
			log.WarnContext(ctx, "the database is away: not serving", "err", err)
		}
		if has != (err == nil) {
			has = err == nil
			serving(has)
		}
	}
}
