package check

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var (
	someProcesses = []string{"mysql", "redis", "etcd", "nsqd", "nsqlookupd", "logic-1", "logic-2", "gateway-1", "gateway-2"}
	someLinks     = []string{"clients>gateway-1", "clients>gateway-2", "logic-1>mysql", "logic-2>redis", "gateway-1>nsqd"}
	someExtras    = []extra{{Down, someProcesses}, {Chaos, []string{"gateway-1>nsqd", "gateway-2>nsqd"}}, {DiskFull, nil}, {ClockAhead, []string{"logic-1"}}}
)

func drawn(t *testing.T, seed uint64, selection string, n int) []fault {
	t.Helper()
	want, err := ParseFaults(selection)
	require.NoError(t, err)
	p := newPlan(seed, someProcesses, someLinks, someExtras, want, time.Second)
	var out []fault
	for range n {
		f, ok := p.draw()
		if !ok {
			break
		}
		out = append(out, f)
	}
	return out
}

func TestPlan_FollowsFromTheSeed(t *testing.T) {
	require.Equal(t, drawn(t, 5, "all", 200), drawn(t, 5, "all", 200))
	require.NotEqual(t, drawn(t, 5, "all", 200), drawn(t, 6, "all", 200))
}

func TestPlan_EveryProcessSuffersEveryKind(t *testing.T) {
	times, kinds := map[string]int{}, map[string]bool{}
	for _, f := range drawn(t, 5, "all", 120) {
		times[f.Target]++
		times[f.Kind+":"+f.Target]++
		kinds[f.Kind] = true
		require.LessOrEqual(t, f.Length, 15*time.Second)
	}
	for _, name := range someProcesses {
		require.GreaterOrEqual(t, times[name], 5, name)
		for _, kind := range processKinds {
			require.Positive(t, times[kind+":"+name], "%s %s", kind, name)
		}
	}
	require.GreaterOrEqual(t, len(kinds), 14)
	require.Positive(t, times["chaos:gateway-1>nsqd"])
	require.Positive(t, times["chaos:gateway-2>nsqd"])
	require.Positive(t, times["clock-ahead:logic-1"])
	require.False(t, kinds[DiskFull], "it has no targets")
}

func TestPlan_Selection(t *testing.T) {
	for _, f := range drawn(t, 5, "kill:logic-1,redis", 50) {
		require.True(t, f.Target == "redis" || f.Kind == Kill && f.Target == "logic-1", f.String())
	}
	require.Empty(t, drawn(t, 5, "none", 1))
	require.Empty(t, drawn(t, 5, "kill:nobody", 1), "a selection that leaves nothing ends")
	_, err := ParseFaults("explode:logic-1")
	require.Error(t, err)
}

func TestPlan_RoundsAndTalksEndWithASilence(t *testing.T) {
	rounds := map[string]int{}
	for _, f := range drawn(t, 5, "all", 120) {
		if f.Hush {
			rounds[f.Kind]++
			require.Greater(t, f.Length, hushLead)
		}
	}
	require.Positive(t, rounds[Drop])
	require.Positive(t, rounds[Strand])

	plan := func(selection string) *plan {
		want, err := ParseFaults(selection)
		require.NoError(t, err)
		return newPlan(5, someProcesses, someLinks, someExtras, want, time.Second)
	}
	long := plan("all").ending(2 * time.Minute)
	require.Len(t, long, 2)
	require.NotEqual(t, long[0].Kind, long[1].Kind)
	require.Equal(t, 2*(time.Second+hushFault)+hushLength-hushLead, lengthOf(long))
	require.Len(t, plan("all").ending(20*time.Second), 1)
	require.Equal(t, Drop, plan("drop").ending(20 * time.Second)[0].Kind)
	require.Empty(t, plan("kill").ending(2*time.Minute))
	require.Empty(t, plan("all").ending(5*time.Second))
}

func TestPlan_EveryTenthFaultIsAloneAndHasABound(t *testing.T) {
	bounded := 0
	for i, f := range drawn(t, 5, "all", 200) {
		n := i + 1
		if n%aloneEvery == 0 && faultBound(&Window{Kind: f.Kind, Target: f.Target}) > 0 {
			bounded++
		}
		if n%aloneEvery == 0 || n > 1 && n%aloneEvery == 1 {
			require.Greater(t, f.After, aftermath, "fault %d, %s", n, f.String())
		}
	}
	require.GreaterOrEqual(t, bounded, 15, "unless a round has none left")
}

func TestPlan_ShortRunsHaveWhatTheyNeed(t *testing.T) {
	for seed := range uint64(20) {
		var slept, lost bool
		for _, f := range drawn(t, seed, "all", 16) {
			slept = slept || f.Kind == Pause && strings.HasPrefix(f.Target, "gateway-")
			lost = lost || (f.Kind == LoseFrom || f.Kind == Partition) && strings.HasPrefix(f.Target, "clients>")
		}
		require.True(t, slept, "a gateway sleeps")
		require.True(t, lost, "what is written to clients is lost")
	}
}

func TestHush_HoldsPeopleBack(t *testing.T) {
	var h hush
	began := time.Now()
	h.wait(t.Context())
	h.begin(50 * time.Millisecond)
	h.wait(t.Context())
	require.GreaterOrEqual(t, time.Since(began), 50*time.Millisecond)
}
