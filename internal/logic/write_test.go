package logic

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	logicv1 "im-services/api/proto/logic/v1"
	pushv1 "im-services/api/proto/push/v1"
	"im-services/internal/im"
	"im-services/internal/platform/database"
)

func TestSend_NumbersFromOneAndAcksWhatIsStored(t *testing.T) {
	h := newHarness(t)
	conv := h.befriend(2, 3)
	for i := int64(1); i <= 5; i++ {
		res := h.mustSend(privateSend(2, 3, i, fmt.Sprint("m", i)))
		if res.GetSeq() != i || im.ConversationID(res.GetConversationId()) != conv || res.GetMessageId() <= 0 || res.GetDuplicate() {
			t.Fatalf("send %d: %v", i, res)
		}
	}
	rows, err := h.store.readMessages(t.Context(), h.store.db, conv, 0, 100, 100)
	if err != nil || len(rows) != 5 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	for i, m := range rows {
		if m.Text != fmt.Sprint("m", i+1) || i > 0 && m.ID <= rows[i-1].ID {
			t.Fatalf("row %d: %+v", i, m)
		}
	}
}

func TestSend_StrangersAndEndedFriendsAreRefused(t *testing.T) {
	h := newHarness(t)
	refusedAs := func(what string, want string, m *logicv1.Send) {
		t.Helper()
		if _, err := h.trySend(m); !errors.Is(err, &im.Error{Reason: want}) {
			t.Errorf("%s: %v, want %s", what, err, want)
		}
	}
	refusedAs("stranger", "not_friends", privateSend(2, 3, 1, "x"))
	h.befriend(2, 3)
	first := h.mustSend(privateSend(2, 3, 1, "x"))
	h.setPrivate(3, 2, false)
	refusedAs("ended friend", "not_friends", privateSend(2, 3, 2, "x"))
	refusedAs("group that is none", "not_a_member", &logicv1.Send{SenderId: 2, ToId: 999_999, ClientMsgId: 1, Kind: 2, Type: 1, Text: "x", Sender: alice})
	// What was acknowledged stays acknowledged: a retry learns so even now.
	again, err := h.trySend(privateSend(2, 3, 1, "x"))
	if err != nil || again.GetSeq() != first.GetSeq() || !again.GetDuplicate() {
		t.Errorf("retry after the friendship ended: %v, %v", again, err)
	}
	// Anybody may write to the bot.
	if res := h.mustSend(privateSend(2, im.BotID, 9, "hello bot")); res.GetSeq() != 1 {
		t.Errorf("bot: %v", res)
	}
}

func TestG3_SameKeySentHundredTimesInParallelIsOneMessage(t *testing.T) {
	h := newHarness(t)
	conv := h.befriend(2, 3)
	first := h.Server
	second := h.replica()
	results := make([]*logicv1.SendResult, 100)
	var wg sync.WaitGroup
	for i := range results {
		wg.Go(func() {
			var err error
			results[i], err = sendTo([]*Server{first, second}[i%2], privateSend(2, 3, 77, "once"))
			if err != nil {
				t.Errorf("send %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	fresh := 0
	for _, r := range results {
		if r.GetMessageId() != results[0].GetMessageId() || r.GetSeq() != 1 || r.GetSentAtMs() != results[0].GetSentAtMs() {
			t.Fatalf("answers differ: %v, %v", r, results[0])
		}
		if !r.GetDuplicate() {
			fresh++
		}
	}
	if fresh != 1 {
		t.Errorf("%d answers call themselves the first", fresh)
	}
	if rows, err := h.store.readMessages(t.Context(), h.store.db, conv, 0, 100, 100); err != nil || len(rows) != 1 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
}

func TestG3_SameKeyOtherContentIsAnError(t *testing.T) {
	h := newHarness(t)
	h.befriend(2, 3)
	h.mustSend(privateSend(2, 3, 1, "first"))
	for what, m := range map[string]*logicv1.Send{
		"text": privateSend(2, 3, 1, "second"),
		"type": func() *logicv1.Send { m := privateSend(2, 3, 1, "first"); m.Type = 2; return m }(),
		"data": func() *logicv1.Send { m := privateSend(2, 3, 1, "first"); m.DataJson = `"d"`; return m }(),
	} {
		if _, err := h.trySend(m); !errors.Is(err, &im.Error{Reason: "client_msg_id_reused"}) {
			t.Errorf("other %s: %v", what, err)
		}
	}
	// The same key in another conversation is another message.
	h.befriend(2, 4)
	if res := h.mustSend(privateSend(2, 4, 1, "second")); res.GetDuplicate() {
		t.Error("a key of one conversation counted in another")
	}
}

// TestG6_ABacklogLeavesNoHoleInWhatAConnectionFollows: the platform has received
// more on another connection, but this one has not written it.
func TestG6_ABacklogLeavesNoHoleInWhatAConnectionFollows(t *testing.T) {
	h := newHarness(t)
	conv := h.befriend(2, 3)
	for i := range int64(6) {
		h.mustSend(privateSend(2, 3, i+1, fmt.Sprint(i+1)))
	}
	h.ack(3, im.PlatformWeb, conv, 4)
	b := h.syncFrom(3, conv, 2)
	var seqs []int64
	for _, m := range b.messages() {
		seqs = append(seqs, m.GetSeq())
	}
	if !slices.Equal(seqs, []int64{3, 4, 5, 6}) {
		t.Errorf("after 2 came %v", seqs)
	}
}

// With several connections of a platform each gets what it lacks, though another
// has received everything.
func TestG6_ABacklogFillsOneOfSeveralConnectionsOfAPlatform(t *testing.T) {
	h := newHarness(t, func(c *Config) { c.MultiDevice = multiAllow })
	conv := h.befriend(2, 3)
	for i := range int64(6) {
		h.mustSend(privateSend(2, 3, i+1, fmt.Sprint(i+1)))
	}
	h.ack(3, im.PlatformWeb, conv, 6)
	b := h.syncFrom(3, conv, 4)
	if got := len(b.messages()); got != 2 {
		t.Errorf("after 4 of 6 came %d", got)
	}
}

// Nobody acknowledges what is not sent to him: where he spoke last, his own
// messages are read by one connect, not by each.
func TestBacklog_OwnMessagesAreReadOnce(t *testing.T) {
	h := newHarness(t)
	conv := h.befriend(2, 3)
	h.mustSend(privateSend(3, 2, 1, "a"))
	h.ack(2, im.PlatformWeb, conv, 1)
	for i := range int64(3) {
		h.mustSend(privateSend(2, 3, i+1, "b"))
	}
	behind := func(user im.UserID) int {
		list, err := h.store.conversationsBehind(t.Context(), user, im.PlatformWeb, nil)
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	if behind(2) != 1 || behind(3) != 1 {
		t.Fatalf("behind: %d and %d", behind(2), behind(3))
	}
	h.connect(2, 1, im.PlatformWeb)
	h.connect(3, 2, im.PlatformWeb)
	if behind(2) != 0 {
		t.Error("his own messages are read again")
	}
	if behind(3) != 1 {
		t.Error("what was sent and not acknowledged counts as received")
	}
	if got := len(h.connect(2, 3, im.PlatformApp).messages()); got != 4 {
		t.Errorf("%d messages for his other device, want 4", got)
	}
}

// syncFrom is what a connection of the web gets that stands at seq in a conversation.
func (h *harness) syncFrom(user im.UserID, conv im.ConversationID, seq int64) *backlogStream {
	h.t.Helper()
	b := &backlogStream{ctx: h.t.Context()}
	if err := h.Backlog(&logicv1.BacklogRequest{
		GatewayId: testGateway, Conn: &logicv1.Conn{UserId: int64(user), ConnId: 1, Platform: int32(im.PlatformWeb), SinceMs: time.Now().UnixMilli()},
		Positions: []*logicv1.Cursor{{ConversationId: int64(conv), Seq: seq}},
	}, b); err != nil {
		h.t.Fatal(err)
	}
	return b
}

// submitAll hands in sends of 2 to 3 by their ids, each with what came after it,
// and returns their results by id.
func (h *harness) submitAll(ids []int64, later map[int64][]int64) map[int64]*logicv1.SendResult {
	h.t.Helper()
	type settled struct {
		id  int64
		res *logicv1.SendResult
	}
	done := make(chan settled, len(ids))
	for _, id := range ids {
		h.post(privateSend(2, 3, id, fmt.Sprint(id)), later[id], func(r *logicv1.SendResult) { done <- settled{id, r} })
	}
	out := map[int64]*logicv1.SendResult{}
	for range ids {
		s := <-done
		out[s.id] = s.res
	}
	return out
}

// TestG5_WhatWasOvertakenIsNotStored: another replica refused 1 and stored 2, and
// died before it could say either. Sent again, in order, 1 must not be stored
// behind 2: nobody knows what became of it, and its sender asks again.
func TestG5_WhatWasOvertakenIsNotStored(t *testing.T) {
	h := newHarness(t)
	h.befriend(2, 3)
	h.mustSend(privateSend(2, 3, 2, "2"))
	again := h.submitAll([]int64{1, 2, 3}, map[int64][]int64{1: {2, 3}, 2: {3}})
	if e := again[1].GetError(); im.Kind(e.GetKind()) != im.KindUnknown {
		t.Errorf("overtaken: %v", again[1])
	}
	if r := again[2]; r.GetSeq() != 1 || !r.GetDuplicate() {
		t.Errorf("stored before: %v", r)
	}
	if r := again[3]; r.GetSeq() != 2 || r.GetDuplicate() {
		t.Errorf("after it: %v", r)
	}
	// Each in a batch of its own.
	h.mustSend(privateSend(2, 3, 12, "12"))
	alone := h.submitAll([]int64{11}, map[int64][]int64{11: {12, 13}})
	if e := alone[11].GetError(); im.Kind(e.GetKind()) != im.KindUnknown {
		t.Errorf("overtaken, alone: %v", alone[11])
	}
	// It was stored behind it, by a replica that knew nothing of that: it is not
	// acknowledged as if it stood before, but whoever asks again learns where it is.
	h.mustSend(privateSend(2, 3, 11, "11"))
	late := h.submitAll([]int64{11, 12}, map[int64][]int64{11: {12, 13}, 12: {13}})
	if e := late[11].GetError(); im.Kind(e.GetKind()) != im.KindUnknown || late[12].GetSeq() != 3 {
		t.Errorf("behind what came after it: %v and %v", late[11], late[12])
	}
	if r := h.submitAll([]int64{11}, nil)[11]; r.GetSeq() != 4 || !r.GetDuplicate() {
		t.Errorf("asked again: %v", r)
	}
	// Nothing of it is stored: all are, in order.
	moved := h.submitAll([]int64{21, 22, 23}, map[int64][]int64{21: {22, 23}, 22: {23}})
	for i, id := range []int64{21, 22, 23} {
		if got := moved[id].GetSeq(); got != int64(5+i) {
			t.Errorf("%d has seq %d: %v", id, got, moved[id])
		}
	}
}

// TestG2_WhatWasRefusedElsewhereIsNotStoredLate: a copy of a send is on its way to one
// replica; its client goes elsewhere, is refused by another, and makes friends again.
// When the copy arrives, the send is settled: it was refused.
func TestG2_WhatWasRefusedElsewhereIsNotStoredLate(t *testing.T) {
	h := newHarness(t)
	first := h.Server
	second := h.replica()
	var turn int64
	kind := func(s *Server, origin string, id int64) im.Kind {
		m := privateSend(2, 3, id, "x")
		m.Origin, m.Turn = origin, turn
		_, err := sendTo(s, m)
		if err == nil {
			return 0
		}
		return im.KindOf(err)
	}
	if k := kind(first, "g1/1", 5); k != im.KindForbidden {
		t.Fatalf("before they are friends: %v", k)
	}
	// The note is about to be committed while the conversation is made.
	_, err := h.store.db.Exec(`UPDATE refusals SET conversation_id = 1`)
	must(t, err)
	conv := h.befriend(2, 3)
	_, err = h.store.db.Exec(`UPDATE refusals SET conversation_id = 0`)
	must(t, err)
	if k := kind(second, "g2/2", 5); k != im.KindUnknown {
		t.Errorf("what was refused before there was a conversation: %v", k)
	}
	old := func() { // as if all of this were long ago
		t.Helper()
		_, err := h.store.db.Exec(`UPDATE conversations SET refused_at_ms = 0`)
		must(t, err)
		_, err = h.store.db.Exec(`UPDATE refusals SET at_ms = at_ms - ?`, refusalLasts.Milliseconds())
		must(t, err)
		first.store.foreseen.Purge()
		second.store.foreseen.Purge()
	}
	old()
	for _, s := range []*Server{first, second} {
		if k := kind(s, "g3/3", s.store.nowMS()); k != 0 {
			t.Fatalf("a friend: %v", k)
		}
		if _, ok := s.store.foreseen.Get(conv); !ok {
			t.Fatal("not remembered, so that it could be stored in one go")
		}
	}
	h.setPrivate(2, 3, false)
	for _, origin := range []string{"g1/1", "g2/2"} { // whoever heard it last
		if k := kind(first, origin, 1); k != im.KindForbidden {
			t.Fatalf("while they are no friends: %v", k)
		}
	}
	h.setPrivate(2, 3, true)
	for _, s := range []*Server{second, first} {
		if k := kind(s, "g3/3", s.store.nowMS()); k != 0 { // and remembered again
			t.Fatalf("friends again: %v", k)
		}
		if k := kind(s, "g1/1", 1); k != im.KindUnknown {
			t.Errorf("the copy that comes late: %v", k)
		}
	}
	if k := kind(second, "g2/2", 1); k != 0 {
		t.Errorf("tried again where it was refused: %v", k)
	}
	if k := kind(first, "g1/1", 1); k != 0 {
		t.Errorf("stored by now: %v", k)
	}

	// Its gateway gave it to one replica and then to another.
	h.setPrivate(2, 3, false)
	turn = 1
	if k := kind(second, "g3/http", 6); k != im.KindForbidden {
		t.Fatalf("while they are no friends: %v", k)
	}
	h.setPrivate(2, 3, true)
	turn = 0
	if k := kind(first, "g3/http", 6); k != im.KindUnknown {
		t.Errorf("the copy of before it was moved: %v", k)
	}
	turn = 2
	if k := kind(first, "g3/http", 6); k != 0 {
		t.Errorf("asked again after it: %v", k)
	}

	// Its refusal was not told, because it had been moved; then that of an earlier copy is noted.
	h.setPrivate(2, 3, false)
	for _, turn = range []int64{4, 3} {
		if k := kind(second, "g3/3", 7); k != im.KindForbidden {
			t.Fatalf("while they are no friends: %v", k)
		}
	}
	h.setPrivate(2, 3, true)
	for _, c := range []struct {
		turn int64
		want im.Kind
	}{{3, im.KindUnknown}, {4, 0}} {
		turn = c.turn
		if k := kind(first, "g3/3", 7); k != c.want {
			t.Errorf("turn %d: %v, not %v", turn, k, c.want)
		}
	}
	turn = 0

	h.setPrivate(2, 3, false)
	if k := kind(first, "g2/2", 4); k != im.KindForbidden {
		t.Fatalf("while they are no friends: %v", k)
	}
	h.setPrivate(2, 3, true)
	old()
	if k := kind(second, "g1/1", 4); k != 0 {
		t.Errorf("held for ever: %v", k)
	}
	h.store.forgetRefusals(t.Context())
	var left int
	must(t, h.store.db.Get(&left, `SELECT COUNT(*) FROM refusals`))
	if left != 0 {
		t.Errorf("%d notes are left", left)
	}
}

// TestG2_WhatMayBeStoredIsNotRefused: a batch whose COMMIT was not answered is tried
// again one by one, and the database goes away.
func TestG2_WhatMayBeStoredIsNotRefused(t *testing.T) {
	h := newHarness(t)
	h.befriend(2, 3)
	var batch []*sendReq
	for id := int64(1); id <= 2; id++ {
		r, err := newSendReq(privateSend(2, 3, id, "x"))
		must(t, err)
		batch = append(batch, r)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for unknown, want := range map[bool]im.Kind{true: im.KindUnknown, false: im.KindUnavailable} {
		outcomes, _ := h.store.commitSingly(ctx, batch, unknown, true)
		for i, o := range outcomes {
			if got := im.KindOf(o.err); got != want {
				t.Errorf("unknown %v: send %d ends %v", unknown, i, got)
			}
		}
	}
}

// TestG2_WhatComesLateIsNotTaken: a send says until when, by this replica's clock, it
// may be taken; the stream that carries a later one ends, and nothing of it is stored.
func TestG2_WhatComesLateIsNotTaken(t *testing.T) {
	h := newHarness(t)
	h.befriend(2, 3)
	down, ended := make(chan *logicv1.SendStreamResponse, 10), make(chan error, 1)
	st := &gatewayStream{ctx: t.Context(), up: make(chan *logicv1.SendStreamRequest, 10), send: func(m *logicv1.SendStreamResponse) error { down <- m; return nil }}
	go func() { ended <- h.SendStream(st) }()
	clock := (<-down).GetClockUs()
	if clock <= 0 {
		t.Fatalf("the stream says no time: %d", clock)
	}
	put := func(id, notAfter int64) {
		st.up <- &logicv1.SendStreamRequest{Sends: []*logicv1.StreamSend{{Ref: 1, Send: privateSend(2, 3, id, "x")}}, NotAfterUs: notAfter}
	}
	put(1, clock+time.Minute.Microseconds())
	if r := <-down; len(r.GetResults()) != 1 || r.GetResults()[0].GetResult().GetSeq() != 1 || r.GetClockUs() <= clock {
		t.Fatalf("in time: %v", r)
	}
	put(2, clock)
	if err := <-ended; status.Code(err) != codes.Aborted {
		t.Fatalf("late: the stream ended with %v", err)
	}
	if r := h.mustSend(privateSend(2, 3, 2, "x")); r.GetDuplicate() || r.GetSeq() != 2 {
		t.Fatalf("stored late: %v", r)
	}
}

// A stream without results tells its clock all the same.
func TestG2_AStreamTellsItsClock(t *testing.T) {
	told := make(chan *logicv1.SendStreamResponse, 3)
	w := newResultWriter(func(r *logicv1.SendStreamResponse) error { told <- r; return nil })
	defer w.close()
	w.tell()
	if r := <-told; len(r.GetResults()) != 0 || r.GetClockUs() <= 0 {
		t.Errorf("told %v", r)
	}
	w.expect()
	w.add(7, &logicv1.SendResult{Seq: 1})
	if r := <-told; len(r.GetResults()) != 1 || r.GetResults()[0].GetRef() != 7 {
		t.Errorf("answered %v", r)
	}
}

func TestG5_SeqIsGaplessAndOrderedAcrossReplicas(t *testing.T) {
	h := newHarness(t)
	const pairs, each = 8, 60
	convs := make([]im.ConversationID, pairs)
	for p := range pairs {
		convs[p] = h.befriend(im.UserID(10+2*p), im.UserID(11+2*p))
	}
	servers := h.replicas(2)
	var wg sync.WaitGroup
	for p := range pairs {
		for side := range 2 {
			wg.Go(func() {
				from, to := im.UserID(10+2*p+side), im.UserID(11+2*p-side)
				var last int64
				for i := range each {
					r, err := sendTo(servers[(i+p+side)%2], privateSend(from, to, int64(i+1), fmt.Sprint(i)))
					if err != nil {
						t.Errorf("send: %v", err)
						return
					}
					if seq := r.GetSeq(); seq <= last {
						t.Errorf("acked before and numbered after: %d then %d", last, seq)
					} else {
						last = seq
					}
				}
			})
		}
	}
	wg.Wait()
	for _, conv := range convs {
		rows, err := h.store.readMessages(t.Context(), h.store.db, conv, 0, 1000, 1000)
		if err != nil || len(rows) != 2*each {
			t.Fatalf("%d rows, %v", len(rows), err)
		}
		for i, m := range rows {
			if m.Seq != im.Seq(i+1) || i > 0 && m.ID <= rows[i-1].ID {
				t.Fatalf("row %d has seq %d, id %d after %d", i, m.Seq, m.ID, rows[max(i-1, 0)].ID)
			}
		}
	}
}

func TestPush_ReachesTheRecipientInOrderWithCounters(t *testing.T) {
	h := newHarness(t)
	h.befriend(2, 3)
	h.connect(2, 1, im.PlatformWeb)
	first := h.connect(3, 2, im.PlatformWeb).resp[0]
	for i := int64(1); i <= 20; i++ {
		m := privateSend(2, 3, i, fmt.Sprint(i))
		m.Origin = testGateway + "/1"
		h.mustSend(m)
	}
	eventually(t, 2*time.Second, "20 pushes", func() bool { return len(h.bus.pushedTo(3)) == 20 })
	pv := first.GetPv()
	for _, e := range h.bus.all() {
		if e.GetEpoch() != first.GetEpoch() {
			t.Fatalf("epoch %q, connected under %q", e.GetEpoch(), first.GetEpoch())
		}
		for _, d := range e.GetDeliveries() {
			pv += int64(len(d.GetMessages()))
			if d.GetPvs()[0] != pv {
				t.Fatalf("counter %d, want %d", d.GetPvs()[0], pv)
			}
		}
	}
	for i, m := range h.bus.pushedTo(3) {
		if m.GetSeq() != int64(i+1) || !m.GetContiguous() {
			t.Fatalf("push %d: %v", i, m)
		}
	}
	if got := h.bus.pushedTo(2); len(got) != 0 {
		t.Errorf("the sender's only connection was pushed its own %d messages", len(got))
	}
}

func TestPush_SenderGetsItOnHisOtherConnections(t *testing.T) {
	h := newHarness(t)
	h.befriend(2, 3)
	h.connect(2, 1, im.PlatformWeb)
	h.connect(2, 2, im.PlatformPC)
	m := privateSend(2, 3, 1, "x")
	m.Origin = testGateway + "/1"
	h.mustSend(m)
	eventually(t, 2*time.Second, "echo", func() bool { return len(h.bus.pushedTo(2)) == 1 })
}

// The bus is away: nothing is acked late or lost, and once it is back the
// outbox publishes what was missed.
func TestG8_OutboxPublishesWhatTheBusRefused(t *testing.T) {
	h := newHarness(t)
	h.befriend(2, 3)
	h.connect(3, 2, im.PlatformWeb)
	h.bus.failWith(errors.New("bus is away"))
	for i := int64(1); i <= 5; i++ {
		h.mustSend(privateSend(2, 3, i, fmt.Sprint(i)))
	}
	time.Sleep(100 * time.Millisecond)
	h.bus.failWith(nil)
	eventually(t, 5*time.Second, "pushes from the outbox", func() bool {
		seqs := map[int64]bool{}
		for _, m := range h.bus.pushedTo(3) {
			seqs[m.GetSeq()] = true
		}
		return len(seqs) == 5
	})
	for _, m := range h.bus.pushedTo(3) {
		if m.GetContiguous() {
			t.Fatal("a late push claims to follow the one before")
		}
	}
	eventually(t, 3*time.Second, "empty outbox", func() bool {
		var n int
		return h.store.db.Get(&n, `SELECT COUNT(*) FROM outbox`) == nil && n == 0
	})
}

// A replica dies after COMMIT: another one publishes.
func TestG8_AnotherReplicaPublishesForADeadOne(t *testing.T) {
	h := newHarness(t)
	conv := h.befriend(2, 3)
	h.connect(3, 2, im.PlatformWeb)
	// What a replica that died right after its COMMIT leaves behind.
	req, err := newSendReq(privateSend(2, 3, 1, "x"))
	if err != nil {
		t.Fatal(err)
	}
	if out, done := h.store.commit(t.Context(), []*sendReq{req}); out[0].err != nil || done == nil {
		t.Fatal(out[0].err)
	}
	eventually(t, 2*time.Second, "push by the sweeper", func() bool { return len(h.bus.pushedTo(3)) == 1 })
	if got := h.bus.pushedTo(3)[0]; got.GetConversationId() != int64(conv) || got.GetText() != "x" || got.GetToId() != 3 {
		t.Fatal(got)
	}
}

// TestG8_ARowThatCannotBeReadKeepsNoOtherBack, and is given up in the end.
func TestG8_ARowThatCannotBeReadKeepsNoOtherBack(t *testing.T) {
	h := newHarness(t)
	h.befriend(2, 3)
	h.connect(3, 2, im.PlatformWeb)
	h.exec(`INSERT INTO outbox (id, ranges, created_at, attempts) VALUES (1, 'rubbish', NOW(3) - INTERVAL 1 HOUR, 0)`)
	req, err := newSendReq(privateSend(2, 3, 1, "x"))
	must(t, err)
	if out, done := h.store.commit(t.Context(), []*sendReq{req}); out[0].err != nil || done == nil {
		t.Fatal(out[0].err)
	}
	eventually(t, 5*time.Second, "the other is published", func() bool { return len(h.bus.pushedTo(3)) == 1 })
	h.exec(`UPDATE outbox SET attempts = ?, created_at = NOW(3) - INTERVAL 1 HOUR WHERE id = 1`, outboxAttempts)
	eventually(t, 5*time.Second, "it is given up", func() bool {
		var n int
		must(t, h.store.db.Get(&n, `SELECT COUNT(*) FROM outbox WHERE id = 1`))
		return n == 0
	})
}

// TestG8_AllThatWasForgottenIsPublishedAtOnce: a replica that commits for seconds
// what it cannot publish, and dies, leaves more than a page of rows; they do not
// wait for a sweep each.
func TestG8_AllThatWasForgottenIsPublishedAtOnce(t *testing.T) {
	h := newHarness(t)
	h.befriend(2, 3)
	h.connect(3, 2, im.PlatformWeb)
	const n = 5 * outboxPage
	for i := range n {
		req, err := newSendReq(privateSend(2, 3, int64(i+1), "x"))
		if err != nil {
			t.Fatal(err)
		}
		if out, done := h.store.commit(t.Context(), []*sendReq{req}); out[0].err != nil || done == nil {
			t.Fatal(out[0].err)
		}
	}
	time.Sleep(outboxAge)
	must(t, h.outbox.sweepAll(t.Context(), h.pub.flush))
	var left int
	must(t, h.store.db.Get(&left, `SELECT COUNT(*) FROM outbox WHERE attempts = 0`))
	if left > 0 {
		t.Errorf("%d of %d rows are left", left, n)
	}
	eventually(t, 5*time.Second, "pushes of all", func() bool { return len(h.bus.pushedTo(3)) >= n })
}

func TestG7_BacklogIsWholeInOrderAndEndsWithTheCursor(t *testing.T) {
	h := newHarness(t)
	conv := h.befriend(2, 3)
	other := h.befriend(4, 3)
	const n = 2500
	send := func(from im.UserID, first, count int) {
		var wg sync.WaitGroup
		for i := first; i < first+count; i++ {
			wg.Add(1)
			h.post(privateSend(from, 3, int64(i), fmt.Sprint(i)), nil, func(r *logicv1.SendResult) {
				if r.GetError() != nil {
					t.Errorf("send %d: %v", i, r.GetError())
				}
				wg.Done()
			})
		}
		wg.Wait()
	}
	send(2, 1, n)
	send(4, 1, 10)
	check := func(b *backlogStream, want map[im.ConversationID][2]int64) {
		t.Helper()
		got := map[im.ConversationID][]int64{}
		for _, m := range b.messages() {
			c := im.ConversationID(m.GetConversationId())
			got[c] = append(got[c], m.GetSeq())
		}
		if len(got) != len(want) {
			t.Fatalf("%d conversations, want %d", len(got), len(want))
		}
		for c, w := range want {
			if int64(len(got[c])) != w[1]-w[0]+1 || got[c][0] != w[0] || !slices.IsSorted(got[c]) {
				t.Fatalf("conversation %d: %d messages, want %d..%d", c, len(got[c]), w[0], w[1])
			}
		}
		if !b.resp[len(b.resp)-1].GetDone() {
			t.Fatal("the stream does not say that it is whole")
		}
	}
	check(h.connect(3, 1, im.PlatformWeb), map[im.ConversationID][2]int64{conv: {1, n}, other: {1, 10}})
	h.ack(3, im.PlatformWeb, conv, 2000)
	h.ack(3, im.PlatformWeb, other, 1_000_000) // more than there is
	h.ack(3, im.PlatformWeb, conv, 5)          // never back
	check(h.connect(3, 2, im.PlatformWeb), map[im.ConversationID][2]int64{conv: {2001, n}})
	check(h.connect(3, 3, im.PlatformPC), map[im.ConversationID][2]int64{conv: {1, n}, other: {1, 10}})
	send(4, 11, 1)
	check(h.connect(3, 4, im.PlatformWeb), map[im.ConversationID][2]int64{conv: {2001, n}, other: {11, 11}})
	if got := h.connect(2, 9, im.PlatformWeb).messages(); len(got) != 0 {
		t.Fatalf("the sender's web connection got %d of his own messages", len(got))
	}
}

func TestConnect_NewerConnectionDisplacesOlderOfItsPlatform(t *testing.T) {
	h := newHarness(t)
	h.connect(3, 1, im.PlatformWeb)
	h.connect(3, 2, im.PlatformPC)
	h.connect(3, 3, im.PlatformWeb)
	mark := func(conn int64, platform im.Platform, since int64) *logicv1.Watermark {
		resp, err := h.Watermark(t.Context(), &logicv1.WatermarkRequest{GatewayId: testGateway, Conns: []*logicv1.Conn{{UserId: 3, ConnId: conn, Platform: int32(platform), SinceMs: since}}})
		if err != nil {
			t.Fatal(err)
		}
		return resp.GetMarks()[0]
	}
	if m := mark(1, im.PlatformWeb, 1); m.GetRouted() || !m.GetDisplaced() {
		t.Errorf("older web connection: %v", m)
	}
	if m := mark(2, im.PlatformPC, 1); !m.GetRouted() || m.GetDisplaced() {
		t.Errorf("pc connection: %v", m)
	}
	if m := mark(3, im.PlatformWeb, 1); !m.GetRouted() || m.GetDisplaced() {
		t.Errorf("newer web connection: %v", m)
	}
	kicked := slices.ContainsFunc(h.bus.all(), func(e *pushv1.Envelope) bool {
		return len(e.GetEvents()) == 1 && e.GetEvents()[0].GetKick().GetConnId() == 1
	})
	if !kicked {
		t.Error("the displaced connection was not told")
	}
	// The old connection closing late does not remove the new one's route.
	if _, err := h.Disconnect(t.Context(), &logicv1.DisconnectRequest{GatewayId: testGateway, Conns: []*logicv1.Conn{{UserId: 3, ConnId: 1, Platform: 1}}}); err != nil {
		t.Fatal(err)
	}
	if m := mark(3, im.PlatformWeb, 1); !m.GetRouted() {
		t.Error("the old connection's end removed the new one's route")
	}
}

func TestConnect_MultiDeviceLeavesTheOlderConnection(t *testing.T) {
	h := newHarness(t, func(c *Config) { c.MultiDevice = multiAllow })
	for conn := range int64(2) {
		h.connect(7, conn+1, im.PlatformWeb)
	}
	for conn := range int64(2) {
		resp, err := h.Watermark(t.Context(), &logicv1.WatermarkRequest{
			GatewayId: testGateway, Conns: []*logicv1.Conn{{UserId: 7, ConnId: conn + 1, Platform: int32(im.PlatformWeb), SinceMs: 1}},
		})
		if err != nil {
			t.Fatal(err)
		}
		if m := resp.GetMarks()[0]; !m.GetRouted() || m.GetDisplaced() {
			t.Errorf("connection %d: %v", conn+1, m)
		}
	}
}

// A client cut and came back; the registration of its first socket arrives last.
func TestConnect_LateRegistrationOfAnOlderSocketDisplacesNobody(t *testing.T) {
	h := newHarness(t)
	h.connect(3, 2, im.PlatformWeb)
	late := &backlogStream{ctx: t.Context()}
	err := h.Backlog(&logicv1.BacklogRequest{
		GatewayId: testGateway, Register: true,
		Conn: &logicv1.Conn{UserId: 3, ConnId: 1, Platform: 1, SinceMs: time.Now().UnixMilli() + 1000},
	}, late)
	if !errors.Is(err, &im.Error{Reason: "connection_displaced"}) {
		t.Fatalf("the older socket registered: %v", err)
	}
	resp, err := h.Watermark(t.Context(), &logicv1.WatermarkRequest{GatewayId: testGateway, Conns: []*logicv1.Conn{{UserId: 3, ConnId: 2, Platform: 1}}})
	if err != nil || !resp.GetMarks()[0].GetRouted() {
		t.Fatalf("the newer socket lost its route: %v, %v", resp, err)
	}
}

// The same between two gateways, whose clocks are believed only so far.
func TestConnect_LaterOfTwoGatewaysWins(t *testing.T) {
	h := newHarness(t)
	now := time.Now().UnixMilli()
	register := func(gateway string, since int64) error {
		return h.Backlog(&logicv1.BacklogRequest{
			GatewayId: gateway, Register: true,
			Conn: &logicv1.Conn{UserId: 3, ConnId: 1, Platform: 1, SinceMs: since},
		}, &backlogStream{ctx: t.Context()})
	}
	if err := register("gw2", now); err != nil {
		t.Fatal(err)
	}
	if err := register(testGateway, now-20); !errors.Is(err, &im.Error{Reason: "connection_displaced"}) {
		t.Fatalf("a registration that came late won: %v", err)
	}
	if err := register(testGateway, now-3_600_000); err != nil {
		t.Fatalf("a gateway whose clock is an hour slow cannot connect anybody: %v", err)
	}
	if err := register("gw2", now+20); err != nil {
		t.Fatal(err)
	}
}

func TestRoutes_LossOfRedisContentsIsSeenAndHealed(t *testing.T) {
	h := newHarness(t)
	h.befriend(2, 3)
	before := h.connect(3, 1, im.PlatformWeb).resp[0]
	if err := h.routes.rdb.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	conn := &logicv1.Conn{UserId: 3, ConnId: 1, Platform: 1, SinceMs: before.GetSinceMs()}
	resp, err := h.Watermark(t.Context(), &logicv1.WatermarkRequest{GatewayId: testGateway, Conns: []*logicv1.Conn{conn}})
	if err != nil {
		t.Fatal(err)
	}
	if resp.GetEpoch() == before.GetEpoch() || resp.GetMarks()[0].GetRouted() || resp.GetMarks()[0].GetDisplaced() {
		t.Fatalf("loss not seen: %v", resp)
	}
	asserted, err := h.Assert(t.Context(), &logicv1.AssertRequest{GatewayId: testGateway, Conns: []*logicv1.Conn{conn}})
	if err != nil || !asserted.GetMarks()[0].GetRouted() || asserted.GetEpoch() != resp.GetEpoch() {
		t.Fatalf("%v, %v", asserted, err)
	}
	h.mustSend(privateSend(2, 3, 1, "x"))
	eventually(t, 2*time.Second, "push after assert", func() bool { return len(h.bus.pushedTo(3)) == 1 })
}

func TestG17_WithoutRedisSendsGoOnAndGatewaysAreToldBlindly(t *testing.T) {
	h := newHarness(t)
	h.befriend(2, 3)
	_ = h.routes.rdb.Close() // this replica has no Redis any more
	h.mustSend(privateSend(2, 3, 1, "x"))
	eventually(t, 3*time.Second, "blind push", func() bool { return len(h.bus.pushedTo(3)) == 1 })
	for _, e := range h.bus.all() {
		for _, d := range e.GetDeliveries() {
			if e.GetEpoch() != "" || slices.Max(d.GetPvs()) != 0 {
				t.Fatalf("claims counters it cannot know: %v", e)
			}
		}
	}
}

// One message that the database refuses must not take its batch with it.
func TestCommit_OneBadMessageDoesNotSpoilItsBatch(t *testing.T) {
	h := newHarness(t)
	h.befriend(2, 3)
	var batch []*sendReq
	for i, text := range []string{"good", strings.Repeat("x", 10), "also good"} {
		r, err := newSendReq(privateSend(2, 3, int64(i+1), text))
		if err != nil {
			t.Fatal(err)
		}
		batch = append(batch, r)
	}
	batch[1].hash = []byte("longer than the sixteen bytes that fit")
	out, done := h.store.commit(t.Context(), batch)
	if out[0].err != nil || out[1].err == nil || out[2].err != nil || done == nil || len(done.messages) != 2 {
		t.Fatalf("%v", out)
	}
	if out[2].result.GetSeq() != 2 {
		t.Errorf("the refused message left a gap: seq %d", out[2].result.GetSeq())
	}
}

// TestG1_WithoutRoomSendsAreRefusedUntilThereIsSome: what the database has no room
// for is refused at once, all of a batch, with a code that says to try again.
func TestG1_WithoutRoomSendsAreRefusedUntilThereIsSome(t *testing.T) {
	h := newHarness(t)
	h.befriend(2, 3)
	for _, errno := range []int{1021, 1114} {
		h.store.db.MustExecContext(t.Context(), fmt.Sprintf(`CREATE TRIGGER full BEFORE INSERT ON messages FOR EACH ROW
			SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = %d`, errno))
		ids := []int64{int64(errno), int64(errno) + 1, int64(errno) + 2}
		began := time.Now()
		for id, res := range h.submitAll(ids, nil) {
			if e := res.GetError(); im.Kind(e.GetKind()) != im.KindUnavailable || e.GetReason() != "store_unavailable" || e.GetRetryAfterMs() <= 0 {
				t.Errorf("%d without room: %v", id, res)
			}
		}
		if took := time.Since(began); took > h.cfg.SendTimeout/2 {
			t.Errorf("refused only after %v", took)
		}
		h.store.db.MustExecContext(t.Context(), `DROP TRIGGER full`)
		for id, res := range h.submitAll(ids, nil) {
			if res.GetError() != nil || res.GetDuplicate() {
				t.Errorf("%d with room again: %v", id, res)
			}
		}
	}
}

func TestG15_FullLaneRefusesAtOnce(t *testing.T) {
	h := newHarness(t, func(c *Config) { c.QueueMax, c.Lanes = 4, 1 })
	h.befriend(2, 3)
	var (
		mu       sync.Mutex
		refused  int
		accepted int
		wg       sync.WaitGroup
	)
	for i := range 500 {
		wg.Add(1)
		h.post(privateSend(2, 3, int64(i+1), "x"), nil, func(r *logicv1.SendResult) {
			mu.Lock()
			if e := r.GetError(); e == nil {
				accepted++
			} else if e.GetReason() == "overloaded" && e.GetRetryAfterMs() > 0 && im.Kind(e.GetKind()) == im.KindExhausted {
				refused++
			} else {
				t.Errorf("refused as %v", e)
			}
			mu.Unlock()
			wg.Done()
		})
	}
	wg.Wait()
	if refused == 0 || accepted == 0 || refused+accepted != 500 {
		t.Fatalf("%d accepted, %d refused", accepted, refused)
	}
}

// TestG2_APausedReplicaDoesNotHoldAConversation: one replica stands still between
// locking a conversation and writing to it; a send through another is stored in
// the time that it has.
func TestG2_APausedReplicaDoesNotHoldAConversation(t *testing.T) {
	h := newHarness(t)
	conv := h.befriend(2, 3)
	paused := h.Server
	h.replica()
	locked, resume := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { close(resume) })
	go func() {
		_ = paused.store.batches.Once(context.Background(), func(tx *database.Batch) error {
			_, err := lockConversations(context.Background(), tx, []im.ConversationID{conv})
			close(locked)
			<-resume
			return err
		})
	}()
	<-locked
	began := time.Now()
	if res, err := h.trySend(privateSend(2, 3, 1, "x")); err != nil || res.GetSeq() != 1 {
		t.Fatalf("after %v: %v, %v", time.Since(began), res, err)
	}
}
