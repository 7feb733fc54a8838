package logic

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	logicv1 "im-services/api/proto/logic/v1"
	pushv1 "im-services/api/proto/push/v1"
	"im-services/internal/im"
)

// history fetches a page as a gateway does, which says when the client has it.
func (h *harness) history(user im.UserID, kind im.ChannelKind, to, before int64, limit int32) *logicv1.HistoryResponse {
	h.t.Helper()
	resp, err := h.History(h.t.Context(), &logicv1.HistoryRequest{UserId: int64(user), Kind: int32(kind), ToId: to, BeforeId: before, Limit: limit, Platform: 1})
	must(h.t, err)
	if rows := resp.GetMessages(); resp.GetUndelivered() {
		h.markDelivered(user, rows[0].GetConversationId(), rows[0].GetSeq(), rows[len(rows)-1].GetSeq())
	}
	return resp
}

func (h *harness) markDelivered(user im.UserID, conv, first, last int64) {
	h.t.Helper()
	_, err := h.MarkDelivered(h.t.Context(), &logicv1.MarkDeliveredRequest{
		UserId: int64(user), Platform: 1, ConversationId: conv, FirstSeq: first, LastSeq: last,
	})
	must(h.t, err)
}

func seqsOf(msgs []*pushv1.Message) []int64 {
	out := make([]int64, len(msgs))
	for i, m := range msgs {
		out[i] = m.GetSeq()
	}
	return out
}

func upTo(first, last int64) []int64 {
	var out []int64
	for s := first; s <= last; s++ {
		out = append(out, s)
	}
	return out
}

// Defect 43: pages follow each other without gap or repeat, whatever the size,
// and the total does not depend on the page.
func TestDefect43_PagesCoverTheHistoryExactly(t *testing.T) {
	h := newHarness(t)
	h.befriend(2, 3)
	other := h.befriend(4, 5)
	const n = 57
	var foreign []int64 // ids of another conversation, between ours
	for i := int64(1); i <= n; i++ {
		h.mustSend(privateSend(im.UserID(2+i%2), im.UserID(3-i%2), i, fmt.Sprint(i)))
		foreign = append(foreign, h.mustSend(privateSend(4, 5, i, "x")).GetMessageId())
	}
	for _, size := range []int32{1, 7, 20, 56, 57, 58, 200} {
		var got []int64
		before := int64(0)
		for {
			p := h.history(2, im.Private, 3, before, size)
			if p.GetTotal() != n {
				t.Fatalf("total %d", p.GetTotal())
			}
			if len(p.GetMessages()) == 0 {
				break
			}
			if len(p.GetMessages()) > int(size) || !slices.IsSorted(seqsOf(p.GetMessages())) {
				t.Fatalf("page %v", seqsOf(p.GetMessages()))
			}
			got = append(seqsOf(p.GetMessages()), got...)
			before = p.GetMessages()[0].GetId()
		}
		if !slices.Equal(got, upTo(1, n)) {
			t.Fatalf("size %d: %v", size, got)
		}
	}
	for _, size := range []int32{0, -5} {
		if p := h.history(2, im.Private, 3, 0, size); len(p.GetMessages()) != historyDefault {
			t.Errorf("size %d gives %d", size, len(p.GetMessages()))
		}
	}
	// A cursor of another conversation is a point in time all the same.
	for i, id := range foreign {
		p := h.history(2, im.Private, 3, id, 200)
		if got := seqsOf(p.GetMessages()); !slices.Equal(got, upTo(1, int64(i+1))) {
			t.Fatalf("before foreign id %d: %v", i, got)
		}
	}
	if p := h.history(2, im.Private, 3, im.MaxID, 200); len(p.GetMessages()) != n {
		t.Errorf("before the largest id: %d", len(p.GetMessages()))
	}
	if p := h.history(2, im.Private, 3, 1, 200); len(p.GetMessages()) != 0 || p.GetTotal() != n {
		t.Errorf("before the smallest id: %v", p)
	}
	m := h.history(3, im.Private, 2, 0, 1).GetMessages()[0]
	if m.GetSeq() != n || m.GetToId() != 5-m.GetSenderId() || m.GetConversationId() == int64(other) {
		t.Errorf("%v", m)
	}
}

// Defect 25: what others say is not to be read.
func TestDefect25_HistoryIsForThoseInIt(t *testing.T) {
	h := newHarness(t)
	private := h.befriend(2, 3)
	h.mustSend(privateSend(2, 3, 1, "secret"))
	group := h.group(10, 11)
	if p := h.history(4, im.Private, 3, 0, 50); len(p.GetMessages()) != 0 || p.GetTotal() != 0 {
		t.Fatalf("a stranger reads %v", p)
	}
	if p := h.history(3, im.Private, 3, 0, 50); len(p.GetMessages()) != 0 {
		t.Fatalf("with oneself: %v", p)
	}
	for what, req := range map[string]*logicv1.HistoryRequest{
		"not a member":              {UserId: 12, Kind: 2, ToId: group},
		"no such group":             {UserId: 10, Kind: 2, ToId: 999_999},
		"a private one as a group":  {UserId: 4, Kind: 2, ToId: int64(private)},
		"his private one as group":  {UserId: 2, Kind: 2, ToId: int64(private)},
		"not a member, with cursor": {UserId: 12, Kind: 2, ToId: group, BeforeId: 5},
	} {
		_, err := h.History(t.Context(), req)
		wantReason(t, what, err, "not_a_member")
	}
	for what, c := range map[string]struct {
		req    *logicv1.HistoryRequest
		reason string
	}{
		"kind":   {&logicv1.HistoryRequest{UserId: 2, Kind: 3, ToId: 3}, "channel_type_invalid"},
		"target": {&logicv1.HistoryRequest{UserId: 2, Kind: 1}, "to_id_invalid"},
		"nobody": {&logicv1.HistoryRequest{Kind: 1, ToId: 3}, "sender_missing"},
	} {
		_, err := h.History(t.Context(), c.req)
		wantReason(t, what, err, c.reason)
	}
	h.setPrivate(2, 3, false)
	if p := h.history(3, im.Private, 2, 0, 50); len(p.GetMessages()) != 1 {
		t.Error("what was said stays with both when the friendship ends")
	}
}

func TestHistory_NewMembersSeeWhatFollowsUnlessConfigured(t *testing.T) {
	for _, before := range []bool{false, true} {
		t.Run(fmt.Sprint(before), func(t *testing.T) {
			h := newHarness(t, func(c *Config) { c.HistoryBeforeJoin = before })
			group := h.group(10)
			h.mustSend(groupSend(10, group, 1, "old"))
			must(t, h.join(11, group, "", ""))
			h.mustSend(groupSend(10, group, 2, "new"))
			want := upTo(3, 4)
			if before {
				want = upTo(1, 4)
			}
			p := h.history(11, im.Group, group, 0, 50)
			if got := seqsOf(p.GetMessages()); !slices.Equal(got, want) || p.GetTotal() != int64(len(want)) {
				t.Fatalf("sees %v, want %v; total %d", got, want, p.GetTotal())
			}
			// Paging back does not lead out of his window.
			p = h.history(11, im.Group, group, p.GetMessages()[0].GetId(), 50)
			if len(p.GetMessages()) != 0 {
				t.Fatalf("before his first: %v", seqsOf(p.GetMessages()))
			}
		})
	}
}

// D12 and 6.1: a fetched first page counts as delivered, what is older replays;
// fetching further pages changes nothing.
func TestHistory_FirstPageCountsAsDelivered(t *testing.T) {
	h := newHarness(t)
	h.befriend(2, 3)
	for i := int64(1); i <= 30; i++ {
		h.mustSend(privateSend(2, 3, i, "x"))
	}
	p := h.history(3, im.Private, 2, 0, 10)
	conn := int64(0)
	replay := func(platform im.Platform) []int64 {
		conn++
		return seqsOf(h.connect(3, conn, platform).messages())
	}
	if got := replay(im.PlatformWeb); !slices.Equal(got, upTo(1, 20)) {
		t.Fatalf("replayed %v", got)
	}
	if got := replay(im.PlatformPC); !slices.Equal(got, upTo(1, 30)) {
		t.Fatalf("another platform's page: %v", got)
	}
	h.history(3, im.Private, 2, p.GetMessages()[0].GetId(), 10)
	if got := replay(im.PlatformWeb); !slices.Equal(got, upTo(1, 20)) {
		t.Fatalf("a further page counted: %v", got)
	}
	h.mustSend(privateSend(2, 3, 31, "x"))
	if got := replay(im.PlatformWeb); !slices.Equal(got, append(upTo(1, 20), 31)) {
		t.Fatalf("after a new message: %v", got)
	}
	h.history(3, im.Private, 2, 0, 200)
	if got := replay(im.PlatformWeb); len(got) != 0 {
		t.Fatalf("all fetched: %v", got)
	}
	var writes [2]int
	for i := range writes { // fetching again writes nothing
		h.history(3, im.Private, 2, 0, 10)
		var v struct {
			Name  string `db:"Variable_name"`
			Value int    `db:"Value"`
		}
		must(t, h.store.db.Get(&v, `SHOW GLOBAL STATUS LIKE 'Com_insert'`))
		writes[i] = v.Value
	}
	if writes[0] != writes[1] {
		t.Error("a page that is delivered already costs a write")
	}
}

// A page that was read but did not reach its client is replayed: only the gateway
// knows, and what it says counts as far as the user may see.
func TestMarkDelivered_OnlyWhatIsSaidAndMayBeSeen(t *testing.T) {
	h := newHarness(t)
	conv := int64(h.befriend(2, 3))
	for i := int64(1); i <= 6; i++ {
		h.mustSend(privateSend(2, 3, i, "x"))
	}
	conn := int64(0)
	replayed := func(when string, want []int64) {
		t.Helper()
		conn++
		if got := seqsOf(h.connect(3, conn, im.PlatformWeb).messages()); !slices.Equal(got, want) {
			t.Fatalf("%s: %v, want %v", when, got, want)
		}
	}
	page := &logicv1.HistoryRequest{UserId: 3, Kind: 1, ToId: 2, Limit: 3, Platform: 1}
	resp, err := h.History(t.Context(), page)
	must(t, err)
	if !resp.GetUndelivered() {
		t.Error("nobody is asked to say that the client has it")
	}
	replayed("read, not delivered", upTo(1, 6))
	for range 2 {
		h.markDelivered(3, conv, 4, 6)
		replayed("delivered", upTo(1, 3))
	}
	if resp, err = h.History(t.Context(), page); err != nil || resp.GetUndelivered() {
		t.Errorf("delivered already: %v, %v", resp.GetUndelivered(), err)
	}
	page.Platform = int32(im.PlatformPC)
	if resp, err = h.History(t.Context(), page); err != nil || !resp.GetUndelivered() {
		t.Errorf("on another platform: %v, %v", resp.GetUndelivered(), err)
	}
	h.markDelivered(3, conv, -5, 999)
	h.markDelivered(3, conv, 2, 1)
	h.markDelivered(3, conv+999, 1, 5)
	h.markDelivered(4, conv, 1, 5)
	h.mustSend(privateSend(2, 3, 7, "x"))
	replayed("beyond the end", []int64{7})
	for reason, req := range map[string]*logicv1.MarkDeliveredRequest{
		"sender_missing":   {Platform: 1, ConversationId: conv, LastSeq: 1},
		"platform_invalid": {UserId: 3, Platform: 4, ConversationId: conv, LastSeq: 1},
		"id_invalid":       {UserId: 3, Platform: 1, LastSeq: 1},
	} {
		_, err := h.MarkDelivered(t.Context(), req)
		wantReason(t, reason, err, reason)
	}
}

func TestHistory_TellsWhoHasRead(t *testing.T) {
	h := newHarness(t)
	h.befriend(2, 3)
	for i := int64(1); i <= 4; i++ {
		h.mustSend(privateSend(2, 3, i, "x"))
	}
	resp, err := h.MarkRead(t.Context(), &logicv1.MarkReadRequest{UserId: 3, Kind: 1, ToId: 2, Seq: 3})
	if err != nil || resp.GetReadSeq() != 3 || resp.GetUnread() != 1 {
		t.Fatalf("%v, %v", resp, err)
	}
	if p := h.history(2, im.Private, 3, 0, 50); p.GetPeerReadSeq() != 3 || p.GetReadSeq() != 0 {
		t.Errorf("%v", p)
	}
	if p := h.history(3, im.Private, 2, 0, 50); p.GetPeerReadSeq() != 0 || p.GetReadSeq() != 3 {
		t.Errorf("%v", p)
	}
}

func TestMarkRead_NeverBackNeverBeyond(t *testing.T) {
	h := newHarness(t)
	h.befriend(2, 3)
	for i := int64(1); i <= 5; i++ {
		h.mustSend(privateSend(2, 3, i, "x"))
	}
	mark := func(seq int64) *logicv1.MarkReadResponse {
		t.Helper()
		resp, err := h.MarkRead(t.Context(), &logicv1.MarkReadRequest{UserId: 3, Kind: 1, ToId: 2, Seq: seq})
		must(t, err)
		return resp
	}
	for _, c := range [][3]int64{{2, 2, 3}, {1, 2, 3}, {4, 4, 1}, {999, 5, 0}, {3, 5, 0}, {0, 5, 0}} {
		if r := mark(c[0]); r.GetReadSeq() != c[1] || r.GetUnread() != c[2] {
			t.Errorf("mark %d: %v, want %v", c[0], r, c[1:])
		}
	}
	h.mustSend(privateSend(2, 3, 6, "x"))
	if r := mark(3); r.GetReadSeq() != 5 || r.GetUnread() != 1 {
		t.Errorf("%v", r)
	}
	resp, err := h.MarkRead(t.Context(), &logicv1.MarkReadRequest{UserId: 3, Kind: 1, ToId: 77})
	if err != nil || resp.GetReadSeq() != 0 {
		t.Errorf("nobody: %v, %v", resp, err)
	}
	group := h.group(10)
	for what, c := range map[string]struct {
		req    *logicv1.MarkReadRequest
		reason string
	}{
		"stranger": {&logicv1.MarkReadRequest{UserId: 3, Kind: 2, ToId: group}, "not_a_member"},
		"negative": {&logicv1.MarkReadRequest{UserId: 3, Kind: 1, ToId: 2, Seq: -1}, "seq_invalid"},
	} {
		_, err := h.MarkRead(t.Context(), c.req)
		wantReason(t, what, err, c.reason)
	}
}

// Who never says what he has read does not have all of it counted.
func TestUnread_IsCountedSoFar(t *testing.T) {
	h := newHarness(t)
	conv := h.befriend(2, 3)
	h.mustSend(privateSend(2, 3, 1, "x"))
	h.published()
	h.exec(`UPDATE messages SET seq = 5000 WHERE conversation_id = ?`, int64(conv))
	for user, want := range map[im.UserID]int64{3: unreadMost, 2: unreadMost - 1} { // 2's own is among the last
		n, err := h.store.unread(t.Context(), user, []membership{{ID: conv, FirstSeq: 1, LastSeq: 5000}})
		must(t, err)
		if n[conv] != want {
			t.Errorf("%d: %d unread", user, n[conv])
		}
	}
}

// Unread is what others said in the part a user may see and has not read:
// checked against counting one by one, through sessions, sync and MarkRead.
func TestUnread_AgreesWithAModel(t *testing.T) {
	h := newHarness(t)
	base := im.UserID(1000)
	client := int64(0)
	rapid.Check(t, func(rt *rapid.T) {
		base += 10
		owner, users := base, []im.UserID{base + 1, base + 2, base + 3}
		h.befriendAll(owner, users[0])
		made, err := h.CreateGroup(t.Context(), createRequest(owner, users[0]))
		must(t, err)
		group := made.GetGroup().GetId()
		type member struct {
			in    bool
			first int64
			read  int64
		}
		model := map[im.UserID]*member{users[0]: {in: true, first: 1}, users[1]: {}, users[2]: {}}
		senders := []im.UserID{0, owner} // by seq
		last := func() int64 { return int64(len(senders) - 1) }
		for range rapid.IntRange(5, 25).Draw(rt, "steps") {
			u := rapid.SampledFrom(users).Draw(rt, "user")
			m := model[u]
			switch rapid.SampledFrom([]string{"send", "send", "send", "owner", "read", "move"}).Draw(rt, "step") {
			case "owner":
				client++
				h.mustSend(groupSend(owner, group, client, "x"))
				senders = append(senders, owner)
			case "send":
				client++
				_, err := h.trySend(groupSend(u, group, client, "x"))
				if (err == nil) != m.in {
					rt.Fatalf("send: %v", err)
				}
				if m.in {
					senders = append(senders, u)
				}
			case "read":
				seq := int64(rapid.IntRange(0, len(senders)+1).Draw(rt, "seq"))
				_, err := h.MarkRead(t.Context(), &logicv1.MarkReadRequest{UserId: int64(u), Kind: 2, ToId: group, Seq: seq})
				if (err == nil) != m.in {
					rt.Fatalf("read: %v", err)
				}
				if m.in {
					if seq == 0 || seq > last() {
						seq = last()
					}
					m.read = max(m.read, seq)
				}
			case "move":
				if m.in {
					must(t, h.leave(u, group))
				} else {
					must(t, h.join(u, group, "", ""))
				}
				senders = append(senders, u)
				*m = member{in: !m.in, first: last()}
			}
		}
		for u, m := range model {
			s := h.groupSession(u, group)
			if (s != nil) != m.in {
				rt.Fatalf("session of %d: %v", u, s)
			}
			if !m.in {
				continue
			}
			want := int64(0)
			for seq := max(m.first, m.read+1); seq <= last(); seq++ {
				if senders[seq] != u {
					want++
				}
			}
			if s.GetUnread() != want || s.GetLastSeq() != last() {
				rt.Fatalf("unread %d of seq %d, want %d of %d (read %d, from %d)", s.GetUnread(), s.GetLastSeq(), want, last(), m.read, m.first)
			}
			sync, err := h.Sync(t.Context(), &logicv1.SyncRequest{UserId: int64(u), Limit: 1})
			must(t, err)
			if c := findSync(sync, group); c.GetUnread() != want {
				rt.Fatalf("sync says %d, want %d", c.GetUnread(), want)
			}
		}
	})
}

func findSync(resp *logicv1.SyncResponse, conv int64) *logicv1.SyncConversation {
	for _, c := range resp.GetConversations() {
		if c.GetConversationId() == conv {
			return c
		}
	}
	return nil
}

// G7: a client that follows sync to its complete answer holds everything; until
// then it is told that it does not. Never a hole.
func TestG7_SyncIsWholeOrSaysSo(t *testing.T) {
	h := newHarness(t)
	private := int64(h.befriend(2, 3))
	group := h.group(10, 3, 4)
	for i := int64(1); i <= 250; i++ {
		h.mustSend(groupSend(10, group, i, fmt.Sprint(i)))
	}
	for i := int64(1); i <= 30; i++ {
		h.mustSend(privateSend(im.UserID(2+i%2), im.UserID(3-i%2), i, fmt.Sprint(i)))
	}
	stranger := int64(h.befriend(5, 6))
	h.mustSend(privateSend(5, 6, 1, "secret"))
	held := map[int64][]int64{}
	cursors := map[int64]int64{}
	epoch := ""
	rounds := 0
	for {
		if rounds++; rounds > 10 {
			t.Fatal("sync does not end")
		}
		req := &logicv1.SyncRequest{UserId: 3, Epoch: epoch, Limit: 100}
		for c, s := range cursors {
			req.Cursors = append(req.Cursors, &logicv1.Cursor{ConversationId: c, Seq: s})
		}
		resp, err := h.Sync(t.Context(), req)
		must(t, err)
		if resp.GetFullResync() || resp.GetEpoch() == "" {
			t.Fatalf("%v", resp)
		}
		epoch = resp.GetEpoch()
		whole := true
		for _, c := range resp.GetConversations() {
			for _, m := range c.GetMessages() {
				if m.GetSeq() != cursors[c.GetConversationId()]+1 {
					t.Fatalf("a hole before %d", m.GetSeq())
				}
				cursors[c.GetConversationId()]++
				held[c.GetConversationId()] = append(held[c.GetConversationId()], m.GetSeq())
			}
			if c.GetSeq() != cursors[c.GetConversationId()] || c.GetComplete() != (c.GetSeq() == c.GetLastSeq()) {
				t.Fatalf("%v", c)
			}
			whole = whole && c.GetComplete()
		}
		if resp.GetComplete() != whole {
			t.Fatalf("complete %v, conversations say %v", resp.GetComplete(), whole)
		}
		if resp.GetComplete() {
			break
		}
	}
	if !slices.Equal(held[group], upTo(1, 251)) || !slices.Equal(held[private], upTo(1, 30)) || held[stranger] != nil || len(held) != 2 {
		t.Fatalf("holds %d conversations, %d and %d messages", len(held), len(held[group]), len(held[private]))
	}
	if rounds != 3 {
		t.Errorf("%d rounds", rounds)
	}
	// Nothing new: an empty, complete answer.
	req := &logicv1.SyncRequest{UserId: 3, Epoch: epoch, Cursors: []*logicv1.Cursor{{ConversationId: group, Seq: 251}, {ConversationId: private, Seq: 99}, {ConversationId: stranger}}}
	resp, err := h.Sync(t.Context(), req)
	must(t, err)
	if !resp.GetComplete() || len(resp.GetConversations()) != 0 {
		t.Fatalf("%v", resp)
	}
	// Another life of the sequence space: cursors mean nothing.
	req.Epoch = "of a restored backup"
	resp, err = h.Sync(t.Context(), req)
	must(t, err)
	if !resp.GetFullResync() || findSync(resp, group).GetMessages()[0].GetSeq() != 1 || resp.GetEpoch() != epoch {
		t.Fatalf("%v", resp)
	}
	_, err = h.Sync(t.Context(), &logicv1.SyncRequest{})
	wantReason(t, "nobody", err, "sender_missing")
}

func TestSync_LargeAnswersAreCutNotHoled(t *testing.T) {
	h := newHarness(t)
	var convs []int64
	big := strings.Repeat("\x01", 50<<10)
	for p := range 4 {
		peer := im.UserID(100 + p)
		convs = append(convs, int64(h.befriend(3, peer)))
		for i := int64(1); i <= 30; i++ {
			h.mustSend(privateSend(peer, 3, i, big))
		}
	}
	cursors := map[int64]int64{}
	total := 0
	for round := 1; ; round++ {
		req := &logicv1.SyncRequest{UserId: 3, Limit: 500}
		for c, s := range cursors {
			req.Cursors = append(req.Cursors, &logicv1.Cursor{ConversationId: c, Seq: s})
		}
		resp, err := h.Sync(t.Context(), req)
		must(t, err)
		size := 0
		for _, c := range resp.GetConversations() {
			for _, m := range c.GetMessages() {
				if m.GetSeq() != cursors[c.GetConversationId()]+1 {
					t.Fatal("a hole")
				}
				cursors[c.GetConversationId()]++
				size += asJSON(t, m)
				total++
			}
		}
		if size > answerBytes+asJSON(t, &pushv1.Message{Text: big}) {
			t.Fatalf("%d bytes in one answer", size)
		}
		if resp.GetComplete() {
			if round < 2 {
				t.Fatal("nothing was cut: the test tests nothing")
			}
			break
		}
	}
	if total != 120 || len(cursors) != len(convs) {
		t.Fatalf("%d messages", total)
	}
}

// asJSON is what the content of a message takes in an answer.
func asJSON(t *testing.T, m *pushv1.Message) int {
	t.Helper()
	raw, err := json.Marshal(m.GetText())
	must(t, err)
	return len(raw) + len(m.GetDataJson())
}

// Large messages make pages shorter, without a gap between them, and what counts
// is what they take as JSON.
func TestHistory_LargePagesAreCutNotHoled(t *testing.T) {
	const most = 60 << 10
	for name, c := range map[string]struct {
		text, data string
		page       int // rows of a full one at least
	}{
		"data":               {"x", `"` + strings.Repeat(`\u0000`, most-2) + `"`, 5},
		"text":               {strings.Repeat("\x01", most), "", 5},
		"quotes":             {strings.Repeat(`"`, most), "", 16},
		"plain, as it looks": {strings.Repeat("x", most), "", 20},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t)
			h.befriend(2, 3)
			const n = 60
			for i := int64(1); i <= n; i++ {
				m := privateSend(2, 3, i, c.text)
				m.DataJson = c.data
				h.mustSend(m)
			}
			var got []int64
			for before := int64(0); ; {
				p := h.history(3, im.Private, 2, before, 200)
				if p.GetTotal() != n {
					t.Fatalf("total %d", p.GetTotal())
				}
				msgs := p.GetMessages()
				if len(msgs) == 0 {
					break
				}
				if size := len(msgs) * asJSON(t, msgs[0]); size > answerBytes {
					t.Fatalf("%d bytes in a page", size)
				}
				if len(msgs) < c.page && msgs[0].GetSeq() > 1 {
					t.Fatalf("a page of %d", len(msgs))
				}
				got = append(seqsOf(msgs), got...)
				before = msgs[0].GetId()
			}
			if !slices.Equal(got, upTo(1, n)) {
				t.Fatalf("seqs %v", got)
			}
			for _, limit := range []int32{1, 5} {
				if p := h.history(3, im.Private, 2, 0, limit); len(p.GetMessages()) != int(limit) {
					t.Fatalf("a page of %d has %d", limit, len(p.GetMessages()))
				}
			}
		})
	}
}

// The largest message that can be stored fits alone into an answer, also where it
// grows most: a group's data is JSON in JSON.
func TestHistory_TheLargestMessageFits(t *testing.T) {
	h := newHarness(t)
	group := h.group(10, 11)
	m := groupSend(10, group, 1, "x")
	m.DataJson = `"` + strings.Repeat(`\u0000`, 60<<10-1) + `"`
	sent := h.mustSend(m)
	p := h.history(11, im.Group, group, 0, 20)
	row := p.GetMessages()[len(p.GetMessages())-1]
	if size := asJSON(t, row); row.GetId() != sent.GetMessageId() || size < 60<<10*7 || size+rowBytes > answerBytes {
		t.Fatalf("%d bytes of JSON in row %d", size, row.GetId())
	}
}

// Were a row ever lost, sync must stop before it and say that it is not whole.
func TestSync_NeverPassesOverAMissingRow(t *testing.T) {
	h := newHarness(t)
	conv := int64(h.befriend(2, 3))
	for i := int64(1); i <= 9; i++ {
		h.mustSend(privateSend(2, 3, i, "x"))
	}
	h.exec(`DELETE FROM messages WHERE conversation_id = ? AND seq = 5`, conv)
	resp, err := h.Sync(t.Context(), &logicv1.SyncRequest{UserId: 3})
	must(t, err)
	if c := findSync(resp, conv); c.GetSeq() != 4 || c.GetComplete() || resp.GetComplete() {
		t.Fatalf("%v", resp)
	}
}

// Who was removed still gets what was his, and nothing more.
func TestSync_EndsWhereMembershipEnded(t *testing.T) {
	h := newHarness(t)
	group := h.group(10, 11)
	h.mustSend(groupSend(10, group, 1, "his"))
	must(t, h.kick(10, group, 11))
	h.mustSend(groupSend(10, group, 2, "not his"))
	resp, err := h.Sync(t.Context(), &logicv1.SyncRequest{UserId: 11})
	must(t, err)
	c := findSync(resp, group)
	if got := seqsOf(c.GetMessages()); !slices.Equal(got, upTo(1, 3)) || c.GetEndSeq() != 3 || c.GetLastSeq() != 3 || !resp.GetComplete() {
		t.Fatalf("%v", c)
	}
}

// Defect 47: recall takes the content away, for everybody, within its window.
func TestDefect47_RecallBlanksAndTells(t *testing.T) {
	h := newHarness(t)
	conv := h.befriend(2, 3)
	h.connect(2, 1, im.PlatformWeb)
	h.connect(2, 2, im.PlatformApp)
	h.connect(3, 3, im.PlatformWeb)
	m := privateSend(2, 3, 7, "regretted")
	m.DataJson = `"too"`
	sent := h.mustSend(m)
	recall := func(req *logicv1.RecallRequest) (*pushv1.RecallEvent, error) {
		resp, err := h.Recall(t.Context(), req)
		return resp.GetRecall(), err
	}
	for what, req := range map[string]*logicv1.RecallRequest{
		"the receiver":      {UserId: 3, MessageId: sent.GetMessageId(), Kind: 1},
		"a stranger":        {UserId: 4, MessageId: sent.GetMessageId(), Kind: 1},
		"unknown":           {UserId: 2, MessageId: 999_999_999, Kind: 1},
		"to somebody else":  {UserId: 2, MessageId: sent.GetMessageId(), Kind: 1, ToId: 9},
		"unknown key":       {UserId: 2, ClientMsgId: 8, Kind: 1, ToId: 3},
		"key, no such talk": {UserId: 2, ClientMsgId: 7, Kind: 1, ToId: 9},
	} {
		_, err := recall(req)
		wantReason(t, what, err, "recall_refused")
	}
	_, err := recall(&logicv1.RecallRequest{UserId: 2, Kind: 1, ToId: 3})
	wantReason(t, "nothing named", err, "client_msg_id_invalid")
	ev, err := recall(&logicv1.RecallRequest{UserId: 2, ClientMsgId: 7, Kind: 1, ToId: 3})
	must(t, err)
	if ev.GetMessageId() != sent.GetMessageId() || ev.GetClientMsgId() != 7 || ev.GetSenderId() != 2 || ev.GetToId() != 3 || ev.GetKind() != 1 {
		t.Fatalf("%v", ev)
	}
	again, err := recall(&logicv1.RecallRequest{UserId: 2, MessageId: sent.GetMessageId(), Kind: 1, ToId: 3})
	if err != nil || again.GetMessageId() != ev.GetMessageId() {
		t.Fatalf("a repeat: %v, %v", again, err)
	}
	var told [][]int64
	for _, e := range h.bus.all() {
		for _, x := range e.GetEvents() {
			if x.GetRecall() != nil {
				told = append(told, x.GetUserIds())
			}
		}
	}
	if len(told) != 2 { // once for each: who repeats it may have to, because nobody heard of it
		t.Fatalf("told %v, want both twice", told)
	}
	for _, users := range told {
		if len(users) != 2 || !slices.Contains(users, 2) || !slices.Contains(users, 3) {
			t.Fatalf("told %v, want both", users)
		}
	}
	row := h.history(3, im.Private, 2, 0, 50).GetMessages()[0]
	if row.GetStatus() != statusRecalled || row.GetText() != "" || row.GetDataJson() != "" || row.GetSeq() != 1 {
		t.Fatalf("%v", row)
	}
	var raw string
	must(t, h.store.db.Get(&raw, `SELECT CONCAT(text, data_json) FROM messages WHERE conversation_id = ?`, int64(conv)))
	if raw != "" {
		t.Error("the content is still stored")
	}
	// A device that had not got it gets its place, and nothing of what it said.
	after := h.mustSend(privateSend(2, 3, 8, "after it"))
	got := h.connect(3, 9, im.PlatformPC).messages()
	if len(got) != 2 || got[0].GetStatus() != statusRecalled || got[0].GetText() != "" || got[0].GetDataJson() != "" ||
		got[0].GetSeq() != 1 || got[0].GetId() != sent.GetMessageId() || got[1].GetSeq() != after.GetSeq() {
		t.Errorf("replayed: %v", got)
	}
	if s := h.mustSend(m); !s.GetDuplicate() || s.GetSeq() != 1 {
		t.Errorf("resending brings it back: %v", s)
	}
	// The key stays with what was said, although that is no longer kept.
	m.Text = "another"
	_, err = h.trySend(m)
	wantReason(t, "other content under a recalled key", err, "client_msg_id_reused")
}

func TestRecall_WindowNoticesAndMembership(t *testing.T) {
	h := newHarness(t)
	group := h.group(10, 11)
	notice, _ := h.lastNotice(group)
	try := func(u im.UserID, id int64) error {
		_, err := h.Recall(t.Context(), &logicv1.RecallRequest{UserId: int64(u), MessageId: id, Kind: 2})
		return err
	}
	wantReason(t, "a notice", try(10, int64(notice.ID)), "recall_refused")
	first := h.mustSend(groupSend(11, group, 1, "x"))
	must(t, try(11, first.GetMessageId()))
	second := h.mustSend(groupSend(11, group, 2, "x"))
	h.exec(`UPDATE messages SET sent_at_ms = sent_at_ms - ? WHERE id = ?`, h.cfg.RecallWindow.Milliseconds()+1, second.GetMessageId())
	wantReason(t, "too late", try(11, second.GetMessageId()), "recall_refused")
	third := h.mustSend(groupSend(11, group, 3, "x"))
	must(t, h.kick(10, group, 11))
	wantReason(t, "no member any more", try(11, third.GetMessageId()), "recall_refused")
}
