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
	"im-services/internal/testkit"
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

func TestG16_ParallelRedeemOfATicketHasOneWinner(t *testing.T) {
	e := newEnv(t, debugMode)
	other := e.replica(debugMode)
	ticket := e.ticket(identity(e.mustVerify(e.mustLogin(e.newUser().GetEmail()).GetAccessToken())))
	var won atomic.Int64
	var wg sync.WaitGroup
	for i := range 20 {
		s := []*env{e, other}[i%2]
		wg.Go(func() {
			_, err := s.RedeemTicket(context.Background(), &authv1.RedeemTicketRequest{Ticket: ticket})
			if err == nil {
				won.Add(1)
			} else if im.ReasonOf(err) != "ticket_invalid" {
				t.Errorf("unexpected: %v", err)
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 1, won.Load())
}

// Who is told that the service is unavailable keeps his ticket for the next try,
// and it is good for one.
func TestG16_TicketIsNotSpentWhileTheDatabaseIsAway(t *testing.T) {
	server := testkit.StartMySQL(t)
	e := &env{t: t, dsn: server.DSN, redis: testkit.StartRedis(t), redisTimeout: 2 * time.Second}
	migrate(t, e.dsn)
	e.start(debugMode, func(c *Config) { c.TicketTTL = 5 * time.Minute }) // the database takes its time to come back
	id := identity(e.mustVerify(e.mustLogin(e.newUser().GetEmail()).GetAccessToken()))
	res, err := e.IssueTicket(t.Context(), &authv1.IssueTicketRequest{Identity: id})
	require.NoError(t, err)
	server.Kill()
	_, err = e.redeem(res.GetTicket())
	requireReason(t, "service_unavailable", err)
	server.Restart()
	var got *authv1.Identity
	require.Eventually(t, func() bool {
		got, err = e.redeem(res.GetTicket())
		return im.KindOf(err) != im.KindUnavailable
	}, 10*time.Second, 100*time.Millisecond)
	require.NoError(t, err)
	require.True(t, proto.Equal(id, got))
	_, err = e.redeem(res.GetTicket())
	requireReason(t, "ticket_invalid", err)
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
	state, _ := e.newState("github", "", time.Now().Add(time.Minute))
	_, err = e.redeem(state)
	requireReason(t, "ticket_invalid", err)
	id := identity(c)
	id.UserId = 1
	_, err = e.redeem(e.ticket(id))
	requireReason(t, "ticket_invalid", err, "the session is not that user's")
	_, err = e.redeem(good)
	require.NoError(t, err, "none of it spent the good one")
}
