package bench

import (
	"math/rand/v2"
	"runtime"
	"time"
)

// pace sends on the flows in turn, at rate messages per second in all, until
// stop is closed. Times between sends are exponential, as of many independent
// people; each latency counts from the intended time, so a stall of the system
// or of the generator is in the figures. What was due in the measured window is
// therefore sent even if stop is closed meanwhile.
func (r *run) pace(flows []*flow, rate float64, seed uint64, stop <-chan struct{}) error {
	// Go's timers are as coarse as a millisecond on an idle machine; the
	// system's sleep is not.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	rnd := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // traffic, not secrets
	mean := float64(time.Second) / rate
	due := r.now()
	over := func() bool {
		select {
		case <-stop:
			return r.windowOf(due) == nil
		case <-r.ctx.Done():
			return true
		default:
			return false
		}
	}
	for i := 0; ; i++ {
		due += time.Duration(rnd.ExpFloat64() * mean)
		for wait := due - r.now(); wait > 0 && !over(); wait = due - r.now() {
			pause(min(wait, 20*time.Millisecond))
		}
		if over() {
			return nil
		}
		if w := r.windowOf(due); w != nil {
			w.late.Record(r.now() - due)
		}
		// A flow that is not connected is passed over: its user would not type.
		for range flows {
			f := flows[i%len(flows)]
			if f.send(due) {
				break
			}
			i++
		}
	}
}
