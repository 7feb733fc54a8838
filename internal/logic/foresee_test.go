package logic

import (
	"fmt"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	logicv1 "im-services/api/proto/logic/v1"
	"im-services/internal/im"
)

// ways counts how the batches of s were stored.
func ways(t *testing.T, s *Server) (locked, unforeseen float64) {
	t.Helper()
	value := func(c prometheus.Counter) float64 {
		reg := prometheus.NewRegistry()
		reg.MustRegister(c)
		all, err := reg.Gather()
		require.NoError(t, err)
		return all[0].GetMetric()[0].GetCounter().GetValue()
	}
	return value(s.store.metrics.locked), value(s.store.metrics.unforeseen)
}

func TestForesee_KnownConversationIsNotReadAgain(t *testing.T) {
	h := newHarness(t)
	h.befriendLongAgo(1, 2)
	for n := int64(1); n <= 5; n++ {
		require.Equal(t, n, h.mustSend(privateSend(1, 2, n, "hi")).GetSeq())
	}
	locked, unforeseen := ways(t, h.Server)
	require.InDelta(t, 1, locked, 0, "only the first batch had to read")
	require.Zero(t, unforeseen)
	again := h.mustSend(privateSend(1, 2, 3, "hi"))
	require.True(t, again.GetDuplicate())
	require.EqualValues(t, 3, again.GetSeq())
	require.EqualValues(t, 6, h.mustSend(privateSend(2, 1, 1, "and you")).GetSeq())
}

func TestG12_ForeseenPermissionIsNotBelieved(t *testing.T) {
	h := newHarness(t)
	first := h.Server
	other := h.replica()
	on := func(s *Server) *harness { h.Server = s; return h }
	h.befriendLongAgo(1, 2)
	group := on(first).group(5, 6, 7)

	on(first).mustSend(privateSend(1, 2, 1, "friends"))
	on(first).mustSend(groupSend(6, group, 1, "member"))
	on(other).setPrivate(1, 2, false)
	require.NoError(t, on(other).kick(5, group, 6))
	_, err := on(first).trySend(privateSend(1, 2, 2, "no friend any more"))
	require.Equal(t, "not_friends", im.ReasonOf(err))
	_, err = on(first).trySend(groupSend(6, group, 2, "no member any more"))
	require.Equal(t, "not_a_member", im.ReasonOf(err))

	// A refusal is not believed either.
	on(other).setPrivate(1, 2, true)
	require.NoError(t, on(other).add(5, group, 6))
	require.EqualValues(t, 2, on(first).mustSend(privateSend(1, 2, 3, "again")).GetSeq())
	on(first).mustSend(groupSend(6, group, 3, "again"))
	_, unforeseen := ways(t, first)
	require.GreaterOrEqual(t, unforeseen, 2.0)
}

func TestForesee_SeqWrittenElsewhereIsNotGivenAgain(t *testing.T) {
	h := newHarness(t)
	replicas := h.replicas(2)
	h.befriendLongAgo(1, 2)
	var last *logicv1.SendResult
	for n := int64(1); n <= 8; n++ {
		h.Server = replicas[n/2%2] // two each
		r := h.mustSend(privateSend(1, 2, n, "hi"))
		require.Equal(t, n, r.GetSeq())
		require.Greater(t, r.GetMessageId(), last.GetMessageId())
		last = r
	}
}

// Replicas that write to the same conversations in other orders, in batches,
// with what they remember always out of date.
func TestG5_ForeseenBatchesOfTwoReplicas(t *testing.T) {
	h := newHarness(t)
	replicas := h.replicas(2)
	const pairs, each = 8, 40
	for p := range im.UserID(pairs) {
		h.befriendLongAgo(2*p+1, 2*p+2)
	}
	var wg sync.WaitGroup
	for k, s := range replicas {
		for p := range im.UserID(pairs) {
			if k == 1 {
				p = pairs - 1 - p
			}
			wg.Go(func() {
				for n := range int64(each) {
					m := privateSend(2*p+1, 2*p+2, 1000*int64(k)+n+1, fmt.Sprint(k, n))
					if _, err := sendTo(s, m); err != nil {
						t.Errorf("replica %d, pair %d, message %d: %v", k, p, n, err)
					}
				}
			})
		}
	}
	wg.Wait()
	var broken int
	require.NoError(t, h.store.db.Get(&broken, `SELECT COUNT(*) FROM conversations c WHERE c.last_seq <> ?
		OR c.last_seq <> (SELECT COUNT(*) FROM messages m WHERE m.conversation_id = c.id)
		OR c.last_seq <> (SELECT MAX(seq) FROM messages m WHERE m.conversation_id = c.id)
		OR c.last_message_id <> (SELECT MAX(id) FROM messages m WHERE m.conversation_id = c.id)`, 2*each))
	require.Zero(t, broken)
	require.NoError(t, h.store.db.Get(&broken, `SELECT COUNT(*) FROM messages a JOIN messages b ON b.conversation_id = a.conversation_id AND b.seq = a.seq + 1 WHERE b.id <= a.id`))
	require.Zero(t, broken)
}

// After a fail-over the store may know less than is remembered.
func TestForesee_StoreThatForgotIsBelieved(t *testing.T) {
	h := newHarness(t)
	conv := h.befriendLongAgo(1, 2)
	for n := int64(1); n <= 3; n++ {
		h.mustSend(privateSend(1, 2, n, "hi"))
	}
	h.exec(`DELETE FROM messages WHERE conversation_id = ? AND seq = 3`, int64(conv))
	h.exec(`UPDATE conversations SET last_seq = 2 WHERE id = ?`, int64(conv))
	require.EqualValues(t, 3, h.mustSend(privateSend(1, 2, 4, "again")).GetSeq(), "no seq is left out")
}
