//go:build !seeded

package seeded

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
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

// A fault is found by what it breaks, and not by anything that is red.
func TestFound(t *testing.T) {
	for _, c := range []struct {
		bug  Bug
		red  []string
		want bool
	}{
		{NoWatermark, []string{"I7"}, true},
		{NoWatermark, []string{"I1", "I7", "I11"}, true},
		{NoWatermark, []string{"I11"}, false},
		{NoWatermark, nil, false},
		{SeqFromRedis, []string{"I1"}, true},
		{"unheard of", []string{"I1"}, false},
	} {
		if got := Found(c.bug, c.red); got != c.want {
			t.Errorf("%s with %v red: %v", c.bug, c.red, got)
		}
	}
}

// The list and the table of the document name the same invariants.
func TestEveryFaultSaysWhatItBreaks(t *testing.T) {
	doc, err := os.ReadFile("../../docs/guarantees.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range All {
		row := regexp.MustCompile(`(?m)^\| ` + string(b.Bug) + ` \|[^|]*\|[^|]*\|([^|]*)\|`).FindSubmatch(doc)
		if row == nil {
			t.Errorf("%s is not in the table", b.Bug)
			continue
		}
		found := strings.Fields(string(row[1]))
		for _, id := range strings.Fields(b.Breaks) {
			if !slices.Contains(found, id) {
				t.Errorf("%s breaks %s, and was found by %v", b.Bug, id, found)
			}
		}
		if b.Breaks == "" {
			t.Errorf("%s breaks nothing", b.Bug)
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
