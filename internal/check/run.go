package check

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"im-services/internal/cluster/infra"
	"im-services/internal/imclient"
)

// run is one run of the checker.
type run struct {
	o      Options
	ctx    context.Context //nolint:containedctx // the run's life
	dir    string
	log    *log
	system *system
	actors []*actor
	pairs  [][2]*actor // friends off and on
	groups []*group
	hush   hush
	nap    nap

	silence chan struct{} // a fault begins that ends in one
	failing chan struct{} // capacity 1; full while something fails, or while nothing may

	changing context.Context //nolint:containedctx // in which changes of friends and members are carried to their end

	mu       sync.Mutex
	members  map[member]bool   // guarded by mu; who is in a group now
	aside    []*actor          // guarded by mu; who takes part beside the actors
	unread   []*actor          // guarded by mu; of those, who does not read everything in the end
	schedule []fault           // guarded by mu; what was done
	troubles map[string]string // guarded by mu; faults that could not be done
}

// Run makes people talk through a system that fails, and judges what came of
// it. The error says why no verdict could be reached; a verdict may be red.
func Run(ctx context.Context, o Options) (*Verdict, error) {
	o = o.withDefaults()
	want, err := ParseFaults(o.Faults)
	if err != nil {
		return nil, err
	}
	if o.Schedule != nil {
		want = o.Schedule.has
	}
	if o.Base != "" {
		want = nil
	}
	if err := o.forRoles(want); err != nil {
		return nil, err
	}
	root := "."
	if o.Base == "" || o.Bundle == "" {
		if root, err = infra.Root(); err != nil {
			return nil, err
		}
	}
	dir, err := o.folder(root)
	if err != nil {
		return nil, err
	}
	file, err := os.Create(filepath.Join(dir, historyFile)) //nolint:gosec // a folder of our own
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r := &run{o: o, ctx: ctx, dir: dir, log: newLog(imclient.NewHistory(file)), members: map[member]bool{}, troubles: map[string]string{}, silence: make(chan struct{}), failing: make(chan struct{}, 1)}
	defer func() { _ = r.log.close() }()
	r.say("seed %d, %s, bundle %s", o.Seed, o.Duration, dir)
	if r.system, err = startSystem(ctx, &o, dir, root, want); err != nil {
		return nil, err
	}
	defer r.system.close()
	if err := r.perform(want); err != nil {
		return nil, errors.Join(err, r.keepLogs())
	}
	if err := r.log.close(); err != nil {
		return nil, fmt.Errorf("check: write the history: %w", err)
	}
	events := r.log.take()
	r.say("judging %d events", len(events))
	v := Judge(events, o.Bounds)
	v.Seed, v.Command = o.Seed, o.command(dir)
	return v, r.finish(v)
}

// say tells people about the progress.
func (r *run) say(format string, args ...any) {
	_, _ = fmt.Fprintf(r.o.Progress, "%8s  %s\n", imclient.Now().Round(100*time.Millisecond), fmt.Sprintf(format, args...))
}

func (r *run) phase(name string) {
	r.log.add(&Event{Type: imclient.OK, Op: OpPhase, Text: name})
	r.say("%s", name)
}

// perform runs all phases.
func (r *run) perform(want func(kind, target string) bool) error {
	setUp, cancel := context.WithTimeout(r.ctx, 2*time.Minute)
	defer cancel()
	r.say("making %d people, their friendships and groups", r.o.Users)
	if err := r.setUp(setUp); err != nil {
		return err
	}
	var background sync.WaitGroup
	watching, stopWatching := context.WithCancel(r.ctx)
	background.Go(func() { r.watch(watching) })
	defer background.Wait()
	defer stopWatching()
	r.noteAddresses()
	for _, a := range r.actors {
		a.connect()
		defer a.leave()
	}

	changing, stopChanging := context.WithCancel(r.ctx)
	defer stopChanging()
	r.changing = changing
	talking, stopTalking := context.WithTimeout(r.ctx, r.o.Duration)
	defer stopTalking()
	var people sync.WaitGroup
	defer people.Wait()
	r.phase(PhaseWarm)
	r.talk(talking, &people)
	sleep(talking, min(5*time.Second, r.o.Duration/4))
	r.phase(PhaseFault)
	if want != nil {
		r.faults(talking, want)
	}
	<-talking.Done()
	r.phase(PhaseHeal)
	if err := r.system.heal(r.ctx); err != nil {
		return err
	}
	defer time.AfterFunc(changesEnd, stopChanging).Stop()
	people.Wait()
	for _, a := range r.actors {
		a.current()
	}
	r.settle()
	if r.o.overloads() {
		r.phase(PhaseSurge)
		r.overload()
	}
	r.phase(PhaseQuiet)
	sleep(r.ctx, quiet)
	if r.ctx.Err() != nil {
		return r.ctx.Err()
	}
	r.phase(PhaseRead)
	r.readAll()
	if err := r.readUploads(); err != nil {
		return err
	}
	r.presence()
	stopWatching()
	background.Wait()
	for _, a := range r.actors {
		a.leave()
	}
	if err := r.audit(); err != nil {
		return err
	}
	if err := r.scan(); err != nil {
		return err
	}
	r.phase(PhaseEnd)
	return r.ctx.Err()
}

// noteAddresses notes which gateway is reached at which address: a fault of one is
// no excuse for what comes late through the other.
func (r *run) noteAddresses() {
	if r.system.cluster == nil {
		return // there may be anything behind an address
	}
	for i, address := range r.system.addresses {
		for _, a := range []string{address, r.gateway(i)} {
			r.log.add(&Event{Conn: i + 1, Type: imclient.OK, Op: OpReached, Text: a})
		}
	}
}

// changesEnd is how long after the healing a change of friends or members may take
// that had begun; then it is left with its outcome unknown.
const changesEnd = 10 * time.Second

// quiet is how long the healed system is left alone: more than two heartbeats,
// watermarks and outbox sweeps.
const quiet = 15 * time.Second

// talk starts everybody.
func (r *run) talk(ctx context.Context, people *sync.WaitGroup) {
	for _, a := range r.actors {
		people.Go(func() { a.talk(ctx) })
	}
	people.Go(func() { r.lie(ctx) })
	people.Go(func() { r.uploadFiles(ctx) })
	people.Go(func() { r.logins(ctx) })
	people.Go(func() { r.slowOnes(ctx) })
	people.Go(func() { r.absences(ctx) })
	for i, p := range r.pairs {
		people.Go(func() { r.churnPair(ctx, i, p[0], p[1]) })
	}
	for i, g := range r.groups {
		people.Go(func() { r.churnGroup(ctx, i, g) })
	}
}

// faults carries out the schedule until ctx ends; a fault that has begun ends
// by itself.
func (r *run) faults(ctx context.Context, want func(kind, target string) bool) {
	if r.o.Schedule != nil {
		r.carryOut(ctx, r.o.Schedule.draw(), 0)
		return
	}
	p := newPlan(r.o.Seed, r.system.mended(), r.system.linkNames(), r.system.extras(), want, r.o.Gap)
	ending := p.ending(r.o.Duration)
	r.carryOut(ctx, p.draw, lengthOf(ending))
	end, _ := ctx.Deadline()
	for i := range ending {
		sleep(ctx, time.Until(end)-lengthOf(ending[i:]))
		if ctx.Err() == nil {
			r.inject(ctx, &ending[i])
		}
	}
}

// carryOut injects what is drawn until ctx ends, or spare earlier; a fault that
// has begun ends by itself.
func (r *run) carryOut(ctx context.Context, draw func() (fault, bool), spare time.Duration) {
	end, _ := ctx.Deadline()
	for {
		f, ok := draw()
		if !ok {
			return
		}
		if spare > 0 {
			left := time.Until(end) - spare - f.After
			if f.Hush {
				left -= hushLength
			}
			if left < leastFault || f.Hush && left < f.Length {
				return
			}
			f.Length = min(f.Length, left)
		}
		sleep(ctx, f.After)
		if ctx.Err() != nil {
			return
		}
		r.inject(ctx, &f)
	}
}

// leastFault is how much time a fault needs, the recovery of a process included.
const leastFault = 2 * time.Second

// inject does one fault and returns when it is over and, if people fell silent
// with it, when they talk again.
func (r *run) inject(ctx context.Context, f *fault) {
	select {
	case r.failing <- struct{}{}:
		defer func() { <-r.failing }()
	case <-ctx.Done():
		return
	}
	r.mu.Lock()
	f.Number = len(r.schedule) + 1
	r.schedule = append(r.schedule, *f)
	r.mu.Unlock()
	r.say("fault %d: %s", f.Number, f)
	r.log.add(&Event{Conn: f.Number, Type: imclient.Invoke, Op: OpFault, Text: f.Target, Reason: f.Kind})
	do := r.system.inject
	switch {
	case f.Hush:
		do = r.quieten
	case slices.Contains(roleKinds, f.Kind):
		do = r.changeRoles
	}
	if isNap(f) {
		r.nap.begin()
	}
	err := do(r.ctx, f)
	r.log.add(&Event{Conn: f.Number, Type: imclient.OK, Op: OpFault, Text: f.Target, Reason: f.Kind})
	if err != nil {
		r.say("fault %d: %s: %v", f.Number, f, err)
		r.mu.Lock()
		r.troubles[f.String()] = err.Error()
		r.mu.Unlock()
	}
	if f.Hush {
		r.hush.wait(ctx)
	}
}

// settle waits until every message is acknowledged or refused, for as long as
// there are fewer and fewer that are not. What is left then has no end that anybody
// could promise, which judgeSettled finds.
func (r *run) settle() {
	least, since := math.MaxInt, time.Now()
	for r.ctx.Err() == nil && time.Since(since) < settlePatience {
		left := 0
		for _, a := range r.actors {
			a.current() // a client that was displaced settles nothing
			a.adopt()
			left += a.pending()
		}
		if left == 0 {
			return
		}
		if left < least {
			least, since = left, time.Now()
		}
		sleep(r.ctx, 100*time.Millisecond)
	}
	for _, a := range r.actors {
		if n := a.pending(); n > 0 {
			r.say("user %d has %d messages that are not settled", a.user.ID, n)
		}
	}
}

func (r *run) readAll() {
	var wg sync.WaitGroup
	turns := make(chan struct{}, 4)
	for _, a := range r.readers() {
		wg.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			a.readAll(r.ctx)
		})
	}
	wg.Wait()
}

func (r *run) memberNow(group, user int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.members[member{group, user}]
}

func (r *run) setMemberNow(group, user int64, in bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.members[member{group, user}] = in
}

// conversation returns the id the server gave to key, 0 if nothing was
// acknowledged in it.
func (r *run) conversation(key convKey) int64 {
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	return r.log.convs[key]
}
