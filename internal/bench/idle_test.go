package bench

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestIdle_ALostConnectionIsAnError(t *testing.T) {
	s := &server{}
	target := fake(t, s)
	o := short()
	o.Count, o.Settle = 10, 2*time.Second
	done := make(chan struct{})
	go func() {
		defer close(done)
		time.Sleep(o.Settle / 2)
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, conns := range s.users {
			_ = conns[0].ws.Close()
			return
		}
	}()
	_, err := Run(t.Context(), "idle", target, o)
	<-done
	require.ErrorContains(t, err, "1 of 10 connections were lost")
}

func TestIdle_MeasuresFreshProcessesOrSaysSo(t *testing.T) {
	o := short()
	o.Count, o.Settle = 5, 10*time.Millisecond
	const ran = "the servers ran before: connections may lie in memory that they had already"
	require.Contains(t, runOn(t, &server{}, "idle", o).Notes, ran)
	s := &server{}
	target := fake(t, s)
	target.Fresh = func(context.Context) error {
		require.Zero(t, s.conns, "before any connection")
		return nil
	}
	res, err := Run(t.Context(), "idle", target, o)
	require.NoError(t, err)
	require.NotContains(t, res.Notes, ran)
	target.Fresh = func(context.Context) error { return errors.New("it does not start") }
	_, err = Run(t.Context(), "idle", target, o)
	require.ErrorContains(t, err, "it does not start")
}

func TestJudge_IsAskedByTheScenariosWithoutTraffic(t *testing.T) {
	var stop atomic.Bool
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop.Store(true)
	for range runtime.NumCPU() { // a generator, or others, that take the machine
		wg.Go(func() {
			for !stop.Load() { //nolint:revive // that is the load
			}
		})
	}
	for _, name := range []string{"idle", "backlog", "connect"} {
		o := short()
		o.Count, o.Settle = 20, 10*time.Millisecond
		res := runOn(t, &server{}, name, o)
		require.Contains(t, strings.Join(res.Notes, "; "), " % of the machine", name)
	}
}
