// Package stages says where the processor time of a message goes: it takes CPU
// profiles of all processes at the same time and attributes each sample to a
// stage by the functions on its stack.
package stages

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/pprof/profile"
)

// Profile is a CPU profile of one process.
type Profile struct {
	Name string
	*profile.Profile
	Raw []byte
}

// Collect profiles every process of debug (name to host:port) for d at the same
// time.
func Collect(ctx context.Context, debug map[string]string, d time.Duration) ([]Profile, error) {
	ctx, cancel := context.WithTimeout(ctx, d+15*time.Second)
	defer cancel()
	var (
		mu    sync.Mutex
		out   []Profile
		first error
		wg    sync.WaitGroup
	)
	for name, addr := range debug {
		wg.Go(func() {
			p, err := fetch(ctx, name, addr, d)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				first = cmp.Or(first, fmt.Errorf("profile %s: %w", name, err))
				return
			}
			out = append(out, p)
		})
	}
	wg.Wait()
	slices.SortFunc(out, func(a, b Profile) int { return strings.Compare(a.Name, b.Name) })
	return out, first
}

func fetch(ctx context.Context, name, addr string, d time.Duration) (Profile, error) {
	p := Profile{Name: name}
	url := fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", addr, int(d.Seconds()))
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return p, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return p, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return p, fmt.Errorf("%s", resp.Status)
	}
	if p.Raw, err = io.ReadAll(resp.Body); err != nil {
		return p, err
	}
	p.Profile, err = profile.ParseData(p.Raw)
	return p, err
}

// Rule gives the functions with a prefix to a stage.
type Rule struct{ Prefix, Stage string }

// Stages of no function of ours.
const (
	gc        = "garbage collection"
	scheduler = "scheduler and netpoll"
	other     = "other"
)

// rules by kind of process, most telling first. A sample belongs to the first
// function, from the innermost outwards, that a rule names; among the rules for
// one function, the first counts.
var rules = map[string][]Rule{
	"gateway": {
		{"im-services/internal/wire.", "decode, encode"},
		{"im-services/internal/gateway.(*conn).Read", "socket read"},
		{"im-services/internal/gateway.(*frameReader).", "socket read"},
		{"im-services/internal/gateway.unmask", "socket read"},
		{"im-services/internal/gateway.(*conn).writeAll", "socket write"},
		{"im-services/internal/gateway.(*conn).write", "socket write"},
		{"im-services/internal/push.", "consume"},
		{"im-services/internal/platform/bus.", "consume"},
		{"github.com/nsqio/go-nsq.", "consume"},
		{"google.golang.org/grpc", "gRPC"},
		{"im-services/api/proto/", "gRPC"},
		{"google.golang.org/protobuf/", ""}, // whoever called it
		{"im-services/internal/gateway.(*lanes).", "lanes to logic"},
		{"im-services/internal/gateway.(*lane).", "lanes to logic"},
		{"im-services/internal/gateway.(*Server).HandlePush", "delivery"},
		{"im-services/internal/gateway.(*conn).readFrames", "decode, encode"},
		{"im-services/internal/gateway.", "delivery"},
		{"im-services/internal/rest.", "REST"},
	},
	"logic": {
		{"github.com/go-sql-driver/mysql.", "SQL"},
		{"database/sql.", "SQL"},
		{"github.com/jmoiron/sqlx.", "SQL"},
		{"im-services/internal/platform/database.", "SQL"},
		{"github.com/redis/go-redis", "Redis"},
		{"im-services/internal/platform/cache.", "Redis"},
		{"im-services/internal/push.", "publish"},
		{"im-services/internal/platform/bus.", "publish"},
		{"github.com/nsqio/go-nsq.", "publish"},
		{"google.golang.org/grpc", "gRPC"},
		{"google.golang.org/protobuf/", ""},
		{"im-services/internal/logic.(*publisher)", "publish"},
		{"im-services/internal/logic.(*envelopes)", "publish"},
		{"im-services/internal/logic.splitRuns", "publish"},
		{"im-services/internal/logic.(*routes)", "Redis"},
		{"im-services/internal/logic.(*routeStore)", "Redis"},
		{"im-services/internal/logic.(*lane)", "batch"},
		{"im-services/internal/logic.(*batcher)", "batch"},
		{"im-services/internal/logic.(*store)", "batch"},
		{"im-services/internal/logic.(*batchPlan)", "batch"},
		{"im-services/internal/logic.(*resultWriter)", "gRPC"},
		{"im-services/internal/logic.(*Server)", "gRPC"},
		{"im-services/internal/logic.", "batch"},
	},
	"nsqd": {
		{"github.com/nsqio/nsq/nsqd.(*protocolV2).PUB", "publish"},
		{"github.com/nsqio/nsq/nsqd.(*protocolV2).MPUB", "publish"},
		{"github.com/nsqio/nsq/nsqd.(*protocolV2).messagePump", "consume"},
		{"github.com/nsqio/nsq/nsqd.(*protocolV2).FIN", "consume"},
		{"github.com/nsqio/nsq/nsqd.(*protocolV2).IOLoop", "socket read"},
		{"github.com/nsqio/nsq/nsqd.(*Topic).messagePump", "topic"},
	},
}

// Attribute sums the processor time of a profile by stage, in seconds.
func Attribute(p *profile.Profile, kind string) map[string]float64 {
	at := -1
	for i, t := range p.SampleType {
		if t.Type == "cpu" {
			at = i
		}
	}
	out := map[string]float64{}
	if at < 0 {
		return out
	}
	for _, s := range p.Sample {
		out[stageOf(s, rules[kind])] += float64(s.Value[at]) / 1e9
	}
	return out
}

func stageOf(s *profile.Sample, rules []Rule) string {
	onlyRuntime := true
	for _, l := range s.Location { // innermost first
		for _, line := range l.Line {
			if line.Function == nil {
				continue
			}
			name := line.Function.Name
			if strings.HasPrefix(name, "runtime.gcBgMarkWorker") || strings.HasPrefix(name, "runtime.bgsweep") ||
				strings.HasPrefix(name, "runtime.bgscavenge") {
				return gc
			}
			if !strings.HasPrefix(name, "runtime.") && !strings.HasPrefix(name, "internal/runtime") {
				onlyRuntime = false
			}
			for _, r := range rules {
				if strings.HasPrefix(name, r.Prefix) {
					if r.Stage == "" {
						break
					}
					return r.Stage
				}
			}
		}
	}
	if onlyRuntime {
		return scheduler
	}
	return other
}

// Cost is one line of the table.
type Cost struct {
	Process string  `json:"process"` // kind: all replicas together
	Stage   string  `json:"stage"`
	Micros  float64 `json:"us_per_message"`
}

// Top is a function that takes much of a process's time.
type Top struct {
	Process  string  `json:"process"`
	Function string  `json:"function"`
	Flat     float64 `json:"flat_us_per_message"` // in the function itself
	Cum      float64 `json:"cum_us_per_message"`  // with what it calls
}

// Wait is a time that passes, busy or not, from the processes' own histograms.
type Wait struct {
	Name  string  `json:"name"`
	Mean  float64 `json:"mean_ms"`
	Count float64 `json:"count"`
}

// Table is where a message's time goes.
type Table struct {
	Scenario string  `json:"scenario"`
	Rate     float64 `json:"messages_per_s"`
	Costs    []Cost  `json:"costs"`
	Tops     []Top   `json:"tops"`
	Waits    []Wait  `json:"waits,omitempty"`
	// Batch is the mean number of messages in one transaction.
	Batch float64 `json:"batch"`
}

// kindOf is a process's name without the number of its replica.
func kindOf(name string) string {
	kind, _, _ := strings.Cut(name, "-")
	return kind
}

// Build makes the table of profiles taken while messages went through at rate
// per second. whole is the processor time per message by kind of process from
// the system's own books: processes without a profile appear with that alone,
// and those with one are scaled to it, because sampling loses a little.
func Build(list []Profile, rate float64, whole map[string]float64) *Table {
	t := &Table{Rate: rate}
	byKind := map[string]map[string]float64{}
	flat, cum := map[string]map[string]float64{}, map[string]map[string]float64{}
	for _, p := range list {
		kind := kindOf(p.Name)
		if byKind[kind] == nil {
			byKind[kind], flat[kind], cum[kind] = map[string]float64{}, map[string]float64{}, map[string]float64{}
		}
		messages := rate * float64(p.DurationNanos) / 1e9
		if messages <= 0 {
			continue
		}
		for stage, s := range Attribute(p.Profile, kind) {
			byKind[kind][stage] += s * 1e6 / messages
		}
		addTops(p.Profile, 1e-3/messages, flat[kind], cum[kind])
	}
	for kind, total := range whole {
		if byKind[kind] == nil && total >= 0.1 {
			byKind[kind] = map[string]float64{"all of it": total}
		}
	}
	for kind, stages := range byKind {
		var sum float64
		for _, v := range stages {
			sum += v
		}
		scale := 1.0
		if w := whole[kind]; w > 0 && sum > 0 {
			scale = w / sum
		}
		for stage, v := range stages {
			t.Costs = append(t.Costs, Cost{kind, stage, v * scale})
		}
		for fn, v := range flat[kind] {
			t.Tops = append(t.Tops, Top{kind, fn, v, cum[kind][fn]})
		}
		for fn, v := range cum[kind] {
			if _, ok := flat[kind][fn]; !ok {
				t.Tops = append(t.Tops, Top{Process: kind, Function: fn, Cum: v})
			}
		}
	}
	slices.SortFunc(t.Costs, func(a, b Cost) int {
		return cmp.Or(strings.Compare(a.Process, b.Process), cmp.Compare(b.Micros, a.Micros), strings.Compare(a.Stage, b.Stage))
	})
	t.Tops = keepTops(t.Tops)
	return t
}

// addTops adds each function's own time and the time of its stacks, times unit.
func addTops(p *profile.Profile, unit float64, flat, cum map[string]float64) {
	at := len(p.SampleType) - 1
	seen := map[string]bool{}
	for _, s := range p.Sample {
		v := float64(s.Value[at]) * unit
		clear(seen)
		leaf := true
		for _, l := range s.Location {
			for _, line := range l.Line {
				if line.Function == nil {
					continue
				}
				name := line.Function.Name
				if leaf {
					flat[name] += v
					leaf = false
				}
				if !seen[name] {
					seen[name] = true
					cum[name] += v
				}
			}
		}
	}
}

// topsPerProcess is how many functions of each process the table keeps, by own
// time and as many by time with what they call.
const topsPerProcess = 25

func keepTops(all []Top) []Top {
	byKind := map[string][]Top{}
	for _, t := range all {
		byKind[t.Process] = append(byKind[t.Process], t)
	}
	var out []Top
	for _, list := range byKind {
		slices.SortFunc(list, func(a, b Top) int { return cmp.Compare(b.Flat, a.Flat) })
		kept := slices.Clone(list[:min(topsPerProcess, len(list))])
		slices.SortFunc(list, func(a, b Top) int { return cmp.Compare(b.Cum, a.Cum) })
		for _, t := range list[:min(2*topsPerProcess, len(list))] {
			if !slices.Contains(kept, t) {
				kept = append(kept, t)
			}
		}
		out = append(out, kept...)
	}
	slices.SortFunc(out, func(a, b Top) int {
		return cmp.Or(strings.Compare(a.Process, b.Process), cmp.Compare(b.Cum, a.Cum), strings.Compare(a.Function, b.Function))
	})
	return out
}
