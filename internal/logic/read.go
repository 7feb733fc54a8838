package logic

import (
	"context"

	logicv1 "im-services/api/proto/logic/v1"
	"im-services/internal/im"
)

// MarkRead implements logicv1.MessageServiceServer. The cursor never moves back,
// and never past what the user may see.
func (s *Server) MarkRead(ctx context.Context, req *logicv1.MarkReadRequest) (*logicv1.MarkReadResponse, error) {
	user := im.UserID(req.GetUserId())
	kind, err := kindAndTarget(user, req.GetKind(), req.GetToId())
	if err != nil {
		return nil, err
	}
	if req.GetSeq() < 0 {
		return nil, im.E(im.KindInvalid, "seq_invalid", nil)
	}
	place, err := s.store.placeOf(ctx, user, kind, req.GetToId())
	if err != nil {
		return nil, failed(err)
	}
	if kind == im.Group && (place == nil || !place.in()) {
		return nil, im.E(im.KindForbidden, "not_a_member", nil)
	}
	if place == nil {
		return &logicv1.MarkReadResponse{}, nil
	}
	seq := place.last()
	if req.GetSeq() > 0 {
		seq = min(seq, im.Seq(req.GetSeq()))
	}
	if seq > place.ReadSeq {
		if _, err := s.store.db.ExecContext(ctx, `UPDATE members SET read_seq = GREATEST(read_seq, ?) WHERE conversation_id = ? AND user_id = ?`,
			int64(seq), int64(place.ID), int64(user)); err != nil {
			return nil, failed(err)
		}
		place.ReadSeq = seq
	}
	unread, err := s.store.unread(ctx, user, []membership{*place})
	if err != nil {
		return nil, failed(err)
	}
	return &logicv1.MarkReadResponse{ReadSeq: int64(place.read()), Unread: unread[place.ID]}, nil
}
