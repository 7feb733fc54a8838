package logic

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	logicv1 "im-services/api/proto/logic/v1"
	"im-services/internal/im"
)

func (h *harness) createSession(user im.UserID, kind im.ChannelKind, target int64) (*logicv1.Session, error) {
	resp, err := h.CreateSession(h.t.Context(), &logicv1.CreateSessionRequest{UserId: int64(user), Kind: int32(kind), TargetId: target})
	return resp.GetSession(), err
}

func (h *harness) deleteSession(user im.UserID, id int64) {
	h.t.Helper()
	_, err := h.DeleteSession(h.t.Context(), &logicv1.DeleteSessionRequest{UserId: int64(user), SessionId: id})
	must(h.t, err)
}

// D3: everybody starts with the bot's session; deleting it is for good.
func TestListSessions_EverybodyStartsWithTheBot(t *testing.T) {
	h := newHarness(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := h.ListSessions(t.Context(), &logicv1.ListSessionsRequest{UserId: 5}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	list := h.sessions(5)
	if len(list) != 1 || list[0].GetPeerId() != int64(im.BotID) || list[0].GetKind() != 1 || list[0].GetGroupId() != 0 || list[0].GetOwnerId() != 5 {
		t.Fatalf("%v", list)
	}
	h.deleteSession(5, list[0].GetId())
	if list := h.sessions(5); len(list) != 0 {
		t.Fatalf("it came back: %v", list)
	}
	again, err := h.createSession(5, im.Private, int64(im.BotID))
	must(t, err)
	if again.GetId() != list[0].GetId() || again.GetHidden() || len(h.sessions(5)) != 1 {
		t.Fatalf("%v", again)
	}
}

func TestListSessions_PinnedFirstThenNewestActivityWithUnread(t *testing.T) {
	h := newHarness(t)
	h.sessions(2) // makes the bot's, the oldest
	group := h.group(10, 2)
	h.befriend(2, 3)
	h.befriend(2, 4)
	time.Sleep(2 * time.Millisecond)
	quiet, err := h.createSession(2, im.Private, 9) // nobody he knows: allowed, the client asks for it
	must(t, err)
	if quiet.GetConversationId() != 0 || quiet.GetLastMessage() != nil {
		t.Fatalf("%v", quiet)
	}
	for _, peer := range []int64{3, 4} {
		if _, err := h.createSession(2, im.Private, peer); err != nil {
			t.Fatal(err)
		}
	}
	for i := int64(1); i <= 3; i++ {
		h.mustSend(privateSend(3, 2, i, fmt.Sprint("from 3: ", i)))
		h.mustSend(privateSend(2, 3, i, "own"))
	}
	time.Sleep(2 * time.Millisecond)
	h.mustSend(groupSend(10, group, 1, "to the group"))
	time.Sleep(2 * time.Millisecond)
	h.mustSend(privateSend(2, 4, 1, "own, last"))
	order := func() string {
		var out []string
		for _, s := range h.sessions(2) {
			out = append(out, fmt.Sprintf("%d:%d", max(s.GetPeerId(), s.GetGroupId()), s.GetUnread()))
		}
		return strings.Join(out, " ")
	}
	first := h.sessions(2)
	want := fmt.Sprintf("4:0 %d:2 3:3 9:0 1:0", group)
	if got := order(); got != want {
		t.Fatalf("order and unread %q, want %q", got, want)
	}
	if m := first[0].GetLastMessage(); m.GetText() != "own, last" || m.GetSenderId() != 2 || m.GetToId() != 4 {
		t.Errorf("last message %v", m)
	}
	if s := first[2]; s.GetLastSeq() != 6 || s.GetReadSeq() != 0 || s.GetLastMessage().GetSeq() != 6 || s.GetLastMessage().GetToId() != 3 {
		t.Errorf("%v", s)
	}
	pin := true
	_, err = h.UpdateSession(t.Context(), &logicv1.UpdateSessionRequest{UserId: 2, SessionId: quiet.GetId(), Pinned: &pin})
	must(t, err)
	want = fmt.Sprintf("9:0 4:0 %d:2 3:3 1:0", group) // the pinned one first
	if got := order(); got != want {
		t.Fatalf("pinned: %q, want %q", got, want)
	}
}

// However many sessions there are, the list takes the same few queries.
func TestListSessions_TakesAFixedNumberOfQueries(t *testing.T) {
	h := newHarness(t)
	questions := func(user im.UserID) int {
		var before, after struct {
			Name  string `db:"Variable_name"`
			Value int    `db:"Value"`
		}
		must(t, h.store.db.Get(&before, `SHOW GLOBAL STATUS LIKE 'Com_select'`))
		h.sessions(user)
		must(t, h.store.db.Get(&after, `SHOW GLOBAL STATUS LIKE 'Com_select'`))
		return after.Value - before.Value
	}
	for i := im.UserID(100); i < 140; i++ {
		h.befriend(5, i)
		h.mustSend(privateSend(i, 5, 1, "x"))
		if _, err := h.createSession(5, im.Private, int64(i)); err != nil {
			t.Fatal(err)
		}
	}
	for i := im.UserID(200); i < 210; i++ {
		h.group(i, 5)
	}
	h.published()
	if n := len(h.sessions(5)); n != 51 {
		t.Fatalf("%d sessions", n)
	}
	least := questions(5)
	for range 10 { // the sweepers of the replica ask now and then, too
		least = min(least, questions(5))
	}
	if least > 6 {
		t.Errorf("%d queries for 51 sessions", least)
	}
}

// A list has so many private sessions, whoever has them made; the one that was quiet
// longest goes, and comes back when it is asked for again.
func TestG13_PrivateSessionsOfAListAreBounded(t *testing.T) {
	h := newHarness(t, func(c *Config) { c.SessionsMax = 4 })
	group := h.group(10, 2)
	later := func() { time.Sleep(2 * time.Millisecond) }
	create := func(peer int64) *logicv1.Session {
		t.Helper()
		later()
		s, err := h.createSession(2, im.Private, peer)
		must(t, err)
		return s
	}
	peers := func() (out []int64) {
		for _, s := range h.sessions(2) {
			if s.GetGroupId() != group {
				out = append(out, s.GetPeerId())
			}
		}
		slices.Sort(out)
		return out
	}
	want := func(what string, list ...int64) {
		t.Helper()
		if got := peers(); !slices.Equal(got, list) {
			t.Fatalf("%s: %v, want %v", what, got, list)
		}
	}
	h.befriend(2, 3)
	want("at first", 1)
	pinned, pin := create(5), true
	_, err := h.UpdateSession(t.Context(), &logicv1.UpdateSessionRequest{UserId: 2, SessionId: pinned.GetId(), Pinned: &pin})
	must(t, err)
	create(3)
	create(4)
	want("as many as there may be", 1, 3, 4, 5)
	later()
	h.mustSend(privateSend(3, 2, 1, "hi"))
	create(6)
	want("the one that was quiet longest, and is not pinned, goes", 1, 3, 5, 6)
	create(3)
	want("one that is there takes no place", 1, 3, 5, 6)

	later()
	accepted, err := h.SetPrivate(t.Context(), &logicv1.SetPrivateRequest{UserA: 7, UserB: 2, Open: true, Version: 1, WithSessions: true})
	must(t, err)
	want("a friendship makes room, too", 1, 5, 6, 7)
	later()
	h.mustSend(privateSend(3, 2, 2, "still there?")) // a session is not needed for it
	if back := create(3); back.GetUnread() != 2 || back.GetLastMessage().GetText() != "still there?" {
		t.Fatalf("%v", back)
	}
	want("asked for again", 1, 3, 5, 7)
	if h.groupSession(2, group) == nil || accepted.GetSessionIdA() == 0 || len(h.sessions(7)) != 2 {
		t.Error("a group's session, or another user's, is gone")
	}

	var wg sync.WaitGroup
	for peer := int64(20); peer < 30; peer++ {
		wg.Go(func() {
			if _, err := h.createSession(2, im.Private, peer); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	create(30)
	if got := peers(); len(got) != 4 || got[0] != int64(im.BotID) || got[1] != 5 || got[3] != 30 {
		t.Fatalf("after many at once: %v", got)
	}
}

// Defect 41: a group is no user, membership counts, and however often the client
// asks it is one session. Defect 40: it is the caller's own.
func TestDefect41_CreateSessionKnowsGroupsFromUsers(t *testing.T) {
	h := newHarness(t)
	group := h.group(10, 11)
	var (
		wg  sync.WaitGroup
		ids [20]int64
	)
	for i := range ids {
		wg.Go(func() {
			s, err := h.createSession(3, im.Private, 4)
			if err != nil {
				t.Error(err)
			}
			ids[i] = s.GetId()
		})
	}
	wg.Wait()
	for _, id := range ids {
		if id != ids[0] || id == 0 {
			t.Fatalf("several sessions: %v", ids)
		}
	}
	a, err := h.createSession(10, im.Group, group)
	must(t, err)
	b, err := h.createSession(11, im.Group, group)
	must(t, err)
	if a.GetId() == b.GetId() || a.GetOwnerId() != 10 || b.GetOwnerId() != 11 || a.GetPeerId() != 0 || a.GetGroup().GetName() != "team" {
		t.Fatalf("%v and %v", a, b)
	}
	h.deleteSession(11, b.GetId())
	_, err = h.UpdateSession(t.Context(), &logicv1.UpdateSessionRequest{UserId: 11, SessionId: b.GetId()})
	wantReason(t, "a deleted session", err, "session_not_found")
	if again, err := h.createSession(11, im.Group, group); err != nil || again.GetConversationId() != group || again.GetHidden() {
		t.Fatalf("%v, %v", again, err)
	}
	for what, c := range map[string]struct {
		user   im.UserID
		kind   im.ChannelKind
		target int64
		reason string
	}{
		"not a member":     {12, im.Group, group, "session_not_member"},
		"a user as group":  {3, im.Group, 4, "session_not_member"},
		"oneself":          {3, im.Private, 3, "session_self"},
		"no kind":          {3, 3, 4, "session_type_invalid"},
		"no target":        {3, im.Private, 0, "to_id_invalid"},
		"nobody who asks":  {0, im.Private, 4, "sender_missing"},
		"target too large": {3, im.Private, im.MaxID + 1, "to_id_invalid"},
	} {
		_, err := h.createSession(c.user, c.kind, c.target)
		wantReason(t, what, err, c.reason)
	}
	private := h.befriend(3, 4)
	_, err = h.createSession(3, im.Group, int64(private))
	wantReason(t, "a private conversation as group", err, "session_not_member")
}

// Defect 42: a pin can be taken off and a note cleared. Defect 25: by its owner only.
func TestDefect42_UpdateSessionSetsAndClears(t *testing.T) {
	h := newHarness(t)
	s, err := h.createSession(3, im.Private, 4)
	must(t, err)
	update := func(user im.UserID, pinned *bool, note *string) error {
		_, err := h.UpdateSession(t.Context(), &logicv1.UpdateSessionRequest{UserId: int64(user), SessionId: s.GetId(), Pinned: pinned, Note: note})
		return err
	}
	read := func() *logicv1.Session {
		for _, l := range h.sessions(3) {
			if l.GetId() == s.GetId() {
				return l
			}
		}
		t.Fatal("gone")
		return nil
	}
	yes, no, note, empty := true, false, "备注 ✓", ""
	must(t, update(3, &yes, nil))
	must(t, update(3, nil, &note))
	if l := read(); !l.GetPinned() || l.GetPinnedAtMs() == 0 || l.GetNote() != note {
		t.Fatalf("%v", l)
	}
	must(t, update(3, &yes, nil)) // again: no change, no error
	must(t, update(3, &no, &empty))
	if l := read(); l.GetPinned() || l.GetPinnedAtMs() != 0 || l.GetNote() != "" {
		t.Fatalf("%v", l)
	}
	wantReason(t, "another user", update(4, &yes, nil), "session_not_found")
	long := strings.Repeat("字", maxNote+1)
	wantReason(t, "long", update(3, nil, &long), "note_too_long")
	long = long[:len(long)-len("字")]
	must(t, update(3, nil, &long))
	h.deleteSession(4, s.GetId())
	read()
	h.deleteSession(3, s.GetId())
	h.deleteSession(3, s.GetId()) // no such session is a success
	h.deleteSession(3, 99_999_999)
}

// D5: on accept the requester's session takes the record's id, unless he has a
// session with that user or the id is another session's already.
func TestSetPrivate_SessionsTakeTheRecordID(t *testing.T) {
	h := newHarness(t)
	accept := func(a, b im.UserID, version, id int64) *logicv1.SetPrivateResponse {
		t.Helper()
		resp, err := h.SetPrivate(t.Context(), &logicv1.SetPrivateRequest{UserA: int64(a), UserB: int64(b), Open: true, Version: version, SessionIdA: id, WithSessions: true})
		must(t, err)
		return resp
	}
	block, err := h.AllocateIDs(t.Context(), &logicv1.AllocateIDsRequest{Count: 5})
	must(t, err)
	if block.GetCount() != 5 || block.GetFirst() < 1000 {
		t.Fatalf("%v", block)
	}
	record := block.GetFirst()
	got := accept(3, 4, 1, record)
	if got.GetSessionIdA() != record || got.GetSessionIdB() == record || got.GetSessionIdB() == 0 {
		t.Fatalf("%v", got)
	}
	if again := accept(3, 4, 1, record); again.GetSessionIdA() != got.GetSessionIdA() || again.GetSessionIdB() != got.GetSessionIdB() || again.GetConversationId() != got.GetConversationId() {
		t.Errorf("repeated: %v, first %v", again, got)
	}
	old, err := h.createSession(5, im.Private, 6)
	must(t, err)
	if got := accept(5, 6, 1, record+1); got.GetSessionIdA() != old.GetId() {
		t.Errorf("his own session was replaced: %v", got)
	}
	if got := accept(7, 8, 1, record); got.GetSessionIdA() == record || got.GetSessionIdA() == 0 {
		t.Errorf("another user's session was taken: %v", got)
	}
	if s := h.sessions(3); len(s) != 2 {
		t.Errorf("%v", s)
	}
}

// Relation changes reach logic in any order; the newest version holds.
func TestSetPrivate_OlderVersionsChangeNothing(t *testing.T) {
	h := newHarness(t)
	set := func(version int64, open bool) {
		t.Helper()
		_, err := h.SetPrivate(t.Context(), &logicv1.SetPrivateRequest{UserA: 3, UserB: 2, Open: open, Version: version, WithSessions: true})
		must(t, err)
	}
	var client int64
	say := func() error {
		client++
		_, err := h.trySend(privateSend(2, 3, client, "x"))
		return err
	}
	set(5, true)
	must(t, say())
	set(4, false) // late
	must(t, say())
	set(7, false)
	wantReason(t, "closed", say(), "not_friends")
	set(6, true) // late
	set(7, true) // the same version again is a repeat, not a change
	wantReason(t, "closed by the newer version", say(), "not_friends")
	set(8, true)
	must(t, say())
	for what, r := range map[string]*logicv1.SetPrivateRequest{"himself": {UserA: 2, UserB: 2, Version: 1}, "nobody": {UserA: 2, Version: 1}} {
		_, err := h.SetPrivate(t.Context(), r)
		wantReason(t, what, err, "to_id_invalid")
	}
}

// Many calls for one pair at once, from two replicas: one conversation, and the
// newest version's state.
func TestSetPrivate_RacesMakeOneConversation(t *testing.T) {
	h := newHarness(t)
	replicas := h.replicas(2)
	var (
		wg    sync.WaitGroup
		convs [40]int64
	)
	for i := range convs {
		wg.Go(func() {
			resp, err := replicas[i%2].SetPrivate(t.Context(), &logicv1.SetPrivateRequest{
				UserA: int64(2 + i%2), UserB: int64(3 - i%2), Open: i%3 > 0, Version: int64(i + 1), WithSessions: true,
			})
			if err != nil {
				t.Error(err)
			}
			convs[i] = resp.GetConversationId()
		})
	}
	wg.Wait()
	for _, c := range convs {
		if c != convs[0] || c == 0 {
			t.Fatalf("several conversations: %v", convs)
		}
	}
	if _, err := h.trySend(privateSend(2, 3, 1, "x")); (err == nil) != (39%3 > 0) {
		t.Errorf("state of the newest version: %v", err)
	}
}

// A transaction holds a connection and may need a second one for an id. More
// transactions than connections must wait their turn, not each other out.
func TestTransactions_DoNotStarveTheIDAllocator(t *testing.T) {
	h := newHarness(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for i := range 4 * h.store.db.Stats().MaxOpenConnections {
		wg.Go(func() {
			for n := range int64(12) {
				if _, err := h.CreateSession(ctx, &logicv1.CreateSessionRequest{UserId: int64(100 + i), Kind: 1, TargetId: 10_000 + n}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestAllocateIDs_NeverTwice(t *testing.T) {
	h := newHarness(t)
	replicas := h.replicas(2)
	var (
		mu   sync.Mutex
		seen = map[int64]bool{}
		wg   sync.WaitGroup
	)
	for i := range 8 {
		wg.Go(func() {
			for n := range 30 {
				resp, err := replicas[i%2].AllocateIDs(t.Context(), &logicv1.AllocateIDsRequest{Count: int32(n * 13)})
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				for id := resp.GetFirst(); id < resp.GetFirst()+int64(resp.GetCount()); id++ {
					if seen[id] {
						t.Errorf("%d twice", id)
					}
					seen[id] = true
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
}

func TestRegisterUpload_OnceAndWhole(t *testing.T) {
	h := newHarness(t)
	req := func(change func(*logicv1.RegisterUploadRequest)) *logicv1.RegisterUploadRequest {
		r := &logicv1.RegisterUploadRequest{UserId: 3, Key: "ab/cd.png", Name: "图.png", ContentType: "image/png", Size: 7, Sha256: make([]byte, 32)}
		if change != nil {
			change(r)
		}
		return r
	}
	for range 2 {
		_, err := h.RegisterUpload(t.Context(), req(nil))
		must(t, err)
	}
	_, err := h.RegisterUpload(t.Context(), req(func(r *logicv1.RegisterUploadRequest) { r.UserId = 4 }))
	wantReason(t, "another user's key", err, "upload_conflict")
	for what, change := range map[string]func(*logicv1.RegisterUploadRequest){
		"no user": func(r *logicv1.RegisterUploadRequest) { r.UserId = 0 },
		"no key":  func(r *logicv1.RegisterUploadRequest) { r.Key = "" },
		"no hash": func(r *logicv1.RegisterUploadRequest) { r.Sha256 = nil },
		"name":    func(r *logicv1.RegisterUploadRequest) { r.Name = strings.Repeat("x", 256) },
		"size":    func(r *logicv1.RegisterUploadRequest) { r.Size = -1 },
	} {
		_, err := h.RegisterUpload(t.Context(), req(change))
		wantReason(t, what, err, "upload_invalid")
	}
}

// What one user's files may take is bounded, however small they are; what is
// registered already stays so.
func TestRegisterUpload_Quota(t *testing.T) {
	h := newHarness(t)
	const quota = 10<<20 + 3*fileBytes
	register := func(user im.UserID, key string, size, quota int64) error {
		_, err := h.RegisterUpload(t.Context(), &logicv1.RegisterUploadRequest{
			UserId: int64(user), Key: key, Name: "x", ContentType: "image/png", Size: size, Sha256: make([]byte, 32), Quota: quota,
		})
		return err
	}
	used := func(user im.UserID, want int64) {
		t.Helper()
		resp, err := h.UploadUsage(t.Context(), &logicv1.UploadUsageRequest{UserId: int64(user)})
		must(t, err)
		if resp.GetBytes() != want {
			t.Fatalf("user %d has used %d, want %d", user, resp.GetBytes(), want)
		}
	}
	used(3, 0)
	must(t, register(3, "a", 4<<20, quota))
	must(t, register(3, "b", 5<<20, quota))
	wantReason(t, "too much", register(3, "c", 1<<20+1, quota), "upload_quota_reached")
	used(3, 9<<20+2*fileBytes)
	for range 2 {
		must(t, register(3, "c", 1<<20, quota))
	}
	used(3, quota)
	wantReason(t, "one byte more", register(3, "d", 1, quota), "upload_quota_reached")
	wantReason(t, "a small file", register(4, "e", 1, fileBytes), "upload_quota_reached")
	must(t, register(4, "e", 4<<20, quota))
	must(t, register(3, "d", 4<<20, 0))
}

func TestListSessions_TheBotIsNoNewerThanFriends(t *testing.T) {
	h := newHarness(t)
	if _, err := h.SetPrivate(t.Context(), &logicv1.SetPrivateRequest{UserA: 2, UserB: 3, Open: true, Version: 1, WithSessions: true}); err != nil {
		t.Fatal(err)
	}
	resp, err := h.ListSessions(t.Context(), &logicv1.ListSessionsRequest{UserId: 2})
	if err != nil {
		t.Fatal(err)
	}
	if got := resp.GetSessions(); len(got) != 2 || got[0].GetPeerId() != 3 || got[1].GetPeerId() != int64(im.BotID) {
		t.Fatalf("the friend does not come first: %v", got)
	}
}

// What others write, as much as they may, does not make a list larger than an
// answer of logic may be (maxResponse of internal/platform/rpc).
func TestLists_FitIntoAnAnswerWhateverOthersWrite(t *testing.T) {
	h := newHarness(t)
	const (
		n          = 2000 // logic.groups_max, and logic.sessions_max
		large      = 60   // of these the last message is as large as it may be
		maxAnswer  = 16 << 20
		wideRune   = "😀"
		nameLength = 20 // what the edge lets through
		infoLength = 255
	)
	first, err := h.store.objectIDs.take(t.Context(), 4*n, 0)
	must(t, err)
	wide := func(n int) string { return strings.Repeat(wideRune, n) }
	for i := int64(0); i < n; i += 100 {
		var convs, pairs, groups, members, sessions []any
		for id := first + 2*i; id < first+2*(i+100); id += 2 {
			convs = append(convs, id, int64(im.Group), 1, 1, id)
			groups = append(groups, id, 10, wide(nameLength), wide(infoLength), "https://x/"+strings.Repeat("x", 490), wide(maxGroupTheme), wide(maxAnnouncement), 1)
			members = append(members, id, 2, id, roleMember, 1, 1)
			sessions = append(sessions, id+1, 2, int64(im.Group), id, 1, wide(maxNote))
			peer := 10 + (id-first)/2
			private := id + 2*n
			pairs = append(pairs, private, int64(im.Private), 1, 1, id, 2, peer)
			members = append(members, private, 2, private, roleMember, 1, 1)
			sessions = append(sessions, private+1, 2, int64(im.Private), peer, 1, wide(maxNote))
			h.exec(`INSERT INTO messages (`+messageColumns+`) VALUES (?,1,?,?,?,'',1,1,1,1,?,'')`, private, private, peer, private, wide(300))
			text, data := wide(300), ""
			if id < first+2*large {
				text, data = "x", `"`+strings.Repeat(`\u0000`, maxContent-2)+`"`
			}
			h.exec(`INSERT INTO messages (`+messageColumns+`) VALUES (?,1,?,10,?,'',1,1,1,1,?,?)`, id, id, id, text, data)
		}
		h.exec(`INSERT INTO conversations (id, kind, open, last_seq, last_message_id) VALUES `+rows(5, 100), convs...)
		h.exec(`INSERT INTO chat_groups (id, owner_id, name, info, avatar, theme, announcement, created_at_ms) VALUES `+rows(8, 100), groups...)
		h.exec(`INSERT INTO conversations (id, kind, open, last_seq, last_message_id, user_lo, user_hi) VALUES `+rows(7, 100), pairs...)
		h.exec(`INSERT INTO members (conversation_id, user_id, id, role, first_seq, joined_at_ms) VALUES `+rows(6, 200), members...)
		h.exec(`INSERT INTO sessions (id, owner_id, kind, target_id, created_at_ms, note) VALUES `+rows(6, 200), sessions...)
	}
	list, err := h.ListSessions(t.Context(), &logicv1.ListSessionsRequest{UserId: 2})
	must(t, err)
	if got := len(list.GetSessions()); got != n+n { // the bot's took a place
		t.Fatalf("%d sessions", got)
	}
	if size := proto.Size(list); size > maxAnswer {
		t.Errorf("the list of sessions has %d bytes", size)
	} else {
		t.Logf("the list of sessions has %d bytes", size)
	}
	for _, s := range list.GetSessions() {
		if s.GetPeerId() == int64(im.BotID) {
			continue
		}
		if m := s.GetLastMessage(); s.GetUnread() != 1 || m.GetText() != "x" && m.GetText() != wide(200) || m.GetDataJson() != "" {
			t.Fatalf("%d: unread %d, %d bytes of text", s.GetGroupId(), s.GetUnread(), len(m.GetText()))
		}
	}
	groups, err := h.ListGroups(t.Context(), &logicv1.ListGroupsRequest{UserId: 2})
	must(t, err)
	if size := proto.Size(groups); len(groups.GetGroups()) != n || size > maxAnswer {
		t.Errorf("%d groups in %d bytes", len(groups.GetGroups()), size)
	}
	one, err := h.GetGroup(t.Context(), &logicv1.GetGroupRequest{UserId: 2, GroupId: first})
	must(t, err)
	if one.GetGroup().GetAnnouncement() != wide(maxAnnouncement) {
		t.Error("a group alone does not show its whole announcement")
	}
}

// A group's session that its member has deleted is back once something is said there,
// and not before.
func TestDeletedGroupSessionComesBackWithTheNextMessage(t *testing.T) {
	h := newHarness(t)
	group := h.group(10, 11)
	h.mustSend(groupSend(10, group, 1, "before"))
	h.deleteSession(11, h.groupSession(11, group).GetId())
	for range 2 { // reading the list brings nothing back
		if h.groupSession(11, group) != nil {
			t.Fatal("it is still there")
		}
	}
	h.mustSend(groupSend(10, group, 2, "after"))
	back := h.groupSession(11, group)
	if back == nil || back.GetLastMessage().GetText() != "after" {
		t.Fatalf("%v", back)
	}
	pinned := true
	if _, err := h.UpdateSession(t.Context(), &logicv1.UpdateSessionRequest{UserId: 11, SessionId: back.GetId(), Pinned: &pinned}); err != nil {
		t.Error(err)
	}
}

// What was said in a group before somebody left stays in his history and is not unread:
// nobody can say any more that he has read it.
func TestNothingIsUnreadInAGroupThatWasLeft(t *testing.T) {
	h := newHarness(t)
	group := h.group(10, 11)
	h.mustSend(groupSend(10, group, 1, "unread"))
	unread := func() (n int64) {
		resp, err := h.Sync(t.Context(), &logicv1.SyncRequest{UserId: 11, Limit: 10})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range resp.GetConversations() {
			n += c.GetUnread()
		}
		return n
	}
	if unread() == 0 {
		t.Fatal("a member has nothing unread")
	}
	must(t, h.leave(11, group))
	if n := unread(); n != 0 {
		t.Errorf("%d unread", n)
	}
}
