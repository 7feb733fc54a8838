package gateway

import (
	"sync"
	"sync/atomic"
	"time"

	"im-services/internal/im"
)

// hubShards is also the number of steps in which the heartbeat goes round.
const hubShards = 128

// hub finds the connections of a user.
type hub struct {
	shards [hubShards]hubShard
	count  atomic.Int64
}

type hubShard struct {
	mu    sync.RWMutex
	users map[im.UserID]*conn // the newest; older ones follow by conn.next

	// pinged is when the heartbeat last pinged this shard; only its own goroutine
	// uses it.
	pinged time.Duration
}

func shardOf(u im.UserID) int {
	h := uint64(u) * 0x9e3779b97f4a7c15
	return int(h >> 57)
}

func newHub() *hub {
	h := new(hub)
	for i := range h.shards {
		h.shards[i].users = map[im.UserID]*conn{}
	}
	return h
}

func (h *hub) add(c *conn) {
	s := &h.shards[shardOf(c.user)]
	s.mu.Lock()
	c.next = s.users[c.user]
	s.users[c.user] = c
	s.mu.Unlock()
	h.count.Add(1)
}

func (h *hub) remove(c *conn) {
	s := &h.shards[shardOf(c.user)]
	s.mu.Lock()
	defer s.mu.Unlock()
	first := s.users[c.user]
	switch {
	case first == c && c.next == nil:
		delete(s.users, c.user)
	case first == c:
		s.users[c.user] = c.next
	default:
		at := first
		for at != nil && at.next != c {
			at = at.next
		}
		if at == nil {
			return
		}
		at.next = c.next
	}
	h.count.Add(-1)
}

// each calls f for the user's connections, under the shard's lock: f must not
// block nor come back to the hub.
func (h *hub) each(u im.UserID, f func(*conn)) {
	s := &h.shards[shardOf(u)]
	s.mu.RLock()
	for c := s.users[u]; c != nil; c = c.next {
		f(c)
	}
	s.mu.RUnlock()
}

// ofShard calls f for the connections of one shard, like each.
func (h *hub) ofShard(i int, f func(*conn)) {
	s := &h.shards[i]
	s.mu.RLock()
	for _, c := range s.users {
		for ; c != nil; c = c.next {
			f(c)
		}
	}
	s.mu.RUnlock()
}

// all returns the connections of this moment.
func (h *hub) all() []*conn {
	conns := make([]*conn, 0, h.count.Load())
	for i := range h.shards {
		h.ofShard(i, func(c *conn) { conns = append(conns, c) })
	}
	return conns
}
