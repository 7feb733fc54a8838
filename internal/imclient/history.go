package imclient

import (
	"bufio"
	"io"
	"strconv"
	"sync"
	"time"
)

// The types of events: an operation begins, and ends in one of three ways; info
// means that its outcome is not known and that it may still take effect.
const (
	Invoke = "invoke"
	OK     = "ok"
	Fail   = "fail"
	Info   = "info"
)

// What events are about.
const (
	OpConnect = "connect" // the socket: invoke, ok or fail; info when it ends
	OpSend    = "send"    // a message: invoke when posted, then ok, fail or info
	OpSent    = "sent"    // it goes out for the first time, on another connection than it was posted on
	OpResend  = "resend"  // the same message goes out again
	OpPush    = "push"    // a message arrived: ok shown, info shown late, fail a repeat that was dropped
	OpSync    = "sync"    // a sync answer was taken in
)

// Event is a line of a history.
type Event struct {
	T      time.Duration // since the process's clock started; monotonic
	Client int64         // user id
	Conn   int           // the client's connections, counted from 1
	Type   string
	Op     string

	// What was asked.
	ClientID int64
	Channel  int
	To       int64
	From     int64
	Text     string

	// What came of it.
	ID           int64
	Conversation int64
	Seq          int64
	Code         int
	Reason       string
}

var started = time.Now()

// Now is the clock of events.
func Now() time.Duration { return time.Since(started) }

// History writes events as JSON lines, numbered in the order of writing. Safe
// for concurrent use. Errors stick and are returned by Close.
type History struct {
	mu  sync.Mutex
	w   *bufio.Writer
	n   uint64
	buf []byte
}

// NewHistory writes to w, which stays the caller's to close.
func NewHistory(w io.Writer) *History {
	return &History{w: bufio.NewWriterSize(w, 64<<10)}
}

// Add writes one event.
func (h *History) Add(e *Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.n++
	b := append(h.buf[:0], `{"i":`...)
	b = strconv.AppendUint(b, h.n, 10)
	b = appendInt(append(b, ','), `t`, int64(e.T))
	b = appendInt(append(b, ','), `client`, e.Client)
	b = appendInt(append(b, ','), `conn`, int64(e.Conn))
	b = appendString(appendName(append(b, ','), `type`), e.Type)
	b = appendString(appendName(append(b, ','), `f`), e.Op)
	b = appendName(append(b, ','), `args`)
	b = appendMembers(b, [...]member{{`cid`, e.ClientID}, {`channel`, int64(e.Channel)}, {`to`, e.To}, {`from`, e.From}}, `text`, e.Text)
	b = appendName(append(b, ','), `ret`)
	b = appendMembers(b, [...]member{{`id`, e.ID}, {`conv`, e.Conversation}, {`seq`, e.Seq}, {`code`, int64(e.Code)}}, `reason`, e.Reason)
	b = append(b, '}', '\n')
	h.buf = b
	_, _ = h.w.Write(b) // bufio keeps the first error for Close
}

type member struct {
	name  string
	value int64
}

// appendMembers appends an object of the members that are not zero.
func appendMembers(b []byte, ms [4]member, textName, text string) []byte {
	b = append(b, '{')
	first := true
	comma := func() {
		if !first {
			b = append(b, ',')
		}
		first = false
	}
	for _, m := range ms {
		if m.value != 0 {
			comma()
			b = appendInt(b, m.name, m.value)
		}
	}
	if text != "" {
		comma()
		b = appendString(appendName(b, textName), text)
	}
	return append(b, '}')
}

// Close writes what is buffered and returns the first error.
func (h *History) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.w.Flush()
}
