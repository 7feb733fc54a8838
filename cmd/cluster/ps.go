package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"

	"im-services/internal/cluster"
	"im-services/internal/cluster/process"
)

// row is what is known about one process.
type row struct {
	name    string
	pid     int
	up      time.Duration
	trouble string // "" if it serves
	addr    string
}

// survey asks every process, all at once.
func survey(ctx context.Context, state cluster.State, info cluster.Info) []row {
	rows := make([]row, len(info.Processes))
	var wg sync.WaitGroup
	for i, name := range info.Processes {
		wg.Go(func() { rows[i] = inspect(ctx, state, info, name) })
	}
	wg.Wait()
	return rows
}

func inspect(ctx context.Context, state cluster.State, info cluster.Info, name string) row {
	r := row{name: name, addr: info.Addrs[name]}
	pid, alive := process.ReadPidFile(state.PidFile(name))
	if !alive {
		r.trouble = "down"
		return r
	}
	r.pid = pid
	if file, err := os.Stat(state.PidFile(name)); err == nil {
		r.up = time.Since(file.ModTime()).Round(time.Second)
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if err := cluster.Ask(ctx, info, name); err != nil {
		r.trouble = "not ready: " + err.Error()
	}
	return r
}

// ps lists the processes; it fails if one is not ready.
func ps(ctx context.Context, s settings) error {
	info, err := s.state.Info()
	pid, alive := s.state.Supervisor()
	if err != nil || !alive {
		return errors.New("the cluster is not up: make up")
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "NAME\tPID\tUP\tADDRESS\tDEBUG\tSTATE")
	_, _ = fmt.Fprintf(w, "%s\t%d\t\t\t\t\n", cluster.SupervisorName, pid)
	bad := 0
	for _, r := range survey(ctx, s.state, info) {
		state := "ready"
		if r.trouble != "" {
			state = r.trouble
			bad++
		}
		_, _ = fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\n", r.name, r.pid, r.up, r.addr, info.Addrs[r.name+"/debug"], state)
	}
	_ = w.Flush()
	say("public: %s (all gateways)", info.PublicURL)
	if bad > 0 {
		return fmt.Errorf("%d of %d processes not ready", bad, len(info.Processes))
	}
	return nil
}

// expand turns the names that a person gave into names of processes: "logic"
// is every logic there is.
func expand(processes, given []string) ([]string, error) {
	var names []string
	for _, g := range given {
		found := false
		for _, name := range processes {
			number, isKind := strings.CutPrefix(name, g+"-")
			if name != g && (!isKind || strings.Trim(number, "0123456789") != "") {
				continue
			}
			found = true
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
		if !found {
			return nil, fmt.Errorf("no process %q; there are %s", g, strings.Join(processes, ", "))
		}
	}
	return names, nil
}

// signalAll sends sig to the named processes, each only if it is still the one
// that was recorded.
func signalAll(s settings, sig syscall.Signal) error {
	info, err := s.state.Info()
	if err != nil {
		return errors.New("the cluster is not up: make up")
	}
	if len(s.names) == 0 {
		return fmt.Errorf("name one or more of %v", info.Processes)
	}
	names, err := expand(info.Processes, s.names)
	if err != nil {
		return err
	}
	for _, name := range names {
		pid, alive := process.ReadPidFile(s.state.PidFile(name))
		if !alive {
			return fmt.Errorf("%s is down", name)
		}
		if err := syscall.Kill(pid, sig); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		say("%s (process %d): %s", name, pid, sig)
	}
	return nil
}

func kill(_ context.Context, s settings) error   { return signalAll(s, syscall.SIGKILL) }
func pause(_ context.Context, s settings) error  { return signalAll(s, syscall.SIGSTOP) }
func resume(_ context.Context, s settings) error { return signalAll(s, syscall.SIGCONT) }
