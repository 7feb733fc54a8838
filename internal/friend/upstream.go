package friend

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"

	logicv1 "im-services/api/proto/logic/v1"
	pushv1 "im-services/api/proto/push/v1"
	"im-services/internal/im"
)

// LogicClient is what this service asks of logic; logicv1's
// ConversationServiceClient satisfies it. All calls may be repeated: SetPrivate
// applies only versions newer than the last, an unused id block is lost without
// harm, and Notify is best effort. Safe for concurrent use.
type LogicClient interface {
	SetPrivate(ctx context.Context, in *logicv1.SetPrivateRequest, opts ...grpc.CallOption) (*logicv1.SetPrivateResponse, error)
	AllocateIDs(ctx context.Context, in *logicv1.AllocateIDsRequest, opts ...grpc.CallOption) (*logicv1.AllocateIDsResponse, error)
	Notify(ctx context.Context, in *logicv1.NotifyRequest, opts ...grpc.CallOption) (*logicv1.NotifyResponse, error)
}

// upstream speaks to logic in this package's words and bounds every call.
type upstream struct {
	client        LogicClient
	timeout       time.Duration
	notifyTimeout time.Duration
}

// apply tells logic the relation's state; when it returns nil, sends that begin
// later obey this version or a newer one.
func (u *upstream) apply(ctx context.Context, rel relation) error {
	ctx, cancel := context.WithTimeout(ctx, u.timeout)
	defer cancel()
	in := &logicv1.SetPrivateRequest{UserA: int64(rel.lo), UserB: int64(rel.hi), Open: rel.open, Version: rel.version}
	if rel.open {
		// The requester's session takes the id of his request: clients use it as
		// the session's id as soon as they hear of the acceptance.
		in.UserA, in.UserB = int64(rel.requester), int64(rel.other(rel.requester))
		in.SessionIdA = rel.requestID
		in.WithSessions = true
	}
	_, err := u.client.SetPrivate(ctx, in)
	return err
}

func (u *upstream) allocate(ctx context.Context, count int) (first int64, got int, err error) {
	ctx, cancel := context.WithTimeout(ctx, u.timeout)
	defer cancel()
	out, err := u.client.AllocateIDs(ctx, &logicv1.AllocateIDsRequest{Count: int32(count)}) //nolint:gosec // Config bounds it
	if err != nil {
		return 0, 0, err
	}
	if out.GetFirst() <= 0 || out.GetCount() <= 0 || out.GetFirst()+int64(out.GetCount()) > im.MaxID {
		return 0, 0, errors.New("friend: logic gave an impossible id block")
	}
	return out.GetFirst(), int(out.GetCount()), nil
}

// notify sends the friend frame for req to user; by is shown as the one who acted.
func (u *upstream) notify(ctx context.Context, user im.UserID, req request, by *pushv1.Profile) error {
	ctx, cancel := context.WithTimeout(ctx, u.notifyTimeout)
	defer cancel()
	_, err := u.client.Notify(ctx, &logicv1.NotifyRequest{Event: &pushv1.Event{
		UserIds: []int64{int64(user)},
		Body: &pushv1.Event_Friend{Friend: &pushv1.FriendEvent{
			RecordId:    req.ID,
			RequesterId: int64(req.Requester),
			AnswererId:  int64(req.Recipient),
			Status:      int32(req.Status),
			Information: req.Information,
			CreatedAtMs: req.CreatedAt.UnixMilli(),
			Profile:     by,
		}},
	}})
	return err
}
