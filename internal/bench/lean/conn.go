package lean

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"im-services/internal/wire"
)

// WebSocket opcodes.
const (
	opText  = 0x1
	opClose = 0x8
	opPing  = 0x9
	opPong  = 0xa
)

const (
	firstBuffer = 1 << 10
	maxPayload  = 4 << 20
	// writeTimeout ends a connection whose server takes nothing.
	writeTimeout = 10 * time.Second
)

// CloseError is the server's farewell.
type CloseError struct {
	Code   int
	Reason string
}

func (e *CloseError) Error() string {
	return fmt.Sprintf("closed by the server: %d %s", e.Code, e.Reason)
}

// RefusedError is an answer to the upgrade request other than 101.
type RefusedError struct {
	Status int
	Body   string
}

func (e *RefusedError) Error() string { return fmt.Sprintf("upgrade refused: %d %s", e.Status, e.Body) }

// Conn is one connection. One goroutine may read while any number write.
type Conn struct {
	nc   net.Conn
	buf  []byte
	r, w int // buf[r:w] is read but not used

	mu   sync.Mutex // guards out and the order of writes
	out  []byte
	last time.Time // when the write deadline was set

	// Pings counts the pings that were answered; read it when reading is over.
	Pings int
}

// Dial connects to base (http://host:port) with a token. platform is web, pc,
// app, or empty for the server's default. ctx bounds the handshake.
func Dial(ctx context.Context, base, token, platform string) (*Conn, error) {
	u, err := url.Parse(base)
	if err != nil {
		return nil, err
	}
	if u.Scheme != "http" && u.Scheme != "ws" {
		return nil, fmt.Errorf("base URL %q: only plain http is measured", base)
	}
	host := u.Host
	if u.Port() == "" {
		host = net.JoinHostPort(u.Hostname(), "80")
	}
	var d net.Dialer
	nc, err := d.DialContext(ctx, "tcp", host)
	if err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		_ = nc.SetDeadline(deadline)
	}
	c, err := upgrade(nc, u.Host, strings.TrimSuffix(u.Path, "/"), token, platform)
	if err != nil {
		_ = nc.Close()
		return nil, err
	}
	_ = nc.SetDeadline(time.Time{})
	return c, nil
}

func upgrade(nc net.Conn, host, prefix, token, platform string) (*Conn, error) {
	var nonce [16]byte
	if _, err := rand.Read(nonce[:]); err != nil {
		return nil, err
	}
	path := prefix + "/im/connect"
	if platform != "" {
		path += "?platform=" + url.QueryEscape(platform)
	}
	request := "GET " + path + " HTTP/1.1\r\nHost: " + host +
		"\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " +
		base64.StdEncoding.EncodeToString(nonce[:]) + "\r\nAuthorization: Bearer " + token + "\r\n\r\n"
	if _, err := io.WriteString(nc, request); err != nil {
		return nil, err
	}
	r := bufio.NewReaderSize(nc, firstBuffer)
	resp, err := http.ReadResponse(r, nil) //nolint:bodyclose // a 101 has none, any other answer ends the connection
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 512))
		return nil, &RefusedError{resp.StatusCode, strings.TrimSpace(string(body))}
	}
	c := &Conn{nc: nc, buf: make([]byte, firstBuffer)}
	// What came after the answer is frames already.
	if n := r.Buffered(); n > 0 {
		ahead, err := r.Peek(n)
		if err != nil {
			return nil, err
		}
		c.w = copy(c.buf, ahead)
	}
	return c, nil
}

// Next returns the payload of the next text frame. It is good until the next
// call. Pings are answered on the way. A *CloseError is the server's close
// frame, any other error the end of the connection.
func (c *Conn) Next() ([]byte, error) {
	for {
		if err := c.need(2); err != nil {
			return nil, err
		}
		b0, b1 := c.buf[c.r], c.buf[c.r+1]
		if b1&0x80 != 0 {
			return nil, errors.New("masked frame from the server")
		}
		size, length := 2, uint64(b1)
		switch length {
		case 126:
			if err := c.need(4); err != nil {
				return nil, err
			}
			size, length = 4, uint64(binary.BigEndian.Uint16(c.buf[c.r+2:]))
		case 127:
			if err := c.need(10); err != nil {
				return nil, err
			}
			size, length = 10, binary.BigEndian.Uint64(c.buf[c.r+2:])
		}
		if length > maxPayload {
			return nil, fmt.Errorf("frame of %d bytes", length)
		}
		n := size + int(length)
		if err := c.need(n); err != nil {
			return nil, err
		}
		p := c.buf[c.r+size : c.r+n]
		c.r += n
		switch {
		case b0 == 0x80|opText:
			return p, nil
		case b0 == 0x80|opPing:
			c.Pings++
			if err := c.write(opPong, p); err != nil {
				return nil, err
			}
		case b0 == 0x80|opPong:
		case b0 == 0x80|opClose:
			e := &CloseError{Code: 1005}
			if len(p) >= 2 {
				e.Code, e.Reason = int(binary.BigEndian.Uint16(p)), string(p[2:])
			}
			_ = c.write(opClose, p)
			return nil, e
		default:
			return nil, fmt.Errorf("frame with first byte %#x", b0)
		}
	}
}

// need makes at least n bytes of the buffer readable.
func (c *Conn) need(n int) error {
	if c.w-c.r >= n {
		return nil
	}
	if c.r+n > len(c.buf) || c.r == c.w {
		if n > len(c.buf) {
			bigger := make([]byte, max(n, 2*len(c.buf)))
			c.w = copy(bigger, c.buf[c.r:c.w])
			c.buf = bigger
		} else {
			c.w = copy(c.buf, c.buf[c.r:c.w])
		}
		c.r = 0
	}
	for c.w < n+c.r {
		m, err := c.nc.Read(c.buf[c.w:])
		c.w += m
		if err != nil {
			return err
		}
	}
	if c.w == len(c.buf) && len(c.buf) < 64<<10 && c.r == 0 {
		// More was waiting than fits: read more at once from now on.
		bigger := make([]byte, 2*len(c.buf))
		copy(bigger, c.buf[:c.w])
		c.buf = bigger
	}
	return nil
}

// SetReadDeadline bounds Next.
func (c *Conn) SetReadDeadline(t time.Time) { _ = c.nc.SetReadDeadline(t) }

// Close ends the connection without a word, as a phone that loses its network.
func (c *Conn) Close() error { return c.nc.Close() }

// Bye ends the connection as a client that leaves does: a close frame first.
func (c *Conn) Bye() error {
	_ = c.write(opClose, []byte{0x03, 0xe8})
	return c.nc.Close()
}

// LocalAddr is the client's end.
func (c *Conn) LocalAddr() net.Addr { return c.nc.LocalAddr() }

func (c *Conn) write(op byte, p []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.begin()
	c.out = append(c.out, p...)
	return c.end(op)
}

// WriteText writes one text frame.
func (c *Conn) WriteText(p []byte) error { return c.write(opText, p) }

// Chat is a chat frame to send.
type Chat struct {
	ClientMsgID int64
	From, To    int64
	Kind        int64
	// Body is sent as the text; it must need no escaping.
	Body []byte
}

// Lock and Unlock put the numbering of a message and its writing into one step,
// so that numbers are on the wire in their order: Lock, SendLocked, Unlock.
func (c *Conn) Lock() { c.mu.Lock() }

// Unlock ends what Lock began.
func (c *Conn) Unlock() { c.mu.Unlock() }

// SendLocked writes one chat frame. The caller holds the lock.
func (c *Conn) SendLocked(m *Chat) error {
	c.begin()
	b := append(c.out, `{"msg_code":200,"msg_client_id":`...)
	b = strconv.AppendInt(b, m.ClientMsgID, 10)
	b = append(b, `,"`+wire.SenderField+`":`...)
	b = strconv.AppendInt(b, m.From, 10)
	b = append(b, `,"to_id":`...)
	b = strconv.AppendInt(b, m.To, 10)
	b = append(b, `,"msg_type":1,"channel_type":`...)
	b = strconv.AppendInt(b, m.Kind, 10)
	b = append(b, `,"message":"`...)
	b = append(b, m.Body...)
	c.out = append(b, `","data":""}`...)
	return c.end(opText)
}

var heartbeat = []byte(`{"msg_code":1004,"message":"ping"}`)

// Heartbeat asks for frame 1004.
func (c *Conn) Heartbeat() error { return c.write(opText, heartbeat) }

// Room for the longest header of a masked frame of up to 64 KiB.
const headerRoom = 8

// begin empties the write buffer but for the header's room.
func (c *Conn) begin() {
	if c.out == nil {
		c.out = make([]byte, headerRoom, 512)
	}
	c.out = c.out[:headerRoom]
}

// end puts the header before the payload and writes both.
func (c *Conn) end(op byte) error {
	n := len(c.out) - headerRoom
	at := headerRoom - 6
	switch {
	case n < 126:
		c.out[at+1] = 0x80 | byte(n)
	case n < 1<<16:
		at = 0
		c.out[1] = 0x80 | 126
		binary.BigEndian.PutUint16(c.out[2:], uint16(n)) //nolint:gosec // checked
	default:
		return fmt.Errorf("payload of %d bytes", n)
	}
	c.out[at] = 0x80 | op
	clear(c.out[headerRoom-4 : headerRoom]) // the mask
	// A deadline costs a timer; one that is at least half as far off will do.
	if now := time.Now(); now.Sub(c.last) > writeTimeout/2 {
		c.last = now
		if err := c.nc.SetWriteDeadline(now.Add(writeTimeout)); err != nil {
			return err
		}
	}
	_, err := c.nc.Write(c.out[at:])
	return err
}
