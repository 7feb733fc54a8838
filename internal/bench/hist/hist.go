// Package hist counts durations in logarithmic buckets: a few thousand counters
// hold any number of samples with a relative error of at most 1.6 %.
package hist

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// Each power of two is divided into subBuckets; values below it are exact, in
// units of the resolution.
const (
	subBits    = 6
	subBuckets = 1 << subBits
	// resolution is the unit: finer differences mean nothing over a socket.
	resolution = time.Microsecond
	exponents  = 28 // up to 2^28 resolutions and more: five minutes
	buckets    = exponents * subBuckets
)

// Hist is a histogram of durations from 1 µs to some minutes; longer ones count
// as the longest. The zero value is empty and ready. Methods are safe for
// concurrent use; a snapshot taken while others record may miss their last few.
type Hist struct {
	counts [buckets]atomic.Uint64
	sum    atomic.Int64 // nanoseconds
	max    atomic.Int64 // nanoseconds
}

// index is the bucket of v resolutions.
func index(v uint64) int {
	if v < 2*subBuckets {
		return int(v) //nolint:gosec // small
	}
	e := bits.Len64(v) - subBits - 1              // v>>e is in [subBuckets, 2*subBuckets)
	return min(e*subBuckets+int(v>>e), buckets-1) //nolint:gosec // v>>e is small
}

// upper is the largest value of bucket i, in resolutions.
func upper(i int) uint64 {
	if i < 2*subBuckets {
		return uint64(i) //nolint:gosec // not negative
	}
	e := i/subBuckets - 1
	return uint64(i-e*subBuckets+1)<<e - 1 //nolint:gosec // not negative
}

// Record counts d; a negative one counts as 0.
func (h *Hist) Record(d time.Duration) {
	d = max(d, 0)
	h.counts[index(uint64((d+resolution/2)/resolution))].Add(1) //nolint:gosec // not negative
	h.sum.Add(int64(d))
	for {
		m := h.max.Load()
		if int64(d) <= m || h.max.CompareAndSwap(m, int64(d)) {
			return
		}
	}
}

// Summary is what a histogram says, in milliseconds.
type Summary struct {
	Count uint64  `json:"count"`
	Mean  float64 `json:"mean_ms"`
	P50   float64 `json:"p50_ms"`
	P90   float64 `json:"p90_ms"`
	P99   float64 `json:"p99_ms"`
	P999  float64 `json:"p999_ms"`
	Max   float64 `json:"max_ms"`
	// Curve holds a latency in milliseconds for each of CurveQuantiles.
	Curve []float64 `json:"curve_ms,omitempty"`
}

// CurveQuantiles are the quantiles of Summary.Curve.
var CurveQuantiles = []float64{0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9999, 1}

// Summary reads the histogram.
func (h *Hist) Summary() Summary {
	var counts [buckets]uint64
	var total uint64
	for i := range h.counts {
		counts[i] = h.counts[i].Load()
		total += counts[i]
	}
	s := Summary{Count: total}
	if total == 0 {
		return s
	}
	longest := time.Duration(h.max.Load())
	at := func(q float64) float64 {
		rank := uint64(q * float64(total))
		if rank >= total {
			return ms(longest)
		}
		var seen uint64
		for i, n := range counts {
			if seen += n; seen > rank {
				return ms(min(time.Duration(upper(i))*resolution, longest)) //nolint:gosec // bounded by the buckets
			}
		}
		return ms(longest)
	}
	s.Mean = ms(time.Duration(h.sum.Load())) / float64(total)
	s.P50, s.P90, s.P99, s.P999, s.Max = at(0.5), at(0.9), at(0.99), at(0.999), ms(longest)
	for _, q := range CurveQuantiles {
		s.Curve = append(s.Curve, at(q))
	}
	return s
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
