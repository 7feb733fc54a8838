package imclient

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const sample = `{"msg_id":812,"msg_client_id":1,"msg_code":200,"uid":"1a573f1e","to_uid":"","form_id":34,"to_id":35,"user_id":35,"msg_type":1,"channel_type":1,` +
	`"message":"a \"quoted\" \ud83d\ude00 \u0000 text","send_time":"2022-07-06 20:51:29","created_at":"2022-07-06 20:51:29","data":"{\"id\":34}","seq":7,"conversation_id":900,"msg_id_str":"812"}`

func TestFrame_Parse(t *testing.T) {
	var f Frame
	require.NoError(t, f.Parse([]byte(sample)))
	require.Equal(t, []int64{200, 812, 1, 34, 35, 1, 1, 7, 900},
		[]int64{int64(f.Code), f.ID, f.ClientID, f.From, f.To, int64(f.Type), int64(f.Channel), f.Seq, f.Conversation})
	require.Equal(t, "a \"quoted\" \U0001F600 \x00 text", f.Text())
	require.Equal(t, `"{\"id\":34}"`, string(f.Data()))

	require.NoError(t, f.Parse([]byte(` { "msg_code" : 1001 , "id":46,"users":{"id":3,"x":[1,"}"]},"form_id":-2 } `)))
	require.EqualValues(t, 46, f.ID)
	require.EqualValues(t, -2, f.From)
	require.Empty(t, f.Text())

	require.NoError(t, f.Parse([]byte(`{"msg_code":"200","msg_id":1.5,"seq":null}`)))
	require.Zero(t, f.Code, "a code must be a number")
	require.Zero(t, f.ID)
	require.NoError(t, f.Parse([]byte(`{}`)))

	for _, bad := range []string{``, ` `, `1`, `[]`, `"x"`, `{`, `{"a"}`, `{"a":}`, `{"a":1,}`, `{"a":1}{}`, `{"a":1} x`, `{"a":"x}`, `{"a":{}`, "{\"a\":1}\n{\"a\":1}", `ping`} {
		require.Error(t, f.Parse([]byte(bad)), bad)
	}
}

func TestAppendChat_IsTheFrameItSays(t *testing.T) {
	m := Outgoing{ClientID: 9, Channel: Group, To: 35, Type: 3, Text: "q\"\\\n\x00\U0001F600", Data: `{"a":1}`}
	b := AppendChat(nil, 34, &m)
	var got map[string]any
	require.NoError(t, json.Unmarshal(b, &got))
	require.Equal(t, map[string]any{
		"msg_code": 200.0, "msg_client_id": 9.0, "form_id": 34.0, "to_id": 35.0, "msg_type": 3.0,
		"channel_type": 2.0, "message": "q\"\\\n\x00\U0001F600", "data": map[string]any{"a": 1.0},
	}, got)
	var f Frame
	require.NoError(t, f.Parse(b))
	require.Equal(t, m.Text, f.Text())
}

// What encoding/json accepts as an object, Parse accepts and reads the same.
func FuzzFrame_Parse(f *testing.F) {
	for _, s := range []string{sample, `{}`, `{"a":[{"b":"]"}],"seq":5}`, `{"seq":1e3}`, `{"message":"\\"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var fr Frame
		err := fr.Parse(b)
		if err == nil {
			_, _ = fr.Text(), fr.Reason()
			_, _ = fr.Data(), fr.Session()
		}
		var want map[string]json.RawMessage
		if json.Unmarshal(b, &want) != nil || want == nil {
			return
		}
		if err != nil {
			t.Fatalf("refused a good object: %v", err)
		}
		for key := range want {
			if strings.EqualFold(key, "message") && key != "message" {
				return
			}
		}
		var text string
		if raw, ok := want["message"]; ok && json.Unmarshal(raw, &text) == nil && strings.Count(string(b), "message") == 1 && fr.Text() != text && !strings.ContainsRune(text, '\uFFFD') {
			t.Fatalf("text %q, want %q", fr.Text(), text)
		}
	})
}

func BenchmarkFrame_Parse(b *testing.B) {
	raw := []byte(sample)
	var f Frame
	b.ReportAllocs()
	b.SetBytes(int64(len(raw)))
	for b.Loop() {
		if f.Parse(raw) != nil || f.Seq != 7 {
			b.Fatal("parse")
		}
	}
}

func TestSeen(t *testing.T) {
	var s seen
	require.True(t, s.add(1))
	require.False(t, s.add(1))
	require.True(t, s.add(3))
	require.EqualValues(t, 1, s.floor)
	require.True(t, s.add(2))
	require.EqualValues(t, 3, s.floor)
	require.True(t, s.add(1000))
	require.False(t, s.has(999))
	for i := int64(4); i < 1000; i++ {
		require.True(t, s.add(i))
	}
	require.EqualValues(t, 1000, s.floor)
}
