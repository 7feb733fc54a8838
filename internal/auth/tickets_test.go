package auth

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	authv1 "im-services/api/proto/auth/v1"
	"im-services/internal/im"
	"im-services/internal/token"
)

func identity(c token.Claims) *authv1.Identity {
	return &authv1.Identity{
		UserId: int64(c.UserID), Name: c.Name, Email: c.Email, Avatar: c.Avatar, SessionId: c.SessionID,
		IssuedAt: c.IssuedAt.Unix(), ExpiresAt: c.ExpiresAt.Unix(),
	}
}

func (e *env) ticket(id *authv1.Identity) string {
	e.t.Helper()
	res, err := e.IssueTicket(e.t.Context(), &authv1.IssueTicketRequest{Identity: id})
	require.NoError(e.t, err)
	require.EqualValues(e.t, 30, res.GetExpiresInSeconds())
	require.Len(e.t, res.GetTicket(), 43, "256 bits")
	require.True(e.t, token.IsTicket(res.GetTicket()), "gateways look up nothing else")
	return res.GetTicket()
}

func (e *env) redeem(ticket string) (*authv1.Identity, error) {
	res, err := e.RedeemTicket(e.t.Context(), &authv1.RedeemTicketRequest{Ticket: ticket})
	return res.GetIdentity(), err
}

func TestTicket_StandsForItsIdentityOnce(t *testing.T) {
	e := newEnv(t, debugMode)
	id := identity(e.mustVerify(e.mustLogin(e.newUser().GetEmail()).GetAccessToken()))
	ticket := e.ticket(id)
	got, err := e.replica(debugMode).redeem(ticket)
	require.NoError(t, err, "on any replica")
	require.True(t, proto.Equal(id, got))
	_, err = e.redeem(ticket)
	requireReason(t, "ticket_invalid", err)
	require.Equal(t, im.KindUnauthorized, im.KindOf(err))
}

func TestTicket_ParallelRedeemHasOneWinner(t *testing.T) {
	e := newEnv(t, debugMode)
	ticket := e.ticket(identity(e.mustVerify(e.mustLogin(e.newUser().GetEmail()).GetAccessToken())))
	var won atomic.Int64
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := e.RedeemTicket(context.Background(), &authv1.RedeemTicketRequest{Ticket: ticket}); err == nil {
				won.Add(1)
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 1, won.Load())
}

func TestTicket_ExpiresAndEndsWithItsSession(t *testing.T) {
	e := newEnv(t, debugMode)
	c := e.mustVerify(e.mustLogin(e.newUser().GetEmail()).GetAccessToken())
	ticket := e.ticket(identity(c))
	ttl, err := e.rdb.PTTL(t.Context(), vaultKey(ticketKind, ticket)).Result()
	require.NoError(t, err)
	require.InDelta(t, 30, ttl.Seconds(), 2)
	require.NoError(t, e.rdb.PExpire(t.Context(), vaultKey(ticketKind, ticket), time.Millisecond).Err())
	time.Sleep(10 * time.Millisecond)
	_, err = e.redeem(ticket)
	requireReason(t, "ticket_invalid", err)

	ticket = e.ticket(identity(c))
	e.mustLogout(c)
	_, err = e.redeem(ticket)
	requireReason(t, "ticket_invalid", err, "its login session is over")
}

func TestTicket_Refuses(t *testing.T) {
	e := newEnv(t, debugMode)
	c := e.mustVerify(e.mustLogin(e.newUser().GetEmail()).GetAccessToken())
	for name, change := range map[string]func(*authv1.Identity){
		"no user": func(i *authv1.Identity) { i.UserId = 0 }, "huge user": func(i *authv1.Identity) { i.UserId = im.MaxID + 1 },
		"no session": func(i *authv1.Identity) { i.SessionId = "" }, "expired": func(i *authv1.Identity) { i.ExpiresAt = time.Now().Unix() - 1 },
	} {
		id := identity(c)
		change(id)
		_, err := e.IssueTicket(t.Context(), &authv1.IssueTicketRequest{Identity: id})
		requireReason(t, "ticket_invalid", err, name)
	}
	_, err := e.IssueTicket(t.Context(), &authv1.IssueTicketRequest{})
	requireReason(t, "ticket_invalid", err)

	good := e.ticket(identity(c))
	for _, bad := range []string{
		"", "x", good[1:], good + "A", strings.ToUpper(good), " " + good, "auth:ticket:" + good, "*", strings.Repeat("A", 43), strings.Repeat("A", 1<<16),
		"../" + good, good + "\x00", "' OR 1=1 --",
	} {
		_, err := e.redeem(bad)
		requireReason(t, "ticket_invalid", err, "%.50q", bad)
	}
	// An OAuth state is no ticket, and another user's session does not fit.
	state, err := e.vault.put(t.Context(), stateKind, []byte("{}"), time.Minute)
	require.NoError(t, err)
	_, err = e.redeem(state)
	requireReason(t, "ticket_invalid", err)
	id := identity(c)
	id.UserId = 1
	_, err = e.redeem(e.ticket(id))
	requireReason(t, "ticket_invalid", err, "the session is not that user's")
	_, err = e.redeem(good)
	require.NoError(t, err, "none of it spent the good one")
}
