package testkit

import (
	"database/sql"
	"io/fs"
	"regexp"
	"testing"
	"testing/fstest"
)

// RepeatMigrations applies the migrations in dir of fsys one after another, and each
// that changes the schema once more, as if its process had died before it was noted.
// migrate applies what table does not say is applied, to the database of dsn.
func RepeatMigrations(t testing.TB, dsn string, fsys fs.FS, dir, table string, migrate func(fsys fs.FS, dir string) error) {
	t.Helper()
	db, err := sql.Open("mysql", dsn)
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
		path := dir + "/" + e.Name()
		if dir == "." {
			path = e.Name()
		}
		text, err := fs.ReadFile(fsys, path)
		if err != nil {
			t.Fatal(err)
		}
		so[path] = &fstest.MapFile{Data: text}
		if err := migrate(so, dir); err != nil {
			t.Fatalf("%s: %v", e.Name(), err)
		}
		if !schema.Match(text) {
			continue
		}
		repeated++
		if _, err := db.ExecContext(t.Context(), "DELETE FROM "+table+" WHERE version_id = ?", e.Name()[:5]); err != nil { //nolint:gosec // of a service, a constant
			t.Fatal(err)
		}
		if err := migrate(so, dir); err != nil {
			t.Errorf("%s, once more: %v", e.Name(), err)
		}
	}
	if repeated == 0 {
		t.Error("there is no migration")
	}
}
