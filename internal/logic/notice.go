package logic

import (
	"encoding/json"
	"fmt"

	pushv1 "im-services/api/proto/push/v1"
	"im-services/internal/im"
)

// What a notice tells: member "event" of its data.
const (
	noticeCreate   = "create"
	noticeJoin     = "join"
	noticeInvite   = "invite"
	noticeLeave    = "leave"
	noticeRemove   = "remove"
	noticeHandOver = "hand_over"
	noticeDissolve = "dissolve"
	noticeRole     = "role"
	noticeMute     = "mute"
	noticeUnmute   = "unmute"
	noticeUpdate   = "update"
)

// noticeTexts is what people read; the users' language is Chinese. %[1]s is the
// actor, %[2]d how many others it is about.
var noticeTexts = map[string]string{
	noticeCreate:   "%[1]s 创建了群聊",
	noticeJoin:     "%[1]s 加入了群聊",
	noticeInvite:   "%[1]s 邀请了 %[2]d 位新成员加入群聊",
	noticeLeave:    "%[1]s 退出了群聊",
	noticeRemove:   "%[1]s 将 %[2]d 位成员移出了群聊",
	noticeHandOver: "%[1]s 转让了群主",
	noticeDissolve: "%[1]s 解散了群聊",
	noticeRole:     "%[1]s 变更了 %[2]d 位成员的权限",
	noticeMute:     "%[1]s 开启了全员禁言",
	noticeUnmute:   "%[1]s 解除了全员禁言",
	noticeUpdate:   "%[1]s 更新了群资料",
}

// memberTexts are those of what may also be about some members.
var memberTexts = map[string]string{
	noticeMute:   "%[1]s 禁言了 %[2]d 位成员",
	noticeUnmute: "%[1]s 解除了 %[2]d 位成员的禁言",
}

// noticeUsers is how many users a notice names at most; it always says how many
// there are.
const noticeUsers = 100

// notice is a message that the service writes in the name of who acted.
type notice struct {
	event string
	users []im.UserID    // whom it is about, besides the actor
	more  map[string]any // further members of data
}

// text is what the notice says.
func (n *notice) text(actor *pushv1.Profile) string {
	name := actor.GetName()
	if name == "" {
		name = fmt.Sprintf("用户 %d", actor.GetId())
	}
	text := noticeTexts[n.event]
	if about, ok := memberTexts[n.event]; ok && len(n.users) > 0 {
		text = about
	}
	return fmt.Sprintf(text, name, len(n.users))
}

// row is the notice as a message: its data is a group message's, with what
// happened beside the actor's profile. Its key is its own id, negative: no
// client can have used that.
func (n *notice) row(actor *pushv1.Profile, group im.ConversationID, seq im.Seq, id im.MessageID, nowMS int64) (*messageRow, error) {
	members := map[string]any{"event": n.event, "group": int64(group)}
	if len(n.users) > 0 {
		members["count"] = len(n.users)
		members["users"] = n.users[:min(len(n.users), noticeUsers)]
	}
	for k, v := range n.more {
		members[k] = v
	}
	raw, err := json.Marshal(members)
	if err != nil {
		return nil, fmt.Errorf("encode notice: %w", err)
	}
	data, err := groupData(actor, string(raw))
	if err != nil {
		return nil, err
	}
	text := n.text(actor)
	return &messageRow{
		ConversationID: group, Seq: seq, ID: id, SenderID: im.UserID(actor.GetId()), ClientMsgID: im.ClientMsgID(-id),
		ContentHash: contentHash(noticeType, text, data), Type: noticeType, Status: statusNormal, SentAtMS: nowMS,
		Text: text, DataJSON: data,
	}, nil
}
