package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"im-services/internal/im"
	"im-services/internal/logic"
	"im-services/internal/platform/bus"
	"im-services/internal/platform/discovery"
)

// publisher is the bus in logic's words.
type publisher struct{ bus *bus.Producer }

// Publish implements logic.Publisher.
func (p publisher) Publish(ctx context.Context, topic string, bodies ...[]byte) error {
	err := p.bus.Publish(ctx, topic, bodies...)
	if errors.Is(err, bus.ErrUnavailable) {
		return fmt.Errorf("%w: %w", logic.ErrNotPublished, err)
	}
	return err
}

// gateways is the last good list of live gateways.
type gateways struct {
	live atomic.Pointer[gatewaySet]
}

type gatewaySet struct {
	ids []im.GatewayID
	has map[im.GatewayID]bool
}

func watchGateways(r *discovery.Registry) *gateways {
	g := &gateways{}
	g.live.Store(&gatewaySet{})
	r.Watch("gateway").OnChange(func(list []discovery.Instance) {
		set := &gatewaySet{has: make(map[im.GatewayID]bool, len(list))}
		for _, inst := range list {
			set.ids = append(set.ids, im.GatewayID(inst.ID))
			set.has[im.GatewayID(inst.ID)] = true
		}
		g.live.Store(set)
	})
	return g
}

// Live implements logic.Gateways.
func (g *gateways) Live() []im.GatewayID { return g.live.Load().ids }

// IsLive implements logic.Gateways.
func (g *gateways) IsLive(id im.GatewayID) bool { return g.live.Load().has[id] }

// nsqdTopics lists and removes topics over the HTTP side of every nsqd.
type nsqdTopics []string

// topics returns nil when no address is configured: then topics are not swept.
func topics(addrs []string) logic.Topics {
	if len(addrs) == 0 {
		return nil
	}
	return nsqdTopics(addrs)
}

// List implements logic.Topics.
func (n nsqdTopics) List(ctx context.Context) ([]string, error) {
	var (
		names []string
		errs  []error
	)
	for _, addr := range n {
		list, err := bus.ListTopics(ctx, addr)
		errs = append(errs, err)
		for _, t := range list {
			names = append(names, t.Name)
		}
	}
	return names, errors.Join(errs...)
}

// Delete implements logic.Topics.
func (n nsqdTopics) Delete(ctx context.Context, topic string) error {
	var errs []error
	for _, addr := range n {
		errs = append(errs, bus.DeleteTopic(ctx, addr, topic))
	}
	return errors.Join(errs...)
}
