package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"im-services/internal/cluster/infra"
	"im-services/internal/cluster/process"
)

// A crashed process is started again after minBackoff; if it keeps crashing
// within steadyAfter, the pause doubles up to maxBackoff.
const (
	minBackoff  = 200 * time.Millisecond
	maxBackoff  = 1500 * time.Millisecond
	steadyAfter = 5 * time.Second
)

// Process is one supervised process of a cluster. All methods may be called from
// any goroutine; while one of Start, Stop, Halt and Restart runs, others wait.
type Process struct {
	name      string
	unit      func() (infra.Unit, error) // asked before each start
	state     State
	log       *slog.Logger
	wg        *sync.WaitGroup // the cluster's
	closing   <-chan struct{} // closed when the cluster stops
	noRestart bool

	turn chan struct{} // one at a time: Start, Stop, Halt, Restart

	mu       sync.Mutex
	proc     *process.Process // the newest, nil before the first start; guarded by mu
	now      infra.Unit       // what proc was started from; guarded by mu
	wanted   bool             // it shall run: a crash is repaired; guarded by mu
	restarts int              // after crashes; guarded by mu
}

// Name returns the process's name, "gateway-1".
func (p *Process) Name() string { return p.name }

// Pid returns the process id of the newest start, 0 before the first.
func (p *Process) Pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.proc == nil {
		return 0
	}
	return p.proc.Pid()
}

// Running reports whether the process has not ended. A paused one runs.
func (p *Process) Running() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.proc != nil && p.proc.Running()
}

// Restarts returns how often it was started again after a crash.
func (p *Process) Restarts() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.restarts
}

// Logs returns everything the process has written, over all its lives, as far
// as the log was not cut (64 MB).
func (p *Process) Logs() string {
	text, _ := os.ReadFile(p.state.LogFile(p.name))
	return string(text)
}

// Start starts a process that is down and returns once it serves.
func (p *Process) Start(ctx context.Context) error {
	p.turn <- struct{}{}
	defer func() { <-p.turn }()
	return p.start(ctx)
}

func (p *Process) start(ctx context.Context) error {
	p.mu.Lock()
	running := p.proc != nil && p.proc.Running()
	p.wanted = true
	p.mu.Unlock()
	if !running {
		if err := p.launch(); err != nil {
			return err
		}
	}
	return p.WaitReady(ctx)
}

// firstStart is Start for a process that has never served: if it ends before it
// serves, something is wrong that a restart would not repair.
func (p *Process) firstStart(ctx context.Context) error {
	p.turn <- struct{}{}
	defer func() { <-p.turn }()
	p.mu.Lock()
	p.wanted = true
	p.mu.Unlock()
	if err := p.launch(); err != nil {
		return err
	}
	p.mu.Lock()
	proc, unit := p.proc, p.now
	p.mu.Unlock()
	return unit.WaitReady(ctx, proc)
}

// launch starts the process without waiting for it.
func (p *Process) launch() error {
	unit, err := p.unit()
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.closing:
		return errors.New("the cluster is stopping")
	default:
	}
	if !p.wanted || (p.proc != nil && p.proc.Running()) {
		return nil
	}
	proc, err := process.Start(unit.Spec)
	if err != nil {
		return err
	}
	p.proc, p.now = proc, unit
	if err := process.WritePidFile(p.state.PidFile(p.name), proc.Pid(), proc.Started()); err != nil {
		p.log.Error("the pid file cannot be written", "process", p.name, "err", err)
	}
	started := time.Now()
	p.wg.Go(func() { p.watch(proc, started) })
	return nil
}

// watch repairs the crash of proc, if it comes to one.
func (p *Process) watch(proc *process.Process, started time.Time) {
	<-proc.Done()
	p.mu.Lock()
	crashed := p.wanted && p.proc == proc
	p.mu.Unlock()
	if !crashed {
		return
	}
	backoff := minBackoff
	for lived := time.Since(started); ; {
		p.mu.Lock()
		if lived < steadyAfter {
			backoff = min(minBackoff<<min(p.restarts, 4), maxBackoff)
		}
		p.mu.Unlock()
		p.log.Warn("process ended by itself", "process", p.name, "pid", proc.Pid(), "how", fmt.Sprint(proc.Err()), "lived", lived.Round(time.Millisecond), "restart", !p.noRestart)
		if p.noRestart {
			return
		}
		select {
		case <-p.closing:
			return
		case <-time.After(backoff):
		}
		p.mu.Lock()
		wanted := p.wanted && p.proc == proc
		if wanted {
			p.restarts++
		}
		p.mu.Unlock()
		if !wanted {
			return
		}
		err := p.launch()
		if err == nil {
			return
		}
		p.log.Error("restart failed", "process", p.name, "err", err)
		lived = 0
	}
}

// WaitReady returns once the process serves, whichever of its lives that is.
func (p *Process) WaitReady(ctx context.Context) error {
	for {
		p.mu.Lock()
		proc, unit, wanted := p.proc, p.now, p.wanted
		p.mu.Unlock()
		if proc == nil || !wanted {
			return fmt.Errorf("%s is down", p.name)
		}
		err := unit.WaitReady(ctx, proc)
		if err == nil || ctx.Err() != nil || p.noRestart {
			return err
		}
		select { // it crashed: wait for its next life
		case <-ctx.Done():
			return err
		case <-p.closing:
			return err
		case <-time.After(minBackoff):
		}
	}
}

// Kill ends the process with SIGKILL and returns when it is gone. It is a crash
// as any other: it will be started again.
func (p *Process) Kill() {
	if proc := p.current(); proc != nil {
		proc.Kill()
	}
}

// Pause stops the process's execution: its connections stay, nothing answers.
func (p *Process) Pause() error {
	if proc := p.current(); proc != nil {
		return proc.Pause()
	}
	return nil
}

// Resume lets a paused process go on.
func (p *Process) Resume() error {
	if proc := p.current(); proc != nil {
		return proc.Resume()
	}
	return nil
}

// Halt ends the process with SIGKILL; it stays down until Start.
func (p *Process) Halt() {
	p.turn <- struct{}{}
	defer func() { <-p.turn }()
	if proc := p.release(); proc != nil {
		proc.Kill()
		_ = os.Remove(p.state.PidFile(p.name))
	}
}

// Stop ends the process in order (SIGTERM, SIGKILL when ctx ends); it stays down
// until Start. The error says that it had to be killed.
func (p *Process) Stop(ctx context.Context) error {
	p.turn <- struct{}{}
	defer func() { <-p.turn }()
	return p.stop(ctx)
}

func (p *Process) stop(ctx context.Context) error {
	proc := p.release()
	if proc == nil {
		return nil
	}
	err := proc.Stop(ctx)
	_ = os.Remove(p.state.PidFile(p.name))
	return err
}

// Restart ends the process in order, starts it again and returns once it serves.
func (p *Process) Restart(ctx context.Context) error {
	p.turn <- struct{}{}
	defer func() { <-p.turn }()
	stopping, cancel := context.WithTimeout(ctx, serviceLimit)
	defer cancel()
	if err := p.stop(stopping); err != nil {
		p.log.Warn("restart", "process", p.name, "err", err)
	}
	return p.start(ctx)
}

func (p *Process) current() *process.Process {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.proc
}

// release makes the process one that shall not run and returns what runs.
func (p *Process) release() *process.Process {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wanted = false
	return p.proc
}
