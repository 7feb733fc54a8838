package bench

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"im-services/internal/bench/hist"
	"im-services/internal/bench/procs"
)

// String is the result on a few lines, for people.
func (r *Result) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-8s %-7s", r.Scenario, r.Target)
	if r.OfferedPerSecond > 0 {
		fmt.Fprintf(&b, " offered %.0f/s", r.OfferedPerSecond)
	}
	if r.AckedPerSecond > 0 {
		fmt.Fprintf(&b, " acked %.0f/s delivered %.0f/s", r.AckedPerSecond, r.DeliveredPerSecond)
	}
	if r.PerMessage > 0 {
		fmt.Fprintf(&b, "  %.1f µs/msg %.1f µs/delivery", r.PerMessage, r.PerDelivery)
	}
	b.WriteByte('\n')
	for _, l := range []struct {
		name string
		s    *hist.Summary
	}{{"ack", r.Ack}, {"deliver", r.Deliver}, {"connect", r.Connect}, {"late", r.Lateness}} {
		if l.s != nil {
			fmt.Fprintf(&b, "    %-8s p50 %.2f  p90 %.2f  p99 %.2f  p99.9 %.2f  max %.1f ms  (%d)\n",
				l.name, l.s.P50, l.s.P90, l.s.P99, l.s.P999, l.s.Max, l.s.Count)
		}
	}
	if len(r.ByProcess) > 1 {
		b.WriteString("    µs/msg  ")
		kinds := map[string]float64{}
		for name, v := range r.ByProcess {
			kinds[(procs.Process{Name: name}).Kind()] += v
		}
		for _, kind := range slices.Sorted(maps.Keys(kinds)) {
			if kinds[kind] >= 0.05 {
				fmt.Fprintf(&b, " %s %.1f ", kind, kinds[kind])
			}
		}
		b.WriteByte('\n')
	}
	for _, k := range slices.Sorted(maps.Keys(r.Extra)) {
		if v := r.Extra[k]; v > 0.005 || v < -0.005 {
			fmt.Fprintf(&b, "    %s %.2f\n", k, v)
		}
	}
	fmt.Fprintf(&b, "    cpu: servers %.2f, generator %.2f, others %.2f cores; machine %.0f %% busy\n",
		r.Use.Total()/r.Use.Seconds, r.Use.Own/r.Use.Seconds, r.Use.Others/r.Use.Seconds, 100*r.Use.Busy)
	fmt.Fprintf(&b, "    %s\n", r.Checks.String())
	if !r.OK() {
		b.WriteString("    NOT CLEAN\n")
	}
	for _, n := range r.Notes {
		fmt.Fprintf(&b, "    note: %s\n", n)
	}
	return b.String()
}

// String is a comparison in one line.
func (c *Comparison) String() string {
	s := fmt.Sprintf("%s over %d rounds: %.1f µs/msg [%.1f..%.1f], %.1f µs/delivery, delivered %.0f/s [%.0f..%.0f]",
		c.Scenario, c.PerMessage.Rounds, c.PerMessage.Median, c.PerMessage.Min, c.PerMessage.Max,
		c.PerDelivery.Median, c.Delivered.Median, c.Delivered.Min, c.Delivered.Max)
	if c.Ratio != nil {
		s += fmt.Sprintf(", %.2f times the relay [%.2f..%.2f]", c.Ratio.Median, c.Ratio.Min, c.Ratio.Max)
	}
	return s
}
