package friend

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

func TestIDBlocks_UniqueUnderConcurrency(t *testing.T) {
	next := int64(1)
	fetches := 0
	b := newIDBlocks(16, func(context.Context, int) (int64, int, error) {
		first := next // fetches never run at the same time
		next += 20
		fetches++
		return first, 16, nil
	})
	var mu sync.Mutex
	seen := map[int64]bool{}
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 50 {
				ids, err := b.take(t.Context(), 2)
				mu.Lock()
				if err != nil || len(ids) != 2 || seen[ids[0]] || seen[ids[1]] || ids[0] == ids[1] {
					t.Errorf("take: %v %v", ids, err)
				}
				seen[ids[0]], seen[ids[1]] = true, true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	require.Len(t, seen, 1600)
	require.LessOrEqual(t, fetches, 1600/16+2, "blocks are fetched once each")
}

func TestIDBlocks_FailureReachesTheTaker_AndPasses(t *testing.T) {
	away := errors.New("away")
	err := away
	b := newIDBlocks(8, func(context.Context, int) (int64, int, error) { return 7, 8, err })
	_, got := b.take(t.Context(), 1)
	require.ErrorIs(t, got, away)
	err = nil
	ids, got := b.take(t.Context(), 2)
	require.NoError(t, got)
	require.Equal(t, []int64{7, 8}, ids)
}

func TestIDBlocks_RefilledBeforeTheyRunOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fetches := 0
		b := newIDBlocks(16, func(context.Context, int) (int64, int, error) {
			fetches++
			return int64(fetches * 100), 16, nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); b.run(ctx) }()
		synctest.Wait()
		require.Equal(t, 1, fetches, "the first block comes before anybody asks")
		for range 13 {
			require.NotNil(t, b.grab(1))
			synctest.Wait()
		}
		require.Equal(t, 2, fetches, "under a quarter left: the next block is fetched")
		cancel()
		<-done
	})
}
