package bench

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"im-services/internal/bench/crowd"
	"im-services/internal/bench/floor"
)

func TestScenarios_AreCleanAgainstAServerThatKeepsItsPromises(t *testing.T) {
	for name, o := range map[string]Options{
		"private":  {},
		"oneway":   {Pending: 8},
		"open":     {Rate: 500},
		"group":    {Groups: 2, Members: 5, Senders: 2},
		"hot":      {Members: 3, Pending: 16},
		"large":    {Members: 20, Online: 20, Senders: 2},
		"idle":     {Count: 20, Settle: 10 * time.Millisecond},
		"churn":    {Rate: 200, Count: 50},
		"storm":    {Rate: 200, Count: 30},
		"mixed":    {Rate: 400, Count: 20, Groups: 1, Members: 4},
		"backlog":  {Count: 500},
		"overload": {Rate: 3000},
		"connect":  {},
	} {
		t.Run(name, func(t *testing.T) {
			s := short()
			o.Window, o.Users = s.Window, s.Users
			if name == "storm" { // strikes after its warm-up of two seconds
				o.Measure = 300 * time.Millisecond
			}
			res := runOn(t, &server{}, name, o)
			require.True(t, res.OK(), res.String())
			require.Zero(t, res.Checks.Disconnects)
			require.Zero(t, res.Checks.Unsettled)
			if name != "idle" && name != "connect" {
				require.Positive(t, res.Checks.Acked)
				require.GreaterOrEqual(t, res.Checks.Delivered, res.Checks.Acked)
				require.Equal(t, res.Checks.Sent, res.Checks.Acked)
			}
			if name == "backlog" {
				require.EqualValues(t, o.Count, res.Checks.Sent, "no more than the replay holds")
			}
			if res.Connect != nil {
				require.Positive(t, res.Connect.Count)
			}
			require.NotEmpty(t, res.String())
		})
	}
}

func TestChecks_FindEachFault(t *testing.T) {
	// The fifth message of a closed loop of six users is followed by others of
	// the same conversation.
	for what, count := range map[string]func(*Checks) int64{
		"lose":     func(c *Checks) int64 { return c.Lost },
		"repeat":   func(c *Checks) int64 { return c.Repeated },
		"hold":     func(c *Checks) int64 { return c.Reordered },
		"alter":    func(c *Checks) int64 { return c.Altered },
		"disagree": func(c *Checks) int64 { return c.Disagree },
	} {
		t.Run(what, func(t *testing.T) {
			o := short()
			o.Rate = 300
			if what == "lose" {
				t.Parallel() // it waits for the message until it gives up
			}
			res := runOn(t, &server{fault: at(5, what)}, "open", o)
			require.EqualValues(t, 1, count(&res.Checks), res.String())
			require.False(t, res.OK())
			require.Contains(t, res.String(), "NOT CLEAN")
		})
	}
}

func TestChecks_AHoleInTheSeqsIsFound(t *testing.T) {
	s := &server{}
	target := fake(t, s)
	// Somebody else took a seq of the first pair's conversation in the middle.
	s.reply = func(n int64) string {
		if n == 40 {
			s.seqs["1002"]++
		}
		return ""
	}
	o := short()
	o.Users, o.Rate = 2, 300
	res, err := Run(t.Context(), "open", target, o)
	require.NoError(t, err)
	require.EqualValues(t, 2, res.Checks.Holes, "both readers miss it: %s", res)
	require.False(t, res.OK())
}

func TestChecks_ARefusalThatWasStoredIsAContradiction(t *testing.T) {
	o := short()
	o.Rate = 300
	res := runOn(t, &server{reply: at(5, "contradict")}, "open", o)
	require.EqualValues(t, 1, res.Checks.Contradicted, res.String())
	require.False(t, res.OK())
}

func TestSessionOrder_IsPromisedUpToTheFirstUnknown(t *testing.T) {
	r := newRun(t.Context(), &Target{})
	from := r.add(crowd.User{ID: 1}, "")
	f, err := r.newFlow(flowSpec{from: from, to: 2, kind: kindPrivate})
	require.NoError(t, err)
	fill := func(seqs ...int32) (c Checks) {
		f.sent = 0
		for i, seq := range seqs {
			f.reserveLocked(i).seq.Store(seq)
			f.sent++
		}
		f.sessionOrder(&c)
		return c
	}
	require.Equal(t, Checks{}, fill(1, 2, 5, 9))
	require.Equal(t, Checks{Reordered: 1}, fill(1, 3, 2, 4))
	require.Equal(t, Checks{Inverted: 1}, fill(1, seqRefused, 3, 2, 4))
	f.at(1).resent.Store(true)
	require.Equal(t, Checks{Inverted: 1}, fill(1, 3, 2, 4))
}

func TestRefusals_AreCountedAndTheLoopGoesOn(t *testing.T) {
	res := runOn(t, &server{reply: func(n int64) string {
		if n%10 == 0 {
			return "refuse"
		}
		return ""
	}}, "private", short())
	require.True(t, res.OK(), res.String())
	require.Positive(t, res.Checks.Refused)
	require.Equal(t, res.Checks.Refused, res.Checks.Reasons["overloaded"])
	require.Equal(t, res.Checks.Sent, res.Checks.Acked+res.Checks.Refused)
}

func TestSilence_IsSentAgainUnderTheSameKey(t *testing.T) {
	t.Parallel()
	res := runOn(t, &server{reply: at(7, "silent")}, "private", short())
	require.True(t, res.OK(), res.String())
	require.EqualValues(t, 1, res.Checks.Unknown)
	require.Equal(t, res.Checks.Sent, res.Checks.Acked)
	require.Zero(t, res.Checks.Unsettled)
}

func TestReconnect_SendsAgainWhatHadNoAnswer(t *testing.T) {
	s := &server{reply: at(9, "cut")}
	res := runOn(t, s, "private", short())
	require.True(t, res.OK(), res.String())
	require.EqualValues(t, 1, res.Checks.Disconnects)
	require.Equal(t, res.Checks.Sent, res.Checks.Acked)
	require.Equal(t, res.Checks.Sent, res.Checks.Delivered)
	s.mu.Lock()
	defer s.mu.Unlock()
	require.Greater(t, s.after, 1, "the loop of the cut connection goes on")
}

func TestOpenLoop_CountsAStallFromTheIntendedTimes(t *testing.T) {
	s := &server{}
	stalled := false
	s.reply = func(n int64) string {
		if n == 50 && !stalled {
			stalled = true
			time.Sleep(200 * time.Millisecond) // everybody waits for the lock
		}
		return ""
	}
	o := short()
	o.Measure, o.Rate = 500*time.Millisecond, 400
	res := runOn(t, s, "open", o)
	// 200 ms at 400/s: some 80 messages were due in it, half of them waited over
	// 100 ms. A closed loop would have seen six.
	require.Greater(t, res.Deliver.Max, 150.0)
	require.Greater(t, res.Deliver.P90, 50.0, res.String())
	require.True(t, res.OK())
}

func TestKey_RoundTrip(t *testing.T) {
	stamp := newStamp(time.Date(2034, 1, 1, 0, 0, 0, 0, time.UTC))
	key := makeKey(stamp, maxSlot, maxNumber)
	require.Less(t, key, int64(1)<<53)
	require.Positive(t, makeKey(1, 0, 0))
	a, b, c := splitKey(key)
	require.Equal(t, []int64{stamp, maxSlot, maxNumber}, []int64{a, int64(b), int64(c)})
	body := []byte(strings.Repeat("z", 20))
	putKey(body, key)
	require.True(t, bodyHasKey(body, key))
	require.False(t, bodyHasKey(body, key-1))
	require.False(t, bodyHasKey(body[:3], key))
}

func TestTrack(t *testing.T) {
	tr := &track{}
	require.Equal(t, arrivedFirst, tr.arrive(0, 1))
	require.Equal(t, arrivedFirst, tr.arrive(3, 4))
	require.Equal(t, arrivedLate, tr.arrive(1, 2))
	require.Equal(t, arrivedAgain, tr.arrive(1, 2))
	require.EqualValues(t, seqNone, tr.got(2))
	require.EqualValues(t, 4, tr.got(3))
	require.EqualValues(t, seqNone, tr.got(9))
	require.EqualValues(t, seqNone, (*track)(nil).got(0))
}

func TestStamps_DifferWithinASecond(t *testing.T) {
	a, b := newRun(t.Context(), &Target{}), newRun(t.Context(), &Target{})
	require.Less(t, a.stamp, b.stamp)
}

// relayTarget runs the relay in this process.
func relayTarget(t *testing.T) *Target {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- floor.NewRelay().Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
	base := "http://" + l.Addr().String()
	return &Target{
		Name: "relay", Gateways: []string{base},
		People: &anyone{tell: func(ctx context.Context, g crowd.Group) error { return tellGroup(ctx, base, g) }},
	}
}

func TestCompare_RunsTheRelayAndTheSystemInTurn(t *testing.T) {
	o := short()
	o.Groups, o.Members = 2, 4
	for _, name := range []string{"private", "group"} {
		var order []string
		c, err := Compare(t.Context(), name, relayTarget(t), fake(t, &server{}), 2, o, func(r *Result) { order = append(order, r.Target) })
		require.NoError(t, err)
		require.Equal(t, []string{"relay", "system", "relay", "system"}, order)
		for _, r := range append(c.Relay, c.System...) {
			require.True(t, r.OK(), r.String())
			require.Positive(t, r.Checks.Delivered)
		}
		require.Contains(t, c.String(), name)
	}
	c, err := Compare(t.Context(), "churn", relayTarget(t), fake(t, &server{}), 1, o, nil)
	require.NoError(t, err)
	require.Empty(t, c.Relay, "the relay is left out of what it cannot do")
}

func TestKnee_EndsWhereTheSystemNoLongerFollows(t *testing.T) {
	o := short()
	o.Measure = time.Second
	k, err := RunKnee(t.Context(), fake(t, &server{reply: func(int64) string {
		time.Sleep(5 * time.Millisecond) // two hundred a second and no more
		return ""
	}}), []float64{50, 700, 4000}, o, nil)
	require.NoError(t, err)
	require.Len(t, k.Points, 2)
	require.Less(t, k.Points[1].DeliveredPerSecond, 250.0)
}

func TestSpread(t *testing.T) {
	require.Equal(t, Spread{Min: 1, Median: 2.5, Max: 4, Rounds: 4}, NewSpread([]float64{4, 1, 3, 2}))
	require.Equal(t, Spread{}, NewSpread(nil))
}

func TestDocument_IsOnePageThatNeedsNothingElse(t *testing.T) {
	o := short()
	o.Rate = 300
	res := runOn(t, &server{}, "open", o)
	d := NewDocument(Machine{Processors: 2, System: "<linux>", Durability: map[string]string{"sync_binlog": "1"}})
	d.Add(&Comparison{Scenario: "open", System: []*Result{res}})
	d.Knees = []*Knee{{Target: "system", Points: []*Result{res}}}
	d.Growth = []Growth{{Title: "cost", X: "users", Y: "µs", Sizes: []float64{1, 2}, Values: []float64{3, 4}}}
	dir := t.TempDir()
	require.NoError(t, d.Write(dir))
	page, err := os.ReadFile(filepath.Join(dir, "bench.html"))
	require.NoError(t, err)
	for _, want := range []string{"<svg", "sync_binlog=1", "&lt;linux&gt;", "clean", "polyline"} {
		require.Contains(t, string(page), want)
	}
	for _, bad := range []string{"<script", "src=", "@import", "NaN", "Inf"} {
		require.NotContains(t, string(page), bad)
	}
	doc := filepath.Join(dir, "performance.md")
	require.NoError(t, os.WriteFile(doc, []byte("head\n"+markBegin+"\nold\n"+markEnd+"\ntail\n"), 0o600))
	require.NoError(t, d.UpdateMarkdown(doc))
	text, err := os.ReadFile(doc)
	require.NoError(t, err)
	require.Contains(t, string(text), "| open |")
	require.True(t, strings.HasPrefix(string(text), "head\n"+markBegin) && strings.HasSuffix(string(text), markEnd+"\ntail\n"))
	require.NotContains(t, string(text), "old")
	require.Error(t, d.UpdateMarkdown(filepath.Join(dir, "bench.json")))
	back, err := ReadDocument(filepath.Join(dir, "bench.json"))
	require.NoError(t, err)
	require.Equal(t, res.Checks, back.Comparisons[0].System[0].Checks)
	_, err = json.Marshal(back)
	require.NoError(t, err)
}

func TestRun_SaysWhatIsWrong(t *testing.T) {
	_, err := Run(t.Context(), "nonsense", &Target{Gateways: []string{"http://127.0.0.1:1"}}, Options{})
	require.ErrorContains(t, err, "no scenario")
	_, err = Run(t.Context(), "private", &Target{Name: "x"}, Options{})
	require.ErrorContains(t, err, "no gateway")
	target := fake(t, &server{})
	target.Gateways = []string{"http://127.0.0.1:1"}
	_, err = Run(t.Context(), "private", target, short())
	require.ErrorContains(t, err, "connect")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = Run(ctx, "private", fake(t, &server{}), short())
	require.Error(t, err)
}
