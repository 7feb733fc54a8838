package e2e

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"im-services/internal/imclient"
)

// restarts counts the restarts of all processes: a crash by a client would show.
func restarts() (n int) {
	for _, p := range system.Processes() {
		n += p.Restarts()
	}
	return n
}

// Frames that cannot be served get an error frame that echoes the client's id;
// the connection goes on, nothing is stored, and nobody else hears of it.
func TestDefect1_BadFramesAreAnsweredAndDisturbNobody(t *testing.T) {
	before := restarts()
	a, b := friends(t)
	stranger := newUser(t, 2)
	sa, sb := dial(t, a, 1, ""), dial(t, b, 2, "")
	ss := dial(t, stranger, 2, "")
	quiet(t, sa)

	chat := func(changes ...string) string { // a good frame with members changed; "x=" removes x
		members := map[string]string{
			"msg_client_id": "77", "msg_code": "200", "form_id": fmt.Sprint(a.ID), "to_id": fmt.Sprint(b.ID),
			"msg_type": "1", "channel_type": "1", "message": `"hi"`, "data": `""`,
		}
		for _, c := range changes {
			name, value, _ := strings.Cut(c, "=")
			if members[name] = value; value == "" {
				delete(members, name)
			}
		}
		var out []string
		for name, value := range members {
			out = append(out, fmt.Sprintf("%q:%s", name, value))
		}
		return "{" + strings.Join(out, ",") + "}"
	}
	big := strings.Repeat("x", 61<<10)
	deep := strings.Repeat(`{"a":`, 40) + "1" + strings.Repeat("}", 40)
	cases := []struct {
		name, frame string
		code        int   // of the answer
		echo        int64 // msg_client_id of the answer
	}{
		{"not JSON", `hello`, 500, 0},
		{"half an object", `{"msg_code":200,`, 500, 0},
		{"an array", `[1,2]`, 500, 0},
		{"a number", `42`, 500, 0},
		{"null", `null`, 500, 0},
		{"a string", `"ping"`, 500, 0},
		{"nothing but space", `   `, 500, 0},
		{"two objects", `{"msg_code":1004}{"msg_code":1004}`, 500, 0},
		{"two lines", "{\"msg_code\":1004}\n{\"msg_code\":1004}", 500, 0},
		{"empty object", `{}`, 500, 0},
		{"no code", chat("msg_code="), 500, 77},
		{"code as text", chat(`msg_code="200"`), 500, 77},
		{"code as a fraction", chat("msg_code=200.0"), 500, 77},
		{"unknown code", chat("msg_code=4711"), 500, 77},
		{"negative code", chat("msg_code=-200"), 500, 77},
		{"a server's code 1003", chat("msg_code=1003"), 500, 77},
		{"a server's code 2001", chat("msg_code=2001"), 500, 77},
		{"a server's code 2003", chat("msg_code=2003"), 500, 77},
		{"a server's code 2004", chat("msg_code=2004"), 500, 77},
		{"a server's code 2005", chat("msg_code=2005"), 500, 77},
		{"a server's code 500", chat("msg_code=500"), 500, 77},
		{"a server's code 600", chat("msg_code=600"), 500, 77},
		{"duplicate member", `{"msg_code":200,"msg_code":200,"msg_client_id":77}`, 500, -1},
		{"too deep", `{"msg_code":1004,"x":` + deep + `}`, 500, -1},
		{"lone surrogate", chat(`message="\ud800"`), 500, -1},
		{"bad escape", chat(`message="\q"`), 500, -1},
		{"no client id", chat("msg_client_id="), 500, 0},
		{"client id 0", chat("msg_client_id=0"), 500, 0},
		{"client id negative", chat("msg_client_id=-1"), 500, 0},
		{"client id a fraction", chat("msg_client_id=1.5"), 500, 0},
		{"client id with exponent", chat("msg_client_id=1e3"), 500, 0},
		{"client id beyond 2^53", chat("msg_client_id=9007199254740993"), 500, 0},
		{"client id an object", chat("msg_client_id={}"), 500, 0},
		{"forged sender", chat(fmt.Sprintf("form_id=%d", b.ID)), 500, 77},
		{"forged sender as text", chat(fmt.Sprintf(`form_id="%d"`, b.ID)), 500, 77},
		{"forged uid", chat(`uid="` + b.UID + `"`), 500, 77},
		{"sender an array", chat("form_id=[1]"), 500, 77},
		{"no recipient", chat("to_id="), 500, 77},
		{"recipient 0", chat("to_id=0"), 500, 77},
		{"recipient negative", chat("to_id=-3"), 500, 77},
		{"recipient text", chat(`to_id="bob"`), 500, 77},
		{"recipient true", chat("to_id=true"), 500, 77},
		{"no kind", chat("channel_type="), 500, 77},
		{"kind 3, broadcast", chat("channel_type=3"), 500, 77},
		{"kind 0", chat("channel_type=0"), 500, 77},
		{"type 0", chat("msg_type=0"), 500, 77},
		{"type 128", chat("msg_type=128"), 500, 77},
		{"type null", chat("msg_type=null"), 500, 77},
		{"no message", chat("message="), 500, 77},
		{"empty message", chat(`message=""`), 500, 77},
		{"message a number", chat("message=5"), 500, 77},
		{"message null", chat("message=null"), 500, 77},
		{"message too long", chat(`message="` + big + `"`), 500, 77},
		{"data an object", chat(`data={"a":1}`), 500, 77},
		{"data an array", chat(`data=[1]`), 500, 77},
		{"unknown recipient", chat("to_id=9007199254740991"), 1003, 77},
		{"a stranger", chat(fmt.Sprintf("to_id=%d", stranger.ID)), 1003, 77},
		{"oneself", chat(fmt.Sprintf("to_id=%d", a.ID)), 1003, 77},
		{"unknown group", chat("channel_type=2", "to_id=9007199254740991"), 1003, 77},
		{"a user as a group", chat("channel_type=2"), 1003, 77},
		{"friend request to oneself", fmt.Sprintf(`{"msg_code":1000,"to_id":%d,"information":"x","msg_client_id":77}`, a.ID), 500, 77},
		{"friend request to nobody", `{"msg_code":1000,"to_id":9007199254740991,"information":"x","msg_client_id":77}`, 500, 77},
		{"friend request without text", fmt.Sprintf(`{"msg_code":1000,"to_id":%d,"msg_client_id":77}`, stranger.ID), 500, 77},
		{"answer to no request", `{"msg_code":1001,"id":9007199254740991,"msg_client_id":77}`, 500, 77},
		{"answer without id", `{"msg_code":1002,"msg_client_id":77}`, 500, 77},
		{"presence of nothing", `{"msg_code":2002,"msg_client_id":77}`, 500, 77},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			require.NoError(t, sa.Write([]byte(c.frame)))
			f := next(t, sa, c.code, imclient.CodeAck, imclient.CodeHeartbeat)
			require.NotEmpty(t, f.Text(), "%s", f.Raw)
			if c.echo >= 0 {
				require.Equal(t, c.echo, f.ClientID, "%s", f.Raw)
			}
			if c.code == 1003 {
				require.Equal(t, a.ID, f.From)
			}
			require.NotRegexp(t, `(?i)sql|goroutine|\.go:|panic`, string(f.Raw))
		})
	}
	quiet(t, sa)
	quiet(t, sb)
	quiet(t, ss)
	rows, err := b.api.History(soon(t), imclient.Private, a.ID)
	require.NoError(t, err)
	require.Empty(t, rows, "something bad was stored")

	// The same connection still serves.
	require.NoError(t, sa.Write([]byte(chat())))
	require.EqualValues(t, 1, next(t, sa, imclient.CodeAck, imclient.CodeError, imclient.CodeNotAllowed).Seq)
	require.Equal(t, "hi", next(t, sb, imclient.CodeChat).Text())
	require.Equal(t, before, restarts(), "a process crashed")
}

// What breaks the rules of WebSocket itself ends the connection, with its code,
// and nobody else's.
func TestBadMessages_CloseTheConnectionThatSentThem(t *testing.T) {
	before := restarts()
	a, b := friends(t)
	sb := dial(t, b, 1, "")
	quiet(t, sb)
	for _, c := range []struct {
		name string
		kind int
		body []byte
		code int
	}{
		{"a megabyte", 1, bytes.Repeat([]byte("x"), 1<<20), 1009},
		{"a byte too many", 1, append([]byte(`{"msg_code":1004,"x":"`), append(bytes.Repeat([]byte("x"), 64<<10), `"}`...)...), 1009},
		{"text that is not UTF-8", 1, []byte("{\"msg_code\":1004,\"message\":\"\xff\xfe\"}"), 1007},
		{"binary", 2, []byte(`{"msg_code":1004}`), 1003},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := dial(t, a, 1, "")
			quiet(t, s)
			_ = s.WriteKind(c.kind, c.body) // the server may close while we still write
			for {
				_, err := s.Read(10 * time.Second)
				if err == nil {
					continue
				}
				var closed *imclient.CloseError
				require.ErrorAs(t, err, &closed)
				require.Equal(t, c.code, closed.Code)
				break
			}
			quiet(t, sb)
			quiet(t, dial(t, a, 1, ""))
		})
	}
	require.Equal(t, before, restarts(), "a process crashed")
}

// Tokens that are not good open nothing, and the answer says 401 before any upgrade.
func TestBadTokens(t *testing.T) {
	a := newUser(t, 1)
	out := newUser(t, 1)
	require.NoError(t, out.api.Call(soon(t), http.MethodPost, "/api/auth/logout", nil, nil))
	parts := strings.Split(a.Token, ".")
	require.Len(t, parts, 3)
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"at+jwt"}`)) + "." + parts[1] + "."
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	require.NoError(t, err)
	other := strings.Replace(string(payload), fmt.Sprint(a.ID), fmt.Sprint(a.ID-1), 1)
	require.NotEqual(t, string(payload), other)
	for n := 1; n <= 2; n++ {
		require.Eventually(t, func() bool {
			return imclient.CodeOf(out.api.At(system.GatewayURL(n)).Call(soon(t), http.MethodGet, "/api/friends", nil, nil)) == 401
		}, time.Second+busySlack, 50*time.Millisecond, "a logout is known everywhere within a second")
	}

	for name, token := range map[string]string{
		"none": "", "the word null": "null", "nonsense": "a.b.c", "cut": a.Token[:len(a.Token)-4],
		"alg none": none, "another user": parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(other)) + "." + parts[2],
		"HS256 with a public key": base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256","typ":"at+jwt"}`)) + "." + parts[1] + "." + parts[2],
		"logged out":              out.Token, "long": strings.Repeat("x", 7000),
	} {
		t.Run(name, func(t *testing.T) {
			for n := 1; n <= 2; n++ {
				for _, header := range []bool{false, true} {
					s, err := imclient.Dial(soon(t), system.GatewayURL(n), token, imclient.DialOptions{InHeader: header})
					if err == nil {
						s.Cut()
					}
					var refused *imclient.HandshakeError
					require.ErrorAs(t, err, &refused)
					require.Equal(t, 401, refused.Status)
					require.Equal(t, 401, refused.Code)
				}
				err := api(n).As(token).Call(soon(t), http.MethodGet, "/api/friends", nil, nil)
				require.Equal(t, 401, imclient.CodeOf(err), "%v", err)
			}
		})
	}
	quiet(t, dial(t, a, 1, ""))
}

// The tokens that the tests used are in no log.
func TestTokensAreInNoLog(t *testing.T) {
	a, b := friends(t)
	sa, sb := dial(t, a, 1, ""), dial(t, b, 2, "")
	quiet(t, sa)
	quiet(t, sb)
	canary := "canary-" + a.UID
	require.NoError(t, sa.Write(imclient.AppendChat(nil, a.ID, &imclient.Outgoing{ClientID: 1, To: b.ID, Text: canary})))
	require.Equal(t, canary, next(t, sb, imclient.CodeChat).Text())
	sa.Cut()
	sb.Shut()
	time.Sleep(300 * time.Millisecond)
	for _, p := range system.Processes() {
		if p.Name() == "mysql" {
			continue
		}
		logs := p.Logs()
		for _, secret := range []string{a.Token, b.Token, canary, password} {
			require.NotContains(t, logs, secret, "the log of %s", p.Name())
		}
	}
}
