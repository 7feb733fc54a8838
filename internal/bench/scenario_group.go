package bench

import (
	"context"
	"fmt"

	"im-services/internal/bench/crowd"
)

// groupSpec is how the members of a group write to it.
type groupSpec struct {
	senders        int
	window         int
	untilDelivered bool
}

// addGroup makes a group of the members, of whom the first `online` connect.
func (r *run) addGroup(members []crowd.User, online int, o Options, s groupSpec) error {
	g, err := r.target.People.Group(r.ctx, members)
	if err != nil {
		return err
	}
	clients := make([]*client, online)
	for i := range clients {
		clients[i] = r.clientOf(members[i])
	}
	for _, c := range clients[:min(s.senders, online)] {
		if _, err := r.newFlow(flowSpec{
			from: c, to: g.ID, kind: kindGroup, window: s.window, untilDelivered: s.untilDelivered,
			receivers: clients, bodySize: o.Body,
		}); err != nil {
			return err
		}
	}
	return nil
}

// clientOf returns the user's client, adding one if there is none.
func (r *run) clientOf(u crowd.User) *client {
	for _, c := range r.clients {
		if c.user.ID == u.ID {
			return c
		}
	}
	return r.add(u, "")
}

// groupsRun runs o.Groups groups of o.Members distinct users each.
func groupsRun(ctx context.Context, t *Target, o Options, s groupSpec) (*Result, error) {
	users, err := t.People.Users(ctx, o.Groups*o.Members)
	if err != nil {
		return nil, err
	}
	r := newRun(ctx, t)
	online := max(1, o.Members*o.Online/100)
	for g := range o.Groups {
		if err := r.addGroup(users[g*o.Members:(g+1)*o.Members], online, o, s); err != nil {
			return nil, fmt.Errorf("group %d: %w", g, err)
		}
	}
	if err := r.ready(); err != nil {
		return nil, err
	}
	res, err := r.measure(o.Window, r.closedLoop(o.hook(t)))
	if err != nil {
		return nil, err
	}
	res.Params = map[string]any{
		"groups": o.Groups, "members": o.Members, "online": online, "senders": s.senders, "pending": s.window, "body": o.Body,
	}
	return res, nil
}

func runGroup(ctx context.Context, t *Target, o Options) (*Result, error) {
	orDefault(&o.Groups, 10)
	orDefault(&o.Members, 100)
	orDefault(&o.Online, 100)
	orDefault(&o.Senders, 1)
	orDefault(&o.Pending, 1)
	return groupsRun(ctx, t, o, groupSpec{senders: o.Senders, window: o.Pending, untilDelivered: true})
}

// runHot is one busy conversation: what counts is how fast it can be stored.
func runHot(ctx context.Context, t *Target, o Options) (*Result, error) {
	orDefault(&o.Members, 4)
	orDefault(&o.Senders, o.Members)
	orDefault(&o.Pending, 64)
	o.Groups, o.Online = 1, 100
	return groupsRun(ctx, t, o, groupSpec{senders: o.Senders, window: o.Pending})
}

func runLarge(ctx context.Context, t *Target, o Options) (*Result, error) {
	orDefault(&o.Members, 2000)
	orDefault(&o.Online, 10)
	orDefault(&o.Senders, 10)
	orDefault(&o.Pending, 1)
	o.Groups = 1
	return groupsRun(ctx, t, o, groupSpec{senders: o.Senders, window: o.Pending, untilDelivered: true})
}
