package cluster

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// holderOf describes the process that listens on a TCP port, "" if that cannot
// be seen.
func holderOf(port int) string {
	inodes := map[string]bool{}
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		text, err := os.ReadFile(table) //nolint:gosec // a kernel file
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			// sl local_address rem_address st … inode; state 0A is LISTEN
			f := strings.Fields(line)
			if len(f) < 10 || f[3] != "0A" {
				continue
			}
			_, hex, _ := strings.Cut(f[1], ":")
			if p, err := strconv.ParseUint(hex, 16, 16); err == nil && int(p) == port {
				inodes["socket:["+f[9]+"]"] = true
			}
		}
	}
	if len(inodes) == 0 {
		return ""
	}
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, fd := range fds {
		if target, err := os.Readlink(fd); err != nil || !inodes[target] {
			continue
		}
		pid := strings.Split(fd, "/")[2]
		args, err := os.ReadFile("/proc/" + pid + "/cmdline") //nolint:gosec // a kernel file
		if err != nil {
			return "process " + pid
		}
		line := strings.Join(strings.Fields(string(bytes.ReplaceAll(args, []byte{0}, []byte{' '}))), " ")
		return fmt.Sprintf("process %s: %.120s", pid, line)
	}
	return ""
}
