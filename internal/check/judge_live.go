package check

import (
	"cmp"
	"fmt"
	"math"
	"slices"
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
	var g8 tally
	windows := slices.Clone(x.faults)
	hitting := map[int]bool{} // windows of faults on the way of a push
	for _, f := range x.way(0).on {
		hitting[f.Number] = true
	}
	perWindow := make([][]time.Duration, len(windows))
	var all, healthy, acks, crowd []time.Duration
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
		switch {
		case s.conn == 0: // over HTTP
		case x.crowd[s.client]:
			crowd = append(crowd, s.done-s.invoke)
		default:
			acks = append(acks, s.done-s.invoke)
		}
		worst := time.Duration(-1)
		for _, user := range x.recipients(s) {
			if x.slow[user] != "" {
				continue // he is late by his own doing
			}
			p := place{s.conv, s.seq}
			got, ok := first[delivery{user, p}]
			stood := x.stood(user, s.done)
			at, missed := got.at, false
			switch {
			case !ok:
				if x.cameBack(user, s.done) {
					r.Checked++
					r.red("%s, %s, acknowledged at %s, was never pushed to user %d, who was connected in the end", s, p, short(s.done), user)
				}
				continue
			case stood.conn == 0:
				continue
			case got.conn == stood.conn || got.at <= stood.end:
			case passed[passage{user, s.conv, stood.conn}]:
				continue
			default: // it came by the backlog of a later connection
				at, missed = stood.end, true
			}
			r.Checked++
			took := max(0, at-s.done)
			if !missed || took > b.HealthyP99 { // else he left before it had to be there
				worst = max(worst, took)
			}
			why := x.late(s.done, at, stood.gateway, b)
			if why == "" && !missed {
				why = x.overdue(s.done, at, stood.gateway, &g8)
			}
			switch {
			case why == "":
			case missed:
				r.red("%s, %s, acknowledged at %s, did not reach user %d on connection %d, which stood for %s more, but on %d at %s; %s",
					s, p, short(s.done), user, stood.conn, short(took), got.conn, short(got.at), why)
			default:
				r.red("%s, %s, acknowledged at %s, reached user %d after %s; %s", s, p, short(s.done), user, short(took), why)
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
				inFault = inFault || hitting[w.Number]
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
	v.Figures.All, v.Figures.Healthy, v.Figures.Lag = quantiles(all), quantiles(healthy), lag
	v.Figures.AckLatency, v.Figures.CrowdAcks = quantiles(acks), quantiles(crowd)
	if g8.met > 0 {
		r.Name += fmt.Sprintf(" (of %d that met a fault with a bound of its own %d are judged by it)", g8.met, g8.judged)
	}
	if h := v.Figures.Healthy; h.N >= 100 && h.P99 > b.HealthyP99 && !busy {
		r.red("while nothing failed, pushes took %s at the 99th percentile; the bound is %s", h.P99, b.HealthyP99)
	}
	if busy {
		r.Name += " (the bound of " + b.HealthyP99.String() + " is not judged: the machine is too busy, timers are " + lag.P99.Round(time.Millisecond).String() + " late)"
	}
	return r
}

// satAdd adds without running over forever.
func satAdd(a, b time.Duration) time.Duration {
	if a > math.MaxInt64-b {
		return forever
	}
	return a + b
}

// stood returns the connection that user had at t; its number is 0 if he had none.
func (x *index) stood(user int64, t time.Duration) span {
	for _, s := range x.spans[user] {
		if s.begin <= t && t < s.end {
			return s
		}
	}
	return span{}
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

func quantiles(d []time.Duration) Quantiles {
	if len(d) == 0 {
		return Quantiles{}
	}
	slices.SortFunc(d, cmp.Compare)
	return Quantiles{N: len(d), P50: d[len(d)/2], P99: d[min(len(d)-1, len(d)*99/100)], Max: d[len(d)-1]}
}
