package process

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// childAttr gives the child a process group of its own and lets the kernel kill
// it when the spawner thread, that is this program, is gone.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// takeTurns makes the calling thread one that does not interrupt others when it
// wakes up, and with it the children it starts. A dozen servers that wake each
// other for every message would otherwise take the processors from one another in
// the middle of their work; on two that was a twentieth of the time spent on a
// message. They get no less time by it. Where it is not allowed, nothing changes.
func takeTurns() {
	if attr, err := unix.SchedGetAttr(0, 0); err == nil && attr.Policy == unix.SCHED_NORMAL {
		attr.Policy = unix.SCHED_BATCH
		_ = unix.SchedSetAttr(0, attr, 0)
	}
}

// paused reports whether every thread of pid is stopped.
func paused(pid int) bool {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	for _, thread := range threads {
		stat, err := os.ReadFile(thread) //nolint:gosec // a kernel file
		if err != nil {
			continue // it ended meanwhile
		}
		rest := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
		if len(rest) > 0 && rest[0][0] != 'T' && rest[0][0] != 'Z' && rest[0][0] != 'X' {
			return false
		}
	}
	return len(threads) > 0
}

// StartTime returns when pid was started, in clock ticks since the machine's
// start, and whether pid exists and is no zombie. Process ids are used again;
// (pid, start time) is not.
func StartTime(pid int) (uint64, bool) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, false
	}
	// The second field is the name in parentheses and may itself contain them.
	rest := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	const state, start = 0, 19
	if len(rest) <= start || rest[state][0] == 'Z' {
		return 0, false
	}
	t, err := strconv.ParseUint(string(rest[start]), 10, 64)
	return t, err == nil
}
