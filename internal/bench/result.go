package bench

import (
	"fmt"
	"runtime"
	"strings"
	"time"

	"im-services/internal/bench/hist"
	"im-services/internal/bench/procs"
)

// Checks is the account of a run. Lost, Repeated, Reordered, Disagree,
// Contradicted, Altered, Holes and Unsettled must be zero.
type Checks struct {
	Sent      int64 `json:"sent"`
	Acked     int64 `json:"acked"`
	Delivered int64 `json:"delivered"` // first arrivals, over all receivers
	// Lost messages were acknowledged and did not reach a connected receiver.
	Lost int64 `json:"lost"`
	// Repeated arrived twice on one connection.
	Repeated int64 `json:"repeated"`
	// Reordered arrived after a later one of the same conversation, or got a
	// lower seq than one that the same connection had sent before.
	Reordered int64 `json:"reordered"`
	// Disagree: receivers, or an ack and a receiver, name different seqs.
	Disagree int64 `json:"disagree"`
	// Contradicted sends were refused in words and stored all the same, though
	// they were sent once.
	Contradicted int64 `json:"contradicted"`
	// Altered texts are not what was sent.
	Altered int64 `json:"altered"`
	// Holes are seqs between the first and the last that nobody explained.
	Holes int64 `json:"holes"`

	// Refused sends got an error frame, Unknown ones no answer in five seconds;
	// those were sent again under the same key.
	Refused int64            `json:"refused"`
	Reasons map[string]int64 `json:"refusal_reasons,omitempty"`
	Unknown int64            `json:"unknown"`
	// Unsettled had no answer when the run ended, though they were sent again until
	// nothing had come for a minute.
	Unsettled int64 `json:"unsettled"`
	// Inverted messages got a lower seq than an earlier one of their connection
	// where that is not promised any more: after a refusal or an unknown outcome.
	Inverted int64 `json:"inverted"`
	// Disconnects that the run did not ask for; Redelivered arrived again after one.
	Disconnects int64 `json:"disconnects"`
	Redelivered int64 `json:"redelivered"`
}

// OK reports whether the account is clean.
func (c *Checks) OK() bool {
	return c.Lost == 0 && c.Repeated == 0 && c.Reordered == 0 && c.Disagree == 0 &&
		c.Contradicted == 0 && c.Altered == 0 && c.Holes == 0 && c.Unsettled == 0
}

// String is the account in one line.
func (c *Checks) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d sent, %d acked, %d delivered: lost %d, repeated %d, reordered %d, disagreeing %d, contradicted %d, altered %d, holes %d",
		c.Sent, c.Acked, c.Delivered, c.Lost, c.Repeated, c.Reordered, c.Disagree, c.Contradicted, c.Altered, c.Holes)
	for _, e := range []struct {
		name string
		n    int64
	}{
		{"refused", c.Refused},
		{"unknown", c.Unknown},
		{"unsettled", c.Unsettled},
		{"inverted", c.Inverted},
		{"disconnects", c.Disconnects},
		{"redelivered", c.Redelivered},
	} {
		if e.n > 0 {
			fmt.Fprintf(&b, ", %s %d", e.name, e.n)
		}
	}
	for reason, n := range c.Reasons {
		fmt.Fprintf(&b, " (%s %d)", reason, n)
	}
	return b.String()
}

// Result is what one run of a scenario measured.
type Result struct {
	Scenario string         `json:"scenario"`
	Target   string         `json:"target"` // "system" or "relay"
	Params   map[string]any `json:"params,omitempty"`
	Begin    time.Time      `json:"begin"`
	Seconds  float64        `json:"seconds"` // of the measured window

	// Rates of the measured window, per second.
	SentPerSecond      float64 `json:"sent_per_s,omitempty"`
	AckedPerSecond     float64 `json:"acked_per_s,omitempty"`
	DeliveredPerSecond float64 `json:"delivered_per_s,omitempty"`
	OfferedPerSecond   float64 `json:"offered_per_s,omitempty"` // open loop

	// Processor time of the servers, in microseconds.
	PerMessage  float64            `json:"cpu_us_per_message,omitempty"`
	PerDelivery float64            `json:"cpu_us_per_delivery,omitempty"`
	ByProcess   map[string]float64 `json:"cpu_us_per_message_by_process,omitempty"`

	Ack      *hist.Summary `json:"ack,omitempty"`
	Deliver  *hist.Summary `json:"deliver,omitempty"`
	Connect  *hist.Summary `json:"connect,omitempty"`
	Lateness *hist.Summary `json:"pacer_lateness,omitempty"`

	Use    procs.Use `json:"use"`
	Checks Checks    `json:"checks"`
	// Extra figures of some scenarios.
	Extra map[string]float64 `json:"extra,omitempty"`
	// Notes are doubts about the figures, such as a busy machine.
	Notes []string `json:"notes,omitempty"`
}

// Doubts that a run notes about itself.
const (
	generatorShare = 0.45 // of the machine: the generator takes more than the rest can spare
	othersShare    = 0.10 // of the machine: strangers disturb
	lateP99        = 2.0  // ms: the pacer could not keep its times
)

// judge notes what makes the figures doubtful.
func (r *Result) judge() {
	whole := r.Use.Seconds * float64(runtime.NumCPU())
	if whole <= 0 {
		return
	}
	if share := r.Use.Own / whole; share > generatorShare {
		r.note("the generator itself took %.0f %% of the machine", 100*share)
	}
	if share := r.Use.Others / whole; share > othersShare {
		r.note("other processes took %.0f %% of the machine", 100*share)
	}
	if r.Use.Busy > 0.98 {
		r.note("the machine was saturated")
	}
	if r.Lateness != nil && r.Lateness.P99 > lateP99 {
		r.note("sends left up to %.1f ms late (p99)", r.Lateness.P99)
	}
}

func (r *Result) note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

// OK reports whether the run's account is clean.
func (r *Result) OK() bool { return r.Checks.OK() }

// Machine describes where the figures come from.
type Machine struct {
	Processors int    `json:"processors"`
	System     string `json:"system"`
	Go         string `json:"go"`
	// Durability of the database, as it told us; empty: not asked.
	Durability map[string]string `json:"durability,omitempty"`
}

// ThisMachine describes the machine the generator runs on.
func ThisMachine() Machine {
	return Machine{Processors: runtime.NumCPU(), System: runtime.GOOS + "/" + runtime.GOARCH, Go: runtime.Version()}
}
