package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"im-services/internal/imclient"
)

// The flow that the project's front page names: register, log in, be friends,
// connect, send the sample frame with any WebSocket tool, receive, acknowledge.
// The two users are at different gateways.
func TestSeedFlow(t *testing.T) {
	a, b := newUser(t, 1), newUser(t, 2)
	sa, sb := dial(t, a, 1, ""), dial(t, b, 2, "")
	ctx := soon(t)

	record, err := a.api.AskFriend(ctx, b.ID)
	require.NoError(t, err)
	request := next(t, sb, imclient.CodeRequest)
	require.Equal(t, record, request.ID)
	require.Equal(t, a.ID, request.From)
	require.Equal(t, b.ID, request.To)
	require.NoError(t, b.api.AnswerFriend(ctx, record, true))
	accepted := next(t, sa, imclient.CodeAccepted)
	require.Equal(t, record, accepted.ID)
	require.Equal(t, a.ID, accepted.From, "the orientation of the record, not swapped")
	require.Equal(t, b.ID, accepted.To)
	require.Equal(t, 1, accepted.Status)

	// The requester's session is the record.
	var sessions []struct {
		ID    int64 `json:"id"`
		Owner int64 `json:"form_id"`
		To    int64 `json:"to_id"`
		Users struct {
			ID    int64  `json:"id"`
			Email string `json:"email"`
		} `json:"Users"`
	}
	require.NoError(t, a.api.Call(ctx, http.MethodGet, "/api/sessions", nil, &sessions))
	found := false
	for _, s := range sessions {
		if s.To == b.ID {
			found = true
			require.Equal(t, record, s.ID)
			require.Equal(t, a.ID, s.Owner)
			require.Equal(t, b.Email, s.Users.Email)
		}
	}
	require.True(t, found, "the requester has no session with the friend")

	sample := fmt.Sprintf(`{"msg_id":1,"msg_client_id":1,"msg_code":200,"uid":%q,"to_uid":%q,"form_id":%d,"to_id":%d,"msg_type":1,"channel_type":1,"message":"hello","data":""}`,
		a.UID, b.UID, a.ID, b.ID)
	require.NoError(t, sa.Write([]byte(sample)))
	ack := *next(t, sa, imclient.CodeAck, imclient.CodeError, imclient.CodeNotAllowed, imclient.CodeChat)
	require.EqualValues(t, 1, ack.ClientID)
	require.Positive(t, ack.ID)
	require.JSONEq(t, fmt.Sprintf(`{"ack":1,"msg_code":1005,"msg_id":%d,"msg_client_id":1,"seq":1,"conversation_id":%d}`, ack.ID, ack.Conversation), string(ack.Raw))

	chat := next(t, sb, imclient.CodeChat)
	var got map[string]any
	require.NoError(t, json.Unmarshal(chat.Raw, &got))
	require.Regexp(t, `^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$`, got["send_time"])
	require.Equal(t, got["send_time"], got["created_at"])
	for member, want := range map[string]any{
		"msg_id": float64(ack.ID), "msg_client_id": 1.0, "msg_code": 200.0, "uid": a.UID, "to_uid": b.UID,
		"form_id": float64(a.ID), "to_id": float64(b.ID), "msg_type": 1.0, "channel_type": 1.0, "message": "hello", "data": "",
	} {
		require.Equal(t, want, got[member], member)
	}

	// The seed writes msg_type and channel_type as strings in its table.
	require.NoError(t, sb.Write(fmt.Appendf(nil, `{"msg_client_id":"7","msg_code":200,"form_id":"%d","to_id":"%d","msg_type":"1","channel_type":"1","message":"hi","data":5}`, b.ID, a.ID)))
	require.EqualValues(t, 2, next(t, sb, imclient.CodeAck, imclient.CodeError, imclient.CodeNotAllowed).Seq)
	back := next(t, sa, imclient.CodeChat)
	require.Equal(t, "hi", back.Text())
	require.Equal(t, "5", string(back.Data()), "a number stays a number")

	rows, err := a.api.History(ctx, imclient.Private, b.ID)
	require.NoError(t, err)
	require.Len(t, rows, 2)
	require.Equal(t, ack.ID, rows[0].ID)
	quiet(t, sa)
	quiet(t, sb)
}

// One message, sent a hundred times at once, through both gateways, by socket
// and by HTTP: one row, one seq, a hundred equal answers, one push.
func TestG3_SameMessageInParallelThroughBothGateways(t *testing.T) {
	a, b := friends(t)
	sb := dial(t, b, 2, "")
	msg := imclient.Outgoing{ClientID: time.Now().UnixMilli(), To: b.ID, Text: "once"}
	frame := imclient.AppendChat(nil, a.ID, &msg)
	type answer struct{ id, seq, conv int64 }
	answers := make(chan answer, 100)

	var wg sync.WaitGroup
	begin := make(chan struct{})
	for n := 1; n <= 2; n++ {
		s := dial(t, a, n, []string{"", "pc", "app"}[n])
		wg.Go(func() {
			<-begin
			for range 25 {
				if err := s.Write(frame); err != nil {
					t.Error(err)
				}
			}
			for got := 0; got < 25; {
				f, err := s.Read(10 * time.Second)
				if err != nil {
					t.Error(err)
					return
				}
				switch f.Code {
				case imclient.CodeAck:
					answers <- answer{f.ID, f.Seq, f.Conversation}
					got++
				case imclient.CodeError, imclient.CodeNotAllowed:
					t.Errorf("refused: %s", f.Raw)
					got++
				}
			}
		})
		for range 25 {
			wg.Go(func() {
				<-begin
				sent, err := a.api.At(system.GatewayURL(n)).Send(t.Context(), &msg)
				if err != nil {
					t.Error(err)
				}
				answers <- answer{sent.ID, sent.Seq, sent.Conversation}
			})
		}
	}
	close(begin)
	wg.Wait()
	close(answers)
	count := map[answer]int{}
	for a := range answers {
		count[a]++
	}
	require.Len(t, count, 1, "%v", count)
	for a, n := range count {
		require.Equal(t, 100, n)
		require.EqualValues(t, 1, a.seq)
	}
	require.Equal(t, "once", next(t, sb, imclient.CodeChat).Text())
	quiet(t, sb)
	rows, err := b.api.History(soon(t), imclient.Private, a.ID)
	require.NoError(t, err)
	require.Len(t, rows, 1)

	// The same id with another content is another message, and refused in words.
	msg.Text = "twice"
	_, err = a.api.Send(soon(t), &msg)
	require.Equal(t, 1000, imclient.CodeOf(err), "%v", err)
	quiet(t, sb)
}

// Text arrives as it was sent, whatever it holds, by socket and in the history.
func TestContentArrivesIntact(t *testing.T) {
	a, b := friends(t)
	sa, sb := dial(t, a, 1, ""), dial(t, b, 2, "")
	texts := []string{
		`"quotes" \backslashes\ </script> {"json":1}`, "line\nfeed\r\n\ttab", "nul \x00 in the middle", "null", "undefined",
		"中文，繁體、かな", "\U0001F468\u200d\U0001F469\u200d\U0001F467 family", "\u202eright to left", " leading and trailing ",
		"\u2028\u2029\ufeff\ufffd", strings.Repeat("界", 20<<10),
	}
	for i, text := range texts {
		m := imclient.Outgoing{ClientID: int64(i + 1), To: b.ID, Text: text, Type: 1 + i}
		require.NoError(t, sa.Write(imclient.AppendChat(nil, a.ID, &m)))
		ack := next(t, sa, imclient.CodeAck, imclient.CodeError, imclient.CodeNotAllowed)
		require.EqualValues(t, i+1, ack.Seq)
		got := next(t, sb, imclient.CodeChat)
		require.Equal(t, text, got.Text())
		require.Equal(t, 1+i, got.Type)
	}
	rows, err := b.api.History(soon(t), imclient.Private, a.ID)
	require.NoError(t, err)
	require.Len(t, rows, len(texts))
	for i, r := range rows {
		require.Equal(t, texts[i], r.Text)
	}
}

// Two users at two gateways talk at the same time, and three in a group: every
// reader sees the one order, from 1, without a gap.
func TestG5_OneOrderForEverybody(t *testing.T) {
	l := newLoad(t, loadOptions{pairs: 2, group: 3, rate: 600})
	l.run(3 * time.Second)
	l.settle()
	l.check()
}

// A group is created and left: its members hear of it and see each other's messages.
func TestGroupFlow(t *testing.T) {
	a, b := friends(t)
	c := newUser(t, 1)
	befriend(t, a, c)
	sa, sb, sc := dial(t, a, 1, ""), dial(t, b, 2, ""), dial(t, c, 2, "")
	group, err := a.api.CreateGroup(soon(t), "the group", b.ID, c.ID)
	require.NoError(t, err)
	for _, s := range []*imclient.Socket{sa, sb, sc} {
		f := next(t, s, imclient.CodeSession)
		var session struct {
			Group  int64 `json:"group_id"`
			Groups struct {
				Name string `json:"name"`
			} `json:"Groups"`
		}
		require.NoError(t, json.Unmarshal(f.Session(), &session))
		require.Equal(t, group, session.Group)
		require.Equal(t, "the group", session.Groups.Name)
	}
	m := imclient.Outgoing{ClientID: 5, Channel: imclient.Group, To: group, Text: "to all", Data: `"{\"id\":1,\"name\":\"somebody else\",\"mood\":\"good\"}"`}
	require.NoError(t, sb.Write(imclient.AppendChat(nil, b.ID, &m)))
	for _, s := range []*imclient.Socket{sa, sb, sc} {
		var f *imclient.Frame
		for f = next(t, s, imclient.CodeChat); f.Type == notice; f = next(t, s, imclient.CodeChat) {
		}
		require.Equal(t, "to all", f.Text())
		require.Equal(t, b.ID, f.From)
		require.Equal(t, group, f.To)
		var text string
		require.NoError(t, json.Unmarshal(f.Data(), &text), "data is a string")
		var data map[string]any
		require.NoError(t, json.Unmarshal([]byte(text), &data), "that holds an object")
		require.Equal(t, float64(b.ID), data["id"], "the true sender")
		require.Equal(t, b.Name, data["name"])
		require.Equal(t, "good", data["mood"])
	}
	stranger := newUser(t, 1)
	ss := dial(t, stranger, 1, "")
	m.ClientID = 6
	require.NoError(t, ss.Write(imclient.AppendChat(nil, stranger.ID, &m)))
	refusal := next(t, ss, imclient.CodeNotAllowed, imclient.CodeAck, imclient.CodeError)
	require.EqualValues(t, 6, refusal.ClientID)
	_, err = stranger.api.History(soon(t), imclient.Group, group)
	require.Equal(t, 1003, imclient.CodeOf(err), "%v", err)
}

// A newer connection of the same kind takes the older one's place: 2004, close
// 4001, also across gateways; another kind stays.
func TestNewerConnectionDisplaces(t *testing.T) {
	a, b := friends(t)
	old, app := dial(t, a, 1, ""), dial(t, a, 1, "app")
	quiet(t, old)
	fresh := dial(t, a, 2, "")
	quiet(t, fresh)
	var frame map[string]any
	require.NoError(t, json.Unmarshal(next(t, old, imclient.CodeDisplaced).Raw, &frame))
	for _, member := range []string{"message", "ip", "pro", "city"} {
		require.IsType(t, "", frame[member], member)
	}
	require.Equal(t, "127.0.0.1", frame["ip"])
	_, err := old.Read(5 * time.Second)
	var closed *imclient.CloseError
	require.ErrorAs(t, err, &closed)
	require.Equal(t, 4001, closed.Code)

	_, err = b.api.Send(soon(t), &imclient.Outgoing{ClientID: 1, To: a.ID, Text: "to both"})
	require.NoError(t, err)
	require.Equal(t, "to both", next(t, fresh, imclient.CodeChat).Text())
	require.Equal(t, "to both", next(t, app, imclient.CodeChat).Text())
}

// accepted is how many connections a gateway has ever taken.
func accepted(t *testing.T, gateway int) (n int) {
	t.Helper()
	resp, err := http.Get(fmt.Sprintf("http://%s/metrics", system.Addr(fmt.Sprintf("gateway-%d/debug", gateway)))) //nolint:noctx // a test's
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	line := regexp.MustCompile(`(?m)^im_gateway_handshakes_total\{outcome="ok"\} (\d+)$`).FindSubmatch(text)
	if line != nil {
		n, err = strconv.Atoi(string(line[1]))
		require.NoError(t, err)
	}
	return n
}

// The balanced port leads to both gateways, and logins hold on both.
func TestBalancedPort(t *testing.T) {
	a := newUser(t, 1)
	before := []int{accepted(t, 1), accepted(t, 2)}
	reached := func(n int) bool { return accepted(t, n) > before[n-1] }
	for i := 0; i < 8 || !reached(1) || !reached(2); i++ {
		require.Less(t, i, 64, "one gateway takes no connection of the common port")
		s, err := imclient.Dial(soon(t), system.PublicURL(), a.Token, imclient.DialOptions{})
		require.NoError(t, err)
		quiet(t, s)
		s.Shut()
	}
	for n := 1; n <= 2; n++ {
		var friends []any
		require.NoError(t, a.api.At(system.GatewayURL(n)).Call(soon(t), http.MethodGet, "/api/friends", url.Values{}, &friends))
		require.Empty(t, friends)
	}
}
