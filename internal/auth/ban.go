package auth

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/jmoiron/sqlx"

	"im-services/internal/im"
)

// Ban ends all logins of the user with this e-mail address or id, within the
// bounds of a password reset, and refuses him every new one until Unban. What he
// wrote stays.
func Ban(ctx context.Context, db *sqlx.DB, who string) (im.UserID, error) {
	return setBanned(ctx, db, who, func(ctx context.Context, tx *sqlx.Tx, a account) error {
		now, err := dbTime(ctx, tx)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "UPDATE users SET banned_at = ? WHERE id = ?", now.UnixMilli(), a.ID); err != nil {
			return err
		}
		return endAll(ctx, tx, a, now)
	})
}

// Unban lets a user log in again.
func Unban(ctx context.Context, db *sqlx.DB, who string) (im.UserID, error) {
	return setBanned(ctx, db, who, func(ctx context.Context, tx *sqlx.Tx, a account) error {
		_, err := tx.ExecContext(ctx, "UPDATE users SET banned_at = 0 WHERE id = ?", a.ID)
		return err
	})
}

// setBanned runs change on the locked row of the user.
func setBanned(ctx context.Context, db *sqlx.DB, who string, change func(context.Context, *sqlx.Tx, account) error) (im.UserID, error) {
	s := store{db}
	id, err := strconv.ParseInt(who, 10, 64)
	user := im.UserID(id)
	if err != nil {
		email, err := cleanEmail(who)
		if err != nil {
			return 0, fmt.Errorf("auth: %q is neither an e-mail address nor a user id", who)
		}
		found, err := s.accountByEmail(ctx, email)
		if errors.Is(err, errNoRow) {
			return 0, fmt.Errorf("auth: nobody has the e-mail address %q", email)
		}
		if err != nil {
			return 0, err
		}
		user = found.ID
	}
	err = s.inTx(ctx, func(tx *sqlx.Tx) error {
		a, err := lockAccount(ctx, tx, user)
		if err != nil {
			return err
		}
		return change(ctx, tx, a)
	})
	if errors.Is(err, errNoRow) {
		return 0, fmt.Errorf("auth: nobody has the id %d", user)
	}
	return user, err
}
