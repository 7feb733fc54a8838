package wire

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"im-services/internal/im"
)

var update = flag.Bool("update", false, "write the golden files")

var shanghai = func() *time.Location {
	l, err := time.LoadLocation("Asia/Shanghai")
	if err != nil {
		panic(err)
	}
	return l
}()

const at = 1657111889000 // 2022-07-06 20:51:29 in Shanghai

// TestGolden pins every frame to a file: a change of the protocol shows as a
// change of testdata.
func TestGolden(t *testing.T) {
	nasty := "say \"hi\" \\ \n\t\x00\x1f <b>&amp;</b> 你好 🙂 \u2028"
	who := Profile{ID: 34, Name: nasty, Avatar: "https://example.com/a.png", Email: "a@example.com"}
	frames := map[string][]byte{
		"chat_private": AppendChat(nil, &Chat{
			ID: 812, ClientMsgID: 1, ConversationID: 77, Seq: 3, Kind: im.Private, From: 34, To: 35, Type: 1,
			Text: "hello", SentAtMS: at,
		}, shanghai),
		"chat_group": AppendChat(nil, &Chat{
			ID: im.MaxID, ClientMsgID: 1795390858378, ConversationID: 24, Seq: 9, Kind: im.Group, From: 34, To: 24,
			Type: 6, Text: nasty, Data: `"{\"id\":34}"`, SentAtMS: at,
		}, shanghai),
		"chat_data_number": AppendChat(nil, &Chat{
			ID: 1, ClientMsgID: 2, ConversationID: 3, Seq: 4, Kind: im.Private, From: 5, To: 6, Type: 7, Text: "x", Data: "42",
		}, time.UTC),
		"ack":           AppendAck(nil, Ack{ID: 812, ClientMsgID: 1, Seq: 3, ConversationID: 77}),
		"ack_friend":    AppendAck(nil, Ack{ID: 46}),
		"error":         AppendRefusal(nil, &Refusal{Code: CodeError, Text: nasty, Reason: "frame_invalid"}),
		"error_retry":   AppendRefusal(nil, &Refusal{Code: CodeError, Text: "x", Reason: "overloaded", ClientMsgID: 9, RetryAfter: 1200 * time.Millisecond}),
		"not_allowed":   AppendRefusal(nil, &Refusal{Code: CodeNotAllowed, Text: "no", Reason: "not_friends", ClientMsgID: 9, From: 34, To: 35, Kind: im.Private}),
		"pong":          AppendPong(nil),
		"friend_asks":   AppendFriend(nil, &Friend{Code: CodeFriendRequest, ID: 46, Requester: 35, Answerer: 34, Information: nasty, CreatedAtMS: at, Shown: who}, shanghai),
		"friend_yes":    AppendFriend(nil, &Friend{Code: CodeFriendAccepted, ID: 46, Requester: 35, Answerer: 34, Status: 1, CreatedAtMS: at, Shown: who}, shanghai),
		"friend_no":     AppendFriend(nil, &Friend{Code: CodeFriendRefused, ID: 46, Requester: 35, Answerer: 34, Status: 2, CreatedAtMS: at, Shown: who}, shanghai),
		"online":        AppendPresence(nil, Presence{User: 35, Receiver: 34, Online: true}),
		"offline":       AppendPresence(nil, Presence{User: 35, Receiver: 34, ClientMsgID: 5}),
		"session":       AppendSession(nil, &GroupSession{ID: 900, Owner: 34, CreatedAtMS: at, Group: GroupCard{ID: 24, Owner: 34, Name: nasty, Info: "i", Avatar: "https://x/y.png", CreatedAtMS: at, HasPassword: true, Hot: 2}}, shanghai),
		"displaced":     AppendDisplaced(nil, "elsewhere", "192.0.2.7"),
		"recall":        AppendRecall(nil, &Recall{ID: 812, ClientMsgID: 1, From: 34, To: 35, Kind: im.Private}),
		"recall_placed": AppendRecall(nil, &Recall{ID: 812, ClientMsgID: 1, From: 34, To: 24, Kind: im.Group, Seq: 3, ConversationID: 24}),
		"call":          AppendCall(nil, &Call{Caller: who, Callee: 35, Text: "come", SentAtMS: at}, shanghai),
		"sync_needed":   AppendSyncNeeded(nil, 24, 7),
		"unauthorized":  AppendUnauthorized(nil, 401, "no"),
	}
	for name, got := range frames {
		if !json.Valid(got) {
			t.Errorf("%s is not JSON: %s", name, got)
		}
		file := filepath.Join("testdata", name+".json")
		if *update {
			if err := os.WriteFile(file, append(got, '\n'), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, bytes.TrimSuffix(want, []byte("\n"))) {
			t.Errorf("%s:\n got %s\nwant %s", name, got, want)
		}
	}
	if files, _ := filepath.Glob("testdata/*.json"); len(files) != len(frames) {
		t.Errorf("%d golden files for %d frames", len(files), len(frames))
	}
}

// What the seed's client reads from frames must be numbers and strings of the
// spellings it knows.
func TestChatMembers(t *testing.T) {
	b := AppendChat(nil, &Chat{
		ID: 812, ClientMsgID: 1, ConversationID: 77, Seq: 3, Kind: im.Private, From: 34, To: 35, Type: 1,
		Text: "a\x00b\"\\", Data: `"d"`, SentAtMS: at,
	}, shanghai)
	var got map[string]any
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"msg_id": 812.0, "msg_client_id": 1.0, "msg_code": 200.0, "uid": im.UserID(34).UID(), "to_uid": im.UserID(35).UID(),
		"form_id": 34.0, "to_id": 35.0, "user_id": 35.0, "msg_type": 1.0, "channel_type": 1.0, "message": "a\x00b\"\\",
		"send_time": "2022-07-06 20:51:29", "created_at": "2022-07-06 20:51:29", "data": "d",
		"seq": 3.0, "conversation_id": 77.0, "msg_id_str": "812",
	}
	for k, w := range want {
		if got[k] != w {
			t.Errorf("%s: got %#v, want %#v", k, got[k], w)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d members, want %d", len(got), len(want))
	}
}

func TestCloseCodes(t *testing.T) {
	for code, e := range closeCodes {
		if e.text == "" || len(e.text) > 100 {
			t.Errorf("%d: text %q", code, e.text)
		}
	}
	for code, want := range map[CloseCode]bool{CloseRestart: true, CloseTooSlow: true, CloseReplaced: false, ClosePolicy: false, 1006: true} {
		if code.Reconnect() != want {
			t.Errorf("%d: reconnect %v", code, !want)
		}
	}
}
