package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	"im-services/internal/bench"
)

// suite is everything that `make bench` measures, in an order that lets memory
// be looked at before anything has filled it.
type suite struct {
	*settings
	doc   *bench.Document
	relay *bench.Target
}

func all(ctx context.Context, s *settings) error {
	if err := s.open(ctx); err != nil {
		return err
	}
	rel, err := s.startRelay(ctx)
	if err != nil {
		return err
	}
	u := &suite{settings: s, doc: bench.NewDocument(s.machine(ctx)), relay: rel}
	for _, step := range []struct {
		what string
		run  func(context.Context) error
	}{
		{"idle connections", u.idle},
		{"floors", u.floors},
		{"against the relay", u.compared},
		{"latency against rate", u.knee},
		{"one of each", u.single},
		{"where the time goes", u.stages},
		{"what must not grow", u.growth},
		{"a large group", u.large},
	} {
		say("\n== %s", step.what)
		if err := step.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
		// What there is so far: the whole takes a while.
		if err := u.doc.Write(s.out); err != nil {
			return err
		}
	}
	say("\nfigures and plots: %s", filepath.Join(s.out, "bench.html"))
	return u.verdict()
}

// windows are shorter for a look.
func (u *suite) windows() (o bench.Options) {
	o = u.opts
	if u.quick {
		o.Warm, o.Measure = time.Second, 4*time.Second
	}
	return o
}

// sized picks the size of a crowd.
func (u *suite) sized(full, quick int) int {
	if u.quick {
		return quick
	}
	return full
}

func (u *suite) compare(ctx context.Context, name string, relay *bench.Target, rounds int, o bench.Options) error {
	c, err := bench.Compare(ctx, name, relay, u.target, rounds, o, u.show)
	if err != nil {
		return err
	}
	say("=> %s\n", c)
	u.doc.Add(c)
	return nil
}

func (u *suite) idle(ctx context.Context) error {
	for _, n := range []int{u.sized(5000, 300), u.sized(10_000, 600)} {
		o := u.windows()
		o.Count = n
		if err := u.compare(ctx, "idle", nil, 1, o); err != nil {
			return err
		}
	}
	return nil
}

func (u *suite) floors(ctx context.Context) error {
	return u.probe(ctx, u.doc, time.Duration(u.sized(4, 1))*time.Second)
}

func (u *suite) compared(ctx context.Context) error {
	for _, name := range []string{"private", "open", "oneway", "group"} {
		o := u.windows()
		o.Members = u.sized(100, 20)
		if err := u.compare(ctx, name, u.relay, u.sized(u.rounds, 1), o); err != nil {
			return err
		}
	}
	return nil
}

func (u *suite) knee(ctx context.Context) error {
	rates, err := u.rateList()
	if err != nil {
		return err
	}
	o := u.windows()
	o.Measure = min(o.Measure, 10*time.Second)
	for _, t := range []*bench.Target{u.relay, u.target} {
		if t == nil {
			continue
		}
		k, err := bench.RunKnee(ctx, t, rates, o, u.show)
		if err != nil {
			return err
		}
		u.doc.Knees = append(u.doc.Knees, k)
	}
	return nil
}

// large comes last: its members who were away get its messages when they connect,
// and would be the load of whatever came after.
func (u *suite) large(ctx context.Context) error {
	o := u.windows()
	o.Members = u.sized(2000, 200)
	return u.compare(ctx, "large", nil, 1, o)
}

func (u *suite) single(ctx context.Context) error {
	for _, name := range []string{"hot", "backlog", "backlog", "churn", "storm", "mixed", "overload"} {
		o := u.windows()
		switch name {
		case "storm":
			o.Count = u.sized(2000, 200)
		case "backlog":
			o.Count = u.sized(10_000, 2000)
		}
		if err := u.compare(ctx, name, nil, 1, o); err != nil {
			return err
		}
	}
	return nil
}

func (u *suite) stages(ctx context.Context) error {
	if len(u.target.Debug) == 0 {
		say("no debug listeners are known: left out")
		return nil
	}
	u.profileBus()
	table, res, err := bench.MeasureStages(ctx, "private", u.target, u.windows(), filepath.Join(u.out, "profiles-private"))
	if err != nil {
		return err
	}
	u.show(res)
	say("%s", table.Markdown())
	u.doc.Stages = table
	return nil
}

// growth measures one cost at several sizes.
func (u *suite) growth(ctx context.Context) error {
	for _, g := range []struct {
		title, x, y, scenario string
		strangers             bool // between users who have not written before
		sizes                 []int
		set                   func(o *bench.Options, size int)
		value                 func(r *bench.Result) float64
	}{
		{
			"processor time per message, 2,000 messages/s", "users and conversations", "µs per message", "open", false,
			[]int{50, 200, u.sized(1000, 300)},
			func(o *bench.Options, n int) { o.Users, o.Rate = n, 2000 },
			func(r *bench.Result) float64 { return r.PerMessage },
		},
		{
			"processor time per delivery in groups", "members of each of 5 groups", "µs per delivery", "group", false,
			[]int{10, 50, u.sized(200, 60)},
			func(o *bench.Options, n int) { o.Groups, o.Members = 5, n },
			func(r *bench.Result) float64 { return r.PerDelivery },
		},
		{
			"processor time per message in one long conversation", "messages before", "µs per message", "open", true,
			[]int{0, 1, 2, 3},
			func(o *bench.Options, _ int) { o.Users, o.Rate = 2, 1000 },
			func(r *bench.Result) float64 { return r.PerMessage },
		},
		{
			"processor time per connection", "users passed over: 0 have a long history, the last have none", "µs per connection", "connect", false,
			[]int{0, u.sized(2500, 400)},
			func(o *bench.Options, n int) { o.Users, o.Skip = 100, n },
			func(r *bench.Result) float64 { return r.Extra["cpu_us_per_connect"] },
		},
	} {
		growth := bench.Growth{Title: g.title, X: g.x, Y: g.y}
		target := u.target
		if g.strangers {
			var err error
			if target, err = u.strangers(ctx); err != nil {
				return err
			}
		}
		var before float64
		for _, size := range g.sizes {
			o := u.windows()
			o.Measure = min(o.Measure, 8*time.Second)
			g.set(&o, size)
			res, err := bench.Run(ctx, g.scenario, target, o)
			if err != nil {
				return err
			}
			u.show(res)
			x := float64(size)
			if g.x == "messages before" {
				x = before
				before += float64(res.Checks.Acked)
			}
			growth.Sizes = append(growth.Sizes, x)
			growth.Values = append(growth.Values, g.value(res))
		}
		u.doc.Growth = append(u.doc.Growth, growth)
	}
	return nil
}

// scale runs the open loop on clusters of 1, 2 and 4 gateways, each started for
// it and stopped after.
func scale(ctx context.Context, s *settings) error {
	growth := bench.Growth{Title: "processor time per message by gateways", X: "gateways", Y: "µs per message"}
	doc := bench.NewDocument(bench.ThisMachine())
	for _, n := range []int{1, 2, 4} {
		res, err := s.withGateways(ctx, n)
		if err != nil {
			return err
		}
		s.show(res)
		growth.Sizes = append(growth.Sizes, float64(n))
		growth.Values = append(growth.Values, res.PerMessage)
		doc.Add(&bench.Comparison{Scenario: "open", System: []*bench.Result{res}})
	}
	doc.Growth = append(doc.Growth, growth)
	return errors.Join(doc.Write(s.out), s.verdict())
}

func (s *settings) withGateways(ctx context.Context, n int) (*bench.Result, error) {
	own := *s
	own.closers = nil
	defer own.close()
	own.own = true
	own.gateways = n
	own.accounts = filepath.Join(s.out, "accounts-"+strconv.Itoa(n)+".json")
	if err := own.open(ctx); err != nil {
		return nil, err
	}
	return bench.Run(ctx, "open", own.target, own.opts)
}
