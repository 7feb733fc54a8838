package wire

import (
	"encoding/json"
	"strings"
	"time"

	"im-services/internal/im"
)

// This file and its siblings rest_*.go spell the bodies of the HTTP API. The
// casing is as irregular as the clients expect it: Users and Groups with a
// capital in sessions, friends and private history, users and groups in lower
// case elsewhere, everything capital in group history rows.

// Envelope is the body of every answer but files and documentation.
type Envelope struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
	Data    any    `json:"data"`
	// Reason says for programs what Message says for people, and RetryAfter when to
	// ask again, in seconds: both as in frame 500, and absent from a success.
	Reason     string `json:"reason,omitempty"`
	RetryAfter int64  `json:"retry_after,omitempty"`
}

// Nothing is the data member of an answer that has nothing to say.
type Nothing struct{}

// CodeSuccess is the envelope's code for success.
const CodeSuccess = 200

// Time spells a time in Unix milliseconds in the zone, "" for 0.
func Time(ms int64, zone *time.Location) string {
	return string(AppendTime(nil, ms, zone))
}

// AbsoluteURL puts the public URL of the deployment before a path of ours. What
// is a URL already stays as it is.
func AbsoluteURL(public, path string) string {
	if strings.HasPrefix(path, "/") && !strings.HasPrefix(path, "//") {
		return public + path
	}
	return path
}

// AvatarURL is the absolute URL of a user's picture, also of one who has none:
// then it is the one generated for him.
func AvatarURL(public, path string, id im.UserID) string {
	if path == "" && id.Valid() {
		path = "/avatars/" + id.String() + ".png"
	}
	return AbsoluteURL(public, path)
}

// UserBody is a user as others see him. The zero value stands for "no user":
// clients look into it without asking.
type UserBody struct {
	ID            im.UserID `json:"id"`
	Name          string    `json:"name"`
	Email         string    `json:"email"`
	Avatar        string    `json:"avatar"`
	Status        int       `json:"status"` // 1 online, 0 not or unknown
	Bio           string    `json:"bio"`
	Sex           int32     `json:"sex"`         // 0 unknown, 1 male, 2 female
	ClientType    int32     `json:"client_type"` // 1 web, 2 pc, 3 app
	Age           int32     `json:"age"`
	LastLoginTime string    `json:"last_login_time"`
	UID           string    `json:"uid"`
}

// CardBody is the small user of history rows.
type CardBody struct {
	ID     im.UserID `json:"id"`
	Name   string    `json:"name"`
	Email  string    `json:"email"`
	Avatar string    `json:"avatar"`
}

// GroupBody is a group. It never carries the password or its hash.
type GroupBody struct {
	ID           int64     `json:"id"`
	Owner        im.UserID `json:"user_id"`
	Name         string    `json:"name"`
	CreatedAt    string    `json:"created_at"`
	Info         string    `json:"info"`
	Avatar       string    `json:"avatar"`
	IsPwd        int       `json:"is_pwd"`
	Hot          int64     `json:"hot"`
	Theme        string    `json:"theme"`
	Announcement string    `json:"announcement"`
	MutedAll     int       `json:"muted_all"`
	Members      int32     `json:"member_count"`
}

// LoginBody answers a login. Token and RefreshToken are secrets.
type LoginBody struct {
	ID           im.UserID `json:"id"`
	UID          string    `json:"uid"`
	Name         string    `json:"name"`
	Avatar       string    `json:"avatar"`
	Email        string    `json:"email"`
	Token        string    `json:"token"`
	ExpireTime   int64     `json:"expire_time"` // Unix seconds
	TTL          int64     `json:"ttl"`         // seconds
	RefreshToken string    `json:"refresh_token"`
}

// RefreshBody answers a refresh.
type RefreshBody struct {
	Token        string `json:"token"`
	RefreshToken string `json:"refresh_token"`
	ExpireTime   int64  `json:"expire_time"` // Unix seconds
	TTL          int64  `json:"ttl"`         // seconds
}

// TicketBody answers a request for a ticket.
type TicketBody struct {
	Ticket    string `json:"ticket"`
	ExpiresIn int64  `json:"expires_in"` // seconds
}

// OAuthURLBody answers where to send the browser.
type OAuthURLBody struct {
	URL   string `json:"url"`
	State string `json:"state"`
}

// SessionBody is an entry of the caller's conversation list. A private one has
// group 0 and a zero Groups, a group's has to_id 0 and a zero Users.
type SessionBody struct {
	ID          int64        `json:"id"`
	Owner       im.UserID    `json:"form_id"`
	Peer        im.UserID    `json:"to_id"`
	Group       int64        `json:"group_id"`
	CreatedAt   string       `json:"created_at"`
	TopStatus   int          `json:"top_status"`
	TopTime     string       `json:"top_time"`
	Note        string       `json:"note"`
	ChannelType int32        `json:"channel_type"`
	Name        string       `json:"name"`
	Avatar      string       `json:"avatar"`
	Status      int          `json:"status"` // 0 shown, 1 hidden
	Users       UserBody     `json:"Users"`
	Groups      GroupBody    `json:"Groups"`
	Unread      int64        `json:"unread"`
	LastSeq     im.Seq       `json:"last_seq"`
	ReadSeq     im.Seq       `json:"read_seq"`
	Convers     int64        `json:"conversation_id"`
	Last        *LastMsgBody `json:"last_message,omitempty"`
}

// LastMsgBody is the newest message of a session.
type LastMsgBody struct {
	ID       int64     `json:"msg_id"`
	From     im.UserID `json:"form_id"`
	Type     int32     `json:"msg_type"`
	Text     string    `json:"message"`
	SendTime string    `json:"send_time"`
	Status   int32     `json:"status"` // 1 normal, 2 recalled
}

// FriendBody is one side of a friendship.
type FriendBody struct {
	ID        int64     `json:"id"`
	Owner     im.UserID `json:"form_id"`
	Friend    im.UserID `json:"to_id"`
	CreatedAt string    `json:"created_at"`
	UpdatedAt string    `json:"updated_at"`
	Note      string    `json:"note"`
	TopTime   string    `json:"top_time"`
	Status    int       `json:"status"` // 0 normal, 1 pinned
	UID       string    `json:"uid"`
	Users     UserBody  `json:"Users"`
}

// RecordBody is a friend request; users is who asked.
type RecordBody struct {
	ID          int64       `json:"id"`
	Requester   im.UserID   `json:"form_id"`
	Recipient   im.UserID   `json:"to_id"`
	Status      int32       `json:"status"` // 0 waiting, 1 accepted, 2 refused
	CreatedAt   string      `json:"created_at"`
	Information string      `json:"information"`
	Users       ProfileBody `json:"users"`
}

// ProfileBody is the smallest user.
type ProfileBody struct {
	ID     im.UserID `json:"id"`
	Name   string    `json:"name"`
	Avatar string    `json:"avatar"`
}

// FoundBody is a user found by a search.
type FoundBody struct {
	ID     im.UserID `json:"id"`
	Name   string    `json:"name"`
	Email  string    `json:"email"`
	Avatar string    `json:"avatar"`
	Status int       `json:"status"`
	Bio    string    `json:"bio"`
	Sex    int32     `json:"sex"`
}

// StatusBody answers whether a user is online: Status is frame code 2001 or 2000.
type StatusBody struct {
	Status Code      `json:"status"`
	ID     im.UserID `json:"id"`
	Online bool      `json:"online"`
}

// AddressBody is the address book.
type AddressBody struct {
	Friends []FriendBody `json:"friends"`
	Groups  []GroupBody  `json:"groups"`
}

// MembersBody is a group with its members, the owner first.
type MembersBody struct {
	Group   GroupBody    `json:"groups"`
	Members []MemberBody `json:"group_users"`
}

// MemberBody is a member; Name and Avatar are the group's, which is odd but
// what the original sends.
type MemberBody struct {
	ID         int64     `json:"id"`
	User       im.UserID `json:"user_id"`
	CreatedAt  string    `json:"created_at"`
	Group      int64     `json:"group_id"`
	Remark     string    `json:"remark"`
	Avatar     string    `json:"avatar"`
	Name       string    `json:"name"`
	Role       string    `json:"role"` // owner, admin, member
	MutedUntil string    `json:"muted_until"`
	Users      UserBody  `json:"users"`
}

// InviteBody is an invitation token; its times are Unix seconds.
type InviteBody struct {
	ID        int64     `json:"id"`
	User      im.UserID `json:"user_id"`
	Group     int64     `json:"group_id"`
	Token     string    `json:"token"`
	CreatedAt int64     `json:"created_at"`
	EndTime   int64     `json:"end_time"`
	Avatar    string    `json:"avatar"`
	Name      string    `json:"name"`
}

// SentBody answers a send.
type SentBody struct {
	MsgID       im.MessageID    `json:"msg_id"`
	ClientMsgID im.ClientMsgID  `json:"msg_client_id"`
	MsgCode     Code            `json:"msg_code"`
	From        im.UserID       `json:"form_id"`
	To          int64           `json:"to_id"`
	UID         string          `json:"uid"`
	ToUID       string          `json:"to_uid"` // "" for groups
	Type        int32           `json:"msg_type"`
	ChannelType im.ChannelKind  `json:"channel_type"`
	Text        string          `json:"message"`
	SendTime    string          `json:"send_time"`
	CreatedAt   string          `json:"created_at"`
	Data        json.RawMessage `json:"data"` // see Data
	Receiver    int64           `json:"user_id"`
	Seq         im.Seq          `json:"seq"`
	Convers     int64           `json:"conversation_id"`
}

// Data makes a data member of a stored one: a JSON literal, "" if absent.
func Data(stored string) json.RawMessage {
	if stored == "" {
		return json.RawMessage(`""`)
	}
	return json.RawMessage(stored)
}

// DataText makes text of a stored data member: what a string literal says, else
// the literal itself.
func DataText(stored string) string {
	var s string
	if stored == "" || json.Unmarshal([]byte(stored), &s) == nil {
		return s
	}
	return stored
}

// Page is a page of history.
type Page[Row any] struct {
	List []Row `json:"list"`
	Mate Mate  `json:"mate"`
}

// Mate (sic) says where a page stands; it is always there.
type Mate struct {
	PageSize int    `json:"pageSize"`
	Page     string `json:"page"`  // the cursor as it was asked for
	Total    int64  `json:"total"` // rows of the whole conversation
}

// PrivateRow is a row of private history.
type PrivateRow struct {
	ID          im.MessageID    `json:"id"`
	Text        string          `json:"msg"`
	CreatedAt   string          `json:"created_at"`
	From        im.UserID       `json:"form_id"`
	To          int64           `json:"to_id"`
	IsRead      int             `json:"is_read"`
	Type        int32           `json:"msg_type"`
	Status      int32           `json:"status"` // 1 normal, 2 recalled
	Data        json.RawMessage `json:"data"`
	Users       CardBody        `json:"Users"` // the sender
	ChannelType im.ChannelKind  `json:"channel_type"`
	MsgID       im.MessageID    `json:"msg_id"`
	ClientMsgID im.ClientMsgID  `json:"msg_client_id"`
	Seq         im.Seq          `json:"seq"`
}

// GroupRow is a row of group history.
type GroupRow struct {
	ID          im.MessageID   `json:"Id"`
	Text        string         `json:"Message"`
	CreatedAt   string         `json:"CreatedAt"`
	Data        string         `json:"Data"`
	SendTime    int64          `json:"SendTime"` // Unix seconds
	Type        int32          `json:"MsgType"`
	MsgID       im.MessageID   `json:"MessageId"`
	ClientMsgID im.ClientMsgID `json:"ClientMessageId"`
	From        im.UserID      `json:"FormId"`
	Group       int64          `json:"GroupId"`
	Users       CardBody       `json:"Users"` // the sender
	Status      int32          `json:"Status"`
	Seq         im.Seq         `json:"Seq"`
}

// RecallBody answers a recall.
type RecallBody struct {
	MsgID       im.MessageID   `json:"msg_id"`
	ClientMsgID im.ClientMsgID `json:"msg_client_id"`
	From        im.UserID      `json:"form_id"`
	To          int64          `json:"to_id"`
	ChannelType im.ChannelKind `json:"channel_type"`
}

// CallBody is a video invitation as frame 600 spells it.
type CallBody struct {
	MsgCode  Code       `json:"msg_code"`
	From     im.UserID  `json:"form_id"`
	To       im.UserID  `json:"to_id"`
	Text     string     `json:"message"`
	SendTime string     `json:"send_time"`
	Users    CallerBody `json:"users"`
}

// CallerBody is who calls.
type CallerBody struct {
	Name   string `json:"name"`
	Email  string `json:"email"`
	Avatar string `json:"avatar"`
}

// FileBody answers an upload.
type FileBody struct {
	URL  string `json:"file_url"`
	Name string `json:"name"`
	Size int64  `json:"size"`
	Type string `json:"content_type"`
}

// ReadBody answers a move of the read cursor.
type ReadBody struct {
	ReadSeq im.Seq `json:"read_seq"`
	Unread  int64  `json:"unread"`
}

// UnreadBody is what the caller has not read.
type UnreadBody struct {
	Total int64         `json:"total"`
	List  []UnreadEntry `json:"list"`
}

// UnreadEntry is one conversation with unread messages.
type UnreadEntry struct {
	Session     int64  `json:"session_id"`
	ChannelType int32  `json:"channel_type"`
	To          int64  `json:"to_id"`
	Unread      int64  `json:"unread"`
	LastSeq     im.Seq `json:"last_seq"`
	ReadSeq     im.Seq `json:"read_seq"`
}
