package check

import (
	"context"
	"time"

	"im-services/internal/imclient"
)

// What presence is in the end says little of the news that were told while things
// failed: whoever asks then is told the truth. So somebody leaves now and then for
// longer than his friends may wait to hear of it, and one friend at each gateway is
// there all the time. They write nothing, so that nobody else talks less.
const (
	absenceStay  = 4 * time.Second // at least, as long again at most
	absenceLasts = 20 * time.Second
)

// absences lets somebody leave and come back until ctx ends.
func (r *run) absences(ctx context.Context) {
	people := make([]*actor, 1+len(r.system.addresses))
	for i := range people {
		user, api, ok := r.guest(ctx, "away", i)
		if !ok {
			return
		}
		people[i] = &actor{
			run: r, n: i, user: user, api: api, rng: prng(r.o.Seed, "away", i),
			posted: map[int64]imclient.Outgoing{}, syncs: syncSession{number: sessionRunning}, busy: make(chan struct{}, 1),
		}
	}
	who := people[0]
	for _, friend := range people[1:] {
		if !r.befriend(ctx, friend, who) {
			return
		}
		r.log.add(&Event{Client: friend.user.ID, Type: imclient.OK, Op: OpWatch, To: who.user.ID})
		friend.connect()
		defer friend.leave()
	}
	for ctx.Err() == nil {
		who.connect()
		select {
		case <-time.After(absenceStay + time.Duration(who.rng.Float64()*float64(absenceStay))):
		case <-r.silence: // nothing else fails until it is over
			sleep(ctx, absenceStay/4)
		case <-ctx.Done():
		}
		r.log.add(&Event{Client: who.user.ID, Type: imclient.Invoke, Op: OpAway})
		who.leave()
		r.log.add(&Event{Client: who.user.ID, Type: imclient.OK, Op: OpAway})
		sleep(ctx, absenceLasts)
		r.log.add(&Event{Client: who.user.ID, Type: imclient.Info, Op: OpAway})
	}
}
