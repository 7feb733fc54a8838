package archtest

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The promises that docs/guarantees.md makes are G1 to promised.
const promised = 18

var (
	promiseRow = regexp.MustCompile(`^\| G(\d+) \|`)
	// proof is a link to a file of tests and the names that follow it.
	proof     = regexp.MustCompile("\\[[^\\]]+\\]\\(\\.\\./([^)#]+_test\\.go)\\)((?::|,)(?:,?\\s*`[A-Za-z0-9_]+`)+)?")
	proofName = regexp.MustCompile("`([A-Za-z0-9_]+)`")
	quoted    = regexp.MustCompile("`[^`]*`")
)

// TestPromises_HaveTheTestsThatTheDocsName wants every promise to have tests that
// are named after it, and every test that the page names to be there.
func TestPromises_HaveTheTestsThatTheDocsName(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(root(t), "docs", "guarantees.md"))
	if err != nil {
		t.Fatal(err)
	}
	read := func(file string) (string, error) {
		text, err := os.ReadFile(filepath.Join(root(t), filepath.FromSlash(file)))
		return string(text), err
	}
	for _, fault := range unproven(string(page), read) {
		t.Error(fault)
	}
}

// unproven returns what is wrong with the proofs that a page names.
func unproven(page string, read func(file string) (string, error)) (faults []string) {
	seen := map[string]bool{}
	for line := range strings.Lines(page) {
		row := promiseRow.FindStringSubmatch(line)
		if row == nil {
			continue
		}
		promise, found := row[1], 0
		for _, q := range quoted.FindAllString(line, -1) {
			if strings.Contains(q, "…") || strings.Contains(q, "...") {
				faults = append(faults, fmt.Sprintf("G%s: %s is not a whole name", promise, q))
			}
		}
		for _, p := range proof.FindAllStringSubmatch(line, -1) {
			text, err := read(p[1])
			if err != nil {
				faults = append(faults, fmt.Sprintf("G%s: %v", promise, err))
				continue
			}
			names := proofName.FindAllStringSubmatch(p[2], -1)
			if len(names) == 0 && !strings.Contains(text, "\nfunc TestG"+promise+"_") {
				faults = append(faults, fmt.Sprintf("G%s: %s has no test named after it", promise, p[1]))
			}
			for _, n := range names {
				if !strings.Contains(text, "\nfunc TestG"+promise+"_"+n[1]+"(") {
					faults = append(faults, fmt.Sprintf("G%s: %s has no TestG%s_%s", promise, p[1], promise, n[1]))
				}
			}
			found++
		}
		if found == 0 {
			faults = append(faults, fmt.Sprintf("G%s: no test is named", promise))
		}
		seen[promise] = true
	}
	for g := 1; g <= promised; g++ {
		if !seen[fmt.Sprint(g)] {
			faults = append(faults, fmt.Sprintf("G%d is not on the page", g))
		}
	}
	return faults
}

// The rule above must be able to fail.
func TestPromises_CanFail(t *testing.T) {
	var whole strings.Builder
	for g := range promised {
		fmt.Fprintf(&whole, "| G%d | It holds. | I1 | [a](../a_test.go): `Holds`, `Again`; [b](../b_test.go) |\n", g+1)
	}
	read := func(change func(string) string) func(string) (string, error) {
		return func(file string) (string, error) {
			if file != "a_test.go" && file != "b_test.go" {
				return "", os.ErrNotExist
			}
			var text strings.Builder
			for g := range promised {
				fmt.Fprintf(&text, "\nfunc TestG%d_Holds(t *testing.T) {}\nfunc TestG%[1]d_Again(t *testing.T) {}\n", g+1)
			}
			return change(text.String()), nil
		}
	}
	same := func(s string) string { return s }
	if got := unproven(whole.String(), read(same)); len(got) != 0 {
		t.Fatalf("a whole page: %v", got)
	}
	for what, c := range map[string]struct {
		page string
		read func(string) (string, error)
	}{
		"a promise is missing":  {strings.Replace(whole.String(), "| G7 |", "| G77 |", 1), read(same)},
		"a file is missing":     {strings.Replace(whole.String(), "../a_test.go", "../c_test.go", 1), read(same)},
		"a test is missing":     {whole.String(), read(func(s string) string { return strings.Replace(s, "TestG7_Again", "TestG7_Other", 1) })},
		"all tests are missing": {whole.String(), read(func(s string) string { return strings.ReplaceAll(s, "TestG7_", "Test_") })},
		"a name is cut short":   {strings.Replace(whole.String(), "`Again`", "`…Again`", 1), read(same)},
		"a name ends in dots":   {strings.Replace(whole.String(), "`Again`", "`Ag...`", 1), read(same)},
		"no test is named":      {strings.Replace(whole.String(), "[a](../a_test.go): `Holds`, `Again`; [b](../b_test.go)", "", 1), read(same)},
	} {
		if got := unproven(c.page, c.read); len(got) == 0 {
			t.Errorf("%s: not noticed", what)
		}
	}
}
