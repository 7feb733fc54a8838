package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"im-services/internal/bench/stages"
)

// MeasureStages runs a scenario and profiles all processes meanwhile. Raw
// profiles are kept in dir, unless that is empty.
func MeasureStages(ctx context.Context, name string, t *Target, o Options, dir string) (*stages.Table, *Result, error) {
	if len(t.Debug) == 0 {
		return nil, nil, errors.New("no debug listeners are known: -debug name=host:port")
	}
	o = o.withDefaults()
	// The profile lies inside the measured window.
	length := max(o.Measure-time.Second, time.Second).Truncate(time.Second)
	var (
		profiles              []stages.Profile
		before, after         stages.Metrics
		profileErr, scrapeErr error
		wg                    sync.WaitGroup
	)
	defer wg.Wait()
	o.Hook = func(t *Target) {
		wg.Go(func() {
			timer := time.NewTimer(o.Warm + 500*time.Millisecond)
			defer timer.Stop()
			select {
			case <-timer.C:
			case <-ctx.Done():
				return
			}
			services := map[string]string{}
			for name, addr := range t.Debug {
				services[name] = addr
			}
			delete(services, "nsqd") // has profiles, but no metrics of this form
			before, scrapeErr = stages.Scrape(ctx, services)
			profiles, profileErr = stages.Collect(ctx, t.Debug, length)
			var err error
			after, err = stages.Scrape(ctx, services)
			scrapeErr = errors.Join(scrapeErr, err)
		})
	}
	res, err := Run(ctx, name, t, o)
	wg.Wait()
	if err = errors.Join(err, profileErr, scrapeErr); err != nil {
		return nil, nil, err
	}
	whole := map[string]float64{}
	acked := res.AckedPerSecond * res.Seconds
	if acked == 0 {
		return nil, nil, errors.New("no message went through")
	}
	for kind, s := range res.Use.ByKind() {
		whole[kind] = s * 1e6 / acked
	}
	table := stages.Build(profiles, res.AckedPerSecond, whole)
	table.Scenario = name
	grown := after.Since(before)
	table.Waits = grown.Waits()
	table.Batch, _ = grown.Mean("im_logic_batch_messages")
	if dir != "" {
		if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // reports for everybody
			return nil, nil, err
		}
		for _, p := range profiles {
			file := filepath.Join(dir, p.Name+".pprof")
			if err := os.WriteFile(file, p.Raw, 0o644); err != nil { //nolint:gosec // reports for everybody
				return nil, nil, fmt.Errorf("keep profile: %w", err)
			}
		}
	}
	return table, res, nil
}
