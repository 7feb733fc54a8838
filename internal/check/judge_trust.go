package check

import (
	"cmp"
	"slices"
	"time"

	"im-services/internal/imclient"
)

// judgeLeaks: whoever sees a message belongs to its conversation, at that time;
// it says the sender's own words under the sender's name; files of the system
// hold no messages and no tokens.
func (x *index) judgeLeaks() Result {
	r := Result{ID: "I8", Name: "nobody sees what is not his, in nobody else's name"}
	for i := range x.events {
		e := &x.events[i]
		switch e.Op {
		case OpLeak:
			r.red("%s holds %s", e.Text, e.Reason)
		case imclient.OpPush, imclient.OpSync, OpRead:
			r.Checked++
			s := x.sends[sendKey{e.From, e.ClientID}]
			switch {
			case !isCanary(e.Text):
				if s != nil {
					r.red("user %d was given %q for %s", e.Client, e.Text, s)
				}
			case s == nil:
				r.red("user %d was given %d/%d as user %d's message %d, who has not sent it: %q", e.Client, e.Conversation, e.Seq, e.From, e.ClientID, e.Text)
			case s.text != e.Text:
				r.red("user %d was given %q for %s, which is %q", e.Client, e.Text, s, s.text)
			case x.keyKnown(e.Conversation) && x.keys[e.Conversation] != s.key:
				r.red("user %d was given %s in conversation %d, which is %s", e.Client, s, e.Conversation, x.keys[e.Conversation])
			default:
				done := s.done
				if !s.acked {
					done = forever
				}
				if !x.mayHave(e.Client, s.key, s.invoke, done) {
					r.red("user %d was given (%s, %s) %s without belonging there", e.Client, e.Op, short(e.T), s)
				}
			}
		}
	}
	return r
}

// judgeAuthority: nothing is accepted that was sent after its permission was
// taken away for certain, and nothing is forbidden to who had it all the time.
func (x *index) judgeAuthority() Result {
	r := Result{ID: "I9", Name: "who may write does, who may no longer does not"}
	stored := map[sendKey]bool{}
	for _, m := range x.truth {
		stored[sendKey{m.from, m.clientID}] = true
	}
	for _, s := range x.order {
		if !s.acked && !stored[s.sendKey] {
			continue
		}
		list, what := x.permission(s)
		r.Checked++
		done := s.done
		if !s.acked {
			done = forever // nobody was told when it was accepted
		}
		if forbidden(list, s.invoke, done) {
			r.red("%s, sent at %s, was accepted after %s had ended", s, short(s.invoke), what)
		}
	}
	for i := range x.events {
		e := &x.events[i]
		s := x.sends[sendKey{e.Client, e.ClientID}]
		if e.Op != imclient.OpSend || e.Type != imclient.Fail || e.Code != imclient.CodeNotAllowed || s == nil {
			continue
		}
		r.Checked++
		if list, what := x.permission(s); permitted(list, s.invoke, e.T) {
			r.red("%s, sent at %s, was refused at %s (code %d), and %s held all the time", s, short(s.invoke), short(e.T), e.Code, what)
		}
	}
	return r
}

// permission is what its sender needs to be allowed s.
func (x *index) permission(s *send) (list []stay, what string) {
	if s.key.channel == imclient.Group {
		return x.stays[member{s.key.a, s.client}], "the membership"
	}
	return x.friends[s.key], "the friendship"
}

// judgePresence: what the server answers in the end is true, and what it told
// those who were connected was told in time.
func (x *index) judgePresence(b Bounds) Result {
	r := Result{ID: "I10", Name: "presence converges"}
	type pair struct{ viewer, subject int64 }
	type fact struct {
		at   time.Duration
		code int
	}
	truth := map[int64]fact{}
	told := map[pair]fact{}
	starved := x.starved(b)
	for i := range x.events {
		e := &x.events[i]
		switch e.Op {
		case OpOnline:
			truth[e.Client] = fact{e.T, e.Code}
		case OpPresence:
			told[pair{e.Client, e.From}] = fact{e.T, e.Code}
		case OpStatus:
			now, ok := truth[e.To]
			if !ok {
				continue
			}
			r.Checked++
			if e.Type != imclient.OK {
				r.red("user %d asked whether user %d is online and was not told: %s", e.Client, e.To, e.Reason)
				continue
			}
			if e.Code != now.code {
				r.red("user %d was told %d of user %d, who is %d", e.Client, e.Code, e.To, now.code)
			}
			frame, heard := told[pair{e.Client, e.To}]
			switch {
			case heard && frame.code != now.code && x.connectedSince(e.Client, frame.at, e.T):
				r.red("the last frame told user %d that user %d is %d (at %s); he is %d", e.Client, e.To, frame.code, short(frame.at), now.code)
			case e.Reason == transition && (!heard || frame.at < now.at || !starved && frame.at > now.at+b.Presence+x.lagBetween(now.at, frame.at)) && x.connectedSince(e.Client, now.at, e.T):
				r.red("user %d was not told within %s that user %d became %d at %s", e.Client, b.Presence, e.To, now.code, short(now.at))
			}
		}
	}
	x.judgeAbsences(&r, b)
	if r.Checked == 0 {
		r.Skipped = "nobody was asked"
	}
	return r
}

// transition marks an OpStatus after a change whose frame must have come.
const transition = "transition"

func (x *index) connectedSince(user int64, from, to time.Duration) bool {
	for _, s := range x.spans[user] {
		if s.begin <= from && to <= s.end {
			return true
		}
	}
	return false
}

// starved reports whether the machine had no processor time to spare, so that
// no latency says anything about the system.
func (x *index) starved(b Bounds) bool {
	var lags []time.Duration
	for i := range x.events {
		if x.events[i].Op == OpLag {
			lags = append(lags, time.Duration(x.events[i].Seq))
		}
	}
	return quantiles(lags).P99 > b.MaxLag
}

// lagBetween is by how much a timer of the checker was late at most in from..to:
// so much later than it happened may anything have been noticed.
func (x *index) lagBetween(from, to time.Duration) time.Duration {
	if x.lags == nil {
		x.lags = []*Event{}
		for i := range x.events {
			if x.events[i].Op == OpLag {
				x.lags = append(x.lags, &x.events[i])
			}
		}
	}
	// Each tells the worst of the time since the one before.
	first, _ := slices.BinarySearchFunc(x.lags, from, func(e *Event, t time.Duration) int { return cmp.Compare(e.T, t) })
	var worst time.Duration
	for _, e := range x.lags[first:] {
		late := time.Duration(e.Seq)
		if e.T-late > satAdd(to, 10*lagEvery) {
			if e.T-to > maxLate {
				break
			}
			continue
		}
		worst = max(worst, late)
	}
	return worst
}

// unnoticed is by how much later than it happened anything in from..to may have been
// noticed, also on a machine without processor time to spare.
func (x *index) unnoticed(from, to time.Duration, starved bool) time.Duration {
	late := x.lagBetween(from, to)
	if starved {
		late += lingering
	}
	return late
}

// maxLate bounds how far back the lateness of a timer is looked for.
const maxLate = time.Minute
