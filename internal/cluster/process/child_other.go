//go:build !linux

package process

import (
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// childAttr gives the child a process group of its own. This system has no
// signal for a parent's death: what an ended program left behind is found by its
// pid file at the next start.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}

// takeTurns is Linux's.
func takeTurns() {}

// paused is not to be seen here; the signal is trusted.
func paused(int) bool { return true }

// StartTime returns when pid was started, in seconds since 1970, and whether
// pid exists.
func StartTime(pid int) (uint64, bool) {
	out, err := exec.Command("ps", "-o", "lstart=", "-p", strconv.Itoa(pid)).Output() //nolint:gosec,noctx // ps answers at once
	if err != nil {
		return 0, false
	}
	t, err := time.ParseInLocation(time.ANSIC, strings.Join(strings.Fields(string(out)), " "), time.Local)
	if err != nil {
		return 0, false
	}
	return uint64(t.Unix()), true
}
