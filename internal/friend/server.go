package friend

import (
	"context"
	"log/slog"

	"github.com/jmoiron/sqlx"
	"github.com/prometheus/client_golang/prometheus"

	friendv1 "im-services/api/proto/friend/v1"
	"im-services/internal/im"
)

// maxFilter bounds one FilterFriends call.
const maxFilter = 5000

// Server implements friend.v1.FriendService. It trusts that the user who acts
// is who the caller says and that users it names exist; it checks that they may.
// Safe for concurrent use. Errors are *im.Error.
type Server struct {
	friendv1.UnsafeFriendServiceServer

	cfg     Config
	store   store
	logic   *upstream
	ids     *idBlocks
	log     *slog.Logger
	metrics metrics
}

var _ friendv1.FriendServiceServer = (*Server)(nil)

// New makes a Server over a database with this package's migrations applied.
// Run must be running for changes to survive logic being away.
func New(cfg Config, db *sqlx.DB, logic LogicClient, log *slog.Logger, reg prometheus.Registerer) *Server {
	cfg = cfg.withDefaults()
	up := &upstream{client: logic, timeout: cfg.LogicTimeout, notifyTimeout: cfg.NotifyTimeout}
	return &Server{
		cfg:     cfg,
		store:   store{db: db},
		logic:   up,
		ids:     newIDBlocks(cfg.IDBlock, up.allocate),
		log:     log,
		metrics: newMetrics(reg),
	}
}

// RequestFriend asks a user to be friends and tells him.
func (s *Server) RequestFriend(ctx context.Context, in *friendv1.RequestFriendRequest) (*friendv1.RequestFriendResponse, error) {
	req, err := s.ask(ctx, in.GetRequester(), im.UserID(in.GetToUserId()), in.GetInformation())
	if err != nil {
		return nil, err
	}
	return &friendv1.RequestFriendResponse{Request: pbRequest(req)}, nil
}

// AnswerRequest accepts or refuses a request. After reason friend_change_pending
// or an unknown outcome the same answer may be given again.
func (s *Server) AnswerRequest(ctx context.Context, in *friendv1.AnswerRequestRequest) (*friendv1.AnswerRequestResponse, error) {
	req, mine, err := s.answer(ctx, in.GetAnswerer(), in.GetRequestId(), in.GetAccept())
	if err != nil {
		return nil, err
	}
	out := &friendv1.AnswerRequestResponse{Request: pbRequest(req)}
	if in.GetAccept() {
		out.Friend = pbFriend(mine)
	}
	return out, nil
}

// ListRequests returns the newest requests the user made or got.
func (s *Server) ListRequests(ctx context.Context, in *friendv1.ListRequestsRequest) (*friendv1.ListRequestsResponse, error) {
	reqs, err := s.store.listRequests(ctx, im.UserID(in.GetUserId()), s.cfg.ListLimit)
	if err != nil {
		return nil, err
	}
	out := &friendv1.ListRequestsResponse{Requests: make([]*friendv1.FriendRequest, len(reqs))}
	for i, r := range reqs {
		out.Requests[i] = pbRequest(r)
	}
	return out, nil
}

// ListFriends returns the user's friends, pinned first.
func (s *Server) ListFriends(ctx context.Context, in *friendv1.ListFriendsRequest) (*friendv1.ListFriendsResponse, error) {
	friends, err := s.store.friends(ctx, im.UserID(in.GetUserId()))
	if err != nil {
		return nil, err
	}
	out := &friendv1.ListFriendsResponse{Friends: make([]*friendv1.Friend, len(friends))}
	for i, f := range friends {
		out.Friends[i] = pbFriend(f)
	}
	return out, nil
}

// GetFriend returns the user's side of one friendship, nothing if there is none.
func (s *Server) GetFriend(ctx context.Context, in *friendv1.GetFriendRequest) (*friendv1.GetFriendResponse, error) {
	f, found, err := s.store.friendship(ctx, s.store.db, im.UserID(in.GetUserId()), im.UserID(in.GetFriendId()))
	if err != nil {
		return nil, storeError(err)
	}
	out := &friendv1.GetFriendResponse{}
	if found {
		out.Friend = pbFriend(f)
	}
	return out, nil
}

// DeleteFriend ends a friendship; when it succeeds no later send is accepted.
func (s *Server) DeleteFriend(ctx context.Context, in *friendv1.DeleteFriendRequest) (*friendv1.DeleteFriendResponse, error) {
	if err := s.remove(ctx, im.UserID(in.GetUserId()), im.UserID(in.GetFriendId())); err != nil {
		return nil, err
	}
	return &friendv1.DeleteFriendResponse{}, nil
}

// FilterFriends returns those of at most 5,000 users who are the user's friends,
// in no particular order.
func (s *Server) FilterFriends(ctx context.Context, in *friendv1.FilterFriendsRequest) (*friendv1.FilterFriendsResponse, error) {
	if len(in.GetUserIds()) > maxFilter {
		return nil, im.E(im.KindInvalid, "friend_too_many_users", nil)
	}
	users := make([]im.UserID, len(in.GetUserIds()))
	for i, id := range in.GetUserIds() {
		users[i] = im.UserID(id)
	}
	friends, err := s.store.filter(ctx, im.UserID(in.GetUserId()), users)
	if err != nil {
		return nil, err
	}
	out := &friendv1.FilterFriendsResponse{UserIds: make([]int64, len(friends))}
	for i, id := range friends {
		out.UserIds[i] = int64(id)
	}
	return out, nil
}
