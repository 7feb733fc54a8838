package floor

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"im-services/internal/bench/crowd"
	"im-services/internal/bench/lean"
)

// Relay hands each chat frame to its receivers, as it came, and acknowledges it.
// A token is a user's number, and is believed. That is all it does.
type Relay struct {
	up     websocket.Upgrader
	mu     sync.RWMutex // guards the following fields
	users  map[int64][]*relayConn
	groups map[int64][]int64
}

// NewRelay returns an empty relay.
func NewRelay() *Relay {
	return &Relay{
		up:     websocket.Upgrader{WriteBufferPool: &sync.Pool{}, CheckOrigin: func(*http.Request) bool { return true }},
		users:  map[int64][]*relayConn{},
		groups: map[int64][]int64{},
	}
}

type relayConn struct {
	mu sync.Mutex // guards writing
	ws *websocket.Conn
}

func (c *relayConn) write(p []byte) {
	c.mu.Lock()
	err := c.ws.WriteMessage(websocket.TextMessage, p)
	c.mu.Unlock()
	if err != nil {
		_ = c.ws.Close()
	}
}

// ServeHTTP serves /im/connect, and /groups to be told of groups.
func (r *Relay) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if req.URL.Path == "/groups" {
		var g crowd.Group
		if err := json.NewDecoder(req.Body).Decode(&g); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		r.mu.Lock()
		r.groups[g.ID] = g.Members
		r.mu.Unlock()
		return
	}
	id, err := strconv.ParseInt(strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer "), 10, 64)
	if err != nil {
		http.Error(w, "no user", http.StatusUnauthorized)
		return
	}
	ws, err := r.up.Upgrade(w, req, nil)
	if err != nil {
		return
	}
	c := &relayConn{ws: ws}
	r.mu.Lock()
	r.users[id] = append(r.users[id], c)
	r.mu.Unlock()
	defer r.leave(id, c)
	r.read(c)
}

func (r *Relay) leave(id int64, c *relayConn) {
	_ = c.ws.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	left := r.users[id][:0:0]
	for _, other := range r.users[id] {
		if other != c {
			left = append(left, other)
		}
	}
	r.users[id] = left
}

var pong = []byte(`{"msg_code":1004,"message":"pong"}`)

func (r *Relay) read(c *relayConn) {
	var (
		f   lean.Frame
		ack []byte
	)
	for {
		_, p, err := c.ws.ReadMessage()
		if err != nil {
			return
		}
		if !lean.Parse(p, &f) {
			return
		}
		if f.Code == lean.CodeHeartbeat {
			c.write(pong)
			continue
		}
		ack = append(ack[:0], `{"ack":1,"msg_code":1005,"msg_id":1,"msg_client_id":`...)
		ack = strconv.AppendInt(ack, f.ClientMsgID, 10)
		c.write(append(ack, '}'))
		if f.Kind != 2 {
			r.to(f.To, p)
			continue
		}
		r.mu.RLock()
		members := r.groups[f.To]
		r.mu.RUnlock()
		for _, id := range members {
			r.to(id, p)
		}
	}
}

func (r *Relay) to(id int64, p []byte) {
	r.mu.RLock()
	conns := r.users[id]
	r.mu.RUnlock()
	for _, c := range conns {
		c.write(p)
	}
}

// Serve serves on l until ctx ends.
func (r *Relay) Serve(ctx context.Context, l net.Listener) error {
	srv := &http.Server{Handler: r, ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
