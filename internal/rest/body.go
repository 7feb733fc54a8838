package rest

import (
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"im-services/internal/im"
)

// A body must bring its first bytes within paceWindow, then paceBytes in every
// window of that length, or it is cut off.
const (
	paceWindow = 30 * time.Second
	paceBytes  = 10 << 10 * int64(paceWindow/time.Second)
)

// drainLimit is how much of a refused body is read and thrown away before the
// answer. Answering earlier would reset the connection of a client that is
// still sending, and he would never see why.
const drainLimit = 64 << 20

// smallBody is what a body may take, in bytes, whatever others take: no more than its
// connection takes anyway. So who is not logged in can log in.
const smallBody = 4 << 10

// body reads a request body under a limit and a pace. It is used by one
// goroutine.
type body struct {
	src    io.Reader
	ctl    *http.ResponseController
	left   int64 // bytes that may still be read
	read   int64 // bytes read in all
	window time.Time
	got    int64              // bytes read since window
	room   func(n int64) bool // whether so many bytes in all may be held; nil: they are not held
	err    error
}

// newBody replaces r.Body; limit is in bytes.
func newBody(w http.ResponseWriter, r *http.Request, limit int64) *body {
	b := &body{src: r.Body, ctl: http.NewResponseController(w), left: limit}
	b.open()
	return b
}

// open starts a window. A connection without deadlines (a test's recorder)
// reads without a pace.
func (b *body) open() {
	b.window, b.got = time.Now(), 0
	_ = b.ctl.SetReadDeadline(b.window.Add(paceWindow))
}

// Read returns body_too_large once the limit is passed, bodies_busy when there is no
// room for more and body_too_slow when the pace was not kept.
func (b *body) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1] // one more byte than allowed tells a full body from a fat one
	}
	n, err := b.src.Read(p)
	b.read += int64(n)
	if b.got += int64(n); b.got >= paceBytes {
		b.open()
	}
	switch {
	case int64(n) > b.left:
		n = int(b.left)
		b.err = im.E(im.KindInvalid, "body_too_large", nil)
	case b.room != nil && !b.room(b.read):
		b.err = &im.Error{Kind: im.KindExhausted, Reason: "bodies_busy", RetryAfter: time.Second}
	case err == nil:
	case errors.Is(err, io.EOF):
		_ = b.ctl.SetReadDeadline(time.Time{})
		b.err = io.EOF
	case errors.Is(err, os.ErrDeadlineExceeded):
		b.err = im.E(im.KindInvalid, "body_too_slow", err)
	default:
		b.err = im.E(im.KindInvalid, "body_invalid", err)
	}
	b.left -= int64(n)
	return n, b.err
}

// sink reads away a body that nobody asked for, before a refusal that came
// without looking at it: a login that has ended must not look like a broken
// network to a browser that is sending a file. Who waits to be told to send
// (Expect) is not.
func sink(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength != 0 && r.Header.Get("Expect") == "" {
		_, _ = io.Copy(io.Discard, newBody(w, r, drainLimit))
	}
}

// drain reads away the rest of a refused body, as far as that is worth it.
func (b *body) drain() {
	b.err, b.room, b.left = nil, nil, drainLimit-b.read
	if b.left > 0 {
		_, _ = io.Copy(io.Discard, b)
	}
}

// hold takes what a body of which n bytes have come needs of the room for bodies.
func (c *call) hold(n int64) bool {
	if n <= smallBody {
		return true
	}
	if !c.bodies.takeN(c.me, int(n)-c.held) {
		return false
	}
	c.held = int(n)
	return true
}

// forget gives back the room for the body.
func (c *call) forget() {
	if c.held > 0 {
		c.bodies.releaseN(c.me, c.held)
		c.held = 0
	}
}
