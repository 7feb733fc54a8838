package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"im-services/internal/cluster"
	"im-services/internal/cluster/infra"
	"im-services/internal/cluster/process"
)

// The last line that the daemon writes to its progress pipe.
const (
	markReady  = "READY"
	markFailed = "FAILED "
)

const demoLimit = 30 * time.Second

// up starts the daemon, shows its progress, and proves that the cluster works.
func up(ctx context.Context, s settings) error {
	begin := time.Now()
	if pid, alive := s.state.Supervisor(); alive {
		return alreadyUp(ctx, s, pid)
	}
	if err := startDaemon(ctx, s); err != nil {
		return err
	}
	if s.noDemo {
		say("ready in %s", round(time.Since(begin)))
		return nil
	}
	if err := demo(ctx, s); err != nil {
		return fmt.Errorf("everything runs, but no message crosses: %w\n%s", err, hints)
	}
	info, err := s.state.Info()
	if err != nil {
		return err
	}
	say("")
	say("ready, message crossed: %s", round(time.Since(begin)))
	say("%s", info.Places())
	say("  look around     make ps, make logs, make restart, make down")
	return nil
}

const hints = "Way out: make ps shows what is not ready, make logs why; make down && make up starts afresh with the data kept, make clean deletes it"

// alreadyUp answers a second up: fine if all is well, an error if not.
func alreadyUp(ctx context.Context, s settings, pid int) error {
	info, err := s.state.Info()
	if err != nil || !info.Ready {
		return fmt.Errorf("another up is under way (process %d): wait for it, or stop it with make down", pid)
	}
	if wanted := infra.Loopback(s.opts.BasePort); info.Addrs["public"] != wanted {
		return fmt.Errorf("it is up at %s (process %d), not at %s: make down first; a second cluster beside it needs a clone of its own", info.PublicURL, pid, wanted)
	}
	differs, err := info.Differs(s.opts)
	if err != nil {
		return err
	}
	if len(differs) > 0 {
		return fmt.Errorf("it is up (process %d) with other settings (%s): make down first; data stays", pid, strings.Join(differs, "; "))
	}
	var broken []string
	for _, r := range survey(ctx, s.state, info) {
		if r.trouble != "" {
			broken = append(broken, r.name+" ("+r.trouble+")")
		}
	}
	if len(broken) > 0 {
		return fmt.Errorf("it is up (process %d), but not all of it is ready: %s\n%s", pid, strings.Join(broken, ", "), hints)
	}
	say("it is up and ready already (process %d); make restart builds and restarts the services", pid)
	say("%s", info.Places())
	return nil
}

// startDaemon starts this program again, in a session of its own, and returns
// once the cluster is ready. If that fails or ctx ends, the daemon is gone.
func startDaemon(ctx context.Context, s settings) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	logFile := s.state.LogFile(cluster.SupervisorName)
	if err := os.MkdirAll(filepath.Dir(logFile), 0o700); err != nil {
		return err
	}
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, append([]string{"daemon"}, s.flags...)...) //nolint:gosec,noctx // this program; it outlives this process
	cmd.Dir = s.opts.Root
	cmd.Stdout, cmd.Stderr = log, log
	// Not standard output: writing to that after this process has gone would end
	// the daemon.
	cmd.ExtraFiles = []*os.File{w}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	_ = w.Close()
	end := make(chan error, 1)
	go func() { end <- follow(r) }() // ends when the daemon closes the pipe
	select {
	case err := <-end:
		return err
	case <-ctx.Done():
		_ = cmd.Process.Signal(syscall.SIGTERM)
		<-end //nolint:errcheck // its report is only how each start was cut short
		return errors.New("interrupted; what was started has been stopped")
	}
}

// follow shows the daemon's progress until it says how it went.
func follow(r *os.File) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		switch {
		case line == markReady:
			return nil
		case strings.HasPrefix(line, markFailed):
			return errors.New(strings.ReplaceAll(strings.TrimPrefix(line, markFailed), "\x00", "\n"))
		default:
			say("%s", line)
		}
	}
	return errors.New("the launcher died; the end of .local/logs/supervisor.log says why")
}

// daemon owns the cluster until it is told to stop.
func daemon(ctx context.Context, s settings) error {
	progress := os.NewFile(3, "progress")
	if progress == nil {
		return errors.New("daemon is started by up; use run to stay in the foreground")
	}
	syscall.CloseOnExec(3)
	s.opts.Progress = progress
	c, err := cluster.Start(ctx, s.opts)
	if err != nil {
		_, _ = fmt.Fprintln(progress, markFailed+strings.ReplaceAll(err.Error(), "\n", "\x00"))
		return err
	}
	_, _ = fmt.Fprintln(progress, markReady)
	_ = progress.Close()
	<-ctx.Done()
	c.Stop()
	return nil
}

// run is up in the foreground.
func run(ctx context.Context, s settings) error {
	c, err := cluster.Start(ctx, s.opts)
	if err != nil {
		return err
	}
	defer c.Stop()
	say("%s", c.Info().Places())
	<-ctx.Done()
	say("stopping")
	return nil
}

// demo sends one message from the first gateway to the last, or to and from
// whatever answers at -url.
func demo(ctx context.Context, s settings) error {
	if s.url != "" {
		return demoAt(ctx, s.url)
	}
	info, err := s.state.Info()
	if _, alive := s.state.Supervisor(); err != nil || !alive {
		return errors.New("the cluster is not up: make up")
	}
	first, last := "gateway-1", ""
	for _, name := range info.Processes {
		if strings.HasPrefix(name, "gateway-") {
			last = name
		}
	}
	ctx, cancel := context.WithTimeout(ctx, demoLimit)
	defer cancel()
	result, err := cluster.Demo(ctx, "http://"+info.Addrs[first], "http://"+info.Addrs[last])
	if err != nil {
		return err
	}
	say("%s on %s (%s) wrote to %s on %s (%s): message %d stored and acknowledged after %s, received after %s",
		cluster.DemoSender.Name, first, info.Addrs[first], cluster.DemoReceiver.Name, last, info.Addrs[last],
		result.MessageID, round(result.Acked), round(result.Received))
	accounts()
	return nil
}

// demoAt waits until a system behind one address serves, then sends a message
// through it.
func demoAt(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 4*demoLimit)
	defer cancel()
	for {
		result, err := cluster.Demo(ctx, url, url)
		if err == nil {
			say("%s wrote to %s: message %d stored and acknowledged after %s, received after %s",
				cluster.DemoSender.Name, cluster.DemoReceiver.Name, result.MessageID, round(result.Acked), round(result.Received))
			accounts()
			say("%s", cluster.Info{PublicURL: url}.Places())
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("no message crosses: %w", err)
		case <-time.After(time.Second):
		}
	}
}

func accounts() {
	say("they are %s / %s and %s / %s", cluster.DemoSender.Email, cluster.DemoSender.Password, cluster.DemoReceiver.Email, cluster.DemoReceiver.Password)
}

// down stops everything, also what a daemon that died left behind.
func down(ctx context.Context, s settings) error {
	begin := time.Now()
	if _, alive := s.state.Supervisor(); alive {
		if err := stopSupervisor(ctx, s); err != nil {
			return err
		}
	}
	swept, err := s.state.Sweep()
	if err != nil {
		return err
	}
	if len(swept) > 0 {
		say("also ended what an earlier run left behind: %s", strings.Join(swept, ", "))
	}
	say("down in %s; data stays in %s", round(time.Since(begin)), s.opts.StateDir)
	return nil
}

// stopSupervisor ends the program that owns the cluster, and with it all of that.
func stopSupervisor(ctx context.Context, s settings) error {
	grace := 10 * time.Second // it takes up to five for its processes
	if info, err := s.state.Info(); err == nil && !info.Ready {
		say("a start is under way; if it is altering schemas, those are let end first")
		grace = cluster.MigrateLimit
	}
	end := make(chan error, 1)
	go func() { end <- process.KillPidFile(s.state.PidFile(cluster.SupervisorName), grace) }()
	select {
	case err := <-end:
		return err
	case <-ctx.Done():
		return errors.New("interrupted; the cluster has been told to stop")
	}
}

// clean deletes everything the cluster keeps.
func clean(_ context.Context, s settings) error {
	if pid, alive := s.state.Supervisor(); alive {
		return fmt.Errorf("the cluster is up (process %d): make down first", pid)
	}
	if err := s.state.Remove(); err != nil {
		return err
	}
	say("deleted data, uploads, logs, secrets and built programs in %s", s.opts.StateDir)
	say("what benchmarks and checks wrote there stays; so do the cache of servers, and databases on a server of your own (IM_MYSQL_DSN)")
	return nil
}

func round(d time.Duration) time.Duration {
	if d < time.Second {
		return d.Round(100 * time.Microsecond)
	}
	return d.Round(100 * time.Millisecond)
}
