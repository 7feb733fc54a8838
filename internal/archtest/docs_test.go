package archtest

import (
	"go/parser"
	"go/token"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestPackageDocs wants exactly one package comment for each package: two are
// joined by godoc in the order of file names, which nobody intends.
func TestPackageDocs(t *testing.T) {
	for _, p := range packages(t) {
		if strings.HasPrefix(p.name(), "api/") {
			continue // generated; documented in the .proto files
		}
		files := slices.Concat(p.GoFiles, p.CgoFiles)
		if len(files) == 0 {
			files = slices.Concat(p.TestGoFiles, p.XTestGoFiles)
		}
		var with []string
		for _, name := range files {
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.PackageClauseOnly|parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			if f.Doc == nil {
				continue
			}
			with = append(with, name)
			want := "Package " + f.Name.Name + " "
			if f.Name.Name == "main" {
				want = "Command " + path.Base(p.ImportPath) + " " // a checkout may have any name
			}
			if text := f.Doc.Text(); !strings.HasPrefix(text, want) && !strings.HasPrefix(text, strings.TrimSuffix(want, " ")+":") {
				t.Errorf("%s/%s: the package comment does not begin with %q", p.name(), name, want)
			}
		}
		if len(with) != 1 {
			t.Errorf("%s: want one package comment, have %d: %v", p.name(), len(with), with)
		}
	}
}
