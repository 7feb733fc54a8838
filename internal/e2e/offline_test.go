package e2e

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"im-services/internal/imclient"
)

// sendAll sends n messages as a client would, pipelined, and waits until all
// are acknowledged.
func sendAll(t testing.TB, from *someone, gateway int, channel int, to int64, n int) {
	t.Helper()
	var wg sync.WaitGroup
	wg.Add(n)
	c := imclient.Start(imclient.Config{User: from.User, Addresses: gateways(gateway), OnSettled: func(s *imclient.Settled) {
		if !s.Acked {
			t.Errorf("message %d: %+v", s.ClientID, s)
		}
		wg.Done()
	}})
	defer c.Close()
	for i := range n {
		_, err := c.Post(soon(t), imclient.Outgoing{Channel: channel, To: to, Text: fmt.Sprintf("number %d", i+1)})
		require.NoError(t, err)
	}
	wg.Wait()
}

// expect reads n messages of a conversation, from seq first on, each once and in order.
func expect(t testing.TB, s *imclient.Socket, first int64, n int) {
	t.Helper()
	for i := range n {
		f := next(t, s, imclient.CodeChat)
		require.Equal(t, first+int64(i), f.Seq, "%s", f.Raw)
		require.Equal(t, fmt.Sprintf("number %d", f.Seq), f.Text())
	}
}

// A thousand messages wait for a user who is away: all of them come when he
// connects, to whichever gateway, once and in order, and not again after that.
func TestG1_ThousandMessagesWhileOffline(t *testing.T) {
	a, b := friends(t)
	here := dial(t, b, 2, "")
	quiet(t, here)
	here.Shut()

	sendAll(t, a, 1, imclient.Private, b.ID, 1000)
	back := dial(t, b, 1, "")
	expect(t, back, 1, 1000)
	linger(t, back, 2*time.Second) // the pong after the frames proves receipt; it is noted within 200 ms
	back.Cut()

	again := dial(t, b, 2, "")
	linger(t, again, 300*time.Millisecond)
	_, err := a.api.Send(soon(t), &imclient.Outgoing{ClientID: 5, To: b.ID, Text: "number 1001"})
	require.NoError(t, err)
	expect(t, again, 1001, 1)
}

// The connection breaks again and again during the replay: every message is
// shown once, in order.
func TestG4_ReplayIsCutShort_NothingMissedNothingTwice(t *testing.T) {
	a, b := friends(t)
	const n = 500
	sendAll(t, a, 1, imclient.Private, b.ID, n)
	var mu sync.Mutex
	var seqs []int64
	done := make(chan struct{})
	var c *imclient.Client
	ready := make(chan struct{})
	c = imclient.Start(imclient.Config{User: b.User, Addresses: gateways(1), OnMessage: func(f *imclient.Frame, late bool) {
		<-ready
		mu.Lock()
		defer mu.Unlock()
		seqs = append(seqs, f.Seq)
		if late {
			t.Errorf("seq %d came late", f.Seq)
		}
		switch {
		case len(seqs) == n:
			close(done)
		case len(seqs)%120 == 0:
			c.Cut()
		}
	}})
	defer c.Close()
	close(ready)
	select {
	case <-done:
	case <-soon(t).Done():
		t.Fatalf("%d of %d messages came", len(seqs), n)
	}
	for i, seq := range seqs {
		require.EqualValues(t, i+1, seq)
	}
	require.GreaterOrEqual(t, c.Stats().Connects, 4)
}

// People lose their connections all the time while they talk.
func TestG4_ReconnectsUnderLoad(t *testing.T) {
	l := newLoad(t, loadOptions{pairs: 3, group: 4, rate: 300})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(50 * time.Millisecond):
				l.people[rand.N(len(l.people))].client.Cut() //nolint:gosec // a test's dice
			}
		}
	})
	l.run(5 * time.Second)
	close(stop)
	wg.Wait()
	l.settle()
	l.check()
	cuts := 0
	for _, p := range l.people {
		cuts += p.client.Stats().Connects - 1
	}
	require.Greater(t, cuts, 20)
}

// Fetching the first page of a conversation's history counts its rows as
// delivered; older ones still come.
func TestD12_FirstPageOfHistoryIsNotReplayed(t *testing.T) {
	a, b := friends(t)
	sendAll(t, a, 1, imclient.Private, b.ID, 50)
	rows, total, err := b.api.Page(soon(t), imclient.Private, a.ID, 0, 20)
	require.NoError(t, err)
	require.Equal(t, 50, total)
	require.Len(t, rows, 20)
	require.EqualValues(t, 31, rows[0].Seq)
	s := dial(t, b, 2, "")
	expect(t, s, 1, 30)
	linger(t, s, 200*time.Millisecond)
	_, err = a.api.Send(soon(t), &imclient.Outgoing{ClientID: 5, To: b.ID, Text: "number 51"})
	require.NoError(t, err)
	expect(t, s, 51, 1)
}

// A group's messages wait for a member who is away, too.
func TestG1_GroupMessagesWhileOffline(t *testing.T) {
	a, b := friends(t)
	group, err := a.api.CreateGroup(soon(t), "offline", b.ID)
	require.NoError(t, err)
	first := dial(t, b, 2, "")
	for range 10 { // notices of the new group may come
		require.NoError(t, first.Write([]byte(`{"msg_code":1004,"message":"ping"}`)))
		next(t, first, imclient.CodeHeartbeat)
		time.Sleep(30 * time.Millisecond)
	}
	first.Shut()
	sendAll(t, a, 1, imclient.Group, group, 100)
	s := dial(t, b, 1, "")
	last := int64(0)
	for n := 0; n < 100; {
		f := next(t, s, imclient.CodeChat)
		require.Greater(t, f.Seq, last)
		last = f.Seq
		if f.Type == notice {
			continue
		}
		n++
		require.Equal(t, fmt.Sprintf("number %d", n), f.Text())
	}
	quiet(t, s)
}

// A client that keeps cursors gets by sync what it would get by push, and is
// told when it has everything.
func TestG7_SyncIsWhole(t *testing.T) {
	a, b := friends(t)
	sendAll(t, a, 1, imclient.Private, b.ID, 250)
	cursors, seqs := map[int64]int64{}, []int64{}
	for round := 0; ; round++ {
		require.Less(t, round, 20, "never complete")
		var list []imclient.Cursor
		for conv, seq := range cursors {
			list = append(list, imclient.Cursor{Conversation: conv, Seq: seq})
		}
		answer, err := b.api.Sync(soon(t), "", list)
		require.NoError(t, err)
		for _, conv := range answer.Conversations {
			for _, raw := range conv.Messages {
				var f imclient.Frame
				require.NoError(t, f.Parse(raw))
				require.Equal(t, conv.Conversation, f.Conversation)
				if f.From == a.ID {
					seqs = append(seqs, f.Seq)
				}
			}
			cursors[conv.Conversation] = conv.Seq
		}
		if answer.Complete {
			break
		}
	}
	require.Len(t, seqs, 250)
	for i, seq := range seqs {
		require.EqualValues(t, i+1, seq)
	}
}

// What waits for whom is nobody else's: a stranger's history and sync show nothing.
func TestG10_StrangersSeeNothing(t *testing.T) {
	a, b := friends(t)
	stranger := newUser(t, 2)
	sendAll(t, a, 1, imclient.Private, b.ID, 3)
	for _, other := range []*someone{a, b} {
		rows, total, err := stranger.api.Page(soon(t), imclient.Private, other.ID, 0, 50)
		if err == nil {
			require.Empty(t, rows)
			require.Zero(t, total)
		}
	}
	answer, err := stranger.api.Sync(soon(t), "", nil)
	require.NoError(t, err)
	for _, conv := range answer.Conversations {
		for _, raw := range conv.Messages {
			require.NotContains(t, string(raw), "number ")
		}
	}
	var page struct {
		List []any `json:"list"`
	}
	require.NoError(t, stranger.api.Call(soon(t), http.MethodGet, "/api/messages", url.Values{"to_id": {"0"}, "page": {""}, "pageSize": {"20"}}, &page))
	require.Empty(t, page.List)
}
