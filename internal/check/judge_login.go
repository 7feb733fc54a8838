package check

import (
	"slices"
	"strings"
	"time"

	"im-services/internal/imclient"
)

// What G16 promises of an ended login. Nothing on the way from auth to a gateway
// goes through Redis or NSQ, yet the promise without both of them is a weaker one,
// and the judge holds the system to what is promised.
const (
	tokenRefused = time.Second
	socketClosed = 2 * time.Second
	endedBlindly = 30 * time.Second
)

// judgeLogins: once it is answered that a login is over, its token is refused
// and its sockets are closed, at every gateway, within the bounds of G16.
func (x *index) judgeLogins(b Bounds) Result {
	r := Result{ID: "I14", Name: "an ended login ends everywhere"}
	var late time.Duration
	if x.starved(b) {
		late = lingering
	}
	tooLate := func(at, bound, end time.Duration) bool {
		return at > bound+late && at > bound+late+x.lagBetween(end, at)
	}
	ended := map[int64]time.Duration{}
	for i := range x.events {
		if e := &x.events[i]; e.Op == OpEndLogin && e.Type == imclient.OK {
			ended[e.Client] = e.T
		}
	}
	for i := range x.events {
		e := &x.events[i]
		end, over := ended[e.Client]
		if !over || e.T <= end {
			continue // it broke before that
		}
		switch {
		case e.Op == OpSocket && e.Type != imclient.OK:
			r.Checked++
			if tooLate(e.T, x.endedBy(e.Conn, end, socketClosed), end) {
				what := "closed"
				if e.Type == imclient.Fail {
					what = "still open"
				}
				r.red("the socket of user %d at gateway %d is %s %s after his login ended", e.Client, e.Conn, what, short(e.T-end))
			}
		case e.Op == OpToken:
			r.Checked++
			if e.Type == imclient.OK && tooLate(e.T, x.endedBy(e.Conn, end, tokenRefused), end) {
				r.red("gateway %d took the token of user %d for %s %s after his login ended", e.Conn, e.Client, e.Text, short(e.T-end))
			}
		}
	}
	if r.Checked == 0 {
		r.Skipped = "no login has ended"
	}
	return r
}

// endedBy is when a gateway must have ended what belongs to a login that was over
// at end: within the bound, not counting the time in which a fault stood between
// it and auth, or between it and the client who looks, and was recovered from.
func (x *index) endedBy(gateway int, end, within time.Duration) time.Duration {
	if x.blind(end, satAdd(end, within)) {
		within = endedBlindly
	}
	from := end
	for i := range x.faults { // in the order of their beginning
		f := &x.faults[i]
		if f.Begin > satAdd(from, within) {
			break
		}
		if endsThrough(f, gateway) {
			from = max(from, satAdd(f.End, aftermath))
		}
	}
	return satAdd(from, within)
}

// blind reports whether Redis and NSQ were both cut off at some moment of
// from..to.
func (x *index) blind(from, to time.Duration) bool {
	var redis, nsqd []*Window
	for i := range x.faults {
		f := &x.faults[i]
		if f.Begin > to || f.End < from || !cutsOff(f.Kind) {
			continue
		}
		for _, part := range targets(f) {
			switch part[strings.LastIndexByte(part, '>')+1:] {
			case "redis":
				redis = append(redis, f)
			case "nsqd":
				nsqd = append(nsqd, f)
			}
		}
	}
	for _, a := range redis {
		for _, b := range nsqd {
			if a.Begin <= b.End && b.Begin <= a.End {
				return true
			}
		}
	}
	return false
}

// cutsOff reports whether nothing can be got from what a fault of that kind hits.
func cutsOff(kind string) bool {
	return slices.Contains([]string{Kill, Pause, Restart, Down, Rewind, KillAll, KillFlush, Partition, LoseTo, LoseFrom, Refuse, Stall, Memory}, kind)
}

// targets are what a fault hits, several where it hits several at once.
func targets(f *Window) []string {
	return strings.FieldsFunc(f.Target, func(r rune) bool { return r == '+' || r == ',' || r == ' ' })
}

// endsThrough reports whether a fault is on the way that the end of a login takes
// to a gateway: the gateway itself, its clients' link, auth and what auth is asked
// through and reads from.
func endsThrough(f *Window, gateway int) bool {
	name := "gateway-" + intText(int64(gateway))
	for _, target := range targets(f) {
		from, to, link := strings.Cut(target, ">")
		switch {
		case link && from == "clients":
			if to == name {
				return true
			}
		case link && from == "callers":
			if strings.HasPrefix(to, "auth-") {
				return true
			}
		case link:
			if strings.HasPrefix(from, "auth-") && to == "mysql" {
				return true
			}
		case target == name || target == "gateway" || target == "mysql" || target == "auth" || strings.HasPrefix(target, "auth-"):
			return true
		}
	}
	return false
}
