package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"

	"im-services/internal/bench/micro"
	"im-services/internal/cluster/infra"
)

// micro runs the hot paths' benchmarks, shows how times changed since the last
// run, and fails if one allocates more, or takes more instructions, than the
// golden file accepts.
func runMicro(ctx context.Context, s *settings) error {
	root, err := infra.Root()
	if err != nil {
		return err
	}
	dir := filepath.Join(s.out, "micro")
	r := &micro.Runner{Root: root, Dir: dir, Count: s.count, Time: s.benchTime, Out: os.Stdout}
	figures, err := r.Run(ctx)
	if err != nil {
		return err
	}
	newer, older := filepath.Join(dir, "new.txt"), filepath.Join(dir, "old.txt")
	if _, err := os.Stat(older); err == nil { //nolint:gosec // the folder the user named
		cmd := exec.CommandContext(ctx, "go", "tool", "-modfile=tools/bench/go.mod", "benchstat", older, newer) //nolint:gosec // our own files
		cmd.Dir, cmd.Stdout, cmd.Stderr = root, os.Stdout, os.Stderr
		if err := cmd.Run(); err != nil {
			return err
		}
	}
	if err := os.Rename(newer, older); err != nil { //nolint:gosec // the folder the user named
		return err
	}
	golden := filepath.Join(root, "internal", "bench", "micro", "golden.txt")
	if s.update {
		return micro.WriteGolden(golden, figures)
	}
	want, err := micro.ReadGolden(golden)
	if err != nil {
		return err
	}
	worse, better := micro.Compare(want, figures)
	for _, line := range better {
		say("better: %s (-update accepts it)", line)
	}
	for _, line := range worse {
		say("WORSE: %s", line)
	}
	if len(worse) > 0 {
		return errors.New("a hot path costs more than internal/bench/micro/golden.txt accepts; if that is wanted, -update and say why in the commit")
	}
	say("%d benchmarks within the golden file", len(want))
	return nil
}
