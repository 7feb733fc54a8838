package bench

import (
	"context"
	"math"
	"slices"
)

// Spread is a figure over several rounds.
type Spread struct {
	Min    float64 `json:"min"`
	Median float64 `json:"median"`
	Max    float64 `json:"max"`
	Rounds int     `json:"rounds"`
}

// NewSpread sums up values; those that are not numbers are left out.
func NewSpread(values []float64) Spread {
	var v []float64
	for _, x := range values {
		if !math.IsNaN(x) && !math.IsInf(x, 0) {
			v = append(v, x)
		}
	}
	slices.Sort(v)
	n := len(v)
	if n == 0 {
		return Spread{}
	}
	return Spread{Min: v[0], Median: (v[(n-1)/2] + v[n/2]) / 2, Max: v[n-1], Rounds: n}
}

// Comparison is one scenario run in turn against the relay and the system, so
// that both see the same noise and their ratio means something.
type Comparison struct {
	Scenario string    `json:"scenario"`
	Relay    []*Result `json:"relay,omitempty"`
	System   []*Result `json:"system"`
	// System over relay, round by round: processor time per message or, for
	// groups, per delivery.
	Ratio *Spread `json:"cpu_ratio,omitempty"`
	// Figures of the system over the rounds.
	PerMessage  Spread `json:"cpu_us_per_message"`
	PerDelivery Spread `json:"cpu_us_per_delivery"`
	Delivered   Spread `json:"delivered_per_s"`
	Acked       Spread `json:"acked_per_s"`
}

// Compare runs a scenario for some rounds: relay, system, relay, system… relay
// may be nil, and is left out of scenarios it cannot do.
func Compare(ctx context.Context, name string, relay, system *Target, rounds int, o Options, each func(*Result)) (*Comparison, error) {
	c := &Comparison{Scenario: name}
	if !scenarios[name].relay {
		relay = nil
	}
	for range rounds {
		for _, t := range []*Target{relay, system} {
			if t == nil {
				continue
			}
			res, err := Run(ctx, name, t, o)
			if err != nil {
				return nil, err
			}
			if each != nil {
				each(res)
			}
			if t == relay {
				c.Relay = append(c.Relay, res)
			} else {
				c.System = append(c.System, res)
			}
		}
	}
	c.sumUp()
	return c, nil
}

func figures(list []*Result, of func(*Result) float64) Spread {
	v := make([]float64, len(list))
	for i, r := range list {
		v[i] = of(r)
	}
	return NewSpread(v)
}

func (c *Comparison) sumUp() {
	c.PerMessage = figures(c.System, func(r *Result) float64 { return r.PerMessage })
	c.PerDelivery = figures(c.System, func(r *Result) float64 { return r.PerDelivery })
	c.Delivered = figures(c.System, func(r *Result) float64 { return r.DeliveredPerSecond })
	c.Acked = figures(c.System, func(r *Result) float64 { return r.AckedPerSecond })
	var ratios []float64
	for i := range min(len(c.Relay), len(c.System)) {
		ratios = append(ratios, c.System[i].unitCost()/c.Relay[i].unitCost())
	}
	if len(ratios) > 0 {
		s := NewSpread(ratios)
		c.Ratio = &s
	}
}

// unitCost is what is compared: the cost of a delivery where a message makes
// many, of a message otherwise.
func (r *Result) unitCost() float64 {
	if r.PerDelivery > 0 && r.DeliveredPerSecond > 2*r.AckedPerSecond {
		return r.PerDelivery
	}
	return r.PerMessage
}

// Knee is an open loop at rising rates.
type Knee struct {
	Target string    `json:"target"`
	Points []*Result `json:"points"`
}

// Limits at which a knee curve ends.
const (
	kneeLatency = 1000.0 // ms, p99 of the delivery
	kneeShare   = 0.85   // delivered, of what was sent meanwhile
)

// RunKnee runs the open loop at each rate, until the system no longer follows.
func RunKnee(ctx context.Context, t *Target, rates []float64, o Options, each func(*Result)) (*Knee, error) {
	k := &Knee{Target: t.Name}
	for _, rate := range rates {
		o.Rate = rate
		res, err := Run(ctx, "open", t, o)
		if err != nil {
			return nil, err
		}
		if each != nil {
			each(res)
		}
		k.Points = append(k.Points, res)
		if res.Deliver == nil || res.Deliver.P99 > kneeLatency || res.DeliveredPerSecond < kneeShare*res.SentPerSecond {
			break
		}
	}
	return k, nil
}
