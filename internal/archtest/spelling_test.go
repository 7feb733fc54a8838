package archtest

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	// legacy is the client protocol's spelling of a sender. Everywhere else it
	// is sender_id, so that nobody has to guess which of two words is meant.
	legacy = regexp.MustCompile(`form_id|FormID|FormId|formID`)
	// unnamed is work left without an issue to find it by. The patterns are written
	// so that a search for such work does not find them.
	unnamed = regexp.MustCompile(`\b(T[O]DO|F[I]XME|X{3})\b`)
	skipped = regexp.MustCompile(`\b[tbf]b?\.S[k]ip(f|Now)?\(`)
	named   = regexp.MustCompile(`\bT[O]DO\(#\d+\)`)
)

// legacyAllowed lists who speaks the client protocol: its package, and tests
// that look at the system from outside.
func legacyAllowed(path string) bool {
	for _, folder := range []string{"internal/wire/", "internal/archtest/"} {
		if strings.HasPrefix(path, folder) {
			return true
		}
	}
	if !strings.HasSuffix(path, "_test.go") {
		return false
	}
	for _, folder := range []string{"internal/rest/", "internal/gateway/", "internal/e2e/", "internal/conformance/", "internal/imclient/", "internal/bench/"} {
		if strings.HasPrefix(path, folder) {
			return true
		}
	}
	return false
}

func TestSpelling(t *testing.T) {
	base := root(t)
	seen := 0
	err := filepath.WalkDir(base, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(base, path)
		if d.IsDir() {
			if name != "." && (strings.HasPrefix(d.Name(), ".") || name == "bin" || d.Name() == "testdata") {
				return filepath.SkipDir
			}
			return nil
		}
		switch filepath.Ext(path) {
		case ".go", ".sql", ".proto":
		default:
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		seen++
		for i, line := range bytes.Split(text, []byte("\n")) {
			if legacy.Match(line) && !legacyAllowed(filepath.ToSlash(name)) {
				t.Errorf("%s:%d: a legacy spelling outside internal/wire: %s", name, i+1, bytes.TrimSpace(line))
			}
			if unnamed.Match(line) && !named.Match(line) {
				t.Errorf("%s:%d: unfinished work without an issue: %s", name, i+1, bytes.TrimSpace(line))
			}
			if skipped.Match(line) {
				t.Errorf("%s:%d: a test that is skipped proves nothing: %s", name, i+1, bytes.TrimSpace(line))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen < 50 {
		t.Errorf("only %d files were looked at", seen)
	}
}
