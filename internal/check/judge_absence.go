package check

import (
	"strings"
	"time"

	"im-services/internal/imclient"
)

// When news of presence are told again that the bus has lost (G9), counted from
// when they were told first: after the three seconds they are held back.
const (
	toldFirst   = 3 * time.Second
	toldAgain   = 5 * time.Second
	toldAtLast  = 20 * time.Second
	toldTakes   = 2 * time.Second // that much more at most
	mostAtATime = 1               // faults between a departure and who is told of it
)

// judgeAbsences: who was told that somebody is there, and stays connected, is told
// in time that he left, even if something fails meanwhile.
func (x *index) judgeAbsences(r *Result, b Bounds) {
	type pair struct{ viewer, subject int64 }
	type fact struct {
		at   time.Duration
		code int
	}
	told, knew := map[pair]fact{}, map[pair]fact{}
	viewers := map[int64][]int64{}
	left := map[int64]time.Duration{}
	starved := x.starved(b)
	for i := range x.events {
		e := &x.events[i]
		switch {
		case e.Op == OpWatch:
			viewers[e.To] = append(viewers[e.To], e.Client)
		case e.Op == OpPresence:
			k := pair{e.Client, e.From}
			if e.Code == imclient.CodeOffline && told[k].code == e.Code {
				continue // told again
			}
			told[k] = fact{e.T, e.Code}
		case e.Op == OpAway && e.Type == imclient.Invoke:
			for _, v := range viewers[e.Client] {
				knew[pair{v, e.Client}] = told[pair{v, e.Client}]
			}
		case e.Op == OpAway && e.Type == imclient.OK:
			left[e.Client] = e.T
		case e.Op == OpAway:
			since := left[e.Client]
			by, ok := x.toldBy(since, b)
			by += x.lagBetween(since, by)
			if starved {
				by += lingering
			}
			if !ok || by > e.T {
				continue
			}
			for _, v := range viewers[e.Client] {
				k := pair{v, e.Client}
				was, is := knew[k], told[k]
				if was.code != imclient.CodeOnline || !x.connectedSince(v, was.at, by) {
					continue
				}
				r.Checked++
				if is.code != imclient.CodeOffline || is.at > by {
					r.red("user %d was not told by %s that user %d had left at %s; the last he was told is %d, at %s",
						v, short(by), e.Client, short(since), is.code, short(is.at))
				}
			}
		}
	}
}

// toldBy is when friends must have been told of somebody who left at since; false if
// so much failed meanwhile that nothing is promised.
func (x *index) toldBy(since time.Duration, b Bounds) (time.Duration, bool) {
	from, within, faults := since, b.Presence, 0
	for i := range x.faults { // in the order of their beginning
		f := &x.faults[i]
		over := satAdd(f.End, aftermath)
		if f.Begin > satAdd(from, within) {
			break
		}
		if over < since || !tellsThrough(f) {
			continue
		}
		if faults++; faults > mostAtATime {
			return 0, false
		}
		if from = over; over-since > toldFirst+toldAgain {
			within = toldAtLast + toldTakes // the first repeat may be lost, too
		}
	}
	return satAdd(from, within), true
}

// tellsThrough reports whether a fault may be on the way that news of presence take:
// all of them are, except those of what only logins, friendships and files need.
func tellsThrough(f *Window) bool {
	if f.Kind == KillFlush {
		return true // Redis forgets, whoever dies
	}
	for _, target := range targets(f) {
		from, to, link := strings.Cut(target, ">")
		if link && from == "callers" {
			from = to
		}
		service, _, _ := strings.Cut(from, "-")
		if service != "auth" && service != "friend" && service != "uploads" {
			return true
		}
	}
	return false
}
