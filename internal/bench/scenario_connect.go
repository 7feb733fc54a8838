package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"im-services/internal/bench/crowd"
	"im-services/internal/bench/hist"
	"im-services/internal/bench/procs"
)

// platforms are the classes of devices: a user has one connection of each.
var platforms = []string{"web", "pc", "app"}

// crowdOfConnections adds n clients with as few users as the policy on devices
// allows.
func (r *run) crowdOfConnections(users []crowd.User, n int) {
	for i := range n {
		r.add(users[i/len(platforms)%len(users)], platforms[i%len(platforms)])
	}
}

// talkers is how many of the first users other scenarios let talk. Those who only
// connect are taken from behind them: a new device of a talker would be sent all
// that he missed on it.
const talkers = 1000

// silent returns n users who have not talked.
func silent(ctx context.Context, t *Target, n int) ([]crowd.User, error) {
	users, err := t.People.Users(ctx, talkers+n)
	if err != nil {
		return nil, err
	}
	return users[talkers:], nil
}

func usersFor(connections int) int { return (connections + len(platforms) - 1) / len(platforms) }

// runIdle opens o.Count connections to the first gateway and looks at what each
// costs while nothing happens. At the end each must be there still and answer.
func runIdle(ctx context.Context, t *Target, o Options) (*Result, error) {
	orDefault(&o.Count, 5000)
	orDefault(&o.Settle, 10*time.Second)
	users, err := silent(ctx, t, usersFor(o.Count))
	if err != nil {
		return nil, err
	}
	one := *t
	one.Gateways = t.Gateways[:1]
	r := newRun(ctx, &one)
	r.crowdOfConnections(users, o.Count)
	// Making accounts and earlier connections leave memory behind that new ones take
	// instead of growing the process.
	if t.Fresh != nil {
		if err := t.Fresh(ctx); err != nil {
			return nil, err
		}
		if err := r.sleep(o.Settle); err != nil {
			return nil, err
		}
	}
	before := memory(t)
	begin := time.Now()
	connect, err := r.connectAll(r.clients)
	if err != nil {
		r.closeAll()
		return nil, err
	}
	took := time.Since(begin)
	o.Progress("  %d connections in %s; waiting %s", o.Count, took.Round(time.Millisecond), o.Settle)
	res := &Result{Begin: begin, Extra: map[string]float64{}}
	if err := r.sleep(o.Settle); err != nil {
		r.closeAll()
		return nil, err
	}
	start := procs.Take(t.processes())
	err = r.sleep(o.Measure)
	res.Use = procs.Take(t.processes()).Since(start, runtime.NumCPU())
	after := memory(t)
	if err == nil {
		err = r.askAll()
	}
	r.closeAll()
	if n := r.faults.disconnects.Load(); n > 0 {
		err = fmt.Errorf("%d of %d connections were lost: %v", n, o.Count, r.reasons)
	}
	if err != nil {
		return nil, err
	}
	res.Seconds = res.Use.Seconds
	res.judge()
	if t.Fresh == nil {
		res.note("the servers ran before: connections may lie in memory that they had already")
	}
	c := connect.Summary()
	res.Connect = &c
	var grown int64
	for name, rss := range after {
		delta := rss - before[name]
		res.Extra["rss_kib_per_connection "+name] = float64(delta) / 1024 / float64(o.Count)
		if kind := (procs.Process{Name: name}).Kind(); kind == "gateway" || kind == "relay" {
			grown += delta
		}
	}
	res.Extra["rss_kib_per_connection"] = float64(grown) / 1024 / float64(o.Count)
	res.Extra["connects_per_second"] = float64(o.Count) / took.Seconds()
	res.Extra["idle_cpu_us_per_connection_second"] = res.Use.Total() * 1e6 / float64(o.Count) / res.Seconds
	res.Params = map[string]any{"connections": o.Count, "users": len(users), "settle_s": o.Settle.Seconds()}
	return res, nil
}

// askAll makes sure that each connection has an answer.
func (r *run) askAll() error {
	var g errgroup.Group
	g.SetLimit(connecting)
	for _, c := range r.clients {
		g.Go(func() error {
			_, err := c.ping(dialTimeout)
			return err
		})
	}
	return g.Wait()
}

// memory is the resident memory of the target's processes.
func memory(t *Target) map[string]int64 {
	out := map[string]int64{}
	for _, p := range t.processes() {
		if n, err := procs.RSS(p.Pid); err == nil {
			out[p.Name] = n
		}
	}
	return out
}

// runChurn opens and closes o.Count connections a second, each held for some
// seconds, beside an open loop of private messages at o.Rate.
func runChurn(ctx context.Context, t *Target, o Options) (*Result, error) {
	orDefault(&o.Users, 200)
	orDefault(&o.Rate, 500)
	orDefault(&o.Count, 100)
	r, err := pairRun(ctx, t, o, pairSpec{})
	if err != nil {
		return nil, err
	}
	v, err := r.visitors(ctx, o)
	if err != nil {
		return nil, err
	}
	if err := r.ready(); err != nil {
		return nil, err
	}
	res, err := r.measure(o.Window, func(stop <-chan struct{}) error {
		return errors.Join(both(
			func() error { return r.pace(r.flows, o.Rate, o.Seed, stop) },
			func() error { return v.come(stop) },
		)...)
	})
	if err != nil {
		return nil, err
	}
	v.report(res)
	res.OfferedPerSecond = o.Rate
	res.Params = map[string]any{"users": o.Users, "rate": o.Rate, "connects_per_second": o.Count, "body": o.Body}
	return res, nil
}

// both runs functions at the same time and returns their errors.
func both(fs ...func() error) []error {
	errs := make([]error, len(fs))
	var wg sync.WaitGroup
	for i, f := range fs {
		wg.Go(func() { errs[i] = f() })
	}
	wg.Wait()
	return errs
}

// visitors connect, stay a moment and leave.
type visitors struct {
	run    *run
	users  []crowd.User
	rate   float64
	took   hist.Hist
	failed chan error
	short  bool // leave as soon as there was an answer
}

// visit is how long a visitor stays, at most.
const visit = 2 * time.Second

func (r *run) visitors(ctx context.Context, o Options) (*visitors, error) {
	// Enough for nobody to be displaced by his own next visit.
	users, err := silent(ctx, r.target, usersFor(int(float64(o.Count)*visit.Seconds()*2)))
	if err != nil {
		return nil, err
	}
	return &visitors{run: r, users: users, rate: float64(o.Count), failed: make(chan error, 1)}, nil
}

// come lets visitors come until stop is closed, and waits for the last to leave.
func (v *visitors) come(stop <-chan struct{}) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	t := time.NewTicker(time.Duration(float64(time.Second) / v.rate))
	defer t.Stop()
	for i := 0; ; i++ {
		select {
		case <-stop:
			return nil
		case err := <-v.failed:
			return err
		case <-t.C:
		}
		wg.Go(func() {
			if err := v.visit(i, stop); err != nil {
				select {
				case v.failed <- err:
				default:
				}
			}
		})
	}
}

func (v *visitors) visit(i int, stop <-chan struct{}) error {
	u := v.users[i/len(platforms)%len(v.users)]
	// A visitor is a client of a run of his own: his connection ends on purpose.
	own := &run{ctx: v.run.ctx, target: v.run.target, start: v.run.start, reasons: map[string]int64{}, stamp: -1}
	own.phase.Store(&phase{})
	c := own.add(u, platforms[i%len(platforms)])
	c.index = i
	begin := time.Now()
	if err := c.connect(own.ctx, own.target.gateway(i)); err != nil {
		return fmt.Errorf("a visitor could not connect: %w", err)
	}
	own.readers.Go(c.read)
	defer own.closeAll()
	at, err := c.ping(dialTimeout)
	if err != nil {
		return fmt.Errorf("a visitor had no answer: %w", err)
	}
	v.took.Record(at.Sub(begin))
	if v.short {
		return nil
	}
	select {
	case <-stop:
	case <-time.After(rand.N(visit)): //nolint:gosec // traffic, not secrets
	}
	return nil
}

func (v *visitors) report(res *Result) {
	s := v.took.Summary()
	res.Connect = &s
}

// runStorm connects o.Count clients, cuts all their connections at once, and
// measures how long it takes until each is back with an answer, while o.Users
// others go on sending at o.Rate.
func runStorm(ctx context.Context, t *Target, o Options) (*Result, error) {
	orDefault(&o.Users, 100)
	orDefault(&o.Rate, 200)
	orDefault(&o.Count, 1000)
	ps, err := pairs(ctx, t, o.Users)
	if err != nil {
		return nil, err
	}
	r := newRun(ctx, t)
	if err := r.addPairs(ps, o, pairSpec{}); err != nil {
		return nil, err
	}
	users, err := silent(ctx, t, usersFor(o.Count))
	if err != nil {
		return nil, err
	}
	s := &storm{target: t, users: users, count: o.Count}
	if err := s.gather(ctx); err != nil {
		return nil, err
	}
	if err := r.ready(); err != nil {
		s.leave()
		return nil, err
	}
	w := o.Window
	w.Warm = max(w.Warm, 2*time.Second)
	res, err := r.measure(w, func(stop <-chan struct{}) error {
		return errors.Join(both(
			func() error { return r.pace(r.flows, o.Rate, o.Seed, stop) },
			func() error {
				if err := r.sleep(w.Warm); err != nil {
					return err
				}
				return s.strike(ctx)
			},
		)...)
	})
	s.leave()
	if err != nil {
		return nil, err
	}
	c := s.took.Summary()
	res.Connect = &c
	res.Extra = map[string]float64{"all_back_s": s.all.Seconds(), "refused_attempts": float64(s.refused)}
	res.OfferedPerSecond = o.Rate
	res.Params = map[string]any{"clients": o.Count, "users": o.Users, "rate": o.Rate}
	return res, nil
}

// storm is a crowd that loses its connections at once.
type storm struct {
	target  *Target
	users   []crowd.User
	count   int
	run     *run
	took    hist.Hist
	all     time.Duration
	refused int64
}

func (s *storm) gather(ctx context.Context) error {
	s.run = newRun(ctx, s.target)
	s.run.crowdOfConnections(s.users, s.count)
	_, err := s.run.connectAll(s.run.clients)
	if err != nil {
		s.leave()
	}
	return err
}

func (s *storm) leave() {
	if s.run != nil {
		s.run.closeAll()
	}
}

// strikers is how many of the crowd connect at the same time: everybody, as far
// as one machine can.
const strikers = 256

// strike cuts all connections and measures from then on.
func (s *storm) strike(ctx context.Context) error {
	old := s.run
	old.closing.Store(true)
	for _, c := range old.clients {
		c.mu.Lock()
		conn := c.conn
		c.mu.Unlock()
		if conn != nil {
			_ = conn.Close()
		}
	}
	begin := time.Now()
	old.readers.Wait()
	s.run = newRun(ctx, s.target)
	s.run.crowdOfConnections(s.users, s.count)
	var g errgroup.Group
	g.SetLimit(strikers)
	for _, c := range s.run.clients {
		g.Go(func() error {
			for attempt := 0; ; attempt++ {
				err := c.connect(ctx, s.target.gateway(c.index+attempt))
				if err == nil {
					break
				}
				if ctx.Err() != nil || time.Since(begin) > time.Minute {
					return fmt.Errorf("not back after %s: %w", time.Since(begin), err)
				}
				s.run.reason(err.Error())
				time.Sleep(rand.N(200 * time.Millisecond)) //nolint:gosec // traffic, not secrets
			}
			s.run.readers.Go(c.read)
			at, err := c.ping(time.Minute)
			if err != nil {
				return err
			}
			s.took.Record(at.Sub(begin))
			return nil
		})
	}
	err := g.Wait()
	s.all = time.Since(begin)
	for _, n := range s.run.reasons {
		s.refused += n
	}
	return err
}
