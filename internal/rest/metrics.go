package rest

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of the HTTP edge. Labels are bounded: routes are patterns, codes
// those of the catalogue.
type metrics struct {
	requests *prometheus.HistogramVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "im_rest_request_seconds",
		Help:    "Time from the first byte of a request's headers being read to its answer being written.",
		Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
	}, []string{"method", "route", "code"})}
	if reg != nil {
		reg.MustRegister(m.requests)
	}
	return m
}

func (m *metrics) observe(verb, route string, code int, took time.Duration) {
	m.requests.WithLabelValues(method(verb), route, strconv.Itoa(code)).Observe(took.Seconds())
}
