package logic

import (
	"crypto/sha256"
	"encoding/binary"

	pushv1 "im-services/api/proto/push/v1"
	"im-services/internal/im"
	"im-services/internal/seeded"
)

// Message states.
const (
	statusNormal   = 1
	statusRecalled = 2
)

// noticeType is the message type of a group notice.
const noticeType = 6

// messageRow is a row of messages.
type messageRow struct {
	ConversationID im.ConversationID `db:"conversation_id"`
	Seq            im.Seq            `db:"seq"`
	ID             im.MessageID      `db:"id"`
	SenderID       im.UserID         `db:"sender_id"`
	ClientMsgID    im.ClientMsgID    `db:"client_msg_id"`
	ContentHash    []byte            `db:"content_hash"`
	Type           int32             `db:"type"`
	Status         int32             `db:"status"`
	Platform       im.Platform       `db:"platform"`
	SentAtMS       int64             `db:"sent_at_ms"`
	Text           string            `db:"text"`
	DataJSON       string            `db:"data_json"`
}

const messageColumns = `conversation_id, seq, id, sender_id, client_msg_id, content_hash, type, status, platform, sent_at_ms, text, data_json`

// conversationRow is a row of conversations.
type conversationRow struct {
	ID              im.ConversationID `db:"id"`
	Kind            im.ChannelKind    `db:"kind"`
	Open            bool              `db:"open"`
	MutedUntilMS    int64             `db:"muted_until_ms"` // for plain members of a group
	LastSeq         im.Seq            `db:"last_seq"`
	LastMessageID   im.MessageID      `db:"last_message_id"`
	MembersRev      int64             `db:"members_rev"`
	UserLo          im.UserID         `db:"user_lo"`
	UserHi          im.UserID         `db:"user_hi"`
	RelationVersion int64             `db:"relation_version"`
	RefusedAtMS     int64             `db:"refused_at_ms"`
}

const conversationColumns = `id, kind, open, muted_until_ms, last_seq, last_message_id, members_rev,
	COALESCE(user_lo, 0) AS user_lo, COALESCE(user_hi, 0) AS user_hi, relation_version, refused_at_ms`

// peerOf returns the other user of a private conversation.
func (c *conversationRow) peerOf(u im.UserID) im.UserID {
	if u == c.UserLo {
		return c.UserHi
	}
	return c.UserLo
}

// pairOf orders two users.
func pairOf(a, b im.UserID) (lo, hi im.UserID) {
	if a < b {
		return a, b
	}
	return b, a
}

// contentHash identifies what was said: two sends under one key are the same
// message exactly if type, text and data are equal.
func contentHash(typ int32, text, dataJSON string) []byte {
	if seeded.On(seeded.NoContentHash) {
		return make([]byte, 16)
	}
	h := sha256.New()
	var n [12]byte
	binary.BigEndian.PutUint32(n[:], uint32(typ)) //nolint:gosec // types are 1..127
	binary.BigEndian.PutUint64(n[4:], uint64(len(text)))
	h.Write(n[:])
	h.Write([]byte(text))
	h.Write([]byte(dataJSON))
	return h.Sum(nil)[:16]
}

// toPush turns a stored row into what readers get. to is the group, or the
// private conversation's other user as seen from the sender.
func (m *messageRow) toPush(kind im.ChannelKind, to int64) *pushv1.Message {
	clientID := int64(m.ClientMsgID)
	if clientID < 0 {
		// A notice: no client made it, and its key is its id (see notice.go). It is
		// shown counted down from the top, where no client's counter or clock gets.
		clientID += im.MaxID
	}
	return &pushv1.Message{
		ConversationId: int64(m.ConversationID),
		Kind:           int32(kind),
		Seq:            int64(m.Seq),
		Id:             int64(m.ID),
		ClientMsgId:    clientID,
		SenderId:       int64(m.SenderID),
		ToId:           to,
		Type:           m.Type,
		Text:           m.Text,
		DataJson:       m.DataJSON,
		SentAtMs:       m.SentAtMS,
		SenderPlatform: int32(m.Platform),
		Status:         m.Status,
	}
}
