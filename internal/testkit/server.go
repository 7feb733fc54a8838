package testkit

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"im-services/internal/cluster/infra"
	"im-services/internal/cluster/process"
)

// startLimit bounds the start of one server on a busy machine; helperLimit also
// covers a cold build.
const (
	startLimit  = time.Minute
	helperLimit = 15 * time.Minute
)

// startTries is how often a start is tried again on other ports: a port found
// free can be taken before the server binds it.
const startTries = 4

// Server is a real server that a test may hurt. Its address stays the same over
// restarts, and so does its data. Methods fail the test on errors; they may be
// called from the test's goroutine only, except Kill, Pause and Resume.
type Server struct {
	t    testing.TB
	unit infra.Unit
	dir  string

	mu   sync.Mutex
	proc *process.Process // guarded by mu
}

func (s *Server) process() *process.Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proc
}

// Kill ends the server with SIGKILL and waits until it is gone.
func (s *Server) Kill() { s.process().Kill() }

// Stop ends the server in order.
func (s *Server) Stop() {
	s.t.Helper()
	if err := s.process().StopWithin(startLimit); err != nil {
		s.t.Error(err)
	}
}

// Pause stops the server's execution: connections stay and nothing answers.
func (s *Server) Pause() { _ = s.process().Pause() }

// Resume lets a paused server go on.
func (s *Server) Resume() { _ = s.process().Resume() }

// Restart starts the server again at the same address, ending it first if it
// runs, and returns once it serves.
func (s *Server) Restart() {
	s.t.Helper()
	s.Kill()
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	p, err := s.unit.Start(ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	s.mu.Lock()
	s.proc = p
	s.mu.Unlock()
}

// Pid returns the server's current process id.
func (s *Server) Pid() int { return s.process().Pid() }

// Log returns what the server has written so far.
func (s *Server) Log() string {
	text, _ := os.ReadFile(s.unit.Spec.LogFile)
	return string(text)
}

// start runs what describe makes of free ports, trying other ports if it does
// not come up, and stops it when the test ends.
func start(t testing.TB, name string, ports int, describe func(dir string, ports []int) (infra.Unit, error)) (*Server, []int) {
	t.Helper()
	var last error
	for range startTries {
		dir := tempDir(t, name)
		free := make([]int, ports)
		for i := range free {
			port, err := infra.FreePort()
			if err != nil {
				t.Fatal(err)
			}
			free[i] = port
		}
		unit, err := describe(dir, free)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), startLimit)
		p, err := unit.Start(ctx)
		cancel()
		if err == nil {
			s := &Server{t: t, unit: unit, dir: dir, proc: p}
			t.Cleanup(func() {
				s.Kill()
				_ = os.RemoveAll(dir)
			})
			return s, free
		}
		last = err
		_ = os.RemoveAll(dir)
	}
	t.Fatalf("testkit: %v", last)
	return nil, nil
}

// tell shows what takes long; it has no test to log to, since all tests wait.
func tell(format string, args ...any) {
	_, _ = fmt.Fprintf(os.Stderr, "testkit: "+format+"\n", args...)
}

// helper returns the binary with etcd and NSQ.
var helper = sync.OnceValues(func() (string, error) {
	root, err := infra.Root()
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), helperLimit)
	defer cancel()
	return infra.Helper(ctx, root, nil)
})

// mustHelper is helper for a test.
func mustHelper(t testing.TB) string {
	t.Helper()
	bin, err := helper()
	if err != nil {
		t.Fatalf("testkit: etcd and NSQ cannot be had: %v", err)
	}
	return bin
}

// tempDir makes a folder below this process's own. It is not t.TempDir, because
// servers may outlive one test, and because a test process that is killed leaves
// its folder to the next one to remove.
func tempDir(t testing.TB, name string) string {
	t.Helper()
	base, err := processDir()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(base, name+"-") //nolint:usetesting // said above
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

const dirPrefix = "im-testkit-"

// processDir makes this process's folder, removes those of processes that are
// gone, and leaves behind a shell whose only task is to remove ours when this
// process has ended: its standard input ends then.
var processDir = sync.OnceValues(func() (string, error) {
	sweep()
	pid := os.Getpid()
	started, _ := process.StartTime(pid)
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("%s%d-%d", dirPrefix, pid, started))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	// Plain descriptors: an os.File that nobody uses any more closes itself.
	var pipe [2]int
	if err := syscall.Pipe(pipe[:]); err != nil {
		return "", err
	}
	syscall.CloseOnExec(pipe[0])
	syscall.CloseOnExec(pipe[1]) // never closed: its end is the end of this process
	r := os.NewFile(uintptr(pipe[0]), "pipe")
	cmd := exec.Command("sh", "-c", `cat >/dev/null; sleep 0.2; rm -rf "$1"`, "sh", dir) //nolint:noctx,gosec // outlives this process on purpose
	cmd.Stdin = r
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // away from the terminal's Ctrl-C
	if err := cmd.Start(); err != nil {
		return "", err
	}
	_ = r.Close()
	return dir, nil
})

// sweep removes the folders of test processes that no longer exist.
func sweep() {
	dirs, _ := filepath.Glob(filepath.Join(os.TempDir(), dirPrefix+"*"))
	for _, dir := range dirs {
		pidText, startText, ok := strings.Cut(strings.TrimPrefix(filepath.Base(dir), dirPrefix), "-")
		pid, err := strconv.Atoi(pidText)
		if !ok || err != nil {
			continue
		}
		if started, alive := process.StartTime(pid); alive && strconv.FormatUint(started, 10) == startText {
			continue
		}
		_ = os.RemoveAll(dir)
	}
}
