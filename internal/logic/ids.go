package logic

import (
	"context"
	"fmt"
	"sync"

	"github.com/jmoiron/sqlx"

	"im-services/internal/im"
)

// idBlock is how many ids a replica takes at once.
const idBlock = 1000

// allocator hands out ids that no other replica hands out, rising within this
// replica. It is safe for concurrent use.
type allocator struct {
	db   *sqlx.DB
	name string

	mu   sync.Mutex // guards the following fields, and is held while a block is fetched
	next int64
	end  int64 // first id past the block
}

// take returns the first of n consecutive ids, all greater than after. Ids that
// are not greater are thrown away with the rest of their block: a fresh block
// is greater than any id ever handed out.
func (a *allocator) take(ctx context.Context, n int, after int64) (int64, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.next <= after || a.end-a.next < int64(n) {
		size := int64(max(idBlock, n))
		first, err := fetchBlock(ctx, a.db, a.name, size)
		if err != nil {
			return 0, err
		}
		if first <= after {
			return 0, im.E(im.KindInternal, "id_allocator_behind",
				fmt.Errorf("block %s starts at %d, but %d is in use", a.name, first, after))
		}
		a.next, a.end = first, first+size
	}
	id := a.next
	a.next += int64(n)
	return id, nil
}

// drop throws the rest of the block away.
func (a *allocator) drop() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.next, a.end = 0, 0
}

// fetchBlock takes size ids from the shared counter, in one statement: all replicas
// need its row, and one that stood still between two statements would hold it. Ids whose
// answer is lost are used by nobody.
func fetchBlock(ctx context.Context, db *sqlx.DB, name string, size int64) (int64, error) {
	var first, n int64
	res, err := db.ExecContext(ctx, `UPDATE id_blocks SET next_id = LAST_INSERT_ID(next_id) + ? WHERE name = ? AND next_id <= ?`, size, name, im.MaxID-size)
	if err == nil {
		n, err = res.RowsAffected()
	}
	if err == nil && n == 0 {
		err = fmt.Errorf("id block %q does not exist: run logic -migrate; or it is used up", name)
	}
	if err == nil {
		first, err = res.LastInsertId()
	}
	if err != nil {
		return 0, fmt.Errorf("allocate %s ids: %w", name, err)
	}
	return first, nil
}
