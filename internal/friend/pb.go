package friend

import (
	friendv1 "im-services/api/proto/friend/v1"
)

func pbRequest(r request) *friendv1.FriendRequest {
	return &friendv1.FriendRequest{
		Id:          r.ID,
		RequesterId: int64(r.Requester),
		RecipientId: int64(r.Recipient),
		Status:      int32(r.Status), //nolint:gosec // 0, 1 or 2
		Information: r.Information,
		CreatedAtMs: r.CreatedAt.UnixMilli(),
	}
}

func pbFriend(f friendship) *friendv1.Friend {
	out := &friendv1.Friend{
		Id:          f.ID,
		UserId:      int64(f.User),
		FriendId:    int64(f.Friend),
		Note:        f.Note,
		Pinned:      f.Pinned,
		CreatedAtMs: f.CreatedAt.UnixMilli(),
		UpdatedAtMs: f.UpdatedAt.UnixMilli(),
	}
	if f.PinnedAt.Valid {
		out.PinnedAtMs = f.PinnedAt.Time.UnixMilli()
	}
	return out
}
