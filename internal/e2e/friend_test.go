package e2e

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"im-services/internal/imclient"
)

// Both friends write without pause, through both gateways, while one of them
// ends the friendship: no message that was begun after the answer is accepted.
func TestG12_UnfriendEndsSendsAtOnce(t *testing.T) {
	a, b := friends(t)
	stored := 0
	for round := range 5 {
		var mu sync.Mutex
		begun := map[[2]int64]time.Duration{} // user, client message id
		var over time.Duration
		stop := make(chan struct{})
		var wg sync.WaitGroup
		accepted, refusedSends := 0, 0
		late := []string{}
		for n, u := range []*someone{a, b} {
			peer := []*someone{b, a}[n]
			s := dial(t, u, 1+(n+round)%2, "")
			written := make(chan int, 1)
			wg.Go(func() { // writes
				count := 0
				defer func() {
					written <- count
					// The pong makes the reader look at the count.
					_ = s.Write([]byte(`{"msg_code":1004,"message":"ping"}`))
				}()
				for i := int64(1); ; i++ {
					select {
					case <-stop:
						return
					case <-time.After(500 * time.Microsecond):
					}
					id := int64(round+1)*1_000_000 + i
					mu.Lock()
					begun[[2]int64{u.ID, id}] = imclient.Now()
					mu.Unlock()
					m := imclient.Outgoing{ClientID: id, To: peer.ID, Text: "x"}
					if err := s.Write(imclient.AppendChat(nil, u.ID, &m)); err != nil {
						t.Error(err)
						return
					}
					count++
				}
			})
			wg.Go(func() { // reads until everything is answered
				want, got := -1, 0
				for want < 0 || got < want {
					f, err := s.Read(10 * time.Second)
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					switch f.Code {
					case imclient.CodeAck:
						got++
						accepted++
						if at := begun[[2]int64{u.ID, f.ClientID}]; over > 0 && at > over {
							late = append(late, fmt.Sprintf("message begun %s after the end was accepted", at-over))
						}
					case imclient.CodeNotAllowed:
						got++
						refusedSends++
					case imclient.CodeError:
						got++
						t.Errorf("%s", f.Raw)
					}
					mu.Unlock()
					if want < 0 {
						select {
						case want = <-written:
						default:
						}
					}
				}
			})
		}
		time.Sleep(150 * time.Millisecond)
		require.NoError(t, a.api.Unfriend(soon(t), b.ID))
		mu.Lock()
		over = imclient.Now()
		mu.Unlock()
		time.Sleep(150 * time.Millisecond)
		close(stop)
		wg.Wait()
		require.Empty(t, late)
		require.Positive(t, accepted)
		require.Positive(t, refusedSends)
		stored += accepted

		for _, u := range []*someone{a, b} {
			peer := map[*someone]*someone{a: b, b: a}[u]
			_, err := u.api.Send(soon(t), &imclient.Outgoing{ClientID: 9e9, To: peer.ID, Text: "by HTTP"})
			require.Equal(t, 1003, imclient.CodeOf(err), "%v", err)
		}
		befriend(t, b, a)
	}
	rows, err := a.api.History(soon(t), imclient.Private, b.ID)
	require.NoError(t, err)
	require.Len(t, rows, stored, "what was accepted is there, across all friendships, and nothing else")
}

func TestFriendRequests_WhatDoesNotFitIsRefused(t *testing.T) {
	a, b, c := newUser(t, 1), newUser(t, 2), newUser(t, 1)
	ctx := soon(t)
	ask := func(u *someone, to string) error {
		return u.api.Call(ctx, http.MethodPost, "/api/friends/record", url.Values{"to_id": {to}, "information": {"hi"}}, nil)
	}
	id := func(u *someone) string { return strconv.FormatInt(u.ID, 10) }
	require.Equal(t, 1000, imclient.CodeOf(ask(a, id(a))), "to oneself")
	require.Equal(t, 1000, imclient.CodeOf(ask(a, "9007199254740991")), "to nobody")
	for _, bad := range []string{"", "0", "-1", "x", "1.5", "null", "9007199254740993"} {
		require.Equal(t, 1000, imclient.CodeOf(ask(a, bad)), "to %q", bad)
	}
	record, err := a.api.AskFriend(ctx, b.ID)
	require.NoError(t, err)
	require.Equal(t, 1000, imclient.CodeOf(ask(a, id(b))), "already waiting")
	require.Equal(t, 1000, imclient.CodeOf(ask(b, id(a))), "the other one waits")

	require.Equal(t, 500, imclient.CodeOf(a.api.AnswerFriend(ctx, record, true)), "one's own request")
	require.Equal(t, 500, imclient.CodeOf(c.api.AnswerFriend(ctx, record, true)), "somebody else's")
	require.Equal(t, 500, imclient.CodeOf(b.api.AnswerFriend(ctx, record+1_000_000, true)), "unknown")
	_, err = a.api.Send(ctx, &imclient.Outgoing{ClientID: 1, To: b.ID, Text: "too early"})
	require.Equal(t, 1003, imclient.CodeOf(err))

	require.NoError(t, b.api.AnswerFriend(ctx, record, false))
	require.Equal(t, 500, imclient.CodeOf(b.api.AnswerFriend(ctx, record, true)), "refused already")
	record, err = a.api.AskFriend(ctx, b.ID)
	require.NoError(t, err, "again after a refusal")
	require.NoError(t, b.api.AnswerFriend(ctx, record, true))
	require.Equal(t, 500, imclient.CodeOf(b.api.AnswerFriend(ctx, record, true)), "accepted already")
	require.Equal(t, 1000, imclient.CodeOf(ask(b, id(a))), "friends already")
	_, err = a.api.Send(ctx, &imclient.Outgoing{ClientID: 1, To: b.ID, Text: "now"})
	require.NoError(t, err)
	_, err = a.api.Send(ctx, &imclient.Outgoing{ClientID: 2, To: a.ID, Text: "to myself"})
	require.Equal(t, 1003, imclient.CodeOf(err))

	require.NoError(t, b.api.Unfriend(ctx, a.ID))
	require.NoError(t, b.api.Unfriend(ctx, a.ID), "twice")
	require.NoError(t, b.api.Unfriend(ctx, c.ID), "nobody's friend")
}

// Friend frames work both ways over the socket.
func TestFriendFrames_OverTheSocket(t *testing.T) {
	a, b := newUser(t, 1), newUser(t, 2)
	sa, sb := dial(t, a, 1, ""), dial(t, b, 2, "")
	require.NoError(t, sa.Write(fmt.Appendf(nil, `{"msg_code":1000,"to_id":%d,"information":"it's me","msg_client_id":3}`, b.ID)))
	ack := *next(t, sa, imclient.CodeAck, imclient.CodeError)
	require.EqualValues(t, 3, ack.ClientID)
	request := next(t, sb, imclient.CodeRequest)
	require.Equal(t, ack.ID, request.ID)
	require.NoError(t, sb.Write(fmt.Appendf(nil, `{"msg_code":1001,"id":%d}`, ack.ID)))
	require.Equal(t, ack.ID, next(t, sb, imclient.CodeAck, imclient.CodeError).ID)
	require.Equal(t, ack.ID, next(t, sa, imclient.CodeAccepted).ID)
	require.NoError(t, sb.Write(fmt.Appendf(nil, `{"msg_code":1002,"id":%d,"msg_client_id":4}`, ack.ID)))
	require.EqualValues(t, 4, next(t, sb, imclient.CodeError, imclient.CodeAck).ClientID)
}

// With logic away nobody is told that a friendship has ended when messages
// could still pass; once logic is back the end takes effect by itself.
func TestG12_UnfriendWhileLogicIsAway(t *testing.T) {
	t.Cleanup(func() { healthy(t) })
	a, b := friends(t)
	for _, name := range []string{"logic-1", "logic-2"} {
		system.Process(name).Halt()
	}
	err := a.api.Unfriend(soon(t), b.ID)
	require.NotZero(t, imclient.CodeOf(err), "an explicit refusal: %v", err)
	for _, name := range []string{"logic-1", "logic-2"} {
		require.NoError(t, system.Process(name).Start(soon(t)))
	}
	begin := time.Now()
	for i := int64(1); ; i++ {
		_, err := b.api.Send(soon(t), &imclient.Outgoing{ClientID: i, To: a.ID, Text: "still?"})
		if imclient.CodeOf(err) == 1003 {
			break
		}
		require.Less(t, time.Since(begin), 15*time.Second, "the end of the friendship never took effect: %v", err)
		time.Sleep(100 * time.Millisecond)
	}
	t.Logf("took effect %s after logic was back", time.Since(begin).Round(time.Millisecond))
	require.NoError(t, a.api.Unfriend(soon(t), b.ID))
}
