package logic

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	logicv1 "im-services/api/proto/logic/v1"
	pushv1 "im-services/api/proto/push/v1"
	"im-services/internal/im"
)

var alice = &pushv1.Profile{Id: 34, Name: "alice", Avatar: "http://x/a.png", Email: "a@example.com"}

// groupMembers decodes a group message's data as the web client does.
func groupMembers(t *testing.T, literal string) map[string]any {
	t.Helper()
	var text string
	if err := json.Unmarshal([]byte(literal), &text); err != nil {
		t.Fatalf("data is not a JSON string: %s", literal)
	}
	var members map[string]any
	if err := json.Unmarshal([]byte(text), &members); err != nil || members == nil {
		t.Fatalf("data does not hold an object: %s", text)
	}
	return members
}

// Defect 31: a group message's data is not the sender's word on who he is.
func TestDefect31_GroupDataNamesTheTrueSender(t *testing.T) {
	for name, in := range map[string]string{
		"empty":        "",
		"empty text":   `""`,
		"null text":    `"null"`,
		"number":       `5`,
		"plain text":   `"hello"`,
		"array":        `"[1,2]"`,
		"forged":       `"{\"id\":1,\"uid\":\"x\",\"name\":\"boss\",\"avatar\":\"\",\"email\":\"\",\"mood\":\"ok\"}"`,
		"forged twice": `"{\"id\":1,\"id\":2}"`,
	} {
		t.Run(name, func(t *testing.T) {
			got, err := groupData(alice, in)
			if err != nil {
				t.Fatal(err)
			}
			m := groupMembers(t, got)
			if m["id"] != 34.0 || m["name"] != "alice" || m["avatar"] != alice.GetAvatar() || m["email"] != alice.GetEmail() || m["uid"] != im.UserID(34).UID() {
				t.Fatalf("sender forged: %v", m)
			}
			switch name {
			case "forged":
				if m["mood"] != "ok" {
					t.Error("the sender's other members are gone")
				}
			case "plain text":
				if m["data"] != "hello" {
					t.Errorf("data = %v", m["data"])
				}
			case "number":
				if m["data"] != 5.0 {
					t.Errorf("data = %v", m["data"])
				}
			}
		})
	}
}

func TestNewSendReq_RefusesWhatCanNeverBeStored(t *testing.T) {
	good := func() *logicv1.Send {
		return &logicv1.Send{SenderId: 2, ClientMsgId: 1, Kind: 1, ToId: 3, Type: 1, Text: "hi", Platform: 1}
	}
	if _, err := newSendReq(good()); err != nil {
		t.Fatal(err)
	}
	for reason, spoil := range map[string]func(*logicv1.Send){
		"sender_missing":        func(m *logicv1.Send) { m.SenderId = 0 },
		"client_msg_id_invalid": func(m *logicv1.Send) { m.ClientMsgId = 0 },
		"to_id_invalid":         func(m *logicv1.Send) { m.ToId = im.MaxID + 1 },
		"msg_type_invalid":      func(m *logicv1.Send) { m.Type = 128 },
		"message_empty":         func(m *logicv1.Send) { m.Text = "" },
		"message_too_large":     func(m *logicv1.Send) { m.Text = strings.Repeat("x", 60<<10+1) },
		"data_invalid":          func(m *logicv1.Send) { m.DataJson = "{" },
		"channel_type_invalid":  func(m *logicv1.Send) { m.Kind = 3 },
		"not_friends":           func(m *logicv1.Send) { m.ToId = m.SenderId },
	} {
		m := good()
		spoil(m)
		if _, err := newSendReq(m); !errors.Is(err, &im.Error{Reason: reason}) {
			t.Errorf("want %s, got %v", reason, err)
		}
	}
}

// A message of the largest size is stored whatever it is made of: as JSON a
// byte of it may take six.
func TestNewSendReq_TakesTheLargestMessageHoweverItIsSpelled(t *testing.T) {
	for _, tt := range []struct{ text, data string }{
		{strings.Repeat("\x00", 60<<10), ""},
		{"x", strings.Repeat(`\u0000`, 60<<10-1)},
		{strings.Repeat("x", 20<<10), strings.Repeat(`\"`, 40<<10)},
	} {
		m := &logicv1.Send{SenderId: 2, ClientMsgId: 1, Kind: 2, ToId: 3, Type: 1, Text: tt.text, DataJson: `"` + tt.data + `"`, Sender: alice}
		r, err := newSendReq(m)
		if err != nil {
			t.Fatalf("%d and %d bytes: %v", len(tt.text), len(tt.data), err)
		}
		var want string
		if err := json.Unmarshal([]byte(m.GetDataJson()), &want); err != nil {
			t.Fatal(err)
		}
		if got := groupMembers(t, r.data)["data"]; want != "" && got != want {
			t.Errorf("data of %d bytes is changed", len(want))
		}
		m.DataJson = `"` + tt.data + strings.Repeat(`\u0000`, 60<<10) + `"`
		if _, err := newSendReq(m); !errors.Is(err, &im.Error{Reason: "message_too_large"}) {
			t.Errorf("more than the largest: %v", err)
		}
	}
}

func TestContentHash_TellsFieldsApart(t *testing.T) {
	if bytes.Equal(contentHash(1, "ab", "c"), contentHash(1, "a", "bc")) {
		t.Error("text and data run together")
	}
	if bytes.Equal(contentHash(1, "a", ""), contentHash(2, "a", "")) {
		t.Error("type does not count")
	}
}
