package friend

import (
	"context"
	"strings"
	"unicode/utf8"

	"github.com/jmoiron/sqlx"

	pushv1 "im-services/api/proto/push/v1"
	"im-services/internal/failpoint"
	"im-services/internal/im"
)

// maxInformation is the longest text of a request, in characters.
const maxInformation = 255

// ask makes a waiting request from the profile's user to another.
func (s *Server) ask(ctx context.Context, from *pushv1.Profile, to im.UserID, information string) (request, error) {
	user := im.UserID(from.GetId())
	switch {
	case !user.Valid() || !to.Valid():
		return request{}, im.E(im.KindInvalid, "id_invalid", nil)
	case user == to:
		return request{}, im.E(im.KindInvalid, "friend_self", nil)
	case user == im.BotID || to == im.BotID:
		return request{}, im.E(im.KindInvalid, "friend_bot", nil)
	case strings.TrimSpace(information) == "" || utf8.RuneCountInString(information) > maxInformation || !utf8.ValidString(information):
		return request{}, im.E(im.KindInvalid, "information_invalid", nil)
	}
	ids, err := s.ids.take(ctx, 1)
	if err != nil {
		return request{}, logicAway("service_unavailable", err)
	}

	var req request
	err = s.store.inTx(ctx, func(tx *sqlx.Tx) error {
		rel, err := s.store.lock(ctx, tx, user, to)
		if err != nil {
			return err
		}
		if rel.open {
			return im.E(im.KindConflict, "friend_already", nil)
		}
		switch requester, err := s.store.waitingRequest(ctx, tx, user, to); {
		case err != nil:
			return err
		case requester == user:
			return im.E(im.KindConflict, "friend_request_waiting", nil)
		case requester == to:
			return im.E(im.KindConflict, "reverse_request_waiting", nil)
		}
		n, nextIn, err := s.store.requestsLastDay(ctx, tx, user)
		if err != nil {
			return err
		}
		if n >= s.cfg.RequestsPerDay {
			return &im.Error{Kind: im.KindExhausted, Reason: "friend_request_limit", RetryAfter: nextIn}
		}
		if err := s.store.insertRequest(ctx, tx, ids[0], user, to, information); err != nil {
			return err
		}
		req, _, err = s.store.request(ctx, tx, ids[0])
		return err
	})
	if err != nil {
		return request{}, err
	}
	s.tell(ctx, to, req, from)
	return req, nil
}

// answer settles a request on behalf of its recipient. On accept, when it
// returns nil, logic has opened the conversation; mine is the answerer's side.
func (s *Server) answer(ctx context.Context, by *pushv1.Profile, requestID int64, accept bool) (req request, mine friendship, err error) {
	user := im.UserID(by.GetId())
	status := refused
	if accept {
		status = accepted
	}
	// A look without locks first, so that bogus answers cost neither ids nor rows.
	req, found, err := s.store.request(ctx, s.store.db, requestID)
	if err != nil {
		return request{}, friendship{}, storeError(err)
	}
	if !found || !mayAnswer(req, user, status) {
		return request{}, friendship{}, errNotAnswerable()
	}
	ids := make([]int64, 2)
	if accept {
		// Ids come from logic, which an accept needs anyway: if it is away, say so
		// before anything has changed.
		if ids, err = s.ids.take(ctx, 2); err != nil {
			return request{}, friendship{}, logicAway("service_unavailable", err)
		}
	}

	var rel relation
	err = s.store.inTx(ctx, func(tx *sqlx.Tx) error {
		var err error
		if rel, err = s.store.lock(ctx, tx, req.Requester, req.Recipient); err != nil {
			return err
		}
		if req, _, err = s.store.request(ctx, tx, requestID); err != nil {
			return err
		}
		switch {
		case !mayAnswer(req, user, status):
			return errNotAnswerable()
		case req.Status == waiting && accept:
			rel, err = s.befriend(ctx, tx, rel, req, ids)
		case req.Status == waiting:
			err = s.store.answerRequest(ctx, tx, requestID, refused)
		case accept && (!rel.open || rel.requestID != requestID):
			// Accepted earlier, but the friendship has ended since.
			return errNotAnswerable()
		}
		if err != nil {
			return err
		}
		req.Status = status
		if accept {
			mine, _, err = s.store.friendship(ctx, tx, user, req.Requester)
		}
		if err != nil {
			return err
		}
		return failpoint.Hit("friend.before_commit")
	})
	if err != nil {
		return request{}, friendship{}, err
	}
	if err := failpoint.Hit("friend.after_commit"); err != nil {
		return request{}, friendship{}, logicAway("friend_change_pending", err)
	}
	if accept {
		if err := s.settle(ctx, rel); err != nil {
			return request{}, friendship{}, logicAway("friend_change_pending", err)
		}
	}
	switch first, err := s.store.confirmRequest(ctx, requestID); {
	case err != nil:
		// Costs only that a repeat of this answer succeeds once more.
		s.log.WarnContext(ctx, "friend answer not marked as confirmed", "request", requestID, "error", err)
	case !first: // of two equal answers at once, the other one
		return request{}, friendship{}, errNotAnswerable()
	}
	s.tell(ctx, req.Requester, req, by)
	return req, mine, nil
}

// mayAnswer says whether user may answer req with status: the recipient, while
// it waits; or again with the same answer, if the first call that gave it was
// told that its outcome is not certain yet.
func mayAnswer(req request, user im.UserID, status int) bool {
	if req.Recipient != user {
		return false
	}
	return req.Status == waiting || req.Status == status && !req.Confirmed
}

func errNotAnswerable() error { return im.E(im.KindNotFound, "friend_request_not_answerable", nil) }

// befriend makes the requester and the recipient of req friends.
func (s *Server) befriend(ctx context.Context, tx *sqlx.Tx, rel relation, req request, ids []int64) (relation, error) {
	if rel.open {
		return rel, im.E(im.KindConflict, "friend_already", nil)
	}
	for _, user := range []im.UserID{req.Recipient, req.Requester} {
		n, err := s.store.friendCount(ctx, tx, user)
		if err != nil {
			return rel, err
		}
		if n >= s.cfg.MaxFriends {
			return rel, im.E(im.KindConflict, "friend_limit", nil)
		}
	}
	if err := s.store.answerRequest(ctx, tx, req.ID, accepted); err != nil {
		return rel, err
	}
	if err := s.store.insertFriendship(ctx, tx, req.Recipient, ids[0], req.Requester, ids[1]); err != nil {
		return rel, err
	}
	rel.version++
	rel.open, rel.pending = true, true
	rel.requestID, rel.requester = req.ID, req.Requester
	return rel, s.store.saveRelation(ctx, tx, rel, s.cfg.ClaimFor)
}

// remove ends the friendship of user and friend. When it returns nil, logic has
// closed their conversation. Removing nobody succeeds.
func (s *Server) remove(ctx context.Context, user, friend im.UserID) error {
	if !user.Valid() || !friend.Valid() {
		return im.E(im.KindInvalid, "id_invalid", nil)
	}
	if user == friend {
		return nil
	}
	var rel relation
	err := s.store.inTx(ctx, func(tx *sqlx.Tx) error {
		var found bool
		var err error
		rel, found, err = s.store.lockExisting(ctx, tx, user, friend)
		if err != nil || !found || !rel.open {
			return err
		}
		if err := s.store.deleteFriendship(ctx, tx, user, friend); err != nil {
			return err
		}
		rel.version++
		rel.open, rel.pending = false, true
		return s.store.saveRelation(ctx, tx, rel, s.cfg.ClaimFor)
	})
	if err != nil {
		return err
	}
	if err := failpoint.Hit("friend.removed"); err != nil {
		return logicAway("friend_change_pending", err)
	}
	// Also when an earlier call removed it: what that call was told is for logic
	// to say now.
	if err := s.settle(ctx, rel); err != nil {
		return logicAway("friend_change_pending", err)
	}
	return nil
}

// settle makes logic confirm rel if it is pending.
func (s *Server) settle(ctx context.Context, rel relation) error {
	if !rel.pending {
		return nil
	}
	if err := s.logic.apply(ctx, rel); err != nil {
		s.metrics.settles.WithLabelValues("failed").Inc()
		return err
	}
	s.metrics.settles.WithLabelValues("confirmed").Inc()
	if err := failpoint.Hit("friend.confirmed"); err != nil {
		return err
	}
	if err := s.store.settled(ctx, rel); err != nil {
		// Logic obeys already; Run tells it once more, which changes nothing.
		s.log.WarnContext(ctx, "friend relation confirmed but still marked pending", "version", rel.version, "error", err)
	}
	return nil
}

// tell sends a friend frame; failing costs only the frame.
func (s *Server) tell(ctx context.Context, user im.UserID, req request, by *pushv1.Profile) {
	if err := s.logic.notify(ctx, user, req, by); err != nil {
		s.metrics.notifyFailures.Inc()
		s.log.InfoContext(ctx, "friend frame not sent", "user", user, "request", req.ID, "error", err)
	}
}

// logicAway says that logic could not be asked. A refusal by logic of what we
// ask would be our fault, but it is no less retryable for the caller.
func logicAway(reason string, err error) error {
	return im.E(im.KindUnavailable, reason, err)
}
