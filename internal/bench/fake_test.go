package bench

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"im-services/internal/bench/crowd"
	"im-services/internal/bench/lean"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server is a small server of the protocol, with the faults that a test asks for.
type server struct {
	fault func(n int64) string // of the n-th message over all; "" for none
	reply func(n int64) string // instead of the ack: "refuse", "silent", or ""

	up     websocket.Upgrader
	wg     sync.WaitGroup
	mu     sync.Mutex // guards the following fields
	users  map[int64][]*fakeConn
	groups map[int64][]int64
	seqs   map[string]int64
	stored map[string]int64 // sender and key: the seq it got
	away   map[int64][][]byte
	sent   int64
	held   map[int64][]byte
	conns  int
	cutOff int64 // whose connection was cut
	after  int   // how many new messages he sent after
}

type fakeConn struct {
	mu sync.Mutex
	ws *websocket.Conn
}

func (c *fakeConn) write(p []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.ws.WriteMessage(websocket.TextMessage, p)
}

func fake(t *testing.T, s *server) *Target {
	t.Helper()
	s.users, s.groups, s.seqs = map[int64][]*fakeConn{}, map[int64][]int64{}, map[string]int64{}
	s.stored, s.away, s.held = map[string]int64{}, map[int64][][]byte{}, map[int64][]byte{}
	srv := httptest.NewServer(s)
	t.Cleanup(func() {
		srv.Close()
		s.wg.Wait()
	})
	return &Target{
		Name: "system", Gateways: []string{srv.URL, srv.URL},
		People: &anyone{tell: func(_ context.Context, g crowd.Group) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.groups[g.ID] = g.Members
			return nil
		}},
	}
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.ParseInt(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "), 10, 64)
	if err != nil {
		http.Error(w, "no user", http.StatusUnauthorized)
		return
	}
	ws, err := s.up.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	s.wg.Add(1)
	defer s.wg.Done()
	c := &fakeConn{ws: ws}
	s.mu.Lock()
	s.conns++
	waiting := s.away[id]
	delete(s.away, id)
	c.mu.Lock()
	s.users[id] = append(s.users[id], c)
	s.mu.Unlock()
	for _, p := range waiting {
		_ = ws.WriteMessage(websocket.TextMessage, p)
	}
	c.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.removeLocked(id, c)
		s.mu.Unlock()
		_ = ws.Close()
	}()
	for {
		_, p, err := ws.ReadMessage()
		if err != nil {
			return
		}
		var f lean.Frame
		if !lean.Parse(p, &f) {
			return
		}
		switch f.Code {
		case lean.CodeHeartbeat:
			c.write([]byte(`{"msg_code":1004,"message":"pong"}`))
		case lean.CodeChat:
			if !s.chat(c, id, &f) {
				// What was pushed before must still arrive: nothing is replayed here.
				_ = ws.UnderlyingConn().(*net.TCPConn).CloseWrite()
				_, _ = io.Copy(io.Discard, ws.UnderlyingConn())
				return
			}
		}
	}
}

func (s *server) removeLocked(id int64, c *fakeConn) {
	s.users[id] = slices.DeleteFunc(slices.Clone(s.users[id]), func(other *fakeConn) bool { return other == c })
}

// chat stores and pushes a message; false ends the sender's connection, which
// gets no more pushes.
func (s *server) chat(c *fakeConn, from int64, f *lean.Frame) bool {
	conversation := f.To
	to := []int64{f.To}
	if f.Kind == kindPrivate {
		conversation = min(from, f.To)*1000 + max(from, f.To)
	} else {
		to = s.groups[f.To]
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	key := fmt.Sprint(from, ":", f.ClientMsgID)
	seq, again := s.stored[key]
	if !again {
		s.sent++
	}
	n := s.sent
	mute := false
	if s.reply != nil && !again {
		switch s.reply(n) {
		case "refuse":
			c.write(fmt.Appendf(nil, `{"msg_code":500,"message":"no","reason":"overloaded","msg_client_id":%d}`, f.ClientMsgID))
			return true
		case "contradict": // refused in words, and stored below
			c.write(fmt.Appendf(nil, `{"msg_code":500,"message":"no","reason":"overloaded","msg_client_id":%d}`, f.ClientMsgID))
			mute = true
		case "silent":
			return true
		case "cut":
			s.removeLocked(from, c)
			s.cutOff = from
			return false
		}
	}
	if !again {
		s.seqs[strconv.FormatInt(conversation, 10)]++
		seq = s.seqs[strconv.FormatInt(conversation, 10)]
		s.stored[key] = seq
		if from == s.cutOff {
			s.after++
		}
	}
	what := ""
	if s.fault != nil {
		what = s.fault(n)
	}
	ackSeq := seq
	if what == "disagree" {
		ackSeq += 5
	}
	ack := fmt.Appendf(nil, `{"ack":1,"msg_code":1005,"msg_id":%d,"msg_client_id":%d,"seq":%d,"conversation_id":%d}`, n, f.ClientMsgID, ackSeq, conversation)
	if !mute {
		c.write(ack)
	}
	if again {
		return true
	}
	text := string(f.Text)
	if what == "alter" {
		text = "x" + text[1:]
	}
	p := fmt.Appendf(nil, `{"msg_id":%d,"msg_client_id":%d,"msg_code":200,"form_id":%d,"to_id":%d,"channel_type":%d,"message":"%s","seq":%d,"conversation_id":%d}`,
		n, f.ClientMsgID, from, f.To, f.Kind, text, seq, conversation)
	for _, u := range to {
		s.push(u, p, what)
	}
	return true
}

func (s *server) push(u int64, p []byte, what string) {
	conns := s.users[u]
	if len(conns) == 0 {
		s.away[u] = append(s.away[u], bytes.Clone(p))
		return
	}
	for _, c := range conns {
		switch what {
		case "lose":
			continue
		case "hold": // until the next one has passed it
			s.held[u] = bytes.Clone(p)
			continue
		case "repeat":
			c.write(p)
		}
		c.write(p)
		if h := s.held[u]; h != nil {
			delete(s.held, u)
			c.write(h)
		}
	}
}

// at asks for a fault at one message.
func at(n int64, what string) func(int64) string {
	return func(i int64) string {
		if i == n {
			return what
		}
		return ""
	}
}

func short() Options {
	return Options{Window: Window{Warm: 50 * time.Millisecond, Measure: 300 * time.Millisecond}, Users: 6}
}

func runOn(t *testing.T, s *server, name string, o Options) *Result {
	t.Helper()
	res, err := Run(t.Context(), name, fake(t, s), o)
	require.NoError(t, err)
	return res
}
