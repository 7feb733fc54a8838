package logic

import (
	"context"
	"time"

	pushv1 "im-services/api/proto/push/v1"
	"im-services/internal/im"
)

// repeatAfter says how long after a change of presence it is told again. The bus
// takes news for a gateway that is cut off from it, and drops it with the
// gateway's channel or after a time that a connection may be down unnoticed.
var repeatAfter = [...]time.Duration{5 * time.Second, 20 * time.Second}

// maxRepeatViewers bounds who is remembered as told of what: what comes on top is
// told once only.
const maxRepeatViewers = 1 << 20

// repeats remembers what was told of users, to tell it again, word for word and to
// the same gateways: one that has seen a version drops it, and who was not there
// at first has asked for himself.
type repeats struct {
	of      map[im.UserID]*telling
	queues  [len(repeatAfter)][]*telling // by time; those that are not in of any more are passed over
	viewers int
}

// telling is the last change of one user, and to whom it was told.
type telling struct {
	user    im.UserID
	at      time.Time
	sent    map[im.GatewayID]*pushv1.Event
	viewers int
}

// add takes what was sent of changes. It replaces earlier ones of the same users.
func (q *repeats) add(at time.Time, changed []news, sent map[im.GatewayID][]*pushv1.Event) {
	now := make(map[im.UserID]*telling, len(changed))
	for _, c := range changed {
		if old := q.of[c.user]; old != nil {
			q.remove(old)
		}
		now[c.user] = &telling{user: c.user, at: at, sent: map[im.GatewayID]*pushv1.Event{}}
	}
	for g, events := range sent {
		for _, e := range events {
			r := now[im.UserID(e.GetPresence().GetUserId())]
			r.sent[g] = e
			r.viewers += len(e.GetUserIds())
		}
	}
	if q.of == nil {
		q.of = map[im.UserID]*telling{}
	}
	for u, r := range now {
		if r.viewers == 0 || q.viewers+r.viewers > maxRepeatViewers {
			continue
		}
		q.of[u] = r
		q.queues[0] = append(q.queues[0], r)
		q.viewers += r.viewers
	}
}

func (q *repeats) remove(r *telling) {
	delete(q.of, r.user)
	q.viewers -= r.viewers
	r.sent = nil // its place in the queue may stay for a while
}

// due returns what is to be sent again now, by gateway.
func (q *repeats) due(now time.Time) map[im.GatewayID][]*pushv1.Event {
	out := map[im.GatewayID][]*pushv1.Event{}
	for i := range q.queues {
		for len(q.queues[i]) > 0 && now.Sub(q.queues[i][0].at) >= repeatAfter[i] {
			r := q.queues[i][0]
			q.queues[i] = q.queues[i][1:]
			if q.of[r.user] != r {
				continue
			}
			for g, e := range r.sent {
				out[g] = append(out[g], e)
			}
			if i+1 < len(q.queues) {
				q.queues[i+1] = append(q.queues[i+1], r)
			} else {
				q.remove(r)
			}
		}
	}
	return out
}

// repeatDue tells again what was told a while ago.
func (p *presence) repeatDue(ctx context.Context) error {
	out := p.repeats.due(time.Now())
	for g := range out {
		if !p.gateways.IsLive(g) {
			delete(out, g) // its topic would come to life again
		}
	}
	_, err := p.pub.sendEvents(ctx, "", out)
	return err
}
