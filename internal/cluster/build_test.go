package cluster

import (
	"os"
	"os/exec"
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
	state := State(t.TempDir())
	dir, err := state.Build(t.Context(), root, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range services {
		if _, err := os.Stat(filepath.Join(dir, s.name)); err != nil {
			t.Error(err)
		}
	}

	// Another cluster of the same clone builds something else: this one keeps what it has.
	logic := filepath.Join(dir, "logic")
	said := func() string {
		out, err := exec.CommandContext(t.Context(), logic).CombinedOutput()
		if err != nil {
			t.Error(err)
		}
		return string(out)
	}
	write("cmd/logic/main.go", "package main\n\nfunc main() { print(`new`) }\n")
	if _, err := State(t.TempDir()).Build(t.Context(), root, nil); err != nil {
		t.Fatal(err)
	}
	if got := said(); got != "" {
		t.Errorf("another's build changed what this cluster runs: it says %q", got)
	}
	if _, err := state.Build(t.Context(), root, nil); err != nil {
		t.Fatal(err)
	}
	if got := said(); got != "new" {
		t.Errorf("its own build changed nothing: it says %q", got)
	}
	copied := filepath.Join(t.TempDir(), "copy")
	if err := copyProgram(logic, copied); err != nil {
		t.Fatal(err)
	}
	if logic = copied; said() != "new" {
		t.Error("the copy is another program")
	}
}
