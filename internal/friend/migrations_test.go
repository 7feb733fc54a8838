package friend

import (
	"io/fs"
	"testing"

	"im-services/internal/platform/config"
	"im-services/internal/platform/database"
	"im-services/internal/testkit"
)

// A process that died before it could note a change of the schema does not keep the
// next one from going on.
func TestMigrations_BearBeingRepeated(t *testing.T) {
	dsn := testkit.MySQL(t)
	db, err := database.Open(t.Context(), database.Config{DSN: config.Secret(dsn)}.ForMigration())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	testkit.RepeatMigrations(t, dsn, Migrations, MigrationsDir, VersionTable, func(fsys fs.FS, dir string) error {
		return database.Migrate(t.Context(), db, fsys, dir, VersionTable)
	})
}
