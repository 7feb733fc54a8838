package bench

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"im-services/internal/bench/crowd"
)

// Options are the knobs of all scenarios; each uses those that concern it. Zero
// values mean the scenario's own default.
type Options struct {
	Window

	Users   int     // connected users
	Body    int     // bytes of text
	Pending int     // messages of one sender under way at once
	Rate    float64 // messages per second of an open loop; connections per second of churn
	Groups  int
	Members int // of each group
	Online  int // per cent of the members that are connected
	Senders int // in each group
	Count   int // messages of the backlog; idle connections; clients of the storm
	Skip    int // connect: users passed over
	Settle  time.Duration
	Seed    uint64
	// Hook, if set, is called once the measured traffic is under way.
	Hook func(t *Target)

	Progress func(format string, args ...any)
}

func orDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

func (o Options) withDefaults() Options {
	orDefault(&o.Warm, 3*time.Second)
	orDefault(&o.Measure, 15*time.Second)
	orDefault(&o.Body, 100)
	orDefault(&o.Seed, 1)
	if o.Progress == nil {
		o.Progress = func(string, ...any) {}
	}
	return o
}

// Scenario runs one kind of load against a target.
type Scenario struct {
	Name string
	What string // one line for people
	run  func(ctx context.Context, t *Target, o Options) (*Result, error)
	// relay: the bare relay can do it as well.
	relay bool
}

// Scenarios by name.
var scenarios = func() map[string]Scenario {
	m := map[string]Scenario{}
	for _, s := range []Scenario{
		{"private", "pairs, one message at a time until acknowledged and delivered", runPrivate, true},
		{"open", "pairs, at a given rate whatever the answers", runOpen, true},
		{"oneway", "one of each pair sends, the next as soon as one is acknowledged", runOneWay, true},
		{"group", "groups, each sender one at a time until delivered to all", runGroup, true},
		{"hot", "one group, several senders with many messages under way", runHot, true},
		{"large", "one large group with few members online", runLarge, false},
		{"backlog", "messages for somebody who is away, drained by one connection", runBacklog, false},
		{"idle", "connections that do nothing", runIdle, true},
		{"churn", "connections come and go beside an open loop", runChurn, false},
		{"storm", "all clients lose their connection at once and come back", runStorm, false},
		{"overload", "far more than the system can take", runOverload, false},
		{"connect", "connect, get an answer, leave", runConnect, true},
		{"mixed", "private and group traffic with churn", runMixed, false},
	} {
		m[s.Name] = s
	}
	return m
}()

// Names are the scenarios' names.
func Names() []string { return slices.Sorted(maps.Keys(scenarios)) }

// Describe is the scenario in one line.
func Describe(name string) string { return scenarios[name].What }

// Run runs a scenario once.
func Run(ctx context.Context, name string, t *Target, o Options) (*Result, error) {
	s, ok := scenarios[name]
	if !ok {
		return nil, fmt.Errorf("no scenario %q: %v", name, Names())
	}
	if len(t.Gateways) == 0 {
		return nil, fmt.Errorf("target %s has no gateway", t.Name)
	}
	res, err := s.run(ctx, t, o.withDefaults())
	if err != nil {
		return nil, fmt.Errorf("%s against %s: %w", name, t.Name, err)
	}
	res.Scenario = name
	res.Target = t.Name
	return res, nil
}

// pairs returns n/2 pairs of friends.
func pairs(ctx context.Context, t *Target, n int) ([][2]crowd.User, error) {
	users, err := t.People.Users(ctx, n)
	if err != nil {
		return nil, err
	}
	var out [][2]crowd.User
	for i := 0; i+1 < n; i += 2 {
		out = append(out, [2]crowd.User{users[i], users[i+1]})
	}
	return out, t.People.Befriend(ctx, out)
}

// pairSpec is how the members of pairs write to each other.
type pairSpec struct {
	window         int
	untilDelivered bool
	oneWay         bool
}

// pairRun connects pairs and gives them their flows.
func pairRun(ctx context.Context, t *Target, o Options, s pairSpec) (*run, error) {
	ps, err := pairs(ctx, t, o.Users)
	if err != nil {
		return nil, err
	}
	r := newRun(ctx, t)
	if err := r.addPairs(ps, o, s); err != nil {
		return nil, err
	}
	return r, nil
}

func (r *run) addPairs(ps [][2]crowd.User, o Options, s pairSpec) error {
	for _, p := range ps {
		a, b := r.add(p[0], ""), r.add(p[1], "")
		ends := [][2]*client{{a, b}, {b, a}}
		if s.oneWay {
			ends = ends[:1]
		}
		for _, e := range ends {
			if _, err := r.newFlow(flowSpec{
				from: e[0], to: e[1].user.ID, kind: kindPrivate, window: s.window, untilDelivered: s.untilDelivered,
				receivers: []*client{e[1]}, bodySize: o.Body,
			}); err != nil {
				return err
			}
		}
	}
	return nil
}

// settle is the pause between connecting and traffic: registrations and first
// syncs end in it.
const settle = 500 * time.Millisecond

// ready connects all clients.
func (r *run) ready() error {
	if _, err := r.connectAll(r.clients); err != nil {
		r.closeAll()
		return err
	}
	return r.sleep(settle)
}

// closedLoop starts every flow with its window of messages.
func (r *run) closedLoop(hook func()) func(<-chan struct{}) error {
	return func(<-chan struct{}) error {
		for _, f := range r.flows {
			for range f.window {
				f.again()
			}
		}
		if hook != nil {
			hook()
		}
		return nil
	}
}

func (o Options) hook(t *Target) func() {
	if o.Hook == nil {
		return nil
	}
	return func() { o.Hook(t) }
}

func runPrivate(ctx context.Context, t *Target, o Options) (*Result, error) {
	orDefault(&o.Users, 200)
	orDefault(&o.Pending, 1)
	return closedPairs(ctx, t, o, pairSpec{window: o.Pending, untilDelivered: true})
}

func runOneWay(ctx context.Context, t *Target, o Options) (*Result, error) {
	orDefault(&o.Users, 200)
	orDefault(&o.Pending, 1)
	return closedPairs(ctx, t, o, pairSpec{window: o.Pending, oneWay: true})
}

func closedPairs(ctx context.Context, t *Target, o Options, s pairSpec) (*Result, error) {
	r, err := pairRun(ctx, t, o, s)
	if err != nil {
		return nil, err
	}
	if err := r.ready(); err != nil {
		return nil, err
	}
	res, err := r.measure(o.Window, r.closedLoop(o.hook(t)))
	if err != nil {
		return nil, err
	}
	res.Params = map[string]any{"users": o.Users, "body": o.Body, "pending": o.Pending}
	return res, nil
}

func runOpen(ctx context.Context, t *Target, o Options) (*Result, error) {
	orDefault(&o.Users, 200)
	orDefault(&o.Rate, 2000)
	r, err := pairRun(ctx, t, o, pairSpec{})
	if err != nil {
		return nil, err
	}
	if err := r.ready(); err != nil {
		return nil, err
	}
	res, err := r.measure(o.Window, func(stop <-chan struct{}) error {
		if o.Hook != nil {
			o.Hook(t)
		}
		return r.pace(r.flows, o.Rate, o.Seed, stop)
	})
	if err != nil {
		return nil, err
	}
	res.OfferedPerSecond = o.Rate
	res.Params = map[string]any{"users": o.Users, "body": o.Body, "rate": o.Rate}
	return res, nil
}
