package gateway

import "github.com/prometheus/client_golang/prometheus"

// metrics of a gateway; names begin with im_gateway_.
type metrics struct {
	handshakes   *prometheus.CounterVec
	closes       *prometheus.CounterVec
	framesIn     prometheus.Counter
	badFrames    prometheus.Counter
	limited      prometheus.Counter
	refusals     *prometheus.CounterVec
	sends        *prometheus.CounterVec
	sendSeconds  prometheus.Histogram
	pushes       prometheus.Counter
	badPushes    prometheus.Counter
	written      prometheus.Counter
	repeats      prometheus.Counter
	held         prometheus.Counter
	dropped      prometheus.Counter
	syncs        *prometheus.CounterVec
	syncErrors   prometheus.Counter
	syncSeconds  prometheus.Histogram
	slow         prometheus.Counter
	deaf         prometheus.Counter
	writeErrors  prometheus.Counter
	panics       prometheus.Counter
	lanesUp      prometheus.Gauge
	laneStalls   prometheus.Counter
	resends      prometheus.Counter
	reportErrors prometheus.Counter
	markErrors   prometheus.Counter
	asserts      prometheus.Counter
	fences       prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, s *Server) *metrics {
	if reg == nil {
		reg = prometheus.NewRegistry()
	}
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: "im_gateway_" + name, Help: help})
		reg.MustRegister(c)
		return c
	}
	vec := func(name, help, label string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "im_gateway_" + name, Help: help}, []string{label})
		reg.MustRegister(c)
		return c
	}
	seconds := func(name, help string) prometheus.Histogram {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "im_gateway_" + name, Help: help,
			Buckets: []float64{.001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5},
		})
		reg.MustRegister(h)
		return h
	}
	m := &metrics{
		handshakes:   vec("handshakes_total", "Requests to connect, by outcome.", "outcome"),
		closes:       vec("closes_total", "Connections closed by us, by close code.", "code"),
		framesIn:     counter("frames_in_total", "Text frames from clients."),
		badFrames:    counter("bad_frames_total", "Frames that could not be read."),
		limited:      counter("limited_frames_total", "Frames over the rate limit."),
		refusals:     vec("refusals_total", "Frames answered with an error, by reason.", "reason"),
		sends:        vec("sends_total", "Chat sends, by outcome: stored, refused, unknown.", "outcome"),
		sendSeconds:  seconds("send_seconds", "From taking a send, by socket or HTTP, to knowing that it is stored."),
		pushes:       counter("pushes_total", "Envelopes from the bus."),
		badPushes:    counter("bad_pushes_total", "Bodies from the bus that were dropped."),
		written:      counter("messages_written_total", "Chat messages queued for a connection."),
		repeats:      counter("repeats_total", "Pushed messages that were already written."),
		held:         counter("held_total", "Pushes held until something else came."),
		dropped:      counter("dropped_total", "Frames or receipts that may be lost and were."),
		syncs:        vec("syncs_total", "Backlogs read, by cause.", "cause"),
		syncErrors:   counter("sync_errors_total", "Backlogs that failed."),
		syncSeconds:  seconds("sync_seconds", "Time to read and write a backlog."),
		slow:         counter("slow_total", "Connections closed because their outbox was full."),
		deaf:         counter("deaf_total", "Connections dropped because nothing was heard of them."),
		writeErrors:  counter("write_errors_total", "Writes that failed or timed out."),
		panics:       counter("panics_total", "Panics caught in connections."),
		laneStalls:   counter("lane_stalls_total", "Lanes given up because the replica did not answer or serve."),
		resends:      counter("resends_total", "Sends moved to another lane."),
		reportErrors: counter("report_errors_total", "Receipts or disconnects that could not be reported."),
		markErrors:   counter("watermark_errors_total", "Watermark and assert calls that failed."),
		asserts:      counter("asserts_total", "Routes registered again."),
		fences:       counter("fences_total", "Times this process was asleep."),
		lanesUp: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "im_gateway_lanes_up", Help: "Open streams to replicas of logic.",
		}),
	}
	reg.MustRegister(
		m.lanesUp,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "im_gateway_connections", Help: "Open connections.",
		}, func() float64 { return float64(s.hub.count.Load()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "im_gateway_sends_outstanding", Help: "Sends without an outcome yet.",
		}, func() float64 { return float64(s.lanes.outstanding()) }),
	)
	return m
}
