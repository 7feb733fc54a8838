package logic

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	logicv1 "im-services/api/proto/logic/v1"
	pushv1 "im-services/api/proto/push/v1"
	"im-services/internal/im"
	"im-services/internal/logic/migrations"
)

func profile(u im.UserID) *pushv1.Profile {
	return &pushv1.Profile{Id: int64(u), Name: "u" + u.String(), Avatar: "http://x/" + u.String() + ".png", Email: u.String() + "@example.com"}
}

func groupSend(from im.UserID, group, client int64, text string) *logicv1.Send {
	return &logicv1.Send{SenderId: int64(from), ToId: group, ClientMsgId: client, Kind: 2, Type: 1, Text: text, Platform: 1, Sender: profile(from)}
}

func createRequest(owner im.UserID, members ...im.UserID) *logicv1.CreateGroupRequest {
	return &logicv1.CreateGroupRequest{Actor: profile(owner), Name: "team", Info: "about us", Avatar: "http://x/g.png", Theme: "work", MemberIds: int64s(members)}
}

// befriendAll opens many private conversations of one user at once.
func (h *harness) befriendAll(user im.UserID, others ...im.UserID) {
	h.t.Helper()
	for page := range slices.Chunk(others, rowPage) {
		first, err := h.store.objectIDs.take(h.t.Context(), len(page), 0)
		if err != nil {
			h.t.Fatal(err)
		}
		var convs, members []any
		for i, o := range page {
			lo, hi := pairOf(user, o)
			id := first + int64(i)
			convs = append(convs, id, 1, 1, int64(lo), int64(hi))
			members = append(members, id, int64(user), id, 1, 1, 1, id, int64(o), id, 1, 1, 1)
		}
		h.exec(`INSERT IGNORE INTO conversations (id, kind, open, user_lo, user_hi) VALUES `+rows(5, len(page)), convs...)
		h.exec(`INSERT IGNORE INTO members (conversation_id, user_id, id, role, first_seq, joined_at_ms) VALUES `+rows(6, 2*len(page)), members...)
	}
}

func (h *harness) exec(query string, args ...any) {
	h.t.Helper()
	if _, err := h.store.db.ExecContext(h.t.Context(), query, args...); err != nil {
		h.t.Fatal(err)
	}
}

// group makes a group of friends; when it returns, its first notice is pushed and
// its members are told of their sessions.
func (h *harness) group(owner im.UserID, members ...im.UserID) int64 {
	h.t.Helper()
	h.befriendAll(owner, members...)
	resp, err := h.CreateGroup(h.t.Context(), createRequest(owner, members...))
	if err != nil {
		h.t.Fatal(err)
	}
	h.published()
	return resp.GetGroup().GetId()
}

// published waits until everything that is stored is pushed, and told of. Without
// it a push may yet go to who connects next.
func (h *harness) published() {
	h.t.Helper()
	eventually(h.t, 10*time.Second, "empty outbox and publisher", func() bool {
		var n int
		return h.store.db.Get(&n, `SELECT COUNT(*) FROM outbox`) == nil && n == 0 && h.pub.queued.Load() == 0
	})
}

// TestG14_ChangesOfAGroupTakeTurns: of the changes of one group in a replica only one
// tries for its row, and the others take no transaction from anybody meanwhile.
func TestG14_ChangesOfAGroupTakeTurns(t *testing.T) {
	h := newHarness(t)
	group := h.group(2, 3)
	done, err := h.groupTurns.take(t.Context(), im.ConversationID(group))
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err = h.Mute(ctx, &logicv1.MuteRequest{Actor: &pushv1.Profile{Id: 2}, GroupId: group, UserId: 3, Seconds: 60})
	if im.KindOf(err) != im.KindUnavailable {
		t.Errorf("out of turn: %v", err)
	}
	if n := len(h.store.txSlots); n != 0 {
		t.Errorf("%d transactions wait", n)
	}
	done()
	_, err = h.Mute(t.Context(), &logicv1.MuteRequest{Actor: &pushv1.Profile{Id: 2}, GroupId: group, UserId: 3, Seconds: 60})
	must(t, err)
}

func (h *harness) members(group int64, as im.UserID) []*logicv1.Member {
	h.t.Helper()
	resp, err := h.ListMembers(h.t.Context(), &logicv1.ListMembersRequest{UserId: int64(as), GroupId: group})
	if err != nil {
		h.t.Fatal(err)
	}
	return resp.GetMembers()
}

func (h *harness) sessions(user im.UserID) []*logicv1.Session {
	h.t.Helper()
	resp, err := h.ListSessions(h.t.Context(), &logicv1.ListSessionsRequest{UserId: int64(user)})
	if err != nil {
		h.t.Fatal(err)
	}
	return resp.GetSessions()
}

// groupSession returns the user's session with a group, nil if he has none.
func (h *harness) groupSession(user im.UserID, group int64) *logicv1.Session {
	for _, s := range h.sessions(user) {
		if s.GetGroupId() == group {
			return s
		}
	}
	return nil
}

// stored returns a group's messages as they are in the database.
func (h *harness) stored(group int64) []messageRow {
	h.t.Helper()
	rows, err := h.store.readMessages(h.t.Context(), h.store.db, im.ConversationID(group), 0, 1<<40, 1<<20)
	if err != nil {
		h.t.Fatal(err)
	}
	return rows
}

// lastNotice is the newest message of a group, which must be a notice, and its data.
func (h *harness) lastNotice(group int64) (messageRow, map[string]any) {
	h.t.Helper()
	rows := h.stored(group)
	m := rows[len(rows)-1]
	if m.Type != noticeType || m.ClientMsgID != im.ClientMsgID(-m.ID) || m.Text == "" || strings.Contains(m.Text, "%!") {
		h.t.Fatalf("not a notice: %+v", m)
	}
	return m, dataOf(h.t, m.DataJSON)
}

func dataOf(t testing.TB, literal string) map[string]any {
	t.Helper()
	var text string
	var members map[string]any
	if err := json.Unmarshal([]byte(literal), &text); err != nil {
		t.Fatalf("data is no JSON string: %s", literal)
	}
	if err := json.Unmarshal([]byte(text), &members); err != nil {
		t.Fatalf("data holds no object: %s", text)
	}
	return members
}

func wantReason(t testing.TB, what string, err error, reason string) {
	t.Helper()
	if !errors.Is(err, &im.Error{Reason: reason}) {
		t.Errorf("%s: %v, want %s", what, err, reason)
	}
}

func (h *harness) add(actor im.UserID, group int64, users ...im.UserID) error {
	_, err := h.AddMembers(h.t.Context(), &logicv1.AddMembersRequest{Actor: profile(actor), GroupId: group, UserIds: int64s(users)})
	return err
}

func (h *harness) kick(actor im.UserID, group int64, users ...im.UserID) error {
	_, err := h.RemoveMembers(h.t.Context(), &logicv1.RemoveMembersRequest{Actor: profile(actor), GroupId: group, UserIds: int64s(users)})
	return err
}

func (h *harness) leave(actor im.UserID, id int64) error {
	_, err := h.LeaveGroup(h.t.Context(), &logicv1.LeaveGroupRequest{Actor: profile(actor), Id: id})
	return err
}

func (h *harness) join(actor im.UserID, group int64, password, token string) error {
	_, err := h.JoinGroup(h.t.Context(), &logicv1.JoinGroupRequest{Actor: profile(actor), GroupId: group, Password: password, InviteToken: token})
	return err
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// sessionEvents returns the session events (frame 2003) that were published.
func (r *recorder) sessionEvents() []*pushv1.Event {
	var out []*pushv1.Event
	for _, e := range r.all() {
		for _, ev := range e.GetEvents() {
			if ev.GetSession() != nil {
				out = append(out, ev)
			}
		}
	}
	return out
}

func TestCreateGroup_MembersSessionsNoticeAndFrames(t *testing.T) {
	h := newHarness(t)
	for u := im.UserID(10); u <= 13; u++ {
		h.connect(u, int64(u), im.PlatformWeb)
	}
	group := h.group(10, 11, 12, 11, 10) // repeats and the creator himself do not count
	list := h.members(group, 12)
	if len(list) != 3 || list[0].GetUserId() != 10 || list[0].GetRole() != logicv1.Role_ROLE_OWNER || list[1].GetUserId() != 11 || list[2].GetRole() != logicv1.Role_ROLE_MEMBER {
		t.Fatalf("members %v", list)
	}
	notice, data := h.lastNotice(group)
	if notice.Seq != 1 || notice.SenderID != 10 || data["event"] != "create" || data["group"] != float64(group) || data["id"] != 10.0 || data["name"] != "u10" || data["count"] != 2.0 {
		t.Fatalf("notice %+v, %v", notice, data)
	}
	eventually(t, 2*time.Second, "three session frames", func() bool { return len(h.bus.sessionEvents()) == 3 })
	for _, e := range h.bus.sessionEvents() {
		v := e.GetSession()
		s := h.groupSession(im.UserID(e.GetUserIds()[0]), group)
		if s == nil || v.GetSessionId() != s.GetId() || v.GetOwnerId() != e.GetUserIds()[0] || v.GetGroupId() != group || v.GetGroupName() != "team" || v.GetGroupOwnerId() != 10 {
			t.Errorf("frame %v, session %v", e, s)
		}
		if s.GetPeerId() != 0 || s.GetUnread() > 1 || s.GetGroup().GetMemberCount() != 3 || s.GetLastMessage().GetSeq() != 1 {
			t.Errorf("session %v", s)
		}
	}
	for u := im.UserID(10); u <= 12; u++ {
		got := h.bus.pushedTo(u)
		if len(got) != 1 || got[0].GetType() != noticeType || got[0].GetToId() != group || got[0].GetClientMsgId() != im.MaxID-got[0].GetId() {
			t.Errorf("pushed to %d: %v", u, got)
		}
	}
	if got := h.bus.pushedTo(13); len(got) != 0 {
		t.Errorf("a stranger got %v", got)
	}
}

// A frame 2003 makes the web client load the history; a notice that came after
// it would be shown twice.
func TestCreateGroup_NoticeIsPushedBeforeTheSessionFrame(t *testing.T) {
	h := newHarness(t)
	h.connect(10, 1, im.PlatformWeb)
	h.group(10)
	eventually(t, 2*time.Second, "frame", func() bool { return len(h.bus.sessionEvents()) == 1 })
	for _, e := range h.bus.all() {
		if len(e.GetMessages()) > 0 {
			return
		}
		if slices.ContainsFunc(e.GetEvents(), func(ev *pushv1.Event) bool { return ev.GetSession() != nil }) {
			t.Fatal("the session frame came first")
		}
	}
}

func TestCreateGroup_StrangersAreRefusedAndNothingIsMade(t *testing.T) {
	h := newHarness(t)
	h.befriendAll(10, 11)
	h.setPrivate(10, 12, true)
	h.setPrivate(10, 12, false)
	_, err := h.trySend(privateSend(10, im.BotID, 1, "opens the bot's conversation"))
	must(t, err)
	for what, u := range map[string]im.UserID{"stranger": 99, "former friend": 12, "bot": im.BotID} {
		_, err := h.CreateGroup(t.Context(), createRequest(10, 11, u))
		wantReason(t, what, err, "select_not_friends")
	}
	_, err = h.CreateGroup(t.Context(), createRequest(10, 11, -1))
	wantReason(t, "id", err, "id_invalid")
	for _, table := range []string{"chat_groups", "invites", "sessions"} {
		var n int
		if err := h.store.db.Get(&n, `SELECT COUNT(*) FROM `+table); err != nil || n != 0 {
			t.Errorf("%s has %d rows, %v", table, n, err)
		}
	}
}

// Defects 26 and 37: the password is kept, as a hash that nobody gets to see,
// and it is asked for.
func TestDefect37_GroupPasswordIsKeptAndAsked(t *testing.T) {
	h := newHarness(t)
	req := createRequest(10)
	req.Password = "秘密 secret"
	resp, err := h.CreateGroup(t.Context(), req)
	must(t, err)
	group := resp.GetGroup().GetId()
	if !resp.GetGroup().GetHasPassword() || resp.GetGroup().GetTheme() != "work" {
		t.Fatalf("%v", resp)
	}
	var hash string
	must(t, h.store.db.Get(&hash, `SELECT password_hash FROM chat_groups WHERE id = ?`, group))
	if !strings.HasPrefix(hash, "$argon2id$") || strings.Contains(hash, "secret") || strings.Contains(resp.String(), hash) {
		t.Fatalf("hash %q", hash)
	}
	wantReason(t, "no password", h.join(11, group, "", ""), "group_password_wrong")
	wantReason(t, "wrong password", h.join(11, group, "secret", ""), "group_password_wrong")
	must(t, h.join(11, group, "秘密 secret", ""))
	wantReason(t, "again", h.join(11, group, "wrong", ""), "group_already_member")
	for i := range passwordTries {
		wantReason(t, fmt.Sprint("try ", i), h.join(12, group, "guess", ""), "group_password_wrong")
	}
	err = h.join(12, group, "秘密 secret", "")
	wantReason(t, "after many tries", err, "group_password_too_often")
	if e, _ := asError(err); e.RetryAfter <= 0 {
		t.Error("does not say when to try again")
	}
	must(t, h.join(13, group, "秘密 secret", "")) // another user is not held up
}

// Tries at once are counted as tries one after another are; one that was not
// judged is none.
func TestGroupPassword_TriesAtOnce(t *testing.T) {
	h := newHarness(t)
	req := createRequest(10)
	req.Password = "secret"
	resp, err := h.CreateGroup(t.Context(), req)
	must(t, err)
	group := resp.GetGroup().GetId()
	atOnce := func(n int) map[string]int {
		var mu sync.Mutex
		var wg sync.WaitGroup
		got := map[string]int{}
		for range n {
			wg.Go(func() {
				err := h.join(12, group, "guess", "")
				mu.Lock()
				got[im.ReasonOf(err)]++
				mu.Unlock()
			})
		}
		wg.Wait()
		return got
	}
	for range passwordSlots {
		h.groupPasswords.slots <- struct{}{}
	}
	if got := atOnce(passwordTries); got["group_busy"] != passwordTries {
		t.Fatalf("while all is busy: %v", got)
	}
	for range passwordSlots {
		<-h.groupPasswords.slots
	}
	got := atOnce(4 * passwordTries)
	judged := got["group_password_wrong"]
	if judged == 0 || judged > passwordTries || judged+got["group_busy"]+got["group_password_too_often"] != 4*passwordTries {
		t.Errorf("%v", got)
	}
	for ; judged < passwordTries; judged++ { // what a slow machine was too busy for, unless it counted first
		err := h.join(12, group, "guess", "")
		if im.ReasonOf(err) == "group_password_too_often" {
			break
		}
		wantReason(t, "another guess", err, "group_password_wrong")
	}
	wantReason(t, "then the right one", h.join(12, group, "secret", ""), "group_password_too_often")
	must(t, h.join(13, group, "secret", ""))
}

func TestCreateGroup_AsOftenAsAUserMay(t *testing.T) {
	h := newHarness(t)
	create := func(owner im.UserID) error {
		_, err := h.CreateGroup(t.Context(), createRequest(owner))
		return err
	}
	var wg sync.WaitGroup
	for range groupsPerHour {
		wg.Go(func() {
			if err := create(10); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	err := create(10)
	wantReason(t, "one more", err, "groups_made_limit")
	if e, _ := asError(err); e.RetryAfter <= 0 {
		t.Error("does not say when to try again")
	}
	must(t, create(11))
}

func TestJoinGroup_AsOftenAsAUserMay(t *testing.T) {
	h := newHarness(t)
	group := h.group(10)
	h.tries.add(t.Context(), joinsKey(11), joinsPerHour-1, time.Hour)
	wantReason(t, "what changes nothing does not count", h.join(11, group, "", "no invite"), "invite_invalid")
	must(t, h.join(11, group, "", ""))
	must(t, h.leave(11, group))
	err := h.join(11, group, "", "")
	wantReason(t, "one more", err, "groups_joined_limit")
	if e, ok := asError(err); !ok || e.RetryAfter <= 0 {
		t.Error("does not say when to try again")
	}
	must(t, h.join(12, group, "", ""))
}

// Defect 36: who joins stays in, with a session that names the group as group.
func TestDefect36_JoiningLasts(t *testing.T) {
	h := newHarness(t)
	group := h.group(10)
	h.mustSend(groupSend(10, group, 1, "before"))
	h.published()
	for u := im.UserID(10); u <= 11; u++ {
		h.connect(u, int64(u), im.PlatformWeb)
		h.ack(u, im.PlatformWeb, im.ConversationID(group), 99)
	}
	must(t, h.join(11, group, "", ""))
	s := h.groupSession(11, group)
	if s == nil || s.GetPeerId() != 0 || s.GetKind() != 2 || s.GetConversationId() != group {
		t.Fatalf("session %v", s)
	}
	notice, data := h.lastNotice(group)
	if notice.SenderID != 11 || data["event"] != "join" || notice.Seq != 3 {
		t.Fatalf("%+v %v", notice, data)
	}
	h.mustSend(groupSend(11, group, 1, "hello"))
	eventually(t, 2*time.Second, "pushes", func() bool { return len(h.bus.pushedTo(11)) == 2 && len(h.bus.pushedTo(10)) == 2 })
	eventually(t, 2*time.Second, "frame 2003 to the joiner alone", func() bool { return len(h.bus.sessionEvents()) == 1 })
	if e := h.bus.sessionEvents()[0]; !slices.Equal(e.GetUserIds(), []int64{11}) || e.GetSession().GetSessionId() != s.GetId() {
		t.Errorf("%v", e)
	}
	page, err := h.History(t.Context(), &logicv1.HistoryRequest{UserId: 11, Kind: 2, ToId: group})
	must(t, err)
	if len(page.GetMessages()) != 2 || page.GetMessages()[0].GetSeq() != 3 || page.GetTotal() != 2 {
		t.Errorf("the new member's history: %v", page)
	}
	wantReason(t, "no such group", h.join(11, 999_999, "", ""), "group_not_found")
	wantReason(t, "a private conversation", h.join(11, int64(h.befriend(2, 3)), "", ""), "group_not_found")
}

// Defect 38: removing takes people out of this group only, and they are told.
func TestDefect38_RemovingTouchesThisGroupOnlyAndIsTold(t *testing.T) {
	h := newHarness(t)
	group, other := h.group(10, 11, 12, 13), h.group(10, 11, 12)
	stranger := h.group(20, 21)
	for u := im.UserID(10); u <= 13; u++ {
		h.connect(u, int64(u), im.PlatformWeb)
		h.ack(u, im.PlatformWeb, im.ConversationID(group), 99)
	}
	wantReason(t, "by a member", h.kick(11, group, 12), "group_role_required")
	wantReason(t, "by a stranger", h.kick(99, group, 12), "group_role_required")
	must(t, h.kick(10, group, 10)) // the owner stays
	must(t, h.kick(10, group, 21)) // not in this group
	if n := len(h.stored(group)); n != 1 {
		t.Fatalf("%d messages after nothing happened", n)
	}
	resp, err := h.RemoveMembers(t.Context(), &logicv1.RemoveMembersRequest{Actor: profile(10), GroupId: group, UserIds: []int64{11, 10, 12, 12, 21}})
	must(t, err)
	if !slices.Equal(resp.GetRemoved(), []int64{11, 12}) {
		t.Fatalf("removed %v", resp.GetRemoved())
	}
	notice, data := h.lastNotice(group)
	if data["event"] != "remove" || notice.SenderID != 10 {
		t.Fatalf("%v", data)
	}
	h.mustSend(groupSend(13, group, 1, "after"))
	eventually(t, 2*time.Second, "pushes", func() bool { return len(h.bus.pushedTo(13)) == 2 })
	for _, u := range []im.UserID{11, 12} {
		got := h.bus.pushedTo(u)
		if len(got) != 1 || got[0].GetSeq() != int64(notice.Seq) {
			t.Errorf("%d got %v", u, got)
		}
		if h.groupSession(u, group) != nil {
			t.Errorf("%d kept the session", u)
		}
		if h.groupSession(u, other) == nil || len(h.members(other, u)) != 3 {
			t.Errorf("%d lost another group", u)
		}
		_, err := h.History(t.Context(), &logicv1.HistoryRequest{UserId: int64(u), Kind: 2, ToId: group})
		wantReason(t, "history", err, "not_a_member")
		_, err = h.trySend(groupSend(u, group, 1, "x"))
		wantReason(t, "send", err, "not_a_member")
	}
	if len(h.members(stranger, 21)) != 2 {
		t.Error("somebody else's group changed")
	}
	if h.members(group, 10); h.groupSession(10, group).GetGroup().GetMemberCount() != 2 {
		t.Error("wrong member count")
	}
}

func TestAddMembers_OwnerAddsFriendsOnce(t *testing.T) {
	h := newHarness(t, func(c *Config) { c.GroupMax = 5 })
	group := h.group(10, 11)
	h.befriendAll(10, 12, 13, 14, 15)
	h.connect(12, 12, im.PlatformWeb)
	wantReason(t, "by a member", h.add(11, group, 12), "group_role_required")
	wantReason(t, "a stranger", h.add(10, group, 12, 77), "select_not_friends")
	resp, err := h.AddMembers(t.Context(), &logicv1.AddMembersRequest{Actor: profile(10), GroupId: group, UserIds: []int64{11, 12, 12, 13}})
	must(t, err)
	if !slices.Equal(resp.GetAdded(), []int64{12, 13}) {
		t.Fatalf("added %v", resp.GetAdded())
	}
	must(t, h.add(10, group, 11, 12)) // all in already: nothing happens
	notice, data := h.lastNotice(group)
	if notice.Seq != 2 || data["event"] != "invite" || notice.SenderID != 10 || fmt.Sprint(data["users"]) != "[12 13]" {
		t.Fatalf("%+v %v", notice, data)
	}
	eventually(t, 2*time.Second, "frame and notice", func() bool { return len(h.bus.sessionEvents()) == 1 && len(h.bus.pushedTo(12)) == 1 })
	wantReason(t, "too many", h.add(10, group, 14, 15), "group_full")
	must(t, h.add(10, group, 14))
	wantReason(t, "full", h.join(99, group, "", ""), "group_full")
}

// Nobody is in more groups than his list may have, whoever puts him there, and
// nobody makes more than he may own.
func TestGroups_AsManyAsAUserMayHave(t *testing.T) {
	h := newHarness(t, func(c *Config) { c.GroupsMax, c.GroupsOwnedMax = 3, 2 })
	first := h.group(10, 12)
	h.group(11, 12)
	h.befriendAll(10, 11, 12, 13)
	h.befriendAll(11, 12, 13)
	create := func(owner im.UserID, members ...im.UserID) error {
		_, err := h.CreateGroup(t.Context(), createRequest(owner, members...))
		return err
	}
	must(t, create(10, 12))
	wantReason(t, "a third of his own", create(10, 13), "groups_owned_limit")
	wantReason(t, "with somebody who is in three", create(11, 13, 12), "groups_limit")
	if h.groupSession(13, first) != nil || len(h.sessions(13)) != 1 {
		t.Error("a refused group was made")
	}
	third := h.group(13)
	wantReason(t, "adding him", h.add(13, third, 12), "select_not_friends")
	h.befriendAll(13, 12)
	wantReason(t, "adding him", h.add(13, third, 12), "groups_limit")
	wantReason(t, "joining himself", h.join(12, third, "", ""), "groups_limit")
	h.deleteSession(12, h.groupSession(12, first).GetId())
	if h.groupSession(12, first) != nil {
		t.Error("a deleted session is listed")
	}
	wantReason(t, "with a session less", h.join(12, third, "", ""), "groups_limit")
	_, err := h.LeaveGroup(t.Context(), &logicv1.LeaveGroupRequest{Actor: profile(12), Id: first})
	must(t, err)
	must(t, h.join(12, third, "", ""))
	_, err = h.Dissolve(t.Context(), &logicv1.DissolveRequest{Actor: profile(10), GroupId: first})
	must(t, err)
	must(t, create(10, 13))
}

// Sessions that were deleted before they were hidden count again.
func TestGroups_AnOldDatabaseCountsAllOfThem(t *testing.T) {
	h := newHarness(t, func(c *Config) { c.GroupsMax = 2 })
	first, second, third := h.group(10, 12), h.group(10, 12), h.group(13)
	h.exec(`DELETE FROM sessions WHERE owner_id = 12 AND target_id = ?`, first)
	for _, name := range []string{"00017_group_sessions.sql", "00022_session_hidden_now.sql"} {
		fill, err := migrations.FS.ReadFile(name)
		must(t, err)
		h.exec(string(fill))
	}
	wantReason(t, "a third", h.join(12, third, "", ""), "groups_limit")
	if h.groupSession(12, first) != nil || h.groupSession(12, second) == nil {
		t.Error("the list changed")
	}
	again, err := h.createSession(12, im.Group, first)
	must(t, err)
	must(t, h.leave(12, again.GetId()))
	must(t, h.join(12, third, "", ""))
}

// Defect 39: the client passes a session id to leave; a group id works as well;
// whoever is not in the group leaves nothing and nobody hears of it.
func TestDefect39_LeavingBySessionOrGroupID(t *testing.T) {
	h := newHarness(t)
	group := h.group(10, 11, 12, 13)
	for u := im.UserID(10); u <= 13; u++ {
		h.connect(u, int64(u), im.PlatformWeb)
		h.ack(u, im.PlatformWeb, im.ConversationID(group), 99)
	}
	session := h.groupSession(11, group)
	wantReason(t, "another one's session", h.leave(12, session.GetId()), "group_not_joined")
	wantReason(t, "a stranger", h.leave(99, group), "group_not_joined")
	wantReason(t, "nothing", h.leave(11, 123_456), "group_not_joined")
	if n := len(h.stored(group)); n != 1 {
		t.Fatalf("false notices: %d messages", n)
	}
	must(t, h.leave(11, session.GetId()))
	notice, data := h.lastNotice(group)
	if notice.SenderID != 11 || data["event"] != "leave" || notice.Type != 6 {
		t.Fatalf("%+v", notice)
	}
	must(t, h.leave(12, group))
	eventually(t, 2*time.Second, "notices to those who stay", func() bool { return len(h.bus.pushedTo(13)) == 2 })
	if got := h.bus.pushedTo(11); len(got) != 0 {
		t.Errorf("who left heard of it: %v", got)
	}
	if got := h.bus.pushedTo(12); len(got) != 1 || got[0].GetSeq() != 2 {
		t.Errorf("who left second: %v", got)
	}
	wantReason(t, "again", h.leave(11, session.GetId()), "group_not_joined")
	h.mustSend(groupSend(10, group, 1, "among us"))
	if got := h.connect(11, 99, im.PlatformPC).messages(); !slices.Equal(seqsOf(got), upTo(1, 1)) {
		t.Errorf("who left reads back %v", seqsOf(got))
	}
	if h.groupSession(11, group) != nil || len(h.members(group, 10)) != 2 {
		t.Error("he is still there")
	}
}

func TestLeave_OwnerHandsOverToTheEarliestAndTheLastDissolves(t *testing.T) {
	h := newHarness(t)
	group := h.group(10, 11, 12)
	must(t, h.leave(11, group))
	must(t, h.join(11, group, "", "")) // now the youngest
	must(t, h.leave(10, group))
	list := h.members(group, 12)
	if list[0].GetUserId() != 12 || list[0].GetRole() != logicv1.Role_ROLE_OWNER || list[1].GetUserId() != 11 {
		t.Fatalf("members %v", list)
	}
	if g := h.groupSession(11, group).GetGroup(); g.GetOwnerId() != 12 || g.GetMemberCount() != 2 {
		t.Fatalf("group %v", g)
	}
	must(t, h.leave(12, group))
	must(t, h.leave(11, group))
	wantReason(t, "join what is dissolved", h.join(13, group, "", ""), "group_not_found")
	_, err := h.trySend(groupSend(11, group, 1, "x"))
	wantReason(t, "send to what is dissolved", err, "not_a_member")
	for i, m := range h.stored(group) {
		if m.Seq != im.Seq(i+1) {
			t.Fatal("a gap")
		}
	}
}

func TestDissolve_OwnerEndsItForAll(t *testing.T) {
	h := newHarness(t)
	group := h.group(10, 11)
	h.connect(11, 1, im.PlatformWeb)
	h.ack(11, im.PlatformWeb, im.ConversationID(group), 99)
	dissolve := func(u im.UserID) error {
		_, err := h.Dissolve(t.Context(), &logicv1.DissolveRequest{Actor: profile(u), GroupId: group})
		return err
	}
	wantReason(t, "by a member", dissolve(11), "group_role_required")
	must(t, dissolve(10))
	wantReason(t, "twice", dissolve(10), "group_not_found")
	eventually(t, 2*time.Second, "last notice", func() bool {
		got := h.bus.pushedTo(11)
		return len(got) == 1 && dataOf(t, got[0].GetDataJson())["event"] == "dissolve"
	})
	_, err := h.trySend(groupSend(10, group, 1, "x"))
	wantReason(t, "send", err, "not_a_member")
	if h.groupSession(10, group) != nil || h.groupSession(11, group) != nil {
		t.Error("sessions stayed")
	}
	groups, err := h.ListGroups(t.Context(), &logicv1.ListGroupsRequest{UserId: 10})
	if err != nil || len(groups.GetGroups()) != 0 {
		t.Errorf("%v, %v", groups, err)
	}
}

func TestRoles_HandOverAdminsAndMutes(t *testing.T) {
	h := newHarness(t)
	group := h.group(10, 11, 12, 13)
	role := func(actor, user im.UserID, r logicv1.Role) error {
		_, err := h.SetRole(t.Context(), &logicv1.SetRoleRequest{Actor: profile(actor), GroupId: group, UserId: int64(user), Role: r})
		return err
	}
	mute := func(actor, user im.UserID, seconds int64) error {
		_, err := h.Mute(t.Context(), &logicv1.MuteRequest{Actor: profile(actor), GroupId: group, UserId: int64(user), Seconds: seconds})
		return err
	}
	client := int64(0)
	say := func(u im.UserID) error {
		client++
		_, err := h.trySend(groupSend(u, group, client, "x"))
		return err
	}
	wantReason(t, "a member appoints", role(11, 12, logicv1.Role_ROLE_ADMIN), "group_role_required")
	wantReason(t, "an owner by role", role(10, 11, logicv1.Role_ROLE_OWNER), "role_invalid")
	wantReason(t, "a stranger", role(10, 99, logicv1.Role_ROLE_ADMIN), "group_member_not_found")
	wantReason(t, "the owner himself", role(10, 10, logicv1.Role_ROLE_MEMBER), "group_role_required")
	must(t, role(10, 11, logicv1.Role_ROLE_ADMIN))
	must(t, role(10, 12, logicv1.Role_ROLE_ADMIN))
	wantReason(t, "an admin removes an admin", h.kick(11, group, 12), "group_role_required")
	wantReason(t, "an admin removes the owner", h.kick(11, group, 13, 10), "group_role_required")
	wantReason(t, "an admin mutes the owner", mute(11, 10, 60), "group_role_required")
	wantReason(t, "a member mutes", mute(13, 11, 60), "group_role_required")

	must(t, mute(11, 13, 60))
	wantReason(t, "muted", say(13), "member_muted")
	must(t, h.leave(13, group))
	must(t, h.join(13, group, "", ""))
	wantReason(t, "muted, left and back", say(13), "member_muted")
	must(t, mute(11, 13, 0))
	must(t, say(13))

	must(t, mute(11, 0, 600))
	must(t, mute(11, 0, 1)) // shorter
	wantReason(t, "all muted", say(13), "group_muted")
	must(t, say(11))
	eventually(t, 5*time.Second, "the mute ends by itself", func() bool { return say(13) == nil })
	if info, err := h.store.groupInfo(t.Context(), im.ConversationID(group)); err != nil || info.GetMutedAll() {
		t.Errorf("still muted: %v %v", info, err)
	}
	must(t, mute(10, 0, 0)) // nothing to lift: nothing happens
	must(t, mute(11, 0, 600))
	must(t, mute(10, 0, 0))
	must(t, say(13))
	must(t, mute(10, 12, 600)) // he will be the owner: his mute goes with that
	wantReason(t, "the next owner", say(12), "member_muted")

	handOver := func(actor, to im.UserID) error {
		_, err := h.HandOver(t.Context(), &logicv1.HandOverRequest{Actor: profile(actor), GroupId: group, ToUserId: int64(to)})
		return err
	}
	wantReason(t, "an admin hands over", handOver(11, 12), "group_role_required")
	wantReason(t, "to a stranger", handOver(10, 99), "group_member_not_found")
	must(t, handOver(10, 12))
	must(t, say(12))
	list := h.members(group, 10)
	if list[0].GetUserId() != 12 || list[0].GetRole() != logicv1.Role_ROLE_OWNER {
		t.Fatalf("%v", list)
	}
	wantReason(t, "the former owner", h.kick(10, group, 11), "group_role_required")
	must(t, h.kick(11, group, 10)) // an admin removes who is a plain member now
	events := map[string]int{}
	for _, m := range h.stored(group) {
		if m.Type == noticeType {
			events[dataOf(t, m.DataJSON)["event"].(string)]++
		}
	}
	if want := (map[string]int{"create": 1, "role": 2, "mute": 5, "unmute": 2, "leave": 1, "join": 1, "hand_over": 1, "remove": 1}); fmt.Sprint(events) != fmt.Sprint(want) {
		t.Errorf("notices %v, want %v", events, want)
	}
}

func TestUpdateGroup_ChangesWhatIsSet(t *testing.T) {
	h := newHarness(t)
	group := h.group(10, 11)
	str := func(s string) *string { return &s }
	req := &logicv1.UpdateGroupRequest{Actor: profile(10), GroupId: group, Name: str("new name"), Announcement: str("hear, hear")}
	resp, err := h.UpdateGroup(t.Context(), req)
	must(t, err)
	if g := resp.GetGroup(); g.GetName() != "new name" || g.GetInfo() != "about us" || g.GetAnnouncement() != "hear, hear" {
		t.Fatalf("%v", g)
	}
	_, data := h.lastNotice(group)
	if data["event"] != "update" || data["new_name"] != "new name" || data["announcement"] != "hear, hear" || data["name"] != "u10" {
		t.Fatalf("%v", data)
	}
	_, err = h.UpdateGroup(t.Context(), req) // the same again
	must(t, err)
	if n := len(h.stored(group)); n != 2 {
		t.Errorf("%d messages", n)
	}
	got, err := h.GetGroup(t.Context(), &logicv1.GetGroupRequest{UserId: 11, GroupId: group})
	if err != nil || got.GetGroup().GetName() != "new name" || got.GetGroup().GetMemberCount() != 2 {
		t.Fatalf("%v, %v", got, err)
	}
	_, err = h.GetGroup(t.Context(), &logicv1.GetGroupRequest{UserId: 99, GroupId: group})
	wantReason(t, "a stranger reads", err, "not_a_member")
	for what, c := range map[string]struct {
		req    *logicv1.UpdateGroupRequest
		reason string
	}{
		"member":  {&logicv1.UpdateGroupRequest{Actor: profile(11), GroupId: group, Name: str("x y")}, "group_role_required"},
		"empty":   {&logicv1.UpdateGroupRequest{Actor: profile(10), GroupId: group, Name: str("  ")}, "group_name_invalid"},
		"long":    {&logicv1.UpdateGroupRequest{Actor: profile(10), GroupId: group, Announcement: str(strings.Repeat("x", maxAnnouncement+1))}, "announcement_too_long"},
		"script":  {&logicv1.UpdateGroupRequest{Actor: profile(10), GroupId: group, Avatar: str("javascript:alert(1)")}, "avatar_invalid"},
		"nothing": {&logicv1.UpdateGroupRequest{Actor: profile(10), GroupId: 5}, "group_not_found"},
		"nobody":  {&logicv1.UpdateGroupRequest{GroupId: group}, "sender_missing"},
	} {
		_, err := h.UpdateGroup(t.Context(), c.req)
		wantReason(t, what, err, c.reason)
	}
}

func TestInvite_StandsInForThePasswordWhileItsMakerIsIn(t *testing.T) {
	h := newHarness(t)
	h.befriendAll(10, 11)
	req := createRequest(10, 11)
	req.Password = "secret"
	created, err := h.CreateGroup(t.Context(), req)
	must(t, err)
	group, other := created.GetGroup().GetId(), h.group(20)
	invite := func(u im.UserID) *logicv1.CreateInviteResponse {
		t.Helper()
		resp, err := h.CreateInvite(t.Context(), &logicv1.CreateInviteRequest{UserId: int64(u), GroupId: group})
		must(t, err)
		return resp
	}
	_, err = h.CreateInvite(t.Context(), &logicv1.CreateInviteRequest{UserId: 12, GroupId: group})
	wantReason(t, "by a stranger", err, "not_a_member")
	inv := invite(11)
	if len(inv.GetToken()) < 26 || inv.GetExpiresAtMs() <= inv.GetCreatedAtMs() || inv.GetGroup().GetId() != group {
		t.Fatalf("%v", inv)
	}
	var found int
	must(t, h.store.db.Get(&found, `SELECT COUNT(*) FROM invites WHERE token_hash = ?`, inv.GetToken()))
	if found != 0 {
		t.Error("the token itself is stored")
	}
	wantReason(t, "made up", h.join(12, group, "secret", "nonsense"), "invite_invalid")
	wantReason(t, "for another group", h.join(12, other, "", inv.GetToken()), "invite_invalid")
	must(t, h.join(12, group, "", inv.GetToken()))
	must(t, h.join(13, group, "", inv.GetToken()))
	must(t, h.kick(10, group, 11))
	wantReason(t, "its maker was removed", h.join(14, group, "", inv.GetToken()), "invite_invalid")
	old := invite(12)
	h.exec(`UPDATE invites SET expires_at_ms = 1 WHERE id = ?`, old.GetId())
	wantReason(t, "expired", h.join(14, group, "", old.GetToken()), "invite_invalid")
	first := invite(12)
	for range maxInvites {
		invite(12)
	}
	var n int
	must(t, h.store.db.Get(&n, `SELECT COUNT(*) FROM invites WHERE user_id = 12`))
	if n != maxInvites {
		t.Errorf("%d invites kept", n)
	}
	wantReason(t, "pushed out", h.join(14, group, "", first.GetToken()), "invite_invalid")
}

// Two thousand members: made, told, spoken to and read within what an RPC has.
func TestGroup_TwoThousandMembers(t *testing.T) {
	h := newHarness(t)
	members := make([]im.UserID, 1999)
	for i := range members {
		members[i] = im.UserID(1000 + i)
	}
	h.befriendAll(10, members...)
	h.connect(10, 1, im.PlatformWeb)
	h.connect(members[1998], 2, im.PlatformWeb)
	began := time.Now()
	resp, err := h.CreateGroup(t.Context(), createRequest(10, members...))
	must(t, err)
	t.Logf("created in %v", time.Since(began))
	group := resp.GetGroup().GetId()
	if resp.GetGroup().GetMemberCount() != 2000 {
		t.Fatalf("%d members", resp.GetGroup().GetMemberCount())
	}
	wantReason(t, "one more", h.join(9, group, "", ""), "group_full")
	began = time.Now()
	for i := int64(1); i <= 20; i++ {
		h.mustSend(groupSend(10, group, i, "x"))
	}
	t.Logf("20 messages acknowledged in %v", time.Since(began))
	eventually(t, 5*time.Second, "pushes to the last member", func() bool { return len(h.bus.pushedTo(members[1998])) >= 21 })
	if list := h.members(group, members[0]); len(list) != 2000 || list[0].GetUserId() != 10 {
		t.Fatalf("%d listed", len(list))
	}
	if got := h.connect(members[7], 3, im.PlatformWeb).messages(); len(got) != 21 {
		t.Fatalf("a member's backlog has %d messages", len(got))
	}
	began = time.Now()
	_, err = h.Dissolve(t.Context(), &logicv1.DissolveRequest{Actor: profile(10), GroupId: group})
	must(t, err)
	t.Logf("dissolved in %v", time.Since(began))
}

// G12 and G5: people join, leave and are removed while others speak, on two
// replicas at once. Numbers stay 1..n, and nobody gets or says anything outside
// of his membership: judged by replaying the notices.
func TestG12_NobodyReceivesOrSpeaksOutsideHisMembership(t *testing.T) {
	h := newHarness(t)
	replicas := h.replicas(2)
	crowd := make([]im.UserID, 12)
	for i := range crowd {
		crowd[i] = im.UserID(100 + i)
	}
	group := h.group(10, crowd...)
	all := append([]im.UserID{10}, crowd...)
	for _, u := range all {
		h.connect(u, int64(u), im.PlatformWeb)
	}
	ctx, stop := context.WithTimeout(t.Context(), 3*time.Second)
	defer stop()
	var (
		wg      sync.WaitGroup
		sent    atomic.Int64
		refused atomic.Int64
		// life[i] is raised after the answer that took crowd[i] out, and before he
		// goes back: while it is odd, he is out.
		life [12]atomic.Int64
	)
	for i, u := range crowd {
		wg.Go(func() { // speaks
			for n := int64(1); ctx.Err() == nil; n++ {
				life := &life[i]
				before := life.Load()
				_, err := sendTo(replicas[n%2], groupSend(u, group, n, fmt.Sprint(u, "/", n)))
				switch {
				case err == nil && before%2 == 1 && life.Load() == before:
					t.Errorf("%d spoke after he was out", u)
				case err == nil:
					sent.Add(1)
				case errors.Is(err, &im.Error{Reason: "not_a_member"}):
					refused.Add(1)
				default:
					t.Errorf("send: %v", err)
				}
			}
		})
	}
	for i, u := range crowd[:8] {
		wg.Go(func() { // comes and goes
			for n := 0; ctx.Err() == nil; n++ {
				var err error
				if (n+i)%2 == 0 {
					_, err = replicas[i%2].RemoveMembers(t.Context(), &logicv1.RemoveMembersRequest{Actor: profile(10), GroupId: group, UserIds: []int64{int64(u)}})
				} else {
					_, err = replicas[i%2].LeaveGroup(t.Context(), &logicv1.LeaveGroupRequest{Actor: profile(u), Id: group})
				}
				must(t, err)
				life[i].Add(1)
				time.Sleep(5 * time.Millisecond)
				life[i].Add(1)
				if n%2 == 0 {
					_, err = replicas[n%2].JoinGroup(t.Context(), &logicv1.JoinGroupRequest{Actor: profile(u), GroupId: group})
				} else {
					_, err = replicas[n%2].AddMembers(t.Context(), &logicv1.AddMembersRequest{Actor: profile(10), GroupId: group, UserIds: []int64{int64(u)}})
				}
				must(t, err)
			}
		})
	}
	wg.Wait()
	if sent.Load() == 0 || refused.Load() == 0 {
		t.Fatalf("nothing was tested: %d sent, %d refused", sent.Load(), refused.Load())
	}
	sees, window := replay(t, h.stored(group), all)
	t.Logf("%d messages, %d refused", sent.Load(), refused.Load())
	h.published()
	for _, u := range all {
		got := map[int64]bool{}
		for _, m := range h.bus.pushedTo(u) {
			got[m.GetSeq()] = true
			if !sees[u][m.GetSeq()] {
				t.Fatalf("%d was pushed seq %d, which is not his", u, m.GetSeq())
			}
		}
		for seq := range sees[u] {
			if !got[seq] && seq > 1 { // 1 was pushed before he connected
				t.Fatalf("%d was not pushed seq %d", u, seq)
			}
		}
	}
	// What is read back later is his last membership, to the message.
	for _, u := range all {
		var got []int64
		for req := (&logicv1.SyncRequest{UserId: int64(u), Limit: 500}); ; {
			resp, err := h.Sync(t.Context(), req)
			must(t, err)
			c := findSync(resp, group)
			got = append(got, seqsOf(c.GetMessages())...)
			if resp.GetComplete() {
				break
			}
			req.Cursors = []*logicv1.Cursor{{ConversationId: group, Seq: c.GetSeq()}}
		}
		if !slices.Equal(got, window[u]) {
			t.Fatalf("%d reads back %d messages, his are %d", u, len(got), len(window[u]))
		}
	}
	// The backlog of who is out now ends where his last membership did.
	must(t, h.kick(10, group, crowd[0]))
	end, _ := h.lastNotice(group)
	h.mustSend(groupSend(crowd[11], group, 1_000_000, "after"))
	msgs := h.connect(crowd[0], 999, im.PlatformPC).messages()
	if n := len(msgs); n == 0 || msgs[n-1].GetSeq() != int64(end.Seq) {
		t.Fatalf("backlog of %d messages ends wrong", n)
	}
}

// replay follows the notices of a group and returns which messages each user may
// see, and those of them that belong to his last membership. It fails on gaps and
// on speakers who were out.
func replay(t *testing.T, stored []messageRow, users []im.UserID) (sees map[im.UserID]map[int64]bool, window map[im.UserID][]int64) {
	t.Helper()
	in := map[im.UserID]bool{}
	sees, window = map[im.UserID]map[int64]bool{}, map[im.UserID][]int64{}
	enter := func(u im.UserID) {
		in[u], window[u] = true, nil
	}
	for _, u := range users {
		sees[u] = map[int64]bool{}
	}
	for i, m := range stored {
		if m.Seq != im.Seq(i+1) || i > 0 && m.ID <= stored[i-1].ID {
			t.Fatalf("row %d has seq %d, id %d", i, m.Seq, m.ID)
		}
		var after []im.UserID // leave after they saw this message
		if m.Type == noticeType {
			data := dataOf(t, m.DataJSON)
			about, _ := data["users"].([]any)
			switch data["event"] {
			case "create":
				enter(m.SenderID)
				fallthrough
			case "invite":
				for _, u := range about {
					enter(im.UserID(u.(float64)))
				}
			case "join":
				enter(m.SenderID)
			case "remove":
				for _, u := range about {
					after = append(after, im.UserID(u.(float64)))
				}
			case "leave":
				delete(in, m.SenderID)
			}
		} else if !in[m.SenderID] {
			t.Fatalf("%d spoke at seq %d and was out", m.SenderID, m.Seq)
		}
		for u := range in {
			sees[u][int64(m.Seq)] = true
			window[u] = append(window[u], int64(m.Seq))
		}
		for _, u := range after {
			delete(in, u)
		}
	}
	return sees, window
}
