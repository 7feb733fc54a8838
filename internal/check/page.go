package check

import (
	"fmt"
	"html"
	"math"
	"strings"
	"time"
)

// The page's plot, in SVG units.
const (
	plotWidth, plotHeight = 1064.0, 300.0
	plotLeft, plotTop     = 96.0, 20.0
	rateHeight, labels    = 70.0, 34.0
	bandHeight            = 14.0
	maxPoints             = 6000
)

const pageHead = `<!doctype html><html lang="en"><meta charset="utf-8"><title>Delivery check</title><style>
body{font:14px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:1180px;color:#222}
h1 .green{color:#187a3c}h1 .red{color:#b3261e}table{border-collapse:collapse;margin:1rem 0}
td,th{padding:.2rem .7rem;text-align:left;border-bottom:1px solid #ddd;vertical-align:top}
.ok{color:#187a3c}.bad{color:#b3261e;font-weight:600}.none{color:#888}svg text{font:11px system-ui,sans-serif;fill:#444}
caption{text-align:left;padding:.2rem .7rem;color:#555}summary{cursor:pointer}code,pre{background:#f5f5f5;padding:.1rem .3rem;white-space:pre-wrap}</style>`

// Page is the report as one HTML file that needs nothing else.
func (v *Verdict) Page() string {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	word, class := "green", "green"
	if !v.Green() {
		word, class = "red", "red"
	}
	f := &v.Figures
	b.WriteString(pageHead)
	p(`<h1>Delivery check: <span class="%s">%s</span></h1>`, class, word)
	p(`<p>Seed %d, %s. %d people, %d messages sent, %d acknowledged, %d refused, %d unknown. %d faults of %d kinds on %d targets.</p>`,
		v.Seed, f.Length.Round(time.Second), f.Clients, f.Sends, f.Acked, f.Refused, f.Unknown, f.Faults, f.FaultKinds, f.Targets)
	b.WriteString(v.plot())
	p(`<table><tr><th></th><th>Verdict</th><th>Checked</th><th>Demand</th></tr>`)
	for i := range v.Results {
		r := &v.Results[i]
		state := `<span class="ok">holds</span>`
		switch {
		case r.Red > 0:
			state = fmt.Sprintf(`<span class="bad">%d violations</span>`, r.Red)
		case r.Skipped != "":
			state = `<span class="none">not judged</span>`
		}
		p(`<tr><td>%s</td><td>%s</td><td>%d</td><td>%s`, r.ID, state, r.Checked, html.EscapeString(r.Name))
		if r.Skipped != "" {
			p(`<br><span class="none">%s</span>`, html.EscapeString(r.Skipped))
		}
		for _, s := range r.Sample {
			p(`<br><code>%s</code>`, html.EscapeString(s))
		}
		p(`</td></tr>`)
	}
	p(`</table><table><tr><th>Time</th><th>p50</th><th>p99</th><th>max</th><th>of</th></tr>`)
	for _, q := range []struct {
		name string
		q    Quantiles
	}{
		{"to the acknowledgement", f.AckLatency},
		{"the same, of the overload", f.CrowdAcks},
		{"from there to the last recipient online, without faults", f.Healthy},
		{"the same, always", f.All},
		{"by which the checker's own timers were late", f.Lag},
	} {
		p(`<tr><td>%s</td><td>%s</td><td>%s</td><td>%s</td><td>%d</td></tr>`, q.name, round(q.q.P50), round(q.q.P99), round(q.q.Max), q.q.N)
	}
	p(`</table>`)
	v.tableOfFaults(p, "The faults with the greatest latencies", v.slowest(8))
	p(`<details><summary>All %d faults</summary>`, len(v.Windows))
	v.tableOfFaults(p, "In the order of their beginning", v.Windows)
	p(`</details><p>Repeat: <code>%s</code></p></html>`, html.EscapeString(v.Command))
	return b.String()
}

func (v *Verdict) tableOfFaults(p func(string, ...any), title string, windows []Window) {
	if len(windows) == 0 {
		return
	}
	p(`<table><caption>%s</caption><tr><th></th><th>Fault</th><th>On</th><th>From</th><th>For</th><th>Acked</th><th>p50</th><th>p99</th><th>max</th></tr>`, title)
	for i := range windows {
		w := &windows[i]
		p(`<tr><td>%d</td><td>%s</td><td>%s</td><td>%s</td><td>%s</td><td>%d</td><td>%s</td><td>%s</td><td>%s</td></tr>`, w.Number, html.EscapeString(w.Kind),
			html.EscapeString(w.Target), (w.Begin - v.begin()).Round(100*time.Millisecond), (w.End - w.Begin).Round(100*time.Millisecond),
			w.Acked, round(w.Latency.P50), round(w.Latency.P99), round(w.Latency.Max))
	}
	p(`</table>`)
}

func (v *Verdict) begin() time.Duration {
	if len(v.Phases) > 0 {
		return v.Phases[0].At
	}
	return 0
}

// plot draws time from left to right: faults as bands, one row per kind, below
// them how many messages were acknowledged in each second, and how long each
// took to its recipients, on a logarithmic scale.
func (v *Verdict) plot() string {
	begin := v.begin()
	end := begin + time.Second
	for _, p := range v.Phases {
		end = max(end, p.At)
	}
	for _, p := range v.Points {
		end = max(end, p.At)
	}
	x := func(t time.Duration) float64 {
		return plotLeft + plotWidth*float64(t-begin)/float64(end-begin)
	}
	rows := map[string]int{}
	for _, w := range v.Windows {
		if _, ok := rows[w.Kind]; !ok {
			rows[w.Kind] = len(rows)
		}
	}
	rateTop := plotTop + bandHeight*float64(len(rows)) + labels
	top := rateTop + rateHeight + 24
	// 1 ms at the bottom, 100 s at the top.
	y := func(d time.Duration) float64 {
		decades := math.Log10(max(float64(d)/float64(time.Millisecond), 1))
		return top + plotHeight*(1-min(decades, 5)/5)
	}
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	p(`<svg viewBox="0 0 %g %g" width="100%%" role="img" aria-label="faults and latencies over time">`, plotLeft+plotWidth+20, top+plotHeight+40)
	for kind, row := range rows {
		p(`<text x="0" y="%.1f">%s</text>`, plotTop+bandHeight*float64(row)+10, html.EscapeString(kind))
	}
	for _, w := range v.Windows {
		width := max(x(w.End)-x(w.Begin), 2)
		at := plotTop + bandHeight*float64(rows[w.Kind])
		p(`<rect x="%.1f" y="%.1f" width="%.1f" height="%g" fill="#c0504d" opacity=".8"><title>%d %s %s, %s</title></rect>`,
			x(w.Begin), at, width, bandHeight-3, w.Number, html.EscapeString(w.Kind), html.EscapeString(w.Target), (w.End - w.Begin).Round(100*time.Millisecond))
		p(`<rect x="%.1f" y="%.1f" width="%.1f" height="%g" fill="#c0504d" opacity=".10"/>`, x(w.Begin), rateTop, width, top+plotHeight-rateTop)
	}
	v.plotRate(p, x, rateTop)
	for i, name := range []string{"1 ms", "10 ms", "100 ms", "1 s", "10 s", "100 s"} {
		at := top + plotHeight*(1-float64(i)/5)
		p(`<line x1="%g" x2="%g" y1="%.1f" y2="%.1f" stroke="#ddd"/><text x="10" y="%.1f">%s</text>`, plotLeft, plotLeft+plotWidth, at, at, at+4, name)
	}
	step := max(1, len(v.Points)/maxPoints)
	b.WriteString(`<path fill="none" stroke="#2f6db3" stroke-width="2" stroke-linecap="round" opacity=".5" d="`)
	for i, point := range v.Points {
		// The slow ones are what one looks for: none of them is left out.
		if i%step == 0 || point.Latency > 500*time.Millisecond {
			fmt.Fprintf(&b, "M%.1f %.1fh0", x(point.At), y(point.Latency))
		}
	}
	b.WriteString("\"/>\n")
	for i, phase := range v.Phases {
		at, anchor := x(phase.At)+3, "start"
		if at > plotLeft+plotWidth-40 {
			at, anchor = at-6, "end"
		}
		p(`<line x1="%.1f" x2="%.1f" y1="%g" y2="%g" stroke="#888" stroke-dasharray="3 3"/><text x="%.1f" y="%.1f" text-anchor="%s">%s</text>`,
			x(phase.At), x(phase.At), plotTop, top+plotHeight, at, rateTop-6-float64(i%2)*13, anchor, html.EscapeString(phase.Name))
	}
	for i := range 11 {
		at := begin + time.Duration(i)*(end-begin)/10
		p(`<text x="%.1f" y="%.1f" text-anchor="middle">%s</text>`, x(at), top+plotHeight+18, (at - begin).Round(time.Second))
	}
	p(`<text x="%g" y="%.1f">each dot a message: from its acknowledgement to its last recipient online</text></svg>`, plotLeft, top+plotHeight+36)
	return b.String()
}

// plotRate draws the acknowledgements of each second.
func (v *Verdict) plotRate(p func(string, ...any), x func(time.Duration) float64, top float64) {
	most := 1
	for _, n := range v.Acked {
		most = max(most, n)
	}
	var path strings.Builder
	for second, n := range v.Acked {
		at := v.begin() + time.Duration(second)*time.Second
		height := rateHeight * float64(n) / float64(most)
		fmt.Fprintf(&path, "M%.1f %.1fV%.1fH%.1fV%.1f", x(at), top+rateHeight, top+rateHeight-height, x(at+time.Second), top+rateHeight)
	}
	p(`<path fill="#187a3c" opacity=".45" d="%s"/>`, path.String())
	p(`<line x1="%g" x2="%g" y1="%.1f" y2="%.1f" stroke="#ddd"/>`, plotLeft, plotLeft+plotWidth, top+rateHeight, top+rateHeight)
	p(`<text x="0" y="%.1f">acknowledged</text><text x="0" y="%.1f">per second</text><text x="0" y="%.1f">up to %d</text>`, top+22, top+36, top+50, most)
}
