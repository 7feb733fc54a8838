package friend

import (
	"database/sql"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"im-services/internal/im"
)

// op is one step of one actor in the property test: who acts on whom, and how.
type op struct {
	kind     int // 0 ask, 1 accept, 2 refuse, 3 delete
	from, to im.UserID
}

// Whatever users do at the same time on several replicas, with logic losing
// requests and responses: after the background work has run out, logic's state
// of every pair, the highest version it was told, is the friendship rows' state.
func TestG12_Property_LogicConvergesToTheRelation(t *testing.T) {
	db := openDB(t)
	logic := newFakeLogic()
	cfg := Config{ClaimFor: 2 * time.Millisecond, LogicTimeout: time.Millisecond, RequestsPerDay: 1 << 20}
	replicas := []*Server{replica(t, db, logic, cfg), replica(t, db, logic, cfg)}
	base := im.UserID(100)

	rapid.Check(t, func(r *rapid.T) {
		users := im.UserID(rapid.IntRange(2, 4).Draw(r, "users"))
		base += 10 // fresh users for every case
		user := rapid.Map(rapid.IntRange(0, int(users)-1), func(i int) im.UserID { return base + im.UserID(i) })
		step := rapid.Custom(func(r *rapid.T) op {
			return op{kind: rapid.IntRange(0, 3).Draw(r, "kind"), from: user.Draw(r, "from"), to: user.Draw(r, "to")}
		})
		actors := rapid.SliceOfN(rapid.SliceOfN(step, 1, 12), 1, 5).Draw(r, "actors")
		failEvery := rapid.IntRange(0, 4).Draw(r, "failures")
		seed := rapid.Uint64().Draw(r, "seed")

		rng := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // a test's dice
		logic.setFail(func() outcome {
			if failEvery == 0 || rng.IntN(failEvery+1) != 0 {
				return fine
			}
			return outcome(1 + rng.IntN(2))
		})

		var wg sync.WaitGroup
		for i, steps := range actors {
			s := replicas[i%len(replicas)]
			wg.Go(func() {
				for _, o := range steps {
					play(t, s, logic, o)
				}
			})
		}
		wg.Wait()

		logic.setFail(nil)
		deadline := time.Now().Add(10 * time.Second)
		for pendingCount(t, replicas[0], base) > 0 {
			if time.Now().After(deadline) {
				r.Fatalf("changes stay pending")
			}
			for _, s := range replicas {
				s.reconcile(t.Context())
			}
			time.Sleep(time.Millisecond)
		}

		for a := base; a < base+users; a++ {
			for b := a + 1; b < base+users; b++ {
				friends := areFriends(t, replicas[0], a, b)
				rel := readRelation(t, replicas[0], a, b)
				told := logic.told(a, b)
				if friends != rel.open || friends != told.open || rel.version != told.version {
					r.Fatalf("pair %d %d: friends=%v relation=%+v logic=%+v", a, b, friends, rel, told)
				}
				var waitingNow int
				require.NoError(t, db.Get(&waitingNow, `SELECT COUNT(*) FROM friend_requests WHERE waiting = 1 AND requester_id IN (?, ?) AND recipient_id IN (?, ?)`, a, b, a, b))
				if waitingNow > 1 || friends && waitingNow > 0 {
					r.Fatalf("pair %d %d: friends=%v with %d waiting requests", a, b, friends, waitingNow)
				}
			}
		}
	})
}

// play runs one step. Refusals are part of the game; internal errors are not.
func play(t *testing.T, s *Server, logic *fakeLogic, o op) {
	var err error
	switch o.kind {
	case 0:
		_, err = ask(t.Context(), s, o.from, o.to)
	case 1, 2:
		var id int64
		if e := s.store.db.Get(&id, `SELECT COALESCE(MAX(id), 0) FROM friend_requests WHERE requester_id = ? AND recipient_id = ?`, o.to, o.from); e != nil {
			t.Error(e)
		}
		_, err = answer(t.Context(), s, o.from, id, o.kind == 1)
	case 3:
		before := readRelation(t, s, o.from, o.to).version
		err = unfriend(t.Context(), s, o.from, o.to)
		if told := logic.told(o.from, o.to); err == nil && told.open && told.version <= before {
			t.Errorf("deleted, but logic still obeys version %d from before", told.version)
		}
	}
	if err != nil && im.KindOf(err) == im.KindInternal {
		t.Errorf("%+v: %v", o, err)
	}
}

func pendingCount(t *testing.T, s *Server, base im.UserID) (n int) {
	t.Helper()
	require.NoError(t, s.store.db.Get(&n, `SELECT COUNT(*) FROM friend_relations WHERE pending = 1 AND lo_user_id >= ?`, base))
	return n
}

func readRelation(t testing.TB, s *Server, a, b im.UserID) relation {
	t.Helper()
	lo, hi := pair(a, b)
	r, err := scanRelation(s.store.db.QueryRowContext(t.Context(),
		`SELECT `+relationColumns+` FROM friend_relations WHERE lo_user_id = ? AND hi_user_id = ?`, lo, hi))
	if errors.Is(err, sql.ErrNoRows) {
		return relation{}
	}
	require.NoError(t, err)
	return r
}
