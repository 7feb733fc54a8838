package friend

import (
	"context"
	"sync"
)

// idBlocks hands out ids from blocks that logic gives. A quarter of a block
// before the end it asks for the next one through low, so that normally nobody
// waits; ids left over at exit are lost, which is fine: ids need not be dense.
// Safe for concurrent use.
type idBlocks struct {
	fetch func(ctx context.Context, count int) (first int64, got int, err error)
	size  int
	low   chan struct{} // capacity 1; a token means "running low"

	fetching chan struct{} // capacity 1; held by the one who fetches

	mu     sync.Mutex
	blocks []idBlock // guarded by mu; used front to back
	left   int       // guarded by mu; ids in blocks
}

type idBlock struct{ next, end int64 }

func newIDBlocks(size int, fetch func(context.Context, int) (int64, int, error)) *idBlocks {
	b := &idBlocks{fetch: fetch, size: size, low: make(chan struct{}, 1), fetching: make(chan struct{}, 1)}
	b.low <- struct{}{} // the first block, before anybody asks
	return b
}

// take returns n new ids (n at most a quarter of a block). It calls logic only
// when the blocks are used up.
func (b *idBlocks) take(ctx context.Context, n int) ([]int64, error) {
	for {
		if ids := b.grab(n); ids != nil {
			return ids, nil
		}
		if err := b.refill(ctx); err != nil {
			return nil, err
		}
	}
}

func (b *idBlocks) grab(n int) []int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.left < n {
		return nil
	}
	ids := make([]int64, 0, n)
	for len(ids) < n {
		blk := &b.blocks[0]
		ids = append(ids, blk.next)
		if blk.next++; blk.next == blk.end {
			b.blocks = b.blocks[1:]
		}
	}
	b.left -= n
	if b.left < b.size/4 {
		select {
		case b.low <- struct{}{}:
		default:
		}
	}
	return ids
}

// refill fetches a block unless somebody else just did.
func (b *idBlocks) refill(ctx context.Context) error {
	select {
	case b.fetching <- struct{}{}:
		defer func() { <-b.fetching }()
	case <-ctx.Done():
		return ctx.Err()
	}
	b.mu.Lock()
	enough := b.left >= b.size/4
	b.mu.Unlock()
	if enough {
		return nil
	}
	first, got, err := b.fetch(ctx, b.size)
	if err != nil {
		return err
	}
	b.mu.Lock()
	b.blocks = append(b.blocks, idBlock{next: first, end: first + int64(got)})
	b.left += got
	b.mu.Unlock()
	return nil
}

// run fetches blocks ahead of need until ctx ends. A failure is left to the
// next taker, who then fetches for himself and reports it.
func (b *idBlocks) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.low:
			_ = b.refill(ctx)
		}
	}
}
