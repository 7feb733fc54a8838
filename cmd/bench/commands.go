package main

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"time"

	"im-services/internal/bench"
	"im-services/internal/bench/floor"
	"im-services/internal/cluster/infra"
)

func list(context.Context, *settings) error {
	for _, name := range bench.Names() {
		say("  %-8s %s", name, bench.Describe(name))
	}
	return nil
}

// runScenarios runs each named scenario once, against the system alone.
func runScenarios(ctx context.Context, s *settings) error {
	if len(s.names) == 0 {
		return errors.New("which scenario? bench list")
	}
	if err := s.open(ctx); err != nil {
		return err
	}
	doc := bench.NewDocument(s.machine(ctx))
	for _, name := range s.names {
		res, err := bench.Run(ctx, name, s.target, s.opts)
		if err != nil {
			return err
		}
		s.show(res)
		doc.Add(&bench.Comparison{Scenario: name, System: []*bench.Result{res}})
	}
	return errors.Join(doc.Write(s.out), s.verdict())
}

func compare(ctx context.Context, s *settings) error {
	if len(s.names) == 0 {
		s.names = []string{"private", "open", "group"}
	}
	if err := s.open(ctx); err != nil {
		return err
	}
	rel, err := s.startRelay(ctx)
	if err != nil {
		return err
	}
	doc := bench.NewDocument(s.machine(ctx))
	for _, name := range s.names {
		c, err := bench.Compare(ctx, name, rel, s.target, s.rounds, s.opts, s.show)
		if err != nil {
			return err
		}
		say("=> %s\n", c)
		doc.Add(c)
	}
	return errors.Join(doc.Write(s.out), s.verdict())
}

func knee(ctx context.Context, s *settings) error {
	rates, err := s.rateList()
	if err != nil {
		return err
	}
	if err := s.open(ctx); err != nil {
		return err
	}
	rel, err := s.startRelay(ctx)
	if err != nil {
		return err
	}
	doc := bench.NewDocument(s.machine(ctx))
	for _, t := range []*bench.Target{rel, s.target} {
		if t == nil {
			continue
		}
		k, err := bench.RunKnee(ctx, t, rates, s.opts, s.show)
		if err != nil {
			return err
		}
		doc.Knees = append(doc.Knees, k)
	}
	return errors.Join(doc.Write(s.out), s.verdict())
}

func floors(ctx context.Context, s *settings) error {
	if err := s.open(ctx); err != nil {
		return err
	}
	doc := bench.NewDocument(s.machine(ctx))
	if err := s.probe(ctx, doc, 4*time.Second); err != nil {
		return err
	}
	return doc.Write(s.out)
}

// probe measures the store and the bus alone.
func (s *settings) probe(ctx context.Context, doc *bench.Document, d time.Duration) error {
	if s.dsn != "" {
		for _, p := range []struct{ batch, writers int }{{1, 16}, {16, 4}, {64, 4}, {256, 4}} {
			r, err := floor.Store(ctx, s.dsn, s.process("mysql"), p.batch, p.writers, d)
			if err != nil {
				return err
			}
			say("store  batch %3d, %2d writers: %8.0f rows/s, %6.1f µs of the database per row", r.Batch, r.Writers, r.RowsPerSecond, r.CPU)
			doc.Stores = append(doc.Stores, r)
		}
	}
	if s.nsqd != "" {
		for _, batch := range []int{1, 16, 64} {
			r, err := floor.Bus(ctx, s.nsqd, s.process("nsqd"), batch, d)
			if err != nil {
				return err
			}
			say("bus    batch %3d: %8.0f msg/s, %6.1f µs of nsqd per message", r.Batch, r.PerSecond, r.CPU)
			doc.Buses = append(doc.Buses, r)
		}
	}
	return nil
}

// relay serves the bare relay until it is told to stop.
func relay(ctx context.Context, s *settings) error {
	l, err := net.Listen("tcp", s.listen) //nolint:noctx // at once
	if err != nil {
		return err
	}
	say("http://%s", l.Addr())
	return floor.NewRelay().Serve(ctx, l)
}

func report(_ context.Context, s *settings) error {
	if len(s.names) != 1 {
		return errors.New("one file of figures is needed")
	}
	doc, err := bench.ReadDocument(s.names[0])
	if err != nil {
		return err
	}
	return doc.WriteHTML(strings.TrimSuffix(s.names[0], ".json") + ".html")
}

// docs writes kept figures into the page of the documentation.
func docs(_ context.Context, s *settings) error {
	if len(s.names) != 1 {
		return errors.New("one file of figures is needed")
	}
	doc, err := bench.ReadDocument(s.names[0])
	if err != nil {
		return err
	}
	root, err := infra.Root()
	if err != nil {
		return err
	}
	return doc.UpdateMarkdown(filepath.Join(root, "docs", "performance.md"))
}
