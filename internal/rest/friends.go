package rest

import (
	"strings"

	authv1 "im-services/api/proto/auth/v1"
	friendv1 "im-services/api/proto/friend/v1"
	logicv1 "im-services/api/proto/logic/v1"
	"im-services/internal/im"
	"im-services/internal/wire"
)

// searchLimit is the number of users a search answers.
const searchLimit = 10

func (c *call) friendBody(f *friendv1.Friend, who people) wire.FriendBody {
	id := im.UserID(f.GetFriendId())
	out := wire.FriendBody{
		ID: f.GetId(), Owner: im.UserID(f.GetUserId()), Friend: id,
		CreatedAt: c.time(f.GetCreatedAtMs()), UpdatedAt: c.time(f.GetUpdatedAtMs()),
		Note: f.GetNote(), Status: bit(f.GetPinned()), UID: id.UID(), Users: who.user(id),
	}
	if f.GetPinned() {
		out.TopTime = c.time(f.GetPinnedAtMs())
	}
	return out
}

// friends are the caller's, as bodies; never nil.
func (c *call) friends() ([]wire.FriendBody, error) {
	resp, err := c.Friend.ListFriends(c.ctx(), &friendv1.ListFriendsRequest{UserId: int64(c.me)})
	if err != nil {
		return nil, err
	}
	ids := make([]im.UserID, 0, len(resp.GetFriends()))
	for _, f := range resp.GetFriends() {
		ids = append(ids, im.UserID(f.GetFriendId()))
	}
	who, err := c.people(ids)
	if err != nil {
		return nil, err
	}
	out := make([]wire.FriendBody, 0, len(ids))
	for _, f := range resp.GetFriends() {
		out = append(out, c.friendBody(f, who))
	}
	return out, nil
}

func listFriends(c *call) (any, error) { return c.friends() }

func getFriend(c *call) (any, error) {
	id, err := c.id()
	if err != nil {
		return nil, err
	}
	resp, err := c.Friend.GetFriend(c.ctx(), &friendv1.GetFriendRequest{UserId: int64(c.me), FriendId: id})
	if err != nil || resp.GetFriend() == nil {
		return nil, err
	}
	who, err := c.people([]im.UserID{im.UserID(id)})
	if err != nil {
		return nil, err
	}
	return c.friendBody(resp.GetFriend(), who), nil
}

func deleteFriend(c *call) (any, error) {
	id, err := c.id()
	if err != nil {
		return nil, err
	}
	_, err = c.Friend.DeleteFriend(c.ctx(), &friendv1.DeleteFriendRequest{UserId: int64(c.me), FriendId: id})
	return nil, err
}

func friendStatus(c *call) (any, error) {
	id, err := c.id()
	if err != nil {
		return nil, err
	}
	resp, err := c.Conversations.Presence(c.ctx(), &logicv1.PresenceRequest{UserIds: []int64{id}, ViewerId: int64(c.me)})
	if err != nil {
		return nil, err
	}
	out := wire.StatusBody{Status: wire.CodeOffline, ID: im.UserID(id)}
	for _, u := range resp.GetUsers() {
		if u.GetUserId() == id && u.GetOnline() {
			out.Status, out.Online = wire.CodeOnline, true
		}
	}
	return out, nil
}

// userQuery finds people one could befriend: not oneself, no friends, no bots.
func userQuery(c *call) (any, error) {
	in, err := c.query()
	if err != nil {
		return nil, err
	}
	text := strings.TrimSpace(in.text("email"))
	if err := in.err(); err != nil {
		return nil, err
	}
	friends, err := c.Friend.ListFriends(c.ctx(), &friendv1.ListFriendsRequest{UserId: int64(c.me)})
	if err != nil {
		return nil, err
	}
	exclude := []int64{int64(c.me)}
	excluded := map[int64]bool{int64(c.me): true}
	for _, f := range friends.GetFriends() {
		exclude = append(exclude, f.GetFriendId())
		excluded[f.GetFriendId()] = true
	}
	resp, err := c.Auth.SearchUsers(c.ctx(), &authv1.SearchUsersRequest{Query: text, ExcludeIds: exclude, Limit: searchLimit})
	if err != nil {
		return nil, err
	}
	out := make([]wire.FoundBody, 0, len(resp.GetUsers()))
	for _, u := range resp.GetUsers() {
		if u.GetBot() || excluded[u.GetId()] || len(out) == searchLimit {
			continue
		}
		id := im.UserID(u.GetId())
		out = append(out, wire.FoundBody{
			ID: id, Name: u.GetName(), Email: u.GetEmail(), Avatar: c.avatar(u.GetAvatar(), id), Bio: u.GetBio(), Sex: u.GetSex(),
		}) // strangers are shown offline: who is here is told to friends only
	}
	return out, nil
}
