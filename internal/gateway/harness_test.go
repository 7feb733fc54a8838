package gateway

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/goleak"

	logicv1 "im-services/api/proto/logic/v1"
	pushv1 "im-services/api/proto/push/v1"
	"im-services/internal/catalog"
	"im-services/internal/im"
	"im-services/internal/push"
	"im-services/internal/token"
)

const testGateway = "gtest"

func TestMain(m *testing.M) {
	if os.Getenv(idleClientsEnv) != "" {
		idleClients()
		return
	}
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("testing.(*B).run1"))
}

// world is a gateway with fakes around it.
type world struct {
	t      testing.TB
	srv    *Server
	http   *httptest.Server
	store  *fakeStore
	auth   *fakeAuth
	friend *fakeFriend
	codec  *push.Codec

	mu       sync.Mutex
	replicas map[string]*replica
	filter   func(*pushv1.Envelope) bool // false drops
}

func testConfig() Config {
	return Config{
		SendFailover: 400 * time.Millisecond, SendTimeout: 1500 * time.Millisecond,
		WatermarkInterval: 300 * time.Millisecond, RevocationInterval: 20 * time.Millisecond,
		DrainWindow: 200 * time.Millisecond, ReportInterval: 20 * time.Millisecond,
	}
}

func newWorld(t testing.TB, cfg Config) *world {
	t.Helper()
	w := newWorldWithoutHTTP(t, cfg)
	w.http = httptest.NewServer(w.srv)
	t.Cleanup(func() { w.srv.Close(); w.http.Close() })
	w.eventually("lane and keys", func() bool { return w.srv.Ready() && w.lanesUp() == 1 })
	return w
}

// bubble makes a world for a fake clock: no sockets; end it with close, inside
// the bubble.
func bubble(t *testing.T, cfg Config) *bubbleWorld {
	t.Helper()
	b := &bubbleWorld{}
	b.world = newWorldWithoutHTTP(b.collect(t), cfg)
	b.eventually("lane and keys", func() bool { return b.srv.Ready() && b.lanesUp() == 1 })
	return b
}

// bubbleWorld runs its cleanups before the bubble ends.
type bubbleWorld struct {
	*world
	cleanups []func()
}

func (b *bubbleWorld) close() {
	b.srv.Close()
	for i := len(b.cleanups) - 1; i >= 0; i-- {
		b.cleanups[i]()
	}
}

type cleanupTB struct {
	testing.TB
	b *bubbleWorld
}

func (c cleanupTB) Cleanup(f func()) { c.b.cleanups = append(c.b.cleanups, f) }

func (b *bubbleWorld) collect(t testing.TB) testing.TB { return cleanupTB{t, b} }

func newWorldWithoutHTTP(t testing.TB, cfg Config) *world {
	t.Helper()
	codec, err := push.NewCodec([]byte(strings.Repeat("k", 32)))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, store: newFakeStore(), auth: newFakeAuth(t), friend: new(fakeFriend), codec: codec, replicas: map[string]*replica{}}
	r1 := newReplica(t, w.store)
	w.replicas["r1"] = r1
	cc := r1.client(t)
	t.Cleanup(func() { _ = cc.Close() })
	w.srv, err = New(Deps{
		ID: testGateway, Auth: w.auth, Friends: w.friend,
		Connections:   logicv1.NewConnectionServiceClient(cc),
		Conversations: logicv1.NewConversationServiceClient(cc),
		DialLogic: func(addr string) (ClientConn, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.replicas[addr].client(t), nil
		},
		Codec: codec,
		Describe: func(reason string) (int, string) {
			e, ok := catalog.Lookup(reason)
			if !ok {
				t.Errorf("reason %q is not in the catalogue", reason)
			}
			return e.WS, e.ZH
		},
		PublicURL: "https://im.example",
		Config:    cfg,
	})
	if err != nil {
		t.Fatal(err)
	}
	w.store.push = w.publish
	w.srv.SetLogic([]Replica{{ID: "r1", Addr: "r1"}})
	return w
}

func (w *world) lanesUp() int {
	w.srv.lanes.mu.Lock()
	defer w.srv.lanes.mu.Unlock()
	n := 0
	for _, l := range w.srv.lanes.all {
		if l.up {
			n++
		}
	}
	return n
}

// publish hands an envelope to the gateway as the bus would.
func (w *world) publish(e *pushv1.Envelope) {
	w.mu.Lock()
	filter := w.filter
	w.mu.Unlock()
	if filter != nil && !filter(e) {
		return
	}
	w.forcePublish(e)
}

func (w *world) forcePublish(e *pushv1.Envelope) {
	body, err := w.codec.Marshal(e)
	if err != nil {
		w.t.Error(err)
		return
	}
	w.srv.HandlePush(body)
}

func (w *world) eventually(what string, ok func() bool) {
	w.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			w.t.Fatalf("never: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// proved waits until user has proved on the web to have received conv up to seq.
func (w *world) proved(user, conv, seq int64) {
	w.t.Helper()
	w.eventually("proved", func() bool {
		w.store.mu.Lock()
		defer w.store.mu.Unlock()
		return w.store.delivered[fakeCursor{user, conv, 1}] == seq
	})
}

func (w *world) url() string { return "ws" + strings.TrimPrefix(w.http.URL, "http") + "/im/connect" }

// client is a WebSocket client that collects what it gets.
type client struct {
	t    testing.TB
	w    *world
	ws   *websocket.Conn
	user int64

	mu     sync.Mutex
	frames []frame
	err    error
	done   chan struct{}
	news   chan struct{}
}

type frame map[string]any

func (f frame) code() int { return int(f.num("msg_code")) }
func (f frame) num(k string) int64 {
	n, _ := f[k].(json.Number)
	i, _ := n.Int64()
	return i
}
func (f frame) str(k string) string { s, _ := f[k].(string); return s }

// connect opens a connection and waits until it is live.
func (w *world) connect(user int64, query ...string) *client {
	w.t.Helper()
	c := w.dial(user, query...)
	w.eventually("live", func() bool {
		live := false
		w.srv.hub.each(im.UserID(user), func(o *conn) {
			o.mu.Lock()
			live = live || o.phase == phaseLive && o.nc.RemoteAddr().String() == c.ws.LocalAddr().String()
			o.mu.Unlock()
		})
		return live
	})
	return c
}

func (w *world) dial(user int64, query ...string) *client {
	w.t.Helper()
	u := w.url() + "?token=" + url.QueryEscape(w.auth.token(w.t, user))
	for _, q := range query {
		u += "&" + q
	}
	ws, resp, err := websocket.DefaultDialer.Dial(u, nil)
	if err != nil {
		w.t.Fatalf("dial: %v", err)
	}
	_ = resp.Body.Close()
	c := &client{t: w.t, w: w, ws: ws, user: user, done: make(chan struct{}), news: make(chan struct{}, 1)}
	go c.read()
	w.t.Cleanup(func() { _ = ws.Close(); <-c.done })
	return c
}

func (c *client) read() {
	defer close(c.done)
	for {
		typ, b, err := c.ws.ReadMessage()
		c.mu.Lock()
		if err != nil {
			c.err = err
		} else {
			var f frame
			dec := json.NewDecoder(strings.NewReader(string(b)))
			dec.UseNumber()
			if typ != websocket.TextMessage || dec.Decode(&f) != nil {
				f = frame{"bad": string(b)}
			}
			c.frames = append(c.frames, f)
		}
		c.mu.Unlock()
		select {
		case c.news <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
	}
}

func (c *client) send(format string, args ...any) {
	c.t.Helper()
	if err := c.ws.WriteMessage(websocket.TextMessage, fmt.Appendf(nil, format, args...)); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) chat(id, to int64, kind int, text string) {
	c.t.Helper()
	c.send(`{"msg_client_id":%d,"msg_code":200,"to_id":%d,"msg_type":1,"channel_type":%d,"message":%q}`, id, to, kind, text)
}

// all returns the frames so far of one code.
func (c *client) all(code int) []frame {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []frame
	for _, f := range c.frames {
		if f.code() == code {
			out = append(out, f)
		}
	}
	return out
}

// wait returns the nth frame of a code, counted from 1.
func (c *client) wait(code, nth int) frame {
	c.t.Helper()
	var got []frame
	c.w.eventually(fmt.Sprintf("user %d gets frame %d number %d", c.user, code, nth), func() bool {
		got = c.all(code)
		return len(got) >= nth
	})
	return got[nth-1]
}

// closed waits for the end and returns the close code, 1006 without one.
func (c *client) closed() int {
	c.t.Helper()
	select {
	case <-c.done:
	case <-time.After(10 * time.Second):
		c.t.Fatal("the connection stays open")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var ce *websocket.CloseError
	if e, ok := c.err.(*websocket.CloseError); ok { //nolint:errorlint // gorilla returns it bare
		ce = e
		return ce.Code
	}
	return websocket.CloseAbnormalClosure
}

// texts lists the messages of the chat frames, in the order they came.
func (c *client) texts() []string {
	var out []string
	for _, f := range c.all(200) {
		out = append(out, f.str("message"))
	}
	return out
}

func (c *client) waitTexts(want ...string) {
	c.t.Helper()
	c.wait(200, len(want))
	time.Sleep(20 * time.Millisecond) // nothing more may come
	if got := c.texts(); strings.Join(got, "|") != strings.Join(want, "|") {
		c.t.Fatalf("user %d: got %q, want %q", c.user, got, want)
	}
}

// rawConn is a socket past the handshake, without a WebSocket library.
type rawConn struct {
	t testing.TB
	net.Conn
}

func (w *world) raw(user int64) *rawConn { return w.rawReading(user, 0) }

// rawReading is raw with a socket that takes so many bytes unread; 0: as many as the
// kernel likes.
func (w *world) rawReading(user int64, buffer int) *rawConn {
	w.t.Helper()
	nc, err := net.Dial("tcp", strings.TrimPrefix(w.http.URL, "http://"))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = nc.Close() })
	if buffer > 0 {
		if err := nc.(*net.TCPConn).SetReadBuffer(buffer); err != nil {
			w.t.Fatal(err)
		}
	}
	_, err = fmt.Fprintf(nc, "GET /im/connect?token=%s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", w.auth.token(w.t, user))
	if err != nil {
		w.t.Fatal(err)
	}
	var head []byte
	one := make([]byte, 1)
	for !strings.HasSuffix(string(head), "\r\n\r\n") {
		if _, err := io.ReadFull(nc, one); err != nil {
			w.t.Fatalf("handshake: %v after %q", err, head)
		}
		head = append(head, one[0])
	}
	if !strings.HasPrefix(string(head), "HTTP/1.1 101 ") {
		w.t.Fatalf("handshake: %q", head)
	}
	return &rawConn{w.t, nc}
}

// clientFrame builds a masked frame of a client.
func clientFrame(b0 byte, payload string) []byte {
	mask := [4]byte{0x12, 0x34, 0x56, 0x78}
	out := []byte{b0}
	switch n := len(payload); {
	case n < 126:
		out = append(out, maskBit|byte(n))
	case n < 1<<16:
		out = binary.BigEndian.AppendUint16(append(out, maskBit|126), uint16(n))
	default:
		out = binary.BigEndian.AppendUint64(append(out, maskBit|127), uint64(n))
	}
	out = append(out, mask[:]...)
	for i := range len(payload) {
		out = append(out, payload[i]^mask[i&3])
	}
	return out
}

// next reads one frame of the server.
func (r *rawConn) next() (op byte, payload []byte, err error) {
	_ = r.SetReadDeadline(time.Now().Add(5 * time.Second))
	return r.next0()
}

// next0 is next without a deadline.
func (r *rawConn) next0() (op byte, payload []byte, err error) {
	var h [10]byte
	if _, err := io.ReadFull(r, h[:2]); err != nil {
		return 0, nil, err
	}
	if h[0]&rsvBits != 0 || h[1]&maskBit != 0 || h[0]&finBit == 0 {
		r.t.Errorf("bad server frame head % x", h[:2])
	}
	n := int(h[1])
	switch n {
	case 126:
		_, err = io.ReadFull(r, h[2:4])
		n = int(binary.BigEndian.Uint16(h[2:]))
	case 127:
		_, err = io.ReadFull(r, h[2:10])
		n = int(binary.BigEndian.Uint64(h[2:]))
	}
	if err != nil {
		return 0, nil, err
	}
	payload = make([]byte, n)
	_, err = io.ReadFull(r, payload)
	return h[0] & 0x0f, payload, err
}

// closeCode reads until the close frame and returns its code, and whether the
// socket ended after it. 0: it ended without one.
func (r *rawConn) closeCode() (code int) {
	for {
		op, p, err := r.next()
		if err != nil {
			return 0
		}
		if op == opClose {
			if len(p) >= 2 {
				code = int(binary.BigEndian.Uint16(p))
			}
			_, _, err := r.next()
			if err == nil {
				r.t.Error("a frame after the close frame")
			}
			return code
		}
	}
}

// pipeClient is a connection over net.Pipe, for tests on a fake clock.
func (s *Server) acceptPipe(user int64, platform im.Platform) net.Conn {
	here, there := net.Pipe()
	s.accept(there, &token.Claims{
		UserID: im.UserID(user), SessionID: "s", IssuedAt: time.Now(), ExpiresAt: time.Now().Add(time.Hour),
	}, platform, "192.0.2.1", time.Now().UnixMilli())
	return here
}

func get(t testing.TB, u string, header http.Header) (int, string, http.Header) {
	t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, u, nil)
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range header {
		req.Header[k] = v
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, _ := io.ReadAll(resp.Body)
	http.DefaultClient.CloseIdleConnections()
	return resp.StatusCode, string(b), resp.Header
}
