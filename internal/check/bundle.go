package check

import (
	"cmp"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// The files of a bundle.
const (
	historyFile  = "history.jsonl"
	scheduleFile = "schedule.json"
	reportFile   = "report.txt"
	pageFile     = "report.html"
	replayFile   = "replay.sh"
	logsDir      = "logs"
)

// finish writes the reports and keeps or removes the rest.
func (r *run) finish(v *Verdict) error {
	keep := r.o.Keep || r.o.Bundle != "" || !v.Green()
	v.HTML = filepath.Join(r.dir, pageFile)
	if keep {
		v.Bundle = r.dir
	}
	errs := []error{
		os.WriteFile(filepath.Join(r.dir, reportFile), []byte(v.Text()), 0o600),
		os.WriteFile(v.HTML, []byte(v.Page()), 0o600),
		r.writeSchedule(),
		os.WriteFile(filepath.Join(r.dir, replayFile), []byte("#!/bin/sh\n# From the repository's top folder.\nexec "+v.Command+"\n"), 0o700), //nolint:gosec // a script
	}
	if !v.Green() || r.o.Keep {
		errs = append(errs, r.keepLogs())
	}
	if !keep {
		errs = append(errs, os.Remove(filepath.Join(r.dir, historyFile)))
	}
	r.system.close()
	if r.system.stateDir != "" {
		errs = append(errs, os.RemoveAll(r.system.stateDir))
	}
	return errors.Join(errs...)
}

func (r *run) writeSchedule() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	done := Schedule{Seed: r.o.Seed, Faults: r.schedule, Troubles: r.troubles}
	return done.Write(filepath.Join(r.dir, scheduleFile))
}

// keepLogs copies the logs of an own cluster into the bundle.
func (r *run) keepLogs() error {
	if r.system.cluster == nil {
		return nil
	}
	dir := filepath.Join(r.dir, logsDir)
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	var errs []error
	for _, name := range append(r.system.processNames(), "supervisor") {
		if err := copyFile(filepath.Join(dir, name+".log"), r.system.logFile(name)); err != nil && !os.IsNotExist(err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func copyFile(to, from string) error {
	in, err := os.Open(from) //nolint:gosec // a log of our own cluster
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.Create(to) //nolint:gosec // in our own folder
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
