package check

import (
	"context"
	"strings"
	"time"

	"im-services/internal/imclient"
)

// What a gateway finds in its sockets when it wakes up may have been settled
// elsewhere meanwhile. Nearly always it is settled once more in the same way, and
// nobody notices. It shows where the answer would be another by then: a message
// that was refused elsewhere, and would be taken now. So friends off and on end
// and renew their friendship while a gateway sleeps with a message between them.

// nap tells the pairs that a gateway sleeps. A pair that is busy misses it.
type nap []chan struct{}

func newNap(pairs int) nap {
	n := make(nap, pairs)
	for i := range n {
		n[i] = make(chan struct{}, 1)
	}
	return n
}

func (n nap) begin() {
	for _, pair := range n {
		select {
		case pair <- struct{}{}:
		default:
		}
	}
}

// isNap reports whether f puts a gateway to sleep.
func isNap(f *fault) bool { return f.Kind == Pause && strings.HasPrefix(f.Target, "gateway-") }

const (
	// napFalls is how long a gateway may take to fall asleep.
	napFalls = 50 * time.Millisecond
	// napHeld is how long a message waits for its acknowledgement until it counts as
	// held by a gateway that sleeps.
	napHeld = 250 * time.Millisecond
	// napElsewhere is how long its sender is given to be refused elsewhere: all of it
	// must fit in the shortest sleep.
	napElsewhere = 1500 * time.Millisecond
)

// stray lets a, or else b, write the other a message that a sleeping gateway
// holds; ends their friendship; lets him try elsewhere, in vain; and renews it.
// False if a change was left unfinished.
func (r *run) stray(ctx context.Context, a, b *actor) bool {
	sleep(ctx, napFalls)
	for _, p := range [][2]*actor{{a, b}, {b, a}} {
		from, to := p[0], p[1]
		c := from.current()
		if c == nil {
			continue
		}
		m := from.compose(target{imclient.Private, to.user.ID})
		from.post(ctx, m)
		sleep(ctx, napHeld)
		if !from.waitsFor(m.ClientID) {
			continue // it is connected to a gateway that is awake
		}
		if !r.unfriend(r.changing, to, from) {
			return false
		}
		c.Abandon()
		for end := time.Now().Add(napElsewhere); from.waitsFor(m.ClientID) && time.Now().Before(end); {
			sleep(ctx, 20*time.Millisecond)
		}
		ok := r.befriend(r.changing, from, to)
		return ok
	}
	return true
}

// waitsFor reports whether a message is neither acknowledged nor refused.
func (a *actor) waitsFor(clientID int64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, waits := a.posted[clientID]
	return waits
}
