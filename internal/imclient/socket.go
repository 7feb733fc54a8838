package imclient

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// Socket is one WebSocket connection. One goroutine may read; any may write.
type Socket struct {
	conn *websocket.Conn

	buf   []byte // reader only
	frame Frame  // reader only

	mu      sync.Mutex // serialises writes
	lastErr error      // guarded by mu
}

// HandshakeError is the server's refusal to upgrade.
type HandshakeError struct {
	Status  int    // HTTP status
	Code    int    // code of the body, 0 if it has none
	Message string // message of the body
}

func (e *HandshakeError) Error() string {
	return fmt.Sprintf("imclient: connect refused: %d %s", e.Status, e.Message)
}

// CloseError is the close frame the server ended a connection with.
type CloseError = websocket.CloseError

// DialOptions change how Dial connects. The zero value connects as the web
// client does.
type DialOptions struct {
	Platform string // web (default), pc, app
	// InHeader sends the token in the Authorization header, not in the query.
	InHeader bool
	Header   http.Header
	// ReadBuffer is the size of the connection's read buffer; default 4 KiB.
	ReadBuffer int
	// ReceiveBuffer is what the kernel may hold of what is not read yet; default:
	// the kernel's.
	ReceiveBuffer int
}

// writeLimit bounds one write.
const writeLimit = 5 * time.Second

// handshakeLimit bounds a handshake whose context has no deadline.
const handshakeLimit = 10 * time.Second

// maxFrame is what a Socket accepts from the server.
const maxFrame = 4 << 20

// writeBuffers are shared by all sockets: an idle one needs none.
var writeBuffers = &sync.Pool{}

// Dial connects to base, http(s)://host:port. The context bounds the handshake,
// which ends with it at once, and nothing else; one without a deadline ends after
// ten seconds. A refusal is a *HandshakeError.
func Dial(ctx context.Context, base, token string, opts DialOptions) (*Socket, error) {
	u, err := url.Parse(base)
	if err != nil {
		return nil, fmt.Errorf("imclient: %w", err)
	}
	u.Scheme = strings.Replace(u.Scheme, "http", "ws", 1)
	u.Path = "/im/connect"
	q := url.Values{}
	header := opts.Header.Clone()
	if opts.InHeader {
		if header == nil {
			header = http.Header{}
		}
		header.Set("Authorization", "Bearer "+token)
	} else {
		q.Set("token", token)
	}
	if opts.Platform != "" {
		q.Set("platform", opts.Platform)
	}
	u.RawQuery = q.Encode()
	size := opts.ReadBuffer
	if size == 0 {
		size = 4 << 10
	}
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, handshakeLimit)
		defer cancel()
	}
	stop := func() bool { return true }
	dialer := websocket.Dialer{ReadBufferSize: size, WriteBufferSize: 4 << 10, WriteBufferPool: writeBuffers}
	dialer.NetDialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		var d net.Dialer
		c, err := d.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		// The dialer waits for the answer until the deadline, cancelled or not.
		stop = context.AfterFunc(ctx, func() { _ = c.Close() })
		if tcp, ok := c.(*net.TCPConn); ok && opts.ReceiveBuffer > 0 {
			_ = tcp.SetReadBuffer(opts.ReceiveBuffer)
		}
		return c, nil
	}
	conn, resp, err := dialer.DialContext(ctx, u.String(), header) //nolint:bodyclose // the dialer has read what there is
	if !stop() && err == nil {
		err = ctx.Err() // it was closed when it had just been made
	}
	if err != nil {
		if resp != nil && errors.Is(err, websocket.ErrBadHandshake) {
			return nil, refusal(resp)
		}
		// The URL holds the token: it must not reach a log through the error.
		return nil, errors.New("imclient: connect: " + strings.ReplaceAll(err.Error(), token, "…"))
	}
	conn.SetReadLimit(maxFrame)
	return &Socket{conn: conn}, nil
}

func refusal(resp *http.Response) error {
	e := &HandshakeError{Status: resp.StatusCode}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	var env envelope
	if json.Unmarshal(body, &env) == nil {
		e.Code, e.Message = env.Code, env.Message
	}
	return e
}

// OnPing makes f run for every ping of the server, before its pong is written.
// Set it before reading.
func (s *Socket) OnPing(f func()) {
	pong := s.conn.PingHandler()
	s.conn.SetPingHandler(func(data string) error {
		f()
		return pong(data)
	})
}

// Read returns the next frame, valid until the next Read. Only text frames are
// the protocol's: another kind is an error. The deadline counts from now;
// 0 waits without end.
func (s *Socket) Read(wait time.Duration) (*Frame, error) {
	var deadline time.Time
	if wait > 0 {
		deadline = time.Now().Add(wait)
	}
	if err := s.conn.SetReadDeadline(deadline); err != nil {
		return nil, err
	}
	kind, r, err := s.conn.NextReader()
	if err != nil {
		return nil, err
	}
	if kind != websocket.TextMessage {
		return nil, fmt.Errorf("imclient: a frame of kind %d", kind)
	}
	s.buf = s.buf[:0]
	for {
		if len(s.buf) == cap(s.buf) {
			s.buf = append(s.buf, 0)[:len(s.buf)]
		}
		n, err := r.Read(s.buf[len(s.buf):cap(s.buf)])
		s.buf = s.buf[:len(s.buf)+n]
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	if err := s.frame.Parse(s.buf); err != nil {
		return nil, fmt.Errorf("%w: %.100q", err, s.buf)
	}
	return &s.frame, nil
}

// ExtendRead moves the deadline of a Read in progress.
func (s *Socket) ExtendRead(wait time.Duration) {
	_ = s.conn.SetReadDeadline(time.Now().Add(wait))
}

// Write writes one text frame.
func (s *Socket) Write(frame []byte) error { return s.WriteKind(websocket.TextMessage, frame) }

// WriteKind writes one frame of a WebSocket message kind (1 text, 2 binary).
func (s *Socket) WriteKind(kind int, frame []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lastErr != nil {
		return s.lastErr
	}
	_ = s.conn.SetWriteDeadline(time.Now().Add(writeLimit))
	s.lastErr = s.conn.WriteMessage(kind, frame)
	return s.lastErr
}

// Shut says goodbye with a close frame and closes.
func (s *Socket) Shut() {
	msg := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
	_ = s.conn.WriteControl(websocket.CloseMessage, msg, time.Now().Add(time.Second))
	_ = s.conn.Close()
}

// Cut closes the TCP connection without a word, as a broken network would.
func (s *Socket) Cut() { _ = s.conn.NetConn().Close() }

// LocalAddr is this end's address.
func (s *Socket) LocalAddr() string { return s.conn.LocalAddr().String() }
