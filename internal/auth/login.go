package auth

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jmoiron/sqlx"

	authv1 "im-services/api/proto/auth/v1"
	"im-services/internal/im"
	"im-services/internal/platform/database"
)

// clientWeb is the client type of an account that has not connected yet.
const clientWeb = 1

// loginFailed is the one answer to an unknown address, a wrong password and an
// account without a password.
func loginFailed() error { return im.E(im.KindForbidden, "login_failed", nil) }

func (s *Server) login(ctx context.Context, rawEmail, rawPassword, peer string) (*authv1.LoggedIn, error) {
	if err := s.limitPeer(ctx, "login", peer, s.cfg.Limits.LoginsPerMinute, time.Minute); err != nil {
		return nil, err
	}
	email, err := cleanEmail(rawEmail)
	if err != nil {
		return nil, loginFailed()
	}
	password, err := cleanPassword(rawPassword)
	if err != nil {
		return nil, loginFailed()
	}
	place := s.place(peer)
	out, err := s.proveAndEnter(ctx, email, password, place)
	if errors.Is(err, errHashChanged) { // by somebody who logged in at the same time, or a new password
		out, err = s.proveAndEnter(ctx, email, password, place)
	}
	if err != nil {
		return nil, err
	}
	s.log.LogAttrs(ctx, slog.LevelInfo, "logged in", slog.Int64("user_id", out.GetUser().GetId()), slog.String("method", "password"))
	return out, nil
}

// errHashChanged: the hash that a password was proved by is not the user's any more.
var errHashChanged = errors.New("auth: the password's hash has changed")

func (s *Server) proveAndEnter(ctx context.Context, email, password string, place []byte) (*authv1.LoggedIn, error) {
	a, err := s.store.accountByEmail(ctx, email)
	if err != nil && !errors.Is(err, errNoRow) {
		return nil, err
	}
	key, err := s.attemptsKey(ctx, email, a.ID, place)
	if err != nil {
		return nil, err
	}
	rehashed, err := s.prove(ctx, key, a, password)
	if err != nil {
		return nil, err
	}
	// Whether he can come in or not, and whether or not he still waits: it was right.
	s.limits.forgive(context.WithoutCancel(ctx), key)
	return s.enter(ctx, a.ID, a.Password, rehashed, place)
}

// prove checks the password of a, which has no id if the e-mail is unknown; key is
// what the attempt counts under. The same work is done for every a. It returns a
// new hash if the stored one is out of date.
func (s *Server) prove(ctx context.Context, key string, a account, password string) (rehashed string, err error) {
	// The slot comes first: an attempt that cannot be made must not count.
	release, err := s.hasher.acquire(ctx)
	if err != nil {
		return "", err
	}
	defer release()
	if wait := s.limits.attempt(ctx, key); wait > 0 {
		s.log.LogAttrs(ctx, slog.LevelWarn, "account locked", slog.Int64("user_id", int64(a.ID)), slog.Duration("wait", wait))
		return "", tooOften("auth_too_often", wait)
	}
	if !s.hasher.matches(a.Password, password) {
		s.log.LogAttrs(ctx, slog.LevelInfo, "log in refused", slog.Int64("user_id", int64(a.ID)))
		return "", loginFailed()
	}
	if s.hasher.outdated(a.Password) {
		return s.hasher.encode(password), nil
	}
	return "", nil
}

// enter begins a login session of a user who proved the password that hashes to
// proved at a place; errHashChanged if that has been changed since. rehashed, if
// any, replaces the hash.
func (s *Server) enter(ctx context.Context, user im.UserID, proved, rehashed string, place []byte) (*authv1.LoggedIn, error) {
	var a account
	var g grant
	err := s.store.inTx(ctx, func(tx *sqlx.Tx) error {
		var err error
		if a, err = lockAccount(ctx, tx, user); err != nil {
			return err
		}
		if a.Password != proved {
			return im.E(im.KindForbidden, "login_failed", errHashChanged)
		}
		if err := rememberPlace(ctx, tx, user, place); err != nil {
			return err
		}
		g, err = s.begin(ctx, tx, a, rehashed)
		return err
	})
	if errors.Is(err, errNoRow) {
		return nil, loginFailed()
	}
	if err != nil {
		return nil, err
	}
	a.LastLoginAt = g.now.UnixMilli()
	s.profiles.drop(user)
	return s.answer(a, g)
}

func (s *Server) register(ctx context.Context, in *authv1.RegisterRequest) (a account, err error) {
	if err := s.limitPeer(ctx, "login", in.GetPeerIp(), s.cfg.Limits.LoginsPerMinute, time.Minute); err != nil {
		return account{}, err
	}
	email, err := cleanEmail(in.GetEmail())
	if err != nil {
		return account{}, im.E(im.KindInvalid, "email_invalid", err)
	}
	name, err := cleanName(in.GetName())
	if err != nil {
		return account{}, im.E(im.KindInvalid, "name_invalid", err)
	}
	password, err := cleanPassword(in.GetPassword())
	if err != nil {
		return account{}, im.E(im.KindInvalid, "password_invalid", err)
	}
	// What is taken is found out before the code is spent on it.
	if err := s.checkFree(ctx, email, nameKey(name)); err != nil {
		return account{}, err
	}
	hash, spent, err := s.spendForHash(ctx, email, authv1.CodePurpose_CODE_PURPOSE_REGISTER, in.GetCode(), password)
	if err != nil {
		return account{}, err
	}
	defer func() { s.unspend(ctx, spent, err) }()
	id, err := s.ids.take(ctx)
	if err != nil {
		return account{}, err
	}
	a = account{
		ID: id, Name: name, NameKey: nameKey(name), Email: sql.NullString{String: email, Valid: true}, Password: hash,
		Avatar: generatedAvatar(id), ClientType: clientWeb,
	}
	err = s.store.inTx(ctx, func(tx *sqlx.Tx) error {
		now, err := dbTime(ctx, tx)
		if err != nil {
			return err
		}
		a.CreatedAt = now.UnixMilli()
		if err := insertAccount(ctx, tx, a); err != nil {
			return err
		}
		return rememberPlace(ctx, tx, id, s.place(in.GetPeerIp()))
	})
	if database.IsDuplicate(err) { // somebody was faster
		if taken := s.checkFree(ctx, email, a.NameKey); taken != nil {
			return account{}, taken
		}
		return account{}, im.E(im.KindInternal, "internal", err)
	}
	if err != nil {
		return account{}, err
	}
	s.log.LogAttrs(ctx, slog.LevelInfo, "registered", slog.Int64("user_id", int64(id)))
	return a, nil
}

// generatedAvatar is the path, below the public URL, of the picture the gateway
// draws for a user. It is not absolute, so that the public URL can change.
func generatedAvatar(id im.UserID) string { return fmt.Sprintf("/avatars/%d.png", id) }

// checkFree says which of e-mail and name is taken.
func (s *Server) checkFree(ctx context.Context, email, key string) error {
	if taken, err := s.store.emailTaken(ctx, email); err != nil || taken {
		if err == nil {
			err = im.E(im.KindConflict, "email_taken", nil)
		}
		return err
	}
	if taken, err := s.store.nameTaken(ctx, key); err != nil || taken {
		if err == nil {
			err = im.E(im.KindConflict, "name_taken", nil)
		}
		return err
	}
	return nil
}

func (s *Server) resetPassword(ctx context.Context, in *authv1.ResetPasswordRequest) (err error) {
	if err := s.limitPeer(ctx, "login", in.GetPeerIp(), s.cfg.Limits.LoginsPerMinute, time.Minute); err != nil {
		return err
	}
	email, err := cleanEmail(in.GetEmail())
	if err != nil {
		return im.E(im.KindInvalid, "email_invalid", err)
	}
	password, err := cleanPassword(in.GetPassword())
	if err != nil {
		return im.E(im.KindInvalid, "password_invalid", err)
	}
	hash, spent, err := s.spendForHash(ctx, email, authv1.CodePurpose_CODE_PURPOSE_RESET, in.GetCode(), password)
	if err != nil {
		return err
	}
	defer func() { s.unspend(ctx, spent, err) }()
	found, err := s.store.accountByEmail(ctx, email)
	if errors.Is(err, errNoRow) || (err == nil && found.Bot) {
		return im.E(im.KindNotFound, "email_unknown", nil)
	}
	if err != nil {
		return err
	}
	place := s.place(in.GetPeerIp())
	err = s.store.inTx(ctx, func(tx *sqlx.Tx) error {
		a, err := lockAccount(ctx, tx, found.ID)
		if err != nil {
			return err
		}
		now, err := dbTime(ctx, tx)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "UPDATE users SET password = ? WHERE id = ?", hash, a.ID); err != nil {
			return err
		}
		if err := rememberPlace(ctx, tx, a.ID, place); err != nil {
			return err
		}
		return endAll(ctx, tx, a, now)
	})
	if err != nil {
		return err
	}
	who := s.pseudonym(email)
	s.limits.forgive(ctx, who)
	s.limits.forgive(ctx, placeKey(who, place))
	s.log.LogAttrs(ctx, slog.LevelInfo, "password reset: all login sessions ended", slog.Int64("user_id", int64(found.ID)))
	return nil
}

// spendForHash spends an e-mail code on the hash of a new password. It has the
// slot for hashing before it spends the code, which is good for one use only.
func (s *Server) spendForHash(ctx context.Context, email string, purpose authv1.CodePurpose, code, password string) (string, spentCode, error) {
	release, err := s.hasher.acquire(ctx)
	if err != nil {
		return "", spentCode{}, err
	}
	defer release()
	spent, err := s.spendCode(ctx, email, purpose, code)
	if err != nil {
		return "", spentCode{}, err
	}
	return s.hasher.encode(password), spent, nil
}
