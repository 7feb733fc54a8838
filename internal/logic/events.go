package logic

import (
	"context"
	"errors"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	pushv1 "im-services/api/proto/push/v1"
	"im-services/internal/im"
	"im-services/internal/push"
)

// routePage bounds the users looked up in one round trip.
const routePage = 1000

// publishEvents publishes events to the connections of their users: at most
// once, not stored, in order per gateway. One look-up and few bus messages
// carry all of them. An event reaches each gateway at most once per call, with
// all of its users there. It returns the connections addressed.
func (p *publisher) publishEvents(ctx context.Context, list []*pushv1.Event) (int, error) {
	_, conns, err := p.publishAddressed(ctx, list)
	return conns, err
}

// publishAddressed is publishEvents that also says what went to which gateway,
// as far as it was known where the users are.
func (p *publisher) publishAddressed(ctx context.Context, list []*pushv1.Event) (out map[im.GatewayID][]*pushv1.Event, conns int, err error) {
	if len(list) == 0 {
		return nil, 0, nil
	}
	places, conns, epoch, err := p.places(ctx, list)
	if err != nil {
		return nil, 0, p.publishEventsBlind(ctx, list)
	}
	out = map[im.GatewayID][]*pushv1.Event{}
	for _, e := range list {
		address(out, e, places)
	}
	_, err = p.sendEvents(ctx, epoch, out)
	return out, conns, err
}

// address adds an event to what goes to each gateway at which it has users.
func address(out map[im.GatewayID][]*pushv1.Event, e *pushv1.Event, places map[int64][]im.GatewayID) {
	at := map[im.GatewayID][]int64{}
	var order []im.GatewayID
	for _, u := range e.GetUserIds() {
		for _, g := range places[u] {
			if at[g] == nil {
				order = append(order, g)
			}
			at[g] = append(at[g], u)
		}
	}
	for _, g := range order {
		addressed := proto.CloneOf(e)
		addressed.UserIds = at[g]
		out[g] = append(out[g], addressed)
	}
}

// places returns the live gateways of every user of the events.
func (p *publisher) places(ctx context.Context, list []*pushv1.Event) (places map[int64][]im.GatewayID, conns int, epoch string, err error) {
	var users []im.UserID
	times := map[im.UserID]int{} // events per user
	for _, e := range list {
		for _, id := range e.GetUserIds() {
			u := im.UserID(id)
			if times[u] == 0 {
				users = append(users, u)
			}
			times[u]++
		}
	}
	places = make(map[int64][]im.GatewayID, len(users))
	alive := p.alive(time.Now().UnixMilli())
	for len(users) > 0 {
		page := users[:min(len(users), routePage)]
		users = users[len(page):]
		states, e, err := p.routes.read(ctx, page)
		if err != nil {
			return nil, 0, "", err
		}
		epoch = e
		for i, st := range states {
			for k, rt := range st.routes {
				if !alive(rt) {
					continue
				}
				conns += times[page[i]]
				if !sameGatewayBefore(st.routes[:k], rt.gateway) {
					places[int64(page[i])] = append(places[int64(page[i])], rt.gateway)
				}
			}
		}
	}
	return places, conns, epoch, nil
}

// publishEventsBlind sends events to every gateway: nobody knows where the
// users are.
func (p *publisher) publishEventsBlind(ctx context.Context, list []*pushv1.Event) error {
	live := p.gateways.Live()
	if len(live) > blindGateways {
		return nil
	}
	out := map[im.GatewayID][]*pushv1.Event{}
	for _, g := range live {
		out[g] = list
	}
	_, err := p.sendEvents(ctx, "", out)
	return err
}

// sendEvents seals events into envelopes of bounded size. It tries every
// gateway and returns the first failure, and the gateways for which the bus took
// nothing.
func (p *publisher) sendEvents(ctx context.Context, epoch string, out map[im.GatewayID][]*pushv1.Event) (unsent map[im.GatewayID]bool, first error) {
	all := make(map[im.GatewayID][][]byte, len(out))
	for g, events := range out {
		for len(events) > 0 {
			env, n := &pushv1.Envelope{GatewayId: string(g), Epoch: epoch}, 0
			for size := 0; n < len(events) && (n == 0 || size < envelopeTarget); n++ {
				size += proto.Size(events[n]) + 8
			}
			env.Events, events = events[:n], events[n:]
			body, err := p.codec.Marshal(env)
			if err != nil {
				return nil, err
			}
			all[g] = append(all[g], body)
		}
		p.metrics.envelopes.Add(float64(len(all[g])))
	}
	var mu sync.Mutex // guards unsent
	first = toAll(all, func(g im.GatewayID, bodies [][]byte) error {
		err := p.bus.Publish(ctx, push.Topic(g), bodies...)
		if errors.Is(err, ErrNotPublished) {
			mu.Lock()
			defer mu.Unlock()
			if unsent == nil {
				unsent = map[im.GatewayID]bool{}
			}
			unsent[g] = true
		}
		return err
	})
	return unsent, first
}
