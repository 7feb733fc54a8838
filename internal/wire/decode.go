package wire

import (
	"strings"
	"unicode/utf8"

	"im-services/internal/im"
)

// Inbound is a frame from a client, checked. Which members are set depends on
// Code; a member that is absent is zero.
type Inbound struct {
	Code        Code
	ClientMsgID im.ClientMsgID
	From        im.UserID // as the client says; 0 if it does not
	FromUID     string    // as the client says; "" if it does not
	To          int64     // chat: the user or the group; 1000 and 2002: the user
	ID          int64     // 1001, 1002: the friend record
	Kind        im.ChannelKind
	Type        int32
	Text        string // chat: the message; 1000: the information
	// Data is the chat's free payload as canonical JSON text, a string or
	// integer literal; "" if absent.
	Data string

	// A receipt (1005) names a message, or a place in a conversation.
	MsgID          im.MessageID
	ConversationID im.ConversationID
	Seq            im.Seq
}

// field numbers the members we know.
type field uint8

const (
	fieldNone field = iota
	fieldCode
	fieldClientMsgID
	fieldMsgID
	fieldFrom
	fieldTo
	fieldType
	fieldKind
	fieldMessage
	fieldData
	fieldUID
	fieldID
	fieldInformation
	fieldConversation
	fieldSeq
	fieldCount
)

func fieldOf(key []byte) field {
	switch string(key) {
	case "msg_code":
		return fieldCode
	case "msg_client_id":
		return fieldClientMsgID
	case "msg_id":
		return fieldMsgID
	case "form_id":
		return fieldFrom
	case "to_id":
		return fieldTo
	case "msg_type":
		return fieldType
	case "channel_type":
		return fieldKind
	case "message":
		return fieldMessage
	case "data":
		return fieldData
	case "uid":
		return fieldUID
	case "id":
		return fieldID
	case "information":
		return fieldInformation
	case "conversation_id":
		return fieldConversation
	case "seq":
		return fieldSeq
	}
	return fieldNone
}

func refuse(reason string) error { return im.E(im.KindInvalid, reason, nil) }

// Decode reads one frame from a client. The input must be one JSON object and
// nothing after it, in valid UTF-8, without duplicate keys, nested at most
// MaxDepth deep; keys match exactly. Ids are integers or strings of decimal
// digits, of 1..im.MaxID; the frame code is a number. Members it does not know
// are passed over, but must be valid JSON.
//
// The error is an *im.Error of KindInvalid. Even then ClientMsgID is set if the
// frame had a good one, for the answer to echo. Decode keeps no reference to b.
func Decode(b []byte) (Inbound, error) {
	var in Inbound
	if !utf8.Valid(b) {
		return in, refuse(reasonBadJSON)
	}
	s := scanner{b: b}
	if s.peek() != '{' {
		return in, refuse(reasonBadJSON)
	}
	var (
		vals [fieldCount]value
		k    keys
	)
	s.members(1, func(key value) {
		var f field
		if key.escaped {
			f = fieldOf([]byte(s.text(key)))
		} else {
			f = fieldOf(s.b[key.from:key.to])
		}
		switch {
		case f == fieldNone:
			s.addKey(&k, key)
			s.value(1)
		case vals[f].kind != kindAbsent:
			s.fail(reasonDuplicateKey)
		default:
			vals[f] = s.value(1)
		}
	})
	if s.err == "" && s.peek() != 0 || s.pos < len(s.b) {
		s.fail(reasonBadJSON)
	}
	if s.err != "" {
		return in, refuse(s.err)
	}
	return s.interpret(&vals)
}

// interpret turns the scanned members into a frame, by its code.
func (s *scanner) interpret(vals *[fieldCount]value) (in Inbound, err error) {
	if id, ok := s.id(vals[fieldClientMsgID]); ok {
		in.ClientMsgID = im.ClientMsgID(id)
	}
	code, ok := s.integer(vals[fieldCode])
	if !ok || vals[fieldCode].kind != kindInt {
		return in, refuse("frame_code_unknown")
	}
	in.Code = Code(code)
	switch in.Code {
	case CodeHeartbeat:
		return in, nil
	case CodeAck:
		return in, s.receipt(&in, vals)
	case CodeChat, CodePresence, CodeFriendRequest, CodeFriendAccepted, CodeFriendRefused:
	default:
		return in, refuse("frame_code_unknown")
	}

	if err := s.identity(&in, vals); err != nil {
		return in, err
	}
	switch in.Code {
	case CodeChat:
		return in, s.chat(&in, vals)
	case CodePresence:
		v := vals[fieldTo]
		if s.none(v) {
			v = vals[fieldID]
		}
		if in.To, ok = s.id(v); !ok {
			return in, refuse("to_id_invalid")
		}
	case CodeFriendRequest:
		if in.To, ok = s.id(vals[fieldTo]); !ok {
			return in, refuse("to_id_invalid")
		}
		if in.Text = s.words(vals[fieldInformation]); in.Text == "" {
			return in, refuse("information_invalid")
		}
	default: // an answer to a friend request
		if in.ID, ok = s.id(vals[fieldID]); !ok {
			return in, refuse("id_invalid")
		}
	}
	return in, nil
}

// identity reads whom the client claims to be. 0, null and "" claim nothing.
func (s *scanner) identity(in *Inbound, vals *[fieldCount]value) error {
	v := vals[fieldFrom]
	empty := v.kind == kindString && v.from == v.to
	if !s.none(v) && !empty {
		n, ok := s.integer(v)
		if !ok || n < 0 || n > im.MaxID {
			return refuse("sender_mismatch")
		}
		in.From = im.UserID(n)
	}
	switch v := vals[fieldUID]; v.kind {
	case kindAbsent, kindNull:
	case kindString:
		in.FromUID = s.text(v)
	default:
		return refuse("sender_mismatch")
	}
	return nil
}

func (s *scanner) chat(in *Inbound, vals *[fieldCount]value) error {
	if in.ClientMsgID == 0 {
		return refuse("client_msg_id_invalid")
	}
	var ok bool
	if in.To, ok = s.id(vals[fieldTo]); !ok {
		return refuse("to_id_invalid")
	}
	kind, ok := s.integer(vals[fieldKind])
	if !ok || kind != int64(im.Private) && kind != int64(im.Group) {
		return refuse("channel_type_invalid")
	}
	in.Kind = im.ChannelKind(kind)
	typ, ok := s.integer(vals[fieldType])
	if !ok || typ < 1 || typ > MaxType {
		return refuse("msg_type_invalid")
	}
	in.Type = int32(typ)
	if vals[fieldMessage].kind != kindString {
		return refuse("message_empty")
	}
	if in.Text = s.text(vals[fieldMessage]); in.Text == "" {
		return refuse("message_empty")
	}
	size := len(in.Text)
	switch v := vals[fieldData]; v.kind {
	case kindAbsent, kindNull:
	case kindString:
		text := s.text(v)
		size += len(text)
		if text != "" {
			in.Data = string(AppendString(make([]byte, 0, len(text)+2), text))
		}
	case kindInt:
		n, ok := s.integer(v)
		if !ok || n < -im.MaxID || n > im.MaxID {
			return refuse("data_invalid")
		}
		in.Data = string(appendInt(nil, n))
		size += len(in.Data)
	default:
		return refuse("data_invalid")
	}
	if size > MaxContent {
		return refuse("message_too_large")
	}
	return nil
}

// receipt reads a place or, where that is not whole, a message. A member of the
// place that is neither an id nor left out spoils it all.
func (s *scanner) receipt(in *Inbound, vals *[fieldCount]value) error {
	c, okC := s.id(vals[fieldConversation])
	q, okQ := s.id(vals[fieldSeq])
	if okC && okQ {
		in.ConversationID, in.Seq = im.ConversationID(c), im.Seq(q)
		return nil
	}
	badC := !okC && !s.none(vals[fieldConversation])
	badQ := !okQ && !s.none(vals[fieldSeq])
	id, ok := s.id(vals[fieldMsgID])
	if !ok || badC || badQ {
		return refuse("receipt_invalid")
	}
	in.MsgID = im.MessageID(id)
	return nil
}

// words reads what a person says to another: a text, or a number or boolean as
// it is spelled. The seed's sample has the number 1 where a text belongs.
func (s *scanner) words(v value) string {
	switch v.kind {
	case kindString:
		return s.text(v)
	case kindInt, kindFraction, kindTrue, kindFalse:
		return string(s.b[v.from:v.to])
	}
	return ""
}

// none reports whether a member that could name something says nothing: clients
// write null and 0 for what they leave out.
func (s *scanner) none(v value) bool {
	if v.kind == kindAbsent || v.kind == kindNull {
		return true
	}
	n, ok := s.integer(v)
	return ok && n == 0
}

// id reads a number that names something.
func (s *scanner) id(v value) (int64, bool) {
	n, ok := s.integer(v)
	return n, ok && n > 0 && n <= im.MaxID
}

// integer reads an integer or a string of decimal digits.
func (s *scanner) integer(v value) (int64, bool) {
	switch v.kind {
	case kindInt:
		return ParseInt(s.b[v.from:v.to])
	case kindString:
		if v.escaped {
			return ParseInt([]byte(s.text(v)))
		}
		return ParseInt(s.b[v.from:v.to])
	}
	return 0, false
}

// ParseInt reads a decimal integer as JSON spells it: no leading zeros, no plus
// sign, nothing around it. Values beyond 18 digits are refused.
func ParseInt[T []byte | string](b T) (int64, bool) {
	neg := len(b) > 0 && b[0] == '-'
	if neg {
		b = b[1:]
	}
	if len(b) == 0 || len(b) > 18 || b[0] == '0' && len(b) > 1 {
		return 0, false
	}
	var n int64
	for i := range len(b) {
		c := b[i]
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	if neg {
		n = -n
	}
	return n, true
}

// CheckSender compares what a frame claims with who sent it.
func (in *Inbound) CheckSender(id im.UserID) error {
	if in.From != 0 && in.From != id {
		return refuse("sender_mismatch")
	}
	if in.FromUID != "" && !strings.EqualFold(in.FromUID, id.UID()) {
		return refuse("sender_mismatch")
	}
	return nil
}
