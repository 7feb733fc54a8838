package wire

import (
	"encoding/json"
	"errors"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"im-services/internal/im"
)

const seedChat = `{"msg_id":0,"msg_client_id":1,"msg_code":200,"uid":"","to_uid":"ff654923-ad76-49ae-bbdc-70e0297caf44",` +
	`"form_id":34,"to_id":35,"msg_type":1,"channel_type":1,"message":"hello","data":""}`

func reasonOf(err error) string {
	if err == nil {
		return ""
	}
	var e *im.Error
	if !errors.As(err, &e) || e.Kind != im.KindInvalid {
		return "not an im.Error: " + err.Error()
	}
	return e.Reason
}

func TestDecodeGood(t *testing.T) {
	chat := Inbound{Code: CodeChat, ClientMsgID: 1, From: 34, To: 35, Kind: im.Private, Type: 1, Text: "hello"}
	with := func(f func(*Inbound)) Inbound { c := chat; f(&c); return c }
	tests := map[string]struct {
		in   string
		want Inbound
	}{
		"seed sample":  {seedChat, chat},
		"white space":  {"\t\r\n " + seedChat + " \n", chat},
		"strings":      {`{"msg_client_id":"1","msg_code":200,"form_id":"34","to_id":"35","msg_type":"1","channel_type":"1","message":"hello"}`, chat},
		"no sender":    {`{"msg_client_id":1,"msg_code":200,"to_id":35,"msg_type":1,"channel_type":1,"message":"hello"}`, with(func(c *Inbound) { c.From = 0 })},
		"sender zero":  {`{"form_id":0,"msg_client_id":1,"msg_code":200,"to_id":35,"msg_type":1,"channel_type":1,"message":"hello"}`, with(func(c *Inbound) { c.From = 0 })},
		"sender null":  {`{"form_id":null,"uid":null,"msg_client_id":1,"msg_code":200,"to_id":35,"msg_type":1,"channel_type":1,"message":"hello"}`, with(func(c *Inbound) { c.From = 0 })},
		"sender empty": {`{"form_id":"","uid":"","msg_client_id":1,"msg_code":200,"to_id":35,"msg_type":1,"channel_type":1,"message":"hello"}`, with(func(c *Inbound) { c.From = 0 })},
		"uid":          {`{"uid":"U","form_id":34,"msg_client_id":1,"msg_code":200,"to_id":35,"msg_type":1,"channel_type":1,"message":"hello"}`, with(func(c *Inbound) { c.FromUID = "U" })},
		"group":        {`{"form_id":34,"msg_client_id":1,"msg_code":200,"to_id":35,"msg_type":127,"channel_type":2,"message":"hello"}`, with(func(c *Inbound) { c.Kind = im.Group; c.Type = 127 })},
		"data string":  {`{"data":"a\"b","form_id":34,"msg_client_id":1,"msg_code":200,"to_id":35,"msg_type":1,"channel_type":1,"message":"hello"}`, with(func(c *Inbound) { c.Data = `"a\"b"` })},
		"data respelt": {`{"data":"\u0061\/\u4f60","form_id":34,"msg_client_id":1,"msg_code":200,"to_id":35,"msg_type":1,"channel_type":1,"message":"hello"}`, with(func(c *Inbound) { c.Data = `"a/你"` })},
		"data number":  {`{"data":-7,"form_id":34,"msg_client_id":1,"msg_code":200,"to_id":35,"msg_type":1,"channel_type":1,"message":"hello"}`, with(func(c *Inbound) { c.Data = `-7` })},
		"data null":    {`{"data":null,"form_id":34,"msg_client_id":1,"msg_code":200,"to_id":35,"msg_type":1,"channel_type":1,"message":"hello"}`, chat},
		"escaped key":  {`{"form\u005fid":34,"msg_client_id":1,"msg_code":200,"to_id":35,"msg_type":1,"channel_type":1,"message":"hello"}`, chat},
		"escapes":      {`{"form_id":34,"msg_client_id":1,"msg_code":200,"to_id":35,"msg_type":1,"channel_type":1,"message":"\u0000\b\f\n\r\t\"\\\/\ud83d\ude42é"}`, with(func(c *Inbound) { c.Text = "\x00\b\f\n\r\t\"\\/🙂é" })},
		"text null":    {`{"form_id":34,"msg_client_id":1,"msg_code":200,"to_id":35,"msg_type":1,"channel_type":1,"message":"null"}`, with(func(c *Inbound) { c.Text = "null" })},
		"unknown":      {`{"x":{"y":[1,2.5e9,true,null,{"a":{}}]},"form_id":34,"msg_client_id":1,"msg_code":200,"to_id":35,"msg_type":1,"channel_type":1,"message":"hello"}`, chat},
		"other case":   {`{"FORM_ID":99,"form_id":34,"msg_client_id":1,"msg_code":200,"to_id":35,"msg_type":1,"channel_type":1,"message":"hello"}`, chat},
		"largest ids": {
			`{"form_id":9007199254740991,"msg_client_id":9007199254740991,"msg_code":200,"to_id":"9007199254740991","msg_type":1,"channel_type":1,"message":"hello"}`,
			with(func(c *Inbound) { c.From, c.To, c.ClientMsgID = im.MaxID, im.MaxID, im.MaxID }),
		},
		"heartbeat":     {`{"msg_code":1004,"message":"ping"}`, Inbound{Code: CodeHeartbeat}},
		"heartbeat odd": {`{"msg_code":1004,"message":[1],"form_id":"x"}`, Inbound{Code: CodeHeartbeat}},
		"receipt":       {`{"msg_code":1005,"msg_id":812}`, Inbound{Code: CodeAck, MsgID: 812}},
		"receipt place": {`{"msg_code":1005,"conversation_id":77,"seq":"3"}`, Inbound{Code: CodeAck, ConversationID: 77, Seq: 3}},
		"receipt both":  {`{"msg_code":1005,"msg_id":812,"conversation_id":77,"seq":3}`, Inbound{Code: CodeAck, ConversationID: 77, Seq: 3}},
		"receipt zeros": {`{"msg_code":1005,"msg_id":812,"conversation_id":0,"seq":"0"}`, Inbound{Code: CodeAck, MsgID: 812}},
		"receipt nulls": {`{"msg_code":1005,"msg_id":812,"conversation_id":null,"seq":null}`, Inbound{Code: CodeAck, MsgID: 812}},
		"receipt half":  {`{"msg_code":1005,"msg_id":812,"conversation_id":77,"seq":0}`, Inbound{Code: CodeAck, MsgID: 812}},
		"receipt seq":   {`{"msg_code":1005,"msg_id":812,"seq":3}`, Inbound{Code: CodeAck, MsgID: 812}},
		"presence":      {`{"msg_code":2002,"to_id":35}`, Inbound{Code: CodePresence, To: 35}},
		"presence id":   {`{"msg_code":2002,"id":35,"msg_client_id":4}`, Inbound{Code: CodePresence, To: 35, ClientMsgID: 4}},
		"presence zero": {`{"msg_code":2002,"to_id":0,"id":35}`, Inbound{Code: CodePresence, To: 35}},
		"presence null": {`{"msg_code":2002,"id":35,"to_id":null}`, Inbound{Code: CodePresence, To: 35}},
		"presence both": {`{"msg_code":2002,"id":36,"to_id":35}`, Inbound{Code: CodePresence, To: 35}},
		"friend":        {`{"msg_code":1000,"to_id":35,"information":"I am he"}`, Inbound{Code: CodeFriendRequest, To: 35, Text: "I am he"}},
		"friend number": {`{"msg_code":1000,"to_id":35,"information":1}`, Inbound{Code: CodeFriendRequest, To: 35, Text: "1"}},
		"friend real":   {`{"msg_code":1000,"to_id":35,"information":-1.50e+2 }`, Inbound{Code: CodeFriendRequest, To: 35, Text: "-1.50e+2"}},
		"friend true":   {`{"msg_code":1000,"information": true,"to_id":35}`, Inbound{Code: CodeFriendRequest, To: 35, Text: "true"}},
		"accept":        {`{"msg_code":1001,"id":46}`, Inbound{Code: CodeFriendAccepted, ID: 46}},
		"refuse":        {`{"msg_code":1002,"id":"46"}`, Inbound{Code: CodeFriendRefused, ID: 46}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := Decode([]byte(tt.in))
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Fatalf("got %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

// chatWith is the seed's chat with one member replaced, or left out for "".
func chatWith(key, raw string) string {
	members := [][2]string{
		{"msg_client_id", "1"},
		{"msg_code", "200"},
		{"form_id", "34"},
		{"to_id", "35"},
		{"msg_type", "1"},
		{"channel_type", "1"},
		{"message", `"hello"`},
		{"data", `""`},
		{"uid", `""`},
	}
	var parts []string
	for _, m := range members {
		if m[0] == key {
			m[1] = raw
		}
		if m[1] != "" {
			parts = append(parts, strconv.Quote(m[0])+":"+m[1])
		}
	}
	return "{" + strings.Join(parts, ",") + "}"
}

func TestDecodeBad(t *testing.T) {
	notIDs := []string{
		"0", "-1", "-0", "1.0", "1.5", "1e3", "1E3", `"1e3"`, `"1.0"`, "9007199254740992", `"9007199254740992"`,
		"9223372036854775807", "99999999999999999999999", `"99999999999999999999999"`, `""`, `" 1"`, `"1 "`, `"+1"`,
		`"0x1"`, `"01"`, `"-1"`, `"null"`, `"undefined"`, `"１"`, "true", "false", "null", "[]", "[1]", "{}", `"a"`, `"\u00001"`,
	}
	type bad struct{ in, reason string }
	var tests []bad
	for _, v := range append(notIDs, "") {
		tests = append(tests, bad{chatWith("to_id", v), "to_id_invalid"}, bad{chatWith("msg_client_id", v), "client_msg_id_invalid"})
		if v == "" {
			continue
		}
		tests = append(tests,
			bad{`{"msg_code":1005,"msg_id":` + v + `}`, "receipt_invalid"},
			bad{`{"msg_code":1005,"conversation_id":1,"seq":` + v + `}`, "receipt_invalid"},
			bad{`{"msg_code":1005,"conversation_id":` + v + `,"seq":1}`, "receipt_invalid"},
			bad{`{"msg_code":2002,"to_id":` + v + `}`, "to_id_invalid"},
			bad{`{"msg_code":1000,"information":"i","to_id":` + v + `}`, "to_id_invalid"},
			bad{`{"msg_code":1001,"id":` + v + `}`, "id_invalid"},
			bad{`{"msg_code":1002,"id":` + v + `}`, "id_invalid"},
		)
	}
	for _, v := range []string{"", "0", "-1", "128", "1.0", "1e0", `"x"`, "null", "true", "[1]", "99999999999"} {
		tests = append(tests, bad{chatWith("msg_type", v), "msg_type_invalid"})
	}
	for _, v := range []string{"", "0", "3", "-1", "1.0", "1e0", `"x"`, "null", "true", "[1]", "99999999999"} {
		tests = append(tests, bad{chatWith("channel_type", v), "channel_type_invalid"})
	}
	for _, v := range []string{"", `""`, "1", "null", "true", "[]", "{}", `["hello"]`} {
		tests = append(tests, bad{chatWith("message", v), "message_empty"})
	}
	for _, v := range []string{"1.5", "1e2", "true", "false", "[]", "{}", `{"id":1}`, "9007199254740992", "-9007199254740992"} {
		tests = append(tests, bad{chatWith("data", v), "data_invalid"})
	}
	for _, v := range []string{"-1", "1.5", "1e2", `"x"`, "true", "[]", "{}", "9007199254740992"} {
		tests = append(tests, bad{chatWith("form_id", v), "sender_mismatch"})
	}
	for _, v := range []string{"1", "true", "[]", "{}"} {
		tests = append(tests, bad{chatWith("uid", v), "sender_mismatch"})
	}
	for _, v := range []string{"", `"200"`, "200.0", "2e2", "null", "true", `"x"`, "[200]", "{}", "0", "-200", "201", "500", "600", "1003", "2000", "2001", "2003", "2004", "2005", "3000", "99999999999999999999"} {
		tests = append(tests, bad{chatWith("msg_code", v), "frame_code_unknown"})
	}
	for _, in := range []string{
		"", " ", "\x00", "null", "true", "1", `"x"`, "[]", "[{}]", "ping", "{", "}", "{]", `{"a"}`, `{"a":}`, `{"a":1,}`, `{,}`,
		`{"a":1 "b":2}`, `{a:1}`, `{'a':1}`, `{"a":1}{"b":2}`, `{"a":1}x`, "{\"a\":1}\x00", `{"a":1},`, `{"a":01}`, `{"a":+1}`,
		`{"a":.5}`, `{"a":1.}`, `{"a":1e}`, `{"a":1e+}`, `{"a":-}`, `{"a":--1}`, `{"a":0x1}`, `{"a":NaN}`, `{"a":Infinity}`,
		`{"a":tru}`, `{"a":truex}`, `{"a":nul}`, `{"a":fals}`, `{"a":TRUE}`, `{"a":"}`, `{"a":"\"}`, `{"a":"\x"}`, `{"a":"\u12"}`,
		`{"a":"\u12g4"}`, `{"a":"\ud800"}`, `{"a":"\udc00"}`, `{"a":"\ud800\ud800"}`, `{"a":"\ud800x"}`, `{"a":"\ud800\n"}`, "{\"a\":\"\n\"}", "{\"a\":\"\x1f\"}",
		"{\"a\":\"\xff\"}", "{\"a\":\"\xc0\xaf\"}", "{\"a\":\"\xed\xa0\x80\"}", "{\"a\":\"\xf4\x90\x80\x80\"}", "{\"\xff\":1}", "\xef\xbb\xbf{}",
		`{"a":[1,]}`, `{"a":[,1]}`, `{"a":[1 2]}`, `{"a":[}`, `{"a":{]}`, `{/**/}`, `{"a":1//
}`, "{\"a\":1,\u00a0\"b\":2}", "\u2028{}", strings.Repeat(`{"a":`, 17) + "1" + strings.Repeat("}", 17),
		`{"a":` + strings.Repeat("[", 16) + strings.Repeat("]", 16) + "}", strings.Repeat("[", 100000), strings.Repeat(`{"a":`, 100000),
	} {
		tests = append(tests, bad{in, "frame_invalid"})
	}
	for _, in := range []string{
		`{"msg_code":1004,"msg_code":1004}`, `{"msg_code":1004,"a":1,"a":1}`, `{"msg_code":1004,"a":1,"\u0061":1}`,
		`{"msg_code":1004,"msg\u005fcode":200}`, `{"msg_code":1004,"x":{"a":1,"a":2}}`, `{"msg_code":1004,"x":[{"a":1,"b":{"c":1,"c":1}}]}`,
		strings.TrimSuffix(seedChat, "}") + `,"message":"other"}`, strings.TrimSuffix(seedChat, "}") + `,"form_id":34}`,
	} {
		tests = append(tests, bad{in, "frame_key_repeated"})
	}
	tests = append(tests,
		bad{chatWith("message", `"`+strings.Repeat("x", MaxContent+1)+`"`), "message_too_large"},
		bad{chatWith("data", `"`+strings.Repeat("x", MaxContent-4)+`"`), "message_too_large"},
		bad{chatWith("message", `"`+strings.Repeat("你", MaxContent/3+1)+`"`), "message_too_large"},
		bad{`{"msg_code":1000,"to_id":35}`, "information_invalid"},
		bad{`{"msg_code":1000,"to_id":35,"information":null}`, "information_invalid"},
		bad{`{"msg_code":1000,"to_id":35,"information":{"a":1}}`, "information_invalid"},
		bad{`{"msg_code":1000,"to_id":35,"information":["x"]}`, "information_invalid"},
		bad{`{"msg_code":1000,"to_id":35,"information":""}`, "information_invalid"},
		bad{`{"msg_code":1005}`, "receipt_invalid"},
		bad{`{"msg_code":1005,"seq":1}`, "receipt_invalid"},
		bad{`{"msg_code":1005,"conversation_id":1,"msg_id":0}`, "receipt_invalid"},
		bad{`{"msg_code":1005,"conversation_id":-1,"seq":0,"msg_id":1}`, "receipt_invalid"},
		bad{`{"msg_code":1005,"conversation_id":1,"seq":"x","msg_id":1}`, "receipt_invalid"},
		bad{`{"msg_code":1005,"conversation_id":"","seq":null,"msg_id":1}`, "receipt_invalid"},
		bad{`{"msg_code":2002,"to_id":-1,"id":35}`, "to_id_invalid"},
		bad{`{"msg_code":2002,"to_id":"x","id":35}`, "to_id_invalid"},
		bad{`{"msg_code":2002}`, "to_id_invalid"},
		bad{`{"msg_code":1001}`, "id_invalid"},
	)
	if len(tests) < 300 {
		t.Errorf("only %d cases", len(tests))
	}
	for _, tt := range tests {
		if _, err := Decode([]byte(tt.in)); reasonOf(err) != tt.reason {
			t.Errorf("%.120q: got %q, want %q", tt.in, reasonOf(err), tt.reason)
		}
	}
}

func TestDecodeLimitsExactly(t *testing.T) {
	full := chatWith("message", `"`+strings.Repeat("x", MaxContent)+`"`)
	if in, err := Decode([]byte(full)); err != nil || len(in.Text) != MaxContent {
		t.Fatalf("%d bytes of text: %v", MaxContent, err)
	}
	deep := `{"msg_code":1004,"a":` + strings.Repeat("[", 15) + strings.Repeat("]", 15) + "}"
	if _, err := Decode([]byte(deep)); err != nil {
		t.Fatalf("depth %d: %v", MaxDepth, err)
	}
	many := `{"msg_code":1004`
	for i := range MaxMembers {
		many += `,"k` + strconv.Itoa(i) + `":1`
	}
	if _, err := Decode([]byte(many + "}")); err != nil {
		t.Fatalf("%d members: %v", MaxMembers, err)
	}
	if _, err := Decode([]byte(many + `,"more":1}`)); reasonOf(err) != "frame_invalid" {
		t.Fatalf("one member more: %v", err)
	}
}

// The answer to a bad frame names the message it is about.
func TestDecodeEchoesClientMsgID(t *testing.T) {
	for _, in := range []string{
		`{"msg_client_id":7,"msg_code":999}`, `{"msg_code":200,"msg_client_id":"7"}`, chatWith("to_id", "0"),
	} {
		got, err := Decode([]byte(in))
		if err == nil || got.ClientMsgID == 0 {
			t.Errorf("%s: id %d, err %v", in, got.ClientMsgID, err)
		}
	}
}

func TestG11_CheckSender(t *testing.T) {
	me := im.UserID(34)
	for _, tt := range []struct {
		in Inbound
		ok bool
	}{
		{Inbound{}, true},
		{Inbound{From: 34}, true},
		{Inbound{From: 34, FromUID: strings.ToUpper(me.UID())}, true},
		{Inbound{FromUID: me.UID()}, true},
		{Inbound{From: 35}, false},
		{Inbound{FromUID: im.UserID(35).UID()}, false},
		{Inbound{From: 34, FromUID: "1a573f1e-a29a-4d88-8aa7-349f19dc1f4f"}, false},
	} {
		if err := tt.in.CheckSender(me); (err == nil) != tt.ok {
			t.Errorf("%+v: %v", tt.in, err)
		}
	}
}

// TestDefect1_NoFramePanics: in the original one odd frame of any user ended
// the process.
func TestDefect1_NoFramePanics(t *testing.T) {
	for cut := range len(seedChat) {
		if _, err := Decode([]byte(seedChat[:cut])); err == nil {
			t.Errorf("cut at %d was accepted", cut)
		}
	}
}

// TestDefect3_TextSurvives: quotes, backslashes and control characters come out
// as they went in.
func TestDefect3_TextSurvives(t *testing.T) {
	for r := rune(0); r < 0x300; r++ {
		text := "a" + string(r) + "b"
		quoted := AppendString(nil, text)
		var back string
		if err := json.Unmarshal(quoted, &back); err != nil || back != text {
			t.Fatalf("%U: %s %v", r, quoted, err)
		}
		in, err := Decode([]byte(chatWith("message", string(quoted))))
		if err != nil || in.Text != text {
			t.Fatalf("%U: %q %v", r, in.Text, err)
		}
	}
}
