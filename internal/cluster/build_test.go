package cluster

import (
	"os"
	"path/filepath"
	"testing"
)

// Where git refuses, as in a clone of another user's, the services are built all
// the same.
func TestBuild_WithoutAnAnswerFromGit(t *testing.T) {
	root := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("go.mod", "module x\n")
	write(".git/HEAD", "no repository")
	for _, s := range services {
		write(filepath.Join("cmd", s.name, "main.go"), "package main\n\nfunc main() {}\n")
	}
	t.Setenv("GOFLAGS", "-buildvcs=auto")
	dir, err := Build(t.Context(), root, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range services {
		if _, err := os.Stat(filepath.Join(dir, s.name)); err != nil {
			t.Error(err)
		}
	}
}
