package auth

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"

	"github.com/jmoiron/sqlx"

	"im-services/internal/im"
	"im-services/internal/platform/database"
)

// ensureSecret returns the named secret, made by whoever asked first.
func (s store) ensureSecret(ctx context.Context, name string) ([]byte, error) {
	var value []byte
	err := s.inSetup(ctx, func(tx *sqlx.Tx) error {
		var found [][]byte
		if err := tx.SelectContext(ctx, &found, "SELECT value FROM secrets WHERE name = ?", name); err != nil {
			return err
		}
		if len(found) > 0 {
			value = found[0]
			return nil
		}
		value = make([]byte, 32)
		_, _ = rand.Read(value) // never fails
		_, err := tx.ExecContext(ctx, "INSERT INTO secrets (name, value) VALUES (?, ?)", name, value)
		return err
	})
	return value, err
}

// ensureBot makes user 1 or brings him up to date with the configuration.
func (s store) ensureBot(ctx context.Context, cfg BotConfig) error {
	name, err := cleanName(cfg.Name)
	if err != nil {
		return err
	}
	email, err := cleanEmail(cfg.Email)
	if err != nil {
		return err
	}
	err = s.inSetup(ctx, func(tx *sqlx.Tx) error {
		res, err := tx.ExecContext(ctx, "UPDATE users SET name = ?, name_key = ?, email = ?, avatar = ?, is_bot = 1 WHERE id = ?",
			name, nameKey(name), email, cfg.Avatar, im.BotID)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n > 0 {
			return err
		}
		now, err := dbTime(ctx, tx)
		if err != nil {
			return err
		}
		return insertAccount(ctx, tx, account{
			ID: im.BotID, Name: name, NameKey: nameKey(name), Email: sql.NullString{String: email, Valid: true},
			Avatar: cfg.Avatar, ClientType: clientWeb, Bot: true, CreatedAt: now.UnixMilli(),
		})
	})
	if database.IsDuplicate(err) {
		return fmt.Errorf("auth: bot.name or bot.email belongs to a user already: %w", err)
	}
	return err
}
