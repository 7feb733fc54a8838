package hist

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestIndex_IsMonotonicAndItsUpperBoundBelongsToIt(t *testing.T) {
	last := -1
	for v := uint64(0); v < 1<<20; v += 1 + v/1000 {
		i := index(v)
		require.GreaterOrEqual(t, i, last)
		require.GreaterOrEqual(t, upper(i), v)
		require.Equal(t, i, index(upper(i)))
		require.LessOrEqual(t, float64(upper(i)-v), 1+float64(v)/subBuckets, "relative error of %d", v)
		last = i
	}
	require.Equal(t, buckets-1, index(1<<62))
}

func TestSummary_AgreesWithTheSortedSamples(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var h Hist
	var all []time.Duration
	for range 50_000 {
		d := time.Duration(r.ExpFloat64() * float64(3*time.Millisecond))
		all = append(all, d)
		h.Record(d)
	}
	slices.Sort(all)
	s := h.Summary()
	require.EqualValues(t, len(all), s.Count)
	for q, got := range map[float64]float64{0.5: s.P50, 0.9: s.P90, 0.99: s.P99, 0.999: s.P999} {
		want := ms(all[int(q*float64(len(all)))])
		require.InEpsilon(t, want, got, 0.02, "quantile %v", q)
	}
	require.InDelta(t, ms(all[len(all)-1]), s.Max, 1e-9)
	require.InEpsilon(t, 3.0, s.Mean, 0.03)
	require.Len(t, s.Curve, len(CurveQuantiles))
	require.True(t, slices.IsSorted(s.Curve))
}

func TestRecord_KeepsExtremes(t *testing.T) {
	var h Hist
	require.Zero(t, h.Summary().Count)
	h.Record(-time.Second)
	h.Record(time.Hour)
	s := h.Summary()
	require.EqualValues(t, 2, s.Count)
	require.InDelta(t, 3_600_000, s.Max, 1e-6)
	require.Zero(t, s.Curve[0])
}

func TestRecord_ConcurrentSamplesAreAllCounted(t *testing.T) {
	var h Hist
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 1000 {
				h.Record(time.Duration(i) * time.Microsecond)
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 8000, h.Summary().Count)
}

func BenchmarkRecord(b *testing.B) {
	var h Hist
	for b.Loop() {
		h.Record(1234 * time.Microsecond)
	}
}
