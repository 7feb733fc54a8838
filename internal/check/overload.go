package check

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"im-services/internal/imclient"
)

const (
	// overloadLong is how long people must talk for an overload to be made unless
	// somebody asks for it.
	overloadLong = 5 * time.Minute
	// crowdPairs have so many connections that what the gateways read from all of
	// them is more than logic keeps waiting.
	crowdPairs = 24
	// peakShare is how many messages each of the crowd has on its way while the
	// peak is looked for: enough, all together, for full batches.
	peakShare  = 8
	peakLength = 2500 * time.Millisecond
	// peakRamp passes before the peak counts.
	peakRamp    = 500 * time.Millisecond
	surgeLength = 2 * time.Second
	surgeTimes  = 3
	// surgeShare is what a client may have unanswered: it does not wait for
	// answers, as it does not in an overload.
	surgeShare = 1 << 14
	// surgeEvery is the beat in which the surge is offered.
	surgeEvery = 5 * time.Millisecond
	// surgeLeft is how long the rest of it is waited for.
	surgeLeft = 40 * time.Second
)

// Overload is the fault of being asked for more than can be done.
const Overload = "overload"

// The stages of an overload.
const (
	stagePeak  = "peak"
	stageSurge = "surge"
	stageRest  = "rest" // of the surge: what is not settled yet
)

// member of a crowd.
type crowdMember struct {
	*actor
	client  *imclient.Client
	settled chan struct{} // one for each settled message, while there is room
	done    atomic.Int64
}

// overload finds out what the system takes from a crowd of its own, offers three
// times as much for a while, and waits until all of it is settled. Nobody talks
// meanwhile, and nothing fails.
func (r *run) overload() {
	setUp, cancel := context.WithTimeout(r.ctx, time.Minute)
	defer cancel()
	crowd, ok := r.crowd(setUp)
	if !ok {
		r.say("no overload: its crowd cannot be made")
		return
	}
	r.mu.Lock()
	number := len(r.schedule) + 1
	r.mu.Unlock()
	r.log.add(&Event{Conn: number, Type: imclient.Invoke, Op: OpFault, Text: "system", Reason: Overload})
	for _, m := range crowd {
		m.start()
	}
	begun := time.Now()
	stage := func(name string, kind string, offered int64) {
		e := Event{Type: kind, Op: OpStage, Text: name, Seq: offered}
		if r.system.cluster != nil { // what the checker takes, the system does not have
			e.ID, e.Code = int64(ownTime()), runtime.NumCPU()
		}
		r.log.add(&e)
	}
	stage(stagePeak, imclient.Invoke, 0)
	peak := r.findPeak(crowd)
	stage(stagePeak, imclient.OK, 0)
	r.say("at most %.0f messages a second are taken; offering %d times as many", peak, surgeTimes)
	r.drained(crowd)

	stage(stageSurge, imclient.Invoke, 0)
	offered := r.surge(crowd, peak*surgeTimes)
	stage(stageSurge, imclient.OK, offered)
	stage(stageRest, imclient.Invoke, 0)
	r.drained(crowd)
	stage(stageRest, imclient.OK, 0)
	var wg sync.WaitGroup
	for _, m := range crowd {
		wg.Go(m.client.Close)
	}
	wg.Wait()
	r.log.add(&Event{Conn: number, Type: imclient.OK, Op: OpFault, Text: "system", Reason: Overload})
	r.say("overload is over after %s", time.Since(begun).Round(100*time.Millisecond))
}

// crowd makes pairs of friends; false if it could not in time.
func (r *run) crowd(ctx context.Context) ([]*crowdMember, bool) {
	crowd := make([]*crowdMember, 2*crowdPairs)
	var wg sync.WaitGroup
	var failed atomic.Bool
	for p := range crowdPairs {
		wg.Go(func() {
			var pair [2]*actor
			for i := range pair {
				n := 2*p + i
				user, api, ok := r.guest(ctx, "crowd", n)
				if !ok {
					failed.Store(true)
					return
				}
				pair[i] = &actor{
					run: r, n: n, user: user, api: api, rng: prng(r.o.Seed, "crowd", n),
					posted: map[int64]imclient.Outgoing{}, syncs: syncSession{number: sessionRunning}, busy: make(chan struct{}, 1),
				}
				crowd[n] = &crowdMember{actor: pair[i], settled: make(chan struct{}, surgeShare)}
			}
			if !r.befriend(ctx, pair[0], pair[1]) {
				failed.Store(true)
				return
			}
			pair[0].targets = []target{{imclient.Private, pair[1].user.ID}}
			pair[1].targets = []target{{imclient.Private, pair[0].user.ID}}
		})
	}
	wg.Wait()
	if failed.Load() {
		return nil, false
	}
	for _, m := range crowd {
		r.log.add(&Event{Client: m.user.ID, Type: imclient.OK, Op: OpCrowd})
		r.mu.Lock()
		if r.system.cluster == nil && r.system.dsn == "" {
			r.aside = append(r.aside, m.actor)
		} else { // the database says what was stored; to read it all takes minutes
			r.unread = append(r.unread, m.actor)
		}
		r.mu.Unlock()
	}
	return crowd, true
}

// start connects m with a client that does not send anything twice: a refusal is
// the end of a message, and so is silence.
func (m *crowdMember) start() {
	m.client = imclient.Start(imclient.Config{
		User: m.user, Addresses: m.run.system.addresses, First: m.n % len(m.run.system.addresses),
		Heartbeat: time.Second, AckTimeout: 2 * surgeLeft, Window: surgeShare, MaxPending: surgeShare,
		Retry:  func(*imclient.Frame) time.Duration { return -1 },
		Record: m.run.log.add,
		OnSettled: func(*imclient.Settled) {
			m.done.Add(1)
			select {
			case m.settled <- struct{}{}:
			default:
			}
		},
	})
}

// say posts the next message.
func (m *crowdMember) say(ctx context.Context) bool {
	_, err := m.client.Post(ctx, m.compose(m.targets[0]))
	return err == nil
}

// findPeak lets everybody have a few messages on their way for a while and
// returns how many were settled per second.
func (r *run) findPeak(crowd []*crowdMember) float64 {
	ctx, cancel := context.WithTimeout(r.ctx, peakLength)
	defer cancel()
	var wg sync.WaitGroup
	for _, m := range crowd {
		wg.Go(func() {
			for range peakShare {
				m.settled <- struct{}{}
			}
			for {
				select {
				case <-m.settled:
				case <-ctx.Done():
					return
				}
				if !m.say(ctx) {
					return
				}
			}
		})
	}
	sum := func() (n int64) {
		for _, m := range crowd {
			n += m.done.Load()
		}
		return n
	}
	sleep(ctx, peakRamp)
	before, begun := sum(), time.Now()
	<-ctx.Done()
	n, took := sum()-before, time.Since(begun)
	wg.Wait()
	return float64(n) / took.Seconds()
}

// surge offers rate messages per second, whatever becomes of them, and returns
// how many were posted.
func (r *run) surge(crowd []*crowdMember, rate float64) int64 {
	ctx, cancel := context.WithTimeout(r.ctx, surgeLength)
	defer cancel()
	var posted atomic.Int64
	var wg sync.WaitGroup
	for _, m := range crowd {
		wg.Go(func() {
			mine, begun := 0.0, time.Now()
			for ctx.Err() == nil {
				for due := time.Since(begun).Seconds() * rate / float64(len(crowd)); mine < due; mine++ {
					if !m.say(ctx) {
						return
					}
					posted.Add(1)
				}
				sleep(ctx, surgeEvery)
			}
		})
	}
	wg.Wait()
	return posted.Load()
}

// drained waits until nothing of the crowd's is on its way.
func (r *run) drained(crowd []*crowdMember) {
	for end := time.Now().Add(surgeLeft); time.Now().Before(end) && r.ctx.Err() == nil; {
		left := 0
		for _, m := range crowd {
			left += m.client.Stats().Pending
		}
		if left == 0 {
			return
		}
		sleep(r.ctx, 20*time.Millisecond)
	}
}
