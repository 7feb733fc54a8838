//go:build !linux

package cluster

import (
	"context"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// holderOf describes the process that listens on a TCP port, "" if that cannot
// be seen.
func holderOf(port int) string {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "lsof", "-nP", "-iTCP:"+strconv.Itoa(port), "-sTCP:LISTEN", "-F", "pc").Output() //nolint:gosec // fixed program
	if err != nil {
		return ""
	}
	f := strings.Fields(string(out)) // p<pid> c<command>
	if len(f) < 2 {
		return ""
	}
	return "process " + f[0][1:] + ": " + f[1][1:]
}
