package check

import (
	"time"

	"im-services/internal/imclient"
)

// What G13 and G14 promise of those who do not read, and of one who has vanished.
const (
	slowClosed  = 5 * time.Second
	goneNoticed = 35 * time.Second
	slowRaise   = 100 * time.Millisecond
	slowFewest  = 200 // messages of each stretch that a 99th percentile is worth something of,
	slowSeconds = 10  // in so many seconds: all of one second may have waited for the same disk
)

// slowFull is what may be on its way to a connection that does not read: its
// outbox, the gateway's send buffer, which Linux makes twice as large as asked
// for, and what the reader's kernel takes before its buffer is made small.
const slowFull = 256<<10 + 2*128<<10 + 64<<10

// pushed is how long a message took to its last recipient while nothing failed.
type pushed struct {
	from int64
	at   time.Duration
	took time.Duration
}

// judgeSlow: who does not read is closed once what waits for him is full, who has
// vanished is noticed, and others do not suffer from either, nor from floods.
func (x *index) judgeSlow(b Bounds) Result {
	r := Result{ID: "I15", Name: "who does not read is closed, and delays nobody"}
	starved := x.starved(b)
	type connection struct {
		client int64
		conn   int
	}
	began, gone := map[connection]time.Duration{}, map[connection]time.Duration{}
	var episodes []Window
	for i := range x.events {
		e := &x.events[i]
		k := connection{e.Client, e.Conn}
		switch {
		case e.Op == OpBeside && e.Type == imclient.Invoke:
			episodes = append(episodes, Window{Number: e.Conn, Begin: e.T, End: x.end})
		case e.Op == OpBeside:
			episodes[len(episodes)-1].End = e.T
		case e.Op == OpGone && e.Type == imclient.Invoke:
			gone[k] = e.T
		case e.Op == OpGone:
			r.Checked++
			if after := e.T - gone[k]; e.T > x.undisturbed(gone[k], goneNoticed)+x.unnoticed(gone[k], e.T, starved) {
				r.red("user %d, whose link was cut at %s, was not known to be away before %s had passed", e.Client, short(gone[k]), short(after))
			}
		case e.Op == imclient.OpConnect && x.slow[e.Client] == silent && e.Type == imclient.OK:
			began[k] = e.T
		case e.Op == imclient.OpConnect && x.slow[e.Client] == silent && e.Type == imclient.Info:
			full, ok := x.fullAt(e.Client, began[k])
			if !ok || full > e.T {
				continue // he was closed before, or cut off by himself
			}
			r.Checked++
			if e.T > x.undisturbed(full, slowClosed)+x.unnoticed(full, e.T, starved) {
				what := "closed"
				if e.Reason == ownEnd {
					what = "still open"
				}
				r.red("user %d, who does not read, is %s %s after what waits for him was full (%s)", e.Client, what, short(e.T-full), short(full))
			}
		}
	}
	r.Checked += x.compareBeside(&r, episodes, starved)
	if r.Checked == 0 {
		r.Skipped = "nobody was slow for long enough"
	}
	return r
}

// fullAt is when at least slowFull bytes had been acknowledged that were for user
// and sent after he connected.
func (x *index) fullAt(user int64, began time.Duration) (time.Duration, bool) {
	var sum int
	var last time.Duration
	for _, s := range x.order {
		if !s.acked || s.invoke < began || s.key.channel != imclient.Group || s.client == user || !x.mustHave(user, s) {
			continue
		}
		sum += len(s.text) // only that is counted, which is the least
		last = max(last, s.done)
		if sum >= slowFull {
			return last, true
		}
	}
	return 0, false
}

// undisturbed is when something must have happened that takes no longer than
// within while nothing fails: pushes are late while something does, and for a
// while after.
func (x *index) undisturbed(from, within time.Duration) time.Duration {
	for i := range x.faults {
		f := &x.faults[i]
		if f.Begin > satAdd(from, within) {
			break
		}
		from = max(from, satAdd(f.End, tail))
	}
	return satAdd(from, within)
}

// compareBeside compares what others had to wait beside the slow ones with what
// they had to without, while nothing failed, and returns how many messages that
// were.
func (x *index) compareBeside(r *Result, episodes []Window, starved bool) int {
	begin, end := forever, time.Duration(0)
	for _, p := range x.phases {
		switch p.Name {
		case PhaseWarm:
			begin = p.At
		case PhaseHeal:
			end = p.At
		}
	}
	var beside, calm []pushed
	for _, p := range x.pushed {
		if x.slow[p.from] != "" || p.at < begin || p.at > end {
			continue
		}
		in := false
		for _, w := range episodes {
			in = in || w.Begin <= p.at && p.at <= w.End
		}
		if in {
			beside = append(beside, p)
		} else {
			calm = append(calm, p)
		}
	}
	if !enough(beside) || !enough(calm) {
		r.Name += " (not compared: too few fault-free seconds)"
		return 0
	}
	with, without := quantiles(took(beside)), quantiles(took(calm))
	how := " (p99 of the others " + round(with.P99).String() + " beside them, " + round(without.P99).String() + " without)"
	switch {
	case starved:
		r.Name += " (not compared: the machine is too busy)"
		return 0
	case with.P99 >= without.P99+slowRaise:
		r.red("beside slow and hostile clients pushes to others took %s at the 99th percentile, and %s without them", round(with.P99), round(without.P99))
	}
	r.Name += how
	return len(beside)
}

// enough reports whether the 99th percentile of stretch is worth something.
func enough(stretch []pushed) bool {
	seconds := map[time.Duration]bool{}
	for _, p := range stretch {
		seconds[p.at/time.Second] = true
	}
	return len(stretch) >= slowFewest && len(seconds) >= slowSeconds
}

func took(stretch []pushed) []time.Duration {
	all := make([]time.Duration, len(stretch))
	for i, p := range stretch {
		all[i] = p.took
	}
	return all
}
