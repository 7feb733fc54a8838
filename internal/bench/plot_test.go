package bench

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPlot_IsWellFormedWhateverItIsGiven(t *testing.T) {
	for name, p := range map[string]plot{
		"nothing":     {title: "<a>"},
		"one point":   {lines: []series{{"a & b", []float64{1}, []float64{2}, false}}},
		"zero on log": {logX: true, logY: true, lines: []series{{"z", []float64{0, 1, 10}, []float64{0, 0, 5}, true}}},
		"all equal":   {logY: true, lines: []series{{"e", []float64{1, 2}, []float64{100, 100}, false}}},
		"wide":        {logY: true, lines: []series{{"w", []float64{1, 2, 3}, []float64{0.01, 1, 9e6}, false}}},
		"negative":    {lines: []series{{"n", []float64{-3, 4}, []float64{-1, 1}, false}}},
	} {
		t.Run(name, func(t *testing.T) {
			svg := p.SVG()
			require.NotContains(t, svg, "NaN")
			require.NotContains(t, svg, "Inf")
			d := xml.NewDecoder(strings.NewReader(svg))
			for {
				if _, err := d.Token(); errors.Is(err, io.EOF) {
					break
				} else {
					require.NoError(t, err)
				}
			}
		})
	}
}

func TestAxis_HoldsItsValues(t *testing.T) {
	for _, log := range []bool{false, true} {
		a := newAxis([]float64{0.5, 30, 700}, log)
		for _, v := range []float64{0.5, 30, 700} {
			require.InDelta(t, 0.5, a.at(v), 0.5001)
		}
		require.GreaterOrEqual(t, len(a.ticks()), 3)
	}
}
