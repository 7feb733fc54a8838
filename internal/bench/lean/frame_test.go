package lean

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParse_ReadsTheMembersItNeeds(t *testing.T) {
	for name, c := range map[string]struct {
		in   string
		ok   bool
		want Frame
	}{
		"chat": {
			`{"msg_id":812,"msg_client_id":7,"msg_code":200,"uid":"a","form_id":34,"to_id":35,"channel_type":1,"message":"he \"llo\\","data":{"seq":9,"a":["}"]},"seq":4,"conversation_id":11}`,
			true,
			Frame{Code: 200, MsgID: 812, ClientMsgID: 7, From: 34, To: 35, Kind: 1, Seq: 4, Conversation: 11, Text: []byte(`he \"llo\\`)},
		},
		"ack":              {` { "ack" : 1 , "msg_code" : 1005 , "msg_id" : 1, "msg_client_id":2 } `, true, Frame{Code: 1005, MsgID: 1, ClientMsgID: 2}},
		"refusal":          {`{"msg_code":500,"message":"no","msg_client_id":3,"reason":"overloaded","retry_after":1}`, true, Frame{Code: 500, ClientMsgID: 3, Text: []byte("no"), Reason: []byte("overloaded"), RetryAfter: 1}},
		"empty object":     {`{}`, true, Frame{}},
		"not an integer":   {`{"msg_code":"200","seq":1.5,"msg_id":-3,"to_id":12345678901234567890}`, true, Frame{MsgID: -3}},
		"no object":        {`[1]`, false, Frame{}},
		"empty":            {``, false, Frame{}},
		"cut in a key":     {`{"msg_co`, false, Frame{}},
		"cut in a value":   {`{"msg_code":2`, false, Frame{Code: 2}},
		"cut in a string":  {`{"message":"a\"`, false, Frame{}},
		"cut in an object": {`{"data":{"a":1`, false, Frame{}},
		"no value":         {`{"msg_code":}`, false, Frame{}},
		"more after it":    {`{"msg_code":1}{}`, false, Frame{Code: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			var f Frame
			require.Equal(t, c.ok, Parse([]byte(c.in), &f))
			if c.ok {
				require.Equal(t, c.want, f)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"msg_code":200,"seq":3,"message":"a\"b","data":{"x":[1,"]"]}}`))
	f.Add([]byte(`{"msg_code":1005,"msg_client_id":9007199254740991}`))
	f.Add([]byte("{\"\\\\\":\"\\\"\"}"))
	f.Fuzz(func(t *testing.T, p []byte) {
		var got Frame
		ok := Parse(p, &got)
		if !json.Valid(p) {
			return // it need not notice
		}
		var members map[string]json.RawMessage
		isObject := json.Unmarshal(p, &members) == nil && members != nil
		require.Equal(t, isObject, ok, "%q", p)
	})
}

func BenchmarkParse(b *testing.B) {
	p := []byte(`{"msg_id":812,"msg_client_id":795390858378,"msg_code":200,"uid":"1a573f1e-a29a-4d88-8aa7-349f19dc1f4f","to_uid":"ff654923-ad76-49ae-bbdc-70e0297caf44","form_id":34,"to_id":35,"user_id":35,"msg_type":1,"channel_type":1,"message":"0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789","send_time":"2022-07-06 20:51:29","created_at":"2022-07-06 20:51:29","data":"","seq":55,"conversation_id":12,"msg_id_str":"812"}`)
	var f Frame
	b.ReportAllocs()
	for b.Loop() {
		if !Parse(p, &f) {
			b.Fatal("not parsed")
		}
	}
}
