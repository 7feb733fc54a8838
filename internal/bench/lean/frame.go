package lean

import (
	"bytes"

	"im-services/internal/wire"
)

// Frame holds what the load generator needs of a frame from the server. Members
// that are absent, or no integers where one is expected, are zero.
type Frame struct {
	Code         int64
	MsgID        int64
	ClientMsgID  int64
	Seq          int64
	Conversation int64
	From         int64
	To           int64
	Kind         int64 // channel_type: 1 private, 2 group
	RetryAfter   int64 // seconds
	// Text and Reason are the raw insides of string literals, escapes and all,
	// and point into the payload.
	Text, Reason []byte
}

// The codes of the frames that the generator handles.
const (
	CodeChat       = 200
	CodeError      = 500
	CodeNotAllowed = 1003
	CodeHeartbeat  = 1004
	CodeAck        = 1005
	CodeOffline    = 2000
	CodeOnline     = 2001
	CodeDisplaced  = 2004
)

// Parse reads one frame into f. It reports false if p is not one JSON object.
// It looks at names on the outermost level only and does not check what it does
// not need: servers are measured here, not validated.
func Parse(p []byte, f *Frame) bool {
	*f = Frame{}
	i := space(p, 0)
	if i >= len(p) || p[i] != '{' {
		return false
	}
	i = space(p, i+1)
	if i < len(p) && p[i] == '}' {
		return space(p, i+1) == len(p)
	}
	for {
		if i >= len(p) || p[i] != '"' {
			return false
		}
		end := stringEnd(p, i)
		if end < 0 {
			return false
		}
		key := p[i+1 : end]
		i = space(p, end+1)
		if i >= len(p) || p[i] != ':' {
			return false
		}
		i = space(p, i+1)
		from := i
		if i = skip(p, i); i < 0 {
			return false
		}
		f.set(key, p[from:i])
		i = space(p, i)
		if i >= len(p) {
			return false
		}
		if p[i] == '}' {
			return space(p, i+1) == len(p)
		}
		if p[i] != ',' {
			return false
		}
		i = space(p, i+1)
	}
}

func (f *Frame) set(key, val []byte) {
	switch string(key) {
	case "msg_code":
		f.Code = integer(val)
	case "msg_id":
		f.MsgID = integer(val)
	case "msg_client_id":
		f.ClientMsgID = integer(val)
	case "seq":
		f.Seq = integer(val)
	case "conversation_id":
		f.Conversation = integer(val)
	case wire.SenderField:
		f.From = integer(val)
	case "to_id":
		f.To = integer(val)
	case "channel_type":
		f.Kind = integer(val)
	case "retry_after":
		f.RetryAfter = integer(val)
	case "message":
		f.Text = inside(val)
	case "reason":
		f.Reason = inside(val)
	}
}

func space(p []byte, i int) int {
	for i < len(p) && (p[i] == ' ' || p[i] == '\n' || p[i] == '\r' || p[i] == '\t') {
		i++
	}
	return i
}

// stringEnd returns where the string that opens at p[open] closes, or -1.
func stringEnd(p []byte, open int) int {
	for i := open + 1; i < len(p); i++ {
		n := bytes.IndexByte(p[i:], '"')
		if n < 0 {
			return -1
		}
		i += n
		// An odd number of backslashes before it: part of the string.
		back := i - 1
		for back > open && p[back] == '\\' {
			back--
		}
		if (i-1-back)%2 == 0 {
			return i
		}
	}
	return -1
}

// skip returns where the value that begins at p[i] ends, or -1.
func skip(p []byte, i int) int {
	if i >= len(p) {
		return -1
	}
	switch p[i] {
	case '"':
		end := stringEnd(p, i)
		if end < 0 {
			return -1
		}
		return end + 1
	case '{', '[':
		depth := 0
		for ; i < len(p); i++ {
			switch p[i] {
			case '"':
				if i = stringEnd(p, i); i < 0 {
					return -1
				}
			case '{', '[':
				depth++
			case '}', ']':
				if depth--; depth == 0 {
					return i + 1
				}
			}
		}
		return -1
	}
	from := i
	for i < len(p) && p[i] != ',' && p[i] != '}' && p[i] != ']' && p[i] > ' ' {
		i++
	}
	if i == from {
		return -1
	}
	return i
}

// integer is the value of a decimal literal of at most 18 digits, or 0.
func integer(p []byte) int64 {
	neg := len(p) > 0 && p[0] == '-'
	if neg {
		p = p[1:]
	}
	if len(p) == 0 || len(p) > 18 {
		return 0
	}
	var n int64
	for _, c := range p {
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

func inside(p []byte) []byte {
	if len(p) < 2 || p[0] != '"' {
		return nil
	}
	return p[1 : len(p)-1]
}
