package logic

import (
	"bytes"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	logicv1 "im-services/api/proto/logic/v1"
	"im-services/internal/im"
)

// commitEater forwards to MySQL; while armed it lets the next COMMIT happen and
// ends the connection instead of passing the answer on.
type commitEater struct {
	armed atomic.Bool
	wg    sync.WaitGroup
}

// throughCommitEater returns the eater and dsn by way of it.
func throughCommitEater(t *testing.T, dsn string) (*commitEater, string) {
	t.Helper()
	cfg, err := mysql.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e, target := &commitEater{}, cfg.Addr
	e.wg.Go(func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", target)
			if err != nil {
				_ = in.Close()
				continue
			}
			e.wg.Go(func() { e.serve(in, out) })
		}
	})
	t.Cleanup(func() { _ = ln.Close(); e.wg.Wait() })
	cfg.Addr = ln.Addr().String()
	return e, cfg.FormatDSN()
}

func (e *commitEater) serve(in, out net.Conn) {
	var eat atomic.Bool
	e.wg.Go(func() {
		pump(out, in, func(b []byte) bool {
			if bytes.Contains(b, []byte("COMMIT")) && e.armed.Swap(false) {
				eat.Store(true)
			}
			return true
		})
		_ = out.Close()
	})
	pump(in, out, func([]byte) bool { return !eat.Load() })
	_ = in.Close()
	_ = out.Close()
}

// pump copies until one end is over or pass refuses.
func pump(to, from net.Conn, pass func([]byte) bool) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if err != nil || !pass(buf[:n]) {
			return
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

// A change of a group whose COMMIT happened without an answer is not asked for
// again: the new members are told of their group, and no second one is made.
func TestG2_AGroupChangeIsFoundWhenTheAnswerToItsCommitIsLost(t *testing.T) {
	h := newHarness(t)
	h.befriendAll(10, 11, 12, 13)
	var eater *commitEater
	eater, h.dsn = throughCommitEater(t, h.dsn)
	h.replica()
	h.group(20, 21) // takes blocks of ids, which are committed, too
	for u := range int64(4) {
		h.connect(im.UserID(10+u), u+1, im.PlatformWeb)
	}

	eater.armed.Store(true)
	made, err := h.CreateGroup(t.Context(), createRequest(10, 11, 12))
	must(t, err)
	group := made.GetGroup().GetId()
	if eater.armed.Load() {
		t.Fatal("no COMMIT was eaten")
	}
	eater.armed.Store(true)
	_, err = h.AddMembers(t.Context(), &logicv1.AddMembersRequest{Actor: profile(10), GroupId: group, UserIds: []int64{13}})
	must(t, err)
	if eater.armed.Load() {
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
