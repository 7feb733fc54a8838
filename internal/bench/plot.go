package bench

import (
	"fmt"
	"html"
	"math"
	"strconv"
	"strings"
)

// series is one line of a plot.
type series struct {
	name string
	x, y []float64
	dash bool
}

// plot is a chart drawn as inline SVG: no scripts, no files beside the page.
type plot struct {
	title, x, y string
	logX, logY  bool
	lines       []series
}

const (
	plotW, plotH           = 640, 340
	plotLeft, plotRight    = 64, 16
	plotTop, plotBottom    = 34, 46
	plotInnerW, plotInnerH = plotW - plotLeft - plotRight, plotH - plotTop - plotBottom
)

var lineColours = []string{"#1f6feb", "#d1242f", "#1a7f37", "#8250df", "#bf8700", "#57606a"}

// axis maps values to pixels.
type axis struct {
	lo, hi float64
	log    bool
}

func newAxis(values []float64, log bool) axis {
	a := axis{lo: math.Inf(1), hi: math.Inf(-1), log: log}
	for _, v := range values {
		if log && v <= 0 {
			continue
		}
		a.lo, a.hi = min(a.lo, v), max(a.hi, v)
	}
	if a.lo > a.hi {
		a.lo, a.hi = 0, 1
		if log {
			a.lo = 0.1
		}
	}
	switch {
	case log:
		a.lo, a.hi = math.Pow(10, math.Floor(math.Log10(a.lo))), math.Pow(10, math.Ceil(math.Log10(a.hi)))
		if a.lo == a.hi {
			a.hi *= 10
		}
	default:
		a.lo = min(a.lo, 0)
		if a.lo == a.hi {
			a.hi = a.lo + 1
		}
		a.hi *= 1.05
	}
	return a
}

// at is the place of v between 0 and 1.
func (a axis) at(v float64) float64 {
	if a.log {
		return (math.Log10(max(v, a.lo)) - math.Log10(a.lo)) / (math.Log10(a.hi) - math.Log10(a.lo))
	}
	return (v - a.lo) / (a.hi - a.lo)
}

func (a axis) ticks() []float64 {
	var out []float64
	if a.log {
		for v := a.lo; v <= a.hi*1.0001; v *= 10 {
			out = append(out, v)
		}
		return out
	}
	step := math.Pow(10, math.Floor(math.Log10((a.hi-a.lo)/4)))
	for _, m := range []float64{1, 2, 5, 10} {
		if (a.hi-a.lo)/(step*m) <= 6 {
			step *= m
			break
		}
	}
	for v := math.Ceil(a.lo/step) * step; v <= a.hi; v += step {
		out = append(out, v)
	}
	return out
}

func number(v float64) string {
	switch {
	case v == 0:
		return "0"
	case math.Abs(v) >= 1e6:
		return strconv.FormatFloat(v/1e6, 'g', 4, 64) + "M"
	case math.Abs(v) >= 1e4:
		return strconv.FormatFloat(v/1e3, 'g', 4, 64) + "k"
	}
	return strconv.FormatFloat(v, 'g', 4, 64)
}

// SVG draws the plot.
func (p *plot) SVG() string {
	var xs, ys []float64
	for _, l := range p.lines {
		xs, ys = append(xs, l.x...), append(ys, l.y...)
	}
	ax, ay := newAxis(xs, p.logX), newAxis(ys, p.logY)
	px := func(v float64) float64 { return plotLeft + ax.at(v)*plotInnerW }
	py := func(v float64) float64 { return plotTop + (1-ay.at(v))*plotInnerH }
	var b strings.Builder
	fmt.Fprintf(&b, `<svg viewBox="0 0 %d %d" width="%d" height="%d" role="img" aria-label="%s">`, plotW, plotH, plotW, plotH, html.EscapeString(p.title))
	fmt.Fprintf(&b, `<text x="%d" y="18" class="title">%s</text>`, plotLeft, html.EscapeString(p.title))
	for _, v := range ax.ticks() {
		fmt.Fprintf(&b, `<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" class="grid"/><text x="%.1f" y="%d" class="tick" text-anchor="middle">%s</text>`,
			px(v), px(v), plotTop, plotTop+plotInnerH, px(v), plotTop+plotInnerH+16, number(v))
	}
	for _, v := range ay.ticks() {
		fmt.Fprintf(&b, `<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" class="grid"/><text x="%d" y="%.1f" class="tick" text-anchor="end">%s</text>`,
			plotLeft, plotLeft+plotInnerW, py(v), py(v), plotLeft-6, py(v)+4, number(v))
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d" class="label" text-anchor="middle">%s</text>`, plotLeft+plotInnerW/2, plotH-8, html.EscapeString(p.x))
	fmt.Fprintf(&b, `<text x="14" y="%d" class="label" text-anchor="middle" transform="rotate(-90 14 %d)">%s</text>`,
		plotTop+plotInnerH/2, plotTop+plotInnerH/2, html.EscapeString(p.y))
	for i, l := range p.lines {
		colour := lineColours[i%len(lineColours)]
		dash := ""
		if l.dash {
			dash = ` stroke-dasharray="5 4"`
		}
		var points strings.Builder
		for k := range l.x {
			if p.logY && l.y[k] <= 0 || p.logX && l.x[k] <= 0 {
				continue
			}
			fmt.Fprintf(&points, "%.1f,%.1f ", px(l.x[k]), py(l.y[k]))
			fmt.Fprintf(&b, `<circle cx="%.1f" cy="%.1f" r="2.5" fill="%s"><title>%s: %s, %s</title></circle>`,
				px(l.x[k]), py(l.y[k]), colour, html.EscapeString(l.name), number(l.x[k]), number(l.y[k]))
		}
		fmt.Fprintf(&b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="1.8"%s/>`, strings.TrimSpace(points.String()), colour, dash)
		fmt.Fprintf(&b, `<text x="%d" y="%d" class="key" fill="%s">%s</text>`, plotLeft+10, plotTop+14+15*i, colour, html.EscapeString(l.name))
	}
	b.WriteString(`</svg>`)
	return b.String()
}
