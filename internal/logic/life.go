package logic

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"

	"im-services/internal/platform/database"
)

// A life of the sequence space lasts as long as one database server holds it. A
// server that takes over may lack what the one before has acknowledged: with a
// replica that answers every COMMIT it does not, but that is not for logic to
// know. So the seqs it gives belong to another life, whose name, the epoch, is
// what clients compare: who comes with another reads everything anew.
//
// Beside the epoch stands the id of the server for which it was made, @@server_id,
// which no two servers of a replication have in common. Who finds another server
// begins a new life in one transaction, and every replica of logic learns of it:
//
//   - before it writes: no message is stored but on the server of the life that its
//     writer knows (moveConversations);
//   - before it answers a sync (Sync);
//   - within lifeLook, if nothing of that happens.
type life struct {
	Epoch  string `db:"epoch"`
	Server int64  `db:"server"`
}

// lifeLook is how often a replica looks whether a new life has begun.
const lifeLook = time.Second

// look returns the life of now, and begins it if another server answers than the
// one it is noted for. What was remembered of another life is forgotten.
func (s *store) look(ctx context.Context) (*life, error) {
	var row struct {
		Server int64          `db:"server"`
		Time   time.Time      `db:"time"`
		Epoch  sql.NullString `db:"epoch"`
		Noted  sql.NullInt64  `db:"noted"`
	}
	asked := time.Now()
	if err := s.db.GetContext(ctx, &row, `SELECT @@server_id AS server, UTC_TIMESTAMP(3) AS time,
		(SELECT value FROM meta WHERE name = 'epoch') AS epoch, (SELECT value FROM meta WHERE name = 'server') AS noted`); err != nil {
		return nil, fmt.Errorf("read epoch: %w", err)
	}
	s.clock.set(row.Time, asked)
	now := &life{Epoch: row.Epoch.String, Server: row.Server}
	if !row.Epoch.Valid || row.Noted.Int64 != row.Server {
		var err error
		if now, err = s.beginLife(ctx); err != nil {
			return nil, fmt.Errorf("begin epoch: %w", err)
		}
	}
	if was := s.life.Swap(now); was != nil && *was != *now {
		s.log.WarnContext(ctx, "the database is served by another server: a new epoch", "server", now.Server, "was", was.Server)
		s.forgetAll()
	}
	return now, nil
}

// beginLife writes a new epoch and the server it is for. Of the replicas that find
// a new server at once the first does so, the others take over what it wrote.
func (s *store) beginLife(ctx context.Context) (*life, error) {
	// A database without the rows is new, or from before there was a server in it. Where
	// they are, this locks them in the order of the transaction below.
	if _, err := s.db.ExecContext(ctx, `INSERT IGNORE INTO meta (name, value) VALUES ('server', @@server_id), ('epoch', ?)`, rand.Text()); err != nil {
		return nil, err
	}
	var now life
	err := database.InTx(ctx, s.db, func(tx *sqlx.Tx) error {
		var noted int64
		if err := tx.GetContext(ctx, &noted, `SELECT value FROM meta WHERE name = 'server' FOR UPDATE`); err != nil {
			return err
		}
		if err := tx.GetContext(ctx, &now, `SELECT @@server_id AS server, value AS epoch FROM meta WHERE name = 'epoch'`); err != nil {
			return err
		}
		if noted == now.Server {
			return nil
		}
		now.Epoch = rand.Text()
		if _, err := tx.ExecContext(ctx, `UPDATE meta SET value = ? WHERE name = 'epoch'`, now.Epoch); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `UPDATE meta SET value = ? WHERE name = 'server'`, now.Server)
		return err
	})
	return &now, err
}

// forgetAll drops everything that is remembered of the database, and the ids taken
// from it.
func (s *store) forgetAll() {
	s.foreseen.Purge()
	s.memberCache.Purge()
	s.pairs.Purge()
	s.messageIDs.drop()
	s.objectIDs.drop()
}

// watchLife looks for a new life until ctx ends.
func (s *store) watchLife(ctx context.Context) {
	failing := false
	every(ctx, lifeLook, func() {
		_, err := s.look(ctx)
		if err != nil && !failing && ctx.Err() == nil {
			s.log.WarnContext(ctx, "nobody says which server serves the database", "err", err)
		}
		failing = err != nil
	})
}
