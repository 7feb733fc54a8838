package imclient

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server is a gateway as a test wants it: serve gets each connection in turn.
type server struct {
	*httptest.Server
	mu    sync.Mutex
	conns int
}

// peer is the server's end of a connection.
type peer struct {
	t *testing.T
	*websocket.Conn
	n int
}

func newServer(t *testing.T, serve func(p *peer)) *server {
	s := &server{}
	up := websocket.Upgrader{}
	var serving atomic.Int32
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		serving.Add(1)
		defer serving.Add(-1)
		if r.URL.Query().Get("token") != "secret" {
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = w.Write([]byte(`{"code":401,"message":"no","data":{}}`))
			return
		}
		c, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer func() { _ = c.Close() }()
		s.mu.Lock()
		s.conns++
		n := s.conns
		s.mu.Unlock()
		serve(&peer{t: t, Conn: c, n: n})
	}))
	t.Cleanup(func() {
		s.Close()
		for serving.Load() > 0 { // upgraded connections end with their clients
			time.Sleep(time.Millisecond)
		}
	})
	return s
}

// chat reads the next chat frame, passing over heartbeats; nil at the end.
func (p *peer) chat() *Frame {
	for {
		_, b, err := p.ReadMessage()
		if err != nil {
			return nil
		}
		f := &Frame{}
		if err := f.Parse(b); err != nil {
			p.t.Error(err)
		}
		if f.Code == CodeChat {
			return f
		}
	}
}

func (p *peer) write(format string, args ...any) {
	_ = p.WriteMessage(websocket.TextMessage, fmt.Appendf(nil, format, args...))
}

func (p *peer) ack(f *Frame, seq int64) {
	p.write(`{"ack":1,"msg_code":1005,"msg_id":%d,"msg_client_id":%d,"seq":%d,"conversation_id":7}`, 100+seq, f.ClientID, seq)
}

func (p *peer) push(seq int64) {
	p.write(`{"msg_code":200,"msg_id":%d,"msg_client_id":%d,"form_id":2,"to_id":1,"msg_type":1,"channel_type":1,"message":"m%d","data":"","seq":%d,"conversation_id":7}`, 100+seq, seq, seq, seq)
}

func start(t *testing.T, s *server, cfg Config) *Client {
	t.Helper()
	cfg.User = User{ID: 1, Token: "secret"}
	cfg.Addresses = []string{s.URL}
	cfg.BackoffMin, cfg.BackoffMax = 5*time.Millisecond, 20*time.Millisecond
	c := Start(cfg)
	t.Cleanup(c.Close)
	return c
}

func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestClient_ResendsInOrderAfterReconnect(t *testing.T) {
	var mu sync.Mutex
	var got [][]int64
	s := newServer(t, func(p *peer) {
		var ids []int64
		for f := p.chat(); f != nil; f = p.chat() {
			ids = append(ids, f.ClientID)
			switch {
			case p.n == 1 && len(ids) == 1:
				p.ack(f, 1) // the rest is lost with the connection
			case p.n == 1 && len(ids) == 5:
				mu.Lock()
				got = append(got, ids)
				mu.Unlock()
				return
			case p.n == 2:
				if len(ids) == 4 {
					mu.Lock()
					got = append(got, ids)
					mu.Unlock()
				}
				p.ack(f, int64(len(ids)+1))
			}
		}
	})
	var settled []int64
	done := make(chan struct{})
	c := start(t, s, Config{FirstClientID: 50, OnSettled: func(s *Settled) {
		mu.Lock()
		defer mu.Unlock()
		require.True(t, s.Acked || s.Unknown)
		if settled = append(settled, s.ClientID); len(settled) == 5 {
			close(done)
		}
	}})
	for i := range 5 {
		_, err := c.Post(soon(t), Outgoing{To: 2, Text: fmt.Sprint(i)})
		require.NoError(t, err)
	}
	<-done
	mu.Lock()
	defer mu.Unlock()
	require.Equal(t, [][]int64{{50, 51, 52, 53, 54}, {51, 52, 53, 54}}, got)
	require.Equal(t, []int64{50, 51, 52, 53, 54}, settled)
	st := c.Stats()
	require.Equal(t, Stats{Connects: 2, Acked: 5, Resent: 4}, st)
	require.Equal(t, []Cursor{{7, 5}}, c.Cursors())
}

func TestClient_ShowsEachMessageOnce_AndSaysWhichWereLate(t *testing.T) {
	hold := make(chan struct{})
	s := newServer(t, func(p *peer) {
		if p.n == 1 {
			p.push(1)
			p.push(2)
			p.push(2)
			return
		}
		p.push(2) // replayed: the server did not know that it had arrived
		p.push(4)
		p.push(3)
		p.push(5)
		<-hold
	})
	defer close(hold)
	type shown struct {
		seq  int64
		late bool
		text string
	}
	var got []shown
	done := make(chan struct{})
	var history bytes.Buffer
	h := NewHistory(&history)
	c := start(t, s, Config{Record: h.Add, OnMessage: func(f *Frame, late bool) {
		if got = append(got, shown{f.Seq, late, f.Text()}); f.Seq == 5 {
			close(done)
		}
	}})
	<-done
	require.Equal(t, []shown{{1, false, "m1"}, {2, false, "m2"}, {4, false, "m4"}, {3, true, "m3"}, {5, false, "m5"}}, got)
	st := c.Stats()
	require.Equal(t, Stats{Connects: 2, Shown: 5, Late: 1, Duplicates: 2}, st)

	require.NoError(t, h.Close())
	var pushes []string
	for line := range bytes.Lines(history.Bytes()) {
		var e struct {
			I      int
			Client int64
			Type   string
			F      string
			Args   struct{ Text string }
			Ret    struct{ Seq, Conv int64 }
		}
		require.NoError(t, json.Unmarshal(line, &e), string(line))
		require.EqualValues(t, 1, e.Client)
		if e.F == OpPush {
			pushes = append(pushes, fmt.Sprint(e.Type, e.Ret.Seq, e.Args.Text))
		}
	}
	require.Equal(t, []string{"ok1m1", "ok2m2", "fail2m2", "fail2m2", "ok4m4", "info3m3", "ok5m5"}, pushes)
}

func TestClient_AnAckOvertakingAPushMakesNobodyLate(t *testing.T) {
	hold := make(chan struct{})
	s := newServer(t, func(p *peer) {
		p.ack(p.chat(), 2)
		p.push(1)
		<-hold
	})
	defer close(hold)
	late := make(chan bool, 1)
	c := start(t, s, Config{OnMessage: func(_ *Frame, l bool) { late <- l }})
	_, err := c.Send(soon(t), Outgoing{To: 2, Text: "x"})
	require.NoError(t, err)
	require.False(t, <-late)
	require.Equal(t, []Cursor{{7, 2}}, c.Cursors())
}

func TestClient_RefusalsEndOrRetry(t *testing.T) {
	s := newServer(t, func(p *peer) {
		tries := 0
		for f := p.chat(); f != nil; f = p.chat() {
			switch {
			case f.To == 3:
				p.write(`{"msg_code":1003,"message":"no friend","form_id":1,"to_id":3,"channel_type":1,"msg_client_id":%d,"reason":"not_friends"}`, f.ClientID)
			case tries == 0:
				tries++
				p.write(`{"msg_code":500,"message":"away","msg_client_id":%d,"reason":"service_unavailable"}`, f.ClientID)
			default:
				p.ack(f, 1)
			}
		}
	})
	c := start(t, s, Config{})
	refusal, err := c.Send(soon(t), Outgoing{To: 3, Text: "x"})
	require.NoError(t, err)
	require.Equal(t, CodeNotAllowed, refusal.Code)
	require.Equal(t, "not_friends", refusal.Reason)
	require.False(t, refusal.Acked)
	ok, err := c.Send(soon(t), Outgoing{To: 2, Text: "x"})
	require.NoError(t, err)
	require.True(t, ok.Acked)
	require.EqualValues(t, 1, ok.Seq)
	require.Equal(t, Stats{Connects: 1, Acked: 1, Refused: 1, Resent: 1}, c.Stats())
}

func TestClient_NoAnswer_SendsAgainOnTheSameConnection(t *testing.T) {
	s := newServer(t, func(p *peer) {
		first := p.chat()
		if again := p.chat(); again == nil || first.ClientID != again.ClientID || first.Text() != again.Text() {
			t.Errorf("sent %v, then %v", first, again)
		}
		p.ack(first, 1)
		p.chat()
	})
	c := start(t, s, Config{AckTimeout: 50 * time.Millisecond})
	ok, err := c.Send(soon(t), Outgoing{To: 2, Text: "x"})
	require.NoError(t, err)
	require.True(t, ok.Acked)
	require.Equal(t, 1, c.Stats().Connects)
}

func TestClient_NoAnswer_AsksHalfAsOftenAfterTheFirstTime(t *testing.T) {
	const first = 2 * sweepEvery
	times := make(chan time.Time, 100)
	s := newServer(t, func(p *peer) {
		for p.chat() != nil {
			times <- time.Now()
		}
	})
	c := start(t, s, Config{AckTimeout: first})
	_, err := c.Post(soon(t), Outgoing{To: 2, Text: "x"})
	require.NoError(t, err)
	last := <-times
	for n, wait := range []time.Duration{first, 2 * first, 2 * first} {
		now := <-times
		require.GreaterOrEqual(t, now.Sub(last)+5*time.Millisecond, wait, "attempt %d", n+2)
		require.Less(t, now.Sub(last), wait+2*sweepEvery, "attempt %d: no longer than a fault lasts", n+2)
		last = now
	}
}

func TestClient_Refused_AsksLessOften_ByFourTimesAtMost(t *testing.T) {
	const first, ackTimeout = 2 * sweepEvery, time.Second
	times := make(chan time.Time, 100)
	s := newServer(t, func(p *peer) {
		for n := 0; ; n++ {
			f := p.chat()
			if f == nil {
				return
			}
			times <- time.Now()
			if n < 4 {
				p.write(`{"msg_code":500,"message":"busy","msg_client_id":%d,"reason":"overloaded"}`, f.ClientID)
			}
		}
	})
	c := start(t, s, Config{AckTimeout: ackTimeout, Retry: func(*Frame) time.Duration { return first }})
	_, err := c.Post(soon(t), Outgoing{To: 2, Text: "x"})
	require.NoError(t, err)
	last := <-times
	for n, wait := range []time.Duration{first, 2 * first, 4 * first, 4 * first, ackTimeout} { // the last one: no answer
		now := <-times
		require.GreaterOrEqual(t, now.Sub(last)+5*time.Millisecond, wait, "attempt %d", n+2)
		require.Less(t, now.Sub(last), wait+2*sweepEvery, "attempt %d", n+2)
		last = now
	}
}

func TestClient_WaitsAreCountedAnewOnANewConnection(t *testing.T) {
	p := &pending{ignored: 3, refused: 3, on: 1}
	c := &Client{cfg: Config{AckTimeout: time.Second}, conn: 2}
	c.frameLocked(nil, p, time.Now())
	require.Equal(t, time.Second, p.patience(time.Second))
	p.refused++
	require.Equal(t, time.Second, p.pause(time.Second))
}

// mute is the address of a server that takes connections and says nothing.
func mute(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	return "http://" + l.Addr().String()
}

func TestClient_DeadSilenceIsALostHandshake(t *testing.T) {
	s := newServer(t, func(p *peer) { p.chat() })
	c := Start(Config{User: User{ID: 1, Token: "secret"}, Addresses: []string{mute(t), s.URL}, Silence: 100 * time.Millisecond})
	defer c.Close()
	require.NoError(t, c.WaitConnected(soon(t)), "it waits for a handshake for longer than for anything else")
}

func TestClient_CloseEndsAHandshake(t *testing.T) {
	c := Start(Config{User: User{ID: 1, Token: "secret"}, Addresses: []string{mute(t)}})
	time.Sleep(50 * time.Millisecond)
	began := time.Now()
	c.Close()
	require.Less(t, time.Since(began), 2*time.Second)
}

func TestClient_Window(t *testing.T) {
	const window, posts = 4, 20
	var most atomic.Int64
	s := newServer(t, func(p *peer) {
		// What is on its way when nothing is answered for a while is the window.
		var waiting []*Frame
		frames := make(chan *Frame, posts)
		go func() {
			defer close(frames)
			for f := p.chat(); f != nil; f = p.chat() {
				frames <- f
			}
		}()
		for {
			select {
			case f, ok := <-frames:
				if !ok {
					return
				}
				waiting = append(waiting, f)
				most.Store(max(most.Load(), int64(len(waiting))))
			case <-time.After(30 * time.Millisecond):
				for _, f := range waiting {
					p.ack(f, f.ClientID)
				}
				waiting = nil
				if p.n == 1 && most.Load() == window {
					return // the window of the next connection begins empty
				}
			}
		}
	})
	c := start(t, s, Config{Window: window, FirstClientID: 1})
	for range posts {
		_, err := c.Post(soon(t), Outgoing{To: 2, Text: "x"})
		require.NoError(t, err)
	}
	require.Eventually(t, func() bool { return c.Stats().Acked == posts }, 10*time.Second, time.Millisecond)
	require.EqualValues(t, window, most.Load())
	require.GreaterOrEqual(t, c.Stats().Connects, 2)
}

func TestClient_DeadSilenceIsALostConnection(t *testing.T) {
	hold := make(chan struct{})
	s := newServer(t, func(p *peer) {
		if p.n == 1 {
			<-hold
			return
		}
		p.push(1)
		<-hold
	})
	defer close(hold)
	got := make(chan struct{})
	start(t, s, Config{Silence: 50 * time.Millisecond, OnMessage: func(*Frame, bool) { close(got) }})
	select {
	case <-got:
	case <-time.After(5 * time.Second):
		t.Fatal("stayed on a dead connection")
	}
}

func TestClient_EndsForGood(t *testing.T) {
	s := newServer(t, func(p *peer) {
		_ = p.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(4001, "replaced"), time.Now().Add(time.Second))
		p.chat()
	})
	c := start(t, s, Config{})
	require.Eventually(t, func() bool { return c.Err() != nil }, 5*time.Second, time.Millisecond)
	require.ErrorIs(t, c.Err(), ErrEnded)
	require.Equal(t, 1, c.Stats().Connects, "displaced: it does not fight for its place")
	_, err := c.Post(soon(t), Outgoing{To: 2, Text: "x"})
	require.ErrorIs(t, err, ErrEnded)

	bad := Start(Config{User: User{ID: 1, Token: "expired"}, Addresses: []string{s.URL}})
	defer bad.Close()
	require.Eventually(t, func() bool { return bad.Err() != nil }, 5*time.Second, time.Millisecond)
	var refused *HandshakeError
	require.ErrorAs(t, bad.Err(), &refused)
	require.Equal(t, 401, refused.Code)
	require.NotContains(t, bad.Err().Error(), "expired")
}

func TestClient_CloseReportsTheUnknown(t *testing.T) {
	s := newServer(t, func(p *peer) {
		for p.chat() != nil {
		}
	})
	var settled []Settled
	c := start(t, s, Config{MaxPending: 2, OnSettled: func(s *Settled) { settled = append(settled, *s) }})
	for range 2 {
		_, err := c.Post(soon(t), Outgoing{To: 2, Text: "x"})
		require.NoError(t, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := c.Post(ctx, Outgoing{To: 2, Text: "too many"})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	c.Close()
	require.Len(t, settled, 2)
	require.True(t, settled[0].Unknown && settled[1].Unknown)
}

func TestClient_TokenNeverInErrors(t *testing.T) {
	_, err := Dial(soon(t), "http://127.0.0.1:1", "my-secret-token", DialOptions{})
	require.Error(t, err)
	require.NotContains(t, err.Error(), "my-secret-token")
}
