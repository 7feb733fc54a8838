// Package tcpproxy stands between a client and a server and misbehaves on
// demand: it cuts, delays, throttles and swallows. Tests and the delivery
// checker put it on the links of the system.
package tcpproxy

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// Proxy stands between a client and a server and misbehaves on demand. All
// methods may be called from any goroutine and act on open connections too.
type Proxy struct {
	Addr string // what clients dial, host:port

	listener net.Listener
	wg       sync.WaitGroup

	mu      sync.Mutex
	target  string // guarded by mu, as all below
	refuse  bool
	up      way // client to server
	down    way // server to client
	links   map[*link]struct{}
	changed chan struct{} // closed and replaced when a way changes
	closed  bool
}

// way is how one direction behaves.
type way struct {
	delay time.Duration // of each piece of data
	rate  int           // bytes per second; 0: unlimited
	hole  bool          // data is taken and vanishes
	stall bool          // data is not taken: the sender's buffers fill up
}

// link is one proxied connection.
type link struct{ client, server net.Conn }

func (l *link) close() { _, _ = l.client.Close(), l.server.Close() }

// New starts a proxy to target (host:port) on a loopback port of its own. Close
// ends it.
func New(target string) (*Proxy, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{Addr: l.Addr().String(), listener: l, target: target, links: map[*link]struct{}{}, changed: make(chan struct{})}
	p.wg.Go(p.accept)
	return p, nil
}

// Close ends the proxy and all its connections.
func (p *Proxy) Close() {
	p.update(func() {
		p.closed = true
		for l := range p.links {
			l.close()
		}
	})
	_ = p.listener.Close()
	p.wg.Wait()
}

// Cut resets every connection and refuses new ones, as if the server's process
// were gone.
func (p *Proxy) Cut() {
	p.update(func() { p.refuse = true })
	p.Reset()
}

// Reset aborts every connection (RST); new ones are welcome.
func (p *Proxy) Reset() {
	p.update(func() {
		for l := range p.links {
			for _, c := range []net.Conn{l.client, l.server} {
				if tcp, ok := c.(*net.TCPConn); ok {
					_ = tcp.SetLinger(0)
				}
			}
			l.close()
		}
	})
}

// Partition lets data of both directions vanish while connections stay open, as
// behind a cable that was pulled.
func (p *Proxy) Partition() {
	p.update(func() { p.up.hole, p.down.hole = true, true })
}

// LoseRequests and LoseAnswers are a Partition of one direction only.
func (p *Proxy) LoseRequests() { p.update(func() { p.up.hole = true }) }

// LoseAnswers lets what the server sends vanish.
func (p *Proxy) LoseAnswers() { p.update(func() { p.down.hole = true }) }

// StallAnswers stops taking what the server sends, as a client does that no
// longer reads.
func (p *Proxy) StallAnswers() { p.update(func() { p.down.stall = true }) }

// Slow delays every piece of data by delay in each direction and, with rate > 0,
// limits each direction of each connection to rate bytes per second.
func (p *Proxy) Slow(delay time.Duration, rate int) {
	p.update(func() {
		p.up.delay, p.up.rate, p.down.delay, p.down.rate = delay, rate, delay, rate
	})
}

// Heal ends all misbehaviour. What a hole has swallowed is gone: connections
// that lost data are reset, as TCP would find out.
func (p *Proxy) Heal() {
	p.mu.Lock()
	lost := p.up.hole || p.down.hole
	p.mu.Unlock()
	if lost {
		p.Reset()
	}
	p.update(func() { p.refuse, p.up, p.down = false, way{}, way{} })
}

// Retarget sends new connections to another server.
func (p *Proxy) Retarget(target string) { p.update(func() { p.target = target }) }

// update changes the behaviour and wakes whoever waits for a change.
func (p *Proxy) update(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.wg.Go(func() { p.serve(client) })
	}
}

const proxyDialTimeout = 2 * time.Second

func (p *Proxy) serve(client net.Conn) {
	p.mu.Lock()
	target, refuse := p.target, p.refuse
	p.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), proxyDialTimeout)
	defer cancel()
	var d net.Dialer
	server, err := d.DialContext(ctx, "tcp", target)
	if err != nil || refuse {
		if tcp, ok := client.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = client.Close()
		if err == nil {
			_ = server.Close()
		}
		return
	}
	l := &link{client, server}
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		l.close()
		return
	}
	p.links[l] = struct{}{}
	p.mu.Unlock()

	var wg sync.WaitGroup
	wg.Go(func() { p.pump(server, client, &p.up) })
	wg.Go(func() { p.pump(client, server, &p.down) })
	wg.Wait()
	l.close()
	p.mu.Lock()
	delete(p.links, l)
	p.mu.Unlock()
}

// pump carries one direction, behaving as w says, until either end is closed.
func (p *Proxy) pump(to, from net.Conn, w *way) {
	buf := make([]byte, 16<<10)
	for {
		if !p.waitUnstalled(w) {
			return
		}
		n, err := from.Read(buf)
		if n > 0 {
			now := p.look(w)
			time.Sleep(now.delay)
			if now.rate > 0 {
				time.Sleep(time.Duration(n) * time.Second / time.Duration(now.rate))
			}
			if !p.look(w).hole {
				if _, err := to.Write(buf[:n]); err != nil {
					_ = from.Close()
					return
				}
			}
		}
		if err != nil {
			// In a hole even the end of the connection goes unnoticed.
			for p.look(w).hole {
				if !p.waitChange() {
					return
				}
			}
			if tcp, ok := to.(*net.TCPConn); ok && errors.Is(err, io.EOF) {
				_ = tcp.CloseWrite()
			} else {
				_ = to.Close()
			}
			return
		}
	}
}

func (p *Proxy) look(w *way) way {
	p.mu.Lock()
	defer p.mu.Unlock()
	return *w
}

// waitUnstalled reports false when the proxy was closed.
func (p *Proxy) waitUnstalled(w *way) bool {
	for p.look(w).stall {
		if !p.waitChange() {
			return false
		}
	}
	return true
}

// waitChange waits for the next change and reports false if it was the end.
func (p *Proxy) waitChange() bool {
	p.mu.Lock()
	changed, closed := p.changed, p.closed
	p.mu.Unlock()
	if closed {
		return false
	}
	<-changed
	return true
}
