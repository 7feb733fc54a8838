package auth

import (
	"context"
	"sync"

	"github.com/jmoiron/sqlx"

	"im-services/internal/im"
)

// userBlock is how many user ids a replica takes at once. Ids left over at exit
// are lost, which is fine: ids need not be dense.
const userBlock = 16

// userIDs hands out user ids from blocks. Safe for concurrent use.
type userIDs struct {
	store store

	mu        sync.Mutex // guards the following; held while a block is fetched, so that one caller does it
	next, end int64
}

func (u *userIDs) take(ctx context.Context) (im.UserID, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.next == u.end {
		var first int64
		err := u.store.inTx(ctx, func(tx *sqlx.Tx) (err error) {
			first, err = takeIDs(ctx, tx, "user", userBlock)
			return err
		})
		if err != nil {
			return 0, err
		}
		u.next, u.end = first, first+userBlock
	}
	id := u.next
	u.next++
	return im.UserID(id), nil
}
