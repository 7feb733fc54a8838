//go:build failpoint

package failpoint

import (
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Enabled tells whether this build has failpoints.
const Enabled = true

// exitCode is what a process ends with at the action exit: that of SIGKILL.
const exitCode = 137

// filePoll is how old the knowledge of the file may be.
const filePoll = 10 * time.Millisecond

// action is what a point does.
type action struct {
	verb  string
	sleep time.Duration
	from  int64 // the first hit that acts
	most  int64 // how often; 0: always

	hits, acts atomic.Int64
}

// points is everything that is armed. Safe for concurrent use.
var points struct {
	mu      sync.Mutex // guards the following fields
	set     map[string]*action
	file    string
	written time.Time // the file's, when it was read
	looked  time.Time
	broken  string // the file's content that could not be understood
}

func init() {
	set, err := parse(os.Getenv("IM_FAILPOINTS"))
	if err != nil {
		panic("IM_FAILPOINTS: " + err.Error())
	}
	points.set, points.file = set, os.Getenv("IM_FAILPOINTS_FILE")
}

// Set arms exactly what spec says, in the words of the package comment; an
// empty spec disarms everything. Hits count from zero again.
func Set(spec string) error {
	set, err := parse(spec)
	if err != nil {
		return err
	}
	points.mu.Lock()
	points.set = set
	points.mu.Unlock()
	return nil
}

// Acts returns how often the named point has acted since it was armed.
func Acts(name string) int64 {
	points.mu.Lock()
	defer points.mu.Unlock()
	if a := points.set[name]; a != nil {
		return a.acts.Load()
	}
	return 0
}

// Hit does what the named point is armed to do. Safe for concurrent use.
func Hit(name string) error {
	a := armed(name)
	if a == nil || a.hits.Add(1) < a.from || !a.claim(name) {
		return nil
	}
	slog.Warn("failpoint", "name", name, "action", a.verb)
	switch a.verb {
	case "panic":
		panic("failpoint " + name)
	case "exit":
		os.Exit(exitCode)
	case "sleep":
		time.Sleep(a.sleep)
		return nil
	}
	return fmt.Errorf("%w at %s", ErrInjected, name)
}

func armed(name string) *action {
	points.mu.Lock()
	defer points.mu.Unlock()
	if points.file != "" && time.Since(points.looked) > filePoll {
		points.looked = time.Now()
		readFileLocked()
	}
	return points.set[name]
}

// readFileLocked takes in the file if it changed. What cannot be understood
// disarms everything: the test that wrote it sees that nothing happens.
func readFileLocked() {
	info, err := os.Stat(points.file)
	if err != nil || info.ModTime().Equal(points.written) {
		return
	}
	text, err := os.ReadFile(points.file)
	if err != nil {
		return
	}
	points.written = info.ModTime()
	if points.set, err = parse(strings.TrimSpace(string(text))); err != nil && points.broken != string(text) {
		points.broken = string(text)
		slog.Error("failpoint: the file cannot be understood", "err", err)
	}
}

// claim counts one act, unless there were enough.
func (a *action) claim(name string) bool {
	if a.most == 0 {
		a.acts.Add(1)
		return true
	}
	if points.file == "" {
		if a.acts.Add(1) > a.most {
			a.acts.Add(-1)
			return false
		}
		return true
	}
	for n := int64(1); n <= a.most; n++ {
		f, err := os.OpenFile(points.file+"."+name+"."+strconv.FormatInt(n, 10), os.O_CREATE|os.O_EXCL, 0o600)
		if err == nil {
			_ = f.Close()
			a.acts.Add(1)
			return true
		}
	}
	return false
}

// parse reads name=action;name=action.
func parse(spec string) (map[string]*action, error) {
	set := map[string]*action{}
	for part := range strings.SplitSeq(spec, ";") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		name, what, ok := strings.Cut(part, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("%q is not name=action", part)
		}
		a, err := parseAction(what)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		set[name] = a
	}
	return set, nil
}

// parseAction reads verb, then @N, then *M.
func parseAction(what string) (*action, error) {
	a := &action{from: 1}
	var err error
	if verb, most, ok := strings.Cut(what, "*"); ok {
		if a.most, err = strconv.ParseInt(most, 10, 32); err != nil || a.most < 1 {
			return nil, fmt.Errorf("%q: how often must be 1 or more", most)
		}
		what = verb
	}
	if verb, from, ok := strings.Cut(what, "@"); ok {
		if a.from, err = strconv.ParseInt(from, 10, 32); err != nil || a.from < 1 {
			return nil, fmt.Errorf("%q: which hit must be 1 or more", from)
		}
		what = verb
	}
	if d, ok := strings.CutPrefix(what, "sleep("); ok && strings.HasSuffix(d, ")") {
		if a.sleep, err = time.ParseDuration(strings.TrimSuffix(d, ")")); err != nil || a.sleep < 0 {
			return nil, fmt.Errorf("%q is no time to sleep", what)
		}
		a.verb = "sleep"
		return a, nil
	}
	switch what {
	case "error", "panic", "exit":
		a.verb = what
		return a, nil
	}
	return nil, fmt.Errorf("%q: actions are error, panic, exit and sleep(d)", what)
}
