package auth

import (
	"github.com/prometheus/client_golang/prometheus"

	"im-services/internal/im"
)

type metrics struct {
	logins    *prometheus.CounterVec
	mails     *prometheus.CounterVec
	fallbacks prometheus.Counter
	reuses    prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) metrics {
	m := metrics{
		logins: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "im_auth_logins_total", Help: "Attempts to log in, by method and result.",
		}, []string{"method", "result"}),
		mails: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "im_auth_mails_total", Help: "E-mail codes handed to the mail driver, by result.",
		}, []string{"result"}),
		fallbacks: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "im_auth_limit_fallbacks_total", Help: "Limits decided per process because Redis did not answer.",
		}),
		reuses: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "im_auth_refresh_reuses_total", Help: "Login sessions ended because a refresh token was used twice.",
		}),
	}
	reg.MustRegister(m.logins, m.mails, m.fallbacks, m.reuses)
	return m
}

// resultOf is the label of an outcome: "ok" or the reason.
func resultOf(err error) string {
	if err == nil {
		return "ok"
	}
	return im.ReasonOf(err)
}
