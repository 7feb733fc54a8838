package rest

import (
	logicv1 "im-services/api/proto/logic/v1"
)

// maxMute is the longest mute, in seconds: ten years.
const maxMute = 10 * 365 * 24 * 3600

// maxAnnouncement is the longest announcement, in characters.
const maxAnnouncement = 2000

func handOver(c *call) (any, error) {
	id, in, err := c.idAndForm()
	if err != nil {
		return nil, err
	}
	to := in.id("user_id")
	if err := in.err(); err != nil {
		return nil, err
	}
	_, err = c.Groups.HandOver(c.ctx(), &logicv1.HandOverRequest{Actor: c.sender(), GroupId: id, ToUserId: to})
	return nil, err
}

func dissolve(c *call) (any, error) {
	id, err := c.id()
	if err != nil {
		return nil, err
	}
	_, err = c.Groups.Dissolve(c.ctx(), &logicv1.DissolveRequest{Actor: c.sender(), GroupId: id})
	return nil, err
}

func setRole(c *call) (any, error) {
	id, in, err := c.idAndForm()
	if err != nil {
		return nil, err
	}
	user := in.id("user_id")
	role := logicv1.Role_ROLE_MEMBER
	switch in.text("role") {
	case "member":
	case "admin":
		role = logicv1.Role_ROLE_ADMIN
	default:
		in.refuse("role_invalid")
	}
	if err := in.err(); err != nil {
		return nil, err
	}
	_, err = c.Groups.SetRole(c.ctx(), &logicv1.SetRoleRequest{Actor: c.sender(), GroupId: id, UserId: user, Role: role})
	return nil, err
}

// mute silences a member, or everybody if user_id is left out or 0. "null" is
// nobody: a client that lost an id must not silence the whole group.
func mute(c *call) (any, error) {
	id, in, err := c.idAndForm()
	if err != nil {
		return nil, err
	}
	var user int64
	if v, _ := in.get("user_id"); v.text != "0" {
		user = in.optionalID("user_id")
	}
	seconds := in.number("seconds", -1, 0, maxMute, "duration_invalid")
	if seconds < 0 {
		in.refuse("duration_invalid")
	}
	if err := in.err(); err != nil {
		return nil, err
	}
	_, err = c.Groups.Mute(c.ctx(), &logicv1.MuteRequest{Actor: c.sender(), GroupId: id, UserId: user, Seconds: seconds})
	return nil, err
}

func announce(c *call) (any, error) {
	id, in, err := c.idAndForm()
	if err != nil {
		return nil, err
	}
	text := in.runes("announcement", 0, maxAnnouncement, "announcement_too_long")
	if !in.has("announcement") {
		in.refuse("parameter_missing")
	}
	if err := in.err(); err != nil {
		return nil, err
	}
	return c.updateGroup(&logicv1.UpdateGroupRequest{Actor: c.sender(), GroupId: id, Announcement: &text})
}

// updateGroup changes what is sent of name, info, avatar and announcement.
func updateGroup(c *call) (any, error) {
	id, in, err := c.idAndForm()
	if err != nil {
		return nil, err
	}
	req := &logicv1.UpdateGroupRequest{Actor: c.sender(), GroupId: id}
	if in.has("name") {
		s := in.groupName()
		req.Name = &s
	}
	if in.has("info") {
		s := in.runes("info", 2, 255, "group_info_invalid")
		req.Info = &s
	}
	if in.has("avatar") {
		s := in.avatarURL()
		req.Avatar = &s
	}
	if in.has("announcement") {
		s := in.runes("announcement", 0, maxAnnouncement, "announcement_too_long")
		req.Announcement = &s
	}
	if err := in.err(); err != nil {
		return nil, err
	}
	return c.updateGroup(req)
}

func (c *call) updateGroup(req *logicv1.UpdateGroupRequest) (any, error) {
	resp, err := c.Groups.UpdateGroup(c.ctx(), req)
	if err != nil {
		return nil, err
	}
	return c.groupBody(resp.GetGroup()), nil
}

func (c *call) idAndForm() (int64, *form, error) {
	id, err := c.id()
	if err != nil {
		return 0, nil, err
	}
	in, err := c.form()
	return id, in, err
}
