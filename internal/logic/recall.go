package logic

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/jmoiron/sqlx"

	logicv1 "im-services/api/proto/logic/v1"
	pushv1 "im-services/api/proto/push/v1"
	"im-services/internal/im"
)

// Recall implements logicv1.MessageServiceServer. The row keeps its place and
// its key; text and data go. Whoever asks for what is not his to take back
// learns nothing about it: every refusal is the same.
func (s *Server) Recall(ctx context.Context, req *logicv1.RecallRequest) (*logicv1.RecallResponse, error) {
	user := im.UserID(req.GetUserId())
	if !user.Valid() {
		return nil, im.E(im.KindUnauthorized, "sender_missing", nil)
	}
	where, args, err := s.recallTarget(ctx, user, req)
	if err != nil {
		return nil, err
	}
	var (
		m     messageRow
		place membership
	)
	err = s.store.inTx(ctx, func(tx *sqlx.Tx) error {
		err := tx.GetContext(ctx, &m, `SELECT `+messageColumns+` FROM messages WHERE `+where+` FOR UPDATE`, args...)
		if errors.Is(err, sql.ErrNoRows) {
			return im.E(im.KindNotFound, "recall_refused", nil)
		}
		if err != nil {
			return err
		}
		places, err := s.store.memberships(ctx, tx, user, m.ConversationID)
		if err != nil {
			return err
		}
		if len(places) == 0 || !places[0].in() || m.SenderID != user || m.ClientMsgID < 0 ||
			req.GetToId() != 0 && req.GetToId() != places[0].target(user) ||
			s.store.nowMS()-m.SentAtMS > s.cfg.RecallWindow.Milliseconds() {
			return im.E(im.KindNotFound, "recall_refused", nil)
		}
		place = places[0]
		if m.Status == statusRecalled {
			return nil
		}
		_, err = tx.ExecContext(ctx, `UPDATE messages SET status = ?, text = '', data_json = '' WHERE conversation_id = ? AND seq = ?`,
			statusRecalled, int64(m.ConversationID), int64(m.Seq))
		return err
	})
	if err != nil {
		return nil, err
	}
	recall := &pushv1.RecallEvent{
		MessageId: int64(m.ID), ClientMsgId: int64(m.ClientMsgID), SenderId: int64(user), ToId: place.target(user), Kind: int32(place.Kind),
	}
	s.tellRecall(ctx, &m, &place, recall)
	return &logicv1.RecallResponse{Recall: recall}, nil
}

// recallTarget returns the condition that finds the named message.
func (s *Server) recallTarget(ctx context.Context, user im.UserID, req *logicv1.RecallRequest) (string, []any, error) {
	if req.GetMessageId() > 0 {
		return `id = ?`, []any{req.GetMessageId()}, nil
	}
	kind, err := kindAndTarget(user, req.GetKind(), req.GetToId())
	if err != nil {
		return "", nil, err
	}
	if req.GetClientMsgId() <= 0 {
		return "", nil, im.E(im.KindInvalid, "client_msg_id_invalid", nil)
	}
	place, err := s.store.placeOf(ctx, user, kind, req.GetToId())
	if err != nil {
		return "", nil, failed(err)
	}
	if place == nil {
		return "", nil, im.E(im.KindNotFound, "recall_refused", nil)
	}
	return `conversation_id = ? AND sender_id = ? AND client_msg_id = ?`, []any{int64(place.ID), int64(user), req.GetClientMsgId()}, nil
}

// recallTell is how long telling of a recall may take, also when its caller has gone.
const recallTell = 2 * time.Second

// tellRecall pushes the recall to everybody who may have the message, the
// sender's other devices included. Who is not reached finds it in history only, so
// a repeated recall, which is not refused, tells everybody again.
func (s *Server) tellRecall(ctx context.Context, m *messageRow, place *membership, recall *pushv1.RecallEvent) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recallTell)
	defer cancel()
	var users []int64
	windows, err := s.store.memberWindows(ctx, m.ConversationID)
	for _, w := range windows {
		if w.EndSeq == 0 && w.sees(m.Seq) {
			users = append(users, int64(w.UserID))
		}
	}
	if err == nil {
		_, err = s.pub.announce(ctx, []*pushv1.Event{{UserIds: users, Body: &pushv1.Event_Recall{Recall: recall}}})
	}
	if err != nil {
		s.log.WarnContext(ctx, "recall not pushed", "kind", place.Kind, "err", err)
	}
}
