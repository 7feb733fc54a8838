package friend

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/jmoiron/sqlx"

	"im-services/internal/im"
	"im-services/internal/platform/database"
)

// The states of a friend request.
const (
	waiting  = 0
	accepted = 1
	refused  = 2
)

// relation is a row of friend_relations: where a pair of users stands.
type relation struct {
	lo, hi    im.UserID
	version   int64
	open      bool
	pending   bool
	requestID int64     // of the request that made the friendship
	requester im.UserID // who made it
}

func (r relation) other(user im.UserID) im.UserID {
	if user == r.lo {
		return r.hi
	}
	return r.lo
}

// request is a friend request.
type request struct {
	ID          int64     `db:"id"`
	Requester   im.UserID `db:"requester_id"`
	Recipient   im.UserID `db:"recipient_id"`
	Status      int       `db:"status"`
	Confirmed   bool      `db:"confirmed"`
	Information string    `db:"information"`
	CreatedAt   time.Time `db:"created_at"`
}

// friendship is one side of a friendship.
type friendship struct {
	ID        int64        `db:"id"`
	User      im.UserID    `db:"user_id"`
	Friend    im.UserID    `db:"friend_id"`
	Note      string       `db:"note"`
	Pinned    bool         `db:"pinned"`
	PinnedAt  sql.NullTime `db:"pinned_at"`
	CreatedAt time.Time    `db:"created_at"`
	UpdatedAt time.Time    `db:"updated_at"`
}

const (
	relationColumns   = "lo_user_id, hi_user_id, version, is_open, pending, request_id, requester_id"
	requestColumns    = "id, requester_id, recipient_id, status, confirmed, information, created_at"
	friendshipColumns = "id, user_id, friend_id, note, pinned, pinned_at, created_at, updated_at"
)

// store is the service's SQL. All times are the database's, so that limits and
// claims do not depend on the replicas' clocks. Methods with a tx belong in a
// transaction that holds the pair's lock.
type store struct{ db *sqlx.DB }

// inTx runs f in a transaction, again from the start if the database asks for it.
func (s store) inTx(ctx context.Context, f func(tx *sqlx.Tx) error) error {
	return storeError(database.InTx(ctx, s.db, f))
}

// storeError turns the database's errors into ours; ours pass as they are.
func storeError(err error) error {
	switch {
	case err == nil:
		return nil
	case isOurs(err):
		return err
	case database.IsCommitUnknown(err):
		return im.E(im.KindUnknown, "friend_outcome_unknown", err)
	case database.IsUnavailable(err), database.IsRetryable(err), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return im.E(im.KindUnavailable, "service_unavailable", err)
	default:
		return im.E(im.KindInternal, "internal", err)
	}
}

func isOurs(err error) bool {
	_, ok := errors.AsType[*im.Error](err)
	return ok
}

// pair orders two different users the way friend_relations does.
func pair(a, b im.UserID) (lo, hi im.UserID) {
	return min(a, b), max(a, b)
}

type scanner interface{ Scan(dest ...any) error }

func scanRelation(row scanner) (relation, error) {
	var r relation
	err := row.Scan(&r.lo, &r.hi, &r.version, &r.open, &r.pending, &r.requestID, &r.requester)
	return r, err
}

// lock takes the pair's lock for the rest of tx, making its row if need be.
func (s store) lock(ctx context.Context, tx *sqlx.Tx, a, b im.UserID) (relation, error) {
	lo, hi := pair(a, b)
	if _, err := tx.ExecContext(ctx,
		`INSERT INTO friend_relations (lo_user_id, hi_user_id) VALUES (?, ?)
		 ON DUPLICATE KEY UPDATE lo_user_id = lo_user_id`, lo, hi); err != nil {
		return relation{}, err
	}
	r, _, err := s.lockExisting(ctx, tx, a, b)
	return r, err
}

// lockExisting is lock for a pair that may never have met; found says if it has.
func (s store) lockExisting(ctx context.Context, tx *sqlx.Tx, a, b im.UserID) (r relation, found bool, err error) {
	lo, hi := pair(a, b)
	r, err = scanRelation(tx.QueryRowContext(ctx,
		`SELECT `+relationColumns+` FROM friend_relations WHERE lo_user_id = ? AND hi_user_id = ? FOR UPDATE`, lo, hi))
	if errors.Is(err, sql.ErrNoRows) {
		return relation{}, false, nil
	}
	return r, err == nil, err
}

// saveRelation writes r, whose version is new, as pending, with claimFor before
// any replica's background work may look at it.
func (s store) saveRelation(ctx context.Context, tx *sqlx.Tx, r relation, claimFor time.Duration) error {
	_, err := tx.ExecContext(ctx,
		`UPDATE friend_relations SET version = ?, is_open = ?, pending = 1, request_id = ?, requester_id = ?,
		        retry_at = TIMESTAMPADD(MICROSECOND, ?, UTC_TIMESTAMP(3))
		  WHERE lo_user_id = ? AND hi_user_id = ?`,
		r.version, r.open, r.requestID, r.requester, claimFor.Microseconds(), r.lo, r.hi)
	return err
}

// settled records that logic has confirmed r's version, unless a newer one exists.
func (s store) settled(ctx context.Context, r relation) error {
	_, err := s.db.ExecContext(ctx,
		`UPDATE friend_relations SET pending = 0 WHERE lo_user_id = ? AND hi_user_id = ? AND version = ?`,
		r.lo, r.hi, r.version)
	return storeError(err)
}

// due lists pending relations that nobody has claimed, longest waiting first.
func (s store) due(ctx context.Context, limit int) ([]relation, error) {
	rows, err := s.db.QueryContext(ctx,
		`SELECT `+relationColumns+` FROM friend_relations
		  WHERE pending = 1 AND retry_at <= UTC_TIMESTAMP(3) ORDER BY retry_at LIMIT ?`, limit)
	if err != nil {
		return nil, storeError(err)
	}
	defer func() { _ = rows.Close() }()
	var out []relation
	for rows.Next() {
		r, err := scanRelation(rows)
		if err != nil {
			return nil, storeError(err)
		}
		out = append(out, r)
	}
	return out, storeError(rows.Err())
}

// claim makes r this replica's for d; false if another one was faster or r changed.
func (s store) claim(ctx context.Context, r relation, d time.Duration) (bool, error) {
	res, err := s.db.ExecContext(ctx,
		`UPDATE friend_relations SET retry_at = TIMESTAMPADD(MICROSECOND, ?, UTC_TIMESTAMP(3))
		  WHERE lo_user_id = ? AND hi_user_id = ? AND version = ? AND pending = 1 AND retry_at <= UTC_TIMESTAMP(3)`,
		d.Microseconds(), r.lo, r.hi, r.version)
	if err != nil {
		return false, storeError(err)
	}
	n, err := res.RowsAffected()
	return n == 1, storeError(err)
}

// waitingRequest returns who of a and b waits for the other's answer, 0 if none does.
func (s store) waitingRequest(ctx context.Context, tx *sqlx.Tx, a, b im.UserID) (requester im.UserID, err error) {
	err = tx.GetContext(ctx, &requester,
		`SELECT requester_id FROM friend_requests
		  WHERE waiting = 1 AND ((requester_id = ? AND recipient_id = ?) OR (requester_id = ? AND recipient_id = ?)) LIMIT 1`,
		a, b, b, a)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	return requester, err
}

// requestsLastDay counts what user sent in the last 24 hours and holds the
// user's row, so that parallel transactions count one after the other. nextIn
// is when the oldest of them stops counting.
func (s store) requestsLastDay(ctx context.Context, tx *sqlx.Tx, user im.UserID) (n int, nextIn time.Duration, err error) {
	if _, err := tx.ExecContext(ctx,
		`INSERT INTO friend_requesters (user_id) VALUES (?) ON DUPLICATE KEY UPDATE user_id = user_id`, user); err != nil {
		return 0, 0, err
	}
	var seconds int64
	err = tx.QueryRowContext(ctx,
		`SELECT COUNT(*), COALESCE(TIMESTAMPDIFF(SECOND, UTC_TIMESTAMP(3), TIMESTAMPADD(DAY, 1, MIN(created_at))), 0)
		   FROM friend_requests WHERE requester_id = ? AND created_at > TIMESTAMPADD(DAY, -1, UTC_TIMESTAMP(3))`, user,
	).Scan(&n, &seconds)
	return n, time.Duration(seconds+1) * time.Second, err
}

func (s store) insertRequest(ctx context.Context, tx *sqlx.Tx, id int64, from, to im.UserID, information string) error {
	_, err := tx.ExecContext(ctx,
		`INSERT INTO friend_requests (id, requester_id, recipient_id, information, created_at)
		 VALUES (?, ?, ?, ?, UTC_TIMESTAMP(3))`, id, from, to, information)
	return err
}

// request reads one request; found is false if there is none.
func (s store) request(ctx context.Context, q sqlx.QueryerContext, id int64) (r request, found bool, err error) {
	err = sqlx.GetContext(ctx, q, &r, `SELECT `+requestColumns+` FROM friend_requests WHERE id = ?`, id)
	if errors.Is(err, sql.ErrNoRows) {
		return request{}, false, nil
	}
	return r, err == nil, err
}

// answerRequest moves a waiting request to status.
func (s store) answerRequest(ctx context.Context, tx *sqlx.Tx, id int64, status int) error {
	_, err := tx.ExecContext(ctx,
		`UPDATE friend_requests SET status = ?, waiting = NULL, answered_at = UTC_TIMESTAMP(3) WHERE id = ? AND waiting = 1`,
		status, id)
	return err
}

// confirmRequest records that the answer's success is reported; false if it has
// been before.
func (s store) confirmRequest(ctx context.Context, id int64) (bool, error) {
	res, err := s.db.ExecContext(ctx, `UPDATE friend_requests SET confirmed = 1 WHERE id = ? AND confirmed = 0`, id)
	if err != nil {
		return false, storeError(err)
	}
	n, err := res.RowsAffected()
	return n == 1, storeError(err)
}

// listRequests returns user's requests, newest first: the newest limit that he
// made, the newest limit that he got, and of those that wait for his answer the
// newest limit however old they are.
func (s store) listRequests(ctx context.Context, user im.UserID, limit int) ([]request, error) {
	const newest = ` ORDER BY created_at DESC, id DESC`
	const from = `(SELECT ` + requestColumns + ` FROM friend_requests WHERE `
	var out []request
	err := s.db.SelectContext(ctx, &out, from+`requester_id = ?`+newest+` LIMIT ?) UNION `+
		from+`recipient_id = ?`+newest+` LIMIT ?) UNION `+
		from+`recipient_id = ? AND waiting = 1`+newest+` LIMIT ?)`+newest,
		user, limit, user, limit, user, limit)
	return out, storeError(err)
}

// friendCount counts user's friends.
func (s store) friendCount(ctx context.Context, tx *sqlx.Tx, user im.UserID) (n int, err error) {
	err = tx.GetContext(ctx, &n, `SELECT COUNT(*) FROM friendships WHERE user_id = ?`, user)
	return n, err
}

// insertFriendship writes both directions; a's row gets idA, b's idB.
func (s store) insertFriendship(ctx context.Context, tx *sqlx.Tx, a im.UserID, idA int64, b im.UserID, idB int64) error {
	_, err := tx.ExecContext(ctx,
		`INSERT INTO friendships (id, user_id, friend_id, created_at, updated_at)
		 VALUES (?, ?, ?, UTC_TIMESTAMP(3), UTC_TIMESTAMP(3)), (?, ?, ?, UTC_TIMESTAMP(3), UTC_TIMESTAMP(3))`,
		idA, a, b, idB, b, a)
	return err
}

// deleteFriendship removes both directions, each by its key: a condition over
// both could make the server scan, and lock, the table.
func (s store) deleteFriendship(ctx context.Context, tx *sqlx.Tx, a, b im.UserID) error {
	const del = `DELETE FROM friendships WHERE user_id = ? AND friend_id = ?`
	if _, err := tx.ExecContext(ctx, del, a, b); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, del, b, a)
	return err
}

// friendship reads user's side; found is false if they are not friends.
func (s store) friendship(ctx context.Context, q sqlx.QueryerContext, user, friend im.UserID) (f friendship, found bool, err error) {
	err = sqlx.GetContext(ctx, q, &f,
		`SELECT `+friendshipColumns+` FROM friendships WHERE user_id = ? AND friend_id = ?`, user, friend)
	if errors.Is(err, sql.ErrNoRows) {
		return friendship{}, false, nil
	}
	return f, err == nil, err
}

// friends lists user's friends, pinned first, then the newest friendship.
func (s store) friends(ctx context.Context, user im.UserID) ([]friendship, error) {
	var out []friendship
	err := s.db.SelectContext(ctx, &out,
		`SELECT `+friendshipColumns+` FROM friendships WHERE user_id = ?
		  ORDER BY pinned DESC, pinned_at DESC, created_at DESC, id DESC`, user)
	return out, storeError(err)
}

// filter returns those of users who are user's friends.
func (s store) filter(ctx context.Context, user im.UserID, users []im.UserID) ([]im.UserID, error) {
	if len(users) == 0 {
		return nil, nil
	}
	query, args, err := sqlx.In(`SELECT friend_id FROM friendships WHERE user_id = ? AND friend_id IN (?)`, user, users)
	if err != nil {
		return nil, storeError(err)
	}
	var out []im.UserID
	err = s.db.SelectContext(ctx, &out, s.db.Rebind(query), args...)
	return out, storeError(err)
}
