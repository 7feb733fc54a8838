package logic

import (
	"context"
	"crypto/rand"
	"crypto/sha256"

	"github.com/jmoiron/sqlx"

	logicv1 "im-services/api/proto/logic/v1"
	"im-services/internal/im"
)

// maxInvites bounds the living invites of one member to one group.
const maxInvites = 50

// CreateInvite implements logicv1.GroupServiceServer. Members only. The token
// is in the answer and nowhere else: only its hash is stored.
func (s *Server) CreateInvite(ctx context.Context, req *logicv1.CreateInviteRequest) (*logicv1.CreateInviteResponse, error) {
	user, group := im.UserID(req.GetUserId()), req.GetGroupId()
	if err := s.store.requireMember(ctx, user, group); err != nil {
		return nil, err
	}
	info, err := s.store.groupInfo(ctx, im.ConversationID(group))
	if err != nil {
		return nil, err
	}
	token := rand.Text() // at least 128 bits
	now := s.store.clock.now()
	resp := &logicv1.CreateInviteResponse{
		Token: token, CreatedAtMs: now.UnixMilli(), ExpiresAtMs: now.Add(s.cfg.InviteTTL).UnixMilli(), Group: info,
	}
	err = s.store.inTx(ctx, func(tx *sqlx.Tx) error {
		// The user's old ones make room: those that expired, and the oldest beyond the bound.
		var ids []int64
		if err := tx.SelectContext(ctx, &ids, `SELECT id FROM invites WHERE group_id = ? AND user_id = ? ORDER BY expires_at_ms < ?, id DESC`,
			group, int64(user), now.UnixMilli()); err != nil {
			return err
		}
		if len(ids) >= maxInvites {
			if _, err := tx.ExecContext(ctx, `DELETE FROM invites WHERE id IN (`+placeholders(len(ids)-maxInvites+1)+`)`, anys(ids[maxInvites-1:])...); err != nil {
				return err
			}
		}
		if resp.Id, err = s.store.objectIDs.take(ctx, 1, 0); err != nil {
			return err
		}
		hash := sha256.Sum256([]byte(token))
		_, err := tx.ExecContext(ctx, `INSERT INTO invites (id, token_hash, group_id, user_id, created_at_ms, expires_at_ms) VALUES (?,?,?,?,?,?)`,
			resp.GetId(), hash[:], group, int64(user), resp.GetCreatedAtMs(), resp.GetExpiresAtMs())
		return err
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// checkInvite fails unless the token opens this group: made for it, not
// expired, and by somebody who still is a member.
func (c *groupChange) checkInvite(ctx context.Context, token string) error {
	hash := sha256.Sum256([]byte(token))
	var inviter im.UserID
	err := c.tx.GetContext(ctx, &inviter, `SELECT user_id FROM invites WHERE token_hash = ? AND group_id = ? AND expires_at_ms > ?`,
		hash[:], int64(c.conv.ID), c.nowMS)
	if noRows(err) || err == nil && c.role(inviter) == 0 {
		return im.E(im.KindForbidden, "invite_invalid", nil)
	}
	return err
}
