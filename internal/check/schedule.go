package check

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// The kinds of faults.
const (
	Kill      = "kill"       // SIGKILL; the supervisor starts it again
	Pause     = "pause"      // SIGSTOP, later SIGCONT
	Restart   = "restart"    // SIGTERM, then a new start
	Flush     = "flush"      // Redis forgets everything
	Partition = "partition"  // a link loses everything, both ways
	LoseTo    = "lose-to"    // a link loses what goes to the server
	LoseFrom  = "lose-from"  // a link loses what comes from the server
	Delay     = "delay"      // a link is slow: 200 ms each way
	Thin      = "thin"       // a link carries 64 kB/s
	Reset     = "reset"      // every connection of a link is aborted
	Refuse    = "refuse"     // a link aborts and refuses connections
	Stall     = "stall"      // a link takes nothing more from the server
	KillAll   = "kill-all"   // SIGKILL for all replicas of a service at once
	KillFlush = "kill-flush" // a process dies while Redis forgets

	Down        = "down"         // SIGKILL, and nobody starts it again for a while
	Rewind      = "rewind"       // Redis dies, and comes back as it was some seconds ago
	Chaos       = "chaos"        // of the messages of NSQ a tenth each is lost, repeated, late, out of order
	DiskFull    = "disk-full"    // no room is left where something is stored
	ClockAhead  = "clock-ahead"  // a process's clock is an hour fast
	ClockBehind = "clock-behind" // a process's clock is an hour slow
	ClockStrobe = "clock-strobe" // a process's clock jumps to and fro by a second
	Files       = "files"        // a process can open no more files, nor connections
	Memory      = "memory"       // the kernel kills a process for its memory

	FailOver   = "failover"   // the database's primary loses its replica and gets SIGKILL; the replica becomes it
	SwitchOver = "switchover" // primary and replica of the database swap their roles, as planned
	Fence      = "fence"      // services lose the primary, which lives; the replica becomes it

	Drop   = "drop"   // NSQ loses every message, and then nobody writes
	Strand = "strand" // logic loses Redis and nsqd, then dies, and then nobody writes
)

var (
	processKinds = []string{Kill, Pause, Restart}
	linkKinds    = []string{Partition, LoseTo, LoseFrom, Delay, Thin, Reset, Refuse, Stall}
	otherKinds   = []string{Flush, KillAll, KillFlush}
	clockKinds   = []string{ClockAhead, ClockBehind, ClockStrobe}
	extraKinds   = append([]string{Down, Rewind, Chaos, DiskFull, Files, Memory}, clockKinds...)
	hushKinds    = []string{Drop, Strand}
	roleKinds    = []string{FailOver, SwitchOver, Fence} // of a database with a replica
)

// ParseFaults reads a selection: "all", "none", or a list of kinds, targets and
// kind:target pairs separated by commas. It returns what a fault must match.
func ParseFaults(text string) (func(kind, target string) bool, error) {
	switch text {
	case "", "all":
		return func(string, string) bool { return true }, nil
	case "none":
		return nil, nil //nolint:nilnil // no faults, no error
	}
	list := strings.Split(text, ",")
	for _, item := range list {
		if item == "" {
			return nil, fmt.Errorf("check: an empty item in %q", text)
		}
		kind, _, pair := strings.Cut(item, ":")
		if pair && !slices.Contains(slices.Concat(processKinds, linkKinds, otherKinds, extraKinds, hushKinds, roleKinds), kind) {
			return nil, fmt.Errorf("check: no fault of kind %q", kind)
		}
	}
	return func(kind, target string) bool {
		for _, item := range list {
			if item == kind || item == target || item == kind+":"+target {
				return true
			}
		}
		return false
	}, nil
}

// fault is an entry of a schedule.
type fault struct {
	Number int           `json:"number"` // from 1, given when it is injected
	Kind   string        `json:"kind"`
	Target string        `json:"target"`
	After  time.Duration `json:"after_ns"` // pause since the one before it ended
	Length time.Duration `json:"length_ns"`
	Hush   bool          `json:"hush,omitempty"` // people fall silent before it ends, see hush.go
}

func (f *fault) String() string {
	if f.Length > 0 {
		return fmt.Sprintf("%s %s for %s", f.Kind, f.Target, f.Length.Round(100*time.Millisecond))
	}
	return f.Kind + " " + f.Target
}

// extra is a kind of fault for which not every target will do.
type extra struct {
	kind    string
	targets []string
}

// plan makes an endless schedule. In every round each process suffers once, the
// links by turns, and every further kind of fault befalls one of its targets;
// over the rounds every process suffers every kind. Every round ends with a silence.
// Every tenth fault is alone, see aloneEvery.
type plan struct {
	rng       *rand.Rand
	processes []string
	links     []string
	extras    []extra
	want      func(kind, target string) bool
	gap       time.Duration
	turn      int // rounds so far
	drawn     int // faults so far
	next      []fault
}

func newPlan(seed uint64, processes, links []string, extras []extra, want func(kind, target string) bool, gap time.Duration) *plan {
	p := &plan{rng: prng(seed, "faults", 0), processes: slices.Clone(processes), links: slices.Clone(links), extras: extras, want: want, gap: gap}
	p.rng.Shuffle(len(p.links), func(i, j int) { p.links[i], p.links[j] = p.links[j], p.links[i] })
	return p
}

// linksPerRound is how many links suffer while every process does once.
const linksPerRound = 6

// Where one fault follows hard on another nobody knows whose fault a late message
// is. So every tenth is one with a bound of its own (see faultBound), by which that
// can be judged: the faults before and after it leave it alone for longer than what
// they did lasts.
const (
	aloneEvery = 10
	aloneGap   = aftermath + time.Second
)

// single puts the next fault that has a bound before the others, if there is one.
func (p *plan) single() {
	for i, f := range p.next {
		if w := (Window{Kind: f.Kind, Target: f.Target}); delays(&w, 0) && faultBound(&w) > 0 {
			p.next = slices.Insert(slices.Delete(p.next, i, i+1), 0, f)
			return
		}
	}
}

// draw returns the next fault; false if the selection leaves none.
func (p *plan) draw() (fault, bool) {
	for tries := 0; len(p.next) == 0; tries++ {
		if tries > len(processKinds)*len(linkKinds)*(len(p.links)+1) {
			return fault{}, false
		}
		p.deal()
	}
	if p.drawn++; p.drawn%aloneEvery == 0 {
		p.single()
	}
	f := p.next[0]
	p.next = p.next[1:]
	f.After = time.Duration((0.5 + p.rng.ExpFloat64()/2) * float64(p.gap))
	if p.drawn >= aloneEvery && p.drawn%aloneEvery <= 1 {
		f.After = max(f.After, aloneGap)
	}
	switch f.Kind {
	case Pause: // beyond what clients wait for a sign of life, often enough
		f.Length = p.between(3*time.Second, 10*time.Second)
	case Partition, LoseTo, LoseFrom, Stall:
		f.Length = p.between(2*time.Second, 15*time.Second)
	case Delay, Thin, Refuse:
		f.Length = p.between(2*time.Second, 6*time.Second)
	case Down, Rewind, ClockAhead, ClockBehind, ClockStrobe, Files, Memory:
		f.Length = p.between(2*time.Second, 8*time.Second)
	case Chaos:
		f.Length = p.between(3*time.Second, 15*time.Second)
	case FailOver:
		f.Length = p.between(300*time.Millisecond, 3*time.Second)
	case Fence: // beyond what a statement waits for its answer, sometimes
		f.Length = p.between(time.Second, 5*time.Second)
	case DiskFull: // a data file has room for some seconds more
		f.Length = p.between(5*time.Second, 15*time.Second)
	case Drop, Strand:
		f.Length = hushFault
	}
	return f, true
}

// hushFault is how long messages are lost before people fall silent.
const hushFault = 3 * time.Second

// early puts into the first half of a round what no short run should be without:
// a gateway that sleeps, which shows whether it fences itself, and clients whose
// link loses what is written to them, which shows what counts as received.
func (p *plan) early() {
	gateway := fmt.Sprintf("gateway-%d", 1+p.turn%2)
	for _, f := range []fault{
		{Kind: Pause, Target: gateway},
		{Kind: []string{LoseFrom, Partition}[p.rng.IntN(2)], Target: "clients>" + gateway},
	} {
		at := p.rng.IntN(len(p.next)/2 + 1)
		if p.want != nil && p.want(f.Kind, f.Target) && (slices.Contains(p.processes, f.Target) || slices.Contains(p.links, f.Target)) {
			p.next = slices.Insert(p.next, at, f)
		}
	}
}

// twoEnds is how long people must talk for both kinds of silence to end it.
const twoEnds = time.Minute

// ending returns the faults with which a talk of the given length ends, with a
// silence after each; none if the selection has none, or the talk is too short.
func (p *plan) ending(talk time.Duration) []fault {
	var out []fault
	first := p.rng.IntN(len(hushKinds))
	for i := range hushKinds {
		f, ok := p.hush(first + i)
		if !ok || talk < 3*hushFault || len(out) > 0 && talk < twoEnds {
			continue
		}
		f.After, f.Length = p.gap, hushFault
		out = append(out, f)
	}
	return out
}

// lengthOf is how long before the end of a talk its ending begins.
func lengthOf(ending []fault) time.Duration {
	var d time.Duration
	for i, f := range ending {
		d += f.After + f.Length
		if i < len(ending)-1 {
			d += hushLength
		} else {
			d -= hushLead
		}
	}
	return d
}

// hush returns the nth fault that people fall silent with.
func (p *plan) hush(n int) (fault, bool) {
	f := fault{Kind: hushKinds[n%len(hushKinds)], Hush: true}
	switch f.Kind {
	case Drop:
		f.Target = "nsqd"
	case Strand:
		f.Target = "logic"
	}
	return f, p.want != nil && len(p.processes) > 0 && p.want(f.Kind, f.Target)
}

// between prefers short times: the mean is a quarter of the way.
func (p *plan) between(lo, hi time.Duration) time.Duration {
	u := p.rng.Float64()
	return lo + time.Duration(u*u*u*float64(hi-lo))
}

func (p *plan) deal() {
	add := func(kind, target string) {
		if p.want != nil && p.want(kind, target) {
			p.next = append(p.next, fault{Kind: kind, Target: target})
		}
	}
	for i, name := range p.processes {
		add(processKinds[(p.turn+i)%len(processKinds)], name)
	}
	for range min(linksPerRound, len(p.links)) {
		link := p.links[0]
		p.links = append(p.links[1:], link)
		add(linkKinds[p.rng.IntN(len(linkKinds))], link)
	}
	if len(p.processes) > 0 {
		add(Flush, "redis")
		add(KillAll, []string{"gateway", "logic"}[p.turn%2])
		add(KillFlush, p.processes[p.rng.IntN(len(p.processes))])
	}
	for i, e := range p.extras {
		if len(e.targets) > 0 {
			add(e.kind, e.targets[(p.turn+i)%len(e.targets)])
		}
	}
	p.rng.Shuffle(len(p.next), func(i, j int) { p.next[i], p.next[j] = p.next[j], p.next[i] })
	p.early()
	if f, ok := p.hush(p.turn); ok {
		p.next = append(p.next, f)
	}
	p.turn++
}
