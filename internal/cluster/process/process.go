// Package process starts child processes that do not outlive the program that
// started them, and signals nobody else.
//
// Every child is started by one operating system thread that lives as long as
// the program: on Linux the kernel kills the children when that thread is gone,
// however the program ended. Children get a process group of their own, so a
// Ctrl-C in the terminal reaches the program only, which then stops them in
// order.
package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// Spec says what to run.
type Spec struct {
	Name string   // for error texts
	Path string   // executable
	Args []string // without the executable
	Env  []string // added to this program's own environment
	Dir  string   // working directory; empty: this program's own
	// LogFile receives standard output and error, appended; its folder is made.
	LogFile string
	// Stdin, if set, becomes the child's standard input.
	Stdin *os.File
}

// Process is a running or ended child. Its methods may be called from any
// goroutine, and are harmless after the child's end.
type Process struct {
	spec  Spec
	cmd   *exec.Cmd
	start uint64
	done  chan struct{}
	err   error // how it ended; valid once done is closed
}

// Start starts the child and returns at once; the child need not be ready.
func Start(spec Spec) (*Process, error) {
	cmd := exec.Command(spec.Path, spec.Args...) //nolint:gosec,noctx // running what it is told is its purpose; its end is Stop
	cmd.Env = append(os.Environ(), spec.Env...)
	cmd.Dir = spec.Dir
	if spec.Stdin != nil {
		cmd.Stdin = spec.Stdin
	}
	if spec.LogFile != "" {
		if err := os.MkdirAll(filepath.Dir(spec.LogFile), 0o750); err != nil {
			return nil, err
		}
		log, err := os.OpenFile(spec.LogFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return nil, err
		}
		defer func() { _ = log.Close() }() // the child has its own descriptor
		cmd.Stdout, cmd.Stderr = log, log
	}
	cmd.SysProcAttr = childAttr()
	if err := onSpawner(cmd.Start); err != nil {
		return nil, fmt.Errorf("start %s: %w", spec.Name, err)
	}
	p := &Process{spec: spec, cmd: cmd, done: make(chan struct{})}
	p.start, _ = StartTime(cmd.Process.Pid)
	go func() { // ends with the child
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// Pid returns the child's process id, also after its end.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Started returns the child's start time in the kernel's own unit (see
// StartTime): together with Pid it names the process for as long as the
// machine runs.
func (p *Process) Started() uint64 { return p.start }

// Done is closed when the child has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err says how the child ended: nil for exit code 0. Valid once Done is closed.
func (p *Process) Err() error {
	select {
	case <-p.done:
		return p.err
	default:
		return nil
	}
}

// Running reports whether the child has not ended; a paused child runs.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Signal sends sig. A child that has ended is no error.
func (p *Process) Signal(sig os.Signal) error {
	err := p.cmd.Process.Signal(sig)
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// Kill ends the child with SIGKILL and waits until it is gone.
func (p *Process) Kill() {
	_ = p.Signal(syscall.SIGKILL)
	<-p.done
}

// Pause stops the child's execution (SIGSTOP): it holds its connections and
// answers nothing. It returns when every thread stands still, which is not yet
// so when the signal is sent.
func (p *Process) Pause() error {
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	for end := time.Now().Add(pauseLimit); p.Running() && !paused(p.Pid()); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("%s does not stand still", p.spec.Name)
		}
	}
	return nil
}

// pauseLimit bounds the wait for threads in the middle of a slow system call.
const pauseLimit = 5 * time.Second

// Resume lets a paused child go on.
func (p *Process) Resume() error { return p.Signal(syscall.SIGCONT) }

// Stop asks the child to end (SIGTERM) and kills it if ctx ends first. It
// returns an error only if the child had to be killed.
func (p *Process) Stop(ctx context.Context) error {
	_ = p.Signal(syscall.SIGTERM)
	_ = p.Signal(syscall.SIGCONT) // a paused child could not act on it
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		p.Kill()
		return fmt.Errorf("%s did not stop in time and was killed", p.spec.Name)
	}
}

// StopWithin is Stop with a time limit.
func (p *Process) StopWithin(d time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	return p.Stop(ctx)
}

var spawner struct {
	once sync.Once
	jobs chan func()
}

// onSpawner runs f on the one thread that starts children. A thread of its own,
// because the kernel's "signal me when my parent dies" means the parent thread,
// and the runtime ends threads at will unless a goroutine has locked them.
func onSpawner(f func() error) error {
	spawner.once.Do(func() {
		spawner.jobs = make(chan func())
		go func() { // lives as long as the program, on purpose
			runtime.LockOSThread()
			takeTurns()
			for job := range spawner.jobs {
				job()
			}
		}()
	})
	result := make(chan error, 1)
	spawner.jobs <- func() { result <- f() }
	return <-result
}
