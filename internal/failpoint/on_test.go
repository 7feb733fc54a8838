//go:build failpoint

package failpoint

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestActions(t *testing.T) {
	t.Cleanup(func() { _ = Set("") })
	if err := Set("a=error@2*2; b=sleep(20ms);c=panic"); err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{false, true, true, false} {
		if err := Hit("a"); errors.Is(err, ErrInjected) != want {
			t.Errorf("hit %d: %v", i+1, err)
		}
	}
	if n := Acts("a"); n != 2 {
		t.Errorf("acted %d times", n)
	}
	began := time.Now()
	if err := Hit("b"); err != nil || time.Since(began) < 20*time.Millisecond {
		t.Errorf("sleep: %v after %v", err, time.Since(began))
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("no panic")
			}
		}()
		_ = Hit("c")
	}()
	if err := Hit("unarmed"); err != nil {
		t.Error(err)
	}
}

func TestBadSpecs(t *testing.T) {
	for _, spec := range []string{"a", "=error", "a=explode", "a=error@0", "a=error*0", "a=error*x", "a=sleep(x)", "a=sleep(-1s)", "a=error;b"} {
		if err := Set(spec); err == nil {
			t.Errorf("%q was taken", spec)
		}
	}
}

// What is armed by file is armed in a running process, and acts as often as
// said over all lives: a process that starts again does not act again.
func TestFileArmsOnceOverLives(t *testing.T) {
	file := filepath.Join(t.TempDir(), "points")
	points.file = file
	t.Cleanup(func() { points.file = ""; _ = Set("") })
	if err := os.WriteFile(file, []byte("a=error*1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * filePoll)
	if err := Hit("a"); !errors.Is(err, ErrInjected) {
		t.Fatal("not armed by the file:", err)
	}
	if _, err := os.Stat(file + ".a.1"); err != nil {
		t.Error("no proof:", err)
	}
	points.written = time.Time{} // as a new life, that knows nothing
	time.Sleep(2 * filePoll)
	if err := Hit("a"); err != nil {
		t.Error("acted twice:", err)
	}
}
