package check

import (
	"fmt"
	"time"

	"im-services/internal/imclient"
)

// What G15 promises of an overload.
const (
	surgeAcked   = 0.8              // of the peak that goes on being acknowledged
	surgeOver    = 10 * time.Second // after it everything is as before
	surgeAtLeast = 2.0              // times the peak must have been offered at least for it to be one
)

// stage is one of an overload.
type stage struct {
	begin, end time.Duration
	offered    int64
	acked      int
	own        time.Duration // processor time that the checker took
	shared     int           // of so many processors; 0: not of the system's
}

// rate is how many messages per second were acknowledged in the time that the
// checker left to the system: on one machine, who offers more takes more.
func (s *stage) rate() float64 {
	d := s.end - s.begin
	if s.shared > 0 {
		d -= s.own / time.Duration(s.shared)
	}
	return float64(s.acked) / max(d, time.Millisecond).Seconds()
}

// judgeOverload: what is too much is refused, in words; nearly as much as before
// is taken until all of it is settled; and that is soon. That memory stays bounded
// is judged with all other times.
func (x *index) judgeOverload(b Bounds) Result {
	r := Result{ID: "I16", Name: "overload is refused, not endured"}
	stages := map[string]*stage{}
	for i := range x.events {
		switch e := &x.events[i]; {
		case e.Op == OpStage && e.Type == imclient.Invoke:
			stages[e.Text] = &stage{begin: e.T, end: forever, own: time.Duration(e.ID), shared: e.Code}
		case e.Op == OpStage && stages[e.Text] != nil:
			s := stages[e.Text]
			s.end, s.offered, s.own = e.T, e.Seq, time.Duration(e.ID)-s.own
		}
	}
	peak, surge, rest := stages[stagePeak], stages[stageSurge], stages[stageRest]
	if peak == nil || surge == nil || rest == nil || rest.end == forever {
		r.Skipped = "none was made"
		return r
	}
	if whole := peak.end - peak.begin; whole > peakRamp { // nobody has begun at once
		peak.own = time.Duration(float64(peak.own) * float64(whole-peakRamp) / float64(whole))
		peak.begin += peakRamp
	}
	type outcome struct{ ended, refused, coded bool }
	outcomes := map[sendKey]outcome{}
	all := stage{begin: surge.begin, end: rest.end, own: surge.own + rest.own, shared: surge.shared}
	last := surge.end
	for i := range x.events {
		e := &x.events[i]
		if !x.crowd[e.Client] || e.Op != imclient.OpSend {
			continue
		}
		k := sendKey{e.Client, e.ClientID}
		switch e.Type {
		case imclient.Invoke:
			if _, answered := outcomes[k]; !answered { // a client notes it after it has let it go
				outcomes[k] = outcome{}
			}
		case imclient.OK:
			if peak.begin <= e.T && e.T <= peak.end {
				peak.acked++
			}
			if surge.begin <= e.T {
				all.acked++
			}
			outcomes[k] = outcome{ended: true}
			last = max(last, e.T)
		case imclient.Fail:
			outcomes[k] = outcome{ended: true, refused: true, coded: e.Code != 0 && e.Reason != ""}
			last = max(last, e.T)
		case imclient.Info:
			outcomes[k] = outcome{ended: true}
		}
	}
	refused := 0
	for k, o := range outcomes {
		r.Checked++
		if o.refused {
			refused++
		}
		switch {
		case !o.ended:
			r.red("user %d's message %d was neither acknowledged nor refused, nor given up as unknown", k.client, k.clientID)
		case o.refused && !o.coded:
			r.red("user %d's message %d was refused without a code and a reason", k.client, k.clientID)
		}
	}
	offered := float64(surge.offered) / max(surge.end-surge.begin, time.Millisecond).Seconds()
	bare := float64(peak.acked) / max(peak.end-peak.begin, time.Millisecond).Seconds()
	over := last - surge.end
	before, during := peak.rate(), all.rate()
	r.Name += fmt.Sprintf(" (%.0f/s offered after %.0f/s were taken: %d refused, over after %s; per second that the checker left, %.0f acknowledged before and %.0f then)",
		offered, bare, refused, short(over), before, during)
	switch {
	case x.busyBetween(peak.begin, last, b):
		r.Name += ", not compared: the machine is too busy"
	case offered < surgeAtLeast*bare:
		r.Name += ", not compared: that was no overload"
	case during < surgeAcked*before:
		r.red("beside too many offered %.0f messages were acknowledged per second that the checker left, and %.0f before", during, before)
	}
	if !x.starved(b) && over > surgeOver+x.lagBetween(surge.end, last) {
		r.red("the last message of the surge was settled %s after it", short(over))
	}
	return r
}

// busyBetween reports whether the checker itself had no processor time to spare
// in from..to, so that it has measured itself: half of the time, as its clients
// write as fast as they can and a timer is late now and then.
func (x *index) busyBetween(from, to time.Duration, b Bounds) bool {
	var lags []time.Duration
	for i := range x.events {
		if e := &x.events[i]; e.Op == OpLag && from <= e.T && e.T <= to {
			lags = append(lags, time.Duration(e.Seq))
		}
	}
	return quantiles(lags).P50 > b.MaxLag
}
