package logic

import (
	"context"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	logicv1 "im-services/api/proto/logic/v1"
)

// served makes the database look as if it had been served by another server so
// far, which is what the one that takes over finds.
func (h *harness) served() {
	h.t.Helper()
	_, err := h.store.db.ExecContext(h.t.Context(), `UPDATE meta SET value = '4711' WHERE name = 'server'`)
	require.NoError(h.t, err)
}

func (h *harness) noted(name string) (value string) {
	h.t.Helper()
	require.NoError(h.t, h.store.db.GetContext(h.t.Context(), &value, `SELECT value FROM meta WHERE name = ?`, name))
	return value
}

func syncOf(t *testing.T, s *Server, user int64, epoch string, cursors ...*logicv1.Cursor) *logicv1.SyncResponse {
	t.Helper()
	resp, err := s.Sync(t.Context(), &logicv1.SyncRequest{UserId: user, Epoch: epoch, Cursors: cursors})
	require.NoError(t, err)
	return resp
}

// Whoever is asked first after a fail-over says that everything is to be read
// anew, and all replicas say the same from then on.
func TestG7_AnotherServerIsAnotherEpoch(t *testing.T) {
	h := newHarness(t)
	replicas := h.replicas(3)
	conv := int64(h.befriend(1, 2))
	for n := int64(1); n <= 5; n++ {
		h.mustSend(privateSend(1, 2, n, "hi"))
	}
	all := &logicv1.Cursor{ConversationId: conv, Seq: 5}
	before := syncOf(t, h.Server, 2, "").GetEpoch()
	for _, s := range replicas {
		resp := syncOf(t, s, 2, before, all)
		require.False(t, resp.GetFullResync())
		require.Empty(t, resp.GetConversations(), "nothing is new")
	}

	for range 20 { // fail-overs
		h.served()
		answers, errs := make([]*logicv1.SyncResponse, len(replicas)), make([]error, len(replicas))
		var wg sync.WaitGroup
		for i, s := range replicas {
			wg.Go(func() {
				answers[i], errs[i] = s.Sync(t.Context(), &logicv1.SyncRequest{UserId: 2, Epoch: before, Cursors: []*logicv1.Cursor{all}})
			})
		}
		wg.Wait()
		after := h.noted("epoch")
		require.NotEqual(t, before, after)
		require.NotEqual(t, "4711", h.noted("server"))
		for i, resp := range answers {
			require.NoError(t, errs[i])
			require.True(t, resp.GetFullResync())
			require.Equal(t, after, resp.GetEpoch())
			require.True(t, resp.GetComplete())
			require.Len(t, resp.GetConversations()[0].GetMessages(), 5, "the cursors of another life count for nothing")
		}
		for _, s := range replicas {
			require.False(t, syncOf(t, s, 2, after, all).GetFullResync())
		}
		before = after
	}
}

// A replica that is asked for nothing learns of it as well, and one that starts
// again on the same server begins no new life.
func TestG7_EveryReplicaLearnsOfANewEpoch(t *testing.T) {
	h := newHarness(t)
	both := h.replicas(2)
	first, other := both[0], both[1]
	before := first.store.life.Load().Epoch
	require.Equal(t, before, other.store.life.Load().Epoch)
	h.served()
	eventually(t, 2*lifeLook, "a new life has begun, for both", func() bool {
		a, b := first.store.life.Load().Epoch, other.store.life.Load().Epoch
		return a == b && a != before
	})
	after := first.store.life.Load().Epoch
	require.Equal(t, after, h.noted("epoch"))
	require.Equal(t, after, h.replica().store.life.Load().Epoch)
}

// No seq is given under an epoch that does not name its server, remembered or
// not; and what is sent at that moment is stored once.
func TestG7_NoSeqIsGivenUnderTheEpochOfAnotherServer(t *testing.T) {
	h := newHarness(t)
	h.befriend(1, 2)
	group := h.group(5, 6, 7)
	h.mustSend(privateSend(1, 2, 1, "known"))
	h.mustSend(groupSend(6, group, 1, "known"))
	seq := h.mustSend(groupSend(6, group, 2, "known")).GetSeq()

	for what, write := range map[string]func() error{
		"a conversation that is remembered": func() error {
			r, err := h.trySend(privateSend(1, 2, 2, "new"))
			require.EqualValues(t, 2, r.GetSeq())
			return err
		},
		"a group change": func() error { return h.kick(5, group, 7) },
	} {
		before := h.noted("epoch")
		// As it is for a writer that has not noticed yet: the database has another
		// server than the one it knows.
		h.store.life.Store(&life{Epoch: before, Server: 4711})
		h.served()
		require.NoError(t, write(), what)
		require.NotEqual(t, before, h.noted("epoch"), what)
		require.NotEqual(t, "4711", h.noted("server"), what)
	}
	require.Equal(t, seq+2, h.mustSend(groupSend(6, group, 3, "after the notice")).GetSeq())
	again := h.mustSend(privateSend(1, 2, 2, "new"))
	require.True(t, again.GetDuplicate())
}

// That is how whoever restores a backup tells clients to start afresh.
func TestG7_ADeletedEpochIsAnotherEpoch(t *testing.T) {
	h := newHarness(t)
	h.befriend(1, 2)
	h.mustSend(privateSend(1, 2, 1, "hi"))
	before := syncOf(t, h.Server, 2, "").GetEpoch()
	_, err := h.store.db.ExecContext(t.Context(), `DELETE FROM meta WHERE name = 'epoch'`)
	require.NoError(t, err)
	resp := syncOf(t, h.Server, 2, before)
	require.True(t, resp.GetFullResync())
	require.NotEqual(t, before, resp.GetEpoch())
	require.Equal(t, h.noted("epoch"), resp.GetEpoch())
}

// A database from before it said which server it is on keeps its epoch.
func TestLife_AnOldDatabaseKeepsItsEpoch(t *testing.T) {
	h := newHarness(t)
	before := h.noted("epoch")
	_, err := h.store.db.ExecContext(t.Context(), `DELETE FROM meta WHERE name = 'server'`)
	require.NoError(t, err)
	now, err := h.store.look(context.WithoutCancel(t.Context()))
	require.NoError(t, err)
	require.Equal(t, before, now.Epoch)
	require.Equal(t, before, h.noted("epoch"))
	require.NotEmpty(t, h.noted("server"))
}
