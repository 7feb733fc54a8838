package bench

import (
	"fmt"
	"html"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"im-services/internal/bench/hist"
	"im-services/internal/bench/procs"
)

const reportStyle = `body{font:14px/1.5 system-ui,sans-serif;max-width:1320px;margin:2em auto;padding:0 1em;color:#1f2328;background:#fff}
table{border-collapse:collapse;margin:.5em 0 1.5em}td,th{border:1px solid #d0d7de;padding:.25em .6em;text-align:right}
td:first-child,th:first-child{text-align:left}th{background:#f6f8fa;font-weight:600}.bad{color:#d1242f;font-weight:600}.note{color:#9a6700}
svg{margin:.5em 1em .5em 0}.grid{stroke:#e6e9ed;stroke-width:1}.tick,.label,.key{font-size:11px;fill:#57606a}.title{font-size:13px;font-weight:600}
.key{fill:inherit}h2{margin-top:2em}`

// WriteHTML writes the report: one page that needs nothing else.
func (d *Document) WriteHTML(file string) error {
	return os.WriteFile(file, []byte(d.HTML()), 0o644) //nolint:gosec // a report for everybody
}

// HTML is the report.
func (d *Document) HTML() string {
	p := &page{}
	p.f(`<!doctype html><html lang="en"><meta charset="utf-8"><title>Benchmark</title><style>%s</style>`, reportStyle)
	p.f(`<h1>Benchmark</h1><p>%s, %s, %d processors shared by the servers, the databases and the load generator, %s.</p>`,
		d.Time.Format(time.RFC3339), esc(d.Machine.System), d.Machine.Processors, esc(d.Machine.Go))
	d.durability(p)
	d.summary(p)
	d.knees(p)
	for _, c := range d.Comparisons {
		c.section(p)
	}
	d.growth(p)
	d.floors(p)
	d.stages(p)
	p.f(`</html>`)
	return p.b.String()
}

type page struct{ b strings.Builder }

func (p *page) f(format string, args ...any) { fmt.Fprintf(&p.b, format+"\n", args...) }

func esc(s string) string { return html.EscapeString(s) }

// row writes a line of a table; cells are HTML.
func (p *page) row(tag string, cells ...string) {
	p.f(`<tr><%s>%s</%s></tr>`, tag, strings.Join(cells, "</"+tag+"><"+tag+">"), tag)
}

func (d *Document) durability(p *page) {
	if len(d.Machine.Durability) == 0 {
		p.f(`<p class="note">The database's durability settings were not asked for (-dsn).</p>`)
		return
	}
	p.f(`<p>Durability:`)
	for _, k := range slices.Sorted(maps.Keys(d.Machine.Durability)) {
		p.f(`<code>%s=%s</code>`, esc(k), esc(d.Machine.Durability[k]))
	}
	p.f(`</p>`)
}

func (d *Document) summary(p *page) {
	if len(d.Comparisons) == 0 {
		return
	}
	p.f(`<h2>Scenarios</h2><table>`)
	p.row("th", "scenario", "rounds", "acked /s", "delivered /s", "µs of servers per message", "per delivery", "times the relay",
		"ack p50 / p99 ms", "delivery p50 / p99 ms", "account")
	for _, c := range d.Comparisons {
		ratio := ""
		if c.Ratio != nil {
			ratio = fmt.Sprintf("%.2f [%.2f..%.2f]", c.Ratio.Median, c.Ratio.Min, c.Ratio.Max)
		}
		account := "clean"
		for _, r := range append(slices.Clone(c.Relay), c.System...) {
			if !r.OK() {
				account = `<span class="bad">not clean</span>`
			}
		}
		p.row("td", esc(c.Scenario), fmt.Sprint(len(c.System)), spread(c.Acked), spread(c.Delivered), spread(c.PerMessage), spread(c.PerDelivery),
			ratio, latency(c.System, func(r *Result) *hist.Summary { return r.Ack }),
			latency(c.System, func(r *Result) *hist.Summary { return r.Deliver }), account)
	}
	p.f(`</table>`)
}

func spread(s Spread) string {
	if s.Rounds == 0 || s.Max == 0 {
		return ""
	}
	if s.Rounds == 1 {
		return number(s.Median)
	}
	return fmt.Sprintf("%s [%s..%s]", number(s.Median), number(s.Min), number(s.Max))
}

// latency is the median over the rounds of p50 and p99.
func latency(list []*Result, of func(*Result) *hist.Summary) string {
	var p50, p99 []float64
	for _, r := range list {
		if s := of(r); s != nil {
			p50, p99 = append(p50, s.P50), append(p99, s.P99)
		}
	}
	if len(p50) == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f / %.2f", NewSpread(p50).Median, NewSpread(p99).Median)
}

func (d *Document) knees(p *page) {
	if len(d.Knees) == 0 {
		return
	}
	p.f(`<h2>Latency against rate</h2><p>Open loop, each latency from the moment the message was due until it was delivered.</p>`)
	curve := plot{title: "delivery latency", x: "offered messages per second", y: "ms", logY: true}
	cost := plot{title: "processor time of the servers", x: "offered messages per second", y: "µs per message"}
	for _, k := range d.Knees {
		var x, p50, p99, us []float64
		for _, r := range k.Points {
			if r.Deliver == nil {
				continue
			}
			x, p50, p99, us = append(x, r.OfferedPerSecond), append(p50, r.Deliver.P50), append(p99, r.Deliver.P99), append(us, r.PerMessage)
		}
		curve.lines = append(curve.lines, series{k.Target + " p50", x, p50, false}, series{k.Target + " p99", x, p99, true})
		cost.lines = append(cost.lines, series{k.Target, x, us, false})
	}
	p.f(`%s%s<table>`, curve.SVG(), cost.SVG())
	p.row("th", "target", "offered /s", "delivered /s", "p50 ms", "p99 ms", "p99.9 ms", "µs per message", "generator cores", "machine busy", "account")
	for _, k := range d.Knees {
		for _, r := range k.Points {
			if r.Deliver == nil {
				continue
			}
			p.row("td", esc(k.Target), number(r.OfferedPerSecond), fmt.Sprintf("%.0f", r.DeliveredPerSecond), fmt.Sprintf("%.2f", r.Deliver.P50),
				fmt.Sprintf("%.2f", r.Deliver.P99), fmt.Sprintf("%.2f", r.Deliver.P999), fmt.Sprintf("%.1f", r.PerMessage),
				fmt.Sprintf("%.2f", r.Use.Own/r.Use.Seconds), fmt.Sprintf("%.0f %%", 100*r.Use.Busy), account(r))
		}
	}
	p.f(`</table>`)
}

func account(r *Result) string {
	if r.OK() {
		return "clean"
	}
	return `<span class="bad">` + esc(r.Checks.String()) + `</span>`
}

func (c *Comparison) section(p *page) {
	p.f(`<h2>%s</h2><p>%s</p>`, esc(c.Scenario), esc(Describe(c.Scenario)))
	lat := plot{title: "latency by quantile (last round)", x: "1 / (1 - quantile)", y: "ms", logX: true, logY: true}
	for _, list := range [][]*Result{c.Relay, c.System} {
		if len(list) == 0 {
			continue
		}
		r := list[len(list)-1]
		for _, l := range []struct {
			name string
			s    *hist.Summary
		}{{"ack", r.Ack}, {"delivered", r.Deliver}, {"connected", r.Connect}} {
			if l.s == nil || len(l.s.Curve) != len(hist.CurveQuantiles) {
				continue
			}
			var x, y []float64
			for i, q := range hist.CurveQuantiles {
				if q > 0 && q < 1 {
					x, y = append(x, 1/(1-q)), append(y, l.s.Curve[i])
				}
			}
			lat.lines = append(lat.lines, series{r.Target + " " + l.name, x, y, r.Target == "relay"})
		}
	}
	if len(lat.lines) > 0 {
		p.f(`%s`, lat.SVG())
	}
	p.f(`<table>`)
	p.row("th", "target", "parameters", "acked /s", "delivered /s", "µs per message", "by process", "more", "servers / generator / others, cores", "account")
	for _, r := range append(slices.Clone(c.Relay), c.System...) {
		p.row("td", esc(r.Target), params(r.Params), fmt.Sprintf("%.0f", r.AckedPerSecond), fmt.Sprintf("%.0f", r.DeliveredPerSecond),
			fmt.Sprintf("%.1f", r.PerMessage), byKind(r.ByProcess), extras(r.Extra),
			fmt.Sprintf("%.2f / %.2f / %.2f", r.Use.Total()/r.Use.Seconds, r.Use.Own/r.Use.Seconds, r.Use.Others/r.Use.Seconds),
			account(r)+notes(r.Notes))
	}
	p.f(`</table>`)
}

func params(m map[string]any) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, fmt.Sprintf("%s %v", esc(k), m[k]))
	}
	return strings.Join(out, "<br>")
}

func byKind(m map[string]float64) string {
	kinds := map[string]float64{}
	for name, v := range m {
		kinds[(procs.Process{Name: name}).Kind()] += v
	}
	return extras(kinds)
}

func extras(m map[string]float64) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if m[k] >= 0.05 || m[k] <= -0.05 {
			out = append(out, fmt.Sprintf("%s %.1f", esc(k), m[k]))
		}
	}
	return strings.Join(out, "<br>")
}

func notes(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return `<br><span class="note">` + esc(strings.Join(list, "; ")) + `</span>`
}

func (d *Document) growth(p *page) {
	if len(d.Growth) == 0 {
		return
	}
	p.f(`<h2>What must not grow</h2>`)
	for _, g := range d.Growth {
		pl := plot{title: g.Title, x: g.X, y: g.Y, lines: []series{{"system", g.Sizes, g.Values, false}}}
		p.f(`%s`, pl.SVG())
	}
}

func (d *Document) floors(p *page) {
	if len(d.Stores) > 0 {
		p.f(`<h2>Floor: the store alone</h2><table>`)
		p.row("th", "rows per commit", "writers", "rows /s", "µs of the database per row")
		for _, r := range d.Stores {
			p.row("td", fmt.Sprint(r.Batch), fmt.Sprint(r.Writers), fmt.Sprintf("%.0f", r.RowsPerSecond), fmt.Sprintf("%.1f", r.CPU))
		}
		p.f(`</table>`)
	}
	if len(d.Buses) > 0 {
		p.f(`<h2>Floor: the bus alone</h2><table>`)
		p.row("th", "messages per publish", "messages /s", "µs of nsqd per message")
		for _, r := range d.Buses {
			p.row("td", fmt.Sprint(r.Batch), fmt.Sprintf("%.0f", r.PerSecond), fmt.Sprintf("%.1f", r.CPU))
		}
		p.f(`</table>`)
	}
}

func (d *Document) stages(p *page) {
	t := d.Stages
	if t == nil {
		return
	}
	p.f(`<h2>Where a message's time goes</h2><p>%s at %.0f messages/s, %.1f messages per transaction.</p><table>`, esc(t.Scenario), t.Rate, t.Batch)
	p.row("th", "process", "stage", "µs per message")
	for _, c := range t.Costs {
		if c.Micros >= 0.05 {
			p.row("td", esc(c.Process), esc(c.Stage), fmt.Sprintf("%.1f", c.Micros))
		}
	}
	p.f(`</table><table>`)
	p.row("th", "passing time, not processor time", "mean ms", "times")
	for _, w := range t.Waits {
		p.row("td", esc(w.Name), fmt.Sprintf("%.3f", w.Mean), fmt.Sprintf("%.0f", w.Count))
	}
	p.f(`</table>`)
}
