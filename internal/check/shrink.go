package check

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Schedule is what was done to a system, as a run writes it into its bundle. To
// run with a Schedule is to do the same faults again, with the same pauses.
type Schedule struct {
	Seed     uint64            `json:"seed"`
	Faults   []fault           `json:"faults"`
	Troubles map[string]string `json:"troubles,omitempty"` // what could not be done, and why
}

// ReadSchedule reads the schedule of a bundle.
func ReadSchedule(file string) (*Schedule, error) {
	text, err := os.ReadFile(file) //nolint:gosec // the user names it
	if err != nil {
		return nil, err
	}
	var s Schedule
	if err := json.Unmarshal(text, &s); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if len(s.Faults) == 0 {
		return nil, fmt.Errorf("%s: a schedule without faults", file)
	}
	return &s, nil
}

// Write writes s for ReadSchedule.
func (s *Schedule) Write(file string) error {
	text, err := json.MarshalIndent(s, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, text, 0o600)
}

// has reports whether a fault is among those of s.
func (s *Schedule) has(kind, target string) bool {
	return slices.ContainsFunc(s.Faults, func(f fault) bool { return f.Kind == kind && f.Target == target })
}

// length is how long people must talk for all of s to happen.
func (s *Schedule) length() time.Duration {
	const around, each = 10 * time.Second, 3 * time.Second // warm-up and end; the way back up
	d := around
	for _, f := range s.Faults {
		d += f.After + f.Length + each
	}
	return d
}

// draw returns the faults one after another.
func (s *Schedule) draw() func() (fault, bool) {
	next := 0
	return func() (fault, bool) {
		if next == len(s.Faults) {
			return fault{}, false
		}
		next++
		return s.Faults[next-1], true
	}
}

// shrinkTries is how often a part of a schedule is tried before it counts as
// harmless: when exactly a process gets to run differs from time to time.
const shrinkTries = 2

// Shrink looks for the least part of o.Schedule under which the system still
// breaks a promise that it breaks under the whole, and returns it with the
// verdict on it. It runs the checker again and again. If not even the whole
// schedule breaks one, the verdict is green.
func Shrink(ctx context.Context, o Options) (*Schedule, *Verdict, error) {
	o = o.withDefaults()
	whole, limit, folder := o.Schedule, o.Duration, o.Bundle
	if whole == nil {
		return nil, nil, errors.New("check: no schedule to shrink")
	}
	o.Seed = whole.Seed
	var promises []string // that the whole schedule breaks
	var worst *Verdict
	round := 0
	red := func(part []fault) (bool, error) {
		for range shrinkTries {
			round++
			once := o
			once.Schedule = &Schedule{Seed: whole.Seed, Faults: part}
			once.Duration = min(limit, once.Schedule.length())
			if folder != "" {
				once.Bundle = filepath.Join(folder, fmt.Sprintf("shrink-%d", round))
			}
			_, _ = fmt.Fprintf(o.Progress, "shrinking, round %d: %d faults\n", round, len(part))
			v, err := Run(ctx, once)
			if err != nil {
				return false, err
			}
			broken := v.broken()
			if promises == nil {
				promises = broken
			}
			if slices.ContainsFunc(broken, func(id string) bool { return slices.Contains(promises, id) }) {
				worst = v
				return true, nil
			}
			worst = cmp.Or(worst, v)
		}
		return false, nil
	}
	is, err := red(whole.Faults)
	if err != nil || !is {
		return whole, worst, err
	}
	least, err := shrink(whole.Faults, red)
	return &Schedule{Seed: whole.Seed, Faults: least}, worst, err
}

// broken are the invariants that do not hold.
func (v *Verdict) broken() []string {
	var out []string
	for i := range v.Results {
		if v.Results[i].Red > 0 {
			out = append(out, v.Results[i].ID)
		}
	}
	return out
}

// shrink is delta debugging: it returns a part of list that is still red and of
// which no single element can be left out, given that list is red.
func shrink[T any](list []T, red func([]T) (bool, error)) ([]T, error) {
	for pieces := 2; len(list) > 1; {
		size := (len(list) + pieces - 1) / pieces
		smaller := false
		for from := 0; from < len(list); from += size {
			to := min(from+size, len(list))
			// The piece alone first, while pieces are large; then all but it.
			for _, part := range [][]T{slices.Clone(list[from:to]), slices.Concat(list[:from], list[to:])} {
				if len(part) == 0 || len(part) == len(list) || len(part) == to-from && pieces > 2 {
					continue
				}
				is, err := red(part)
				if err != nil {
					return list, err
				}
				if is {
					list, smaller = part, true
					break
				}
			}
			if smaller {
				break
			}
		}
		switch {
		case smaller:
			pieces = max(pieces-1, 2)
		case size == 1:
			return list, nil
		default:
			pieces = min(2*pieces, len(list))
		}
	}
	return list, nil
}
