package logic

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/jmoiron/sqlx"

	logicv1 "im-services/api/proto/logic/v1"
	"im-services/internal/im"
)

// sessionRow is an entry of a user's conversation list.
type sessionRow struct {
	ID          int64          `db:"id"`
	Owner       im.UserID      `db:"owner_id"`
	Kind        im.ChannelKind `db:"kind"`
	Target      int64          `db:"target_id"`
	Pinned      bool           `db:"pinned"`
	PinnedAtMS  int64          `db:"pinned_at_ms"`
	Note        string         `db:"note"`
	Hidden      bool           `db:"hidden"`
	CreatedAtMS int64          `db:"created_at_ms"`
}

const sessionColumns = `id, owner_id, kind, target_id, pinned, pinned_at_ms, note, hidden, created_at_ms`

// ListSessions implements logicv1.ConversationServiceServer. Everybody starts
// with the bot's session: it is made when the list is first read, and only
// hidden when its owner deletes it.
func (s *Server) ListSessions(ctx context.Context, req *logicv1.ListSessionsRequest) (*logicv1.ListSessionsResponse, error) {
	user := im.UserID(req.GetUserId())
	if !user.Valid() {
		return nil, im.E(im.KindUnauthorized, "sender_missing", nil)
	}
	rows, err := s.store.sessionsOf(ctx, user)
	if err != nil {
		return nil, failed(err)
	}
	hasBot := slices.ContainsFunc(rows, func(r sessionRow) bool { return r.Kind == im.Private && r.Target == int64(im.BotID) })
	if !hasBot && user != im.BotID {
		err := s.store.inTx(ctx, func(tx *sqlx.Tx) error {
			id, err := s.store.ensureSession(ctx, tx, user, im.Private, int64(im.BotID), 0)
			if err != nil || len(rows) == 0 {
				return err
			}
			// It counts as there since before all others, although it is made only now.
			oldest := slices.MinFunc(rows, func(a, b sessionRow) int { return cmp.Compare(a.CreatedAtMS, b.CreatedAtMS) })
			_, err = tx.ExecContext(ctx, `UPDATE sessions SET created_at_ms = ? WHERE id = ?`, oldest.CreatedAtMS-1, id)
			return err
		})
		if err != nil {
			return nil, err
		}
		if rows, err = s.store.sessionsOf(ctx, user); err != nil {
			return nil, failed(err)
		}
	}
	if err := s.store.showAgain(ctx, user, rows); err != nil {
		return nil, failed(err)
	}
	rows = slices.DeleteFunc(rows, func(r sessionRow) bool { return r.Hidden })
	sessions, err := s.describe(ctx, user, rows)
	if err != nil {
		return nil, failed(err)
	}
	slices.SortStableFunc(sessions, func(a, b *logicv1.Session) int {
		if a.GetPinned() != b.GetPinned() {
			if a.GetPinned() {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(activity(b), activity(a)), cmp.Compare(b.GetId(), a.GetId()))
	})
	return &logicv1.ListSessionsResponse{Sessions: sessions}, nil
}

// activity is when something last happened in a session, Unix milliseconds.
func activity(s *logicv1.Session) int64 {
	if m := s.GetLastMessage(); m != nil {
		return m.GetSentAtMs()
	}
	return s.GetCreatedAtMs()
}

// CreateSession implements logicv1.ConversationServiceServer.
func (s *Server) CreateSession(ctx context.Context, req *logicv1.CreateSessionRequest) (*logicv1.CreateSessionResponse, error) {
	user, target := im.UserID(req.GetUserId()), req.GetTargetId()
	kind := im.ChannelKind(req.GetKind()) //nolint:gosec // compared with the two known kinds
	switch {
	case !user.Valid():
		return nil, im.E(im.KindUnauthorized, "sender_missing", nil)
	case req.GetKind() != int32(im.Private) && req.GetKind() != int32(im.Group):
		return nil, im.E(im.KindInvalid, "session_type_invalid", nil)
	case target <= 0 || target > im.MaxID:
		return nil, im.E(im.KindInvalid, "to_id_invalid", nil)
	case kind == im.Private && target == int64(user):
		return nil, im.E(im.KindInvalid, "session_self", nil)
	}
	var row sessionRow
	err := s.store.inTx(ctx, func(tx *sqlx.Tx) error {
		if kind == im.Group {
			// Under the group's lock: who is being removed must not keep a session.
			if _, err := lockConversations(ctx, tx, []im.ConversationID{im.ConversationID(target)}); err != nil {
				return err
			}
			places, err := s.store.memberships(ctx, tx, user, im.ConversationID(target))
			if err != nil {
				return err
			}
			if len(places) == 0 || places[0].Kind != im.Group || !places[0].in() {
				return im.E(im.KindForbidden, "session_not_member", nil)
			}
		}
		id, err := s.store.ensureSession(ctx, tx, user, kind, target, 0)
		if err != nil {
			return err
		}
		return tx.GetContext(ctx, &row, `SELECT `+sessionColumns+` FROM sessions WHERE id = ?`, id)
	})
	if err != nil {
		return nil, err
	}
	list, err := s.describe(ctx, user, []sessionRow{row})
	if err != nil {
		return nil, failed(err)
	}
	return &logicv1.CreateSessionResponse{Session: list[0]}, nil
}

// maxNote is the longest note of a session, in characters.
const maxNote = 255

// UpdateSession implements logicv1.ConversationServiceServer.
func (s *Server) UpdateSession(ctx context.Context, req *logicv1.UpdateSessionRequest) (*logicv1.UpdateSessionResponse, error) {
	if utf8.RuneCountInString(req.GetNote()) > maxNote {
		return nil, im.E(im.KindInvalid, "note_too_long", nil)
	}
	err := s.store.inTx(ctx, func(tx *sqlx.Tx) error {
		var row sessionRow
		err := tx.GetContext(ctx, &row, `SELECT `+sessionColumns+` FROM sessions WHERE id = ? AND owner_id = ? AND hidden = 0 FOR UPDATE`, req.GetSessionId(), req.GetUserId())
		if errors.Is(err, sql.ErrNoRows) {
			return im.E(im.KindNotFound, "session_not_found", nil)
		}
		if err != nil {
			return err
		}
		if req.Pinned != nil && req.GetPinned() != row.Pinned {
			row.Pinned, row.PinnedAtMS = req.GetPinned(), 0
			if row.Pinned {
				row.PinnedAtMS = s.store.nowMS()
			}
		}
		if req.Note != nil {
			row.Note = req.GetNote()
		}
		_, err = tx.ExecContext(ctx, `UPDATE sessions SET pinned = ?, pinned_at_ms = ?, note = ? WHERE id = ?`, row.Pinned, row.PinnedAtMS, row.Note, row.ID)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &logicv1.UpdateSessionResponse{}, nil
}

// DeleteSession implements logicv1.ConversationServiceServer.
func (s *Server) DeleteSession(ctx context.Context, req *logicv1.DeleteSessionRequest) (*logicv1.DeleteSessionResponse, error) {
	err := s.store.inTx(ctx, func(tx *sqlx.Tx) error {
		// Some rows stay, hidden: the bot's says that the account has had its first
		// session, and those with groups say how many groups the user is in.
		const stays = `(kind = ? OR kind = ? AND target_id = ?)`
		args := []any{req.GetSessionId(), req.GetUserId(), int64(im.Group), int64(im.Private), int64(im.BotID)}
		if _, err := tx.ExecContext(ctx, `UPDATE sessions SET hidden = 1, pinned = 0, pinned_at_ms = 0, note = '',
			hidden_seq = COALESCE((SELECT c.last_seq FROM conversations c WHERE c.id = target_id), 0) WHERE id = ? AND owner_id = ? AND `+stays, args...); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `DELETE FROM sessions WHERE id = ? AND owner_id = ? AND NOT `+stays, args...)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &logicv1.DeleteSessionResponse{}, nil
}

// showAgain makes those of a user's sessions visible again that are with groups in
// which something was said since they were hidden. Private ones were deleted, and are
// made anew by the client that shows the message.
func (s *store) showAgain(ctx context.Context, user im.UserID, rows []sessionRow) error {
	if !slices.ContainsFunc(rows, func(r sessionRow) bool { return r.Hidden && r.Kind == im.Group }) {
		return nil
	}
	var back []int64
	if err := s.db.SelectContext(ctx, &back, `SELECT s.id FROM sessions s JOIN conversations c ON c.id = s.target_id
		WHERE s.owner_id = ? AND s.kind = ? AND s.hidden = 1 AND c.last_seq > s.hidden_seq`, int64(user), int64(im.Group)); err != nil {
		return fmt.Errorf("find hidden sessions: %w", err)
	}
	for page := range slices.Chunk(back, rowPage) {
		if _, err := s.db.ExecContext(ctx, `UPDATE sessions SET hidden = 0 WHERE hidden = 1
			AND hidden_seq < (SELECT c.last_seq FROM conversations c WHERE c.id = target_id) AND id IN (`+placeholders(len(page))+`)`, anys(page)...); err != nil {
			return fmt.Errorf("show sessions: %w", err)
		}
	}
	for i := range rows {
		rows[i].Hidden = rows[i].Hidden && !slices.Contains(back, rows[i].ID)
	}
	return nil
}

// sessionsOf reads all of a user's sessions, hidden ones included.
func (s *store) sessionsOf(ctx context.Context, user im.UserID) ([]sessionRow, error) {
	var rows []sessionRow
	if err := s.db.SelectContext(ctx, &rows, `SELECT `+sessionColumns+` FROM sessions WHERE owner_id = ?`, int64(user)); err != nil {
		return nil, fmt.Errorf("read sessions: %w", err)
	}
	return rows, nil
}

// ensureSession returns the owner's session with a user or group, made if there
// is none, and visible again if it was hidden. A new one takes the wanted id (0:
// any), unless another session has it. Two calls at once may give a duplicate
// key: run the transaction again.
func (s *store) ensureSession(ctx context.Context, tx *sqlx.Tx, owner im.UserID, kind im.ChannelKind, target, wanted int64) (int64, error) {
	var row sessionRow
	err := tx.GetContext(ctx, &row, `SELECT `+sessionColumns+` FROM sessions WHERE owner_id = ? AND kind = ? AND target_id = ?`,
		int64(owner), int64(kind), target)
	if err == nil {
		if row.Hidden {
			_, err = tx.ExecContext(ctx, `UPDATE sessions SET hidden = 0 WHERE id = ?`, row.ID)
		}
		return row.ID, err
	}
	if !errors.Is(err, sql.ErrNoRows) {
		return 0, err
	}
	if wanted > 0 {
		var taken int
		if err := tx.GetContext(ctx, &taken, `SELECT COUNT(*) FROM sessions WHERE id = ?`, wanted); err != nil {
			return 0, err
		}
		if taken > 0 {
			wanted = 0
		}
	}
	if wanted <= 0 {
		if wanted, err = s.objectIDs.take(ctx, 1, 0); err != nil {
			return 0, err
		}
	}
	if _, err = tx.ExecContext(ctx, `INSERT INTO sessions (id, owner_id, kind, target_id, created_at_ms) VALUES (?,?,?,?,?)`,
		wanted, int64(owner), int64(kind), target, s.nowMS()); err != nil {
		return 0, err
	}
	if kind == im.Private {
		err = s.makeListRoom(ctx, tx, owner, wanted)
	}
	return wanted, err
}

// makeListRoom removes the private sessions that an owner has beyond SessionsMax:
// those that were quiet longest, pinned ones last, never the new one nor the bot's.
// A refusal would be worse: clients ask for a session to show a message in it, which
// also brings a removed one back. What was made at once may be too many until the next.
func (s *store) makeListRoom(ctx context.Context, tx *sqlx.Tx, owner im.UserID, made int64) error {
	var n int
	if err := tx.GetContext(ctx, &n, `SELECT COUNT(*) FROM sessions WHERE owner_id = ? AND kind = ?`, int64(owner), int64(im.Private)); err != nil {
		return fmt.Errorf("count sessions: %w", err)
	}
	if n <= s.cfg.SessionsMax {
		return nil
	}
	var quiet []int64 // beyond the limit in one look, whatever n was: others make room at the same time
	if err := tx.SelectContext(ctx, &quiet, `SELECT s.id FROM sessions s
		LEFT JOIN conversations c ON c.user_lo = LEAST(s.owner_id, s.target_id) AND c.user_hi = GREATEST(s.owner_id, s.target_id)
		WHERE s.owner_id = ? AND s.kind = ?
		ORDER BY (s.id = ? OR s.target_id = ?) DESC, s.pinned DESC, GREATEST(s.created_at_ms, COALESCE(c.last_at_ms, 0)) DESC, s.id DESC LIMIT ? OFFSET ?`,
		int64(owner), int64(im.Private), made, int64(im.BotID), rowPage, s.cfg.SessionsMax); err != nil {
		return fmt.Errorf("find quiet sessions: %w", err)
	}
	if len(quiet) == 0 {
		return nil
	}
	if _, err := tx.ExecContext(ctx, `DELETE FROM sessions WHERE id IN (`+placeholders(len(quiet))+`)`, anys(quiet)...); err != nil {
		return fmt.Errorf("remove quiet sessions: %w", err)
	}
	return nil
}

// sessionTarget names what a session is with.
type sessionTarget struct {
	kind   im.ChannelKind
	target int64
}

// describe fills sessions of one user in a fixed number of queries, however
// many there are.
func (s *Server) describe(ctx context.Context, user im.UserID, rows []sessionRow) ([]*logicv1.Session, error) {
	if len(rows) == 0 {
		return nil, nil
	}
	wanted := make(map[sessionTarget]bool, len(rows))
	var groups []im.ConversationID
	for _, r := range rows {
		wanted[sessionTarget{r.Kind, r.Target}] = true
		if r.Kind == im.Group {
			groups = append(groups, im.ConversationID(r.Target))
		}
	}
	all, err := s.placesFor(ctx, user, rows)
	if err != nil {
		return nil, err
	}
	at := make(map[sessionTarget]membership, len(rows))
	places := all[:0]
	var lasts []seqRange
	for _, m := range all {
		key := sessionTarget{m.Kind, m.target(user)}
		if !wanted[key] {
			continue
		}
		at[key] = m
		places = append(places, m)
		if last := m.last(); last >= m.FirstSeq {
			lasts = append(lasts, seqRange{conv: m.ID, first: last, last: last})
		}
	}
	messages, err := s.store.previewsAt(ctx, lasts)
	if err != nil {
		return nil, err
	}
	unread, err := s.store.unread(ctx, user, places)
	if err != nil {
		return nil, err
	}
	infos, err := s.store.groupInfos(ctx, groups)
	if err != nil {
		return nil, err
	}
	out := make([]*logicv1.Session, 0, len(rows))
	for _, r := range rows {
		pb := &logicv1.Session{
			Id: r.ID, OwnerId: int64(r.Owner), Kind: int32(r.Kind), Pinned: r.Pinned, PinnedAtMs: r.PinnedAtMS,
			Note: r.Note, Hidden: r.Hidden, CreatedAtMs: r.CreatedAtMS,
		}
		if r.Kind == im.Group {
			pb.GroupId = r.Target
			pb.Group = infos[im.ConversationID(r.Target)]
		} else {
			pb.PeerId = r.Target
		}
		if m, ok := at[sessionTarget{r.Kind, r.Target}]; ok {
			pb.ConversationId, pb.LastSeq, pb.ReadSeq, pb.Unread = int64(m.ID), int64(m.last()), int64(m.read()), unread[m.ID]
			if last, ok := messages[m.ID]; ok {
				pb.LastMessage = last.toPush(m.Kind, m.to(last.SenderID))
			}
		}
		out = append(out, pb)
	}
	return out, nil
}

// placesFor reads where the user stands in the conversations of his sessions:
// by name for one session, by user for a list.
func (s *Server) placesFor(ctx context.Context, user im.UserID, rows []sessionRow) ([]membership, error) {
	if len(rows) > 1 {
		return s.store.memberships(ctx, s.store.db, user)
	}
	m, err := s.store.placeOf(ctx, user, rows[0].Kind, rows[0].Target)
	if err != nil || m == nil {
		return nil, err
	}
	return []membership{*m}, nil
}
