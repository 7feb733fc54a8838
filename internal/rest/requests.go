package rest

import (
	"strings"
	"unicode/utf8"

	friendv1 "im-services/api/proto/friend/v1"
	"im-services/internal/im"
	"im-services/internal/wire"
)

// maxInformation is the longest introduction of a friend request, in characters.
const maxInformation = 255

func (c *call) recordBody(r *friendv1.FriendRequest, who people) wire.RecordBody {
	from := im.UserID(r.GetRequesterId())
	return wire.RecordBody{
		ID: r.GetId(), Requester: from, Recipient: im.UserID(r.GetRecipientId()), Status: r.GetStatus(),
		CreatedAt: c.time(r.GetCreatedAtMs()), Information: r.GetInformation(), Users: who.profile(from),
	}
}

func listRequests(c *call) (any, error) {
	resp, err := c.Friend.ListRequests(c.ctx(), &friendv1.ListRequestsRequest{UserId: int64(c.me)})
	if err != nil {
		return nil, err
	}
	ids := make([]im.UserID, 0, len(resp.GetRequests()))
	for _, r := range resp.GetRequests() {
		ids = append(ids, im.UserID(r.GetRequesterId()))
	}
	who, err := c.cards(ids)
	if err != nil {
		return nil, err
	}
	out := make([]wire.RecordBody, 0, len(ids))
	for _, r := range resp.GetRequests() {
		out = append(out, c.recordBody(r, who))
	}
	return out, nil
}

func requestFriend(c *call) (any, error) {
	in, err := c.form()
	if err != nil {
		return nil, err
	}
	to := in.id("to_id")
	information := in.textOr("information", "information_invalid")
	if strings.TrimSpace(information) == "" || utf8.RuneCountInString(information) > maxInformation {
		in.refuse("information_invalid")
	}
	if err := in.err(); err != nil {
		return nil, err
	}
	if err := c.exists(im.UserID(to)); err != nil {
		return nil, err
	}
	resp, err := c.Friend.RequestFriend(c.ctx(), &friendv1.RequestFriendRequest{
		Requester: c.sender(), ToUserId: to, Information: information,
	})
	if err != nil {
		return nil, err
	}
	out := c.recordBody(resp.GetRequest(), people{api: c.api})
	me := c.sender()
	out.Users = wire.ProfileBody{ID: c.me, Name: me.GetName(), Avatar: me.GetAvatar()}
	return out, nil
}

func answerRequest(c *call) (any, error) {
	in, err := c.form()
	if err != nil {
		return nil, err
	}
	id := in.id("id")
	status := in.number("status", 0, 1, 2, "request_status_invalid")
	if status == 0 {
		in.refuse("request_status_invalid")
	}
	if err := in.err(); err != nil {
		return nil, err
	}
	resp, err := c.Friend.AnswerRequest(c.ctx(), &friendv1.AnswerRequestRequest{
		Answerer: c.sender(), RequestId: id, Accept: status == 1,
	})
	if err != nil {
		return nil, err
	}
	if status != 1 {
		return wire.FriendBody{Status: int(status)}, nil
	}
	who, err := c.people([]im.UserID{im.UserID(resp.GetFriend().GetFriendId())})
	if err != nil { // the friendship stands all the same
		c.Log.Warn("a new friend's profile cannot be had", "err", err)
	}
	return c.friendBody(resp.GetFriend(), who), nil
}
