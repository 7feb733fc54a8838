package bench

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"time"

	"im-services/internal/bench/procs"
)

// runOverload offers more than the system can take, o.Rate, and looks at what it
// acknowledges, how it refuses, and how far its memory grows. Afterwards it waits
// until a message takes no longer than usual.
func runOverload(ctx context.Context, t *Target, o Options) (*Result, error) {
	orDefault(&o.Users, 200)
	orDefault(&o.Rate, 20_000)
	r, err := pairRun(ctx, t, o, pairSpec{})
	if err != nil {
		return nil, err
	}
	if err := r.ready(); err != nil {
		return nil, err
	}
	before := memory(t)
	peak := map[string]int64{}
	var recovered time.Duration
	res, err := r.measure(o.Window, func(stop <-chan struct{}) error {
		watched := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() { peakMemory(t, peak, watched) })
		err := r.pace(r.flows, o.Rate, o.Seed, stop)
		recovered = r.recover()
		close(watched)
		wg.Wait()
		return err
	})
	if err != nil {
		return nil, err
	}
	res.OfferedPerSecond = o.Rate
	res.Extra = map[string]float64{"recovered_after_s": recovered.Seconds()}
	for name, p := range peak {
		res.Extra["rss_growth_mib "+name] = float64(p-before[name]) / (1 << 20)
	}
	res.Params = map[string]any{"users": o.Users, "body": o.Body, "rate": o.Rate}
	return res, nil
}

// peakMemory notes the most that each process had, until stop is closed.
func peakMemory(t *Target, peak map[string]int64, stop <-chan struct{}) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		for name, n := range memory(t) {
			peak[name] = max(peak[name], n)
		}
		select {
		case <-stop:
			return
		case <-tick.C:
		}
	}
}

// recoverLimit is how long to wait for a system to recover from a surge.
const recoverLimit = 30 * time.Second

// recover returns how long it took until nothing was unanswered any more.
func (r *run) recover() time.Duration {
	begin := time.Now()
	for r.outstanding() > 0 && time.Since(begin) < recoverLimit && r.ctx.Err() == nil {
		if r.sleep(20*time.Millisecond) != nil {
			break
		}
	}
	return time.Since(begin)
}

// runConnect lets o.Users users connect, get an answer and leave, one after
// another in a few rows, and measures what a connection costs. o.Skip users are
// passed over: those before them have a history, those after may have none.
func runConnect(ctx context.Context, t *Target, o Options) (*Result, error) {
	orDefault(&o.Users, 200)
	users, err := t.People.Users(ctx, o.Skip+o.Users)
	if err != nil {
		return nil, err
	}
	v := &visitors{run: newRun(ctx, t), users: users[o.Skip:], short: true}
	res := &Result{Begin: time.Now(), Extra: map[string]float64{}}
	before := procs.Take(t.processes())
	begin := time.Now()
	const rows = 4
	errs := make(chan error, rows)
	for row := range rows {
		go func() {
			errs <- func() error {
				for i := row; time.Since(begin) < o.Measure; i += rows {
					// Each user comes with one device: the next visit is another's.
					if err := v.visit(i*len(platforms), nil); err != nil {
						return err
					}
				}
				return nil
			}()
		}()
	}
	for range rows {
		if e := <-errs; e != nil {
			err = e
		}
	}
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	res.Use = procs.Take(t.processes()).Since(before, runtime.NumCPU())
	res.Seconds = res.Use.Seconds
	res.judge()
	v.report(res)
	n := float64(res.Connect.Count)
	res.Extra["connects_per_second"] = n / res.Seconds
	res.Extra["cpu_us_per_connect"] = res.Use.Total() * 1e6 / n
	for kind, s := range res.Use.ByKind() {
		res.Extra["cpu_us_per_connect "+kind] = s * 1e6 / n
	}
	res.Params = map[string]any{"users": o.Users, "skip": o.Skip}
	return res, nil
}
