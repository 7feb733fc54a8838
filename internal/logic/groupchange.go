package logic

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jmoiron/sqlx"

	pushv1 "im-services/api/proto/push/v1"
	"im-services/internal/im"
)

// groupChange is a change of a group under way: its conversation's row is
// locked, so no message gets a seq in between, and what the change says takes
// effect exactly at its notice.
type groupChange struct {
	s     *Server
	tx    *sqlx.Tx
	actor *pushv1.Profile
	nowMS int64

	conv   *lockedConversation // members: as they were before
	group  groupRow
	before groupRow // as stored

	notice *messageRow
	// recipients get the notice.
	recipients []im.UserID
	// joined are the new members' sessions: each is told of his own (frame 2003).
	joined []sessionRow
}

// groupTurns lets one change of a group at a time try for its row, in this process:
// changes that wait in the database wait before the messages that come meanwhile, and
// take the place of other transactions. Groups share turns, so there is nothing to fill up.
type groupTurns [256]chan struct{}

func newGroupTurns() (t groupTurns) {
	for i := range t {
		t[i] = make(chan struct{}, 1)
	}
	return t
}

// take waits for a group's turn while ctx lasts; done ends it.
func (t *groupTurns) take(ctx context.Context, id im.ConversationID) (done func(), err error) {
	turn := t[int(id)%len(t)]
	select {
	case turn <- struct{}{}:
		return func() { <-turn }, nil
	case <-ctx.Done():
		return nil, unavailable(ctx.Err())
	}
}

// changeGroup runs f under the group's lock, in one transaction with the notice
// that f posts, and pushes once it is committed. f may run more than once.
func (s *Server) changeGroup(ctx context.Context, actor *pushv1.Profile, group int64, f func(ctx context.Context, c *groupChange) error) error {
	if !im.UserID(actor.GetId()).Valid() {
		return im.E(im.KindUnauthorized, "sender_missing", nil)
	}
	id := im.ConversationID(group)
	if !id.Valid() {
		return im.E(im.KindNotFound, "group_not_found", nil)
	}
	done, err := s.groupTurns.take(ctx, id)
	if err != nil {
		return err
	}
	defer done()
	_, err = s.commitChange(ctx, func(tx *sqlx.Tx) (*groupChange, error) {
		convs, err := lockConversations(ctx, tx, []im.ConversationID{id})
		if err != nil {
			return nil, err
		}
		conv := convs[id]
		if conv == nil || conv.Kind != im.Group || !conv.Open {
			return nil, im.E(im.KindNotFound, "group_not_found", nil)
		}
		if conv.members, err = s.store.membersAt(ctx, tx, id, conv.MembersRev); err != nil {
			return nil, err
		}
		c := &groupChange{s: s, tx: tx, actor: actor, nowMS: s.store.nowMS(), conv: conv}
		if err := tx.GetContext(ctx, &c.group, `SELECT `+groupColumns+` FROM chat_groups WHERE id = ?`, group); err != nil {
			return nil, fmt.Errorf("read group: %w", err)
		}
		c.before = c.group
		return c, f(ctx, c)
	})
	return err
}

// commitChange saves the change that f makes in a transaction, and pushes it. If
// the answer to COMMIT was lost, the change's notice tells whether it happened: who
// repeats the request would find it done, and new members would not be told of their group.
func (s *Server) commitChange(ctx context.Context, f func(tx *sqlx.Tx) (*groupChange, error)) (*groupChange, error) {
	var c *groupChange
	err := s.store.inTx(ctx, func(tx *sqlx.Tx) (err error) {
		if c, err = f(tx); err != nil {
			return err
		}
		return c.save(ctx)
	})
	if err != nil && (im.KindOf(err) != im.KindUnknown || !s.store.hasNotice(ctx, c.notice)) {
		return nil, err
	}
	s.pushChange(c)
	return c, nil
}

// hasNotice reports whether a notice is certainly stored.
func (s *store) hasNotice(ctx context.Context, m *messageRow) bool {
	var n int
	return m != nil && s.db.GetContext(ctx, &n, `SELECT COUNT(*) FROM messages WHERE id = ?`, int64(m.ID)) == nil && n == 1
}

// seq is the notice's place: the change takes effect there.
func (c *groupChange) seq() im.Seq { return c.conv.LastSeq + 1 }

// actorID is who acts.
func (c *groupChange) actorID() im.UserID { return im.UserID(c.actor.GetId()) }

// role of a user, 0 if he is no member.
func (c *groupChange) role(u im.UserID) int32 { return c.conv.members.byUser[u].role }

// require fails unless the actor has at least the role.
func (c *groupChange) require(role int32) error {
	if c.role(c.actorID()) < role {
		return im.E(im.KindForbidden, "group_role_required", nil)
	}
	return nil
}

// member returns the role of a member whom the change is about.
func (c *groupChange) member(u im.UserID) (int32, error) {
	r := c.role(u)
	if r == 0 {
		return 0, im.E(im.KindNotFound, "group_member_not_found", nil)
	}
	return r, nil
}

// post makes the change's notice, for these users. A change has at most one.
func (c *groupChange) post(ctx context.Context, n notice, recipients []im.UserID) error {
	id, err := c.s.store.messageIDs.take(ctx, 1, int64(c.conv.LastMessageID))
	if err != nil {
		return err
	}
	if c.notice, err = n.row(c.actor, c.conv.ID, c.seq(), im.MessageID(id), c.nowMS); err != nil {
		return err
	}
	c.recipients = recipients
	return nil
}

// rowPage bounds the rows of one statement.
const rowPage = 500

// add makes users members, all with the same role, and gives each a session.
// They see the group from this change's notice on.
func (c *groupChange) add(ctx context.Context, users []im.UserID, role int32) error {
	if len(c.conv.members.users)+len(users) > c.s.cfg.GroupMax {
		return im.E(im.KindConflict, "group_full", nil)
	}
	if err := c.requireListRoom(ctx, users); err != nil {
		return err
	}
	// Members' ids rise in the order in which they join, whatever a clock says.
	first, err := c.s.store.objectIDs.take(ctx, 2*len(users), c.conv.members.lastID)
	if err != nil {
		return err
	}
	firstSeq := c.seq()
	if c.s.cfg.HistoryBeforeJoin {
		firstSeq = 1
	}
	for page := range slices.Chunk(users, rowPage) {
		members := make([]any, 0, 6*len(page))
		sessions := make([]any, 0, 5*len(page))
		for _, u := range page {
			members = append(members, int64(c.conv.ID), int64(u), first, role, int64(firstSeq), c.nowMS)
			sessions = append(sessions, first+1, int64(u), int64(im.Group), int64(c.conv.ID), c.nowMS)
			first += 2
		}
		// Whoever was here before starts anew, except that a mute stays: leaving does not lift it.
		if _, err := c.tx.ExecContext(ctx, `INSERT INTO members (conversation_id, user_id, id, role, first_seq, joined_at_ms) VALUES `+rows(6, len(page))+`
			ON DUPLICATE KEY UPDATE id = VALUES(id), role = VALUES(role), first_seq = VALUES(first_seq), end_seq = 0,
			joined_at_ms = VALUES(joined_at_ms), remark = ''`, members...); err != nil {
			return fmt.Errorf("add members: %w", err)
		}
		// The ids are new, so the only key that can be there already is (owner, group).
		if _, err := c.tx.ExecContext(ctx, `INSERT INTO sessions (id, owner_id, kind, target_id, created_at_ms) VALUES `+rows(5, len(page))+`
			ON DUPLICATE KEY UPDATE hidden = 0`, sessions...); err != nil {
			return fmt.Errorf("add sessions: %w", err)
		}
		var joined []sessionRow
		if err := c.tx.SelectContext(ctx, &joined, `SELECT `+sessionColumns+` FROM sessions WHERE owner_id IN (`+placeholders(len(page))+`) AND kind = ? AND target_id = ?`,
			append(anys(page), int64(im.Group), int64(c.conv.ID))...); err != nil {
			return fmt.Errorf("read sessions: %w", err)
		}
		c.joined = append(c.joined, joined...)
	}
	c.group.Members += int64(len(users))
	c.group.Hot += int64(len(users))
	return nil
}

// requireListRoom fails if one of the users is in as many groups as he may be:
// others put him into groups, and what they say there must not make his lists
// larger than an answer may be. Changes that race each other may exceed that by
// their number. A session with a group, seen or hidden, is there exactly as long as
// its owner is a member, so their key has all that is counted; members would have to
// be told from those of private conversations, row by row.
func (c *groupChange) requireListRoom(ctx context.Context, users []im.UserID) error {
	for page := range slices.Chunk(users, rowPage) {
		var full []im.UserID
		if err := c.tx.SelectContext(ctx, &full, `SELECT owner_id FROM sessions WHERE owner_id IN (`+placeholders(len(page))+`) AND kind = ?
			GROUP BY owner_id HAVING COUNT(*) >= ? LIMIT 1`, append(anys(page), int64(im.Group), c.s.cfg.GroupsMax)...); err != nil {
			return fmt.Errorf("count groups: %w", err)
		}
		if len(full) > 0 {
			return im.E(im.KindConflict, "groups_limit", nil)
		}
	}
	return nil
}

// end ends the membership of users: they see the group up to last.
func (c *groupChange) end(ctx context.Context, users []im.UserID, last im.Seq) error {
	for page := range slices.Chunk(users, rowPage) {
		if _, err := c.tx.ExecContext(ctx, `UPDATE members SET end_seq = ? WHERE conversation_id = ? AND end_seq = 0 AND user_id IN (`+placeholders(len(page))+`)`,
			append([]any{int64(last), int64(c.conv.ID)}, anys(page)...)...); err != nil {
			return fmt.Errorf("end membership: %w", err)
		}
		if _, err := c.tx.ExecContext(ctx, `DELETE FROM sessions WHERE owner_id IN (`+placeholders(len(page))+`) AND kind = ? AND target_id = ?`,
			append(anys(page), int64(im.Group), int64(c.conv.ID))...); err != nil {
			return fmt.Errorf("remove sessions: %w", err)
		}
	}
	c.group.Members -= int64(len(users))
	return nil
}

// setRole changes one member's role.
func (c *groupChange) setRole(ctx context.Context, u im.UserID, role int32) error {
	_, err := c.tx.ExecContext(ctx, `UPDATE members SET role = ? WHERE conversation_id = ? AND user_id = ?`, role, int64(c.conv.ID), int64(u))
	return err
}

// close ends the group.
func (c *groupChange) close() { c.conv.Open = false }

// save writes the group, the notice with its seq, and the conversation. Without
// a notice nothing has changed.
func (c *groupChange) save(ctx context.Context) error {
	if c.notice == nil {
		return nil
	}
	if c.group != c.before {
		g := &c.group
		if _, err := c.tx.ExecContext(ctx, `UPDATE chat_groups SET owner_id = ?, name = ?, info = ?, avatar = ?, announcement = ?, hot = ?, member_count = ? WHERE id = ?`,
			int64(g.Owner), g.Name, g.Info, g.Avatar, g.Announcement, g.Hot, g.Members, int64(g.ID)); err != nil {
			return fmt.Errorf("update group: %w", err)
		}
	}
	row := c.notice
	c.conv.was, c.conv.LastSeq, c.conv.LastMessageID = c.conv.LastSeq, row.Seq, row.ID
	for _, st := range storing([]*messageRow{row}, []*lockedConversation{c.conv}, c.s.store.life.Load().Server) {
		if _, err := c.tx.ExecContext(ctx, st.query, st.args...); err != nil {
			return fmt.Errorf("store notice: %w", err)
		}
	}
	if _, err := c.tx.ExecContext(ctx, `UPDATE conversations SET members_rev = members_rev + 1, open = ?, muted_until_ms = ? WHERE id = ?`,
		c.conv.Open, c.conv.MutedUntilMS, int64(c.conv.ID)); err != nil {
		return fmt.Errorf("update conversation: %w", err)
	}
	return nil
}

// pushChange hands a committed change to the group's publisher: the notice like
// any message, then the new members' sessions.
func (s *Server) pushChange(c *groupChange) {
	if c.notice == nil {
		return
	}
	done := &committed{
		outbox:   []int64{int64(c.notice.ID)},
		messages: []committedMessage{{push: c.notice.toPush(im.Group, int64(c.conv.ID)), recipients: c.recipients}},
	}
	for i := range c.joined {
		done.events = append(done.events, sessionEvent(&c.joined[i], &c.group))
	}
	s.pub.enqueue(s.lane(c.conv.ID), done)
}

// sessionEvent tells a new member of his session.
func sessionEvent(r *sessionRow, g *groupRow) *pushv1.Event {
	return &pushv1.Event{UserIds: []int64{int64(r.Owner)}, Body: &pushv1.Event_Session{Session: &pushv1.SessionEvent{
		SessionId: r.ID, OwnerId: int64(r.Owner), GroupId: int64(g.ID), CreatedAtMs: r.CreatedAtMS,
		GroupOwnerId: int64(g.Owner), GroupCreatedAtMs: g.CreatedAtMS, GroupName: g.Name, GroupInfo: g.Info, GroupAvatar: g.Avatar,
		GroupHasPassword: g.PasswordHash != "", GroupHot: g.Hot,
	}}}
}

// without returns the users who are not among the others, in order.
func without(users, others []im.UserID) []im.UserID {
	drop := make(map[im.UserID]bool, len(others))
	for _, u := range others {
		drop[u] = true
	}
	out := make([]im.UserID, 0, len(users))
	for _, u := range users {
		if !drop[u] {
			out = append(out, u)
		}
	}
	return out
}

// distinctUsers checks ids of a request and drops repeats, keeping the order.
func distinctUsers(ids []int64) ([]im.UserID, error) {
	seen := make(map[im.UserID]bool, len(ids))
	out := make([]im.UserID, 0, len(ids))
	for _, id := range ids {
		u := im.UserID(id)
		if !u.Valid() {
			return nil, im.E(im.KindInvalid, "id_invalid", nil)
		}
		if !seen[u] {
			seen[u] = true
			out = append(out, u)
		}
	}
	return out, nil
}

// rows returns n row constructors of so many placeholders.
func rows(columns, n int) string {
	row := "(" + placeholders(columns) + "),"
	return strings.TrimSuffix(strings.Repeat(row, n), ",")
}

// noRows tells that a look-up found nothing.
func noRows(err error) bool { return errors.Is(err, sql.ErrNoRows) }
