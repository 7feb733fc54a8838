package logic

import (
	"context"
	"time"

	"github.com/jmoiron/sqlx"

	logicv1 "im-services/api/proto/logic/v1"
	"im-services/internal/im"
	"im-services/internal/platform/database"
)

// SetPrivate implements logicv1.ConversationServiceServer. The conversation's
// row lock orders it with sends: those that begin after it returned obey it.
func (s *Server) SetPrivate(ctx context.Context, req *logicv1.SetPrivateRequest) (*logicv1.SetPrivateResponse, error) {
	a, b := im.UserID(req.GetUserA()), im.UserID(req.GetUserB())
	if !a.Valid() || !b.Valid() || a == b {
		return nil, im.E(im.KindInvalid, "to_id_invalid", nil)
	}
	lo, hi := pairOf(a, b)
	resp := &logicv1.SetPrivateResponse{}
	run := func() error {
		return database.InTx(ctx, s.store.db, func(tx *sqlx.Tx) error {
			id, err := s.store.ensurePair(ctx, tx, convKey{lo, int64(hi)}, false)
			if err != nil {
				return err
			}
			resp.ConversationId = int64(id)
			if _, err := tx.ExecContext(ctx, `UPDATE conversations SET open = ?, relation_version = ? WHERE id = ? AND relation_version < ?`,
				req.GetOpen(), req.GetVersion(), int64(id), req.GetVersion()); err != nil {
				return err
			}
			if !req.GetOpen() || !req.GetWithSessions() {
				return nil
			}
			if resp.SessionIdA, err = s.ensureSession(ctx, tx, a, im.Private, int64(b), req.GetSessionIdA()); err != nil {
				return err
			}
			resp.SessionIdB, err = s.ensureSession(ctx, tx, b, im.Private, int64(a), 0)
			return err
		})
	}
	err := run()
	if database.IsDuplicate(err) {
		err = run()
	}
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// ensureSession returns the owner's session with a user or group, made with the
// wanted id (0: any) if there is none, and visible again if it was hidden.
func (s *Server) ensureSession(ctx context.Context, tx *sqlx.Tx, owner im.UserID, kind im.ChannelKind, target, wanted int64) (int64, error) {
	if wanted == 0 {
		var err error
		if wanted, err = s.store.objectIDs.take(ctx, 1, 0); err != nil {
			return 0, err
		}
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO sessions (id, owner_id, kind, target_id, created_at_ms) VALUES (?,?,?,?,?)
		ON DUPLICATE KEY UPDATE hidden = 0`, wanted, int64(owner), int64(kind), target, time.Now().UnixMilli()); err != nil {
		return 0, err
	}
	var id int64
	err := tx.GetContext(ctx, &id, `SELECT id FROM sessions WHERE owner_id = ? AND kind = ? AND target_id = ?`, int64(owner), int64(kind), target)
	return id, err
}

// AllocateIDs implements logicv1.ConversationServiceServer.
func (s *Server) AllocateIDs(ctx context.Context, req *logicv1.AllocateIDsRequest) (*logicv1.AllocateIDsResponse, error) {
	n := min(max(req.GetCount(), 1), idBlock)
	first, err := s.store.objectIDs.take(ctx, int(n), 0)
	if err != nil {
		return nil, err
	}
	return &logicv1.AllocateIDsResponse{First: first, Count: n}, nil
}

// Notify implements logicv1.ConversationServiceServer.
func (s *Server) Notify(ctx context.Context, req *logicv1.NotifyRequest) (*logicv1.NotifyResponse, error) {
	n, err := s.pub.event(ctx, req.GetEvent())
	if err != nil {
		return nil, im.E(im.KindUnavailable, "routes_unavailable", err)
	}
	return &logicv1.NotifyResponse{Connections: int32(n)}, nil //nolint:gosec // small
}
