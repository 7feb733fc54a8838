package rpc

import (
	"errors"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"im-services/internal/im"
)

// kindOK is the value of label "kind" for calls without an error.
const kindOK = "ok"

var secondsBuckets = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5}

// metrics counts calls by method and kind of result; never by user or
// conversation. The zero-cost path is a lookup in a sync.Map.
type metrics struct {
	handled *prometheus.CounterVec
	seconds *prometheus.HistogramVec
	streams *prometheus.GaugeVec
	methods sync.Map // full method → *methodMetrics
}

// methodMetrics holds what one method needs, looked up once.
type methodMetrics struct {
	seconds prometheus.Observer
	streams prometheus.Gauge
	ok      prometheus.Counter
}

// newMetrics makes the metrics of one side, "server" or "client", or finds the
// ones made before; reg may be nil.
func newMetrics(reg prometheus.Registerer, side string) *metrics {
	m := &metrics{
		handled: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "im_rpc_" + side + "_handled_total",
			Help: "Calls ended, by method and kind of result.",
		}, []string{"method", "kind"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "im_rpc_" + side + "_seconds",
			Help:    "Duration of unary calls.",
			Buckets: secondsBuckets,
		}, []string{"method"}),
		streams: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "im_rpc_" + side + "_streams",
			Help: "Streams open.",
		}, []string{"method"}),
	}
	if reg != nil {
		m.handled = register(reg, m.handled)
		m.seconds = register(reg, m.seconds)
		m.streams = register(reg, m.streams)
	}
	return m
}

// register registers c or returns its elder twin.
func register[C prometheus.Collector](reg prometheus.Registerer, c C) C {
	err := reg.Register(c)
	if already, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
		if twin, ok := already.ExistingCollector.(C); ok {
			return twin
		}
	}
	return c
}

func (m *metrics) method(name string) *methodMetrics {
	if v, ok := m.methods.Load(name); ok {
		return v.(*methodMetrics)
	}
	v, _ := m.methods.LoadOrStore(name, &methodMetrics{
		seconds: m.seconds.WithLabelValues(name),
		streams: m.streams.WithLabelValues(name),
		ok:      m.handled.WithLabelValues(name, kindOK),
	})
	return v.(*methodMetrics)
}

// ended counts one call.
func (m *metrics) ended(name string, err error) {
	if err == nil {
		m.method(name).ok.Inc()
		return
	}
	m.handled.WithLabelValues(name, im.KindOf(err).String()).Inc()
}

// observe counts one unary call that began at begin.
func (m *metrics) observe(name string, begin time.Time, err error) {
	m.method(name).seconds.Observe(time.Since(begin).Seconds())
	m.ended(name, err)
}
