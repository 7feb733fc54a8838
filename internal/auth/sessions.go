package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jmoiron/sqlx"

	authv1 "im-services/api/proto/auth/v1"
	"im-services/internal/im"
	"im-services/internal/token"
)

const (
	// maxRevocations bounds one answer of Revocations.
	maxRevocations = 5000
	// maxAhead is how far into the future a token may say it was issued: below
	// the leeway of those who verify it.
	maxAhead = 30 * time.Second
	// repeatWithin is how long after its use a refresh token may be used again by
	// who never saw the answer.
	repeatWithin = time.Minute
	// maxSessions is how many live login sessions a user may have: ending all of
	// them must not take longer than a statement may, however often somebody who has
	// the password logs in.
	maxSessions = 100
	// maxSurplus is how many are ended at a login that is one too many. One would do,
	// but for users who had more before there was a bound.
	maxSurplus = 20
	// randomBytes is the size of a refresh token and a ticket.
	randomBytes = token.TicketBytes
)

// newSecretText returns 256 random bits as text for clients.
func newSecretText() string {
	b := make([]byte, randomBytes)
	_, _ = rand.Read(b) // never fails
	return base64.RawURLEncoding.EncodeToString(b)
}

// digest is what is kept of a secret text; it has the entropy to stand alone.
func digest(text string) []byte {
	sum := sha256.Sum256([]byte(text))
	return sum[:]
}

func newSessionID() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// grant is a token about to be issued.
type grant struct {
	now        time.Time // the database's
	session    string
	refresh    string
	issued     time.Time
	expires    time.Time
	sessionEnd time.Time
}

// begin starts a login session of a user whose row the transaction has locked
// as a, unless he is banned, and accounts for the tokens it is going to get. If he
// has too many it ends those used longest ago. It must be the last thing in its
// transaction.
func (s *Server) begin(ctx context.Context, tx *sqlx.Tx, a account, newPassword string) (grant, error) {
	if a.BannedAt != 0 {
		return grant{}, im.E(im.KindForbidden, "account_banned", nil)
	}
	now, err := dbTime(ctx, tx)
	if err != nil {
		return grant{}, err
	}
	g := grant{now: now, session: newSessionID(), sessionEnd: now.Add(s.cfg.SessionTTL)}
	if err := insertSession(ctx, tx, g.session, a.ID, now, g.sessionEnd); err != nil {
		return g, err
	}
	if newPassword != "" {
		a.Password = newPassword
	}
	if err := s.issue(ctx, tx, &g, a, true); err != nil {
		return g, err
	}
	surplus, err := surplusSessions(ctx, tx, a.ID)
	if err != nil {
		return g, err
	}
	for _, id := range surplus {
		if err := s.end(ctx, tx, a, id, now); err != nil {
			return g, err
		}
	}
	return g, nil
}

// issue makes the tokens of g. The user's row is locked, so it sees every
// password reset that is not going to see these tokens.
func (s *Server) issue(ctx context.Context, tx *sqlx.Tx, g *grant, a account, login bool) error {
	// Tokens issued before not_before are revoked: this one must not be.
	iat := max(g.now.Unix(), a.NotBefore)
	g.issued = time.Unix(iat, 0)
	g.expires = g.now.Add(s.cfg.AccessTTL).Truncate(time.Second)
	if g.expires.After(g.sessionEnd) {
		g.expires = g.sessionEnd.Truncate(time.Second)
	}
	g.refresh = newSecretText()
	until := g.now.Add(s.cfg.RefreshTTL)
	if until.After(g.sessionEnd) {
		until = g.sessionEnd
	}
	if err := insertRefresh(ctx, tx, digest(g.refresh), g.session, until); err != nil {
		return err
	}
	if login {
		a.LastLoginAt = g.now.UnixMilli()
	}
	_, err := tx.ExecContext(ctx,
		"UPDATE users SET password = ?, last_login_at = ?, token_at = ?, token_until = ? WHERE id = ?",
		a.Password, a.LastLoginAt, max(a.TokenAt, iat), max(a.TokenUntil, g.expires.Unix()), a.ID)
	return err
}

// answer signs the access token of a grant that is in the database.
func (s *Server) answer(a account, g grant) (*authv1.LoggedIn, error) {
	access, err := s.keys.signer(g.now).Sign(token.Claims{
		UserID: a.ID, Name: a.Name, Email: a.email(), Avatar: a.Avatar, SessionID: g.session,
		IssuedAt: g.issued, ExpiresAt: g.expires,
	})
	if err != nil {
		return nil, im.E(im.KindInternal, "internal", err)
	}
	return &authv1.LoggedIn{
		User: pbUser(a), AccessToken: access, ExpiresAt: g.expires.Unix(),
		TtlSeconds: max(0, g.expires.Unix()-g.now.Unix()), RefreshToken: g.refresh,
	}, nil
}

func refreshInvalid(cause error) error { return im.E(im.KindUnauthorized, "refresh_invalid", cause) }

// refresh rotates a refresh token. Of the tokens of a login session one at most
// is good at any time.
func (s *Server) refresh(ctx context.Context, raw, peer string) (*authv1.LoggedIn, error) {
	if len(raw) != base64.RawURLEncoding.EncodedLen(randomBytes) {
		return nil, refreshInvalid(errors.New("malformed"))
	}
	if err := s.limitPeer(ctx, "refresh", peer, usersFactor*s.cfg.Limits.RefreshesPerMinute, time.Minute); err != nil {
		return nil, err
	}
	hash := digest(raw)
	row, err := s.store.refreshToken(ctx, hash)
	if errors.Is(err, errNoRow) {
		return nil, refreshInvalid(err)
	}
	if err != nil {
		return nil, err
	}
	if row.EndedAt != 0 { // for ever: who holds a token of it uses up nothing of the user's
		return nil, refreshInvalid(errors.New("session over"))
	}
	// Every exchange leaves a row until its token expires: one login must not be
	// enough to fill the table.
	wait := s.limits.take(ctx, fmt.Sprintf("refresh:%d", row.UserID), s.cfg.Limits.RefreshesPerMinute, time.Minute)
	if wait > 0 {
		s.log.LogAttrs(ctx, slog.LevelWarn, "refreshes limited", slog.Int64("user_id", int64(row.UserID)))
		return nil, tooOften("auth_too_often", wait)
	}
	var user account
	var g grant
	var refused error
	var reused bool
	err = s.store.inTx(ctx, func(tx *sqlx.Tx) error {
		refused, reused = nil, false
		var err error
		if user, err = lockAccount(ctx, tx, row.UserID); err != nil {
			return err
		}
		session, err := lockSession(ctx, tx, row.SessionID)
		if err != nil {
			return err
		}
		now, err := dbTime(ctx, tx)
		if err != nil {
			return err
		}
		good, err := useRefresh(ctx, tx, hash, now)
		if err == nil && !good {
			// We may have died before we answered. What nobody has used goes for a new
			// one; if he who repeats stole the token, the other one's next use shows it.
			good, err = voidSuccessor(ctx, tx, hash, now.Add(-repeatWithin), now)
		}
		if err != nil {
			return err
		}
		switch {
		case !good:
			// Two hold this token: one of them stole it. Neither may go on.
			refused, reused = refreshInvalid(errors.New("used before")), true
			return s.end(ctx, tx, user, row.SessionID, now)
		case !session.live(now) || row.ExpiresAt <= now.UnixMilli():
			refused = refreshInvalid(errors.New("session over"))
			return nil
		}
		if err := useSession(ctx, tx, session.ID, now); err != nil {
			return err
		}
		g = grant{now: now, session: session.ID, sessionEnd: time.UnixMilli(session.ExpiresAt)}
		if err := s.issue(ctx, tx, &g, user, false); err != nil {
			return err
		}
		return setSuccessor(ctx, tx, hash, digest(g.refresh))
	})
	switch {
	case errors.Is(err, errNoRow):
		return nil, refreshInvalid(err)
	case err != nil:
		return nil, err
	case refused != nil:
		if reused {
			s.metrics.reuses.Inc()
			s.log.LogAttrs(ctx, slog.LevelWarn, "refresh token used twice: login session ended",
				slog.Int64("user_id", int64(row.UserID)))
		}
		return nil, refused
	}
	return s.answer(user, g)
}

// end ends one login session, if it is live, and tells gateways. The user's row
// is locked.
func (s *Server) end(ctx context.Context, tx *sqlx.Tx, user account, session string, now time.Time) error {
	ended, err := endSession(ctx, tx, session, user.ID, now)
	if err != nil || !ended {
		return err
	}
	return revokeSession(ctx, tx, user, session, now)
}

// revokeSession tells gateways that a login session has ended.
func revokeSession(ctx context.Context, tx *sqlx.Tx, user account, session string, now time.Time) error {
	return insertRevocation(ctx, tx, revocation{
		UserID: user.ID, SessionID: session, NotBefore: now.Unix(), ExpiresAt: revokedUntil(user, now),
	})
}

// revokedUntil is when no token of the user can be alive any more.
func revokedUntil(user account, now time.Time) int64 {
	return max(user.TokenUntil, now.Unix()) + int64(2*token.DefaultLeeway/time.Second)
}

// logout ends one login session of the user.
func (s *Server) logout(ctx context.Context, user im.UserID, session string) error {
	err := s.store.inTx(ctx, func(tx *sqlx.Tx) error {
		a, err := lockAccount(ctx, tx, user)
		if err != nil {
			return err
		}
		now, err := dbTime(ctx, tx)
		if err != nil {
			return err
		}
		return s.end(ctx, tx, a, session, now)
	})
	if errors.Is(err, errNoRow) {
		return nil
	}
	if err == nil {
		s.log.LogAttrs(ctx, slog.LevelInfo, "logged out", slog.Int64("user_id", int64(user)))
	}
	return err
}

// nextNotBefore is the second from which tokens issued after now count while
// none issued before does.
func nextNotBefore(user account, now time.Time) int64 {
	// Tokens may have been issued in this very second, and in our future if the
	// database's clock has been set back.
	return max(now.Unix(), min(user.TokenAt, now.Add(maxAhead).Unix())) + 1
}

// endAll ends every login session of a user whose row is locked, and every token
// issued until now. It must be the last thing in its transaction.
func endAll(ctx context.Context, tx *sqlx.Tx, user account, now time.Time) error {
	notBefore := nextNotBefore(user, now)
	if _, err := tx.ExecContext(ctx, "UPDATE users SET not_before = ? WHERE id = ?", notBefore, user.ID); err != nil {
		return err
	}
	// Beyond what notBefore covers there are tokens only if the database's clock has
	// been set back far. Those are told by their sessions.
	var sessions []string
	if user.TokenAt >= notBefore {
		if err := tx.SelectContext(ctx, &sessions, "SELECT id FROM login_sessions WHERE user_id = ? AND ended_at = 0", user.ID); err != nil {
			return err
		}
	}
	if err := endAllSessions(ctx, tx, user.ID, now); err != nil {
		return err
	}
	for _, id := range sessions {
		if err := revokeSession(ctx, tx, user, id, now); err != nil {
			return err
		}
	}
	return insertRevocation(ctx, tx, revocation{
		UserID: user.ID, NotBefore: notBefore, ExpiresAt: revokedUntil(user, now),
	})
}
