package logic

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/jmoiron/sqlx"

	"im-services/internal/im"
	"im-services/internal/platform/database"
	"im-services/internal/seeded"
)

// Cache sizes, in entries.
const (
	pairCacheSize   = 200_000
	memberCacheSize = 4_096
	foreseenSize    = 65_536
)

// store is logic's database.
type store struct {
	db         *sqlx.DB
	batches    *database.Batches // of the lanes
	log        *slog.Logger
	metrics    *metrics
	cfg        Config
	messageIDs *allocator
	objectIDs  *allocator
	txSlots    chan struct{} // one for each transaction
	// pairs maps two users to their private conversation. A pair never changes
	// its conversation, so entries cannot go stale.
	pairs       *lru.Cache[convKey, im.ConversationID]
	memberCache *lru.Cache[im.ConversationID, *memberList]
	foreseen    *lru.Cache[im.ConversationID, conversationRow] // see foresee
	life        atomic.Pointer[life]                           // see life.go
	clock       clock
}

func newStore(ctx context.Context, db *sqlx.DB, batches *database.Batches, cfg Config, log *slog.Logger, m *metrics) (*store, error) {
	pairs, err := lru.New[convKey, im.ConversationID](pairCacheSize)
	if err != nil {
		return nil, err
	}
	members, err := lru.New[im.ConversationID, *memberList](memberCacheSize)
	if err != nil {
		return nil, err
	}
	foreseen, err := lru.New[im.ConversationID, conversationRow](foreseenSize)
	if err != nil {
		return nil, err
	}
	s := &store{
		db: db, batches: batches, log: log, metrics: m, cfg: cfg,
		messageIDs:  &allocator{db: db, name: "message"},
		objectIDs:   &allocator{db: db, name: "object"},
		txSlots:     newTxSlots(db),
		pairs:       pairs,
		memberCache: members,
		foreseen:    foreseen,
	}
	if seeded.On(seeded.NoUniqueKey) {
		dropUniqueKey(ctx, db)
	}
	_, err = s.look(ctx)
	return s, err
}

// resolve finds the conversation of every send, 0 where there is none. The
// bot's conversations are made when they are first needed.
func (s *store) resolve(ctx context.Context, batch []*sendReq) ([]im.ConversationID, error) {
	ids := make([]im.ConversationID, len(batch))
	var missing []int
	for i, r := range batch {
		if r.key.group() {
			ids[i] = im.ConversationID(r.key.hi)
		} else if id, ok := s.pairs.Get(r.key); ok {
			ids[i] = id
		} else {
			missing = append(missing, i)
		}
	}
	if len(missing) == 0 {
		return ids, nil
	}
	keys := make([]convKey, 0, len(missing))
	for _, i := range missing {
		keys = append(keys, batch[i].key)
	}
	found, err := s.findPairs(ctx, keys)
	if err != nil {
		return nil, err
	}
	for _, i := range missing {
		key := batch[i].key
		id := found[key]
		if id == 0 && key.lo == im.BotID {
			if id, err = s.openBot(ctx, key); err != nil {
				return nil, err
			}
		}
		ids[i] = id
	}
	return ids, nil
}

// findPairs looks up private conversations by their users; missing ones are absent.
func (s *store) findPairs(ctx context.Context, keys []convKey) (map[convKey]im.ConversationID, error) {
	query := `SELECT id, user_lo, user_hi FROM conversations WHERE ` +
		strings.TrimSuffix(strings.Repeat(`(user_lo = ? AND user_hi = ?) OR `, len(keys)), ` OR `)
	args := make([]any, 0, 2*len(keys))
	for _, k := range keys {
		args = append(args, int64(k.lo), k.hi)
	}
	rows, err := s.db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("find private conversations: %w", err)
	}
	defer rows.Close()
	found := make(map[convKey]im.ConversationID, len(keys))
	for rows.Next() {
		var (
			id im.ConversationID
			k  convKey
		)
		if err := rows.Scan(&id, &k.lo, &k.hi); err != nil {
			return nil, err
		}
		found[k] = id
		s.pairs.Add(k, id)
	}
	return found, rows.Err()
}

// ensurePair returns the id of two users' private conversation, made closed if
// there is none. It is idempotent under races.
func (s *store) ensurePair(ctx context.Context, tx *sqlx.Tx, key convKey, open bool) (im.ConversationID, error) {
	var id im.ConversationID
	err := tx.GetContext(ctx, &id, `SELECT id FROM conversations WHERE user_lo = ? AND user_hi = ?`, int64(key.lo), key.hi)
	if err == nil || !errors.Is(err, sql.ErrNoRows) {
		return id, err
	}
	first, err := s.objectIDs.take(ctx, 3, 0)
	if err != nil {
		return 0, err
	}
	id = im.ConversationID(first)
	now := s.nowMS()
	// What they were refused as strangers is noted under no conversation, see refusals.go.
	// Such a note may be about to be committed, so it is looked for at first in any case.
	looked := now - (refusalLasts - refusalRace).Milliseconds()
	if _, err := tx.ExecContext(ctx, `INSERT INTO conversations (id, kind, open, user_lo, user_hi, created_at_ms, last_at_ms, refused_at_ms)
		VALUES (?,?,?,?,?,?,?,(SELECT COALESCE(MAX(at_ms), ?) FROM refusals WHERE conversation_id = 0 AND sender_id IN (?,?) AND at_ms > ?))`,
		first, int64(im.Private), open, int64(key.lo), key.hi, now, now, looked, int64(key.lo), key.hi, looked); err != nil {
		return 0, err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO members (conversation_id, user_id, id, role, first_seq, joined_at_ms) VALUES (?,?,?,?,1,?),(?,?,?,?,1,?)`,
		first, int64(key.lo), first+1, roleMember, now, first, key.hi, first+2, roleMember, now)
	return id, err
}

// openBot returns the conversation of a user with the bot, made open if there is none.
func (s *store) openBot(ctx context.Context, key convKey) (im.ConversationID, error) {
	var id im.ConversationID
	err := s.inTx(ctx, func(tx *sqlx.Tx) error {
		var err error
		id, err = s.ensurePair(ctx, tx, key, true)
		return err
	})
	return id, err
}
