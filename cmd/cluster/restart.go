package main

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"im-services/internal/cluster"
	"im-services/internal/cluster/process"
)

const restartLimit = 45 * time.Second

// restart builds the services and restarts the named processes, or all services,
// one after another. It tells each to stop; the supervisor starts it again.
func restart(ctx context.Context, s settings) error {
	info, err := s.state.Info()
	if _, alive := s.state.Supervisor(); err != nil || !alive {
		return errors.New("the cluster is not up: make up")
	}
	names, err := expand(info.Processes, s.names)
	if err != nil {
		return err
	}
	if len(names) == 0 {
		for _, name := range info.Processes {
			if _, isService := info.Addrs[name+"/debug"]; isService {
				names = append(names, name)
			}
		}
	}
	begin := time.Now()
	if _, err := s.state.Build(ctx, s.opts.Root, s.opts.BuildFlags); err != nil {
		return err
	}
	say("built in %s; bringing the schemas up to date", round(time.Since(begin)))
	if err := s.state.Migrate(ctx); err != nil {
		return err
	}
	say("schemas up to date")
	for _, name := range names {
		begin := time.Now()
		if err := restartOne(ctx, s.state, info, name); err != nil {
			return err
		}
		say("%-11s restarted in %s", name, round(time.Since(begin)))
	}
	return nil
}

func restartOne(ctx context.Context, state cluster.State, info cluster.Info, name string) error {
	ctx, cancel := context.WithTimeout(ctx, restartLimit)
	defer cancel()
	old, alive := process.ReadPidFile(state.PidFile(name))
	if alive {
		if err := syscall.Kill(old, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	for {
		if pid, alive := process.ReadPidFile(state.PidFile(name)); alive && pid != old {
			if cluster.Ask(ctx, info, name) == nil {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is not back: make logs NAME=%s", name, name)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
