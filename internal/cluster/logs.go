package cluster

import (
	"io"
	"os"
	"path/filepath"
	"time"
)

// Logs are cut at maxLog bytes; what was cut is kept once, as <name>.log.1.
const (
	maxLog       = 64 << 20
	trimInterval = 10 * time.Second
)

// trimLogs keeps the logs bounded until the cluster stops. Processes write to
// descriptors they were given, so a log is copied and emptied, not renamed; they
// append, so they go on at the new end.
func (c *Cluster) trimLogs() {
	tick := time.NewTicker(trimInterval)
	defer tick.Stop()
	for {
		select {
		case <-c.closing:
			return
		case <-tick.C:
		}
		files, _ := filepath.Glob(c.state.LogFile("*"))
		for _, file := range files {
			if info, err := os.Stat(file); err != nil || info.Size() < maxLog {
				continue
			}
			if err := cutLog(file); err != nil {
				c.log.Error("the log cannot be cut", "file", file, "err", err)
			}
		}
	}
}

func cutLog(file string) error {
	from, err := os.Open(file) //nolint:gosec // our own log
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }()
	to, err := os.OpenFile(file+".1", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600) //nolint:gosec // our own log
	if err != nil {
		return err
	}
	if _, err := io.Copy(to, from); err != nil {
		_ = to.Close()
		return err
	}
	if err := to.Close(); err != nil {
		return err
	}
	return os.Truncate(file, 0)
}
