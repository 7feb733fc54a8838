package friend

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	friendv1 "im-services/api/proto/friend/v1"
	logicv1 "im-services/api/proto/logic/v1"
	pushv1 "im-services/api/proto/push/v1"
	"im-services/internal/im"
	"im-services/internal/platform/config"
	"im-services/internal/platform/database"
	"im-services/internal/testkit"
)

// openDB returns a fresh, migrated database.
func openDB(t testing.TB) *sqlx.DB {
	t.Helper()
	cfg := database.Config{DSN: config.Secret(testkit.MySQL(t))}
	// A change of schema takes as long as it takes.
	patient, err := database.Open(t.Context(), cfg.ForMigration())
	require.NoError(t, err)
	require.NoError(t, database.Migrate(t.Context(), patient, Migrations, MigrationsDir, VersionTable))
	require.NoError(t, patient.Close())
	db, err := database.Open(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// replica is one Server of the service with logic at its side.
func replica(t testing.TB, db *sqlx.DB, logic LogicClient, cfg Config) *Server {
	t.Helper()
	if cfg.IDBlock == 0 {
		cfg.IDBlock = 64
	}
	require.NoError(t, cfg.Validate())
	return New(cfg, db, logic, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
}

func setup(t testing.TB, cfg Config) (*Server, *fakeLogic) {
	t.Helper()
	logic := newFakeLogic()
	return replica(t, openDB(t), logic, cfg), logic
}

func profile(user im.UserID) *pushv1.Profile {
	return &pushv1.Profile{Id: int64(user), Name: "user " + user.String(), Avatar: "http://x/" + user.String(), Email: "u" + user.String() + "@example.com"}
}

func ask(ctx context.Context, s *Server, from, to im.UserID) (int64, error) {
	out, err := s.RequestFriend(ctx, &friendv1.RequestFriendRequest{Requester: profile(from), ToUserId: int64(to), Information: "hello"})
	return out.GetRequest().GetId(), err
}

func answer(ctx context.Context, s *Server, by im.UserID, id int64, accept bool) (*friendv1.AnswerRequestResponse, error) {
	return s.AnswerRequest(ctx, &friendv1.AnswerRequestRequest{Answerer: profile(by), RequestId: id, Accept: accept})
}

func unfriend(ctx context.Context, s *Server, user, friend im.UserID) error {
	_, err := s.DeleteFriend(ctx, &friendv1.DeleteFriendRequest{UserId: int64(user), FriendId: int64(friend)})
	return err
}

func befriend(t testing.TB, s *Server, a, b im.UserID) int64 {
	t.Helper()
	id, err := ask(t.Context(), s, a, b)
	require.NoError(t, err)
	_, err = answer(t.Context(), s, b, id, true)
	require.NoError(t, err)
	return id
}

func areFriends(t testing.TB, s *Server, a, b im.UserID) bool {
	t.Helper()
	out, err := s.GetFriend(t.Context(), &friendv1.GetFriendRequest{UserId: int64(a), FriendId: int64(b)})
	require.NoError(t, err)
	back, err := s.GetFriend(t.Context(), &friendv1.GetFriendRequest{UserId: int64(b), FriendId: int64(a)})
	require.NoError(t, err)
	require.Equal(t, out.GetFriend() != nil, back.GetFriend() != nil, "friendship has one side only")
	return out.GetFriend() != nil
}

func requireReason(t testing.TB, want string, err error) {
	t.Helper()
	require.Error(t, err)
	require.Equal(t, want, im.ReasonOf(err), "%v", err)
}

func down() outcome { return lostRequest }

func TestRequestFriend_TellsTheRecipientWhoAsks(t *testing.T) {
	s, logic := setup(t, Config{})
	out, err := s.RequestFriend(t.Context(), &friendv1.RequestFriendRequest{Requester: profile(34), ToUserId: 35, Information: "text \x00 of \U0001F600"})
	require.NoError(t, err)
	req := out.GetRequest()
	require.Positive(t, req.GetId())
	require.EqualValues(t, 34, req.GetRequesterId())
	require.EqualValues(t, 35, req.GetRecipientId())
	require.EqualValues(t, waiting, req.GetStatus())
	require.Equal(t, "text \x00 of \U0001F600", req.GetInformation())
	require.InDelta(t, time.Now().UnixMilli(), req.GetCreatedAtMs(), 60_000)

	events := logic.eventsFor(35)
	require.Len(t, events, 1)
	require.Equal(t, req.GetId(), events[0].GetRecordId())
	require.EqualValues(t, 34, events[0].GetRequesterId())
	require.EqualValues(t, 35, events[0].GetAnswererId())
	require.EqualValues(t, waiting, events[0].GetStatus())
	require.Equal(t, req.GetInformation(), events[0].GetInformation())
	require.Equal(t, req.GetCreatedAtMs(), events[0].GetCreatedAtMs())
	require.EqualValues(t, 34, events[0].GetProfile().GetId())
	require.False(t, areFriends(t, s, 34, 35))
	require.Zero(t, logic.told(34, 35).version, "a request alone opens nothing")
}

func TestDefect44_RequestFriend_Refusals(t *testing.T) {
	s, logic := setup(t, Config{})
	_, err := ask(t.Context(), s, 10, 11)
	require.NoError(t, err)
	befriend(t, s, 20, 21)
	logic.events = nil

	for _, c := range []struct {
		name     string
		from, to im.UserID
		info     string
		reason   string
		kind     im.Kind
	}{
		{"oneself", 10, 10, "hi", "friend_self", im.KindInvalid},
		{"the bot", 10, im.BotID, "hi", "friend_bot", im.KindInvalid},
		{"by the bot", im.BotID, 10, "hi", "friend_bot", im.KindInvalid},
		{"nobody", 10, 0, "hi", "id_invalid", im.KindInvalid},
		{"negative", 10, -5, "hi", "id_invalid", im.KindInvalid},
		{"beyond numbers", 10, im.MaxID + 1, "hi", "id_invalid", im.KindInvalid},
		{"by nobody", 0, 10, "hi", "id_invalid", im.KindInvalid},
		{"already waiting", 10, 11, "hi", "friend_request_waiting", im.KindConflict},
		{"the other one waits", 11, 10, "hi", "reverse_request_waiting", im.KindConflict},
		{"already friends", 20, 21, "hi", "friend_already", im.KindConflict},
		{"already friends, other side", 21, 20, "hi", "friend_already", im.KindConflict},
		{"no text", 10, 12, "", "information_invalid", im.KindInvalid},
		{"text too long", 10, 12, strings.Repeat("界", maxInformation+1), "information_invalid", im.KindInvalid},
		{"text not UTF-8", 10, 12, "a\xff", "information_invalid", im.KindInvalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := s.RequestFriend(t.Context(), &friendv1.RequestFriendRequest{Requester: profile(c.from), ToUserId: int64(c.to), Information: c.info})
			requireReason(t, c.reason, err)
			require.Equal(t, c.kind, im.KindOf(err))
		})
	}
	require.Empty(t, logic.events, "a refused request tells nobody")
	_, err = s.RequestFriend(t.Context(), &friendv1.RequestFriendRequest{Requester: profile(10), ToUserId: 12, Information: strings.Repeat("界", maxInformation)})
	require.NoError(t, err, "the longest text allowed")
	_, err = s.RequestFriend(t.Context(), &friendv1.RequestFriendRequest{ToUserId: 12, Information: "x"})
	requireReason(t, "id_invalid", err)
}

func TestAnswerRequest_Accept(t *testing.T) {
	s, logic := setup(t, Config{})
	id, err := ask(t.Context(), s, 35, 34)
	require.NoError(t, err)
	out, err := answer(t.Context(), s, 34, id, true)
	require.NoError(t, err)

	require.Equal(t, id, out.GetRequest().GetId())
	require.EqualValues(t, accepted, out.GetRequest().GetStatus())
	require.EqualValues(t, 34, out.GetFriend().GetUserId(), "the answerer's side")
	require.EqualValues(t, 35, out.GetFriend().GetFriendId())
	require.True(t, areFriends(t, s, 34, 35))
	require.Equal(t, told{version: 1, open: true, userA: 35, sessionID: id, sessions: true}, logic.told(34, 35))

	events := logic.eventsFor(35)
	require.Len(t, events, 1)
	require.Equal(t, id, events[0].GetRecordId())
	require.EqualValues(t, 35, events[0].GetRequesterId(), "orientation of the record, not swapped")
	require.EqualValues(t, 34, events[0].GetAnswererId())
	require.EqualValues(t, accepted, events[0].GetStatus())
	require.EqualValues(t, 34, events[0].GetProfile().GetId())
}

func TestAnswerRequest_Refuse(t *testing.T) {
	s, logic := setup(t, Config{})
	id, err := ask(t.Context(), s, 35, 34)
	require.NoError(t, err)
	out, err := answer(t.Context(), s, 34, id, false)
	require.NoError(t, err)
	require.EqualValues(t, refused, out.GetRequest().GetStatus())
	require.Nil(t, out.GetFriend())
	require.False(t, areFriends(t, s, 34, 35))
	require.Zero(t, logic.calls)
	require.EqualValues(t, refused, logic.eventsFor(35)[0].GetStatus())

	again, err := ask(t.Context(), s, 35, 34)
	require.NoError(t, err, "a refused request may be followed by another")
	require.NotEqual(t, id, again)
}

func TestDefect25_AnswerRequest_OnlyTheRecipientOnce(t *testing.T) {
	s, _ := setup(t, Config{})
	id, err := ask(t.Context(), s, 35, 34)
	require.NoError(t, err)
	for _, who := range []im.UserID{35, 36, 0} {
		_, err := answer(t.Context(), s, who, id, true)
		requireReason(t, "friend_request_not_answerable", err)
	}
	for _, unknown := range []int64{id + 1, 0, -1} {
		_, err = answer(t.Context(), s, 34, unknown, true)
		requireReason(t, "friend_request_not_answerable", err)
	}
	require.False(t, areFriends(t, s, 34, 35))

	_, err = answer(t.Context(), s, 34, id, true)
	require.NoError(t, err)
	for _, accept := range []bool{true, false} {
		_, err = answer(t.Context(), s, 34, id, accept)
		requireReason(t, "friend_request_not_answerable", err)
	}
	require.True(t, areFriends(t, s, 34, 35))
}

func TestAnswerRequest_ParallelAnswers_OneWins(t *testing.T) {
	s, logic := setup(t, Config{})
	for round := range 10 {
		a, b := im.UserID(100+2*round), im.UserID(101+2*round)
		id, err := ask(t.Context(), s, a, b)
		require.NoError(t, err)
		var wins, acceptWins atomic.Int32
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				_, err := answer(t.Context(), s, b, id, i%2 == 0)
				if err != nil {
					if im.ReasonOf(err) != "friend_request_not_answerable" {
						t.Error(err)
					}
					return
				}
				wins.Add(1)
				if i%2 == 0 {
					acceptWins.Add(1)
				}
			})
		}
		wg.Wait()
		require.EqualValues(t, 1, wins.Load())
		require.Len(t, logic.eventsFor(a), 1, "the requester is told once")
		require.Equal(t, acceptWins.Load() > 0, areFriends(t, s, a, b))
		require.Equal(t, acceptWins.Load() > 0, logic.told(a, b).open)
	}
}

// Two equal answers that are under way at once: the first to be certain wins, and
// the requester hears of it once.
func TestAnswerRequest_EqualAnswersAtOnce_OneWins(t *testing.T) {
	s, logic := setup(t, Config{})
	id, err := ask(t.Context(), s, 35, 34)
	require.NoError(t, err)
	var both sync.WaitGroup
	both.Add(2)
	logic.before = func(*logicv1.SetPrivateRequest) {
		both.Done()
		both.Wait()
	}
	errs := make(chan error, 2)
	for range 2 {
		go func() {
			_, err := answer(t.Context(), s, 34, id, true)
			errs <- err
		}()
	}
	won, lost := <-errs, <-errs
	if won != nil {
		won, lost = lost, won
	}
	require.NoError(t, won)
	requireReason(t, "friend_request_not_answerable", lost)
	require.Len(t, logic.eventsFor(35), 1)
	require.True(t, areFriends(t, s, 34, 35))
}

// An accept that logic could not confirm: the caller is told so, the same answer
// given again succeeds once logic is back, whoever finished the change.
func TestAnswerRequest_LogicAway_SameAnswerFinishesIt(t *testing.T) {
	for _, c := range []struct {
		name         string
		fail         outcome
		reconcile    bool // the background work comes before the repeated answer
		wantLogicNow bool
	}{
		{"request lost", lostRequest, false, false},
		{"response lost", lostResponse, false, true},
		{"request lost, finished in the background", lostRequest, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, logic := setup(t, Config{ClaimFor: 20 * time.Millisecond, LogicTimeout: 10 * time.Millisecond})
			id, err := ask(t.Context(), s, 35, 34)
			require.NoError(t, err)
			logic.setFail(func() outcome { return c.fail })
			_, err = answer(t.Context(), s, 34, id, true)
			requireReason(t, "friend_change_pending", err)
			require.Equal(t, im.KindUnavailable, im.KindOf(err))
			require.Equal(t, c.wantLogicNow, logic.told(34, 35).open)
			require.Empty(t, logic.eventsFor(35), "nobody hears of a change that is not certain")

			_, err = answer(t.Context(), s, 34, id, false)
			requireReason(t, "friend_request_not_answerable", err)
			_, err = answer(t.Context(), s, 35, id, true)
			requireReason(t, "friend_request_not_answerable", err)
			_, err = ask(t.Context(), s, 34, 35)
			requireReason(t, "friend_already", err)

			logic.setFail(nil)
			if c.reconcile {
				require.Eventually(t, func() bool {
					s.reconcile(t.Context())
					return logic.told(34, 35).open
				}, 5*time.Second, 10*time.Millisecond)
			}
			out, err := answer(t.Context(), s, 34, id, true)
			require.NoError(t, err)
			require.EqualValues(t, 35, out.GetFriend().GetFriendId())
			require.EqualValues(t, accepted, out.GetRequest().GetStatus())
			require.True(t, logic.told(34, 35).open)
			require.Len(t, logic.eventsFor(35), 1)

			_, err = answer(t.Context(), s, 34, id, true)
			requireReason(t, "friend_request_not_answerable", err)
		})
	}
}

func TestAnswerRequest_AcceptPendingThenDeleted_RepeatIsRefused(t *testing.T) {
	s, logic := setup(t, Config{})
	id, err := ask(t.Context(), s, 35, 34)
	require.NoError(t, err)
	logic.setFail(down)
	_, err = answer(t.Context(), s, 34, id, true)
	requireReason(t, "friend_change_pending", err)
	logic.setFail(nil)
	require.NoError(t, unfriend(t.Context(), s, 35, 34))
	_, err = answer(t.Context(), s, 34, id, true)
	requireReason(t, "friend_request_not_answerable", err)
	require.False(t, areFriends(t, s, 34, 35))
	require.Equal(t, int64(2), logic.told(34, 35).version)
	require.False(t, logic.told(34, 35).open)
}

func TestG12_DeleteFriend_OKOnlyWhenLogicHasClosed(t *testing.T) {
	s, logic := setup(t, Config{})
	befriend(t, s, 34, 35)
	require.NoError(t, unfriend(t.Context(), s, 35, 34))
	require.False(t, areFriends(t, s, 34, 35))
	got := logic.told(34, 35)
	require.False(t, got.open)
	require.Equal(t, int64(2), got.version)

	require.NoError(t, unfriend(t.Context(), s, 35, 34), "deleting nobody succeeds")
	require.NoError(t, unfriend(t.Context(), s, 34, 99))
	require.NoError(t, unfriend(t.Context(), s, 34, 34))
	require.NoError(t, unfriend(t.Context(), s, 34, im.BotID))
	require.Equal(t, int64(2), logic.told(34, 35).version)

	id := befriend(t, s, 35, 34)
	require.Equal(t, told{version: 3, open: true, userA: 35, sessionID: id, sessions: true}, logic.told(34, 35), "friends again")
}

func TestG12_DeleteFriend_LogicAway_NeverOKUntilClosed(t *testing.T) {
	for _, byRetry := range []bool{true, false} {
		s, logic := setup(t, Config{ClaimFor: 20 * time.Millisecond, LogicTimeout: 10 * time.Millisecond})
		befriend(t, s, 34, 35)
		logic.setFail(down)
		for range 3 {
			err := unfriend(t.Context(), s, 34, 35)
			requireReason(t, "friend_change_pending", err)
			require.Equal(t, im.KindUnavailable, im.KindOf(err))
			require.True(t, logic.told(34, 35).open)
		}
		logic.setFail(nil)
		if byRetry {
			require.NoError(t, unfriend(t.Context(), s, 34, 35))
			require.False(t, logic.told(34, 35).open)
			continue
		}
		require.Eventually(t, func() bool {
			s.reconcile(t.Context())
			return !logic.told(34, 35).open
		}, 5*time.Second, 10*time.Millisecond)
	}
}

// The accept's word to logic is held up on the way and arrives after the delete's.
func TestG12_LateOpenDoesNotReopen(t *testing.T) {
	s, logic := setup(t, Config{})
	id, err := ask(t.Context(), s, 35, 34)
	require.NoError(t, err)
	arrived, release := make(chan struct{}), make(chan struct{})
	logic.before = func(in *logicv1.SetPrivateRequest) {
		if in.GetOpen() {
			close(arrived)
			<-release
		}
	}
	done := make(chan error, 1)
	go func() {
		_, err := answer(t.Context(), s, 34, id, true)
		done <- err
	}()
	<-arrived
	require.NoError(t, unfriend(t.Context(), s, 34, 35))
	require.False(t, logic.told(34, 35).open)
	close(release)
	require.NoError(t, <-done)
	require.False(t, logic.told(34, 35).open, "the older version must change nothing")
	require.False(t, areFriends(t, s, 34, 35))
}

// Logic hears of the delete only in the background; the accept's confirmation,
// arriving late, must not hide that a newer version is pending.
func TestG12_LateConfirmationDoesNotHideANewerChange(t *testing.T) {
	s, logic := setup(t, Config{})
	id, err := ask(t.Context(), s, 35, 34)
	require.NoError(t, err)
	arrived, release := make(chan struct{}), make(chan struct{})
	logic.before = func(in *logicv1.SetPrivateRequest) {
		if in.GetOpen() {
			close(arrived)
			<-release
		}
	}
	done := make(chan error, 1)
	go func() {
		_, err := answer(t.Context(), s, 34, id, true)
		done <- err
	}()
	<-arrived
	logic.setFail(down)
	requireReason(t, "friend_change_pending", unfriend(t.Context(), s, 34, 35))
	logic.setFail(nil)
	close(release)
	require.NoError(t, <-done)
	require.True(t, readRelation(t, s, 34, 35).pending)
	require.NoError(t, unfriend(t.Context(), s, 34, 35))
	require.False(t, logic.told(34, 35).open)
}

// A delete decides on what it reads under the pair's lock, not before it.
func TestDeleteFriend_WaitsForTheChangeInProgress(t *testing.T) {
	s, _ := setup(t, Config{})
	befriend(t, s, 34, 35)
	tx, err := s.store.db.Beginx()
	require.NoError(t, err)
	rel, _, err := s.store.lockExisting(t.Context(), tx, 34, 35)
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- unfriend(t.Context(), s, 34, 35) }()
	select {
	case err := <-done:
		t.Fatalf("did not wait for the lock: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	// Somebody else's delete and accept of a new request, in one go.
	rel.version, rel.open = 8, false
	require.NoError(t, s.store.saveRelation(t.Context(), tx, rel, time.Hour))
	require.NoError(t, s.store.deleteFriendship(t.Context(), tx, 34, 35))
	require.NoError(t, tx.Commit())
	require.NoError(t, <-done)
	require.Equal(t, int64(8), readRelation(t, s, 34, 35).version, "there was nothing left to delete")
}

func TestRun_EveryReplicaReconciles_EachChangeOnce(t *testing.T) {
	db := openDB(t)
	logic := newFakeLogic()
	cfg := Config{ReconcileInterval: 10 * time.Millisecond, ClaimFor: time.Second, LogicTimeout: 100 * time.Millisecond}
	first := replica(t, db, logic, cfg)
	const n = 20
	var ids []int64
	for i := range im.UserID(n) {
		id, err := ask(t.Context(), first, 100+2*i, 101+2*i)
		require.NoError(t, err)
		ids = append(ids, id)
	}
	logic.setFail(down)
	for i := range im.UserID(n) {
		_, err := answer(t.Context(), first, 101+2*i, ids[i], true)
		require.Error(t, err)
	}
	logic.setFail(nil)
	logic.calls = 0

	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 3 {
		s := replica(t, db, logic, cfg)
		wg.Go(func() { _ = s.Run(ctx) })
	}
	require.Eventually(t, func() bool {
		var left int
		require.NoError(t, db.Get(&left, "SELECT COUNT(*) FROM friend_relations WHERE pending = 1"))
		return left == 0
	}, 10*time.Second, 20*time.Millisecond)
	cancel()
	wg.Wait()
	for i := range im.UserID(n) {
		require.True(t, logic.told(100+2*i, 101+2*i).open)
		require.Equal(t, ids[i], logic.told(100+2*i, 101+2*i).sessionID)
	}
	require.Equal(t, n, logic.calls, "two replicas did the same work")
}

func TestRequestFriend_ParallelFromBothSides_OneWaits(t *testing.T) {
	s, _ := setup(t, Config{})
	for round := range 10 {
		a, b := im.UserID(100+2*round), im.UserID(101+2*round)
		var ok atomic.Int32
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				from, to := a, b
				if i%2 == 0 {
					from, to = b, a
				}
				if _, err := ask(t.Context(), s, from, to); err == nil {
					ok.Add(1)
				} else if r := im.ReasonOf(err); r != "friend_request_waiting" && r != "reverse_request_waiting" {
					t.Errorf("unexpected refusal: %v", err)
				}
			})
		}
		wg.Wait()
		require.EqualValues(t, 1, ok.Load())
	}
}

func TestRequestFriend_DailyLimit(t *testing.T) {
	s, _ := setup(t, Config{RequestsPerDay: 5})
	var ok, limited atomic.Int32
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			_, err := ask(t.Context(), s, 10, im.UserID(100+i))
			switch {
			case err == nil:
				ok.Add(1)
			case im.ReasonOf(err) == "friend_request_limit":
				limited.Add(1)
			default:
				t.Errorf("unexpected refusal: %v", err)
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 5, ok.Load(), "the limit holds against parallel requests")
	require.EqualValues(t, 7, limited.Load())

	_, err := ask(t.Context(), s, 10, 500)
	e := &im.Error{}
	require.ErrorAs(t, err, &e)
	require.Equal(t, im.KindExhausted, e.Kind)
	require.InDelta(t, 24*time.Hour, e.RetryAfter, float64(time.Minute))
	_, err = ask(t.Context(), s, 11, 500)
	require.NoError(t, err, "others are not limited by him")

	_, err = s.store.db.Exec("UPDATE friend_requests SET created_at = TIMESTAMPADD(HOUR, -25, created_at) WHERE requester_id = 10")
	require.NoError(t, err)
	_, err = ask(t.Context(), s, 10, 500)
	require.NoError(t, err, "a day later he may ask again")
}

func TestAnswerRequest_FriendLimit(t *testing.T) {
	s, logic := setup(t, Config{MaxFriends: 2})
	befriend(t, s, 10, 11)
	befriend(t, s, 10, 12)
	id, err := ask(t.Context(), s, 10, 13)
	require.NoError(t, err)
	_, err = answer(t.Context(), s, 13, id, true)
	requireReason(t, "friend_limit", err)
	require.False(t, areFriends(t, s, 10, 13))
	require.Zero(t, logic.told(10, 13).version)
	require.NoError(t, unfriend(t.Context(), s, 10, 11))
	_, err = answer(t.Context(), s, 13, id, true)
	require.NoError(t, err, "the request still waits and can be accepted when there is room")
}

func TestLists(t *testing.T) {
	s, _ := setup(t, Config{ListLimit: 1})
	befriend(t, s, 10, 11)
	befriend(t, s, 12, 10)
	befriend(t, s, 13, 14)
	_, err := ask(t.Context(), s, 10, 15)
	require.NoError(t, err)
	last, err := ask(t.Context(), s, 16, 10)
	require.NoError(t, err)
	// One clock tick apart, whatever the ids.
	_, err = s.store.db.Exec("UPDATE friend_requests SET created_at = TIMESTAMPADD(SECOND, 1, created_at) WHERE id = ?", last)
	require.NoError(t, err)

	reqs, err := s.ListRequests(t.Context(), &friendv1.ListRequestsRequest{UserId: 10})
	require.NoError(t, err)
	require.Len(t, reqs.GetRequests(), 2, "bounded in each direction")
	require.Equal(t, last, reqs.GetRequests()[0].GetId(), "newest first")
	for _, r := range reqs.GetRequests() {
		require.True(t, r.GetRequesterId() == 10 || r.GetRecipientId() == 10)
	}
	_, err = s.store.db.Exec("UPDATE friend_requests SET created_at = TIMESTAMPADD(DAY, -1, created_at) WHERE id = ?", last)
	require.NoError(t, err)
	reqs, err = s.ListRequests(t.Context(), &friendv1.ListRequestsRequest{UserId: 10})
	require.NoError(t, err)
	require.Len(t, reqs.GetRequests(), 3)
	require.Equal(t, last, reqs.GetRequests()[2].GetId(), "what waits for an answer is there however old it is")
	none, err := s.ListRequests(t.Context(), &friendv1.ListRequestsRequest{UserId: 99})
	require.NoError(t, err)
	require.Empty(t, none.GetRequests())

	_, err = s.store.db.Exec("UPDATE friendships SET pinned = 1, pinned_at = UTC_TIMESTAMP(3) WHERE user_id = 10 AND friend_id = 11")
	require.NoError(t, err)
	friends, err := s.ListFriends(t.Context(), &friendv1.ListFriendsRequest{UserId: 10})
	require.NoError(t, err)
	require.Len(t, friends.GetFriends(), 2)
	require.EqualValues(t, 11, friends.GetFriends()[0].GetFriendId(), "pinned first")
	require.True(t, friends.GetFriends()[0].GetPinned())
	require.Positive(t, friends.GetFriends()[0].GetPinnedAtMs())
	require.EqualValues(t, 12, friends.GetFriends()[1].GetFriendId())

	filtered, err := s.FilterFriends(t.Context(), &friendv1.FilterFriendsRequest{UserId: 10, UserIds: []int64{9, 10, 11, 12, 13, 11}})
	require.NoError(t, err)
	require.ElementsMatch(t, []int64{11, 12}, filtered.GetUserIds())
	filtered, err = s.FilterFriends(t.Context(), &friendv1.FilterFriendsRequest{UserId: 10})
	require.NoError(t, err)
	require.Empty(t, filtered.GetUserIds())
	_, err = s.FilterFriends(t.Context(), &friendv1.FilterFriendsRequest{UserId: 10, UserIds: make([]int64, maxFilter+1)})
	requireReason(t, "friend_too_many_users", err)

	stranger, err := s.GetFriend(t.Context(), &friendv1.GetFriendRequest{UserId: 10, FriendId: 13})
	require.NoError(t, err)
	require.Nil(t, stranger.GetFriend())
}

func TestDatabaseAway_IsSaidSo(t *testing.T) {
	s, _ := setup(t, Config{})
	require.NoError(t, s.ids.refill(t.Context()))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := ask(ctx, s, 10, 11)
	require.Equal(t, im.KindUnavailable, im.KindOf(err), "%v", err)
	_, err = s.ListFriends(ctx, &friendv1.ListFriendsRequest{UserId: 10})
	require.Equal(t, im.KindUnavailable, im.KindOf(err), "%v", err)
}

func TestRequestFriend_FrameLost_RequestStands(t *testing.T) {
	s, logic := setup(t, Config{})
	require.NoError(t, s.ids.refill(t.Context()))
	logic.setFail(down)
	id, err := ask(t.Context(), s, 10, 11)
	require.NoError(t, err, "the frame is best effort")
	reqs, err := s.ListRequests(t.Context(), &friendv1.ListRequestsRequest{UserId: 11})
	require.NoError(t, err)
	require.Equal(t, id, reqs.GetRequests()[0].GetId())
}

// The socket hands on what a person typed; the REST edge refuses blanks itself.
func TestRequestFriend_WhiteSpaceIsNoText(t *testing.T) {
	s, _ := setup(t, Config{})
	for _, blank := range []string{" ", "\t\r\n", "\u00a0\u3000"} {
		_, err := s.RequestFriend(t.Context(), &friendv1.RequestFriendRequest{Requester: profile(10), ToUserId: 12, Information: blank})
		requireReason(t, "information_invalid", err)
	}
}
