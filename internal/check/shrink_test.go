package check

import (
	"errors"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestShrink_FindsTheLeastThatIsStillRed(t *testing.T) {
	for name, culprits := range map[string][]int{
		"one": {17}, "the first": {0}, "the last": {39}, "two far apart": {3, 31}, "three": {5, 6, 28},
	} {
		t.Run(name, func(t *testing.T) {
			list := make([]int, 40)
			for i := range list {
				list[i] = i
			}
			runs := 0
			least, err := shrink(list, func(part []int) (bool, error) {
				runs++
				require.True(t, slices.IsSorted(part), "the order stays: %v", part)
				require.Less(t, len(part), 40)
				for _, c := range culprits {
					if !slices.Contains(part, c) {
						return false, nil
					}
				}
				return true, nil
			})
			require.NoError(t, err)
			require.Equal(t, culprits, least)
			require.Less(t, runs, 100)
		})
	}
}

func TestShrink_GivesUpWithWhatItHas(t *testing.T) {
	broken := errors.New("no cluster")
	least, err := shrink([]int{1, 2, 3}, func([]int) (bool, error) { return false, broken })
	require.ErrorIs(t, err, broken)
	require.Equal(t, []int{1, 2, 3}, least)
}

func TestSchedule_IsReadAsItWasWritten(t *testing.T) {
	s := &Schedule{Seed: 1<<63 + 7, Faults: []fault{
		{Number: 1, Kind: Kill, Target: "logic-1", After: time.Second},
		{Number: 2, Kind: Pause, Target: "redis", After: 2 * time.Second, Length: 3 * time.Second},
	}}
	file := filepath.Join(t.TempDir(), "schedule.json")
	require.NoError(t, s.Write(file))
	got, err := ReadSchedule(file)
	require.NoError(t, err)
	require.Equal(t, s, got)
	require.True(t, got.has(Pause, "redis"))
	require.False(t, got.has(Kill, "redis"))

	draw := got.draw()
	for _, want := range s.Faults {
		f, ok := draw()
		require.True(t, ok)
		require.Equal(t, want, f)
	}
	_, ok := draw()
	require.False(t, ok)

	require.NoError(t, (&Schedule{}).Write(file))
	_, err = ReadSchedule(file)
	require.Error(t, err)
}
