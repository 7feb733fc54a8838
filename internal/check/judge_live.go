package check

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"time"

	"im-services/internal/imclient"
)

// tail is how long after its end a fault may still be the reason of a delay.
const tail = 10 * time.Second

// maxSeconds bounds the plot of acknowledgements: a day.
const maxSeconds = 24 * 60 * 60

// judgeLiveness: who is connected when a message is acknowledged has it within
// the bound. Who was not gets it once he is; nobody who comes back is left out.
func (x *index) judgeLiveness(b Bounds, v *Verdict) Result {
	r := Result{ID: "I7", Name: "pushes come in time"}
	type delivery struct {
		user int64
		place
	}
	type arrival struct {
		at   time.Duration
		conn int
	}
	type passage struct {
		user, conv int64
		conn       int
	}
	first, passed := map[delivery]arrival{}, map[passage]bool{}
	var lags []time.Duration
	for i := range x.events {
		e := &x.events[i]
		switch e.Op {
		case imclient.OpPush:
			k := delivery{e.Client, place{e.Conversation, e.Seq}}
			if _, ok := first[k]; !ok {
				first[k] = arrival{e.T, e.Conn}
			}
		case OpSyncNeeded:
			passed[passage{e.Client, e.Conversation, e.Conn}] = true
		case OpLag:
			lags = append(lags, time.Duration(e.Seq))
		}
	}
	lag := quantiles(lags)
	busy := lag.P99 > b.MaxLag
	windows := slices.Clone(x.faults)
	perWindow := make([][]time.Duration, len(windows))
	var all, healthy, acks []time.Duration
	for _, s := range x.order {
		if !s.acked {
			continue
		}
		if second := int((s.done - v.begin()) / time.Second); second >= 0 && second < maxSeconds {
			for len(v.Acked) <= second {
				v.Acked = append(v.Acked, 0)
			}
			v.Acked[second]++
		}
		if s.conn != 0 && !s.resent {
			acks = append(acks, s.done-s.invoke)
		}
		worst := time.Duration(-1)
		for _, user := range x.recipients(s) {
			if x.slow[user] != "" {
				continue // he is late by his own doing
			}
			p := place{s.conv, s.seq}
			got, ok := first[delivery{user, p}]
			stood, end := x.stood(user, s.done)
			switch {
			case !ok:
				if x.cameBack(user, s.done) {
					r.Checked++
					r.red("%s, %s, acknowledged at %s, was never pushed to user %d, who was connected in the end", s, p, short(s.done), user)
				}
			case stood != 0 && (got.conn == stood || got.at <= end):
				r.Checked++
				took := max(0, got.at-s.done)
				worst = max(worst, took)
				if x.tooLate(s.done, got.at, b) {
					r.red("%s, %s, acknowledged at %s, reached user %d after %s", s, p, short(s.done), user, short(took))
				} else if f := x.onlyFault(s.done, got.at); f != nil && faultBound(f) > 0 && took > faultBound(f) && took > faultBound(f)+x.lagBetween(s.done, got.at) {
					r.red("%s, %s, acknowledged at %s during fault %d (%s %s), reached user %d after %s; the bound is %s",
						s, p, short(s.done), f.Number, f.Kind, f.Target, user, short(took), faultBound(f))
				}
			case stood != 0 && !passed[passage{user, s.conv, stood}]: // it came by the backlog of a later connection
				r.Checked++
				without := end - s.done
				if without > b.HealthyP99 { // else he left before it had to be there
					worst = max(worst, without)
				}
				if x.tooLate(s.done, end, b) {
					r.red("%s, %s, acknowledged at %s, did not reach user %d on connection %d, which stood for %s more, but on connection %d at %s",
						s, p, short(s.done), user, stood, short(without), got.conn, short(got.at))
				}
			}
		}
		if worst < 0 {
			continue
		}
		all = append(all, worst)
		v.Points = append(v.Points, Point{s.done, worst})
		inFault := false
		for i := range windows {
			w := &windows[i]
			if s.done >= w.Begin && s.done <= satAdd(w.End, tail) {
				inFault = true
				if s.done <= w.End {
					w.Acked++
					perWindow[i] = append(perWindow[i], worst)
				}
			}
		}
		if !inFault {
			healthy = append(healthy, worst)
			x.pushed = append(x.pushed, pushed{s.client, s.done, worst})
		}
	}
	for i := range windows {
		windows[i].Latency = quantiles(perWindow[i])
		windows[i].End = min(windows[i].End, x.end)
	}
	v.Windows = windows
	v.Figures.All, v.Figures.Healthy, v.Figures.AckLatency, v.Figures.Lag = quantiles(all), quantiles(healthy), quantiles(acks), lag
	if h := v.Figures.Healthy; h.N >= 100 && h.P99 > b.HealthyP99 && !busy {
		r.red("while nothing failed, pushes took %s at the 99th percentile; the bound is %s", h.P99, b.HealthyP99)
	}
	if busy {
		r.Name += " (the bound of " + b.HealthyP99.String() + " is not judged: the machine is too busy, timers are " + lag.P99.Round(time.Millisecond).String() + " late)"
	}
	return r
}

// tooLate reports whether what was acknowledged at done had not come at t, longer
// after the last fault than anything may take.
func (x *index) tooLate(done, t time.Duration, b Bounds) bool {
	after := t - max(done, x.lastFault(done, t))
	return after > b.Late && after > b.Late+x.lagBetween(done, t)
}

// satAdd adds without running over forever.
func satAdd(a, b time.Duration) time.Duration {
	if a > math.MaxInt64-b {
		return forever
	}
	return a + b
}

// stood returns the connection that user had at t and when it ended; 0 if none.
func (x *index) stood(user int64, t time.Duration) (conn int, end time.Duration) {
	for _, s := range x.spans[user] {
		if s.begin <= t && t < s.end {
			return s.conn, s.end
		}
	}
	return 0, 0
}

// cameBack reports whether user was connected long enough after t, and until the
// final reading, to have been pushed everything.
func (x *index) cameBack(user int64, t time.Duration) bool {
	if x.quietAt == forever {
		return false
	}
	for _, s := range x.spans[user] {
		if s.begin <= x.quietAt-tail && t <= x.quietAt-tail && s.end >= x.quietAt {
			return true
		}
	}
	return false
}

// lastFault returns the latest end of a fault that touched from..to, to itself
// if one was not over; 0 if there was none.
func (x *index) lastFault(from, to time.Duration) time.Duration {
	var last time.Duration
	for i := range x.faults {
		f := &x.faults[i]
		if f.Begin <= to && from <= satAdd(f.End, tail) {
			last = max(last, min(f.End, to))
		}
	}
	return last
}

// aftermath is how long a fault is blamed for what is slow once it is over.
const aftermath = 3 * time.Second

// onlyFault returns the fault that touched from..to if there was exactly one.
func (x *index) onlyFault(from, to time.Duration) *Window {
	var only *Window
	for i := range x.faults {
		f := &x.faults[i]
		if f.Begin <= to && from <= satAdd(f.End, aftermath) {
			if only != nil {
				return nil
			}
			only = f
		}
	}
	return only
}

// faultBound is how long a message may be on its way from its acknowledgement,
// to those who stay connected, while the given fault goes on (G8); 0: as long as
// the fault lasts.
func faultBound(f *Window) time.Duration {
	component, _, _ := strings.Cut(f.Target, "-")
	switch f.Kind {
	case Kill, Restart, Down, Memory:
		switch component {
		case "logic":
			return 2 * time.Second
		case "nsqd", "redis":
			return 5 * time.Second
		case "etcd", "nsqlookupd", "auth", "friend":
			return time.Second // nobody notices
		}
	case Flush:
		return 5 * time.Second
	case Chaos, Rewind:
		return 10 * time.Second // by the watermark
	case ClockAhead, ClockBehind, ClockStrobe, Files:
		return 2 * time.Second
	case DiskFull:
		if component != "mysql" {
			return time.Second // nobody notices
		}
	case Pause:
		if component == "nsqd" {
			return 12 * time.Second
		}
	}
	return 0
}

func quantiles(d []time.Duration) Quantiles {
	if len(d) == 0 {
		return Quantiles{}
	}
	slices.SortFunc(d, cmp.Compare)
	return Quantiles{N: len(d), P50: d[len(d)/2], P99: d[min(len(d)-1, len(d)*99/100)], Max: d[len(d)-1]}
}
