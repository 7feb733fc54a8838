package wire

import (
	"encoding/json"
	"errors"
	"time"

	"im-services/internal/im"
)

// SyncCursor is what a client holds of one conversation.
type SyncCursor struct {
	Conversation Number `json:"conversation_id"`
	Seq          Number `json:"seq"`
}

// Number is a whole number in a request's JSON, which may be written as text.
type Number int64

// UnmarshalJSON implements json.Unmarshaler.
func (n *Number) UnmarshalJSON(raw []byte) error {
	if len(raw) > 1 && raw[0] == '"' {
		raw = raw[1 : len(raw)-1]
	}
	v, ok := ParseInt(raw)
	if !ok {
		return errors.New("wire: not a whole number")
	}
	*n = Number(v)
	return nil
}

// SyncBody answers what changed after the client's cursors.
type SyncBody struct {
	Epoch         string             `json:"epoch"`
	FullResync    bool               `json:"full_resync"` // drop all cursors: they belong to another epoch
	Complete      bool               `json:"complete"`    // false: ask again with the cursors answered
	Conversations []SyncConversation `json:"conversations"`
}

// SyncConversation is what is new in one conversation. Messages are frames as
// the socket writes them, so that a client needs one parser.
type SyncConversation struct {
	Conversation int64             `json:"conversation_id"`
	ChannelType  int32             `json:"channel_type"`
	To           int64             `json:"to_id"`
	Messages     []json.RawMessage `json:"messages"`
	Seq          im.Seq            `json:"seq"` // the cursor after these messages
	LastSeq      im.Seq            `json:"last_seq"`
	ReadSeq      im.Seq            `json:"read_seq"`
	Unread       int64             `json:"unread"`
	Complete     bool              `json:"complete"`
	FirstSeq     im.Seq            `json:"first_seq"` // the first the user may see
	EndSeq       im.Seq            `json:"end_seq"`   // the last; 0: no end
}

// ChatFrame is frame 200 as a member of a body.
func ChatFrame(c *Chat, zone *time.Location) json.RawMessage {
	return AppendChat(nil, c, zone)
}
