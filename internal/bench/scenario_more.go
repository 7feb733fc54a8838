package bench

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"im-services/internal/bench/crowd"
	"im-services/internal/bench/procs"
)

// runBacklog has one user send o.Count messages to a friend who is away, then
// connects the friend once and measures until the last one is there.
func runBacklog(ctx context.Context, t *Target, o Options) (*Result, error) {
	orDefault(&o.Count, 10_000)
	orDefault(&o.Pending, 128)
	ps, err := pairs(ctx, t, 2)
	if err != nil {
		return nil, err
	}
	r := newRun(ctx, t)
	sender, away := r.add(ps[0][0], ""), r.add(ps[0][1], "")
	f, err := r.newFlow(flowSpec{
		from: sender, to: away.user.ID, kind: kindPrivate, window: o.Pending, receivers: []*client{away}, bodySize: o.Body,
	})
	if err != nil {
		return nil, err
	}
	f.limit = o.Count
	// What earlier runs left must not be in the figure: take it first.
	if err := drainOld(ctx, t, ps[0][1].Token); err != nil {
		return nil, err
	}
	defer r.closeAll()
	if _, err := r.connectAll([]*client{sender}); err != nil {
		return nil, err
	}
	filled := time.Now()
	ph := r.phase.Load()
	for range min(o.Pending, o.Count) {
		f.again()
	}
	for ph.acked.Load() < int64(o.Count) {
		if err := r.sleep(time.Millisecond); err != nil {
			return nil, err
		}
		if time.Since(filled) > 2*time.Minute || ph.refused.Load() > 0 {
			return nil, fmt.Errorf("only %d of %d stored: %v", ph.acked.Load(), o.Count, r.reasons)
		}
	}
	r.stopped.Store(true)
	stored := time.Since(filled)
	for r.outstanding() > 0 {
		if err := r.sleep(10 * time.Millisecond); err != nil {
			return nil, err
		}
	}
	if err := r.sleep(time.Second); err != nil { // pushes to nobody are over
		return nil, err
	}
	want, _ := r.expected()
	res := &Result{Begin: time.Now()}
	before := procs.Take(t.processes())
	begin := time.Now()
	if err := away.connect(ctx, t.gateway(1)); err != nil {
		return nil, err
	}
	r.readers.Go(away.read)
	for r.deliveredTotal.Load() < want && time.Since(begin) < time.Minute {
		if err := r.sleep(200 * time.Microsecond); err != nil {
			return nil, err
		}
	}
	took := time.Since(begin)
	if err := r.sleep(time.Second); err != nil { // for what must not come; and the receipt
		return nil, err
	}
	res.Use = procs.Take(t.processes()).Since(before, runtime.NumCPU())
	r.closeAll()
	res.Seconds = took.Seconds()
	res.Checks = r.account()
	res.judge()
	res.Extra = map[string]float64{
		"drain_ms": float64(took) / float64(time.Millisecond), "messages": float64(want),
		"fill_per_second": float64(want) / stored.Seconds(), "cpu_us_per_message": res.Use.Total() * 1e6 / float64(want),
	}
	res.Params = map[string]any{"messages": o.Count, "body": o.Body}
	return res, nil
}

// drainOld reads what is waiting for a user until nothing has come for a while,
// and stays until its receipt is proved.
func drainOld(ctx context.Context, t *Target, token string) error {
	r := newRun(ctx, t)
	r.add(crowd.User{Token: token}, "")
	if _, err := r.connectAll(r.clients); err != nil {
		r.closeAll()
		return err
	}
	defer r.closeAll()
	return r.sleep(1500 * time.Millisecond)
}

// runMixed is private traffic, a quarter of it to groups, with visitors coming
// and going.
func runMixed(ctx context.Context, t *Target, o Options) (*Result, error) {
	orDefault(&o.Users, 200)
	orDefault(&o.Rate, 1000)
	orDefault(&o.Groups, 5)
	orDefault(&o.Members, 40)
	orDefault(&o.Count, 20)
	o.Users = max(o.Users, o.Groups*o.Members)
	ps, err := pairs(ctx, t, o.Users)
	if err != nil {
		return nil, err
	}
	r := newRun(ctx, t)
	if err := r.addPairs(ps, o, pairSpec{}); err != nil {
		return nil, err
	}
	private := r.flows
	users, err := t.People.Users(ctx, o.Users)
	if err != nil {
		return nil, err
	}
	for g := range o.Groups {
		if err := r.addGroup(users[g*o.Members:(g+1)*o.Members], o.Members, o, groupSpec{senders: 10}); err != nil {
			return nil, err
		}
	}
	groups := r.flows[len(private):]
	v, err := r.visitors(ctx, o)
	if err != nil {
		return nil, err
	}
	if err := r.ready(); err != nil {
		return nil, err
	}
	res, err := r.measure(o.Window, func(stop <-chan struct{}) error {
		if o.Hook != nil {
			o.Hook(t)
		}
		return errors.Join(both(
			func() error { return r.pace(private, o.Rate*3/4, o.Seed, stop) },
			func() error { return r.pace(groups, o.Rate/4, o.Seed+1, stop) },
			func() error { return v.come(stop) },
		)...)
	})
	if err != nil {
		return nil, err
	}
	v.report(res)
	res.OfferedPerSecond = o.Rate
	res.Params = map[string]any{
		"users": o.Users, "rate": o.Rate, "groups": o.Groups, "members": o.Members, "connects_per_second": o.Count, "body": o.Body,
	}
	return res, nil
}
