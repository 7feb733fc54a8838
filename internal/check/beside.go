package check

import (
	"context"
	"time"

	"im-services/internal/imclient"
)

const (
	// compareLong is how long people must talk for a stretch without faults, in
	// which what slow ones cost others can be seen.
	compareLong = 5 * time.Minute
	// compareEach is how much of it there is without them, and with them: enough
	// seconds for judgeSlow to compare.
	compareEach = (slowSeconds + 2) * time.Second
	// compareWait is how long the end of a fault is waited for.
	compareWait = 20 * time.Second
)

// undisturbed is a stretch in which nothing fails: first until what failed before it
// has no effect any more, then without slow ones, then beside them. False if there
// was something that did not end.
func (g *slowGroup) undisturbed(ctx context.Context, n int) bool {
	select {
	case g.run.failing <- struct{}{}:
	case <-time.After(compareWait):
		return false
	case <-ctx.Done():
		return false
	}
	defer func() { <-g.run.failing }()
	g.run.say("nothing fails, to see what slow ones cost others")
	sleep(ctx, tail+compareEach)
	g.beside(ctx, n, compareEach)
	return true
}

// beside is a stretch of at least that length with slow ones. In the end they have
// read everything.
func (g *slowGroup) beside(ctx context.Context, n int, least time.Duration) {
	g.run.log.add(&Event{Conn: n, Type: imclient.Invoke, Op: OpBeside})
	end := time.Now().Add(least)
	g.episode(ctx, n)
	for time.Now().Before(end) && ctx.Err() == nil {
		g.episode(ctx, n)
	}
	g.run.log.add(&Event{Conn: n, Type: imclient.OK, Op: OpBeside})
	for _, a := range g.members {
		a.syncs.round(g.run.ctx, a) // he is back
	}
}
