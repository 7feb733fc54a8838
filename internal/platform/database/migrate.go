package database

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"log/slog"
	"regexp"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

// tableName is what may stand for a version table in SQL.
var tableName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,63}$`)

// Migrate applies, in order, the migrations in dir of fsys that the database
// lacks. Several processes may call it at once: one works, the others wait.
// When ctx ends, the migration that is being applied is finished first: cut off
// between a statement, which the server goes on with, and the note that it was
// applied, it would be applied again.
// Use a pool of its own, opened with Config.ForMigration: the lock needs
// connections besides the one that migrates.
func Migrate(ctx context.Context, db *sqlx.DB, fsys fs.FS, dir, versionTable string) error {
	if n := db.Stats().MaxOpenConnections; n > 0 && n < 3 {
		return fmt.Errorf("database: migrate: a pool of %d connections is too small", n)
	}
	locker, err := lock.NewMySQLTableLocker(
		lock.WithTableName(versionTable+"_lock"),
		lock.WithTableLockID(int64(crc32.ChecksumIEEE([]byte(versionTable)))),
		lock.WithTableLeaseDuration(30*time.Second),
		lock.WithTableHeartbeatInterval(5*time.Second),
		lock.WithTableLockTimeout(time.Second, 300),
		lock.WithTableUnlockTimeout(time.Second, 10),
	)
	if err != nil {
		return fmt.Errorf("database: migrate: %w", err)
	}
	p, err := provider(db, fsys, dir, versionTable, goose.WithLocker(locker))
	if err != nil {
		return err
	}
	for {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("database: migrate: %w", err)
		}
		r, err := p.UpByOne(context.WithoutCancel(ctx))
		if errors.Is(err, goose.ErrNoNextVersion) {
			break
		}
		if err != nil {
			return fmt.Errorf("database: migrate: %w", err)
		}
		slog.InfoContext(ctx, "migrated", "version", r.Source.Version, "took", r.Duration)
	}
	return checkLocks(ctx, db, versionTable)
}

// CheckVersion refuses a database that lacks a migration of this binary, and an
// engine whose row locks do not block. It changes nothing. A database that is
// ahead is accepted: during a rolling restart the newer binary migrates first.
func CheckVersion(ctx context.Context, db *sqlx.DB, fsys fs.FS, dir, versionTable string) error {
	if n := db.Stats().MaxOpenConnections; n > 0 && n < 2 {
		return errors.New("database: max_open is 1: two connections are the least that works")
	}
	p, err := provider(db, fsys, dir, versionTable)
	if err != nil {
		return err
	}
	sources := p.ListSources()
	want := sources[len(sources)-1].Version
	var have int64
	err = db.GetContext(ctx, &have, "SELECT COALESCE(MAX(version_id), 0) FROM "+versionTable+" WHERE is_applied = 1")
	if number(err) == errNoSuchTable {
		have, err = 0, nil
	}
	if err != nil {
		return fmt.Errorf("database: version: %w", err)
	}
	if have < want {
		return fmt.Errorf("database: the schema is at version %d, this binary needs %d: run it with -migrate first", have, want)
	}
	return checkLocks(ctx, db, versionTable)
}

// errNoSuchTable: nothing was ever migrated.
const errNoSuchTable = 1146

func provider(db *sqlx.DB, fsys fs.FS, dir, versionTable string, opts ...goose.ProviderOption) (*goose.Provider, error) {
	if !tableName.MatchString(versionTable) {
		return nil, fmt.Errorf("database: version table %q: want lower case letters, digits and _", versionTable)
	}
	sub, err := fs.Sub(fsys, dir)
	if err != nil {
		return nil, fmt.Errorf("database: migrations: %w", err)
	}
	opts = append(opts,
		goose.WithTableName(versionTable),
		goose.WithDisableGlobalRegistry(true),
		goose.WithSlog(slog.New(slog.DiscardHandler)),
	)
	p, err := goose.NewProvider(goose.DialectMySQL, db.DB, sub, opts...)
	if err != nil {
		return nil, fmt.Errorf("database: migrations: %w", err)
	}
	return p, nil
}

// checkLocks proves that a second session cannot lock a row the first has
// locked. Engines without that lose increments without an error, whatever name
// they answer with, so behaviour is asked and not the name.
func checkLocks(ctx context.Context, db *sqlx.DB, table string) error {
	first, err := db.BeginTxx(ctx, nil)
	if err != nil {
		return fmt.Errorf("database: lock check: %w", err)
	}
	defer first.Rollback() //nolint:errcheck // it only read
	var id int64
	query := "SELECT id FROM " + table + " ORDER BY id LIMIT 1 FOR UPDATE"
	if err := first.GetContext(ctx, &id, query); err != nil {
		return fmt.Errorf("database: lock check: %w", err)
	}
	second, err := db.BeginTxx(ctx, nil)
	if err != nil {
		return fmt.Errorf("database: lock check: %w", err)
	}
	defer second.Rollback() //nolint:errcheck // it only read
	err = second.GetContext(ctx, &id, query+" NOWAIT")
	if number(err) == errParse { // MySQL 5.7: wait for it
		if _, err = second.ExecContext(ctx, "SET SESSION innodb_lock_wait_timeout = 1"); err != nil {
			return fmt.Errorf("database: lock check: %w", err)
		}
		err = second.GetContext(ctx, &id, query)
	}
	switch n := number(err); {
	case err == nil:
		return errors.New("database: row locks of this engine do not block; use MySQL, MariaDB or TiDB")
	case n == errLockWaitTimeout, n == errLockNoWait:
		return nil
	default:
		return fmt.Errorf("database: lock check: %w", err)
	}
}
