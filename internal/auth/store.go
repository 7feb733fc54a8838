package auth

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"

	"im-services/internal/im"
	"im-services/internal/platform/database"
)

// account is a row of users.
type account struct {
	ID          im.UserID      `db:"id"`
	Name        string         `db:"name"`
	NameKey     string         `db:"name_key"`
	Email       sql.NullString `db:"email"`
	ShownEmail  string         `db:"shown_email"`
	Password    string         `db:"password"` // PHC; "" = no password login
	Avatar      string         `db:"avatar"`
	Bio         string         `db:"bio"`
	Sex         int            `db:"sex"`
	Age         int            `db:"age"`
	ClientType  int            `db:"client_type"`
	Bot         bool           `db:"is_bot"`
	CreatedAt   int64          `db:"created_at"`    // Unix ms
	LastLoginAt int64          `db:"last_login_at"` // Unix ms
	NotBefore   int64          `db:"not_before"`    // Unix s: tokens issued earlier do not count
	TokenAt     int64          `db:"token_at"`      // Unix s: when the latest token was issued
	TokenUntil  int64          `db:"token_until"`   // Unix s: when the last token ends
	BannedAt    int64          `db:"banned_at"`     // Unix ms; 0: not banned
}

// email returns the address that others see.
func (a account) email() string {
	if a.Email.Valid {
		return a.Email.String
	}
	return a.ShownEmail
}

const accountColumns = `id, name, name_key, email, shown_email, password, avatar, bio, sex, age, client_type,
	is_bot, created_at, last_login_at, not_before, token_at, token_until, banned_at`

// errNoRow: no row has the key.
var errNoRow = errors.New("auth: no such row")

// store is the service's SQL. Functions with a tx belong in a transaction; see
// the package comment for the order of locks.
type store struct{ db *sqlx.DB }

func (s store) inTx(ctx context.Context, f func(tx *sqlx.Tx) error) error {
	return storeError(database.InTx(ctx, s.db, f))
}

// storeError turns the database's errors into ours; ours, errNoRow and
// duplicates, which callers look at, pass as they are.
func storeError(err error) error {
	if _, ours := errors.AsType[*im.Error](err); err == nil || ours || errors.Is(err, errNoRow) || database.IsDuplicate(err) {
		return err
	}
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return errNoRow
	case database.IsCommitUnknown(err):
		return im.E(im.KindUnknown, "auth_outcome_unknown", err)
	case database.IsUnavailable(err), database.IsRetryable(err), errors.Is(err, context.Canceled):
		return im.E(im.KindUnavailable, "service_unavailable", err)
	}
	return im.E(im.KindInternal, "internal", err)
}

// dbTime is the clock that all replicas share: whatever is stored or put into a
// token has its time from it.
func dbTime(ctx context.Context, q sqlx.QueryerContext) (time.Time, error) {
	var now time.Time
	err := sqlx.GetContext(ctx, q, &now, "SELECT UTC_TIMESTAMP(3)")
	return now, err
}

func (s store) accountByEmail(ctx context.Context, email string) (account, error) {
	var a account
	err := s.db.GetContext(ctx, &a, "SELECT "+accountColumns+" FROM users WHERE email = ?", email)
	return a, storeError(err)
}

func (s store) accountsByID(ctx context.Context, ids []im.UserID) ([]account, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	query, args, err := sqlx.In("SELECT "+accountColumns+" FROM users WHERE id IN (?)", ids)
	if err != nil {
		return nil, storeError(err)
	}
	var found []account
	err = s.db.SelectContext(ctx, &found, query, args...)
	return found, storeError(err)
}

func (s store) accountByIdentity(ctx context.Context, provider string, subject int64) (account, error) {
	var id im.UserID
	err := s.db.GetContext(ctx, &id, "SELECT user_id FROM identities WHERE provider = ? AND subject = ?", provider, subject)
	if err != nil {
		return account{}, storeError(err)
	}
	found, err := s.accountsByID(ctx, []im.UserID{id})
	if err != nil {
		return account{}, err
	}
	if len(found) == 0 {
		return account{}, im.E(im.KindInternal, "internal", errors.New("identity without a user"))
	}
	return found[0], nil
}

func (s store) emailTaken(ctx context.Context, email string) (bool, error) {
	return s.exists(ctx, "SELECT COUNT(*) FROM users WHERE email = ?", email)
}

func (s store) nameTaken(ctx context.Context, key string) (bool, error) {
	return s.exists(ctx, "SELECT COUNT(*) FROM users WHERE name_key = ?", key)
}

func (s store) exists(ctx context.Context, query string, args ...any) (bool, error) {
	var n int
	err := s.db.GetContext(ctx, &n, query, args...)
	return n > 0, storeError(err)
}

// insertAccount fails with a duplicate if the e-mail or the name is taken.
func insertAccount(ctx context.Context, tx *sqlx.Tx, a account) error {
	_, err := tx.NamedExecContext(ctx, `INSERT INTO users
		(id, name, name_key, email, shown_email, password, avatar, bio, sex, age, client_type, is_bot, created_at, last_login_at)
		VALUES (:id, :name, :name_key, :email, :shown_email, :password, :avatar, :bio, :sex, :age, :client_type, :is_bot, :created_at, :last_login_at)`, a)
	return err
}

func insertIdentity(ctx context.Context, tx *sqlx.Tx, provider string, subject int64, user im.UserID, now time.Time) error {
	_, err := tx.ExecContext(ctx, "INSERT INTO identities (provider, subject, user_id, created_at) VALUES (?, ?, ?, ?)",
		provider, subject, user, now.UnixMilli())
	return err
}

// lockAccount locks a user's row; errNoRow if there is none.
func lockAccount(ctx context.Context, tx *sqlx.Tx, id im.UserID) (account, error) {
	var a account
	err := tx.GetContext(ctx, &a, "SELECT "+accountColumns+" FROM users WHERE id = ? FOR UPDATE", id)
	if errors.Is(err, sql.ErrNoRows) {
		return a, errNoRow
	}
	return a, err
}

// searched bounds how many users of each prefix are compared by their last login.
const searched = 1000

// search returns up to limit users that are no bots, newest login first. query
// "" finds everybody, else the e-mail or the folded name must begin with it; of
// more than searched of a kind the alphabetically first are looked at.
func (s store) search(ctx context.Context, query, key string, limit int) ([]account, error) {
	const order = " ORDER BY last_login_at DESC, id DESC LIMIT ?"
	var found []account
	var err error
	if query == "" {
		err = s.db.SelectContext(ctx, &found, "SELECT "+accountColumns+" FROM users WHERE is_bot = 0"+order, limit)
	} else {
		err = s.db.SelectContext(ctx, &found, "SELECT "+accountColumns+" FROM users JOIN ("+
			"(SELECT id AS match_id FROM users WHERE email LIKE ? ESCAPE '|' ORDER BY email LIMIT ?) UNION "+
			"(SELECT id FROM users WHERE name_key LIKE ? ESCAPE '|' ORDER BY name_key LIMIT ?)) matches ON id = match_id"+
			" WHERE is_bot = 0"+order,
			prefix(query), searched, prefix(key), searched, limit)
	}
	return found, storeError(err)
}

var likeEscaper = strings.NewReplacer("|", "||", "%", "|%", "_", "|_")

// prefix is the LIKE pattern of what begins with s.
func prefix(s string) string { return likeEscaper.Replace(s) + "%" }

// takeIDs takes n ids of a kind and returns the first. In a transaction that
// goes on afterwards, the ids rise in the order of commit.
func takeIDs(ctx context.Context, tx *sqlx.Tx, kind string, n int64) (int64, error) {
	var first int64
	if err := tx.GetContext(ctx, &first, "SELECT next_id FROM id_blocks WHERE name = ? FOR UPDATE", kind); err != nil {
		return 0, err
	}
	if first < 1 || first > im.MaxID-n {
		return 0, errors.New("auth: ids of kind " + kind + " are used up")
	}
	_, err := tx.ExecContext(ctx, "UPDATE id_blocks SET next_id = ? WHERE name = ?", first+n, kind)
	return first, err
}

// loginSession is a row of login_sessions.
type loginSession struct {
	ID        string    `db:"id"`
	UserID    im.UserID `db:"user_id"`
	ExpiresAt int64     `db:"expires_at"` // Unix ms
	EndedAt   int64     `db:"ended_at"`   // Unix ms, 0 = live
}

func (l loginSession) live(now time.Time) bool {
	return l.EndedAt == 0 && l.ExpiresAt > now.UnixMilli()
}

func insertSession(ctx context.Context, tx *sqlx.Tx, id string, user im.UserID, now, expires time.Time) error {
	_, err := tx.ExecContext(ctx,
		"INSERT INTO login_sessions (id, user_id, created_at, used_at, expires_at) VALUES (?, ?, ?, ?, ?)",
		id, user, now.UnixMilli(), now.UnixMilli(), expires.UnixMilli())
	return err
}

// sessionLive reports whether the user has this login session and it goes on.
func (s store) sessionLive(ctx context.Context, id string, user im.UserID) (bool, error) {
	return s.exists(ctx, `SELECT COUNT(*) FROM login_sessions
		WHERE id = ? AND user_id = ? AND ended_at = 0 AND expires_at > 1000 * UNIX_TIMESTAMP(NOW(3))`, id, user)
}

func lockSession(ctx context.Context, tx *sqlx.Tx, id string) (loginSession, error) {
	var l loginSession
	err := tx.GetContext(ctx, &l, "SELECT id, user_id, expires_at, ended_at FROM login_sessions WHERE id = ? FOR UPDATE", id)
	if errors.Is(err, sql.ErrNoRows) {
		return l, errNoRow
	}
	return l, err
}

// useSession notes that a session was used.
func useSession(ctx context.Context, tx *sqlx.Tx, id string, now time.Time) error {
	_, err := tx.ExecContext(ctx, "UPDATE login_sessions SET used_at = ? WHERE id = ?", now.UnixMilli(), id)
	return err
}

// surplusSessions returns some of the sessions of a user beyond the maxSessions
// used last.
func surplusSessions(ctx context.Context, tx *sqlx.Tx, user im.UserID) ([]string, error) {
	var ids []string
	err := tx.SelectContext(ctx, &ids, `SELECT id FROM login_sessions WHERE user_id = ? AND ended_at = 0
		ORDER BY used_at DESC, created_at DESC, id LIMIT ? OFFSET ?`, user, maxSurplus, maxSessions)
	return ids, err
}

// endSession ends a live session and reports whether it was one.
func endSession(ctx context.Context, tx *sqlx.Tx, id string, user im.UserID, now time.Time) (bool, error) {
	res, err := tx.ExecContext(ctx, "UPDATE login_sessions SET ended_at = ? WHERE id = ? AND user_id = ? AND ended_at = 0",
		now.UnixMilli(), id, user)
	if err != nil {
		return false, err
	}
	n, err := res.RowsAffected()
	return n > 0, err
}

func endAllSessions(ctx context.Context, tx *sqlx.Tx, user im.UserID, now time.Time) error {
	_, err := tx.ExecContext(ctx, "UPDATE login_sessions SET ended_at = ? WHERE user_id = ? AND ended_at = 0",
		now.UnixMilli(), user)
	return err
}

// refreshRow is a row of refresh_tokens with the user and the end of its session.
type refreshRow struct {
	SessionID string    `db:"session_id"`
	UserID    im.UserID `db:"user_id"`
	EndedAt   int64     `db:"ended_at"`   // Unix ms, 0 = live
	ExpiresAt int64     `db:"expires_at"` // Unix ms
}

func (s store) refreshToken(ctx context.Context, hash []byte) (refreshRow, error) {
	var r refreshRow
	err := s.db.GetContext(ctx, &r, `SELECT r.session_id, s.user_id, s.ended_at, r.expires_at
		FROM refresh_tokens r JOIN login_sessions s ON s.id = r.session_id WHERE r.hash = ?`, hash)
	return r, storeError(err)
}

func insertRefresh(ctx context.Context, tx *sqlx.Tx, hash []byte, session string, expires time.Time) error {
	_, err := tx.ExecContext(ctx, "INSERT INTO refresh_tokens (hash, session_id, expires_at) VALUES (?, ?, ?)",
		hash, session, expires.UnixMilli())
	return err
}

// useRefresh marks a token used and reports whether it was not yet.
func useRefresh(ctx context.Context, tx *sqlx.Tx, hash []byte, now time.Time) (bool, error) {
	res, err := tx.ExecContext(ctx, "UPDATE refresh_tokens SET used_at = ? WHERE hash = ? AND used_at = 0", now.UnixMilli(), hash)
	if err != nil {
		return false, err
	}
	n, err := res.RowsAffected()
	return n > 0, err
}

// voidSuccessor uses up what a token was exchanged for, if that was after since
// and the successor has not been used, and reports whether it did.
func voidSuccessor(ctx context.Context, tx *sqlx.Tx, hash []byte, since, now time.Time) (bool, error) {
	res, err := tx.ExecContext(ctx, `UPDATE refresh_tokens spent JOIN refresh_tokens issued ON issued.hash = spent.successor
		SET issued.used_at = ? WHERE spent.hash = ? AND spent.used_at > ? AND issued.used_at = 0`,
		now.UnixMilli(), hash, since.UnixMilli())
	if err != nil {
		return false, err
	}
	n, err := res.RowsAffected()
	return n > 0, err
}

func setSuccessor(ctx context.Context, tx *sqlx.Tx, hash, successor []byte) error {
	_, err := tx.ExecContext(ctx, "UPDATE refresh_tokens SET successor = ? WHERE hash = ?", successor, hash)
	return err
}

const (
	// placeSize is what the column of a place holds, in bytes.
	placeSize = 16
	// placeMemory is how long a place is known after a user was last there.
	placeMemory = 90 * 24 * time.Hour
)

// placeKnown reports whether the user has been at a place. The same work is done
// for a user who is none.
func (s store) placeKnown(ctx context.Context, user im.UserID, place []byte) (bool, error) {
	return s.exists(ctx, "SELECT COUNT(*) FROM login_places WHERE user_id = ? AND place = ?", user, place)
}

// rememberPlace notes that a user whose row is locked has proved at a place, if
// it is known, that the account is his.
func rememberPlace(ctx context.Context, tx *sqlx.Tx, user im.UserID, place []byte) error {
	if place == nil {
		return nil
	}
	now, err := dbTime(ctx, tx)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO login_places (user_id, place, used_at) VALUES (?, ?, ?)
		ON DUPLICATE KEY UPDATE used_at = VALUES(used_at)`, user, place, now.UnixMilli())
	return err
}

// revocation is a row of revocations; times are Unix seconds.
type revocation struct {
	ID        int64     `db:"id"`
	UserID    im.UserID `db:"user_id"`
	SessionID string    `db:"session_id"`
	NotBefore int64     `db:"not_before"`
	ExpiresAt int64     `db:"expires_at"`
}

// insertRevocation gives r its id. It must be the last thing in its transaction.
func insertRevocation(ctx context.Context, tx *sqlx.Tx, r revocation) error {
	var err error
	if r.ID, err = takeIDs(ctx, tx, "revocation", 1); err != nil {
		return err
	}
	_, err = tx.NamedExecContext(ctx, `INSERT INTO revocations (id, user_id, session_id, not_before, expires_at)
		VALUES (:id, :user_id, :session_id, :not_before, :expires_at)`, r)
	return err
}

// clockSlack is how far the clock of a gateway may be behind the database's: it
// takes for alive what has expired here.
const clockSlack = 2 * time.Hour

func (s store) revocations(ctx context.Context, after int64, limit int) ([]revocation, error) {
	var found []revocation
	err := s.db.SelectContext(ctx, &found, `SELECT id, user_id, session_id, not_before, expires_at FROM revocations
		WHERE id > ? AND expires_at > UNIX_TIMESTAMP() - ? ORDER BY id LIMIT ?`, after, int64(clockSlack/time.Second), limit)
	return found, storeError(err)
}

// purge deletes up to limit rows of each kind that no longer mean anything and
// returns how many it deleted.
func (s store) purge(ctx context.Context, limit int) (int64, error) {
	var total int64
	now, err := dbTime(ctx, s.db)
	if err != nil {
		return 0, storeError(err)
	}
	now = now.Add(-clockSlack)
	for _, q := range []struct {
		query string
		until int64
	}{
		{"DELETE FROM refresh_tokens WHERE expires_at <= ? LIMIT ?", now.UnixMilli()},
		{"DELETE FROM login_sessions WHERE expires_at <= ? LIMIT ?", now.UnixMilli()},
		{"DELETE FROM revocations WHERE expires_at <= ? LIMIT ?", now.Unix()},
		{"DELETE FROM login_places WHERE used_at <= ? LIMIT ?", now.Add(-placeMemory).UnixMilli()},
	} {
		res, err := s.db.ExecContext(ctx, q.query, q.until, limit)
		if err != nil {
			return total, storeError(err)
		}
		n, err := res.RowsAffected()
		if err != nil {
			return total, storeError(err)
		}
		total += n
	}
	return total, nil
}
