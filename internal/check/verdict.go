package check

import (
	"fmt"
	"time"
)

// Result is the verdict on one invariant.
type Result struct {
	ID      string   // "I1"
	Name    string   // what it demands, in a few words
	Checked int      // how many things were looked at
	Red     int      // how many of them were wrong
	Sample  []string // the first of those, in words
	Skipped string   // why it could not be judged; empty if it was
}

// maxSample bounds the violations that are told in words.
const maxSample = 20

func (r *Result) red(format string, args ...any) {
	r.Red++
	if len(r.Sample) < maxSample {
		r.Sample = append(r.Sample, fmt.Sprintf(format, args...))
	}
}

// Window is what happened to messages around one fault.
type Window struct {
	Number       int
	Target, Kind string
	Begin, End   time.Duration // of the history's clock
	Acked        int           // messages acknowledged in it
	Latency      Quantiles     // of their pushes
}

// Quantiles summarise durations.
type Quantiles struct {
	N             int
	P50, P99, Max time.Duration
}

// Point is one message on the plot: when it was acknowledged, and how long its
// last recipient then waited.
type Point struct{ At, Latency time.Duration }

// Figures are counts of a run.
type Figures struct {
	Length                         time.Duration
	Clients, Sends, Acked          int
	Refused, Unknown, Resent       int
	Pushes, Repeats, Connects      int
	Faults, FaultKinds, Targets    int
	Healthy, All                   Quantiles // of pushes; All includes Healthy
	AckLatency, CrowdAcks          Quantiles // of messages over a socket, repeated or not; the crowd of an overload apart
	Lag                            Quantiles // of the checker's own timers
	FriendChanges, MemberChanges   int
	SyncRounds, HistoryRows, DBRow int
}

// Verdict is what a history says about the promises.
type Verdict struct {
	Seed    uint64
	Results []Result
	Figures Figures
	Windows []Window
	Points  []Point
	Phases  []Phase
	Acked   []int  // acknowledgements in each second from the first phase on
	Command string // repeats the run
	Bundle  string // folder with everything that was kept; empty if nothing was
	HTML    string // the page; empty if none was written
}

// Phase is when a part of a run began.
type Phase struct {
	Name string
	At   time.Duration
}

// Green reports whether nothing was found that breaks a promise.
func (v *Verdict) Green() bool {
	for i := range v.Results {
		if v.Results[i].Red > 0 {
			return false
		}
	}
	return len(v.Results) > 0
}

// Result returns the verdict on an invariant, nil if there is none of that id.
func (v *Verdict) Result(id string) *Result {
	for i := range v.Results {
		if v.Results[i].ID == id {
			return &v.Results[i]
		}
	}
	return nil
}
