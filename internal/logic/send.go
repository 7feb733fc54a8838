package logic

import (
	"encoding/json"
	"fmt"
	"time"

	logicv1 "im-services/api/proto/logic/v1"
	pushv1 "im-services/api/proto/push/v1"
	"im-services/internal/im"
)

// maxContent bounds text and data of one message together, in bytes.
const maxContent = 60 << 10

// maxEscape is how many bytes one byte of text can take as JSON: \u0000.
const maxEscape = 6

// convKey names the conversation of a send before its id is known: two users,
// or (lo 0) a group.
type convKey struct {
	lo im.UserID
	hi int64
}

func (k convKey) group() bool { return k.lo == 0 }

// hash spreads conversations over lanes.
func (k convKey) hash() uint64 {
	h := uint64(k.lo)*0x9e3779b97f4a7c15 ^ uint64(k.hi)*0xc2b2ae3d27d4eb4f //nolint:gosec // mixing bits
	h ^= h >> 29
	return h * 0xbf58476d1ce4e5b9 >> 17
}

// sendReq is one send on its way through a lane.
type sendReq struct {
	send *logicv1.Send
	key  convKey
	hash []byte
	// data is what is stored: the sender's data, or for a group his profile with it.
	data string
	// later are the client_msg_ids that must not be stored before this, see StreamSend.
	later    []int64
	deadline time.Time
	// done settles the send; it is called exactly once and must not block.
	done func(*logicv1.SendResult)
}

// size is about what the send takes in a statement, in bytes.
func (r *sendReq) size() int { return len(r.send.GetText()) + len(r.data) }

// newSendReq validates a send. The caller sets deadline and done.
func newSendReq(m *logicv1.Send) (*sendReq, error) {
	sender, to := im.UserID(m.GetSenderId()), m.GetToId()
	switch {
	case !sender.Valid():
		return nil, im.E(im.KindUnauthorized, "sender_missing", nil)
	case m.GetClientMsgId() <= 0 || m.GetClientMsgId() > im.MaxID:
		return nil, im.E(im.KindInvalid, "client_msg_id_invalid", nil)
	case to <= 0 || to > im.MaxID:
		return nil, im.E(im.KindInvalid, "to_id_invalid", nil)
	case m.GetType() < 1 || m.GetType() > 127:
		return nil, im.E(im.KindInvalid, "msg_type_invalid", nil)
	case m.GetText() == "":
		return nil, im.E(im.KindInvalid, "message_empty", nil)
	case len(m.GetText()) > maxContent || len(m.GetDataJson()) > maxEscape*(maxContent-len(m.GetText()))+2:
		// data_json is escaped and so may be much longer than what was sent; the
		// exact limit is checked at the edge, on the decoded text.
		return nil, im.E(im.KindInvalid, "message_too_large", nil)
	case m.GetDataJson() != "" && !json.Valid([]byte(m.GetDataJson())):
		return nil, im.E(im.KindInvalid, "data_invalid", nil)
	}
	r := &sendReq{
		send: m,
		hash: contentHash(m.GetType(), m.GetText(), m.GetDataJson()),
		data: m.GetDataJson(),
	}
	switch im.ChannelKind(m.GetKind()) { //nolint:gosec // compared with the two known kinds
	case im.Private:
		if to == int64(sender) {
			return nil, im.E(im.KindForbidden, "not_friends", nil)
		}
		lo, hi := pairOf(sender, im.UserID(to))
		r.key = convKey{lo: lo, hi: int64(hi)}
	case im.Group:
		data, err := groupData(m.GetSender(), m.GetDataJson())
		if err != nil {
			return nil, err
		}
		r.key, r.data = convKey{hi: to}, data
	default:
		return nil, im.E(im.KindInvalid, "channel_type_invalid", nil)
	}
	return r, nil
}

// senderMembers are the members of a group message's data that say who sent it.
type senderMembers struct {
	Avatar string `json:"avatar"`
	Email  string `json:"email"`
	ID     int64  `json:"id"`
	Name   string `json:"name"`
	UID    string `json:"uid"`
}

// groupData is the data member of a group message: a JSON string that holds an
// object with the true sender's profile. Members the sender put into an object
// of his own stay, except those that say who he is.
func groupData(p *pushv1.Profile, dataJSON string) (string, error) {
	members := map[string]json.RawMessage{}
	if dataJSON != "" && dataJSON != `""` {
		var text string
		original := json.RawMessage(dataJSON)
		if json.Unmarshal(original, &text) == nil {
			original = json.RawMessage(text)
		}
		if json.Unmarshal(original, &members) != nil || members == nil {
			members = map[string]json.RawMessage{"data": json.RawMessage(dataJSON)}
		}
	}
	object, err := json.Marshal(senderMembers{
		Avatar: p.GetAvatar(), Email: p.GetEmail(), ID: p.GetId(), Name: p.GetName(), UID: im.UserID(p.GetId()).UID(),
	})
	if err == nil && len(members) > 0 {
		if err = json.Unmarshal(object, &members); err == nil { // over what he says of himself
			object, err = json.Marshal(members)
		}
	}
	if err != nil {
		return "", im.E(im.KindInvalid, "data_invalid", err)
	}
	literal, err := json.Marshal(string(object))
	if err != nil {
		return "", fmt.Errorf("encode group data: %w", err)
	}
	return string(literal), nil
}

// refused is the result of a send that was not stored.
func refused(err error) *logicv1.SendResult {
	e := &logicv1.SendError{Kind: int32(im.KindOf(err)), Reason: im.ReasonOf(err)}
	if t, ok := asError(err); ok {
		e.RetryAfterMs = t.RetryAfter.Milliseconds()
	}
	return &logicv1.SendResult{Error: e}
}
