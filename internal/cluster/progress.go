package cluster

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// say tells a person and the supervisor's log.
func (c *Cluster) say(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if c.log != nil {
		c.log.Info(text)
	}
	c.progressMu.Lock()
	defer c.progressMu.Unlock()
	c.lastSaid = time.Now()
	_, _ = fmt.Fprintf(c.opts.Progress, "%6.1fs  %s\n", time.Since(c.started).Seconds(), text)
}

// busyWith makes a step known to signsOfLife until done is called.
func (c *Cluster) busyWith(step string) (done func()) {
	c.progressMu.Lock()
	defer c.progressMu.Unlock()
	c.busy = append(c.busy, step)
	return func() {
		c.progressMu.Lock()
		defer c.progressMu.Unlock()
		if i := slices.Index(c.busy, step); i >= 0 {
			c.busy = slices.Delete(c.busy, i, i+1)
		}
	}
}

// silence is how long a start may say nothing.
const silence = 15 * time.Second

// signsOfLife says what a start is busy with whenever it has said nothing for a
// while: a first build and a fetch take minutes on a slow machine.
func (c *Cluster) signsOfLife(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		c.progressMu.Lock()
		quiet, steps := time.Since(c.lastSaid), strings.Join(c.busy, ", ")
		c.progressMu.Unlock()
		if quiet >= silence && steps != "" {
			c.say("still %s", steps)
		}
	}
}

func since(t time.Time) time.Duration { return time.Since(t).Round(10 * time.Millisecond) }
