package logic

import "github.com/prometheus/client_golang/prometheus"

// metrics of the write and push path. No user or conversation is ever a label.
type metrics struct {
	batchSize       prometheus.Histogram
	commitSeconds   prometheus.Histogram
	locked          prometheus.Counter
	unforeseen      prometheus.Counter
	stored          prometheus.Counter
	duplicates      prometheus.Counter
	refusedOverload prometheus.Counter
	late            prometheus.Counter
	publishSeconds  prometheus.Histogram
	pushes          prometheus.Counter
	envelopes       prometheus.Counter
	pushDropped     prometheus.Counter
	routesDown      prometheus.Counter
	republished     prometheus.Counter
	backlogMessages prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
		reg.MustRegister(c)
		return c
	}
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets})
		reg.MustRegister(h)
		return h
	}
	seconds := []float64{.0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 3}
	return &metrics{
		batchSize:       histogram("im_logic_batch_messages", "Messages per transaction.", []float64{1, 2, 4, 8, 16, 32, 64, 128, 256}),
		commitSeconds:   histogram("im_logic_commit_seconds", "From batch formed to COMMIT answered.", seconds),
		locked:          counter("im_logic_batches_locked_total", "Batches that read their conversations first: not all of them were remembered, or somebody was to be refused."),
		unforeseen:      counter("im_logic_batches_unforeseen_total", "Batches stored again because a conversation had changed elsewhere."),
		stored:          counter("im_logic_stored_total", "Messages stored."),
		duplicates:      counter("im_logic_duplicates_total", "Sends answered with their first result."),
		refusedOverload: counter("im_logic_refused_overload_total", "Sends refused because a lane was full or slow."),
		late:            counter("im_logic_late_sends_total", "Sends not taken because they had been on their way for too long."),
		publishSeconds:  histogram("im_logic_publish_seconds", "One flush of pushes: routes and bus.", seconds),
		pushes:          counter("im_logic_pushes_total", "Recipients addressed by published envelopes."),
		envelopes:       counter("im_logic_envelopes_total", "Envelopes published."),
		pushDropped:     counter("im_logic_push_dropped_total", "Batches left to the outbox because pushing fell behind or failed."),
		routesDown:      counter("im_logic_routes_unavailable_total", "Flushes published to every gateway because Redis was away."),
		republished:     counter("im_logic_republished_total", "Outbox rows published by the sweeper."),
		backlogMessages: counter("im_logic_backlog_messages_total", "Messages streamed to connecting or healing connections."),
	}
}
