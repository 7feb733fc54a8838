package logic

import (
	"context"
	"fmt"
	"time"

	logicv1 "im-services/api/proto/logic/v1"
	"im-services/internal/im"
)

// ListMembers implements logicv1.GroupServiceServer. Members only.
func (s *Server) ListMembers(ctx context.Context, req *logicv1.ListMembersRequest) (*logicv1.ListMembersResponse, error) {
	if err := s.store.requireMember(ctx, im.UserID(req.GetUserId()), req.GetGroupId()); err != nil {
		return nil, err
	}
	info, err := s.store.groupInfo(ctx, im.ConversationID(req.GetGroupId()))
	if err != nil {
		return nil, err
	}
	var list []struct {
		ID           int64  `db:"id"`
		UserID       int64  `db:"user_id"`
		Role         int32  `db:"role"`
		JoinedAtMS   int64  `db:"joined_at_ms"`
		MutedUntilMS int64  `db:"muted_until_ms"`
		Remark       string `db:"remark"`
	}
	if err := s.store.db.SelectContext(ctx, &list, `SELECT id, user_id, role, joined_at_ms, muted_until_ms, remark FROM members
		WHERE conversation_id = ? AND end_seq = 0 ORDER BY role = ? DESC, id`, req.GetGroupId(), roleOwner); err != nil {
		return nil, failed(err)
	}
	resp := &logicv1.ListMembersResponse{Group: info, Members: make([]*logicv1.Member, 0, len(list))}
	for _, m := range list {
		resp.Members = append(resp.Members, &logicv1.Member{
			Id: m.ID, GroupId: req.GetGroupId(), UserId: m.UserID, Role: logicv1.Role(m.Role), JoinedAtMs: m.JoinedAtMS,
			Remark: m.Remark, MutedUntilMs: m.MutedUntilMS,
		})
	}
	return resp, nil
}

// joinsPerHour is how often a user may join a group: everybody in it is told, each
// time he has left and comes back.
const joinsPerHour = 600

func joinsKey(user im.UserID) string { return fmt.Sprintf("groupsjoined:%d", user) }

// JoinGroup implements logicv1.GroupServiceServer. An invite stands in for the
// password; one that does not hold is refused even if the password is right.
func (s *Server) JoinGroup(ctx context.Context, req *logicv1.JoinGroupRequest) (*logicv1.JoinGroupResponse, error) {
	user := im.UserID(req.GetActor().GetId())
	if !user.Valid() {
		return nil, im.E(im.KindUnauthorized, "sender_missing", nil)
	}
	if err := s.mayJoin(ctx, user, req); err != nil {
		return nil, err
	}
	if !s.tries.take(ctx, joinsKey(user), joinsPerHour, time.Hour) {
		return nil, &im.Error{Kind: im.KindExhausted, Reason: "groups_joined_limit", RetryAfter: time.Hour}
	}
	err := s.changeGroup(ctx, req.GetActor(), req.GetGroupId(), func(ctx context.Context, c *groupChange) error {
		if c.role(user) > 0 {
			return im.E(im.KindConflict, "group_already_member", nil)
		}
		if req.GetInviteToken() != "" {
			if err := c.checkInvite(ctx, req.GetInviteToken()); err != nil {
				return err
			}
		}
		joined := []im.UserID{user}
		if err := c.add(ctx, joined, roleMember); err != nil {
			return err
		}
		return c.post(ctx, notice{event: noticeJoin}, append(joined, c.conv.members.users...))
	})
	if err != nil {
		s.tries.giveBack(ctx, joinsKey(user), time.Hour) // nobody was told
		return nil, err
	}
	return &logicv1.JoinGroupResponse{}, nil
}

// mayJoin checks what takes long before the group is locked: the password.
func (s *Server) mayJoin(ctx context.Context, user im.UserID, req *logicv1.JoinGroupRequest) error {
	var group struct {
		Hash string `db:"password_hash"`
		Open bool   `db:"open"`
	}
	err := s.store.db.GetContext(ctx, &group, `SELECT g.password_hash, c.open FROM chat_groups g JOIN conversations c ON c.id = g.id WHERE g.id = ?`, req.GetGroupId())
	if err != nil && !noRows(err) {
		return failed(err)
	}
	if err != nil || !group.Open {
		return im.E(im.KindNotFound, "group_not_found", nil)
	}
	place, err := s.store.placeOf(ctx, user, im.Group, req.GetGroupId())
	if err != nil {
		return failed(err)
	}
	if place != nil && place.in() {
		return im.E(im.KindConflict, "group_already_member", nil)
	}
	if req.GetInviteToken() != "" || group.Hash == "" {
		return nil
	}
	return s.groupPasswords.check(ctx, user, req.GetGroupId(), group.Hash, req.GetPassword())
}

// AddMembers implements logicv1.GroupServiceServer.
func (s *Server) AddMembers(ctx context.Context, req *logicv1.AddMembersRequest) (*logicv1.AddMembersResponse, error) {
	users, err := distinctUsers(req.GetUserIds())
	if err != nil {
		return nil, err
	}
	var added []im.UserID
	err = s.changeGroup(ctx, req.GetActor(), req.GetGroupId(), func(ctx context.Context, c *groupChange) error {
		added = nil
		if err := c.require(roleAdmin); err != nil {
			return err
		}
		fresh := without(users, c.conv.members.users)
		if len(fresh) == 0 {
			return nil
		}
		if err := s.requireFriends(ctx, c.tx, c.actorID(), fresh); err != nil {
			return err
		}
		if err := c.add(ctx, fresh, roleMember); err != nil {
			return err
		}
		added = fresh
		everybody := append(append([]im.UserID(nil), c.conv.members.users...), fresh...)
		return c.post(ctx, notice{event: noticeInvite, users: fresh}, everybody)
	})
	if err != nil {
		return nil, err
	}
	return &logicv1.AddMembersResponse{Added: int64s(added)}, nil
}

// RemoveMembers implements logicv1.GroupServiceServer. The removed see the
// notice and nothing after it. Only the owner removes admins, and nobody
// removes the owner: an admin who tries is refused as a whole, and the owner who
// selects himself with others removes the others.
func (s *Server) RemoveMembers(ctx context.Context, req *logicv1.RemoveMembersRequest) (*logicv1.RemoveMembersResponse, error) {
	users, err := distinctUsers(req.GetUserIds())
	if err != nil {
		return nil, err
	}
	var removed []im.UserID
	err = s.changeGroup(ctx, req.GetActor(), req.GetGroupId(), func(ctx context.Context, c *groupChange) error {
		removed = nil
		if err := c.require(roleAdmin); err != nil {
			return err
		}
		own := c.role(c.actorID())
		var gone []im.UserID
		for _, u := range users {
			switch r := c.role(u); {
			case r == 0: // not in this group: nothing of his is touched
			case u == c.actorID() && own == roleOwner: // he stays; the others go
			case r >= own:
				return im.E(im.KindForbidden, "group_role_required", nil)
			default:
				gone = append(gone, u)
			}
		}
		if len(gone) == 0 {
			return nil
		}
		if err := c.end(ctx, gone, c.seq()); err != nil {
			return err
		}
		removed = gone
		return c.post(ctx, notice{event: noticeRemove, users: gone}, c.conv.members.users)
	})
	if err != nil {
		return nil, err
	}
	return &logicv1.RemoveMembersResponse{Removed: int64s(removed)}, nil
}

// LeaveGroup implements logicv1.GroupServiceServer.
func (s *Server) LeaveGroup(ctx context.Context, req *logicv1.LeaveGroupRequest) (*logicv1.LeaveGroupResponse, error) {
	user := im.UserID(req.GetActor().GetId())
	group, err := s.groupToLeave(ctx, user, req.GetId())
	if err != nil {
		return nil, err
	}
	err = s.changeGroup(ctx, req.GetActor(), group, func(ctx context.Context, c *groupChange) error {
		own := c.role(user)
		if own == 0 {
			return im.E(im.KindNotFound, "group_not_joined", nil)
		}
		gone := []im.UserID{user}
		// He does not see his own going: the notice is for those who stay.
		if err := c.end(ctx, gone, c.conv.LastSeq); err != nil {
			return err
		}
		staying := without(c.conv.members.users, gone)
		n := notice{event: noticeLeave}
		switch {
		case len(staying) == 0:
			c.close()
		case own == roleOwner:
			heir := staying[0] // members are in the order in which they joined
			if err := c.own(ctx, heir); err != nil {
				return err
			}
			n.more = map[string]any{"owner": int64(heir)}
		}
		return c.post(ctx, n, staying)
	})
	if err != nil {
		return nil, err
	}
	return &logicv1.LeaveGroupResponse{}, nil
}

// groupToLeave resolves an id that is a group the user is in, or else his own
// session with a group: the web client sends the latter. Ids of groups and
// sessions are from one allocator, so they are never both.
func (s *Server) groupToLeave(ctx context.Context, user im.UserID, id int64) (int64, error) {
	if !user.Valid() {
		return 0, im.E(im.KindUnauthorized, "sender_missing", nil)
	}
	place, err := s.store.placeOf(ctx, user, im.Group, id)
	if err != nil {
		return 0, failed(err)
	}
	if place != nil && place.in() {
		return id, nil
	}
	var group int64
	err = s.store.db.GetContext(ctx, &group, `SELECT target_id FROM sessions WHERE id = ? AND owner_id = ? AND kind = ?`, id, int64(user), int64(im.Group))
	if noRows(err) {
		return 0, im.E(im.KindNotFound, "group_not_joined", nil)
	}
	return group, failed(err)
}

// SetRole implements logicv1.GroupServiceServer: the owner makes admins and unmakes them.
func (s *Server) SetRole(ctx context.Context, req *logicv1.SetRoleRequest) (*logicv1.SetRoleResponse, error) {
	role, user := int32(req.GetRole()), im.UserID(req.GetUserId())
	if role != roleMember && role != roleAdmin {
		return nil, im.E(im.KindInvalid, "role_invalid", nil)
	}
	err := s.changeGroup(ctx, req.GetActor(), req.GetGroupId(), func(ctx context.Context, c *groupChange) error {
		if err := c.require(roleOwner); err != nil {
			return err
		}
		now, err := c.member(user)
		if err != nil || now == role {
			return err
		}
		if now == roleOwner {
			return im.E(im.KindForbidden, "group_role_required", nil)
		}
		if err := c.setRole(ctx, user, role); err != nil {
			return err
		}
		return c.post(ctx, notice{event: noticeRole, users: []im.UserID{user}, more: map[string]any{"role": role}}, c.conv.members.users)
	})
	if err != nil {
		return nil, err
	}
	return &logicv1.SetRoleResponse{}, nil
}

// maxMuteSeconds bounds a mute: ten years.
const maxMuteSeconds = 10 * 365 * 24 * 3600

// Mute implements logicv1.GroupServiceServer. Admins may mute members, the owner
// everybody but himself.
func (s *Server) Mute(ctx context.Context, req *logicv1.MuteRequest) (*logicv1.MuteResponse, error) {
	if req.GetSeconds() < 0 || req.GetSeconds() > maxMuteSeconds {
		return nil, im.E(im.KindInvalid, "duration_invalid", nil)
	}
	user, mute := im.UserID(req.GetUserId()), req.GetSeconds() > 0
	n := notice{event: noticeUnmute}
	if mute {
		n = notice{event: noticeMute, more: map[string]any{"seconds": req.GetSeconds()}}
	}
	err := s.changeGroup(ctx, req.GetActor(), req.GetGroupId(), func(ctx context.Context, c *groupChange) error {
		if err := c.require(roleAdmin); err != nil {
			return err
		}
		if user == 0 {
			if !mute && c.conv.MutedUntilMS <= c.nowMS {
				return nil
			}
			c.conv.MutedUntilMS = c.mutedFor(req.GetSeconds())
			return c.post(ctx, n, c.conv.members.users)
		}
		role, err := c.member(user)
		if err != nil {
			return err
		}
		if role >= c.role(c.actorID()) {
			return im.E(im.KindForbidden, "group_role_required", nil)
		}
		if err := c.muteMember(ctx, user, req.GetSeconds()); err != nil {
			return err
		}
		about := n
		about.users = []im.UserID{user}
		return c.post(ctx, about, c.conv.members.users)
	})
	if err != nil {
		return nil, err
	}
	return &logicv1.MuteResponse{}, nil
}

// mutedFor is when a mute of so many seconds ends that begins now, Unix milliseconds;
// 0 for none.
func (c *groupChange) mutedFor(seconds int64) int64 {
	if seconds <= 0 {
		return 0
	}
	return c.nowMS + seconds*time.Second.Milliseconds()
}

// muteMember silences a member for so long from now; 0 lifts it.
func (c *groupChange) muteMember(ctx context.Context, u im.UserID, seconds int64) error {
	_, err := c.tx.ExecContext(ctx, `UPDATE members SET muted_until_ms = ? WHERE conversation_id = ? AND user_id = ?`,
		c.mutedFor(seconds), int64(c.conv.ID), int64(u))
	if err != nil {
		return fmt.Errorf("mute: %w", err)
	}
	return nil
}

func int64s(users []im.UserID) []int64 {
	out := make([]int64, len(users))
	for i, u := range users {
		out[i] = int64(u)
	}
	return out
}
