package wire

import (
	"strconv"
	"time"

	"im-services/internal/im"
)

// TimeLayout is how times are spelled, in the configured zone.
const TimeLayout = "2006-01-02 15:04:05"

// AppendTime appends a time in Unix milliseconds as the protocol spells it,
// without quotes; nothing for 0.
func AppendTime(dst []byte, ms int64, zone *time.Location) []byte {
	if ms == 0 {
		return dst
	}
	return time.UnixMilli(ms).In(zone).AppendFormat(dst, TimeLayout)
}

func appendInt(dst []byte, n int64) []byte { return strconv.AppendInt(dst, n, 10) }

const hexDigits = "0123456789abcdef"

// AppendString appends s as a JSON string literal: the one canonical spelling,
// so that equal texts are equal bytes. s must be valid UTF-8. Nothing but
// quotes, backslashes and control characters is escaped.
func AppendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	from := 0
	for i := 0; i < len(s); i++ {
		c := s[i]
		if plain[c] {
			continue
		}
		dst = append(dst, s[from:i]...)
		from = i + 1
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	dst = append(dst, s[from:]...)
	return append(dst, '"')
}

// Chat is a stored message as it goes to a client.
type Chat struct {
	ID             im.MessageID
	ClientMsgID    im.ClientMsgID
	ConversationID im.ConversationID
	Seq            im.Seq
	Kind           im.ChannelKind
	From           im.UserID
	To             int64 // the other user, or the group
	Type           int32
	Text           string
	Data           string // JSON literal; "" means the empty string
	SentAtMS       int64
}

// AppendChat appends frame 200. It is the same for every receiver, so that it
// is built once however many connections it goes to.
func AppendChat(dst []byte, c *Chat, zone *time.Location) []byte {
	dst = append(dst, `{"msg_id":`...)
	dst = appendInt(dst, int64(c.ID))
	dst = append(dst, `,"msg_client_id":`...)
	dst = appendInt(dst, int64(c.ClientMsgID))
	dst = append(dst, `,"msg_code":200,"uid":"`...)
	dst = append(dst, c.From.UID()...)
	dst = append(dst, `","to_uid":"`...)
	var receiver int64
	if c.Kind == im.Private {
		dst = append(dst, im.UserID(c.To).UID()...)
		receiver = c.To
	}
	dst = append(dst, `","form_id":`...)
	dst = appendInt(dst, int64(c.From))
	dst = append(dst, `,"to_id":`...)
	dst = appendInt(dst, c.To)
	dst = append(dst, `,"user_id":`...)
	dst = appendInt(dst, receiver)
	dst = append(dst, `,"msg_type":`...)
	dst = appendInt(dst, int64(c.Type))
	dst = append(dst, `,"channel_type":`...)
	dst = appendInt(dst, int64(c.Kind))
	dst = append(dst, `,"message":`...)
	dst = AppendString(dst, c.Text)
	dst = append(dst, `,"send_time":"`...)
	from := len(dst)
	dst = AppendTime(dst, c.SentAtMS, zone)
	to := len(dst)
	dst = append(dst, `","created_at":"`...)
	dst = append(dst, dst[from:to]...)
	dst = append(dst, `","data":`...)
	if c.Data == "" {
		dst = append(dst, `""`...)
	} else {
		dst = append(dst, c.Data...)
	}
	dst = append(dst, `,"seq":`...)
	dst = appendInt(dst, int64(c.Seq))
	dst = append(dst, `,"conversation_id":`...)
	dst = appendInt(dst, int64(c.ConversationID))
	dst = append(dst, `,"msg_id_str":"`...)
	dst = appendInt(dst, int64(c.ID))
	return append(dst, `"}`...)
}

// Ack says that a message is stored for good, or that a friend action was done.
type Ack struct {
	ID             int64 // the message, or the friend record
	ClientMsgID    im.ClientMsgID
	Seq            im.Seq
	ConversationID im.ConversationID
}

// AppendAck appends frame 1005. Seq and conversation are left out when 0.
func AppendAck(dst []byte, a Ack) []byte {
	dst = append(dst, `{"ack":1,"msg_code":1005,"msg_id":`...)
	dst = appendInt(dst, a.ID)
	dst = append(dst, `,"msg_client_id":`...)
	dst = appendInt(dst, int64(a.ClientMsgID))
	if a.ConversationID != 0 {
		dst = append(dst, `,"seq":`...)
		dst = appendInt(dst, int64(a.Seq))
		dst = append(dst, `,"conversation_id":`...)
		dst = appendInt(dst, int64(a.ConversationID))
	}
	return append(dst, '}')
}

// Refusal tells a client why a frame of his had no effect.
type Refusal struct {
	Code        Code // CodeError or CodeNotAllowed
	Text        string
	Reason      string // stable key for programs
	ClientMsgID im.ClientMsgID
	RetryAfter  time.Duration // 0: retrying is no use, or any time is as good
	// For CodeNotAllowed: who could not reach whom.
	From im.UserID
	To   int64
	Kind im.ChannelKind
}

// AppendRefusal appends frame 500 or 1003. retry_after is in seconds, rounded up.
func AppendRefusal(dst []byte, r *Refusal) []byte {
	dst = append(dst, `{"msg_code":`...)
	dst = appendInt(dst, int64(r.Code))
	dst = append(dst, `,"message":`...)
	dst = AppendString(dst, r.Text)
	dst = append(dst, `,"msg_client_id":`...)
	dst = appendInt(dst, int64(r.ClientMsgID))
	if r.Code == CodeNotAllowed {
		dst = append(dst, `,"form_id":`...)
		dst = appendInt(dst, int64(r.From))
		dst = append(dst, `,"to_id":`...)
		dst = appendInt(dst, r.To)
		dst = append(dst, `,"channel_type":`...)
		dst = appendInt(dst, int64(r.Kind))
	}
	if r.Reason != "" {
		dst = append(dst, `,"reason":`...)
		dst = AppendString(dst, r.Reason)
	}
	if r.RetryAfter > 0 {
		dst = append(dst, `,"retry_after":`...)
		dst = appendInt(dst, int64((r.RetryAfter+time.Second-1)/time.Second))
	}
	return append(dst, '}')
}

// AppendPong appends the answer to a heartbeat.
func AppendPong(dst []byte) []byte { return append(dst, `{"msg_code":1004,"message":"pong"}`...) }

// Profile is a user as shown to others.
type Profile struct {
	ID                  im.UserID
	Name, Avatar, Email string
}

// Friend is a friend request or its answer.
type Friend struct {
	Code        Code // CodeFriendRequest, CodeFriendAccepted or CodeFriendRefused
	ID          int64
	Requester   im.UserID
	Answerer    im.UserID
	Status      int32 // 0 waiting, 1 accepted, 2 refused
	Information string
	CreatedAtMS int64
	Shown       Profile // the requester for a request, the answerer for an answer
}

// AppendFriend appends frame 1000, 1001 or 1002. All three name the requester
// first, whoever is told.
func AppendFriend(dst []byte, f *Friend, zone *time.Location) []byte {
	dst = append(dst, `{"msg_code":`...)
	dst = appendInt(dst, int64(f.Code))
	dst = append(dst, `,"id":`...)
	dst = appendInt(dst, f.ID)
	dst = append(dst, `,"form_id":`...)
	dst = appendInt(dst, int64(f.Requester))
	dst = append(dst, `,"to_id":`...)
	dst = appendInt(dst, int64(f.Answerer))
	dst = append(dst, `,"status":`...)
	dst = appendInt(dst, int64(f.Status))
	dst = append(dst, `,"created_at":"`...)
	dst = AppendTime(dst, f.CreatedAtMS, zone)
	dst = append(dst, `","information":`...)
	dst = AppendString(dst, f.Information)
	dst = append(dst, `,"users":{"id":`...)
	dst = appendInt(dst, int64(f.Shown.ID))
	dst = append(dst, `,"name":`...)
	dst = AppendString(dst, f.Shown.Name)
	dst = append(dst, `,"avatar":`...)
	dst = AppendString(dst, f.Shown.Avatar)
	return append(dst, `}}`...)
}

// Presence says whether a user is here.
type Presence struct {
	User        im.UserID
	Receiver    im.UserID
	Online      bool
	ClientMsgID im.ClientMsgID // of the question; 0 for news
}

// AppendPresence appends frame 2001 (here) or 2000 (away).
func AppendPresence(dst []byte, p Presence) []byte {
	code, status, text := CodeOffline, int64(0), "offline"
	if p.Online {
		code, status, text = CodeOnline, 1, "online"
	}
	dst = append(dst, `{"msg_code":`...)
	dst = appendInt(dst, int64(code))
	dst = append(dst, `,"id":`...)
	dst = appendInt(dst, int64(p.User))
	dst = append(dst, `,"form_id":`...)
	dst = appendInt(dst, int64(p.User))
	dst = append(dst, `,"to_id":`...)
	dst = appendInt(dst, int64(p.Receiver))
	dst = append(dst, `,"status":`...)
	dst = appendInt(dst, status)
	dst = append(dst, `,"msg_client_id":`...)
	dst = appendInt(dst, int64(p.ClientMsgID))
	dst = append(dst, `,"message":`...)
	dst = AppendString(dst, text)
	return append(dst, '}')
}

// GroupSession is a new group in a user's conversation list.
type GroupSession struct {
	ID          int64
	Owner       im.UserID // of the session: the receiver
	CreatedAtMS int64
	Group       GroupCard
}

// GroupCard is a group as its members see it.
type GroupCard struct {
	ID          int64
	Owner       im.UserID
	Name, Info  string
	Avatar      string
	CreatedAtMS int64
	HasPassword bool
	Hot         int64
}

// AppendSession appends frame 2003. Its session object is complete: the seed's
// client reads members of the peer and of the group without looking first.
func AppendSession(dst []byte, g *GroupSession, zone *time.Location) []byte {
	dst = append(dst, `{"msg_code":2003,"sessions":{"id":`...)
	dst = appendInt(dst, g.ID)
	dst = append(dst, `,"form_id":`...)
	dst = appendInt(dst, int64(g.Owner))
	dst = append(dst, `,"to_id":0,"group_id":`...)
	dst = appendInt(dst, g.Group.ID)
	dst = append(dst, `,"created_at":"`...)
	dst = AppendTime(dst, g.CreatedAtMS, zone)
	dst = append(dst, `","top_status":0,"top_time":"","note":"","channel_type":2,"name":`...)
	dst = AppendString(dst, g.Group.Name)
	dst = append(dst, `,"avatar":`...)
	dst = AppendString(dst, g.Group.Avatar)
	dst = append(dst, `,"status":0,"Users":{"id":0,"name":"","email":"","avatar":"","status":0,"bio":"","sex":0,"client_type":0,"age":0,"last_login_time":"","uid":""},"Groups":{"id":`...)
	dst = appendInt(dst, g.Group.ID)
	dst = append(dst, `,"user_id":`...)
	dst = appendInt(dst, int64(g.Group.Owner))
	dst = append(dst, `,"name":`...)
	dst = AppendString(dst, g.Group.Name)
	dst = append(dst, `,"created_at":"`...)
	dst = AppendTime(dst, g.Group.CreatedAtMS, zone)
	dst = append(dst, `","info":`...)
	dst = AppendString(dst, g.Group.Info)
	dst = append(dst, `,"avatar":`...)
	dst = AppendString(dst, g.Group.Avatar)
	dst = append(dst, `,"is_pwd":`...)
	if g.Group.HasPassword {
		dst = append(dst, '1')
	} else {
		dst = append(dst, '0')
	}
	dst = append(dst, `,"hot":`...)
	dst = appendInt(dst, g.Group.Hot)
	return append(dst, `}}}`...)
}

// AppendDisplaced appends frame 2004. Where the newer connection comes from is
// told by its address; province and city are not looked up.
func AppendDisplaced(dst []byte, text, ip string) []byte {
	dst = append(dst, `{"msg_code":2004,"message":`...)
	dst = AppendString(dst, text)
	dst = append(dst, `,"ip":`...)
	dst = AppendString(dst, ip)
	return append(dst, `,"pro":"","city":""}`...)
}

// Recall names a message that was taken back. Seq and conversation are set when
// the frame stands in the place of the message itself.
type Recall struct {
	ID             im.MessageID
	ClientMsgID    im.ClientMsgID
	From           im.UserID
	To             int64
	Kind           im.ChannelKind
	Seq            im.Seq
	ConversationID im.ConversationID
}

// AppendRecall appends frame 2005.
func AppendRecall(dst []byte, r *Recall) []byte {
	dst = append(dst, `{"msg_code":2005,"msg_id":`...)
	dst = appendInt(dst, int64(r.ID))
	dst = append(dst, `,"msg_client_id":`...)
	dst = appendInt(dst, int64(r.ClientMsgID))
	dst = append(dst, `,"form_id":`...)
	dst = appendInt(dst, int64(r.From))
	dst = append(dst, `,"to_id":`...)
	dst = appendInt(dst, r.To)
	dst = append(dst, `,"channel_type":`...)
	dst = appendInt(dst, int64(r.Kind))
	if r.ConversationID != 0 {
		dst = append(dst, `,"seq":`...)
		dst = appendInt(dst, int64(r.Seq))
		dst = append(dst, `,"conversation_id":`...)
		dst = appendInt(dst, int64(r.ConversationID))
	}
	return append(dst, '}')
}

// Call is a video invitation.
type Call struct {
	Caller   Profile
	Callee   im.UserID
	Text     string
	SentAtMS int64
}

// AppendCall appends frame 600.
func AppendCall(dst []byte, c *Call, zone *time.Location) []byte {
	dst = append(dst, `{"msg_code":600,"form_id":`...)
	dst = appendInt(dst, int64(c.Caller.ID))
	dst = append(dst, `,"to_id":`...)
	dst = appendInt(dst, int64(c.Callee))
	dst = append(dst, `,"message":`...)
	dst = AppendString(dst, c.Text)
	dst = append(dst, `,"send_time":"`...)
	dst = AppendTime(dst, c.SentAtMS, zone)
	dst = append(dst, `","users":{"name":`...)
	dst = AppendString(dst, c.Caller.Name)
	dst = append(dst, `,"email":`...)
	dst = AppendString(dst, c.Caller.Email)
	dst = append(dst, `,"avatar":`...)
	dst = AppendString(dst, c.Caller.Avatar)
	return append(dst, `}}`...)
}

// AppendSyncNeeded appends frame 2006: messages of the conversation after seq
// were passed over on this connection; the history has them.
func AppendSyncNeeded(dst []byte, conv im.ConversationID, seq im.Seq) []byte {
	dst = append(dst, `{"msg_code":2006,"conversation_id":`...)
	dst = appendInt(dst, int64(conv))
	dst = append(dst, `,"seq":`...)
	dst = appendInt(dst, int64(seq))
	return append(dst, '}')
}

// AppendUnauthorized appends the HTTP body of a refused upgrade.
func AppendUnauthorized(dst []byte, status int, text string) []byte {
	dst = append(dst, `{"code":`...)
	dst = appendInt(dst, int64(status))
	dst = append(dst, `,"message":`...)
	dst = AppendString(dst, text)
	return append(dst, `,"data":{}}`...)
}
