// Package micro gates the hot paths by what does not depend on how busy the
// machine is: allocations per operation, and instructions per operation where
// valgrind can count them. Times are shown, never judged.
//
// The accepted figures are in golden.txt, beside this file. A change that needs
// more says so by changing that file.
package micro

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Suite is a package's benchmarks that are gated.
type Suite struct {
	Package string // path in the repository
	// Bench is the regular expression of all its benchmarks.
	Bench string
	// Slack is how much more than accepted they may allocate; 0: 1.03. Where
	// goroutines hand work to each other, how often they do varies.
	Slack float64
	// Counted are those whose instructions are counted: one goroutine, no
	// sockets, the same work each time.
	Counted []string
}

// Suites are what is gated: codec, envelope, hub, and what else is on the path
// of every message.
var Suites = []Suite{
	{"internal/wire", "Benchmark(DecodeChat|DecodeHeartbeat|AppendChat)$", 0, []string{"BenchmarkDecodeChat", "BenchmarkDecodeHeartbeat", "BenchmarkAppendChat"}},
	{"internal/bench/micro", "BenchmarkEnvelope", 0, []string{"BenchmarkEnvelopeSeal", "BenchmarkEnvelopeOpen"}},
	{"internal/gateway", "Benchmark(Push|HubEach)", 1.3, nil},
	{"internal/logic", "BenchmarkBatcher", 1.1, nil},
	{"internal/token", "BenchmarkVerify$", 0, []string{"BenchmarkVerify"}},
}

// Figure is what one operation of a benchmark takes.
type Figure struct {
	Allocs       float64
	Instructions float64 // 0: not counted
}

// Key names a benchmark: package path, a blank, name.
func Key(pkg, name string) string { return pkg + " " + name }

var resultLine = regexp.MustCompile(`^(Benchmark\S+?)(?:-\d+)?\s+\d+\s+.*?([\d.]+) allocs/op`)

// Parse reads the output of go test -bench -benchmem of one package. Of repeated
// benchmarks the least counts: the others were disturbed.
func Parse(r io.Reader, pkg string, into map[string]Figure) error {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		m := resultLine.FindStringSubmatch(lines.Text())
		if m == nil {
			continue
		}
		allocs, err := strconv.ParseFloat(m[2], 64)
		if err != nil {
			return err
		}
		key := Key(pkg, m[1])
		f, again := into[key]
		if !again || allocs < f.Allocs {
			f.Allocs = allocs
		}
		into[key] = f
	}
	return lines.Err()
}

const goldenHead = "# What one operation of each hot path may take; `make bench-micro` compares, -update rewrites.\n# package benchmark allocations instructions (- = not counted)\n"

// WriteGolden writes the accepted figures.
func WriteGolden(file string, figures map[string]Figure) error {
	var b strings.Builder
	b.WriteString(goldenHead)
	keys := make([]string, 0, len(figures))
	for k := range figures {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		instructions := "-"
		if n := figures[k].Instructions; n > 0 {
			instructions = strconv.FormatFloat(math.Round(n), 'f', -1, 64)
		}
		fmt.Fprintf(&b, "%s %g %s\n", k, figures[k].Allocs, instructions)
	}
	return os.WriteFile(file, []byte(b.String()), 0o644) //nolint:gosec // part of the repository
}

// ReadGolden reads the accepted figures.
func ReadGolden(file string) (map[string]Figure, error) {
	text, err := os.ReadFile(file) //nolint:gosec // part of the repository
	if err != nil {
		return nil, err
	}
	out := map[string]Figure{}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		fields := strings.Fields(line)
		if len(fields) != 4 {
			return nil, fmt.Errorf("%s: %q", file, line)
		}
		f := Figure{}
		if f.Allocs, err = strconv.ParseFloat(fields[2], 64); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if fields[3] != "-" {
			if f.Instructions, err = strconv.ParseFloat(fields[3], 64); err != nil {
				return nil, fmt.Errorf("%s: %w", file, err)
			}
		}
		out[Key(fields[0], fields[1])] = f
	}
	return out, nil
}

// Tolerances. Instructions of the same binary vary by less than one in a
// hundred, those of the next version of the compiler by more.
const (
	allocSlack       = 1.03
	instructionSlack = 1.08
)

func slackOf(key string) float64 {
	for _, s := range Suites {
		if strings.HasPrefix(key, s.Package+" ") && s.Slack > 0 {
			return s.Slack
		}
	}
	return allocSlack
}

// Compare returns what got worse, and what got so much better that the golden
// file should say so.
func Compare(golden, got map[string]Figure) (worse, better []string) {
	for key, want := range golden {
		g, ok := got[key]
		if !ok {
			worse = append(worse, key+": the benchmark is gone")
			continue
		}
		if g.Allocs > math.Ceil(want.Allocs*slackOf(key)) || want.Allocs == 0 && g.Allocs > 0 {
			worse = append(worse, fmt.Sprintf("%s: %g allocations, %g accepted", key, g.Allocs, want.Allocs))
		} else if g.Allocs < math.Floor(want.Allocs/slackOf(key)) {
			better = append(better, fmt.Sprintf("%s: %g allocations, %g accepted", key, g.Allocs, want.Allocs))
		}
		switch {
		case want.Instructions == 0 || g.Instructions == 0:
		case g.Instructions > want.Instructions*instructionSlack:
			worse = append(worse, fmt.Sprintf("%s: %.0f instructions, %.0f accepted", key, g.Instructions, want.Instructions))
		case g.Instructions < want.Instructions/instructionSlack:
			better = append(better, fmt.Sprintf("%s: %.0f instructions, %.0f accepted", key, g.Instructions, want.Instructions))
		}
	}
	slices.Sort(worse)
	slices.Sort(better)
	return worse, better
}

// Runner builds and runs the suites.
type Runner struct {
	Root  string // of the repository
	Dir   string // for binaries and output
	Count int    // repetitions, for benchstat
	Time  string // per benchmark, as -benchtime
	Out   io.Writer
}

// ErrNoCounter means that this machine cannot count instructions.
var ErrNoCounter = errors.New("valgrind is not installed")

// Run runs all suites and returns their figures; the raw output, as benchstat
// reads it, goes to Dir/new.txt.
func (r *Runner) Run(ctx context.Context) (map[string]Figure, error) {
	if err := os.MkdirAll(r.Dir, 0o755); err != nil { //nolint:gosec // build output
		return nil, err
	}
	raw, err := os.Create(filepath.Join(r.Dir, "new.txt"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = raw.Close() }()
	valgrind, noValgrind := exec.LookPath("valgrind")
	if noValgrind != nil {
		_, _ = fmt.Fprintf(r.Out, "%v: instructions are not counted\n", ErrNoCounter)
	}
	figures := map[string]Figure{}
	for _, s := range Suites {
		bin, err := r.build(ctx, s)
		if err != nil {
			return nil, err
		}
		text, err := r.bench(ctx, s, bin)
		if err != nil {
			return nil, err
		}
		if _, err := raw.WriteString(text); err != nil {
			return nil, err
		}
		if err := Parse(strings.NewReader(text), s.Package, figures); err != nil {
			return nil, err
		}
		if noValgrind != nil {
			continue
		}
		for _, name := range s.Counted {
			n, err := r.count(ctx, valgrind, s, bin, name)
			if err != nil {
				return nil, err
			}
			f := figures[Key(s.Package, name)]
			f.Instructions = n
			figures[Key(s.Package, name)] = f
		}
	}
	return figures, nil
}

func (r *Runner) build(ctx context.Context, s Suite) (string, error) {
	bin := filepath.Join(r.Dir, strings.ReplaceAll(s.Package, "/", "-")+".test")
	cmd := exec.CommandContext(ctx, "go", "test", "-c", "-o", bin, "./"+s.Package) //nolint:gosec // our own list
	cmd.Dir = r.Root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", s.Package, err, out)
	}
	return bin, nil
}

func (r *Runner) bench(ctx context.Context, s Suite, bin string) (string, error) {
	cmd := exec.CommandContext(ctx, bin, "-test.run", "^$", "-test.bench", s.Bench, "-test.benchmem", //nolint:gosec // our own list
		"-test.count", strconv.Itoa(r.Count), "-test.benchtime", r.Time)
	cmd.Dir = filepath.Join(r.Root, s.Package)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("run %s: %w\n%s", s.Package, err, out)
	}
	_, _ = r.Out.Write(out)
	return string(out), nil
}

// Repetitions of the two counted runs; their difference leaves out what the
// program does before and after.
const (
	countFew  = 500
	countMany = 2500
)

var instructionLine = regexp.MustCompile(`I\s+refs:\s+([\d,]+)`)

// count returns the instructions of one operation.
func (r *Runner) count(ctx context.Context, valgrind string, s Suite, bin, name string) (float64, error) {
	var total [2]float64
	for i, n := range []int{countFew, countMany} {
		cmd := exec.CommandContext(ctx, valgrind, "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null", //nolint:gosec // our own list
			bin, "-test.run", "^$", "-test.bench", "^"+name+"$", "-test.benchtime", strconv.Itoa(n)+"x")
		cmd.Dir = filepath.Join(r.Root, s.Package)
		cmd.Env = append(os.Environ(), "GOMAXPROCS=1", "GOGC=off", "GODEBUG=asyncpreemptoff=1")
		out, err := cmd.CombinedOutput()
		if err != nil {
			return 0, fmt.Errorf("count %s: %w\n%s", name, err, out)
		}
		m := instructionLine.FindSubmatch(out)
		if m == nil {
			return 0, fmt.Errorf("count %s: no figure in\n%s", name, out)
		}
		if total[i], err = strconv.ParseFloat(strings.ReplaceAll(string(m[1]), ",", ""), 64); err != nil {
			return 0, err
		}
	}
	return (total[1] - total[0]) / (countMany - countFew), nil
}
