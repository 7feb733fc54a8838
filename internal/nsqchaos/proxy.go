// Package nsqchaos stands between nsqd and its consumers and makes the bus worse
// than any nsqd is: messages vanish, come twice, late, and in another order,
// while every connection looks healthy.
package nsqchaos

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"time"
)

// Chaos says what happens to messages: each number is the part of them that
// suffers it, at most one of the four.
type Chaos struct{ Drop, Repeat, Swap, Delay float64 }

// Tenth is every trouble for one message in ten.
var Tenth = Chaos{0.1, 0.1, 0.1, 0.1}

// Counts are how many messages suffered what.
type Counts struct{ Messages, Dropped, Repeated, Swapped, Delayed int }

const (
	// maxDelay bounds how late a message is, and its repeat.
	maxDelay = 2 * time.Second
	// maxHold bounds how long a message waits for the one that is to overtake it.
	maxHold = 50 * time.Millisecond
	// maxFrame bounds what is read at once; nsqd's own limit is 1 MiB.
	maxFrame = 8 << 20

	dialLimit = 2 * time.Second
)

// What is needed of NSQ's protocol, version 2.
const (
	magic        = "  V2"
	frameMessage = 2
	idLength     = 16
	headers      = 4 + 4 + 8 + 2 + idLength // of a message: size, type, time, attempts, id
)

// Proxy is a port that leads to an nsqd. All methods may be called from any
// goroutine.
type Proxy struct {
	Addr string // what consumers dial, host:port

	target   string
	listener net.Listener
	wg       sync.WaitGroup

	mu     sync.Mutex
	rng    *rand.Rand         // guarded by mu, as all below
	chaos  Chaos              //
	counts Counts             //
	open   map[*link]struct{} //
	closed bool               //
}

// New starts a proxy to the nsqd at target that does no harm before Misbehave.
// What it does then follows from the seed and the messages. Close ends it.
func New(target string, seed uint64) (*Proxy, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{
		Addr: l.Addr().String(), target: target, listener: l, open: map[*link]struct{}{},
		rng: rand.New(rand.NewPCG(seed, 0)), //nolint:gosec // to be repeated, not secret
	}
	p.wg.Go(p.accept)
	return p, nil
}

// Misbehave begins to spoil messages, on open connections too.
func (p *Proxy) Misbehave(c Chaos) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.chaos = c
}

// Heal ends it. What is held back still comes, in its time.
func (p *Proxy) Heal() { p.Misbehave(Chaos{}) }

// Counts returns what was done so far.
func (p *Proxy) Counts() Counts {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.counts
}

// Close ends the proxy and its connections.
func (p *Proxy) Close() {
	p.mu.Lock()
	p.closed = true
	for l := range p.open {
		l.close()
	}
	p.mu.Unlock()
	_ = p.listener.Close()
	p.wg.Wait()
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

// link is one connection of a consumer.
type link struct {
	client, server net.Conn

	downMu sync.Mutex
	down   *bufio.Writer // to the consumer; guarded by downMu
	upMu   sync.Mutex
	up     *bufio.Writer // to nsqd; guarded by upMu

	holdMu sync.Mutex
	held   []byte // waits to be overtaken; guarded by holdMu
}

func (l *link) close() { _, _ = l.client.Close(), l.server.Close() }

func (p *Proxy) serve(client net.Conn) {
	d := net.Dialer{Timeout: dialLimit}
	server, err := d.DialContext(context.Background(), "tcp", p.target)
	if err != nil {
		if tcp, ok := client.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = client.Close()
		return
	}
	l := &link{client: client, server: server, down: bufio.NewWriter(client), up: bufio.NewWriter(server)}
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		l.close()
		return
	}
	p.open[l] = struct{}{}
	p.mu.Unlock()

	var wg sync.WaitGroup
	wg.Go(func() { defer l.close(); _ = l.pumpUp() })
	wg.Go(func() { defer l.close(); _ = l.pumpDown(p.fate) })
	wg.Wait()
	p.mu.Lock()
	delete(p.open, l)
	p.mu.Unlock()
}

// pumpUp carries commands, each whole, so that a command of our own can stand
// between two of them.
func (l *link) pumpUp() error {
	in := bufio.NewReader(l.client)
	command := make([]byte, len(magic))
	if _, err := io.ReadFull(in, command); err != nil {
		return err
	}
	for {
		if err := l.sendUp(command, in.Buffered() == 0); err != nil {
			return err
		}
		line, err := in.ReadBytes('\n')
		if err != nil {
			return err
		}
		command = line
		switch name, _, _ := strings.Cut(strings.TrimSpace(string(line)), " "); name {
		case "IDENTIFY", "AUTH", "PUB", "MPUB", "DPUB": // a body follows
			body, err := sized(in)
			if err != nil {
				return err
			}
			command = append(command, body...)
		}
	}
}

func (l *link) sendUp(command []byte, flush bool) error {
	l.upMu.Lock()
	defer l.upMu.Unlock()
	if _, err := l.up.Write(command); err != nil || !flush {
		return err
	}
	return l.up.Flush()
}

// sized reads a length and as many bytes, and returns both.
func sized(in io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > maxFrame {
		return nil, fmt.Errorf("nsqchaos: %d bytes at once", n)
	}
	out := make([]byte, 4+n)
	copy(out, head[:])
	_, err := io.ReadFull(in, out[4:])
	return out, err
}

// fate is what happens to one message.
type fate struct {
	drop, swap bool
	repeat     time.Duration // after which it comes again; 0: it does not
	delay      time.Duration
}

// fate draws the next message's.
func (p *Proxy) fate() fate {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.counts.Messages++
	c := p.chaos
	if c == (Chaos{}) {
		return fate{}
	}
	dice, when := p.rng.Float64(), time.Duration(p.rng.Int64N(int64(maxDelay)))+1
	switch {
	case dice < c.Drop:
		p.counts.Dropped++
		return fate{drop: true}
	case dice < c.Drop+c.Repeat:
		p.counts.Repeated++
		return fate{repeat: when}
	case dice < c.Drop+c.Repeat+c.Swap:
		p.counts.Swapped++
		return fate{swap: true}
	case dice < c.Drop+c.Repeat+c.Swap+c.Delay:
		p.counts.Delayed++
		return fate{delay: when}
	}
	return fate{}
}

// pumpDown carries frames, and lets every message have its fate.
func (l *link) pumpDown(next func() fate) error {
	in := bufio.NewReader(l.server)
	for {
		frame, err := sized(in)
		if err != nil {
			return err
		}
		if len(frame) < headers || binary.BigEndian.Uint32(frame[4:]) != frameMessage {
			err = l.sendDown(frame, true)
		} else {
			err = l.suffer(next(), frame, frame[headers-idLength:headers], in.Buffered() == 0)
		}
		if err != nil {
			return err
		}
	}
}

func (l *link) suffer(f fate, frame, id []byte, flush bool) error {
	switch {
	case f.drop:
		// nsqd must believe that it was handled, or it would send it again.
		return l.sendUp([]byte("FIN "+string(id)+"\n"), true)
	case f.delay > 0:
		time.AfterFunc(f.delay, func() { _ = l.sendDown(frame, true) })
		return nil
	case f.swap:
		before := l.hold(frame)
		time.AfterFunc(maxHold, func() { _ = l.sendDown(l.hold(nil), true) })
		return l.sendDown(before, true)
	case f.repeat > 0:
		time.AfterFunc(f.repeat, func() { _ = l.sendDown(frame, true) })
	}
	held := l.hold(nil)
	if err := l.sendDown(frame, flush && held == nil); err != nil || held == nil {
		return err
	}
	return l.sendDown(held, true)
}

// hold puts a frame aside and returns the one that was.
func (l *link) hold(frame []byte) []byte {
	l.holdMu.Lock()
	defer l.holdMu.Unlock()
	frame, l.held = l.held, frame
	return frame
}

func (l *link) sendDown(frame []byte, flush bool) error {
	l.downMu.Lock()
	defer l.downMu.Unlock()
	if _, err := l.down.Write(frame); err != nil || !flush {
		return err
	}
	return l.down.Flush()
}
