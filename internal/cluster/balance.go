package cluster

import (
	"context"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// balancer spreads the connections of one address over several. It stands in
// where the system cannot let several processes share a port.
type balancer struct {
	listener net.Listener
	backends []string
	next     atomic.Uint64
	log      *slog.Logger
	wg       sync.WaitGroup

	mu     sync.Mutex
	open   map[net.Conn]struct{} // guarded by mu
	closed bool                  // guarded by mu
}

const backendDialTimeout = time.Second

func startBalancer(addr string, backends []string, log *slog.Logger) (*balancer, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(context.Background(), "tcp", addr)
	if err != nil {
		return nil, err
	}
	b := &balancer{listener: l, backends: backends, log: log, open: map[net.Conn]struct{}{}}
	b.wg.Go(b.accept)
	return b, nil
}

func (b *balancer) accept() {
	for {
		client, err := b.listener.Accept()
		if err != nil {
			b.mu.Lock()
			closed := b.closed
			b.mu.Unlock()
			if closed {
				return
			}
			b.log.Warn("balancer: accept", "err", err)
			time.Sleep(10 * time.Millisecond)
			continue
		}
		b.wg.Go(func() { b.serve(client) })
	}
}

// serve connects the client with the next backend that takes it.
func (b *balancer) serve(client net.Conn) {
	defer b.forget(client)
	if !b.remember(client) {
		return
	}
	for range b.backends {
		addr := b.backends[b.next.Add(1)%uint64(len(b.backends))]
		backend, err := dialBackend(addr)
		if err != nil {
			continue
		}
		defer b.forget(backend)
		if !b.remember(backend) {
			return
		}
		done := make(chan struct{})
		go func() { // ends when either side is closed, before serve returns
			defer close(done)
			pump(backend, client)
		}()
		pump(client, backend)
		<-done
		return
	}
	b.log.Warn("balancer: no gateway takes a connection")
}

func dialBackend(addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), backendDialTimeout)
	defer cancel()
	var d net.Dialer
	return d.DialContext(ctx, "tcp", addr)
}

// pump copies until from ends, then passes the end on.
func pump(to, from net.Conn) {
	_, err := io.Copy(to, from)
	if half, ok := to.(*net.TCPConn); ok && err == nil {
		_ = half.CloseWrite()
		return
	}
	_, _ = to.Close(), from.Close()
}

func (b *balancer) remember(c net.Conn) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return false
	}
	b.open[c] = struct{}{}
	return true
}

func (b *balancer) forget(c net.Conn) {
	b.mu.Lock()
	delete(b.open, c)
	b.mu.Unlock()
	_ = c.Close()
}

// close ends every connection and waits until all of them are gone.
func (b *balancer) close() {
	b.mu.Lock()
	b.closed = true
	for c := range b.open {
		_ = c.Close()
	}
	b.mu.Unlock()
	_ = b.listener.Close()
	b.wg.Wait()
}
