package bench

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"im-services/internal/bench/crowd"
	"im-services/internal/bench/hist"
	"im-services/internal/bench/procs"
)

// Kinds of conversation, as in channel_type.
const (
	kindPrivate = 1
	kindGroup   = 2
)

// phase counts what happens between two moments.
type phase struct{ sent, acked, delivered, refused, completed atomic.Int64 }

// window holds the latencies of what was due in the measured window, whenever its
// answer comes: those that wait longest come after it.
type window struct {
	from, to           time.Duration // since the run's start
	ack, deliver, late hist.Hist
}

// run is one execution of a scenario against one target.
type run struct {
	ctx     context.Context
	target  *Target
	stamp   int64
	start   time.Time
	parties map[int64]*party
	clients []*client
	flows   []*flow

	phase   atomic.Pointer[phase]
	window  atomic.Pointer[window] // nil until it begins
	faults  faults
	stopped atomic.Bool // send nothing new
	closing atomic.Bool // connections end because we want it
	churned bool        // connections ended and began on purpose meanwhile

	reasonsMu sync.Mutex
	reasons   map[string]int64

	deliveredTotal atomic.Int64 // first arrivals since the run began

	readers sync.WaitGroup
}

// lastStamp keeps runs of one process apart that begin within a second.
var lastStamp atomic.Int64

func newRun(ctx context.Context, t *Target) *run {
	stamp := newStamp(time.Now())
	for {
		last := lastStamp.Load()
		if stamp <= last {
			stamp = last + 1
		}
		if lastStamp.CompareAndSwap(last, stamp) {
			break
		}
	}
	r := &run{
		ctx: ctx, target: t, stamp: stamp, start: time.Now(), parties: map[int64]*party{}, reasons: map[string]int64{},
	}
	r.phase.Store(&phase{})
	return r
}

func (r *run) now() time.Duration { return time.Since(r.start) }

// windowOf returns the measured window if it holds that moment, else nil.
func (r *run) windowOf(due time.Duration) *window {
	if w := r.window.Load(); w != nil && w.from <= due && due < w.to {
		return w
	}
	return nil
}

func (r *run) reason(text string) {
	r.reasonsMu.Lock()
	defer r.reasonsMu.Unlock()
	if len(r.reasons) < 100 || r.reasons[text] > 0 {
		r.reasons[text]++
	}
}

// add makes a client of a user; it connects in connectAll.
func (r *run) add(u crowd.User, platform string) *client {
	c := &client{
		run: r, index: len(r.clients), user: u, platform: platform,
		tracks: map[*flow]*track{}, orders: map[int64]*order{}, pong: make(chan time.Time, 1),
	}
	r.clients = append(r.clients, c)
	return c
}

// flowSpec says how a flow sends.
type flowSpec struct {
	from           *client
	to             int64
	kind           int64
	window         int
	untilDelivered bool
	receivers      []*client
	bodySize       int
}

// newFlow adds a flow. All flows exist before the first connection does.
func (r *run) newFlow(s flowSpec) (*flow, error) {
	slot := len(s.from.flows)
	if slot > maxSlot {
		return nil, fmt.Errorf("more than %d conversations for one sender", maxSlot+1)
	}
	f := &flow{
		run: r, from: s.from, slot: slot, to: s.to, kind: s.kind, window: s.window,
		untilDelivered: s.untilDelivered, receivers: s.receivers, body: make([]byte, max(s.bodySize, keyDigits)),
	}
	for i := range f.body {
		f.body[i] = 'a' + byte(i%26)
	}
	s.from.flows = append(s.from.flows, f)
	p := r.parties[s.from.user.ID]
	if p == nil {
		p = &party{}
		r.parties[s.from.user.ID] = p
	}
	if p.flows[slot] != nil {
		return nil, errors.New("a user sends on one connection only")
	}
	p.flows[slot] = f
	r.flows = append(r.flows, f)
	return f, nil
}

// connecting is how many connections are made at once.
const connecting = 32

// connectAll connects the clients, waits until each has had an answer on its
// socket, and returns how long each took.
func (r *run) connectAll(clients []*client) (*hist.Hist, error) {
	var took hist.Hist
	g, _ := errgroup.WithContext(r.ctx)
	g.SetLimit(connecting)
	for _, c := range clients {
		g.Go(func() error {
			begin := time.Now()
			if err := c.connect(r.ctx, r.target.gateway(c.index)); err != nil {
				return fmt.Errorf("connect to %s: %w", r.target.gateway(c.index), err)
			}
			r.readers.Go(c.read)
			at, err := c.ping(dialTimeout)
			if err != nil {
				return err
			}
			took.Record(at.Sub(begin))
			return nil
		})
	}
	return &took, g.Wait()
}

// ping waits for the answer to a heartbeat.
func (c *client) ping(limit time.Duration) (time.Time, error) {
	c.mu.Lock()
	conn := c.conn
	c.mu.Unlock()
	if conn == nil {
		return time.Time{}, errors.New("not connected")
	}
	select {
	case <-c.pong: // a late answer to an earlier question
	default:
	}
	if err := conn.Heartbeat(); err != nil {
		return time.Time{}, err
	}
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case at := <-c.pong:
		return at, nil
	case <-t.C:
		return time.Time{}, errors.New("no answer to a heartbeat")
	case <-c.run.ctx.Done():
		return time.Time{}, c.run.ctx.Err()
	}
}

// sleep waits, unless the run is cancelled.
func (r *run) sleep(d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-r.ctx.Done():
		return r.ctx.Err()
	}
}

// answerLimit is how long a send may be unanswered before it is sent again.
const answerLimit = 5 * time.Second

// watch sends again what had no answer in time, until stop is closed.
func (r *run) watch(stop <-chan struct{}) {
	t := time.NewTicker(250 * time.Millisecond)
	defer t.Stop()
	for {
		select {
		case <-stop:
			return
		case <-t.C:
		}
		now := r.now()
		for _, f := range r.flows {
			n, oldest := f.open()
			if n == 0 || now-max(oldest, f.resentAt) < answerLimit {
				continue
			}
			f.resentAt = now
			f.from.mu.Lock()
			n = f.resendLocked()
			f.from.mu.Unlock()
			r.faults.unknown.Add(int64(n))
		}
	}
}

// outstanding counts sends without an answer.
func (r *run) outstanding() (open int) {
	for _, f := range r.flows {
		n, _ := f.open()
		open += n
	}
	return open
}

// How long a run waits at its end while nothing comes any more.
const (
	// The repetition of a send may rightly have no answer for 45 seconds: see
	// docs/guarantees.md. After this one it is a fault.
	unansweredLimit = time.Minute
	// Gaps are healed within ten seconds.
	healingLimit = answerLimit + 5*time.Second
)

// drain waits until every send has its answer and, as far as can be told, every
// delivery has come. After an overload that takes as long as it takes: it goes on
// while anything comes.
func (r *run) drain() {
	var lastOpen int
	var lastGot int64
	quiet := time.Now()
	for r.sleep(50*time.Millisecond) == nil {
		open, got, limit := r.outstanding(), r.deliveredTotal.Load(), unansweredLimit
		if open == 0 {
			var want int64
			if want, got = r.expected(); got >= want {
				return
			}
			limit = healingLimit
		}
		if open != lastOpen || got != lastGot {
			lastOpen, lastGot, quiet = open, got, time.Now()
		}
		if time.Since(quiet) > limit {
			return
		}
	}
}

// expected returns how many deliveries the acknowledged messages should make,
// and how many have been made since the run began.
func (r *run) expected() (want, got int64) {
	for _, f := range r.flows {
		f.from.mu.Lock()
		sent := f.sent
		f.from.mu.Unlock()
		for n := range sent {
			if seq := f.at(n).seq.Load(); seq > 0 || seq == seqUnknown {
				want += int64(len(f.receivers))
			}
		}
	}
	return want, r.deliveredTotal.Load()
}

// closeAll ends all connections and waits for their readers.
func (r *run) closeAll() {
	r.closing.Store(true)
	for _, c := range r.clients {
		c.mu.Lock()
		conn := c.conn
		c.mu.Unlock()
		if conn != nil {
			_ = conn.Bye()
		}
	}
	r.readers.Wait()
}

// Window is how long to run.
type Window struct {
	Warm    time.Duration `json:"warm"`
	Measure time.Duration `json:"measure"`
}

// measure runs traffic, begun by begin, through warm-up, the measured window and
// the drain, and returns the figures. Connections are up before and closed after.
func (r *run) measure(w Window, begin func(stop <-chan struct{}) error) (*Result, error) {
	res := &Result{Target: r.target.Name, Begin: time.Now()}
	stopWatch, stopTraffic := make(chan struct{}), make(chan struct{})
	var watcher, traffic sync.WaitGroup
	watcher.Go(func() { r.watch(stopWatch) })
	var beginErr error
	traffic.Go(func() { beginErr = begin(stopTraffic) })
	finish := func() {
		r.stopped.Store(true)
		close(stopTraffic)
		traffic.Wait()
		r.drain()
		close(stopWatch)
		watcher.Wait()
		r.closeAll()
	}
	if err := r.sleep(w.Warm); err != nil {
		finish()
		return nil, err
	}
	runtime.GC() // ours, not in the window
	measured := &phase{}
	list := r.target.processes()
	before := procs.Take(list)
	due := &window{from: r.now()}
	due.to = due.from + w.Measure
	r.window.Store(due)
	r.phase.Store(measured)
	err := r.sleep(w.Measure)
	r.phase.Store(&phase{})
	// The list again: a process that died and came back has another number.
	res.Use = procs.Take(r.target.processes()).Since(before, runtime.NumCPU())
	finish()
	if err = errors.Join(err, beginErr); err != nil {
		return nil, err
	}
	res.fill(measured, due)
	res.Checks = r.account()
	res.judge()
	return res, nil
}

// fill computes the figures of the measured window: rates of what came in it,
// latencies of what was due in it.
func (r *Result) fill(m *phase, due *window) {
	r.Seconds = r.Use.Seconds
	acked, delivered := float64(m.acked.Load()), float64(m.delivered.Load())
	r.SentPerSecond = float64(m.sent.Load()) / r.Seconds
	r.AckedPerSecond, r.DeliveredPerSecond = acked/r.Seconds, delivered/r.Seconds
	cpu := r.Use.Total() * 1e6
	if acked > 0 {
		r.PerMessage = cpu / acked
		r.ByProcess = map[string]float64{}
		for name, s := range r.Use.Servers {
			r.ByProcess[name] = s * 1e6 / acked
		}
	}
	if delivered > 0 {
		r.PerDelivery = cpu / delivered
	}
	set := func(into **hist.Summary, h *hist.Hist) {
		if s := h.Summary(); s.Count > 0 {
			*into = &s
		}
	}
	set(&r.Ack, &due.ack)
	set(&r.Deliver, &due.deliver)
	set(&r.Lateness, &due.late)
}
