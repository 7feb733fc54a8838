package logic

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"

	logicv1 "im-services/api/proto/logic/v1"
	pushv1 "im-services/api/proto/push/v1"
	"im-services/internal/failpoint"
	"im-services/internal/im"
	"im-services/internal/platform/database"
	"im-services/internal/seeded"
)

// committed is what a transaction stored and what is therefore to be pushed.
type committed struct {
	// outbox names the outbox rows to remove once published.
	outbox   []int64
	messages []committedMessage
	// events follow the messages, at most once.
	events []*pushv1.Event
}

// committedMessage is a stored message and who is to get it.
type committedMessage struct {
	push *pushv1.Message
	// recipients is shared with the member cache: read only.
	recipients []im.UserID
	// sender, in a private conversation: pushed to his other connections only.
	sender im.UserID
}

// retryPause is how long a lane waits before it tries a failed transaction again.
const retryPause = 50 * time.Millisecond

// commit stores a batch. It retries with the same keys while ctx lasts: a batch
// whose COMMIT was not answered is found again by its keys, never stored twice.
func (s *store) commit(ctx context.Context, batch []*sendReq) ([]outcome, *committed) {
	return s.commitAgain(ctx, batch, false, false)
}

// commitAgain is commit of what has been tried before: unknown says that an earlier
// COMMIT may have happened, checkDup that some of it may be stored.
func (s *store) commitAgain(ctx context.Context, batch []*sendReq, unknown, checkDup bool) ([]outcome, *committed) {
	for {
		outcomes, done, err := s.tryCommit(ctx, batch, checkDup)
		if err == nil {
			return outcomes, done
		}
		switch {
		case database.IsDuplicate(err):
			checkDup = true
			continue
		case database.IsCommitUnknown(err):
			unknown, checkDup = true, true
		case database.IsUnavailable(err), database.IsRetryable(err):
		case database.IsNullRefused(err): // by moveConversations: another server than the known one
			_, _ = s.look(ctx) // if that fails, so will the next try
		case ctx.Err() != nil:
		case database.IsFull(err): // there will be room when people have made some: the lane must not wait for that
			s.log.WarnContext(ctx, "no room to store messages", "messages", len(batch), "err", err)
			return failAll(batch, unknown, unavailable(err)), nil
		default:
			if len(batch) > 1 { // one message must not spoil the others
				return s.commitSingly(ctx, batch, unknown, checkDup)
			}
			s.log.ErrorContext(ctx, "commit failed", "err", err)
			return failAll(batch, unknown, im.E(im.KindInternal, "store_failed", err)), nil
		}
		select {
		case <-ctx.Done():
			s.log.WarnContext(ctx, "batch not stored in time", "messages", len(batch), "unknown", unknown, "err", err)
			return failAll(batch, unknown, unavailable(err)), nil
		case <-time.After(retryPause):
		}
	}
}

func (s *store) commitSingly(ctx context.Context, batch []*sendReq, unknown, checkDup bool) ([]outcome, *committed) {
	all := &committed{}
	outcomes := make([]outcome, 0, len(batch))
	for _, r := range batch {
		o, done := s.commitAgain(ctx, []*sendReq{r}, unknown, checkDup)
		outcomes = append(outcomes, o...)
		if done != nil {
			all.outbox = append(all.outbox, done.outbox...)
			all.messages = append(all.messages, done.messages...)
		}
	}
	if len(all.messages) == 0 {
		return outcomes, nil
	}
	return outcomes, all
}

func failAll(batch []*sendReq, unknown bool, err *im.Error) []outcome {
	if unknown {
		err = im.E(im.KindUnknown, "outcome_unknown", err)
	}
	out := make([]outcome, len(batch))
	for i := range out {
		out[i].err = err
	}
	return out
}

// tryCommit runs one transaction for the batch. With checkDup it first looks up
// which of the sends are stored already; without, a duplicate fails the INSERT.
func (s *store) tryCommit(ctx context.Context, batch []*sendReq, checkDup bool) ([]outcome, *committed, error) {
	ids, err := s.resolve(ctx, batch)
	if err != nil {
		return nil, nil, err
	}
	if err := failpoint.Hit("logic.before_tx"); err != nil {
		return nil, nil, err
	}
	plan, err := s.storeForeseen(ctx, batch, ids, checkDup)
	if plan == nil && err == nil {
		plan, err = s.storeLocked(ctx, batch, ids, checkDup)
	}
	if err != nil {
		s.forget(ids)
		return nil, nil, err
	}
	s.remember(plan)
	if err := failpoint.Hit("logic.after_commit"); err != nil {
		return nil, nil, errors.Join(database.ErrCommitUnknown, err)
	}
	done := plan.settle()
	s.metrics.stored.Add(float64(len(plan.fresh)))
	s.metrics.duplicates.Add(float64(plan.duplicates))
	return plan.outcomes, done, nil
}

// storeLocked stores a batch in two round trips: the first locks and reads its
// conversations, the second writes.
func (s *store) storeLocked(ctx context.Context, batch []*sendReq, ids []im.ConversationID, checkDup bool) (*batchPlan, error) {
	var plan *batchPlan
	err := s.batches.In(ctx, func(tx *database.Batch) error {
		var err error
		plan = &batchPlan{batch: batch, ids: ids, outcomes: make([]outcome, len(batch)), server: s.life.Load().Server}
		if plan.convs, err = lockConversations(ctx, tx, ids); err != nil {
			return err
		}
		if err := failpoint.Hit("logic.after_lock"); err != nil {
			return err
		}
		if err := s.loadMembers(ctx, tx, plan); err != nil {
			return err
		}
		s.authorise(plan)
		if plan.refusedLately {
			if err := findRefusals(ctx, tx, plan, s.nowMS()); err != nil {
				return err
			}
		}
		if checkDup || plan.anyRefused() || plan.anyMoved() {
			if err := findDuplicates(ctx, tx, plan); err != nil {
				return err
			}
			plan.noteRefusals(tx, s.nowMS())
		}
		return s.write(ctx, tx, plan)
	})
	return plan, err
}

// write numbers what is fresh and stores it with the COMMIT.
func (s *store) write(ctx context.Context, tx *database.Batch, plan *batchPlan) error {
	if err := s.number(ctx, plan); err != nil {
		return err
	}
	if len(plan.fresh) == 0 {
		return nil
	}
	if err := failpoint.Hit("logic.after_seq"); err != nil {
		return err
	}
	plan.write(tx)
	if seeded.On(seeded.AckBeforeCommit) {
		plan.ackNow()
	}
	return failpoint.Hit("logic.before_commit")
}

// batchPlan is the state of one transaction.
type batchPlan struct {
	batch    []*sendReq
	ids      []im.ConversationID // parallel to batch; 0: no such conversation
	convs    map[im.ConversationID]*lockedConversation
	outcomes []outcome
	server   int64 // that the plan is for, see life
	// refusedLately: somebody who may speak may have been refused before, see refusals.go.
	refusedLately bool
	// stored[i] is the earlier row of a duplicate; repeat[i] the index in this
	// batch whose key it repeats.
	fresh      []freshMessage
	repeats    []repeat
	duplicates int
}

// lockedConversation is a conversation under its row lock, and its members.
type lockedConversation struct {
	conversationRow
	members *memberList // groups only
	wrote   bool
	was     im.Seq // the last seq before this transaction, if it wrote
}

// freshMessage is a message that this transaction stores.
type freshMessage struct {
	index int // in the batch
	row   messageRow
	conv  *lockedConversation
}

// repeat is a send whose key an earlier send of the same batch has.
type repeat struct{ index, of int }

func (p *batchPlan) anyRefused() bool {
	return slices.ContainsFunc(p.outcomes, func(o outcome) bool { return o.err != nil })
}

// anyMoved reports whether another replica may have stored what was sent after
// something in the batch.
func (p *batchPlan) anyMoved() bool {
	return slices.ContainsFunc(p.batch, func(r *sendReq) bool { return len(r.later) > 0 })
}

// lockConversations takes the row locks in id order, so that no two batches
// wait for each other.
func lockConversations(ctx context.Context, tx sqlx.QueryerContext, ids []im.ConversationID) (map[im.ConversationID]*lockedConversation, error) {
	distinct := slices.Clone(ids)
	slices.Sort(distinct)
	distinct = slices.Compact(distinct)
	if len(distinct) > 0 && distinct[0] == 0 {
		distinct = distinct[1:]
	}
	convs := make(map[im.ConversationID]*lockedConversation, len(distinct))
	if len(distinct) == 0 {
		return convs, nil
	}
	query := `SELECT ` + conversationColumns + ` FROM conversations WHERE id IN (` + placeholders(len(distinct)) + `) ORDER BY id FOR UPDATE`
	rows, err := tx.QueryxContext(ctx, query, anys(distinct)...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		c := new(lockedConversation)
		if err := rows.Scan(&c.ID, &c.Kind, &c.Open, &c.MutedUntilMS, &c.LastSeq, &c.LastMessageID, &c.MembersRev, &c.UserLo, &c.UserHi, &c.RelationVersion, &c.RefusedAtMS); err != nil {
			return nil, err
		}
		convs[c.ID] = c
	}
	return convs, rows.Err()
}

// authorise decides, under the locks, who may speak.
func (s *store) authorise(p *batchPlan) {
	now := s.nowMS()
	for i, r := range p.batch {
		c := p.convs[p.ids[i]]
		sender := im.UserID(r.send.GetSenderId())
		if seeded.On(seeded.FriendCheckOutsideTx) && c != nil {
			c.Open = rememberedOpen(c)
		}
		switch {
		case r.key.group() && (c == nil || c.Kind != im.Group):
			p.outcomes[i].err = im.E(im.KindForbidden, "not_a_member", nil)
		case r.key.group():
			m, in := c.members.byUser[sender]
			var allMutedUntilMS int64
			if m.role == roleMember {
				allMutedUntilMS = c.MutedUntilMS
			}
			switch {
			case !in || !c.Open:
				p.outcomes[i].err = im.E(im.KindForbidden, "not_a_member", nil)
			case allMutedUntilMS > now:
				p.outcomes[i].err = im.E(im.KindForbidden, "group_muted", nil)
			case m.mutedUntilMS > now:
				p.outcomes[i].err = im.E(im.KindForbidden, "member_muted", nil)
			case now-max(allMutedUntilMS, m.mutedUntilMS) < refusalLasts.Milliseconds():
				p.refusedLately = true
			}
		case c == nil || !c.Open:
			p.outcomes[i].err = im.E(im.KindForbidden, "not_friends", nil)
		}
		if c != nil && now-c.RefusedAtMS < refusalLasts.Milliseconds() {
			p.refusedLately = true
		}
	}
}

// sendKey is what makes a send idempotent.
type sendKey struct {
	conv   im.ConversationID
	sender im.UserID
	client im.ClientMsgID
}

// compare orders keys.
func (k sendKey) compare(o sendKey) int {
	return cmp.Or(cmp.Compare(k.conv, o.conv), cmp.Compare(k.sender, o.sender), cmp.Compare(k.client, o.client))
}

func (p *batchPlan) key(i int) sendKey {
	m := p.batch[i].send
	return sendKey{p.ids[i], im.UserID(m.GetSenderId()), im.ClientMsgID(m.GetClientMsgId())}
}

// errOvertaken: what was sent after it is stored.
var errOvertaken = errors.New("logic: overtaken by a later send")

// findDuplicates settles the sends that are stored already with their first
// answer, even those that would not be allowed any more. Those that would stand
// behind what was sent after them are not stored, and of those that stand there, by
// a replica that got an older copy, it is not said: whoever sent them must ask again.
func findDuplicates(ctx context.Context, tx sqlx.QueryerContext, p *batchPlan) error {
	var (
		query strings.Builder
		args  []any
	)
	query.WriteString(`SELECT ` + messageColumns + ` FROM messages WHERE `)
	asked := make(map[sendKey]bool, len(p.batch))
	ask := func(k sendKey) {
		if asked[k] {
			return
		}
		asked[k] = true
		if len(args) > 0 {
			query.WriteString(` OR `)
		}
		query.WriteString(`(conversation_id = ? AND sender_id = ? AND client_msg_id = ?)`)
		args = append(args, k.conv, k.sender, k.client)
	}
	for i, r := range p.batch {
		if p.ids[i] == 0 {
			continue
		}
		k := p.key(i)
		ask(k)
		for _, id := range r.later {
			ask(sendKey{k.conv, k.sender, im.ClientMsgID(id)})
		}
	}
	if len(args) == 0 {
		return nil
	}
	var rows []messageRow
	if err := sqlx.SelectContext(ctx, tx, &rows, query.String(), args...); err != nil {
		return err
	}
	stored := make(map[sendKey]*messageRow, len(rows))
	for i := range rows {
		m := &rows[i]
		stored[sendKey{m.ConversationID, m.SenderID, m.ClientMsgID}] = m
	}
	for i, r := range p.batch {
		k := p.key(i)
		m := stored[k]
		overtaken := slices.ContainsFunc(r.later, func(id int64) bool {
			l := stored[sendKey{k.conv, k.sender, im.ClientMsgID(id)}]
			return l != nil && (m == nil || l.Seq < m.Seq)
		})
		switch {
		case overtaken:
			p.outcomes[i] = outcome{err: im.E(im.KindUnknown, "outcome_unknown", errOvertaken)}
		case m == nil:
		case !bytes.Equal(m.ContentHash, r.hash) && !seeded.On(seeded.DedupeIgnoresContent):
			p.outcomes[i] = outcome{err: im.E(im.KindConflict, "client_msg_id_reused", nil)}
		default:
			p.outcomes[i] = outcome{result: resultOf(m, true)}
			p.duplicates++
		}
	}
	return nil
}

func resultOf(m *messageRow, duplicate bool) *logicv1.SendResult {
	return &logicv1.SendResult{
		MessageId:      int64(m.ID),
		ConversationId: int64(m.ConversationID),
		Seq:            int64(m.Seq),
		SentAtMs:       m.SentAtMS,
		Duplicate:      duplicate,
		DataJson:       m.DataJSON,
	}
}

// number gives the remaining sends their seq and id. A conversation's ids rise
// with its seq whatever replica wrote before: ids come from a block that starts
// above the conversation's last one.
func (s *store) number(ctx context.Context, p *batchPlan) error {
	first := make(map[sendKey]int, len(p.batch))
	var after im.MessageID
	for i := range p.batch {
		if p.outcomes[i].err != nil || p.outcomes[i].result != nil {
			continue
		}
		k := p.key(i)
		if of, again := first[k]; again {
			p.repeats = append(p.repeats, repeat{index: i, of: of})
			continue
		}
		first[k] = i
		c := p.convs[k.conv]
		after = max(after, c.LastMessageID)
		p.fresh = append(p.fresh, freshMessage{index: i, conv: c})
	}
	if len(p.fresh) == 0 {
		return nil
	}
	id, err := s.messageIDs.take(ctx, len(p.fresh), int64(after))
	if err != nil {
		return err
	}
	now := s.nowMS()
	for n := range p.fresh {
		f := &p.fresh[n]
		r := p.batch[f.index]
		if !f.conv.wrote {
			f.conv.was = f.conv.LastSeq
		}
		f.conv.LastSeq++
		if seeded.On(seeded.SeqFromRedis) {
			f.conv.LastSeq = seqFromRedis(ctx, f.conv.ID)
		}
		f.conv.LastMessageID = im.MessageID(id + int64(n))
		f.conv.wrote = true
		f.row = messageRow{
			ConversationID: f.conv.ID,
			Seq:            f.conv.LastSeq,
			ID:             f.conv.LastMessageID,
			SenderID:       im.UserID(r.send.GetSenderId()),
			ClientMsgID:    im.ClientMsgID(r.send.GetClientMsgId()),
			ContentHash:    r.hash,
			Type:           r.send.GetType(),
			Status:         statusNormal,
			Platform:       im.Platform(r.send.GetPlatform()), //nolint:gosec // 1..3, checked at the edge
			SentAtMS:       now,
			Text:           r.send.GetText(),
			DataJSON:       r.data,
		}
	}
	return nil
}

// write stores the fresh messages, moves their conversations and leaves the
// outbox row, all of it with the COMMIT.
func (p *batchPlan) write(tx *database.Batch) {
	rows := make([]*messageRow, len(p.fresh))
	for i := range p.fresh {
		rows[i] = &p.fresh[i].row
	}
	var moved []*lockedConversation
	for _, c := range p.convs {
		if c.wrote {
			moved = append(moved, c)
		}
	}
	for _, st := range storing(rows, moved, p.server) {
		tx.Write(st.query, st.args...)
	}
}

// statement is a statement and its arguments.
type statement struct {
	query string
	args  []any
}

// storing is what stores messages on a server: their rows, their conversations'
// new last seqs, and the outbox row.
func storing(rows []*messageRow, moved []*lockedConversation, server int64) []statement {
	all := []statement{moveConversations(moved, rows[0].SentAtMS, server), insertMessages(rows)}
	if seeded.On(seeded.NoOutbox) {
		return all
	}
	return append(all, insertOutbox(rows))
}

// insertMessages stores rows, in one statement.
func insertMessages(rows []*messageRow) statement {
	const row = `(?,?,?,?,?,?,?,?,?,?,?,?)`
	var query strings.Builder
	query.Grow(len(messageColumns) + 64 + (len(row)+1)*len(rows))
	query.WriteString(`INSERT INTO messages (` + messageColumns + `) VALUES `)
	args := make([]any, 0, 12*len(rows))
	for i, m := range rows {
		if i > 0 {
			query.WriteByte(',')
		}
		query.WriteString(row)
		args = append(args, int64(m.ConversationID), int64(m.Seq), int64(m.ID), int64(m.SenderID), int64(m.ClientMsgID), m.ContentHash,
			int64(m.Type), int64(m.Status), int64(m.Platform), m.SentAtMS, m.Text, m.DataJSON)
	}
	return statement{query.String(), args}
}

// moveConversations writes the new last seq and id of conversations, in one
// statement and in the order of their ids. It locks them, if they are not locked
// yet, and fails with a NULL where one is not as it is known to be (see foresee),
// or where another server does it than the known one (see life): the sum of three numbers that only grow is the same only if all of them are.
// The rows exist, so every row of it is an update, and members_rev of the VALUES
// is a place to put the sum.
func moveConversations(convs []*lockedConversation, nowMS, server int64) statement {
	slices.SortFunc(convs, func(a, b *lockedConversation) int { return int(a.ID - b.ID) })
	var query strings.Builder
	query.WriteString(`INSERT INTO conversations (id, members_rev, last_seq, last_message_id, last_at_ms) VALUES `)
	args := make([]any, 0, 5*len(convs)+1)
	for i, c := range convs {
		if i > 0 {
			query.WriteByte(',')
		}
		query.WriteString(`(?,?,?,?,?)`)
		args = append(args, int64(c.ID), c.MembersRev+c.RelationVersion+int64(c.was), int64(c.LastSeq), int64(c.LastMessageID), nowMS)
	}
	query.WriteString(` ON DUPLICATE KEY UPDATE last_seq = IF(@@server_id = ? AND members_rev + relation_version + last_seq = VALUES(members_rev), VALUES(last_seq), NULL),` +
		` last_message_id = VALUES(last_message_id), last_at_ms = VALUES(last_at_ms)`)
	return statement{query.String(), append(args, server)}
}

// insertOutbox leaves the batch's outbox row: which seqs of which conversations
// are to be pushed.
func insertOutbox(rows []*messageRow) statement {
	return statement{
		`INSERT INTO outbox (id, ranges, created_at) VALUES (?, ?, NOW(3))`,
		[]any{int64(rows[0].ID), encodeRanges(rows)},
	}
}

// seqRange is a run of one conversation's messages.
type seqRange struct {
	conv  im.ConversationID
	first im.Seq
	last  im.Seq
}

// encodeRanges packs which messages a batch stored: varints of conversation,
// first seq and count. Within a batch a conversation's seqs are consecutive.
func encodeRanges(rows []*messageRow) []byte {
	var ranges []seqRange
	at := make(map[im.ConversationID]int)
	for _, m := range rows {
		i, ok := at[m.ConversationID]
		if !ok {
			at[m.ConversationID] = len(ranges)
			ranges = append(ranges, seqRange{conv: m.ConversationID, first: m.Seq, last: m.Seq})
			continue
		}
		ranges[i].last = m.Seq
	}
	var buf []byte
	for _, r := range ranges {
		buf = binary.AppendUvarint(buf, uint64(r.conv))           //nolint:gosec // ids are positive
		buf = binary.AppendUvarint(buf, uint64(r.first))          //nolint:gosec // seqs are positive
		buf = binary.AppendUvarint(buf, uint64(r.last-r.first+1)) //nolint:gosec // counts are positive
	}
	return buf
}

var errBadRanges = errors.New("logic: malformed outbox row")

// decodeRanges is the inverse of encodeRanges.
func decodeRanges(buf []byte) ([]seqRange, error) {
	var ranges []seqRange
	for len(buf) > 0 {
		var v [3]uint64
		for i := range v {
			n := 0
			v[i], n = binary.Uvarint(buf)
			if n <= 0 || v[i] == 0 || v[i] > im.MaxID {
				return nil, errBadRanges
			}
			buf = buf[n:]
		}
		r := seqRange{conv: im.ConversationID(v[0]), first: im.Seq(v[1])} //nolint:gosec // checked above
		r.last = r.first + im.Seq(v[2]) - 1                               //nolint:gosec // checked above
		ranges = append(ranges, r)
	}
	return ranges, nil
}

// settle turns the committed plan into results and into what is to be pushed.
func (p *batchPlan) settle() *committed {
	for _, f := range p.fresh {
		p.outcomes[f.index].result = resultOf(&f.row, false)
	}
	for _, r := range p.repeats {
		first := p.outcomes[r.of].result
		if !bytes.Equal(p.batch[r.of].hash, p.batch[r.index].hash) {
			p.outcomes[r.index].err = im.E(im.KindConflict, "client_msg_id_reused", nil)
			continue
		}
		again := resultOf(&messageRow{}, true)
		again.MessageId, again.ConversationId, again.Seq = first.GetMessageId(), first.GetConversationId(), first.GetSeq()
		again.SentAtMs, again.DataJson = first.GetSentAtMs(), first.GetDataJson()
		p.outcomes[r.index].result = again
		p.duplicates++
	}
	if len(p.fresh) == 0 {
		return nil
	}
	done := &committed{outbox: []int64{int64(p.fresh[0].row.ID)}, messages: make([]committedMessage, len(p.fresh))}
	for i, f := range p.fresh {
		r := p.batch[f.index]
		m := committedMessage{push: f.row.toPush(f.conv.Kind, r.send.GetToId())}
		m.push.Origin = r.send.GetOrigin()
		if f.conv.Kind == im.Group {
			m.recipients = f.conv.members.users
		} else {
			m.sender = f.row.SenderID
			m.recipients = []im.UserID{im.UserID(r.send.GetToId())}
		}
		done.messages[i] = m
	}
	return done
}

// placeholders returns "?,?,…" for an IN list.
func placeholders(n int) string {
	if n <= 0 {
		return ""
	}
	return strings.Repeat("?,", n-1) + "?"
}

// anys turns ids into driver arguments.
func anys[T ~int64](ids []T) []any {
	out := make([]any, len(ids))
	for i, id := range ids {
		out[i] = int64(id)
	}
	return out
}
