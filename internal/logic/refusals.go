package logic

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"

	logicv1 "im-services/api/proto/logic/v1"
	"im-services/internal/im"
	"im-services/internal/platform/database"
	"im-services/internal/seeded"
)

// A client whose send is refused may have sent it on another connection before, which
// is gone: that copy may still be on its way, or wait in the lane of another replica.
// By the time it comes the send may be allowed, but its client knows that it was
// refused. So what is refused is noted, in the transaction that refuses it, with the
// connection; a copy from another one, which would be allowed, is not stored, and not
// answered; a client that is there after all asks again. All that comes over HTTP
// through one gateway counts as one connection: it keeps their order. Whenever a gateway
// cannot, because it gave sends to one replica and then to another, or lost patience
// with them, a new turn begins on all its connections (see Send.turn), and a copy of an
// earlier one counts as from another connection. A later one has been sent, or kept, since
// the refusal was made: its client has not heard of it, or knows better.
//
// The notes are looked for in conversations in which somebody was refused lately, which
// their rows say, and all others pay nothing. A replica that knows a row by heart (see
// foresee.go) learns that, because it cannot be allowed now what was not before unless
// the row has changed, or a mute has ended, after which the row is read.

const (
	// refusalLasts is longer than a copy of a send may be on its way: in a connection
	// that is cut, until its gateway gives it up; from there on, see
	// SendStreamRequest.not_after_us; and in its transaction.
	refusalLasts = 45 * time.Second
	// refusalRace is longer than a transaction that notes a refusal takes.
	refusalRace = 5 * time.Second
	// refusalSweep is how often old notes are removed, refusalPage how many at once.
	refusalSweep = 5 * time.Second
	refusalPage  = 1000
)

// errRefusedElsewhere: its client knows it as refused.
var errRefusedElsewhere = errors.New("logic: refused on another connection just now")

type refusedRow struct {
	Conv   im.ConversationID `db:"conversation_id"`
	Sender im.UserID         `db:"sender_id"`
	Client im.ClientMsgID    `db:"client_msg_id"`
	Origin string            `db:"origin"`
	Turn   int64             `db:"turn"`
}

// bars reports whether m may be a copy that its client no longer waits for.
func (n *refusedRow) bars(m *logicv1.Send) bool {
	return n.Origin != m.GetOrigin() || m.GetTurn() < n.Turn
}

// noteRefusals notes what the plan refuses because its sender may not speak.
func (p *batchPlan) noteRefusals(tx *database.Batch, nowMS int64) {
	noted := map[sendKey]*logicv1.Send{}
	for i, r := range p.batch {
		if r.send.GetOrigin() == "" || im.KindOf(p.outcomes[i].err) != im.KindForbidden {
			continue
		}
		if n := noted[p.key(i)]; n == nil || n.GetOrigin() != r.send.GetOrigin() || n.GetTurn() < r.send.GetTurn() {
			noted[p.key(i)] = r.send
		}
	}
	if len(noted) == 0 {
		return
	}
	args := make([]any, 0, 6*len(noted))
	keys := slices.SortedFunc(maps.Keys(noted), sendKey.compare) // in one order everywhere: no deadlocks
	for _, k := range keys {
		args = append(args, int64(k.conv), int64(k.sender), int64(k.client), noted[k].GetOrigin(), noted[k].GetTurn(), nowMS)
	}
	var convs []im.ConversationID
	for _, k := range keys {
		if c := p.convs[k.conv]; c != nil && c.RefusedAtMS != nowMS {
			c.RefusedAtMS = nowMS
			convs = append(convs, c.ID)
		}
	}
	if len(convs) > 0 {
		tx.Write(`UPDATE conversations SET refused_at_ms = ? WHERE id IN (`+placeholders(len(convs))+`)`, append([]any{nowMS}, anys(convs)...)...)
	}
	// The turn is set before the origin that it is compared by.
	tx.Write(`INSERT INTO refusals (conversation_id, sender_id, client_msg_id, origin, turn, at_ms) VALUES `+
		strings.Repeat(`(?,?,?,?,?,?),`, len(noted)-1)+`(?,?,?,?,?,?)`+
		` ON DUPLICATE KEY UPDATE turn = IF(origin = VALUES(origin), GREATEST(turn, VALUES(turn)), VALUES(turn)),`+
		` origin = VALUES(origin), at_ms = VALUES(at_ms)`, args...)
}

// findRefusals makes unknown what was refused lately on another connection, also before
// there was a conversation.
func findRefusals(ctx context.Context, tx sqlx.QueryerContext, p *batchPlan, nowMS int64) error {
	var args []any
	for i := range p.batch {
		if p.outcomes[i].err == nil && !seeded.On(seeded.NoFence) {
			k := p.key(i)
			args = append(args, int64(k.conv), int64(k.sender), int64(k.client), int64(0), int64(k.sender), int64(k.client))
		}
	}
	if len(args) == 0 {
		return nil
	}
	var rows []refusedRow
	query := `SELECT conversation_id, sender_id, client_msg_id, origin, turn FROM refusals WHERE at_ms > ? AND (conversation_id, sender_id, client_msg_id) IN (` +
		strings.Repeat(`(?,?,?),`, len(args)/3-1) + `(?,?,?))`
	if err := sqlx.SelectContext(ctx, tx, &rows, query, append([]any{nowMS - refusalLasts.Milliseconds()}, args...)...); err != nil {
		return fmt.Errorf("find refusals: %w", err)
	}
	for i, r := range p.batch {
		k := p.key(i)
		if p.outcomes[i].err == nil && slices.ContainsFunc(rows, func(n refusedRow) bool {
			return (n.Conv == k.conv || n.Conv == 0) && n.Sender == k.sender && n.Client == k.client && n.bars(r.send)
		}) {
			p.outcomes[i].err = im.E(im.KindUnknown, "outcome_unknown", errRefusedElsewhere)
		}
	}
	return nil
}

// sweepRefusals removes old notes until ctx ends.
func (s *store) sweepRefusals(ctx context.Context) {
	every(ctx, refusalSweep, func() { s.forgetRefusals(ctx) })
}

// forgetRefusals removes the notes that are old by now. What fails is done the next time.
func (s *store) forgetRefusals(ctx context.Context) {
	for ctx.Err() == nil {
		res, err := s.db.ExecContext(ctx, `DELETE FROM refusals WHERE at_ms <= ? ORDER BY at_ms LIMIT ?`, s.nowMS()-refusalLasts.Milliseconds(), refusalPage)
		if err != nil {
			return
		}
		if n, err := res.RowsAffected(); err != nil || n < refusalPage {
			return
		}
	}
}
