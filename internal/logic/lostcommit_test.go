package logic

import (
	"bytes"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	logicv1 "im-services/api/proto/logic/v1"
	"im-services/internal/im"
	"im-services/internal/testkit"
)

// throughCommitEater returns dsn by way of something that, while armed, lets the
// next COMMIT happen and ends the connection instead of passing the answer on.
func throughCommitEater(t *testing.T, dsn string) (armed *atomic.Bool, through string) {
	t.Helper()
	cfg, err := mysql.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	armed = new(atomic.Bool)
	cfg.Addr = testkit.Tap(t, cfg.Addr, func() (request, answer func([]byte) bool) {
		var eat atomic.Bool
		request = func(b []byte) bool {
			if bytes.Contains(b, []byte("COMMIT")) && armed.Swap(false) {
				eat.Store(true)
			}
			return true
		}
		return request, func([]byte) bool { return !eat.Load() }
	})
	return armed, cfg.FormatDSN()
}

// A change of a group whose COMMIT happened without an answer is not asked for
// again: the new members are told of their group, and no second one is made.
func TestG2_AGroupChangeIsFoundWhenTheAnswerToItsCommitIsLost(t *testing.T) {
	h := newHarness(t)
	h.befriendAll(10, 11, 12, 13)
	armed, dsn := throughCommitEater(t, h.dsn)
	h.dsn = dsn
	h.replica()
	h.group(20, 21) // takes blocks of ids, which are committed, too
	for u := range int64(4) {
		h.connect(im.UserID(10+u), u+1, im.PlatformWeb)
	}

	armed.Store(true)
	made, err := h.CreateGroup(t.Context(), createRequest(10, 11, 12))
	must(t, err)
	group := made.GetGroup().GetId()
	if armed.Load() {
		t.Fatal("no COMMIT was eaten")
	}
	armed.Store(true)
	_, err = h.AddMembers(t.Context(), &logicv1.AddMembersRequest{Actor: profile(10), GroupId: group, UserIds: []int64{13}})
	must(t, err)
	if armed.Load() {
		t.Fatal("no COMMIT was eaten")
	}
	eventually(t, 2*time.Second, "everybody's session frame", func() bool {
		var told []int64
		for _, e := range h.bus.sessionEvents() {
			if e.GetSession().GetGroupId() == group {
				told = append(told, e.GetUserIds()...)
			}
		}
		slices.Sort(told)
		return slices.Equal(told, []int64{10, 11, 12, 13})
	})
	if n := len(h.members(group, 10)); n != 4 {
		t.Errorf("%d members", n)
	}
}
