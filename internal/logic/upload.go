package logic

import (
	"context"
	"fmt"

	logicv1 "im-services/api/proto/logic/v1"
	"im-services/internal/im"
)

// fileBytes is what a file counts beside its size, about what it takes in a
// directory: without it, empty files would fill a disk.
const fileBytes = 8 << 10

// UploadUsage implements logicv1.ConversationServiceServer.
func (s *Server) UploadUsage(ctx context.Context, req *logicv1.UploadUsageRequest) (*logicv1.UploadUsageResponse, error) {
	n, err := s.store.uploaded(ctx, im.UserID(req.GetUserId()), "")
	if err != nil {
		return nil, failed(err)
	}
	return &logicv1.UploadUsageResponse{Bytes: n}, nil
}

// uploaded returns what the user's files take but the one under a key.
func (s *store) uploaded(ctx context.Context, user im.UserID, but string) (int64, error) {
	var n int64
	err := s.db.GetContext(ctx, &n, `SELECT CAST(COALESCE(SUM(size + ?), 0) AS SIGNED) FROM uploads WHERE user_id = ? AND object_key <> ?`,
		fileBytes, int64(user), but)
	if err != nil {
		return 0, fmt.Errorf("sum up uploads: %w", err)
	}
	return n, nil
}
