package infra

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"time"

	"im-services/internal/cluster/process"
)

// Unit is one server or service that can be started any number of times, one
// process at a time.
type Unit struct {
	Spec process.Spec
	// Ready asks the process once whether it serves. It must respect ctx.
	Ready func(ctx context.Context) error
}

// Share is the environment of a Go process that shares the machine with a dozen
// others: half of the processors for each, and Awake. With more processors, the idle
// ones of every process look for work that is not there each time something arrives,
// which on two was an eighth of all the time spent on a message. A GOMAXPROCS or
// GODEBUG of the caller's own stays.
func Share() []string {
	var env []string
	if os.Getenv("GOMAXPROCS") == "" {
		env = append(env, "GOMAXPROCS="+strconv.Itoa(max(1, runtime.NumCPU()/2)))
	}
	if os.Getenv("GODEBUG") == "" {
		env = append(env, Awake)
	}
	return env
}

// Awake keeps the runtime's monitor thread from lying down whenever its process has
// nothing to do: each message that ends that must wake it, and it then looks fifty
// times in a millisecond whether it is needed. In two gateways, a logic and an nsqd
// that was a third of all changes of context and a tenth of the time spent on a
// message. While schedtrace is on it looks every ten milliseconds and is never woken;
// this one writes a line to the log every 24 days.
const Awake = "GODEBUG=schedtrace=2147483647"

// askTimeout bounds one readiness question, askPause is the time between two.
const (
	askTimeout = 2 * time.Second
	askPause   = 15 * time.Millisecond
)

// Start starts the unit and returns once it serves. If it ends before that, or
// ctx does, the process is gone when Start returns and the error carries the end
// of its log.
func (u Unit) Start(ctx context.Context) (*process.Process, error) {
	p, err := process.Start(u.Spec)
	if err != nil {
		return nil, err
	}
	if err := u.WaitReady(ctx, p); err != nil {
		p.Kill()
		return nil, err
	}
	return p, nil
}

// WaitReady returns nil once p, a process of this unit, serves.
func (u Unit) WaitReady(ctx context.Context, p *process.Process) error {
	for {
		ask, cancel := context.WithTimeout(ctx, askTimeout)
		err := u.Ready(ask)
		cancel()
		if err == nil && p.Running() {
			return nil
		}
		select {
		case <-p.Done():
			return fmt.Errorf("%s ended before it was ready (%w)%s", u.Spec.Name, exitError(p.Err()), LogTail(u.Spec.LogFile, 12))
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w (last answer: %w)%s", u.Spec.Name, context.Cause(ctx), err, LogTail(u.Spec.LogFile, 12))
		case <-time.After(askPause):
		}
	}
}

// exitError is how a process ended, in words also when it ended with code 0.
func exitError(err error) error {
	if err == nil {
		return errors.New("exit status 0")
	}
	return err
}

// LogTail returns the last lines of a log file, indented, each at most 300
// bytes, with a headline; "" if there are none.
func LogTail(path string, lines int) string {
	const window = 16 << 10
	f, err := os.Open(path) //nolint:gosec // a log this program writes
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	if info, err := f.Stat(); err == nil && info.Size() > window {
		_, _ = f.Seek(-window, io.SeekEnd)
	}
	text, err := io.ReadAll(f)
	if err != nil || len(bytes.TrimSpace(text)) == 0 {
		return ""
	}
	all := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	out := "\n  last lines of " + path + ":"
	for _, line := range all[max(0, len(all)-lines):] {
		out += "\n    " + string(line[:min(len(line), 300)])
	}
	return out
}
