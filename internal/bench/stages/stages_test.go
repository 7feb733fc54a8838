package stages

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/pprof/profile"
	"github.com/stretchr/testify/require"
)

// made builds a profile of stacks, innermost function first, of 10 ms each.
func made(stacks ...[]string) *profile.Profile {
	p := &profile.Profile{
		SampleType:    []*profile.ValueType{{Type: "samples", Unit: "count"}, {Type: "cpu", Unit: "nanoseconds"}},
		PeriodType:    &profile.ValueType{Type: "cpu", Unit: "nanoseconds"},
		Period:        1e7,
		DurationNanos: int64(time.Second),
	}
	functions := map[string]*profile.Location{}
	for _, stack := range stacks {
		s := &profile.Sample{Value: []int64{1, 1e7}}
		for _, name := range stack {
			l := functions[name]
			if l == nil {
				f := &profile.Function{ID: uint64(len(p.Function) + 1), Name: name}
				p.Function = append(p.Function, f)
				l = &profile.Location{ID: uint64(len(p.Location) + 1), Line: []profile.Line{{Function: f}}}
				p.Location = append(p.Location, l)
				functions[name] = l
			}
			s.Location = append(s.Location, l)
		}
		p.Sample = append(p.Sample, s)
	}
	return p
}

func TestAttribute_TheInnermostTellingFunctionDecides(t *testing.T) {
	const (
		syscall = "syscall.Syscall"
		read    = "im-services/internal/gateway.(*conn).Read"
		frames  = "im-services/internal/gateway.(*conn).readFrames"
	)
	for stage, stack := range map[string][]string{
		"socket read":    {syscall, "net.(*conn).Read", read, frames},
		"decode, encode": {"runtime.mallocgc", "im-services/internal/wire.Decode", frames},
		"socket write":   {syscall, "net.(*conn).Write", "im-services/internal/gateway.(*conn).writeAll", "im-services/internal/gateway.(*conn).write"},
		"gRPC":           {"google.golang.org/protobuf/proto.Marshal", "google.golang.org/grpc/encoding/proto.codec.Marshal", "im-services/internal/gateway.(*lane).run"},
		"consume":        {"google.golang.org/protobuf/proto.Unmarshal", "im-services/internal/push.(*Codec).Unmarshal", "im-services/internal/gateway.(*Server).HandlePush"},
		gc:               {"runtime.scanobject", "runtime.gcBgMarkWorker"},
		scheduler:        {"runtime.futex", "runtime.findRunnable", "runtime.mcall"},
		other:            {"main.work"},
	} {
		got := Attribute(made(stack), "gateway")
		require.Len(t, got, 1, stage)
		require.InDelta(t, 0.01, got[stage], 1e-9, stage)
	}
	require.InDelta(t, 0.02, Attribute(made(
		[]string{syscall, "github.com/go-sql-driver/mysql.(*mysqlConn).exec", "im-services/internal/logic.(*lane).commit"},
		[]string{"database/sql.(*Tx).Commit", "im-services/internal/logic.(*lane).commit"},
	), "logic")["SQL"], 1e-9)
}

func TestBuild_AddsReplicasAndScalesToTheWhole(t *testing.T) {
	decode := []string{"im-services/internal/wire.Decode"}
	write := []string{"im-services/internal/gateway.(*conn).writeAll"}
	list := []Profile{
		{Name: "gateway-1", Profile: made(decode, write)},
		{Name: "gateway-2", Profile: made(write, write)},
	}
	// 40 ms in a second of 1,000 messages: 40 µs each; the books say 80.
	table := Build(list, 1000, map[string]float64{"gateway": 80, "mysql": 12, "etcd": 0.01})
	require.Equal(t, []Cost{
		{"gateway", "socket write", 60}, {"gateway", "decode, encode", 20}, {"mysql", "all of it", 12},
	}, table.Costs)
	text := table.Markdown()
	require.Contains(t, text, "| gateway | socket write | 60.0 |")
	require.Contains(t, text, "| **all** | | **92.0** |")
	require.Contains(t, table.Functions("gateway", 3), "im-services/internal/gateway.(*conn).writeAll")
}

func TestCollect_AsksEveryProcess(t *testing.T) {
	var raw bytes.Buffer
	require.NoError(t, made([]string{"im-services/internal/wire.Decode"}).Write(&raw))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/debug/pprof/profile" || r.URL.Query().Get("seconds") != "2" {
			http.Error(w, r.URL.String(), http.StatusBadRequest)
			return
		}
		_, _ = w.Write(raw.Bytes())
	}))
	defer srv.Close()
	addr := strings.TrimPrefix(srv.URL, "http://")
	list, err := Collect(t.Context(), map[string]string{"gateway-2": addr, "gateway-1": addr}, 2*time.Second)
	require.NoError(t, err)
	require.Len(t, list, 2)
	require.Equal(t, "gateway-1", list[0].Name)
	_, err = Collect(t.Context(), map[string]string{"logic-1": "127.0.0.1:1"}, time.Second)
	require.ErrorContains(t, err, "logic-1")
}

func TestMetrics(t *testing.T) {
	body := "# HELP x y\nim_logic_commit_seconds_bucket{le=\"1\"} 3\nim_logic_commit_seconds_sum 0.5\nim_logic_commit_seconds_count 10\nim_a_total{b=\"c d\"} 2\nim_a_total{b=\"e\"} 3\nbroken\n"
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(body)) }))
	defer srv.Close()
	addr := strings.TrimPrefix(srv.URL, "http://")
	m, err := Scrape(t.Context(), map[string]string{"a": addr, "b": addr})
	require.NoError(t, err)
	require.InDelta(t, 10, m["im_a_total"], 1e-9)
	waits := m.Since(Metrics{"im_logic_commit_seconds_count": 10, "im_logic_commit_seconds_sum": 0.5}).Waits()
	require.Equal(t, []Wait{{"im_logic_commit_seconds", 50, 10}}, waits)
	_, n := Metrics{}.Mean("x")
	require.Zero(t, n)
}
