package catalog

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// codes that may stand in an entry, by the public protocol.
var (
	restCodes = []int{401, 404, 405, 500, 507, 1000, 1001, 1003}
	wsCodes   = []int{500, 1003}
)

func TestEntries_AreComplete(t *testing.T) {
	for _, reason := range Reasons() {
		e, ok := Lookup(reason)
		require.True(t, ok)
		require.Regexp(t, `^[a-z][a-z0-9_]*$`, reason)
		require.Contains(t, restCodes, e.REST, reason)
		require.Contains(t, wsCodes, e.WS, reason)
		for _, text := range []string{e.ZH, e.EN, e.Cause, e.Fix} {
			require.NotEmpty(t, text, reason)
			require.True(t, utf8.ValidString(text), reason)
		}
		require.Truef(t, hasHan(e.ZH), "%s: zh has no Chinese: %s", reason, e.ZH)
		require.Falsef(t, hasHan(e.EN), "%s: en has Chinese: %s", reason, e.EN)
	}
}

func hasHan(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r >= 0x4e00 && r <= 0x9fff })
}

func TestText_Languages(t *testing.T) {
	e, ok := Lookup("unauthorized")
	require.True(t, ok)
	require.Equal(t, e.ZH, Text("unauthorized", Chinese))
	require.Equal(t, e.EN, Text("unauthorized", English))
	require.Equal(t, e.ZH, Text("unauthorized", "fr"), "Chinese is the default")
	internal, _ := Lookup(Internal)
	require.Equal(t, internal.EN, Text("no_such_reason", English))
}

func TestLanguage(t *testing.T) {
	for header, want := range map[string]string{
		"": Chinese, "*": Chinese, "zh-CN,zh;q=0.9,en;q=0.8": Chinese, "en": English, "en-US,en;q=0.9,zh;q=0.1": English,
		"fr, en;q=0.5": English, "fr": Chinese, "EN-gb": English, ";;,": Chinese, "fr;q=1,*": Chinese,
		"en;q=0.1,zh;q=0.9": Chinese, "zh;q=0,en": English, "zh-Hant-TW": Chinese,
	} {
		require.Equal(t, want, Language(header), "%q", header)
	}
}

// A reason without an entry would reach clients as "internal error"; an entry
// without a use is a text nobody maintains.
func TestReasons_AreTheOnesInTheSource(t *testing.T) {
	used, literals := scan(t, filepath.Join("..", ".."))
	var missing []string
	for reason, where := range used {
		if _, ok := Lookup(reason); !ok {
			missing = append(missing, reason+" ("+where+")")
		}
	}
	slices.Sort(missing)
	require.Empty(t, missing, "reasons that errors.yaml does not have")

	var unused []string
	for _, reason := range Reasons() {
		if !literals[reason] {
			unused = append(unused, reason)
		}
	}
	require.Empty(t, unused, "entries of errors.yaml that no source mentions")
	require.Greater(t, len(used), 50, "the scan finds the reasons at all")
}

// scan returns the reasons that can be traced into im.E or im.Error, with a
// place, and all string literals of the source.
func scan(t *testing.T, root string) (used map[string]string, literals map[string]bool) {
	t.Helper()
	used, literals = map[string]string{}, map[string]bool{}
	dirs := map[string][]*ast.File{}
	fset := token.NewFileSet()
	for _, top := range []string{"internal", "cmd"} {
		err := filepath.WalkDir(filepath.Join(root, top), func(path string, d fs.DirEntry, err error) error {
			if os.IsNotExist(err) {
				return nil
			}
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			f, err := parser.ParseFile(fset, path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			dirs[filepath.Dir(path)] = append(dirs[filepath.Dir(path)], f)
			return nil
		})
		require.NoError(t, err)
	}
	for dir, files := range dirs {
		if filepath.Base(dir) == "catalog" {
			continue
		}
		p := &pkg{files: files, consts: map[string]string{}, sinks: map[string]map[int]bool{}, used: used, fset: fset}
		p.run(literals)
	}
	return used, literals
}

// pkg follows reasons through one package: which functions hand a parameter of
// theirs to im.E, and what they are called with.
type pkg struct {
	files  []*ast.File
	consts map[string]string
	sinks  map[string]map[int]bool // function or method name: its parameters that are reasons
	used   map[string]string
	fset   *token.FileSet
}

func (p *pkg) run(literals map[string]bool) {
	for _, f := range p.files {
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.BasicLit:
				if s, ok := literal(n); ok {
					literals[s] = true
				}
			case *ast.ValueSpec:
				for i, name := range n.Names {
					if i < len(n.Values) {
						if s, ok := literal(n.Values[i]); ok {
							p.consts[name.Name] = s
							if strings.HasPrefix(name.Name, "reason") {
								p.used[s] = p.fset.Position(n.Pos()).String()
							}
						}
					}
				}
			}
			return true
		})
	}
	for before := -1; before != p.size(); { // until nothing new is found
		before = p.size()
		for _, f := range p.files {
			for _, d := range f.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok && fn.Body != nil {
					p.visit(fn)
				}
			}
		}
	}
}

func (p *pkg) size() int {
	n := 0
	for _, params := range p.sinks {
		n += len(params)
	}
	return n
}

func (p *pkg) visit(fn *ast.FuncDecl) {
	ast.Inspect(fn.Body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CallExpr:
			for i := range p.sinkParams(n.Fun) {
				if i < len(n.Args) {
					p.reason(fn, n.Args[i])
				}
			}
		case *ast.CompositeLit:
			if !isSelector(n.Type, "im", "Error") {
				return true
			}
			for _, el := range n.Elts {
				if kv, ok := el.(*ast.KeyValueExpr); ok && isIdent(kv.Key, "Reason") {
					p.reason(fn, kv.Value)
				}
			}
		}
		return true
	})
}

func (p *pkg) sinkParams(fun ast.Expr) map[int]bool {
	if isSelector(fun, "im", "E") {
		return map[int]bool{1: true}
	}
	switch f := fun.(type) {
	case *ast.Ident:
		return p.sinks[f.Name]
	case *ast.SelectorExpr:
		return p.sinks[f.Sel.Name]
	}
	return nil
}

// reason notes what an expression that is used as a reason can be.
func (p *pkg) reason(fn *ast.FuncDecl, e ast.Expr) {
	if s, ok := literal(e); ok {
		p.used[s] = p.fset.Position(e.Pos()).String()
		return
	}
	id, ok := e.(*ast.Ident)
	if !ok {
		return
	}
	if s, ok := p.consts[id.Name]; ok {
		p.used[s] = p.fset.Position(e.Pos()).String()
		return
	}
	i := 0
	for _, field := range fn.Type.Params.List {
		for _, name := range field.Names {
			if name.Name == id.Name {
				if p.sinks[fn.Name.Name] == nil {
					p.sinks[fn.Name.Name] = map[int]bool{}
				}
				p.sinks[fn.Name.Name][i] = true
			}
			i++
		}
	}
	ast.Inspect(fn.Body, func(n ast.Node) bool { // a local variable: whatever is put into it
		if as, ok := n.(*ast.AssignStmt); ok {
			for i, l := range as.Lhs {
				if isIdent(l, id.Name) && i < len(as.Rhs) {
					if s, ok := literal(as.Rhs[i]); ok {
						p.used[s] = p.fset.Position(as.Pos()).String()
					}
				}
			}
		}
		return true
	})
}

func literal(e ast.Expr) (string, bool) {
	b, ok := e.(*ast.BasicLit)
	if !ok || b.Kind != token.STRING {
		return "", false
	}
	s, err := strconv.Unquote(b.Value)
	return s, err == nil
}

func isIdent(e ast.Expr, name string) bool {
	id, ok := e.(*ast.Ident)
	return ok && id.Name == name
}

func isSelector(e ast.Expr, pkg, name string) bool {
	s, ok := e.(*ast.SelectorExpr)
	return ok && s.Sel.Name == name && isIdent(s.X, pkg)
}

func TestScan_FollowsReasons(t *testing.T) {
	dir := t.TempDir()
	src := `package x
const reasonFour = "four"
func f() { im.E(0, "one", nil); g("two"); h(0, reasonFour); r := "five"; im.E(0, r, nil) }
func g(reason string) error { return im.E(0, reason, nil) }
func h(n int, why string) error { return g(why) }
var e = 3
func k() any { h(1, "three"); return &im.Error{Reason: "six"} }
`
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "internal", "x"), 0o755))
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "cmd"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "internal", "x", "x.go"), []byte(src), 0o600))
	used, literals := scan(t, dir)
	for _, want := range []string{"one", "two", "three", "four", "five", "six"} {
		require.Contains(t, used, want)
		require.True(t, literals[want])
	}
	require.Len(t, used, 6)
}
