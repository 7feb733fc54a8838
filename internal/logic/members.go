package logic

import (
	"context"
	"fmt"

	"github.com/jmoiron/sqlx"

	"im-services/internal/im"
	"im-services/internal/seeded"
)

// Roles of a member, as stored; the values of logic.v1.Role.
const (
	roleMember = 1
	roleAdmin  = 2
	roleOwner  = 3
)

// memberInfo is what sending needs to know of a member.
type memberInfo struct {
	role         int32
	mutedUntilMS int64
}

// memberList is the membership of a group at one members_rev. It is shared and
// never changed once made.
type memberList struct {
	rev    int64
	lastID int64 // of the member who joined last
	users  []im.UserID
	byUser map[im.UserID]memberInfo
}

// loadMembers gives every locked group its member list. A cached list is used
// only if its rev is the one read under the lock, so it cannot be stale.
func (s *store) loadMembers(ctx context.Context, q sqlx.QueryerContext, p *batchPlan) error {
	for _, c := range p.convs {
		if c.Kind != im.Group {
			continue
		}
		list, err := s.membersAt(ctx, q, c.ID, c.MembersRev)
		if err != nil {
			return err
		}
		c.members = list
	}
	return nil
}

// membersAt returns the members of a group whose row, locked by the caller,
// says rev.
func (s *store) membersAt(ctx context.Context, q sqlx.QueryerContext, id im.ConversationID, rev int64) (*memberList, error) {
	if list, ok := s.memberCache.Get(id); ok && (list.rev == rev || seeded.On(seeded.StaleMembers)) {
		return list, nil
	}
	var rows []struct {
		ID           int64     `db:"id"`
		UserID       im.UserID `db:"user_id"`
		Role         int32     `db:"role"`
		MutedUntilMS int64     `db:"muted_until_ms"`
	}
	err := sqlx.SelectContext(ctx, q, &rows,
		`SELECT id, user_id, role, muted_until_ms FROM members WHERE conversation_id = ? AND end_seq = 0 ORDER BY id`, int64(id))
	if err != nil {
		return nil, fmt.Errorf("read members: %w", err)
	}
	list := &memberList{rev: rev, users: make([]im.UserID, len(rows)), byUser: make(map[im.UserID]memberInfo, len(rows))}
	for i, r := range rows {
		list.users[i], list.lastID = r.UserID, r.ID
		list.byUser[r.UserID] = memberInfo{role: r.Role, mutedUntilMS: r.MutedUntilMS}
	}
	s.memberCache.Add(id, list)
	return list, nil
}
