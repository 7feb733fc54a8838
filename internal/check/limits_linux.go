package check

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// exhaustFiles leaves a process no file to open for a while: what it has open
// stays so.
func (s *system) exhaustFiles(ctx context.Context, f *fault) error {
	p := s.cluster.Process(f.Target)
	pid := p.Pid()
	open, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(pid), "fd"))
	if err != nil {
		return err
	}
	var was unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &was); err != nil {
		return fmt.Errorf("check: limit of files: %w", err)
	}
	less := unix.Rlimit{Cur: uint64(len(open)), Max: was.Max}
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &less, nil); err != nil {
		return fmt.Errorf("check: limit of files: %w", err)
	}
	sleep(ctx, f.Length)
	if p.Pid() == pid {
		if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &was, nil); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("check: limit of files: %w", err)
		}
	}
	return p.WaitReady(ctx)
}

const (
	memoryGroups = "/sys/fs/cgroup/memory"
	// memoryLeft is what a process may still allocate before the kernel kills it.
	memoryLeft = 256 << 10
)

// canLimitFiles reports that a process's limits can be set from outside.
func canLimitFiles() bool { return true }

// canLimitMemory reports whether the kernel lets us set limits.
func canLimitMemory() bool {
	dir := filepath.Join(memoryGroups, "im-check-"+strconv.Itoa(os.Getpid()))
	if err := os.Mkdir(dir, 0o750); err != nil {
		return false
	}
	defer func() { _ = os.Remove(dir) }()
	return os.WriteFile(filepath.Join(dir, "memory.limit_in_bytes"), []byte(strconv.Itoa(memoryLeft)), 0) == nil
}

// exhaustMemory puts a process where there is no memory left, so that the kernel
// kills it at its next wish.
func (s *system) exhaustMemory(ctx context.Context, f *fault) (err error) {
	dir := filepath.Join(memoryGroups, "im-check-"+strconv.Itoa(os.Getpid())+"-"+strconv.Itoa(f.Number))
	if err := os.Mkdir(dir, 0o750); err != nil {
		return err
	}
	p := s.cluster.Process(f.Target)
	pid := p.Pid()
	defer func() {
		if p.Pid() == pid { // it lives: give it back what it had
			_ = os.WriteFile(filepath.Join(memoryGroups, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0)
		}
		err = errors.Join(err, removeGroup(dir))
	}()
	for _, set := range []struct {
		file  string
		value int
	}{{"memory.limit_in_bytes", memoryLeft}, {"cgroup.procs", pid}} {
		if err := os.WriteFile(filepath.Join(dir, set.file), []byte(strconv.Itoa(set.value)), 0); err != nil {
			return fmt.Errorf("check: limit of memory: %w", err)
		}
	}
	for end := time.Now().Add(f.Length); time.Now().Before(end) && p.Pid() == pid && ctx.Err() == nil; {
		sleep(ctx, 50*time.Millisecond)
	}
	return p.WaitReady(ctx)
}

// removeGroup waits for the kernel to let go of a group's last process.
func removeGroup(dir string) error {
	var err error
	for range 20 {
		if err = os.Remove(dir); err == nil {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return err
}
