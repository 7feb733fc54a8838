package logic

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	logicv1 "im-services/api/proto/logic/v1"
)

// replicaAt starts a replica whose database's clock stands still at a time: its
// own clock is as far from that as now is.
func (h *harness) replicaAt(now time.Time) *Server {
	h.t.Helper()
	dsn := h.dsn
	defer func() { h.dsn = dsn }()
	join := "?"
	if strings.Contains(dsn, "?") {
		join = "&"
	}
	h.dsn += join + fmt.Sprintf("timestamp=%d", now.Unix()) // a variable of every session
	return h.replica()
}

// A replica whose clock is wrong stores and judges no time by it.
func TestWrongClockOfAReplicaChangesNoLimit(t *testing.T) {
	for name, off := range map[string]time.Duration{"an hour fast": time.Hour, "an hour slow": -time.Hour} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t)
			now := time.Now().Add(-off).Truncate(time.Second)
			h.replicaAt(now)
			isNow := func(ms int64) {
				t.Helper()
				require.WithinRange(t, time.UnixMilli(ms), now, now.Add(2*lifeLook+busySlack))
			}
			group := h.group(10, 11)
			isNow(h.groupSession(11, group).GetCreatedAtMs())
			isNow(h.members(group, 10)[1].GetJoinedAtMs())

			first := h.mustSend(groupSend(11, group, 1, "x"))
			isNow(first.GetSentAtMs())
			second := h.mustSend(groupSend(11, group, 2, "x"))
			age := func(m *logicv1.SendResult, by time.Duration) {
				h.exec(`UPDATE messages SET sent_at_ms = ? WHERE id = ?`, now.Add(-by).UnixMilli(), m.GetMessageId())
			}
			recall := func(m *logicv1.SendResult) error {
				_, err := h.Recall(t.Context(), &logicv1.RecallRequest{UserId: 11, MessageId: m.GetMessageId(), Kind: 2})
				return err
			}
			age(first, h.cfg.RecallWindow/2)
			require.NoError(t, recall(first))
			age(second, 2*h.cfg.RecallWindow)
			wantReason(t, "too late", recall(second), "recall_refused")

			_, err := h.Mute(t.Context(), &logicv1.MuteRequest{Actor: profile(10), GroupId: group, UserId: 11, Seconds: 1800})
			require.NoError(t, err)
			isNow(h.members(group, 10)[1].GetMutedUntilMs() - 1800_000)
			_, err = h.trySend(groupSend(11, group, 3, "x"))
			wantReason(t, "muted", err, "member_muted")
			h.exec(`UPDATE members SET muted_until_ms = ? WHERE user_id = 11`, now.Add(-time.Minute).UnixMilli())
			h.store.memberCache.Purge()
			h.mustSend(groupSend(11, group, 4, "x"))

			invite, err := h.CreateInvite(t.Context(), &logicv1.CreateInviteRequest{UserId: 10, GroupId: group})
			require.NoError(t, err)
			isNow(invite.GetCreatedAtMs())
			require.NoError(t, h.join(12, group, "", invite.GetToken()))
			h.exec(`UPDATE invites SET expires_at_ms = ?`, now.Add(-time.Minute).UnixMilli())
			wantReason(t, "expired", h.join(13, group, "", invite.GetToken()), "invite_invalid")
		})
	}
}

// Who joined first inherits the group, whichever replica let him in and whatever
// its database's clock said.
func TestLeave_TheHeirIsWhoJoinedFirst(t *testing.T) {
	h := newHarness(t)
	home := h.Server
	group := h.group(10)
	h.replicaAt(time.Now().Add(time.Hour)) // its ids are from a later block, too
	require.NoError(t, h.join(11, group, "", ""))
	h.Server = home
	require.NoError(t, h.join(12, group, "", ""))
	for i, want := range []int64{10, 11, 12} {
		require.Equal(t, want, h.members(group, 10)[i].GetUserId())
	}
	_, err := h.LeaveGroup(t.Context(), &logicv1.LeaveGroupRequest{Actor: profile(10), Id: group})
	require.NoError(t, err)
	require.Equal(t, int64(11), h.groupSession(12, group).GetGroup().GetOwnerId())
}

// The clock goes on between two looks, and what a look says that took long is not
// taken for the time.
func TestClock(t *testing.T) {
	var c clock
	said := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	c.set(said, time.Now().Add(-2*lifeLook)) // better than nothing
	require.WithinRange(t, c.now(), said.Add(lifeLook), said.Add(lifeLook+busySlack))
	c.set(said, time.Now())
	c.set(said.Add(time.Hour), time.Now().Add(-2*lifeLook))
	require.WithinRange(t, c.now(), said, said.Add(busySlack))
	before := c.now()
	time.Sleep(10 * time.Millisecond)
	require.GreaterOrEqual(t, c.now().Sub(before), 10*time.Millisecond)
}
