package wire

import (
	"bytes"
	"encoding/json"
	"math"
	"testing"
	"time"
	"unicode/utf8"

	"im-services/internal/im"
)

// FuzzDecode compares with encoding/json: what we accept it must accept, and
// both must have read the same.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		seedChat, `{"msg_code":1004,"message":"ping"}`, `{"msg_code":1005,"conversation_id":7,"seq":"3"}`,
		`{"msg_code":2002,"id":"35"}`, `{"msg_code":1000,"to_id":1,"information":"\ud83d\ude42"}`,
		`{"msg\u005fcode":1001,"id":4,"x":[{"a":[1e9,null]}]}`, chatWith("data", "-12"), chatWith("message", `"\u0000\\\""`),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		in, err := Decode(b)
		if !bytes.Equal(before, b) {
			t.Fatal("Decode changed its input")
		}
		if err != nil {
			if reasonOf(err) == "" {
				t.Fatal("error without a reason")
			}
			return
		}
		dec := json.NewDecoder(bytes.NewReader(b))
		dec.UseNumber()
		var ref map[string]any
		if err := dec.Decode(&ref); err != nil {
			t.Fatalf("encoding/json refuses what we accept: %v", err)
		}
		num := func(key string) int64 {
			var text string
			switch v := ref[key].(type) {
			case json.Number:
				text = string(v)
			case string:
				text = v
			}
			n, _ := ParseInt(text)
			return n
		}
		if int64(in.Code) != num("msg_code") {
			t.Fatalf("code %d", in.Code)
		}
		if in.Code == CodeChat {
			if in.To != num("to_id") || int64(in.ClientMsgID) != num("msg_client_id") || in.Text != ref["message"] ||
				int64(in.Type) != num("msg_type") || int64(in.Kind) != num("channel_type") {
				t.Fatalf("read differently: %+v, %v", in, ref)
			}
			if in.To <= 0 || in.To > im.MaxID || in.Type < 1 || in.Type > MaxType || len(in.Text)+len(in.Data) > 8*MaxContent {
				t.Fatalf("out of range: %+v", in)
			}
			switch d := ref["data"].(type) {
			case string:
				var got string
				if in.Data != "" {
					if err := json.Unmarshal([]byte(in.Data), &got); err != nil {
						t.Fatal(err)
					}
				}
				if got != d {
					t.Fatalf("data %q, want %q", got, d)
				}
			case json.Number:
				if n, _ := ParseInt(string(d)); string(appendInt(nil, n)) != in.Data {
					t.Fatalf("data %q, want %s", in.Data, d)
				}
			}
			// What goes out again comes in again the same.
			again := AppendChat(nil, &Chat{
				ID: 1, ClientMsgID: in.ClientMsgID, ConversationID: 1, Seq: 1, Kind: in.Kind, From: max(in.From, 1), To: in.To,
				Type: in.Type, Text: in.Text, Data: in.Data,
			}, time.UTC)
			in2, err := Decode(again)
			if err != nil || in2.Text != in.Text || in2.Data != in.Data || in2.To != in.To {
				t.Fatalf("no fixpoint: %+v %v", in2, err)
			}
		}
	})
}

// FuzzAppendString: any valid text is spelled as JSON that reads back the same.
func FuzzAppendString(f *testing.F) {
	f.Add("plain")
	f.Add("\x00\"\\\u2028\U0001f642")
	f.Fuzz(func(t *testing.T, s string) {
		if !utf8.ValidString(s) {
			return
		}
		var back string
		if err := json.Unmarshal(AppendString(nil, s), &back); err != nil || back != s {
			t.Fatalf("%q: %q %v", s, back, err)
		}
	})
}

func FuzzParseInt(f *testing.F) {
	f.Add("0")
	f.Add("-12345678901234567890")
	f.Fuzz(func(t *testing.T, s string) {
		n, ok := ParseInt(s)
		if !ok {
			return
		}
		var ref json.Number
		if err := json.Unmarshal([]byte(s), &ref); err != nil {
			t.Fatalf("%q is no JSON number", s)
		}
		if want, err := ref.Int64(); err != nil || want != n || n == math.MinInt64 {
			t.Fatalf("%q: %d, want %d", s, n, want)
		}
	})
}

func BenchmarkDecodeChat(b *testing.B) {
	in := []byte(seedChat)
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(in); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeChatEncodingJSON(b *testing.B) {
	in := []byte(seedChat)
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		var v struct {
			ClientMsgID int64  `json:"msg_client_id"`
			Code        int    `json:"msg_code"`
			From        int64  `json:"form_id"`
			To          int64  `json:"to_id"`
			Message     string `json:"message"`
			Data        any    `json:"data"`
		}
		if err := json.Unmarshal(in, &v); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeHeartbeat(b *testing.B) {
	in := []byte(`{"msg_code":1004,"message":"ping"}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(in); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendChat(b *testing.B) {
	c := &Chat{ID: 812, ClientMsgID: 1, ConversationID: 77, Seq: 3, Kind: im.Private, From: 34, To: 35, Type: 1, Text: "hello, how are you today?", SentAtMS: at}
	buf := make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		buf = AppendChat(buf[:0], c, shanghai)
	}
	b.SetBytes(int64(len(buf)))
}
