package bench

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"im-services/internal/bench/hist"
)

// The figures in docs/performance.md stand between these lines and are written
// from a document, never by hand.
const (
	markBegin = "<!-- figures: begin -->"
	markEnd   = "<!-- figures: end -->"
)

// UpdateMarkdown replaces the figures in file by the document's.
func (d *Document) UpdateMarkdown(file string) error {
	text, err := os.ReadFile(file) //nolint:gosec // part of the repository
	if err != nil {
		return err
	}
	before, rest, ok1 := strings.Cut(string(text), markBegin)
	_, after, ok2 := strings.Cut(rest, markEnd)
	if !ok1 || !ok2 {
		return errors.New(file + " has no place for figures")
	}
	return os.WriteFile(file, []byte(before+markBegin+"\n\n"+d.Markdown()+"\n"+markEnd+after), 0o644) //nolint:gosec // part of the repository
}

// Markdown is the document's figures as tables.
func (d *Document) Markdown() string {
	var b strings.Builder
	f := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	f("Measured %s on %s, %d processors shared by servers, databases and the load generator, %s.",
		d.Time.Format("2006-01-02"), d.Machine.System, d.Machine.Processors, d.Machine.Go)
	if s := d.Machine.Durability; s != nil {
		binlog := "binlog " + strings.ToLower(s["log_bin"])
		if s["log_bin"] == "ON" {
			binlog += ", sync_binlog=" + s["sync_binlog"]
		}
		f("Durability: innodb_flush_log_at_trx_commit=%s, %s, innodb_doublewrite=%s, server %s.",
			s["innodb_flush_log_at_trx_commit"], binlog, s["innodb_doublewrite"], s["version"])
	}
	d.markdownScenarios(f)
	d.markdownKnees(f)
	if len(d.Stores) > 0 || len(d.Buses) > 0 {
		f("\n### Floors\n\n| alone | batch | per second | µs of its server each |\n|---|---|---|---|")
		for _, r := range d.Stores {
			f("| rows, fsync per commit, %d writers | %d | %.0f | %.1f |", r.Writers, r.Batch, r.RowsPerSecond, r.CPU)
		}
		for _, r := range d.Buses {
			f("| messages through NSQ | %d | %.0f | %.1f |", r.Batch, r.PerSecond, r.CPU)
		}
	}
	if len(d.Growth) > 0 {
		f("\n### What must not grow\n")
		for _, g := range d.Growth {
			f("%s:\n\n| %s | %s |\n|---|---|", g.Title, g.X, g.Y)
			for i := range g.Sizes {
				f("| %s | %.1f |", number(g.Sizes[i]), g.Values[i])
			}
			f("")
		}
	}
	if d.Stages != nil {
		f("\n### Where a message's time goes\n\n%s", d.Stages.Markdown())
	}
	return b.String()
}

func (d *Document) markdownScenarios(f func(string, ...any)) {
	if len(d.Comparisons) == 0 {
		return
	}
	f("\n### Scenarios\n\nMedian [least..most] of the rounds; the relay ran in between.\n")
	f("| scenario | acked/s | delivered/s | µs per message | µs per delivery | times the relay | ack p50/p99 ms | delivery p50/p99 ms | account |\n|---|---|---|---|---|---|---|---|---|")
	for _, c := range d.Comparisons {
		ratio := ""
		if c.Ratio != nil {
			ratio = fmt.Sprintf("%.1f [%.1f..%.1f]", c.Ratio.Median, c.Ratio.Min, c.Ratio.Max)
		}
		f("| %s | %s | %s | %s | %s | %s | %s | %s | %s |", c.Scenario, spread(c.Acked), spread(c.Delivered), spread(c.PerMessage),
			spread(c.PerDelivery), ratio, latency(c.System, func(r *Result) *hist.Summary { return r.Ack }),
			latency(c.System, func(r *Result) *hist.Summary { return r.Deliver }), c.verdict())
	}
	f("")
	for _, c := range d.Comparisons {
		for _, r := range c.System {
			if len(r.Extra) == 0 && len(r.Notes) == 0 {
				continue
			}
			line := strings.ReplaceAll(extras(r.Extra), "<br>", "; ")
			if r.Connect != nil {
				line += fmt.Sprintf("; connect p50 %.2f, p99 %.2f ms", r.Connect.P50, r.Connect.P99)
			}
			if len(r.Notes) > 0 {
				line += ". Doubts: " + strings.Join(r.Notes, "; ")
			}
			f("- %s (%s): %s.", c.Scenario, strings.ReplaceAll(params(r.Params), "<br>", ", "), strings.TrimPrefix(line, "; "))
		}
	}
}

// verdict is the account of all rounds in a word or two.
func (c *Comparison) verdict() string {
	for _, list := range [][]*Result{c.Relay, c.System} {
		for _, r := range list {
			if !r.OK() {
				return "**" + r.Target + " not clean**"
			}
		}
	}
	return "clean"
}

func (d *Document) markdownKnees(f func(string, ...any)) {
	if len(d.Knees) == 0 {
		return
	}
	f("\n### Latency against rate\n\n| target | offered/s | delivered/s | p50 ms | p99 ms | p99.9 ms | µs per message | machine busy |\n|---|---|---|---|---|---|---|---|")
	for _, k := range d.Knees {
		for _, r := range k.Points {
			if r.Deliver != nil {
				f("| %s | %.0f | %.0f | %.2f | %.2f | %.2f | %.1f | %.0f %% |", k.Target, r.OfferedPerSecond, r.DeliveredPerSecond,
					r.Deliver.P50, r.Deliver.P99, r.Deliver.P999, r.PerMessage, 100*r.Use.Busy)
			}
		}
	}
}
