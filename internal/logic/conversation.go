package logic

import (
	"context"
	"crypto/sha256"
	"unicode/utf8"

	"github.com/jmoiron/sqlx"

	logicv1 "im-services/api/proto/logic/v1"
	pushv1 "im-services/api/proto/push/v1"
	"im-services/internal/failpoint"
	"im-services/internal/im"
)

// SetPrivate implements logicv1.ConversationServiceServer. The conversation's
// row lock orders it with sends: those that begin after it returned obey it.
func (s *Server) SetPrivate(ctx context.Context, req *logicv1.SetPrivateRequest) (*logicv1.SetPrivateResponse, error) {
	a, b := im.UserID(req.GetUserA()), im.UserID(req.GetUserB())
	if !a.Valid() || !b.Valid() || a == b {
		return nil, im.E(im.KindInvalid, "to_id_invalid", nil)
	}
	lo, hi := pairOf(a, b)
	var resp *logicv1.SetPrivateResponse
	err := s.store.inTx(ctx, func(tx *sqlx.Tx) error {
		resp = &logicv1.SetPrivateResponse{}
		id, err := s.store.ensurePair(ctx, tx, convKey{lo, int64(hi)}, false)
		if err != nil {
			return err
		}
		resp.ConversationId = int64(id)
		convs, err := lockConversations(ctx, tx, []im.ConversationID{id})
		if err != nil {
			return err
		}
		if err := failpoint.Hit("logic.private_locked"); err != nil {
			return err
		}
		open, version := convs[id].Open, convs[id].RelationVersion
		if req.GetVersion() > version {
			open = req.GetOpen()
			if _, err := tx.ExecContext(ctx, `UPDATE conversations SET open = ?, relation_version = ? WHERE id = ?`,
				open, req.GetVersion(), int64(id)); err != nil {
				return err
			}
		}
		if !open || !req.GetOpen() || !req.GetWithSessions() {
			return nil // also when a newer change closed it: nothing is left to be made
		}
		if resp.SessionIdA, err = s.store.ensureSession(ctx, tx, a, im.Private, int64(b), req.GetSessionIdA()); err != nil {
			return err
		}
		resp.SessionIdB, err = s.store.ensureSession(ctx, tx, b, im.Private, int64(a), 0)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := failpoint.Hit("logic.private_set"); err != nil {
		return nil, im.E(im.KindUnknown, "outcome_unknown", err)
	}
	return resp, nil
}

// maxAllocate bounds the ids handed out by one call.
const maxAllocate = 10_000

// AllocateIDs implements logicv1.ConversationServiceServer.
func (s *Server) AllocateIDs(ctx context.Context, req *logicv1.AllocateIDsRequest) (*logicv1.AllocateIDsResponse, error) {
	n := min(max(req.GetCount(), 1), maxAllocate)
	first, err := s.store.objectIDs.take(ctx, int(n), 0)
	if err != nil {
		return nil, failed(err)
	}
	return &logicv1.AllocateIDsResponse{First: first, Count: n}, nil
}

// Notify implements logicv1.ConversationServiceServer.
func (s *Server) Notify(ctx context.Context, req *logicv1.NotifyRequest) (*logicv1.NotifyResponse, error) {
	if len(req.GetEvent().GetUserIds()) == 0 || req.GetEvent().GetBody() == nil {
		return nil, im.E(im.KindInvalid, "event_invalid", nil)
	}
	n, err := s.pub.announce(ctx, []*pushv1.Event{req.GetEvent()})
	if err != nil {
		return nil, im.E(im.KindUnavailable, "routes_unavailable", err)
	}
	return &logicv1.NotifyResponse{Connections: int32(n)}, nil //nolint:gosec // small
}

// RegisterUpload implements logicv1.ConversationServiceServer. Repeating it is
// harmless; a key that names another file is a conflict. Of uploads that end at
// the same moment all may still fit: the quota bounds a disk, and is no account.
func (s *Server) RegisterUpload(ctx context.Context, req *logicv1.RegisterUploadRequest) (*logicv1.RegisterUploadResponse, error) {
	user := im.UserID(req.GetUserId())
	switch {
	case !user.Valid(), req.GetKey() == "", len(req.GetKey()) > 255, req.GetSize() < 0, len(req.GetSha256()) != sha256.Size,
		utf8.RuneCountInString(req.GetName()) > 255, len(req.GetContentType()) > 127, !utf8.ValidString(req.GetName()):
		return nil, im.E(im.KindInvalid, "upload_invalid", nil)
	}
	if req.GetQuota() > 0 {
		used, err := s.store.uploaded(ctx, user, req.GetKey())
		if err != nil {
			return nil, failed(err)
		}
		if used+req.GetSize()+fileBytes > req.GetQuota() {
			return nil, im.E(im.KindConflict, "upload_quota_reached", nil)
		}
	}
	res, err := s.store.db.ExecContext(ctx, `INSERT IGNORE INTO uploads (object_key, user_id, name, content_type, size, sha256, created_at_ms) VALUES (?,?,?,?,?,?,?)`,
		req.GetKey(), int64(user), req.GetName(), req.GetContentType(), req.GetSize(), req.GetSha256(), s.store.nowMS())
	if err != nil {
		return nil, failed(err)
	}
	if n, err := res.RowsAffected(); err == nil && n == 0 {
		var same bool
		if err := s.store.db.GetContext(ctx, &same, `SELECT user_id = ? AND size = ? AND sha256 = ? FROM uploads WHERE object_key = ?`,
			int64(user), req.GetSize(), req.GetSha256(), req.GetKey()); err != nil {
			return nil, failed(err)
		}
		if !same {
			return nil, im.E(im.KindConflict, "upload_conflict", nil)
		}
	}
	return &logicv1.RegisterUploadResponse{}, nil
}

// Presence implements logicv1.ConversationServiceServer. For a viewer, whoever
// is neither his friend nor himself is away, indistinguishably.
func (s *Server) Presence(ctx context.Context, req *logicv1.PresenceRequest) (*logicv1.PresenceResponse, error) {
	if len(req.GetUserIds()) > maxPresenceUsers {
		return nil, im.E(im.KindInvalid, "too_many_users", nil)
	}
	asked := make([]im.UserID, 0, len(req.GetUserIds()))
	for _, id := range req.GetUserIds() {
		if u := im.UserID(id); u.Valid() {
			asked = append(asked, u)
		}
	}
	if viewer := im.UserID(req.GetViewerId()); viewer != 0 {
		friends, err := s.store.openWith(ctx, s.store.db, viewer, asked)
		if err != nil {
			return nil, failed(err)
		}
		visible := asked[:0:0]
		for _, u := range asked {
			if friends[u] || u == viewer {
				visible = append(visible, u)
			}
		}
		asked = visible
	}
	status, err := s.presence.status(ctx, asked)
	if err != nil {
		return nil, im.E(im.KindUnavailable, "routes_unavailable", err)
	}
	resp := &logicv1.PresenceResponse{Users: make([]*logicv1.UserPresence, 0, len(req.GetUserIds()))}
	for _, id := range req.GetUserIds() {
		st := status[im.UserID(id)]
		resp.Users = append(resp.Users, &logicv1.UserPresence{UserId: id, Online: st.online, Version: st.version})
	}
	return resp, nil
}

// maxPresenceUsers bounds one question.
const maxPresenceUsers = 5000
