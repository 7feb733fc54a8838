package check

import (
	"fmt"
	"strings"
	"time"
)

// way is what happens to who waits for a push at a gateway: faults on the push's way
// to him, and such as nobody who waits for one has on it. Those of another gateway are
// neither: they do not delay him, but its clients come to his with all they miss.
type way struct{ on, beside []*Window }

// way sorts the faults for a gateway; 0: for all of them.
func (x *index) way(gateway int) way {
	w, ok := x.ways[gateway]
	if !ok {
		for i := range x.faults {
			switch f := &x.faults[i]; {
			case delays(f, gateway):
				w.on = append(w.on, f)
			case !delays(f, 0):
				w.beside = append(w.beside, f)
			}
		}
		x.ways[gateway] = w
	}
	return w
}

// delays reports whether a fault is on the way that a push takes to those who are
// connected to a gateway; 0: to any. That are logic, what it stores messages in and
// tells gateways through, the gateway, and its clients' link. A push waits neither
// for etcd (G17) nor nsqlookupd, nor for what only logins, friendships and files
// need, nor for another gateway. But a gateway that is cut off from etcd alone counts as
// dead once its lease has run out, and its watermark finds what it was not told.
func delays(f *Window, gateway int) bool {
	if f.Kind == KillFlush {
		return true // Redis forgets, whoever dies
	}
	for _, target := range targets(f) {
		from, to, link := strings.Cut(target, ">")
		switch {
		case link && (from == "clients" || from == "callers"):
			from = to
		case link && to == "etcd" && !strings.HasPrefix(from, "gateway"):
			continue
		}
		service, _, one := strings.Cut(from, "-")
		switch service {
		case "logic", "mysql", "redis", "nsqd", "system":
			return true
		case "gateway":
			if !one || gateway == 0 || from == "gateway-"+intText(int64(gateway)) {
				return true
			}
		}
	}
	return false
}

// tally counts pushes that met a fault on their way that has a bound of its own (G8),
// and those of them that were judged by it: where several fail at once nobody knows
// whose it is.
type tally struct{ met, judged int }

// late says why what was acknowledged at done, and was not with who is connected to
// a gateway before t, was on its way for longer than anything may be; "" if it was not.
func (x *index) late(done, t time.Duration, gateway int, b Bounds) string {
	if after := t - max(done, x.lastFault(done, t, gateway)); after > b.Late && after > b.Late+x.lagBetween(done, t) {
		return fmt.Sprintf("for the last %s nothing on its way failed", short(after))
	}
	return ""
}

// overdue says which fault's bound was passed by what was acknowledged at done and
// came to who is connected to a gateway at t; "" if there is none.
func (x *index) overdue(done, t time.Duration, gateway int, g8 *tally) string {
	f, bound := x.promised(done, t, gateway, g8)
	if took := t - done; f == nil || took <= bound || took <= bound+x.lagBetween(done, t) {
		return ""
	}
	return fmt.Sprintf("the bound of fault %d (%s %s) is %s", f.Number, f.Kind, f.Target, bound)
}

// lastFault returns the latest end of a fault on the way to a gateway that touched
// from..to, to itself if one was not over; 0 if there was none.
func (x *index) lastFault(from, to time.Duration, gateway int) time.Duration {
	var last time.Duration
	for _, f := range x.way(gateway).on {
		if f.Begin <= to && from <= satAdd(f.End, tail) {
			last = max(last, min(f.End, to))
		}
	}
	return last
}

// aftermath is how long a fault is blamed for what is slow once it is over.
const aftermath = 3 * time.Second

// touches reports whether f may be the reason of what happens in from..to.
func (w *Window) touches(from, to time.Duration) bool {
	return w.Begin <= to && from <= satAdd(w.End, aftermath)
}

// onlyFault returns the fault that touched from..to if there was exactly one.
func (x *index) onlyFault(from, to time.Duration) *Window {
	var only *Window
	for i := range x.faults {
		if f := &x.faults[i]; f.touches(from, to) {
			if only != nil {
				return nil
			}
			only = f
		}
	}
	return only
}

// besideBound is how long a push may take while what fails is on nobody's way.
const besideBound = time.Second

// promised returns the fault with a bound by which a push of from..to can be judged:
// the only one on its way, or if there is none, any other; nil if there is no such.
func (x *index) promised(from, to time.Duration, gateway int, g8 *tally) (*Window, time.Duration) {
	w := x.way(gateway)
	var on, bounded []*Window
	for _, f := range w.on {
		if f.touches(from, to) {
			on = append(on, f)
			if faultBound(f) > 0 {
				bounded = append(bounded, f)
			}
		}
	}
	if len(on) == 0 {
		for _, f := range w.beside {
			if f.touches(from, to) {
				return f, besideBound
			}
		}
		return nil, 0
	}
	if len(bounded) == 0 {
		return nil, 0
	}
	g8.met++
	if len(on) > 1 {
		return nil, 0
	}
	g8.judged++
	return bounded[0], faultBound(bounded[0])
}

// faultBound is how long a message may be on its way from its acknowledgement, to
// those who stay connected, while the given fault on its way goes on (G8); 0: as
// long as the fault lasts.
func faultBound(f *Window) time.Duration {
	component, _, _ := strings.Cut(f.Target, "-")
	if component == "gateway" && strings.HasSuffix(f.Target, ">etcd") {
		return 10 * time.Second // by the watermark
	}
	switch f.Kind {
	case Kill, Restart, Down, Memory:
		switch component {
		case "logic":
			return 2 * time.Second
		case "nsqd", "redis":
			return 5 * time.Second
		}
	case Flush:
		return 5 * time.Second
	case Chaos, Rewind:
		return 10 * time.Second // by the watermark
	case ClockAhead, ClockBehind, ClockStrobe, Files:
		return 2 * time.Second
	case DiskFull:
		if component != "mysql" {
			return besideBound
		}
	case Pause:
		if component == "nsqd" {
			return 12 * time.Second
		}
	}
	return 0
}
