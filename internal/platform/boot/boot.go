// Package boot runs a process: it turns signals into an orderly stop.
//
// What is opened is pushed on a stack with OnClose or Go; stopping takes it
// down newest first, under one deadline, on a fresh context, and logs each step
// with its duration. So the order of a main function is also, reversed, the
// order of its shutdown.
package boot

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"sync"
	"syscall"
	"time"
)

// DefaultStopTimeout bounds a whole shutdown unless main says otherwise.
const DefaultStopTimeout = 30 * time.Second

// Boot is the stack of what a process has opened.
type Boot struct {
	// StopTimeout is the one deadline of the whole shutdown. What has not
	// stopped by then is abandoned and the process exits with 1.
	StopTimeout time.Duration
	// OneShot: run is all there is to do, and a signal that cuts it short leaves it
	// undone. The process exits with 1 then, not as a server that was told to stop.
	OneShot bool

	mu    sync.Mutex // guards the following fields
	log   *slog.Logger
	steps []step // oldest first
	loops int    // loops running

	idle chan struct{} // receives when the last loop has ended
	fail chan error    // receives the first error of a loop
}

type step struct {
	name  string
	close func(ctx context.Context) error
}

// Main calls run, waits, and closes what run opened, newest first. It does not
// return: the process exits with 0 after a clean stop and 1 otherwise.
//
// run opens things, starts loops with b.Go and returns; ctx ends at SIGTERM or
// SIGINT. After run has returned nil, Main waits for a signal, for a loop to
// fail, or for all loops to have ended: a run without loops ends the process. A
// second signal ends it at once.
func Main(run func(ctx context.Context, b *Boot) error) {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
	os.Exit(execute(run, signals, os.Exit))
}

// SetLog makes the shutdown log through log; until then it is slog.Default.
func (b *Boot) SetLog(log *slog.Logger) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.log = log
}

// OnClose pushes f on the stack: it runs when everything opened later has
// closed. Its context carries the deadline of the whole shutdown.
func (b *Boot) OnClose(name string, f func(ctx context.Context) error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.steps = append(b.steps, step{name, f})
}

// Go runs f in a goroutine that the stack owns. Its context does not end at the
// signal but when the shutdown reaches this step, so what f serves keeps
// working while newer things stop; the shutdown then waits for f. If f returns
// an error before that, the process stops. A panic in f is such an error.
func (b *Boot) Go(name string, f func(ctx context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	var result error

	b.mu.Lock()
	b.loops++
	b.mu.Unlock()

	go func() {
		defer close(done)
		err := protect(func() error { return f(ctx) })
		if ctx.Err() != nil && errors.Is(err, context.Canceled) {
			err = nil // it stopped because it was told to
		}
		if err != nil {
			result = fmt.Errorf("%s: %w", name, err)
			select {
			case b.fail <- result:
			default:
			}
		}
		b.mu.Lock()
		b.loops--
		last := b.loops == 0
		b.mu.Unlock()
		if last {
			select {
			case b.idle <- struct{}{}:
			default:
			}
		}
	}()
	b.OnClose(name, func(stop context.Context) error {
		cancel()
		select {
		case <-done:
			return result
		case <-stop.Done():
			return context.Cause(stop)
		}
	})
}

// InstanceID names this life of this process among the replicas of a service.
func InstanceID() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("%s-%d-%x", host, os.Getpid(), time.Now().UnixNano())
}

// execute is Main without the process around it.
func execute(run func(context.Context, *Boot) error, signals <-chan os.Signal, exit func(int)) int {
	b := &Boot{
		StopTimeout: DefaultStopTimeout,
		log:         slog.Default(),
		idle:        make(chan struct{}, 1),
		fail:        make(chan error, 1),
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	over := make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(over)
	wg.Go(func() {
		for n := 0; ; n++ {
			select {
			case s := <-signals:
				if n > 0 {
					b.logger().Error("second signal: exit at once", "signal", s.String())
					exit(1)
					return
				}
				b.logger().Info("stopping", "signal", s.String())
				cancel(fmt.Errorf("signal %s", s))
			case <-over:
				return
			}
		}
	})

	err := protect(func() error { return run(ctx, b) })
	if err == nil {
		err = b.wait(ctx)
	} else if !b.OneShot && ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = nil // a signal during start-up
	}
	if err != nil {
		b.logger().Error("stopping after an error", "err", err)
	}
	cancel(context.Canceled)
	if b.closeAll() && err == nil {
		return 0
	}
	return 1
}

// wait returns when there is a reason to stop: the error of a loop, or nil.
func (b *Boot) wait(ctx context.Context) error {
	for {
		b.mu.Lock()
		loops := b.loops
		b.mu.Unlock()
		select {
		case err := <-b.fail:
			return err
		default:
		}
		if loops == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case err := <-b.fail:
			return err
		case <-b.idle:
		}
	}
}

// closeAll takes the stack down and reports whether every step was clean.
func (b *Boot) closeAll() bool {
	ctx, cancel := context.WithTimeoutCause(context.Background(), b.StopTimeout,
		fmt.Errorf("the stop timeout of %s has passed", b.StopTimeout))
	defer cancel()
	clean := true
	for {
		b.mu.Lock()
		if len(b.steps) == 0 {
			b.mu.Unlock()
			return clean
		}
		s := b.steps[len(b.steps)-1]
		b.steps = b.steps[:len(b.steps)-1]
		b.mu.Unlock()

		begin := time.Now()
		err := closeStep(ctx, s)
		took := time.Since(begin).Round(time.Microsecond)
		if err != nil {
			clean = false
			b.logger().Error("close", "step", s.name, "took", took, "err", err)
			continue
		}
		b.logger().Info("close", "step", s.name, "took", took)
	}
}

// closeStep runs one closer and gives up on it at the deadline. A closer begun
// after the deadline still gets a moment: most need no time at all.
func closeStep(ctx context.Context, s step) error {
	done := make(chan error, 1)
	go func() { done <- protect(func() error { return s.close(ctx) }) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-done:
		return err
	case <-time.After(100 * time.Millisecond):
		return fmt.Errorf("abandoned: %w", context.Cause(ctx))
	}
}

func (b *Boot) logger() *slog.Logger {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.log
}

// protect turns a panic into an error, so that the rest is still closed.
func protect(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return f()
}
