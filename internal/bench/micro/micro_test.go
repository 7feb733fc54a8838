package micro

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	pushv1 "im-services/api/proto/push/v1"
	"im-services/internal/push"
)

const output = `goos: linux
pkg: im-services/internal/wire
BenchmarkDecodeChat-2   	  200	  94583 ns/op	   1.95 MB/s	      21 B/op	       3 allocs/op
BenchmarkDecodeChat-2   	  200	  94583 ns/op	   1.95 MB/s	      21 B/op	       2 allocs/op
BenchmarkPush/members=50 	  200	  94583 ns/op	      21 B/op	       41 allocs/op
PASS
`

func TestParse(t *testing.T) {
	got := map[string]Figure{}
	require.NoError(t, Parse(strings.NewReader(output), "internal/wire", got))
	require.Equal(t, map[string]Figure{
		"internal/wire BenchmarkDecodeChat":      {Allocs: 2},
		"internal/wire BenchmarkPush/members=50": {Allocs: 41},
	}, got)
}

func TestGolden_RoundTrip(t *testing.T) {
	file := filepath.Join(t.TempDir(), "golden.txt")
	want := map[string]Figure{"a B": {Allocs: 2, Instructions: 6811}, "a C/x=1": {Allocs: 0}}
	require.NoError(t, WriteGolden(file, want))
	got, err := ReadGolden(file)
	require.NoError(t, err)
	require.Equal(t, want, got)
}

func TestGolden_TheKeptOneNamesWhatIsRun(t *testing.T) {
	golden, err := ReadGolden("golden.txt")
	require.NoError(t, err)
	for key := range golden {
		pkg, _, _ := strings.Cut(key, " ")
		found := false
		for _, s := range Suites {
			found = found || s.Package == pkg
		}
		require.True(t, found, key)
	}
	for _, s := range Suites {
		for _, name := range s.Counted {
			require.Positive(t, golden[Key(s.Package, name)].Instructions, "%s %s", s.Package, name)
		}
	}
}

func TestCompare(t *testing.T) {
	golden := map[string]Figure{"p A": {Allocs: 100, Instructions: 1000}, "p Zero": {}, "p Gone": {Allocs: 1}}
	for name, c := range map[string]struct {
		got           map[string]Figure
		worse, better int
	}{
		"same":                {map[string]Figure{"p A": {100, 1000}, "p Zero": {}, "p Gone": {Allocs: 1}}, 0, 0},
		"within the slack":    {map[string]Figure{"p A": {103, 1070}, "p Zero": {}, "p Gone": {Allocs: 1}}, 0, 0},
		"more allocations":    {map[string]Figure{"p A": {104, 1000}, "p Zero": {}, "p Gone": {Allocs: 1}}, 1, 0},
		"the first one":       {map[string]Figure{"p A": {100, 1000}, "p Zero": {Allocs: 1}, "p Gone": {Allocs: 1}}, 1, 0},
		"more instructions":   {map[string]Figure{"p A": {100, 1100}, "p Zero": {}, "p Gone": {Allocs: 1}}, 1, 0},
		"nobody to count":     {map[string]Figure{"p A": {100, 0}, "p Zero": {}, "p Gone": {Allocs: 1}}, 0, 0},
		"a benchmark is gone": {map[string]Figure{"p A": {100, 1000}, "p Zero": {}}, 1, 0},
		"better":              {map[string]Figure{"p A": {50, 500}, "p Zero": {}, "p Gone": {Allocs: 1}}, 0, 2},
	} {
		t.Run(name, func(t *testing.T) {
			worse, better := Compare(golden, c.got)
			require.Len(t, worse, c.worse, "%v", worse)
			require.Len(t, better, c.better, "%v", better)
		})
	}
}

// envelope is what a busy gateway gets from one batch.
func envelope() *pushv1.Envelope {
	env := &pushv1.Envelope{GatewayId: "0123456789abcdef", Epoch: "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}
	for i := range int64(16) {
		env.Messages = append(env.Messages, &pushv1.Message{
			Id: 1_000_000 + i, ConversationId: 500 + i, Seq: 40 + i, Kind: 1, SenderId: 10 + i, ToId: 90 + i, Type: 1,
			ClientMsgId: 795390858378, Text: strings.Repeat("x", 100), SentAtMs: 1795390858378, Contiguous: true,
		})
		env.Deliveries = append(env.Deliveries, &pushv1.Delivery{Messages: []int32{int32(i)}, UserIds: []int64{90 + i}, Pvs: []int64{7 + i}})
	}
	return env
}

func codec(b *testing.B) *push.Codec {
	b.Helper()
	c, err := push.NewCodec([]byte(strings.Repeat("k", push.MinKeySize)))
	require.NoError(b, err)
	return c
}

func BenchmarkEnvelopeSeal(b *testing.B) {
	c, env := codec(b), envelope()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Marshal(env); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEnvelopeOpen(b *testing.B) {
	c := codec(b)
	body, err := c.Marshal(envelope())
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Unmarshal(body); err != nil {
			b.Fatal(err)
		}
	}
}
