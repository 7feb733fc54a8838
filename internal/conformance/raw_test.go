package conformance

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Opcodes and the final bit of a frame (RFC 6455, 5.2).
const (
	opContinuation, opText, opBinary      = 0, 1, 2
	opClose, opPing, opPong          byte = 8, 9, 10
	final                            byte = 0x80
)

// raw is a connection on which a test writes what it likes.
type raw struct {
	t  testing.TB
	nc net.Conn
	r  *bufio.Reader
}

// openRaw makes the handshake by hand.
func (u *user) openRaw() *raw {
	u.t.Helper()
	at, err := url.Parse(u.edge)
	require.NoError(u.t, err)
	var nc net.Conn
	d := &net.Dialer{Timeout: wait}
	if at.Scheme == "https" {
		nc, err = (&tls.Dialer{NetDialer: d}).DialContext(u.t.Context(), "tcp", at.Host)
	} else {
		nc, err = d.DialContext(u.t.Context(), "tcp", at.Host)
	}
	require.NoError(u.t, err)
	u.t.Cleanup(func() { _ = nc.Close() })
	require.NoError(u.t, nc.SetDeadline(time.Now().Add(2*wait)))
	_, err = fmt.Fprintf(nc, "GET /im/connect?token=%s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n", url.QueryEscape(u.Token), at.Host)
	require.NoError(u.t, err)
	r := bufio.NewReader(nc)
	resp, err := http.ReadResponse(r, nil)
	require.NoError(u.t, err)
	_ = resp.Body.Close()
	require.Equal(u.t, 101, resp.StatusCode)
	require.Equal(u.t, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", resp.Header.Get("Sec-Websocket-Accept"))
	require.Empty(u.t, resp.Header.Get("Sec-Websocket-Extensions"), "no compression")
	return &raw{t: u.t, nc: nc, r: r}
}

// frameOf is a client's frame: masked, its first byte as given.
func frameOf(b0 byte, payload string) []byte {
	out := []byte{b0}
	switch n := len(payload); {
	case n < 126:
		out = append(out, 0x80|byte(n))
	case n < 1<<16:
		out = binary.BigEndian.AppendUint16(append(out, 0x80|126), uint16(n))
	default:
		out = binary.BigEndian.AppendUint64(append(out, 0x80|127), uint64(n))
	}
	mask := [4]byte{7, 3, 9, 1}
	out = append(out, mask[:]...)
	for i := range len(payload) {
		out = append(out, payload[i]^mask[i&3])
	}
	return out
}

// next reads a frame of the server's.
func (c *raw) next() (op byte, payload []byte, err error) {
	var head [2]byte
	if _, err := io.ReadFull(c.r, head[:]); err != nil {
		return 0, nil, err
	}
	if head[0]&0x70 != 0 || head[1]&0x80 != 0 {
		return 0, nil, errors.New("a server's frame with reserved bits or a mask")
	}
	n := uint64(head[1])
	var wide [8]byte
	switch n {
	case 126:
		_, err = io.ReadFull(c.r, wide[6:])
		n = binary.BigEndian.Uint64(wide[:])
	case 127:
		_, err = io.ReadFull(c.r, wide[:])
		n = binary.BigEndian.Uint64(wide[:])
	}
	if err != nil {
		return 0, nil, err
	}
	if n > 1<<20 {
		return 0, nil, fmt.Errorf("a frame of %d bytes", n)
	}
	payload = make([]byte, n)
	_, err = io.ReadFull(c.r, payload)
	return head[0] & 0x0f, payload, err
}

// end reads until the connection ends, or until a pong to the test's own ping
// shows that it lives (0).
func (c *raw) end() (int, error) {
	for {
		op, p, err := c.next()
		switch {
		case err != nil:
			return -1, err
		case op == opClose && len(p) >= 2:
			return int(binary.BigEndian.Uint16(p)), nil
		case op == opClose:
			return 1005, nil
		case op == opPong && string(p) == "alive?":
			return 0, nil
		}
	}
}

// What breaks the rules of WebSocket ends the connection with the code for it;
// what only looks odd does not. Nobody else notices.
func TestSocket_ProtocolErrorsEndWithTheirCode(t *testing.T) {
	us := newUsers(t, 2)
	befriend(us[0], us[1])
	watcher := us[1].connect()
	const ping = `{"msg_code":1004,"message":"ping"}`
	closing := func(code uint16, reason string) string {
		return string(binary.BigEndian.AppendUint16(nil, code)) + reason
	}
	for name, tt := range map[string]struct {
		in   []byte
		code int // 0: the connection lives
	}{
		"text":                     {frameOf(final|opText, ping), 0},
		"text of the limit":        {frameOf(final|opText, ping+strings.Repeat(" ", 64<<10-len(ping))), 0},
		"empty text":               {frameOf(final|opText, ""), 0},
		"fragments":                {append(frameOf(opText, ping[:7]), append(frameOf(final|opPing, "mid"), frameOf(final|opContinuation, ping[7:])...)...), 0},
		"a rune in two fragments":  {append(frameOf(opText, `{"msg_code":1004,"message":"`+"\xe4"), frameOf(final|opContinuation, "\xbd\xa0\"}")...), 0},
		"unasked pong":             {frameOf(final|opPong, "x"), 0},
		"longest ping":             {frameOf(final|opPing, strings.Repeat("x", 125)), 0},
		"binary":                   {frameOf(final|opBinary, ping), 1003},
		"not UTF-8":                {frameOf(final|opText, "{\"msg_code\":1004,\"message\":\"\xff\"}"), 1007},
		"not UTF-8, in fragments":  {append(frameOf(opText, "\"\xe4"), frameOf(final|opContinuation, "\xbd\"")...), 1007},
		"half a surrogate":         {frameOf(final|opText, "\"\xed\xa0\x80\""), 1007},
		"compressed":               {frameOf(final|0x40|opText, "\xaa\x56\xca"), 1002},
		"a bomb, compressed":       {frameOf(final|0x40|opText, strings.Repeat("\x00", 60<<10)), 1002},
		"reserved bit 2":           {frameOf(final|0x20|opText, ping), 1002},
		"reserved bit 3":           {frameOf(final|0x10|opText, ping), 1002},
		"reserved opcode 3":        {frameOf(final|3, ""), 1002},
		"reserved opcode 11":       {frameOf(final|11, ""), 1002},
		"unmasked":                 {append([]byte{final | opText, byte(len(ping))}, ping...), 1002},
		"continuation of nothing":  {frameOf(final|opContinuation, ping), 1002},
		"a message inside another": {append(frameOf(opText, "{"), frameOf(final|opText, ping)...), 1002},
		"ping too long":            {frameOf(final|opPing, strings.Repeat("x", 126)), 1002},
		"ping in fragments":        {frameOf(opPing, "x"), 1002},
		"length not minimal":       {[]byte{final | opText, 0x80 | 126, 0, 2, 0, 0, 0, 0, '{', '}'}, 1002},
		"length beyond 2^63":       {append([]byte{final | opText, 0x80 | 127}, bytes.Repeat([]byte{0xff}, 12)...), 1002},
		"too big":                  {frameOf(final|opText, strings.Repeat("x", 64<<10+1)), 1009},
		"said to be too big":       {append([]byte{final | opText, 0x80 | 127}, 0, 0, 1, 0, 0, 0, 0, 0, 1, 2, 3, 4), 1009},
		"too big in fragments":     {append(frameOf(opText, strings.Repeat("x", 40<<10)), frameOf(final|opContinuation, strings.Repeat("x", 40<<10))...), 1009},
		"fragments without end":    {append(frameOf(opText, ""), bytes.Repeat(frameOf(opContinuation, ""), 100)...), 1008},
		"close":                    {frameOf(final|opClose, closing(1000, "bye")), 1000},
		"close without a code":     {frameOf(final|opClose, ""), 1000},
		"close, own code":          {frameOf(final|opClose, closing(4321, "")), 4321},
		"close of one byte":        {frameOf(final|opClose, "\x03"), 1002},
		"close 1005":               {frameOf(final|opClose, closing(1005, "")), 1002},
		"close 999":                {frameOf(final|opClose, closing(999, "")), 1002},
		"close, reason not UTF-8":  {frameOf(final|opClose, closing(1000, "\xff")), 1007},
		"another protocol":         {[]byte("GET / HTTP/1.1\r\n\r\n"), 1002},
	} {
		t.Run(name, func(t *testing.T) {
			c := us[0].with(t).openRaw()
			_, err := c.nc.Write(append(tt.in, frameOf(final|opPing, "alive?")...))
			require.NoError(t, err)
			code, err := c.end()
			require.NoError(t, err)
			require.Equal(t, tt.code, code)
			_ = c.nc.Close()
		})
	}
	us[0].say(us[1], "all is well")
	watcher.expectText("all is well")
	require.NoError(t, watcher.failure())
}

// A handshake that cannot be one is refused in the words of the HTTP API, and a
// page may read them.
func TestSocket_HandshakesThatAreNone(t *testing.T) {
	u := newUser(t)
	good := []string{"Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="}
	with := func(k, v string) []string { return append(append([]string{}, good...), k, v) }
	for name, tt := range map[string]struct {
		method, query string
		header        []string
		status        int
	}{
		"no upgrade":       {http.MethodGet, "", nil, 400},
		"old version":      {http.MethodGet, "", with("Sec-WebSocket-Version", "8"), 426},
		"bad key":          {http.MethodGet, "", with("Sec-WebSocket-Key", "x"), 400},
		"POST":             {http.MethodPost, "", good, 405},
		"unknown platform": {http.MethodGet, "&platform=fridge", good, 400},
	} {
		t.Run(name, func(t *testing.T) {
			resp := u.with(t).raw(tt.method, "/im/connect?token="+u.Token+tt.query, nil, "", tt.header...)
			a := answer{t: t, what: name, data: readAll(t, resp)}
			require.Equal(t, tt.status, resp.StatusCode, "%s", a.data)
			require.EqualValues(t, tt.status, a.object()["code"])
			require.NotEmpty(t, a.object()["message"])
			require.Equal(t, "*", resp.Header.Get("Access-Control-Allow-Origin"))
			if tt.status == 426 {
				require.Equal(t, "13", resp.Header.Get("Sec-Websocket-Version"))
			}
		})
	}
}
