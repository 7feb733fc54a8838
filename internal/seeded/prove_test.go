//go:build seeded

package seeded_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"im-services/internal/check"
	"im-services/internal/seeded"
)

// limit is how long the checker may take to find a fault, the start of the
// cluster and the final reading included.
const limit = time.Minute

// talk is how long people talk; the rest of the minute is for everything else.
const talk = 18 * time.Second

// clientLinks lose what is on its way to clients.
const clientLinks = "lose-from:clients>gateway-1,lose-from:clients>gateway-2,partition:clients>gateway-1,partition:clients>gateway-2"

// faults are what is done to the system, where a mechanism only shows when
// something fails. The others show by the workload alone.
var faults = map[seeded.Bug]string{
	seeded.AckBeforeCommit:     "kill:logic-1,kill:logic-2",
	seeded.SeqFromRedis:        "kill:logic-1,kill:logic-2",
	seeded.NoUniqueKey:         "kill:logic-1,kill:logic-2,kill:gateway-1,kill:gateway-2",
	seeded.NSQOnly:             "kill:nsqd,restart:nsqd",
	seeded.CursorAutoIncrement: "chaos,reset:clients>gateway-1,reset:clients>gateway-2",
	seeded.CursorOnWrite:       clientLinks,
	seeded.EpochIgnored:        "flush,kill-flush",
	seeded.NoOutbox:            "strand",
	seeded.NoPushCounter:       "drop",
	seeded.NoWatermark:         "drop",
	seeded.NoPongProof:         clientLinks,
	seeded.NoFence:             "pause:gateway-1,pause:gateway-2",
}

// gap is the mean pause between two failures. What an old counter hides only
// stays hidden while nothing else fails.
func gap(b seeded.Bug) time.Duration {
	if b == seeded.EpochIgnored {
		return 9 * time.Second
	}
	return 500 * time.Millisecond
}

// TestProveChecker runs the delivery checker against a system with each fault:
// an invariant that the fault breaks must be red within a minute, and all green without a fault under the same
// failures. PROVE names some faults; PROVE_TABLE is a file for the table.
func TestProveChecker(t *testing.T) {
	only := strings.FieldsFunc(os.Getenv("PROVE"), func(r rune) bool { return r == ',' || r == ' ' })
	var table strings.Builder
	table.WriteString("| fault | what it does | found after | by | failures |\n|---|---|---|---|---|\n")
	selected := func(name string) bool { return len(only) == 0 || slices.Contains(only, name) }
	if selected("none") {
		t.Run("none", func(t *testing.T) {
			v, _ := prove(t, "", "all")
			require.True(t, v.Green(), "a system without a fault")
		})
	}
	for _, b := range seeded.All {
		if !selected(string(b.Bug)) {
			continue
		}
		what := faults[b.Bug]
		if what == "" {
			what = "none"
		}
		t.Run(string(b.Bug), func(t *testing.T) {
			v, took := prove(t, b.Bug, what)
			found := "**not found**"
			if seeded.Found(b.Bug, red(v)) {
				found = took.Round(time.Second).String()
			}
			fmt.Fprintf(&table, "| %s | %s | %s | %s | %s |\n", b.Bug, b.Does, found, strings.Join(red(v), " "), strings.ReplaceAll(what, ",", ", "))
			require.True(t, seeded.Found(b.Bug, red(v)), "the checker did not find it: red are %v, and what it breaks is %s", red(v), b.Breaks)
			require.LessOrEqual(t, took, limit)
		})
	}
	t.Log("\n" + table.String())
	if file := os.Getenv("PROVE_TABLE"); file != "" {
		require.NoError(t, os.WriteFile(file, []byte(table.String()), 0o600))
	}
}

// prove runs the checker and returns its verdict and how long that took.
func prove(t *testing.T, b seeded.Bug, what string) (*check.Verdict, time.Duration) {
	t.Helper()
	began := time.Now()
	v, err := check.Run(t.Context(), check.Options{
		Seed: 1, Duration: talk, Faults: what, Gap: gap(b), Rate: 150,
		Tags: []string{"seeded"}, Env: map[string]string{"IM_SEEDED_BUG": string(b)}, Bundle: t.TempDir(),
	})
	require.NoError(t, err)
	took := time.Since(began)
	for _, r := range v.Results {
		if r.Red > 0 {
			t.Logf("%s: %d of %d, for instance %s", r.ID, r.Red, r.Checked, r.Sample[0])
		}
	}
	t.Logf("%v, %d acknowledged, %d faults", took.Round(time.Second), v.Figures.Acked, v.Figures.Faults)
	return v, took
}

func red(v *check.Verdict) []string {
	var out []string
	for _, r := range v.Results {
		if r.Red > 0 {
			out = append(out, r.ID)
		}
	}
	return out
}
