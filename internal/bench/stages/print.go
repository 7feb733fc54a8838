package stages

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Markdown is the table as docs/performance.md shows it.
func (t *Table) Markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %.0f messages/s, %.1f messages per transaction\n\n| process | stage | µs per message |\n|---|---|---|\n", t.Scenario, t.Rate, t.Batch)
	var total float64
	for i, c := range t.Costs {
		total += c.Micros
		if c.Micros < 0.05 {
			continue
		}
		process := c.Process
		if i > 0 && t.Costs[i-1].Process == process {
			process = ""
		}
		fmt.Fprintf(&b, "| %s | %s | %.1f |\n", process, c.Stage, c.Micros)
	}
	fmt.Fprintf(&b, "| **all** | | **%.1f** |\n", total)
	if len(t.Waits) > 0 {
		b.WriteString("\n| passing time, not processor time | mean ms | times |\n|---|---|---|\n")
		for _, w := range t.Waits {
			fmt.Fprintf(&b, "| %s | %.3f | %.0f |\n", w.Name, w.Mean, w.Count)
		}
	}
	return b.String()
}

// Functions lists the functions of a kind of process that take most, as text.
func (t *Table) Functions(process string, n int) string {
	var own []Top
	for _, f := range t.Tops {
		if f.Process == process {
			own = append(own, f)
		}
	}
	var b strings.Builder
	for _, by := range []struct {
		title string
		value func(Top) float64
	}{{"own time", func(f Top) float64 { return f.Flat }}, {"with callees", func(f Top) float64 { return f.Cum }}} {
		slices.SortFunc(own, func(a, b Top) int {
			return cmp.Or(cmp.Compare(by.value(b), by.value(a)), strings.Compare(a.Function, b.Function))
		})
		fmt.Fprintf(&b, "%s, %s, µs per message\n", process, by.title)
		for _, f := range own[:min(n, len(own))] {
			fmt.Fprintf(&b, "  %7.2f  %s\n", by.value(f), f.Function)
		}
	}
	return b.String()
}
