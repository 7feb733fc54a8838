package auth

import (
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/proto"

	authv1 "im-services/api/proto/auth/v1"
	"im-services/internal/im"
)

const ticketKind = "ticket"

func ticketInvalid(cause error) error { return im.E(im.KindUnauthorized, "ticket_invalid", cause) }

// issueTicket makes a ticket that stands for id once.
func (s *Server) issueTicket(ctx context.Context, id *authv1.Identity) (string, time.Duration, error) {
	now, err := dbTime(ctx, s.store.db)
	if err != nil {
		return "", 0, storeError(err)
	}
	ttl := min(s.cfg.TicketTTL, time.Unix(id.GetExpiresAt(), 0).Sub(now))
	if !im.UserID(id.GetUserId()).Valid() || id.GetSessionId() == "" || ttl <= 0 {
		return "", 0, ticketInvalid(errors.New("the identity is not a live one"))
	}
	value, err := proto.Marshal(id)
	if err != nil {
		return "", 0, im.E(im.KindInternal, "internal", err)
	}
	ticket, err := s.vault.put(ctx, ticketKind, value, ttl)
	return ticket, ttl, err
}

// redeemTicket returns the identity of a ticket whose login session is live. The
// ticket is spent last: who is told to try again still has it.
func (s *Server) redeemTicket(ctx context.Context, ticket string) (*authv1.Identity, error) {
	gone := ticketInvalid(errors.New("unknown, used or expired"))
	value, err := s.vault.look(ctx, ticketKind, ticket)
	if err != nil {
		return nil, err
	}
	if value == nil {
		return nil, gone
	}
	var id authv1.Identity
	if err := proto.Unmarshal(value, &id); err != nil {
		return nil, im.E(im.KindInternal, "internal", err)
	}
	live, err := s.store.sessionLive(ctx, id.GetSessionId(), im.UserID(id.GetUserId()))
	if err != nil {
		return nil, err
	}
	if !live {
		return nil, ticketInvalid(errors.New("the login session is over"))
	}
	// Of those who got here with one ticket, one takes it.
	if value, err = s.vault.take(ctx, ticketKind, ticket); err != nil {
		return nil, err
	}
	if value == nil {
		return nil, gone
	}
	return &id, nil
}
