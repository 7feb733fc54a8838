package main

import (
	"context"
	"errors"
	"path/filepath"

	"im-services/internal/bench"
)

// stagesTable profiles all processes during a scenario, private by default.
func stagesTable(ctx context.Context, s *settings) error {
	if len(s.names) == 0 {
		s.names = []string{"private"}
	}
	if err := s.open(ctx); err != nil {
		return err
	}
	s.profileBus()
	doc := bench.NewDocument(s.machine(ctx))
	for _, name := range s.names {
		table, res, err := bench.MeasureStages(ctx, name, s.target, s.opts, filepath.Join(s.out, "profiles-"+name))
		if err != nil {
			return err
		}
		s.show(res)
		say("%s", table.Markdown())
		for _, process := range []string{"gateway", "logic", "nsqd"} {
			say("%s", table.Functions(process, 25))
		}
		doc.Stages = table
	}
	return errors.Join(doc.Write(s.out), s.verdict())
}

// profileBus adds nsqd, which serves profiles on its HTTP side.
func (s *settings) profileBus() {
	if s.local == nil {
		return
	}
	if addr := s.local.Info.Addrs["nsqd/http"]; addr != "" {
		s.target.Debug["nsqd"] = addr
	}
}
