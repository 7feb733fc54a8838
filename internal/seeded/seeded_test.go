//go:build !seeded

package seeded

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// A normal build must not have a fault, whatever its environment says.
func TestNormalBuildsHaveNoFault(t *testing.T) {
	for _, b := range All {
		t.Setenv("IM_SEEDED_BUG", string(b.Bug))
		if On(b.Bug) {
			t.Error(b.Bug)
		}
	}
}

// Every fault is built in somewhere, and known to the list.
func TestEveryFaultIsBuiltIn(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	names := map[Bug]string{}
	for _, m := range regexp.MustCompile(`\t(\w+)\s+Bug = "(\w+)"`).FindAllStringSubmatch(string(doc), -1) {
		names[Bug(m[2])] = m[1]
	}
	if len(names) != len(All) {
		t.Errorf("%d names, %d in the list", len(names), len(All))
	}
	used := map[string]bool{}
	for _, pattern := range []string{"../*/*.go", "../../cmd/*/*.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range regexp.MustCompile(`seeded\.On\(seeded\.(\w+)\)`).FindAllStringSubmatch(string(text), -1) {
				used[m[1]] = true
			}
		}
	}
	for _, b := range All {
		if !used[names[b.Bug]] {
			t.Errorf("%s is nowhere", b.Bug)
		}
	}
}
