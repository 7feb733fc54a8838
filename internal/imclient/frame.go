package imclient

import (
	"encoding/json"
	"errors"
	"strconv"

	"im-services/internal/wire"
)

// The frame codes of the public protocol.
const (
	CodeChat       = 200
	CodeError      = 500
	CodeCall       = 600
	CodeRequest    = 1000
	CodeAccepted   = 1001
	CodeRefused    = 1002
	CodeNotAllowed = 1003
	CodeHeartbeat  = 1004
	CodeAck        = 1005
	CodeOffline    = 2000
	CodeOnline     = 2001
	CodePresence   = 2002
	CodeSession    = 2003
	CodeDisplaced  = 2004
	CodeRecall     = 2005
	CodeSyncNeeded = 2006
)

// The kinds of conversation.
const (
	Private = 1
	Group   = 2
)

// Frame is what the server wrote, with the members most frames have taken out.
// A member that was absent or not of its type is zero. Frames given to hooks
// are reused: Raw and the methods are valid until the hook returns.
type Frame struct {
	Raw          []byte
	Code         int
	ID           int64 // msg_id, or id where there is no msg_id
	ClientID     int64
	From, To     int64
	Channel      int
	Type         int
	Status       int
	Conversation int64
	Seq          int64
	RetryAfter   int64 // seconds

	text, data, reason, group span
}

// span is a value's place in Raw.
type span struct{ from, to int }

// Text is the message member.
func (f *Frame) Text() string { return f.str(f.text) }

// Reason is the stable key of a refusal.
func (f *Frame) Reason() string { return f.str(f.reason) }

// Data is the data member as it stands in the frame, a JSON value; nil if absent.
func (f *Frame) Data() []byte { return f.Raw[f.data.from:f.data.to] }

// Session is the sessions member of frame 2003; nil if absent.
func (f *Frame) Session() []byte { return f.Raw[f.group.from:f.group.to] }

func (f *Frame) str(s span) string {
	raw := f.Raw[s.from:s.to]
	if len(raw) < 2 || raw[0] != '"' {
		return ""
	}
	inner := raw[1 : len(raw)-1]
	for _, c := range inner {
		if c == '\\' {
			var out string
			if json.Unmarshal(raw, &out) != nil {
				return ""
			}
			return out
		}
	}
	return string(inner)
}

var errNotObject = errors.New("imclient: the frame is not one JSON object")

// Parse reads b, which f keeps. It is made for speed on the frames a server
// sends: it finds the members of the object without copying or allocating, and
// leaves strings to be decoded when asked for. It refuses what is not one
// object; it does not check the inside of nested values.
func (f *Frame) Parse(b []byte) error {
	*f = Frame{Raw: b}
	p := skipSpace(b, 0)
	if p >= len(b) || b[p] != '{' {
		return errNotObject
	}
	p = skipSpace(b, p+1)
	if p < len(b) && b[p] == '}' {
		return end(b, p+1)
	}
	var plainID int64
	for {
		key, next, ok := scanString(b, p)
		if !ok {
			return errNotObject
		}
		p = skipSpace(b, next)
		if p >= len(b) || b[p] != ':' {
			return errNotObject
		}
		from := skipSpace(b, p+1)
		to, ok := skipValue(b, from)
		if !ok {
			return errNotObject
		}
		f.set(b[key.from+1:key.to-1], span{from, to}, &plainID)
		p = skipSpace(b, to)
		if p >= len(b) {
			return errNotObject
		}
		switch b[p] {
		case ',':
			p = skipSpace(b, p+1)
		case '}':
			if f.ID == 0 {
				f.ID = plainID
			}
			return end(b, p+1)
		default:
			return errNotObject
		}
	}
}

func end(b []byte, p int) error {
	if skipSpace(b, p) != len(b) {
		return errNotObject
	}
	return nil
}

func (f *Frame) set(key []byte, v span, plainID *int64) {
	n := func() int64 { return integer(f.Raw[v.from:v.to]) }
	switch string(key) {
	case `msg_code`:
		f.Code = int(n())
	case `msg_id`:
		f.ID = n()
	case `id`:
		*plainID = n()
	case `msg_client_id`:
		f.ClientID = n()
	case wire.SenderField:
		f.From = n()
	case `to_id`:
		f.To = n()
	case `channel_type`:
		f.Channel = int(n())
	case `msg_type`:
		f.Type = int(n())
	case `status`:
		f.Status = int(n())
	case `conversation_id`:
		f.Conversation = n()
	case `seq`:
		f.Seq = n()
	case `retry_after`:
		f.RetryAfter = n()
	case `message`:
		f.text = v
	case `data`:
		f.data = v
	case `reason`:
		f.reason = v
	case `sessions`:
		f.group = v
	}
}

func integer(b []byte) int64 {
	neg := len(b) > 0 && b[0] == '-'
	if neg {
		b = b[1:]
	}
	if len(b) == 0 || len(b) > 18 {
		return 0
	}
	var n int64
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0
		}
		n = n*10 + int64(c-'0')
	}
	if neg {
		return -n
	}
	return n
}

func skipSpace(b []byte, p int) int {
	for p < len(b) && (b[p] == ' ' || b[p] == '\n' || b[p] == '\t' || b[p] == '\r') {
		p++
	}
	return p
}

// scanString finds the string literal that starts at p, quotes included.
func scanString(b []byte, p int) (s span, next int, ok bool) {
	if p >= len(b) || b[p] != '"' {
		return span{}, p, false
	}
	for i := p + 1; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return span{p, i + 1}, i + 1, true
		}
	}
	return span{}, p, false
}

// skipValue returns where the value that starts at p ends.
func skipValue(b []byte, p int) (next int, ok bool) {
	if p >= len(b) {
		return p, false
	}
	switch b[p] {
	case '"':
		_, next, ok = scanString(b, p)
		return next, ok
	case '{', '[':
		depth := 0
		for p < len(b) {
			switch b[p] {
			case '"':
				if _, p, ok = scanString(b, p); !ok {
					return p, false
				}
				continue
			case '{', '[':
				depth++
			case '}', ']':
				if depth--; depth == 0 {
					return p + 1, true
				}
			}
			p++
		}
		return p, false
	}
	from := p
	for p < len(b) && b[p] != ',' && b[p] != '}' && b[p] != ']' && b[p] > ' ' {
		p++
	}
	return p, p > from
}

// Outgoing is a message to send.
type Outgoing struct {
	// ClientID is the idempotency key; 0 lets the Client choose one.
	ClientID int64
	Channel  int   // Private (default) or Group
	To       int64 // a user, or a group
	Type     int   // default 1, text
	Text     string
	Data     string // a JSON value; empty: no data member
}

// AppendChat appends the chat frame for m as user from sends it.
func AppendChat(dst []byte, from int64, m *Outgoing) []byte {
	dst = append(dst, '{')
	dst = appendInt(dst, `msg_code`, CodeChat)
	dst = appendInt(append(dst, ','), `msg_client_id`, m.ClientID)
	dst = appendInt(append(dst, ','), wire.SenderField, from)
	dst = appendInt(append(dst, ','), `to_id`, m.To)
	dst = appendInt(append(dst, ','), `msg_type`, int64(max(m.Type, 1)))
	dst = appendInt(append(dst, ','), `channel_type`, int64(max(m.Channel, Private)))
	dst = appendName(append(dst, ','), `message`)
	dst = appendString(dst, m.Text)
	if m.Data != "" {
		dst = append(appendName(append(dst, ','), `data`), m.Data...)
	}
	return append(dst, '}')
}

// appendReceipt appends the frame that says that everything of a conversation
// up to seq has arrived.
func appendReceipt(dst []byte, conversation, seq int64) []byte {
	dst = append(dst, '{')
	dst = appendInt(dst, `msg_code`, CodeAck)
	dst = appendInt(append(dst, ','), `conversation_id`, conversation)
	dst = appendInt(append(dst, ','), `seq`, seq)
	return append(dst, '}')
}

func appendName(dst []byte, name string) []byte {
	dst = append(dst, '"')
	dst = append(dst, name...)
	return append(dst, '"', ':')
}

func appendInt(dst []byte, name string, n int64) []byte {
	return strconv.AppendInt(appendName(dst, name), n, 10)
}

const hexDigits = "0123456789abcdef"

// appendString appends s, valid UTF-8, as a JSON string.
func appendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	from := 0
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		dst = append(dst, s[from:i]...)
		from = i + 1
		if c < ' ' {
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		} else {
			dst = append(dst, '\\', c)
		}
	}
	return append(append(dst, s[from:]...), '"')
}
