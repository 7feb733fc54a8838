package check

import (
	"slices"
	"strings"
	"time"

	"im-services/internal/imclient"
)

// What is promised of a change of the database's primary.
const (
	epochTold    = 5 * time.Second  // from the promotion until a sync names another epoch
	writesAgain  = 5 * time.Second  // from the promotion until a send is acknowledged
	writesSwitch = 10 * time.Second // without an acknowledgement, in a planned switch
)

// change is a change of the primary.
type roleChange struct {
	promoted      time.Duration // 0: it was not
	before, after string        // epochs
	told          time.Duration
	wrong         string // with the epoch after
	written       string // whom the old primary took a write of
}

// toDatabase reports whether a link is one to the database.
func toDatabase(link string) bool { return strings.HasSuffix(link, ">mysql") }

// judgeFailOver: the new primary serves in time and under another epoch, and the
// old one takes nothing any more.
func (x *index) judgeFailOver(b Bounds) Result {
	r := Result{ID: "I17", Name: "a new primary of the database serves in time, under a new epoch"}
	starved := x.starved(b)
	changes := map[int]*roleChange{}
	for i := range x.events {
		e := &x.events[i]
		c := changes[e.Conn]
		if c == nil && (e.Op == OpEpoch || e.Op == OpPromoted || e.Op == OpFenced) {
			c = &roleChange{}
			changes[e.Conn] = c
		}
		switch {
		case e.Op == OpPromoted:
			c.promoted = e.T
		case e.Op == OpEpoch && e.Type == imclient.Invoke:
			c.before = e.Text
		case e.Op == OpEpoch:
			c.after, c.told, c.wrong = e.Text, e.T, e.Reason
		case e.Op == OpFenced && e.Type == imclient.OK:
			c.written = e.Text
		}
	}
	acked := x.ackTimes()
	for i := range x.faults {
		f := &x.faults[i]
		if !slices.Contains(roleKinds, f.Kind) {
			continue
		}
		r.Checked++
		c := changes[f.Number]
		if c == nil || c.promoted == 0 {
			r.red("fault %d (%s): no other server became the primary", f.Number, f.Kind)
			continue
		}
		switch {
		case c.wrong != "":
			r.red("fault %d (%s): a sync with the epoch of before says %s", f.Number, f.Kind, c.wrong)
		case c.after == "" || c.after == c.before:
			r.red("fault %d (%s): the epoch is the one of before", f.Number, f.Kind)
		case c.told > c.promoted+epochTold+x.unnoticed(c.promoted, c.told, starved):
			r.red("fault %d (%s): the new epoch was told %s after the new primary took writes", f.Number, f.Kind, short(c.told-c.promoted))
		}
		if c.written != "" {
			r.red("fault %d (%s): the old primary, %s, acknowledged a write when there was a new one", f.Number, f.Kind, c.written)
		}
		x.judgeWrites(&r, f, c.promoted, acked, starved)
	}
	if r.Checked == 0 {
		r.Skipped = "the database has kept its primary"
	}
	return r
}

// ackTimes are the moments of all acknowledgements.
func (x *index) ackTimes() []time.Duration {
	var out []time.Duration
	for _, s := range x.order {
		if s.acked {
			out = append(out, s.done)
		}
	}
	slices.Sort(out)
	return out
}

// judgeWrites: sends are acknowledged again in time, if anybody sends any.
func (x *index) judgeWrites(r *Result, f *Window, promoted time.Duration, acked []time.Duration, starved bool) {
	until := x.end
	for _, p := range x.phases {
		if p.Name == PhaseHeal {
			until = p.At
		}
	}
	again := forever
	for _, s := range x.order {
		if s.acked && s.invoke >= promoted {
			again = min(again, s.done)
		}
	}
	if bound := promoted + writesAgain + x.unnoticed(promoted, promoted+writesAgain, starved); again > bound && bound < until {
		r.red("fault %d (%s): nothing sent after the new primary took writes, at %s, was acknowledged within %s", f.Number, f.Kind, short(promoted), writesAgain)
	}
	if f.Kind != SwitchOver {
		return
	}
	from := f.Begin
	for _, t := range acked {
		if t < f.Begin {
			continue
		}
		if t-from > writesSwitch+x.unnoticed(from, t, starved) {
			r.red("fault %d (%s): nothing was acknowledged for %s, from %s on", f.Number, f.Kind, short(t-from), short(from))
		}
		if from = t; t > promoted {
			break
		}
	}
}
