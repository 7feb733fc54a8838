package friend

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	settles        *prometheus.CounterVec
	notifyFailures prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) metrics {
	m := metrics{
		settles: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "im_friend_settles_total",
			Help: "Attempts to have logic confirm a relation, by result.",
		}, []string{"result"}),
		notifyFailures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "im_friend_notify_failures_total",
			Help: "Friend frames that could not be handed to logic.",
		}),
	}
	reg.MustRegister(m.settles, m.notifyFailures)
	return m
}
