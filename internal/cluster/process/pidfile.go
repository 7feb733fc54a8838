package process

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// WritePidFile records a process as "pid start-time". Written at once or not at
// all, so that a reader never sees half of it.
func WritePidFile(path string, pid int, started uint64) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return err
	}
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, fmt.Appendf(nil, "%d %d\n", pid, started), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// ReadPidFile returns the process recorded in path if it is still alive: a
// process with the same id but another start time is a stranger. A missing or
// unreadable file means none.
func ReadPidFile(path string) (pid int, alive bool) {
	text, err := os.ReadFile(path) //nolint:gosec // the caller's own state folder
	if err != nil {
		return 0, false
	}
	var started uint64
	if _, err := fmt.Sscanf(strings.TrimSpace(string(text)), "%d %d", &pid, &started); err != nil || pid <= 1 {
		return 0, false
	}
	now, ok := StartTime(pid)
	return pid, ok && now == started
}

// killWait is how long a process may take to be gone after SIGKILL.
const killWait = 5 * time.Second

// KillPidFile ends the process recorded in path, if it is still that process,
// and removes the file. It asks with SIGTERM first and gives it grace to end.
func KillPidFile(path string, grace time.Duration) error {
	for _, step := range []struct {
		sig  syscall.Signal
		wait time.Duration
	}{{syscall.SIGTERM, grace}, {syscall.SIGKILL, killWait}} {
		pid, alive := ReadPidFile(path)
		if !alive {
			break
		}
		if err := syscall.Kill(pid, step.sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("signal process %d: %w", pid, err)
		}
		_ = syscall.Kill(pid, syscall.SIGCONT) // a paused process could not act on SIGTERM
		for end := time.Now().Add(step.wait); alive && time.Now().Before(end); _, alive = ReadPidFile(path) {
			time.Sleep(10 * time.Millisecond)
		}
	}
	if pid, alive := ReadPidFile(path); alive {
		return fmt.Errorf("process %d survives SIGKILL", pid)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
