package check

import (
	"fmt"
	"strings"
	"time"
)

// Text is the report on one page, for a terminal.
func (v *Verdict) Text() string {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	word := "GREEN"
	if !v.Green() {
		word = "RED"
	}
	f := &v.Figures
	p("delivery check: %s   (seed %d, %s)", word, v.Seed, f.Length.Round(time.Second))
	p("")
	p("%d people sent %d messages: %d acknowledged, %d refused, %d unknown; %d were sent again", f.Clients, f.Sends, f.Acked, f.Refused, f.Unknown, f.Resent)
	p("%d pushes (%d repeats dropped) on %d connections; %d changes of friends, %d of members", f.Pushes, f.Repeats, f.Connects, f.FriendChanges, f.MemberChanges)
	p("%d faults of %d kinds on %d targets; %d complete syncs, %d rows of history and %d of the database read", f.Faults, f.FaultKinds, f.Targets, f.SyncRounds, f.HistoryRows, f.DBRow)
	p("acknowledgement        %s", f.AckLatency)
	if f.CrowdAcks.N > 0 {
		p("  of the overload      %s", f.CrowdAcks)
	}
	p("last push, no fault    %s", f.Healthy)
	p("last push, always      %s", f.All)
	p("the checker's timers   %s late", f.Lag)
	p("")
	for i := range v.Results {
		r := &v.Results[i]
		state := "ok"
		switch {
		case r.Red > 0:
			state = "RED"
		case r.Skipped != "":
			state = "-"
		}
		p("%-4s %-4s %9d  %s", r.ID, state, r.Checked, r.Name)
		if r.Skipped != "" {
			p("                     not judged: %s", r.Skipped)
		}
		if r.Red > 0 {
			p("                     %d violations, for instance", r.Red)
			for _, s := range r.Sample[:min(5, len(r.Sample))] {
				p("                     - %s", s)
			}
		}
	}
	if len(v.Windows) > 0 {
		p("")
		p("slowest faults (time from acknowledgement to the last recipient online)")
		for _, w := range v.slowest(8) {
			p("  %3d %-10s %-22s %6s  acked %5d  p50 %s  p99 %s  max %s", w.Number, w.Kind, w.Target, (w.End - w.Begin).Round(100*time.Millisecond),
				w.Acked, w.Latency.P50.Round(time.Millisecond), w.Latency.P99.Round(time.Millisecond), w.Latency.Max.Round(time.Millisecond))
		}
	}
	p("")
	if v.Bundle != "" {
		p("bundle:  %s", v.Bundle)
	}
	p("repeat:  %s", v.Command)
	return b.String()
}

// String tells quantiles in one line.
func (q Quantiles) String() string {
	if q.N == 0 {
		return "nothing measured"
	}
	return fmt.Sprintf("p50 %s, p99 %s, max %s (%d)", round(q.P50), round(q.P99), round(q.Max), q.N)
}

func round(d time.Duration) time.Duration {
	if d < 10*time.Millisecond {
		return d.Round(10 * time.Microsecond)
	}
	return d.Round(time.Millisecond)
}

// slowest returns the windows with the greatest latencies.
func (v *Verdict) slowest(n int) []Window {
	out := append([]Window(nil), v.Windows...)
	for i := range out { // selection: the list is short
		for j := i + 1; j < len(out); j++ {
			if out[j].Latency.Max > out[i].Latency.Max {
				out[i], out[j] = out[j], out[i]
			}
		}
	}
	return out[:min(n, len(out))]
}
