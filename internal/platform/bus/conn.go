package bus

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/nsqio/go-nsq"
)

const (
	// heartbeatEvery is asked of nsqd, which drops a client that leaves two
	// unanswered: a process that stands still for 4 s loses its connections.
	heartbeatEvery = 2 * time.Second
	// silenceLimit ends a connection on which nothing, not even a heartbeat, came.
	silenceLimit = 4500 * time.Millisecond
	// dialLimit bounds connecting and, again, introducing ourselves.
	dialLimit = 2 * time.Second
	// writeLimit bounds one write; a healthy nsqd always reads.
	writeLimit = 2 * time.Second
	// redialEvery is the pause between attempts, plus up to half of it.
	redialEvery = 300 * time.Millisecond

	ioBuffer = 32 << 10
)

var (
	heartbeat = []byte("_heartbeat_")
	nop       = nsq.Nop()
)

// conn is one introduced connection. One goroutine may read and one may write.
type conn struct {
	nc     *timedConn
	br     *bufio.Reader
	bw     *bufio.Writer
	maxRDY int
}

// timedConn fails a read on which nothing came for readLimit, and a write that
// took longer than writeLimit.
type timedConn struct {
	net.Conn
	readLimit time.Duration
}

func (c *timedConn) Read(p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(c.readLimit)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

func (c *timedConn) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(writeLimit)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// buffering is what nsqd does with what it sends.
type buffering int

const (
	// answersOnly: nsqd sends each answer with one write.
	answersOnly buffering = 0
	// unbuffered: nsqd sends each message at once, with three writes. In a buffer it
	// would wait up to 250 ms for company.
	unbuffered buffering = -1
)

// dial connects to the nsqd at addr and introduces itself.
func dial(ctx context.Context, addr, authSecret string, b buffering) (*conn, error) {
	d := net.Dialer{Timeout: dialLimit}
	raw, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	nc := &timedConn{Conn: raw, readLimit: dialLimit}
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	c := &conn{nc: nc, br: bufio.NewReaderSize(nc, ioBuffer), bw: bufio.NewWriterSize(nc, ioBuffer)}
	err = c.identify(authSecret, b)
	if !stop() {
		err = ctx.Err()
	}
	if err != nil {
		_ = raw.Close()
		return nil, fmt.Errorf("%s: %w", addr, err)
	}
	nc.readLimit = silenceLimit
	return c, nil
}

// identify tells nsqd what the connection is like.
func (c *conn) identify(authSecret string, b buffering) error {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	cmd, err := nsq.Identify(map[string]any{
		"client_id":             fmt.Sprintf("%s-%d", host, os.Getpid()),
		"hostname":              host,
		"user_agent":            "im-bus",
		"feature_negotiation":   true,
		"heartbeat_interval":    heartbeatEvery.Milliseconds(),
		"output_buffer_size":    b,
		"output_buffer_timeout": b,
	})
	if err != nil {
		return err
	}
	if _, err := c.bw.Write(nsq.MagicV2); err != nil {
		return err
	}
	answer, err := c.ask(cmd)
	if err != nil {
		return fmt.Errorf("identify: %w", err)
	}
	var features struct {
		MaxRDYCount  int  `json:"max_rdy_count"`
		AuthRequired bool `json:"auth_required"`
	}
	if err := json.Unmarshal(answer, &features); err != nil {
		return fmt.Errorf("identify: %w", err)
	}
	c.maxRDY = features.MaxRDYCount
	if features.AuthRequired {
		if authSecret == "" {
			return errors.New("nsqd asks for a secret and none is configured")
		}
		cmd, err := nsq.Auth(authSecret)
		if err != nil {
			return err
		}
		if _, err := c.ask(cmd); err != nil {
			return fmt.Errorf("auth: %w", err)
		}
	}
	return nil
}

// ask sends one command and returns its answer; only before the loops run.
func (c *conn) ask(cmd *nsq.Command) ([]byte, error) {
	if _, err := cmd.WriteTo(c.bw); err != nil {
		return nil, err
	}
	if err := c.bw.Flush(); err != nil {
		return nil, err
	}
	for {
		frame, data, err := nsq.ReadUnpackedResponse(c.br)
		switch {
		case err != nil:
			return nil, err
		case frame == nsq.FrameTypeError:
			return nil, errors.New(string(data))
		case frame == nsq.FrameTypeResponse && !bytes.Equal(data, heartbeat):
			return data, nil
		}
	}
}

// read returns the next frame, or an error after silenceLimit without one.
func (c *conn) read() (frame int32, data []byte, err error) {
	return nsq.ReadUnpackedResponse(c.br)
}

// write buffers one command.
func (c *conn) write(cmd *nsq.Command) error {
	_, err := cmd.WriteTo(c.bw)
	return err
}

// isHeartbeat reports a frame that wants a NOP.
func isHeartbeat(frame int32, data []byte) bool {
	return frame == nsq.FrameTypeResponse && bytes.Equal(data, heartbeat)
}
