package logic

import (
	"context"

	"im-services/internal/im"
	"im-services/internal/platform/database"
)

// Who writes the next message of a conversation has mostly written the last one,
// and then knows what the row says without reading it. storeForeseen stores a
// batch on the strength of that in a single round trip, in which the database
// itself decides, under the row locks, whether the knowledge is still true:
//
// every change of who may write raises members_rev or relation_version, and every
// message last_seq, and where one of them is not the known one a NULL stops the
// transaction (moveConversations). So nobody is let in by an old permission, and
// no seq is given twice or left out.
//
// A batch that is stopped, or loses a deadlock, has changed nothing and is stored the
// long way. So is
// one in which anybody would be refused, for a refusal must be true, too, or in which
// somebody may be allowed what he was refused just before.

// storeForeseen returns nil and no error if the batch must be stored the long way.
func (s *store) storeForeseen(ctx context.Context, batch []*sendReq, ids []im.ConversationID, checkDup bool) (*batchPlan, error) {
	var plan *batchPlan
	if !checkDup {
		plan = s.foresee(batch, ids)
	}
	if plan == nil {
		s.metrics.locked.Inc()
		return nil, nil //nolint:nilnil // see above
	}
	err := s.batches.Once(ctx, func(tx *database.Batch) error { return s.write(ctx, tx, plan) })
	if database.IsNullRefused(err) || database.IsRetryable(err) && !database.IsCommitUnknown(err) {
		s.metrics.unforeseen.Inc()
		return nil, nil //nolint:nilnil // see above
	}
	return plan, err
}

// foresee plans a batch from what is remembered; nil if that is not enough.
func (s *store) foresee(batch []*sendReq, ids []im.ConversationID) *batchPlan {
	plan := &batchPlan{
		batch: batch, ids: ids, outcomes: make([]outcome, len(batch)), server: s.life.Load().Server,
		convs: make(map[im.ConversationID]*lockedConversation, len(ids)),
	}
	for _, id := range ids {
		if plan.convs[id] != nil {
			continue
		}
		row, ok := s.foreseen.Get(id)
		if !ok {
			return nil
		}
		c := &lockedConversation{conversationRow: row}
		if row.Kind == im.Group {
			list, ok := s.memberCache.Get(id)
			if !ok || list.rev != row.MembersRev {
				return nil
			}
			c.members = list
		}
		plan.convs[id] = c
	}
	s.authorise(plan)
	if plan.refusedLately || plan.anyRefused() || plan.anyMoved() {
		return nil
	}
	return plan
}

// remember keeps what a committed batch knows of its conversations.
func (s *store) remember(p *batchPlan) {
	if p.server != s.life.Load().Server {
		return // of another life
	}
	for id, c := range p.convs {
		s.foreseen.Add(id, c.conversationRow)
	}
}

// forget drops what is remembered of conversations after a failure.
func (s *store) forget(ids []im.ConversationID) {
	for _, id := range ids {
		s.foreseen.Remove(id)
	}
}
