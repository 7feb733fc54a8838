package logic

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jmoiron/sqlx"

	logicv1 "im-services/api/proto/logic/v1"
	"im-services/internal/im"
)

// groupRow is a row of chat_groups.
type groupRow struct {
	ID           im.ConversationID `db:"id"`
	Owner        im.UserID         `db:"owner_id"`
	Name         string            `db:"name"`
	Info         string            `db:"info"`
	Avatar       string            `db:"avatar"`
	Theme        string            `db:"theme"`
	PasswordHash string            `db:"password_hash"`
	Hot          int64             `db:"hot"`
	Announcement string            `db:"announcement"`
	CreatedAtMS  int64             `db:"created_at_ms"`
	Members      int64             `db:"member_count"`
}

const groupColumns = `id, owner_id, name, info, avatar, theme, password_hash, hot, announcement, created_at_ms, member_count`

func (g *groupRow) toPB(muted bool) *logicv1.GroupInfo {
	return &logicv1.GroupInfo{
		Id: int64(g.ID), OwnerId: int64(g.Owner), Name: g.Name, Info: g.Info, Avatar: g.Avatar, Theme: g.Theme,
		HasPassword: g.PasswordHash != "", Hot: g.Hot, CreatedAtMs: g.CreatedAtMS, Announcement: g.Announcement,
		MutedAll: muted, MemberCount: int32(g.Members), //nolint:gosec // bounded by GroupMax
	}
}

// shownGroup is a group with what its conversation says of it.
type shownGroup struct {
	groupRow

	MutedUntilMS int64 `db:"muted_until_ms"`
}

// What is shown of a group, alone and as one of a list: there only the beginning
// of its announcement, see previewColumns.
const (
	shownColumns  = `g.id, g.owner_id, g.name, g.info, g.avatar, g.theme, g.password_hash, g.hot, g.created_at_ms, g.member_count, c.muted_until_ms`
	aloneColumns  = shownColumns + `, g.announcement`
	listedColumns = shownColumns + `, LEFT(g.announcement, 200) AS announcement`
)

// groupInfos reads groups by id, for a list; missing ones are absent.
func (s *store) groupInfos(ctx context.Context, ids []im.ConversationID) (map[im.ConversationID]*logicv1.GroupInfo, error) {
	out, now := make(map[im.ConversationID]*logicv1.GroupInfo, len(ids)), s.nowMS()
	for page := range slices.Chunk(ids, rowPage) {
		var list []shownGroup
		if err := s.db.SelectContext(ctx, &list, `SELECT `+listedColumns+`
			FROM chat_groups g JOIN conversations c ON c.id = g.id WHERE g.id IN (`+placeholders(len(page))+`)`, anys(page)...); err != nil {
			return nil, fmt.Errorf("read groups: %w", err)
		}
		for i := range list {
			out[list[i].ID] = list[i].toPB(list[i].MutedUntilMS > now)
		}
	}
	return out, nil
}

// groupInfo reads one group.
func (s *store) groupInfo(ctx context.Context, id im.ConversationID) (*logicv1.GroupInfo, error) {
	var g shownGroup
	err := s.db.GetContext(ctx, &g, `SELECT `+aloneColumns+` FROM chat_groups g JOIN conversations c ON c.id = g.id WHERE g.id = ?`, int64(id))
	if noRows(err) {
		return nil, im.E(im.KindNotFound, "group_not_found", nil)
	}
	if err != nil {
		return nil, failed(fmt.Errorf("read group: %w", err))
	}
	return g.toPB(g.MutedUntilMS > s.nowMS()), nil
}

// requireMember fails unless the user is in the group.
func (s *store) requireMember(ctx context.Context, user im.UserID, group int64) error {
	if !user.Valid() {
		return im.E(im.KindUnauthorized, "sender_missing", nil)
	}
	place, err := s.placeOf(ctx, user, im.Group, group)
	if err != nil {
		return failed(err)
	}
	if place == nil || !place.in() {
		return im.E(im.KindForbidden, "not_a_member", nil)
	}
	return nil
}

// Limits of what a group says about itself, as the columns have them.
const (
	maxGroupName    = 64
	maxGroupInfo    = 1024
	maxGroupAvatar  = 1024
	maxGroupTheme   = 255
	maxAnnouncement = 4096
)

// checkGroup refuses what cannot be stored or shown. The edge is stricter about
// lengths; this holds for every caller.
func checkGroup(g *groupRow) error {
	switch {
	case !within(g.Name, 1, maxGroupName) || strings.TrimSpace(g.Name) == "":
		return im.E(im.KindInvalid, "group_name_invalid", nil)
	case !within(g.Info, 0, maxGroupInfo):
		return im.E(im.KindInvalid, "group_info_invalid", nil)
	case !within(g.Theme, 0, maxGroupTheme):
		return im.E(im.KindInvalid, "group_theme_missing", nil)
	case !within(g.Announcement, 0, maxAnnouncement):
		return im.E(im.KindInvalid, "announcement_too_long", nil)
	}
	u, err := url.Parse(g.Avatar)
	if err != nil || g.Avatar != "" && u.Scheme != "http" && u.Scheme != "https" || !within(g.Avatar, 0, maxGroupAvatar) {
		return im.E(im.KindInvalid, "avatar_invalid", nil)
	}
	return nil
}

// within reports whether a text is UTF-8 of so many characters.
func within(s string, least, most int) bool {
	n := utf8.RuneCountInString(s)
	return utf8.ValidString(s) && n >= least && n <= most
}

// groupsPerHour is how often a user may try to make a group: it may cost a hash
// of its password, and tells everybody selected.
const groupsPerHour = 60

// CreateGroup implements logicv1.GroupServiceServer. Whoever is selected must be
// a friend of the creator; otherwise nothing is made.
func (s *Server) CreateGroup(ctx context.Context, req *logicv1.CreateGroupRequest) (*logicv1.CreateGroupResponse, error) {
	owner := im.UserID(req.GetActor().GetId())
	if !owner.Valid() {
		return nil, im.E(im.KindUnauthorized, "sender_missing", nil)
	}
	selected, err := distinctUsers(req.GetMemberIds())
	if err != nil {
		return nil, err
	}
	selected = without(selected, []im.UserID{owner})
	group := groupRow{Owner: owner, Name: req.GetName(), Info: req.GetInfo(), Avatar: req.GetAvatar(), Theme: req.GetTheme()}
	if err := checkGroup(&group); err != nil {
		return nil, err
	}
	if len(selected)+1 > s.cfg.GroupMax {
		return nil, im.E(im.KindConflict, "group_full", nil)
	}
	if !s.tries.take(ctx, fmt.Sprintf("groupsmade:%d", owner), groupsPerHour, time.Hour) {
		return nil, &im.Error{Kind: im.KindExhausted, Reason: "groups_made_limit", RetryAfter: time.Hour}
	}
	if group.PasswordHash, err = s.groupPasswords.hash(ctx, req.GetPassword()); err != nil {
		return nil, err
	}
	c, err := s.commitChange(ctx, func(tx *sqlx.Tx) (*groupChange, error) {
		if err := s.requireFriends(ctx, tx, owner, selected); err != nil {
			return nil, err
		}
		if err := s.requireFewGroups(ctx, tx, owner); err != nil {
			return nil, err
		}
		id, err := s.store.objectIDs.take(ctx, 1, 0)
		if err != nil {
			return nil, err
		}
		c := &groupChange{s: s, tx: tx, actor: req.GetActor(), nowMS: s.store.nowMS(), group: group}
		c.group.ID, c.group.CreatedAtMS = im.ConversationID(id), c.nowMS
		c.conv = &lockedConversation{conversationRow: conversationRow{ID: c.group.ID, Kind: im.Group, Open: true}, members: &memberList{}}
		if _, err := tx.ExecContext(ctx, `INSERT INTO conversations (id, kind, open, created_at_ms, last_at_ms) VALUES (?,?,1,?,?)`,
			id, int64(im.Group), c.nowMS, c.nowMS); err != nil {
			return nil, fmt.Errorf("make conversation: %w", err)
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO chat_groups (id, owner_id, name, info, avatar, theme, password_hash, created_at_ms) VALUES (?,?,?,?,?,?,?,?)`,
			id, int64(owner), group.Name, group.Info, group.Avatar, group.Theme, group.PasswordHash, c.nowMS); err != nil {
			return nil, fmt.Errorf("make group: %w", err)
		}
		everybody := append([]im.UserID{owner}, selected...)
		if err := c.add(ctx, everybody[:1], roleOwner); err != nil {
			return nil, err
		}
		if err := c.add(ctx, selected, roleMember); err != nil {
			return nil, err
		}
		return c, c.post(ctx, notice{event: noticeCreate, users: selected}, everybody)
	})
	if err != nil {
		return nil, err
	}
	return &logicv1.CreateGroupResponse{Group: c.group.toPB(false)}, nil
}

// requireFriends fails unless all of the others are friends of user.
func (s *Server) requireFriends(ctx context.Context, q sqlx.QueryerContext, user im.UserID, others []im.UserID) error {
	friends, err := s.store.openWith(ctx, q, user, others)
	if err != nil {
		return err
	}
	for _, o := range others {
		if !friends[o] {
			return im.E(im.KindForbidden, "select_not_friends", nil)
		}
	}
	return nil
}

// requireFewGroups fails if the user owns as many groups as he may create.
func (s *Server) requireFewGroups(ctx context.Context, q sqlx.QueryerContext, user im.UserID) error {
	var owned int
	if err := sqlx.GetContext(ctx, q, &owned, `SELECT COUNT(*) FROM members WHERE user_id = ? AND role = ? AND end_seq = 0`, int64(user), roleOwner); err != nil {
		return fmt.Errorf("count groups: %w", err)
	}
	if owned >= s.cfg.GroupsOwnedMax {
		return im.E(im.KindConflict, "groups_owned_limit", nil)
	}
	return nil
}

// GetGroup implements logicv1.GroupServiceServer. Members only.
func (s *Server) GetGroup(ctx context.Context, req *logicv1.GetGroupRequest) (*logicv1.GetGroupResponse, error) {
	if err := s.store.requireMember(ctx, im.UserID(req.GetUserId()), req.GetGroupId()); err != nil {
		return nil, err
	}
	info, err := s.store.groupInfo(ctx, im.ConversationID(req.GetGroupId()))
	if err != nil {
		return nil, err
	}
	return &logicv1.GetGroupResponse{Group: info}, nil
}

// ListGroups implements logicv1.GroupServiceServer: the user's groups, hottest first.
func (s *Server) ListGroups(ctx context.Context, req *logicv1.ListGroupsRequest) (*logicv1.ListGroupsResponse, error) {
	var list []shownGroup
	if err := s.store.db.SelectContext(ctx, &list, `SELECT `+listedColumns+`
		FROM members m JOIN chat_groups g ON g.id = m.conversation_id JOIN conversations c ON c.id = g.id
		WHERE m.user_id = ? AND m.end_seq = 0 ORDER BY g.hot DESC, g.id DESC`, req.GetUserId()); err != nil {
		return nil, failed(err)
	}
	resp, now := &logicv1.ListGroupsResponse{}, s.store.nowMS()
	for i := range list {
		resp.Groups = append(resp.Groups, list[i].toPB(list[i].MutedUntilMS > now))
	}
	return resp, nil
}

// HandOver implements logicv1.GroupServiceServer: the owner makes another member owner.
func (s *Server) HandOver(ctx context.Context, req *logicv1.HandOverRequest) (*logicv1.HandOverResponse, error) {
	to := im.UserID(req.GetToUserId())
	err := s.changeGroup(ctx, req.GetActor(), req.GetGroupId(), func(ctx context.Context, c *groupChange) error {
		if err := c.require(roleOwner); err != nil {
			return err
		}
		if _, err := c.member(to); err != nil || to == c.actorID() {
			return err
		}
		if err := c.setRole(ctx, c.actorID(), roleMember); err != nil {
			return err
		}
		if err := c.own(ctx, to); err != nil {
			return err
		}
		return c.post(ctx, notice{event: noticeHandOver, users: []im.UserID{to}}, c.conv.members.users)
	})
	if err != nil {
		return nil, err
	}
	return &logicv1.HandOverResponse{}, nil
}

// own makes a member the owner, and lifts his mute: nobody else could.
func (c *groupChange) own(ctx context.Context, u im.UserID) error {
	c.group.Owner = u
	if err := c.setRole(ctx, u, roleOwner); err != nil {
		return err
	}
	return c.muteMember(ctx, u, 0)
}

// Dissolve implements logicv1.GroupServiceServer: the owner ends the group. Its
// last message is the notice; members keep nothing of it in their lists.
func (s *Server) Dissolve(ctx context.Context, req *logicv1.DissolveRequest) (*logicv1.DissolveResponse, error) {
	err := s.changeGroup(ctx, req.GetActor(), req.GetGroupId(), func(ctx context.Context, c *groupChange) error {
		if err := c.require(roleOwner); err != nil {
			return err
		}
		if err := c.end(ctx, c.conv.members.users, c.seq()); err != nil {
			return err
		}
		c.close()
		return c.post(ctx, notice{event: noticeDissolve}, c.conv.members.users)
	})
	if err != nil {
		return nil, err
	}
	return &logicv1.DissolveResponse{}, nil
}

// UpdateGroup implements logicv1.GroupServiceServer: owner or admin.
func (s *Server) UpdateGroup(ctx context.Context, req *logicv1.UpdateGroupRequest) (*logicv1.UpdateGroupResponse, error) {
	var info *logicv1.GroupInfo
	err := s.changeGroup(ctx, req.GetActor(), req.GetGroupId(), func(ctx context.Context, c *groupChange) error {
		if err := c.require(roleAdmin); err != nil {
			return err
		}
		changed := map[string]any{}
		set := func(field *string, to *string, name string) {
			if to != nil && *to != *field {
				*field = *to
				changed[name] = *to
			}
		}
		set(&c.group.Name, req.Name, "new_name")
		set(&c.group.Info, req.Info, "new_info")
		set(&c.group.Avatar, req.Avatar, "new_avatar")
		set(&c.group.Announcement, req.Announcement, "announcement")
		info = c.group.toPB(c.conv.MutedUntilMS > c.nowMS)
		if err := checkGroup(&c.group); err != nil || len(changed) == 0 {
			return err
		}
		return c.post(ctx, notice{event: noticeUpdate, more: changed}, c.conv.members.users)
	})
	if err != nil {
		return nil, err
	}
	return &logicv1.UpdateGroupResponse{Group: info}, nil
}
