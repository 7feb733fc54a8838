package logic

import (
	"context"
	"slices"
	"sync"
	"time"

	pushv1 "im-services/api/proto/push/v1"
	"im-services/internal/im"
)

// lateLooks says how long after an event its users are looked up again. A
// connection has its route a few milliseconds after it was made, on a busy machine
// a second; five after Redis has lost them all.
var lateLooks = []time.Duration{250 * time.Millisecond, 1500 * time.Millisecond, 5 * time.Second}

const (
	// lateTick is how often due looks are made.
	lateTick = 250 * time.Millisecond
	// maxLate bounds the events that are remembered; what comes on top of them
	// reaches only those who had a route.
	maxLate = 1 << 13
)

// lateEvents remembers events for those whom they could not reach: connections
// that were made before the event and had their route only after it, and those at
// a gateway for which the bus would take nothing. Safe for concurrent use.
type lateEvents struct {
	mu   sync.Mutex
	list []*lateEvent // guarded by mu
}

type lateEvent struct {
	event *pushv1.Event
	at    time.Time
	looks int // that were made

	// told are the gateways that have it for a user: they give it to all of his
	// connections, with and without a route.
	told map[int64][]im.GatewayID
}

// lasting reports whether an event still means something a moment later. A call
// does not: its caller has been told that nobody is there.
func lasting(e *pushv1.Event) bool {
	switch e.GetBody().(type) {
	case *pushv1.Event_Friend, *pushv1.Event_Session, *pushv1.Event_Recall:
		return true
	}
	return false
}

// tell notes who has been told, except through the gateways in unsent.
func (l *lateEvent) tell(places map[int64][]im.GatewayID, unsent map[im.GatewayID]bool) {
	for _, u := range l.event.GetUserIds() {
		for _, g := range places[u] {
			if !unsent[g] {
				l.told[u] = append(l.told[u], g)
			}
		}
	}
}

// announce publishes events as publishEvents does. Those that last also reach
// connections that are there but have no route yet.
func (p *publisher) announce(ctx context.Context, list []*pushv1.Event) (int, error) {
	if len(list) == 0 {
		return 0, nil
	}
	at := time.Now()
	places, conns, epoch, err := p.places(ctx, list)
	if err != nil {
		return 0, p.publishEventsBlind(ctx, list)
	}
	out := map[im.GatewayID][]*pushv1.Event{}
	for _, e := range list {
		address(out, e, places)
	}
	unsent, err := p.sendEvents(ctx, epoch, out)
	for _, e := range list {
		if !lasting(e) {
			continue
		}
		l := &lateEvent{event: e, at: at, told: map[int64][]im.GatewayID{}}
		l.tell(places, unsent)
		p.late.add(l)
	}
	return conns, err
}

func (q *lateEvents) add(l *lateEvent) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.list) < maxLate {
		q.list = append(q.list, l)
	}
}

// due takes out the events whose next look has come.
func (q *lateEvents) due(now time.Time) (due []*lateEvent) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.list = slices.DeleteFunc(q.list, func(l *lateEvent) bool {
		if now.Sub(l.at) < lateLooks[l.looks] {
			return false
		}
		due = append(due, l)
		return true
	})
	return due
}

// runLate looks for latecomers until ctx ends.
func (p *publisher) runLate(ctx context.Context) {
	every(ctx, lateTick, func() {
		due := p.late.due(time.Now())
		if len(due) == 0 {
			return
		}
		if err := p.tellLatecomers(ctx, due); err != nil && ctx.Err() == nil {
			p.log.WarnContext(ctx, "latecomers not told", "events", len(due), "err", err)
		}
		for _, l := range due {
			if l.looks++; l.looks < len(lateLooks) {
				p.late.add(l)
			}
		}
	})
}

// tellLatecomers publishes events to the connections that were made before them
// and were not told. Whoever came later has asked for everything himself.
func (p *publisher) tellLatecomers(ctx context.Context, due []*lateEvent) error {
	states, epoch, err := p.statesOf(ctx, due)
	if err != nil {
		return err
	}
	alive := p.alive(time.Now().UnixMilli())
	places := make([]map[int64][]im.GatewayID, len(due))
	out := map[im.GatewayID][]*pushv1.Event{}
	for i, l := range due {
		places[i] = map[int64][]im.GatewayID{}
		for _, u := range l.event.GetUserIds() {
			for _, rt := range states[u].routes {
				if rt.sinceMS <= l.at.UnixMilli() && alive(rt) &&
					!slices.Contains(l.told[u], rt.gateway) && !slices.Contains(places[i][u], rt.gateway) {
					places[i][u] = append(places[i][u], rt.gateway)
				}
			}
		}
		address(out, l.event, places[i])
	}
	unsent, err := p.sendEvents(ctx, epoch, out)
	for i, l := range due {
		l.tell(places[i], unsent)
	}
	return err
}

// statesOf reads where the users of events are.
func (p *publisher) statesOf(ctx context.Context, due []*lateEvent) (map[int64]userState, string, error) {
	var users []im.UserID
	out := map[int64]userState{}
	for _, l := range due {
		for _, u := range l.event.GetUserIds() {
			if _, seen := out[u]; !seen {
				out[u] = userState{}
				users = append(users, im.UserID(u))
			}
		}
	}
	epoch := ""
	for page := range slices.Chunk(users, routePage) {
		states, e, err := p.routes.read(ctx, page)
		if err != nil {
			return nil, "", err
		}
		epoch = e
		for i, u := range page {
			out[int64(u)] = states[i]
		}
	}
	return out, epoch, nil
}
