package rest

import (
	"net/url"
	"unicode/utf8"

	friendv1 "im-services/api/proto/friend/v1"
	logicv1 "im-services/api/proto/logic/v1"
	"im-services/internal/im"
	"im-services/internal/names"
	"im-services/internal/wire"
)

// codeDependency is the code for "could not be done just now".
const codeDependency = 1001

// maxURL is the longest avatar URL, in bytes.
const maxURL = 500

func (a *api) groupBody(g *logicv1.GroupInfo) wire.GroupBody {
	if g == nil {
		return wire.GroupBody{}
	}
	return wire.GroupBody{
		ID: g.GetId(), Owner: im.UserID(g.GetOwnerId()), Name: g.GetName(), CreatedAt: a.time(g.GetCreatedAtMs()),
		Info: g.GetInfo(), Avatar: a.absolute(g.GetAvatar()), IsPwd: bit(g.GetHasPassword()), Hot: g.GetHot(),
		Theme: g.GetTheme(), Announcement: g.GetAnnouncement(), MutedAll: bit(g.GetMutedAll()), Members: g.GetMemberCount(),
	}
}

// groups are the caller's, as bodies; never nil.
func (c *call) groups() ([]wire.GroupBody, error) {
	resp, err := c.Groups.ListGroups(c.ctx(), &logicv1.ListGroupsRequest{UserId: int64(c.me)})
	if err != nil {
		return nil, err
	}
	out := make([]wire.GroupBody, 0, len(resp.GetGroups()))
	for _, g := range resp.GetGroups() {
		out = append(out, c.groupBody(g))
	}
	return out, nil
}

func listGroups(c *call) (any, error) { return c.groups() }

func getGroup(c *call) (any, error) {
	id, err := c.id()
	if err != nil {
		return nil, err
	}
	resp, err := c.Groups.GetGroup(c.ctx(), &logicv1.GetGroupRequest{UserId: int64(c.me), GroupId: id})
	if err != nil {
		return nil, err
	}
	return c.groupBody(resp.GetGroup()), nil
}

// runes reads a text of from..to characters.
func (f *form) runes(name string, from, to int, reason string) string {
	s := f.text(name)
	if n := utf8.RuneCountInString(s); n < from || n > to {
		f.refuse(reason)
	}
	return s
}

// groupName reads a group's name.
func (f *form) groupName() string {
	name, ok := names.Clean(f.text("name"), 2, 20)
	if !ok {
		f.refuse("group_name_invalid")
	}
	return name
}

// avatarURL reads the absolute URL of a picture.
func (f *form) avatarURL() string {
	s := f.text("avatar")
	u, err := url.Parse(s)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || len(s) > maxURL {
		f.refuse("avatar_invalid")
	}
	return s
}

func createGroup(c *call) (any, error) {
	in, err := c.form()
	if err != nil {
		return nil, err
	}
	req := &logicv1.CreateGroupRequest{
		Actor:     c.sender(),
		Name:      in.groupName(),
		Info:      in.runes("info", 2, 255, "group_info_invalid"),
		Avatar:    in.avatarURL(),
		Theme:     in.runes("theme", 1, 255, "group_theme_missing"),
		MemberIds: c.withoutMe(in.ids("select_user")),
	}
	if in.number("is_pwd", 0, 0, 1, "is_pwd_invalid") == 1 {
		req.Password = in.runes("password", 1, 128, "group_password_missing")
	}
	if err := in.err(); err != nil {
		return nil, err
	}
	if err := c.onlyFriends(req.GetMemberIds()); err != nil {
		return nil, err
	}
	resp, err := c.Groups.CreateGroup(c.ctx(), req)
	switch im.KindOf(err) {
	case im.KindUnavailable, im.KindUnknown:
		return nil, withCode(codeDependency, err)
	}
	if err != nil {
		return nil, err
	}
	return c.groupBody(resp.GetGroup()), nil
}

func (c *call) withoutMe(ids []int64) []int64 {
	out := ids[:0]
	for _, id := range ids {
		if id != int64(c.me) {
			out = append(out, id)
		}
	}
	return out
}

// onlyFriends fails unless all of the users are the caller's friends.
func (c *call) onlyFriends(ids []int64) error {
	strangers, err := c.strangers(ids)
	if err != nil {
		return err
	}
	if len(strangers) > 0 {
		return im.E(im.KindForbidden, "select_not_friends", nil)
	}
	return nil
}

// strangers are those of the users who are no friends of the caller.
func (c *call) strangers(ids []int64) ([]int64, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	resp, err := c.Friend.FilterFriends(c.ctx(), &friendv1.FilterFriendsRequest{UserId: int64(c.me), UserIds: ids})
	if err != nil {
		return nil, err
	}
	friends := make(map[int64]bool, len(resp.GetUserIds()))
	for _, id := range resp.GetUserIds() {
		friends[id] = true
	}
	var out []int64
	for _, id := range ids {
		if !friends[id] {
			out = append(out, id)
		}
	}
	return out, nil
}

func joinGroup(c *call) (any, error) {
	id, err := c.id()
	if err != nil {
		return nil, err
	}
	in, err := c.form()
	if err != nil {
		return nil, err
	}
	req := &logicv1.JoinGroupRequest{
		Actor: c.sender(), GroupId: id, Password: in.text("password"), InviteToken: in.text("token"),
	}
	if err := in.err(); err != nil {
		return nil, err
	}
	_, err = c.Groups.JoinGroup(c.ctx(), req)
	return nil, err
}

// changeMembers adds (type 1) or removes (type 2) members.
func changeMembers(c *call) (any, error) {
	in, err := c.form()
	if err != nil {
		return nil, err
	}
	group := in.id("group_id")
	kind := in.number("type", 0, 1, 2, "type_invalid")
	if kind == 0 {
		in.refuse("type_invalid")
	}
	users := in.ids("select_user")
	if len(users) == 0 {
		in.refuse("selection_empty")
	}
	if err := in.err(); err != nil {
		return nil, err
	}
	if kind == 2 {
		_, err = c.Groups.RemoveMembers(c.ctx(), &logicv1.RemoveMembersRequest{Actor: c.sender(), GroupId: group, UserIds: users})
		return nil, err
	}
	if err := c.invitable(group, users); err != nil {
		return nil, err
	}
	_, err = c.Groups.AddMembers(c.ctx(), &logicv1.AddMembersRequest{Actor: c.sender(), GroupId: group, UserIds: users})
	return nil, err
}

// invitable fails if somebody is neither the caller's friend nor in the group
// already. When the caller may not see the group, it says nothing: the change
// itself is refused, for the reason that matters then.
func (c *call) invitable(group int64, users []int64) error {
	strangers, err := c.strangers(users)
	if err != nil || len(strangers) == 0 {
		return err
	}
	resp, err := c.Groups.ListMembers(c.ctx(), &logicv1.ListMembersRequest{UserId: int64(c.me), GroupId: group})
	if err != nil {
		switch im.KindOf(err) {
		case im.KindForbidden, im.KindNotFound, im.KindInvalid:
			return nil
		}
		return err
	}
	in := make(map[int64]bool, len(resp.GetMembers()))
	for _, m := range resp.GetMembers() {
		in[m.GetUserId()] = true
		if m.GetUserId() == int64(c.me) && m.GetRole() == logicv1.Role_ROLE_MEMBER {
			return nil // he may not add anybody, and is told so
		}
	}
	for _, id := range strangers {
		if !in[id] {
			return im.E(im.KindForbidden, "select_not_friends", nil)
		}
	}
	return nil
}

func roleName(r logicv1.Role) string {
	switch r {
	case logicv1.Role_ROLE_OWNER:
		return "owner"
	case logicv1.Role_ROLE_ADMIN:
		return "admin"
	}
	return "member"
}

func listMembers(c *call) (any, error) {
	id, err := c.id()
	if err != nil {
		return nil, err
	}
	resp, err := c.Groups.ListMembers(c.ctx(), &logicv1.ListMembersRequest{UserId: int64(c.me), GroupId: id})
	if err != nil {
		return nil, err
	}
	ids := make([]im.UserID, 0, len(resp.GetMembers()))
	for _, m := range resp.GetMembers() {
		ids = append(ids, im.UserID(m.GetUserId()))
	}
	who, err := c.people(ids)
	if err != nil {
		return nil, err
	}
	group := c.groupBody(resp.GetGroup())
	out := wire.MembersBody{Group: group, Members: make([]wire.MemberBody, 0, len(ids))}
	for _, m := range resp.GetMembers() {
		user := im.UserID(m.GetUserId())
		out.Members = append(out.Members, wire.MemberBody{
			ID: m.GetId(), User: user, CreatedAt: c.time(m.GetJoinedAtMs()), Group: m.GetGroupId(), Remark: m.GetRemark(),
			Avatar: group.Avatar, Name: group.Name, Role: roleName(m.GetRole()), MutedUntil: c.time(m.GetMutedUntilMs()),
			Users: who.user(user),
		})
	}
	return out, nil
}

// leaveGroup takes a group id or the caller's own group session id: the web
// client sends the latter. The service tells them apart.
func leaveGroup(c *call) (any, error) {
	id, err := c.id()
	if err != nil {
		return nil, err
	}
	_, err = c.Groups.LeaveGroup(c.ctx(), &logicv1.LeaveGroupRequest{Actor: c.sender(), Id: id})
	return nil, err
}

func invite(c *call) (any, error) {
	id, err := c.id()
	if err != nil {
		return nil, err
	}
	resp, err := c.Groups.CreateInvite(c.ctx(), &logicv1.CreateInviteRequest{UserId: int64(c.me), GroupId: id})
	if err != nil {
		return nil, err
	}
	return wire.InviteBody{
		ID: resp.GetId(), User: c.me, Group: id, Token: resp.GetToken(),
		CreatedAt: resp.GetCreatedAtMs() / 1000, EndTime: resp.GetExpiresAtMs() / 1000,
		Avatar: c.absolute(resp.GetGroup().GetAvatar()), Name: resp.GetGroup().GetName(),
	}, nil
}
