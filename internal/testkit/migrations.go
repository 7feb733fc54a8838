package testkit

import (
	"io/fs"
	"path"
	"regexp"
	"testing"
	"testing/fstest"

	"im-services/internal/platform/config"
	"im-services/internal/platform/database"
)

// RepeatMigrations applies the migrations in dir of fsys one after another, and each
// that changes the schema once more, as if its process had died before it was noted in
// table: that must not keep the next one from going on.
func RepeatMigrations(t testing.TB, fsys fs.FS, dir, table string) {
	t.Helper()
	db, err := database.Open(t.Context(), database.Config{DSN: config.Secret(MySQL(t))}.ForMigration())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	entries, err := fs.ReadDir(fsys, dir)
	if err != nil {
		t.Fatal(err)
	}
	// A statement that changes rows is undone with the note.
	schema := regexp.MustCompile(`(?m)^(CREATE|ALTER|DROP) `)
	so := fstest.MapFS{}
	repeated := 0
	for _, e := range entries {
		if len(e.Name()) < 5 || e.Name()[5] != '_' {
			continue
		}
		file := path.Join(dir, e.Name())
		text, err := fs.ReadFile(fsys, file)
		if err != nil {
			t.Fatal(err)
		}
		so[file] = &fstest.MapFile{Data: text}
		if err := database.Migrate(t.Context(), db, so, dir, table); err != nil {
			t.Fatalf("%s: %v", e.Name(), err)
		}
		if !schema.Match(text) {
			continue
		}
		repeated++
		if _, err := db.ExecContext(t.Context(), "DELETE FROM "+table+" WHERE version_id = ?", e.Name()[:5]); err != nil { //nolint:gosec // of a service, a constant
			t.Fatal(err)
		}
		if err := database.Migrate(t.Context(), db, so, dir, table); err != nil {
			t.Errorf("%s, once more: %v", e.Name(), err)
		}
	}
	if repeated == 0 {
		t.Error("there is no migration")
	}
}
