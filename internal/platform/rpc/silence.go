package rpc

import (
	"context"
	"net"
	"sync/atomic"
	"time"
)

const (
	// silenceLimit ends a connection on which nothing arrived, not even the
	// health that every server repeats each healthEvery. What may not be repeated
	// waits that long for a server that is frozen; a shorter limit would end
	// connections to those that are only busy.
	silenceLimit = 2500 * time.Millisecond
	// deadlineStep is how much a read deadline may lag behind: setting it
	// anew for each of thousands of reads a second is work for nothing.
	deadlineStep = 250 * time.Millisecond
)

// dialListening connects and returns a connection that closes on silence.
func dialListening(ctx context.Context, addr string) (net.Conn, error) {
	d := net.Dialer{Timeout: dialLimit}
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &listeningConn{Conn: conn, limit: silenceLimit}, nil
}

// listeningConn fails a read on which nothing came for limit. gRPC has one
// goroutine reading and sets no deadlines of its own after the handshake.
type listeningConn struct {
	net.Conn
	limit time.Duration
	armed atomic.Int64 // when the deadline was set, ns since start
}

var start = time.Now()

func (c *listeningConn) Read(p []byte) (int, error) {
	now := time.Since(start)
	if last := c.armed.Load(); last == 0 || now-time.Duration(last) > deadlineStep {
		c.armed.Store(int64(now))
		if err := c.Conn.SetReadDeadline(start.Add(now + c.limit + deadlineStep)); err != nil {
			return 0, err
		}
	}
	return c.Conn.Read(p)
}
