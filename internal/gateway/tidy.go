package gateway

import (
	"context"
	"os"
	"runtime/debug"
	"time"
)

const (
	tidyTick = 2 * time.Second
	// tidyWave is how many new connections make it worth while, tidyCalm how many
	// in a tick mean that the wave is over.
	tidyWave = 1000
	tidyCalm = 50
	// With few connections the heap is small and may grow to three times what
	// lives; with many, what it grows to counts more than how often it is
	// collected.
	manyConns     = 2000
	gcFew, gcMany = 200, 25
)

// tidy returns to the system what a wave of handshakes leaves behind: some 20 KiB
// of buffers for each connection, many times what the connection itself keeps. The
// runtime alone would hold on to it, as it is less than the next collection allows.
func (s *Server) tidy(ctx context.Context) {
	t := time.NewTicker(tidyTick)
	defer t.Stop()
	var (
		w    wave
		many = true
		gc   = os.Getenv("GOGC") == "" // else somebody has decided
	)
	for {
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
		if now := s.hub.count.Load() >= manyConns; gc && now != many {
			many = now
			if many {
				debug.SetGCPercent(gcMany)
			} else {
				debug.SetGCPercent(gcFew)
			}
		}
		if w.over(s.connIDs.Load()) {
			debug.FreeOSMemory()
		}
	}
}

// wave finds the end of a wave of new connections.
type wave struct{ seen, tidied int64 }

// over takes the number of connections made so far, once a tick.
func (w *wave) over(made int64) bool {
	calm := made-w.seen < tidyCalm
	w.seen = made
	if !calm || made-w.tidied < tidyWave {
		return false
	}
	w.tidied = made
	return true
}
