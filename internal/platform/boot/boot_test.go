package boot

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// recorder keeps the order of events.
type recorder struct {
	mu     sync.Mutex // guards events
	events []string
}

func (r *recorder) add(s string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, s)
}

func (r *recorder) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events)
}

func noExit(t *testing.T) func(int) {
	return func(code int) { t.Errorf("exit(%d) was called", code) }
}

// quiet keeps the log lines out of the test's output.
func quiet(b *Boot) { b.SetLog(slog.New(slog.DiscardHandler)) }

func TestExecute_ClosesNewestFirstAfterASignal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var rec recorder
		signals := make(chan os.Signal, 1)
		go func() { time.Sleep(time.Second); signals <- syscall.SIGTERM }()
		code := execute(func(ctx context.Context, b *Boot) error {
			quiet(b)
			b.OnClose("store", func(context.Context) error { rec.add("store"); return nil })
			b.Go("worker", func(ctx context.Context) error {
				<-ctx.Done()
				rec.add("worker")
				return ctx.Err()
			})
			b.Go("server", func(loop context.Context) error {
				<-ctx.Done()
				time.Sleep(time.Millisecond) // while "announce" is being closed
				if loop.Err() != nil {
					t.Error("a loop is not stopped by the signal but by its turn")
				}
				<-loop.Done()
				rec.add("server")
				return nil
			})
			b.OnClose("announce", func(ctx context.Context) error {
				_, ok := ctx.Deadline()
				require.True(t, ok)
				require.NoError(t, ctx.Err(), "closers get a fresh context")
				time.Sleep(time.Second)
				rec.add("announce")
				return nil
			})
			return nil
		}, signals, noExit(t))
		require.Zero(t, code)
		require.Equal(t, []string{"announce", "server", "worker", "store"}, rec.all())
	})
}

func TestExecute_WithoutLoopsEndsByItself(t *testing.T) {
	var rec recorder
	code := execute(func(_ context.Context, b *Boot) error {
		quiet(b)
		b.OnClose("store", func(context.Context) error { rec.add("store"); return nil })
		return nil
	}, nil, noExit(t))
	require.Zero(t, code)
	require.Equal(t, []string{"store"}, rec.all())
}

func TestExecute_EndsWhenTheLastLoopHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		code := execute(func(_ context.Context, b *Boot) error {
			quiet(b)
			b.Go("short", func(context.Context) error { time.Sleep(time.Second); return nil })
			b.Go("long", func(context.Context) error { time.Sleep(time.Minute); return nil })
			return nil
		}, nil, noExit(t))
		require.Zero(t, code)
		require.Equal(t, time.Minute, time.Since(begin))
	})
}

func TestExecute_AFailureStopsEverything(t *testing.T) {
	boom := errors.New("boom")
	for name, run := range map[string]func(ctx context.Context, b *Boot) error{
		"start":        func(context.Context, *Boot) error { return boom },
		"start, panic": func(context.Context, *Boot) error { panic("boom") },
		"loop": func(_ context.Context, b *Boot) error {
			b.Go("loop", func(context.Context) error { return boom })
			return nil
		},
		"loop, panic": func(_ context.Context, b *Boot) error {
			b.Go("loop", func(context.Context) error { panic("boom") })
			return nil
		},
		"closing": func(_ context.Context, b *Boot) error {
			b.OnClose("c", func(context.Context) error { return boom })
			return nil
		},
		"closing,panic": func(_ context.Context, b *Boot) error {
			b.OnClose("c", func(context.Context) error { panic("boom") })
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var rec recorder
				code := execute(func(ctx context.Context, b *Boot) error {
					quiet(b)
					b.OnClose("first", func(context.Context) error { rec.add("first"); return nil })
					b.Go("other", func(ctx context.Context) error { <-ctx.Done(); rec.add("other"); return nil })
					if name == "closing" || name == "closing,panic" {
						b.Go("ender", func(context.Context) error { return errors.New("time to stop") })
					}
					return run(ctx, b)
				}, nil, noExit(t))
				require.Equal(t, 1, code)
				require.Equal(t, []string{"other", "first"}, rec.all())
			})
		})
	}
}

func TestExecute_ASignalDuringStartIsAcleanStop(t *testing.T) {
	signals := make(chan os.Signal, 1)
	signals <- os.Interrupt
	code := execute(func(ctx context.Context, b *Boot) error {
		quiet(b)
		<-ctx.Done()
		require.ErrorContains(t, context.Cause(ctx), "interrupt")
		return ctx.Err()
	}, signals, noExit(t))
	require.Zero(t, code)
}

func TestExecute_ACommandThatIsCutShortHasFailed(t *testing.T) {
	signals := make(chan os.Signal, 1)
	signals <- os.Interrupt
	code := execute(func(ctx context.Context, b *Boot) error {
		quiet(b)
		b.OneShot = true
		<-ctx.Done()
		return ctx.Err()
	}, signals, noExit(t))
	require.Equal(t, 1, code)
}

func TestExecute_OneDeadlineForTheWholeShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var rec recorder
		release := make(chan struct{})
		begin := time.Now()
		code := execute(func(_ context.Context, b *Boot) error {
			quiet(b)
			b.StopTimeout = 3 * time.Second
			b.OnClose("quick", func(context.Context) error { rec.add("quick"); return nil })
			b.OnClose("stuck", func(context.Context) error { <-release; return nil })
			b.Go("stubborn", func(context.Context) error { <-release; return nil })
			b.Go("fails", func(context.Context) error { return errors.New("boom") })
			return nil
		}, nil, noExit(t))
		require.Equal(t, 1, code)
		require.Less(t, time.Since(begin), 4*time.Second)
		require.Equal(t, []string{"quick"}, rec.all(), "what is left after the deadline is still closed")
		close(release)
	})
}

func TestExecute_ASecondSignalExitsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		signals := make(chan os.Signal, 2)
		exited := make(chan int, 1)
		begin := time.Now()
		release := make(chan struct{})
		go func() {
			signals <- syscall.SIGTERM
			time.Sleep(time.Second)
			signals <- syscall.SIGTERM
		}()
		go execute(func(_ context.Context, b *Boot) error {
			quiet(b)
			b.Go("stubborn", func(context.Context) error { <-release; return nil })
			return nil
		}, signals, func(code int) { exited <- code })
		require.Equal(t, 1, <-exited)
		require.Equal(t, time.Second, time.Since(begin))
		close(release)
	})
}
