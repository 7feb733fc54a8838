package im

import (
	"crypto/sha1" //nolint:gosec // UUID version 5 is defined over SHA-1; nothing here is a secret
	"encoding/binary"
	"encoding/hex"
	"strconv"
)

// MaxID is the largest id a client may see: JavaScript numbers are exact up to it.
const MaxID = 1<<53 - 1

// Identifiers. All are positive and at most MaxID; zero means "none".
type (
	// UserID names a user.
	UserID int64
	// ConversationID names a private conversation or a group. For a group it is
	// the group's public id.
	ConversationID int64
	// MessageID names a message in the whole system; within a conversation it
	// rises with Seq.
	MessageID int64
	// ClientMsgID is the sender's idempotency key for one message.
	ClientMsgID int64
	// Seq is a message's place in its conversation, counted from 1.
	Seq int64
	// PV is a user's push counter; 0 means "unknown" (Redis was away).
	PV int64
)

// GatewayID names one incarnation of a gateway process.
type GatewayID string

// ConnID names one connection within its gateway's incarnation.
type ConnID int64

// BotID is the user every new account starts a session with.
const BotID UserID = 1

// Valid reports whether id can name something.
func (id UserID) Valid() bool { return id > 0 && id <= MaxID }

// Valid reports whether id can name something.
func (id ConversationID) Valid() bool { return id > 0 && id <= MaxID }

func (id UserID) String() string         { return strconv.FormatInt(int64(id), 10) }
func (id ConversationID) String() string { return strconv.FormatInt(int64(id), 10) }

// uidNamespace is the namespace of user UUIDs, random and fixed for ever.
var uidNamespace = [16]byte{0x5b, 0x1f, 0x0c, 0x6e, 0x2a, 0x94, 0x4d, 0x0b, 0x9e, 0x37, 0x11, 0xc8, 0x7d, 0x52, 0xe6, 0xa3}

// UID returns the user's UUID (version 5, derived from the id), so that any
// process can name a user by UUID without looking one up.
func (id UserID) UID() string {
	var in [24]byte
	copy(in[:], uidNamespace[:])
	binary.BigEndian.PutUint64(in[16:], uint64(id))
	sum := sha1.Sum(in[:]) //nolint:gosec // see the import
	u := sum[:16]
	u[6] = u[6]&0x0f | 0x50
	u[8] = u[8]&0x3f | 0x80
	var out [36]byte
	hex.Encode(out[0:8], u[0:4])
	out[8] = '-'
	hex.Encode(out[9:13], u[4:6])
	out[13] = '-'
	hex.Encode(out[14:18], u[6:8])
	out[18] = '-'
	hex.Encode(out[19:23], u[8:10])
	out[23] = '-'
	hex.Encode(out[24:], u[10:])
	return string(out[:])
}

// Platform is a class of device. Per user at most one connection of each is live.
type Platform uint8

// The platforms of the public protocol.
const (
	PlatformWeb Platform = 1
	PlatformPC  Platform = 2
	PlatformApp Platform = 3
)

// ParsePlatform reads the connect parameter; empty means web.
func ParsePlatform(s string) (Platform, bool) {
	switch s {
	case "", "web":
		return PlatformWeb, true
	case "pc":
		return PlatformPC, true
	case "app":
		return PlatformApp, true
	}
	return 0, false
}

func (p Platform) String() string {
	switch p {
	case PlatformPC:
		return "pc"
	case PlatformApp:
		return "app"
	default:
		return "web"
	}
}

// ChannelKind tells private conversations from groups. The values are the
// public protocol's channel types.
type ChannelKind uint8

// The two kinds of conversation.
const (
	Private ChannelKind = 1
	Group   ChannelKind = 2
)
