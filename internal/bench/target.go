package bench

import (
	"context"
	"strconv"

	"im-services/internal/bench/crowd"
	"im-services/internal/bench/procs"
)

// People are the users of a target.
type People interface {
	Users(ctx context.Context, n int) ([]crowd.User, error)
	Befriend(ctx context.Context, pairs [][2]crowd.User) error
	Group(ctx context.Context, members []crowd.User) (crowd.Group, error)
}

// Target is what a scenario runs against.
type Target struct {
	Name string // "system" or "relay"
	// Gateways are base URLs; connections are spread over them in turn.
	Gateways []string
	People   People
	// Processes returns the target's processes as they are now.
	Processes func() []procs.Process
	// Fresh, if set, starts the target's own processes again, so that nothing of
	// earlier runs is in their memory.
	Fresh func(ctx context.Context) error
	// Debug maps a process to its debug listener's address; may be empty.
	Debug map[string]string
}

func (t *Target) processes() []procs.Process {
	if t.Processes == nil {
		return nil
	}
	return t.Processes()
}

// gateway is where the n-th connection goes.
func (t *Target) gateway(n int) string { return t.Gateways[n%len(t.Gateways)] }

// anyone are the people of a target that believes whatever it is told: tokens
// are the users' numbers.
type anyone struct {
	tell func(ctx context.Context, g crowd.Group) error
	made int64
}

func (a *anyone) Users(_ context.Context, n int) ([]crowd.User, error) {
	users := make([]crowd.User, n)
	for i := range users {
		users[i].ID = int64(i + 1)
		users[i].Token = strconv.Itoa(i + 1)
	}
	return users, nil
}

func (a *anyone) Befriend(context.Context, [][2]crowd.User) error { return nil }

// firstGroup is above all user numbers.
const firstGroup = 1 << 40

func (a *anyone) Group(ctx context.Context, members []crowd.User) (crowd.Group, error) {
	a.made++
	g := crowd.Group{ID: firstGroup + a.made}
	for _, m := range members {
		g.Members = append(g.Members, m.ID)
	}
	return g, a.tell(ctx, g)
}
