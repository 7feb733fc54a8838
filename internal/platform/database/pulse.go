package database

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

// Pulse finds out whether this process has its database: of several replicas it
// may be one alone that has lost it, and callers must go to the others.
type Pulse struct {
	db  *sqlx.DB // a pool of its own: one that is merely full does not answer either
	log *slog.Logger
}

// NewPulse opens the one connection that a Pulse needs; Run closes it.
func NewPulse(ctx context.Context, cfg Config, log *slog.Logger) (*Pulse, error) {
	cfg.MaxOpen = 1
	db, err := Open(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return &Pulse{db: db, log: log}, nil
}

// Run tells serving whether the process has its database, at each change, until
// ctx ends. It begins as one that has.
func (p *Pulse) Run(ctx context.Context, serving func(bool)) error {
	defer p.db.Close() //nolint:errcheck // nothing is written
	tick := time.NewTicker(pulseEvery)
	defer tick.Stop()
	heard, has := time.Now(), true
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		op, cancel := context.WithTimeout(ctx, pulseLimit)
		err := p.db.PingContext(op)
		cancel()
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			heard = time.Now()
			if !has {
				p.log.InfoContext(ctx, "the database is back: serving again")
			}
		case time.Since(heard) < pulseGrace:
			continue
		case has:
			p.log.WarnContext(ctx, "the database is away: not serving", "err", err)
		}
		if has != (err == nil) {
			has = err == nil
			serving(has)
		}
	}
}
