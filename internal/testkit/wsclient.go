package testkit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// stepLimit bounds every step of a client; the system promises to be far below.
const stepLimit = 20 * time.Second

// User is a registered and logged-in user of a running system, seen from outside:
// it knows the published protocol only. Methods fail the test on errors.
type User struct {
	ID    int64
	UID   string
	Name  string
	Email string
	Token string
}

// Password is the password of every User.
const Password = "secret123"

// NewUser registers a user with a name of its own and logs it in. baseURL is a
// gateway in debug mode, where any e-mail code passes.
func NewUser(t testing.TB, baseURL, name string) *User {
	t.Helper()
	u := &User{Name: fmt.Sprintf("%s%d", name, time.Now().UnixNano()%1e12)}
	u.Email = u.Name + "@example.com"
	u.Call(t, http.MethodPost, baseURL+"/api/auth/registered", map[string]any{
		"email": u.Email, "name": u.Name, "password": Password, "password_repeat": Password, "code": "0000",
	}, nil)
	u.Login(t, baseURL)
	return u
}

// Login logs the user in again and takes the new token.
func (u *User) Login(t testing.TB, baseURL string) {
	t.Helper()
	var answer struct {
		ID    int64  `json:"id"`
		UID   string `json:"uid"`
		Token string `json:"token"`
	}
	u.Call(t, http.MethodPost, baseURL+"/api/auth/login", map[string]any{"email": u.Email, "password": Password}, &answer)
	u.ID, u.UID, u.Token = answer.ID, answer.UID, answer.Token
}

// Befriend makes u and other friends, through the request and its acceptance.
func (u *User) Befriend(t testing.TB, baseURL string, other *User) {
	t.Helper()
	var record struct {
		ID int64 `json:"id"`
	}
	u.Call(t, http.MethodPost, baseURL+"/api/friends/record", map[string]any{"to_id": other.ID, "information": "hello"}, &record)
	other.Call(t, http.MethodPut, baseURL+"/api/friends/record", map[string]any{"id": record.ID, "status": 1}, nil)
}

// Call makes one REST call as the user and decodes the answer's data into into,
// unless that is nil. Anything but success fails the test.
func (u *User) Call(t testing.TB, method, fullURL string, body, into any) {
	t.Helper()
	if err := u.Try(method, fullURL, body, into); err != nil {
		t.Fatal(err)
	}
}

// RESTError is an answer of the API that is not a success.
type RESTError struct {
	Status  int // of HTTP
	Code    int // of the envelope
	Message string
}

func (e *RESTError) Error() string {
	return fmt.Sprintf("HTTP %d, code %d: %s", e.Status, e.Code, e.Message)
}

// restClient keeps no connections, so that calls spread over the gateways and a
// test leaks nothing.
var restClient = &http.Client{Timeout: stepLimit, Transport: &http.Transport{DisableKeepAlives: true}}

// Try is Call that returns its error, a *RESTError if the system answered.
func (u *User) Try(method, fullURL string, body, into any) error {
	ctx, cancel := context.WithTimeout(context.Background(), stepLimit)
	defer cancel()
	var payload bytes.Buffer
	if body != nil {
		if err := json.NewEncoder(&payload).Encode(body); err != nil {
			return err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, fullURL, &payload)
	if err != nil {
		return err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if u.Token != "" {
		req.Header.Set("Authorization", "Bearer "+u.Token)
	}
	resp, err := restClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	var envelope struct {
		Code    int             `json:"code"`
		Message string          `json:"message"`
		Data    json.RawMessage `json:"data"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&envelope); err != nil {
		return fmt.Errorf("%s %s: %s: %w", method, fullURL, resp.Status, err)
	}
	if envelope.Code != http.StatusOK {
		return fmt.Errorf("%s %s: %w", method, req.URL.Path, &RESTError{resp.StatusCode, envelope.Code, envelope.Message})
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(envelope.Data, into)
}

// Frame is one frame from the server. Raw holds all of it.
type Frame struct {
	Code           int             `json:"msg_code"`
	ID             int64           `json:"msg_id"`
	ClientID       int64           `json:"msg_client_id"`
	From           int64           `json:"form_id"`
	To             int64           `json:"to_id"`
	Channel        int             `json:"channel_type"`
	Type           int             `json:"msg_type"`
	Message        string          `json:"message"`
	Data           json.RawMessage `json:"data"`
	Seq            int64           `json:"seq"`
	ConversationID int64           `json:"conversation_id"`

	Raw []byte    `json:"-"`
	At  time.Time `json:"-"` // of its arrival
}

// WS is a socket of a user: it reads all the time, keeps every frame in order,
// and answers pings. Send may be called from any goroutine.
type WS struct {
	t    testing.TB
	conn *websocket.Conn
	done chan struct{} // closed when nothing more can arrive

	writeMu sync.Mutex // guards writing to conn

	mu      sync.Mutex
	frames  []Frame       // all that arrived; guarded by mu
	cursor  int           // the first that Await has not looked at; guarded by mu
	arrived chan struct{} // closed and replaced at each arrival; guarded by mu
	err     error         // why it ended; guarded by mu
}

// Connect opens a socket; query adds parameters, such as "platform=app". It is
// closed when the test ends.
func (u *User) Connect(t testing.TB, baseURL, query string) *WS {
	t.Helper()
	w, err := u.TryConnect(t, baseURL, query)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// TryConnect is Connect that returns its error.
func (u *User) TryConnect(t testing.TB, baseURL, query string) (*WS, error) {
	t.Helper()
	values, err := url.ParseQuery(query)
	if err != nil {
		return nil, err
	}
	values.Set("token", u.Token)
	target := "ws" + strings.TrimPrefix(baseURL, "http") + "/im/connect?" + values.Encode()
	dialer := websocket.Dialer{HandshakeTimeout: stepLimit}
	conn, resp, err := dialer.Dial(target, nil)
	if err != nil {
		if resp != nil {
			_ = resp.Body.Close()
			err = fmt.Errorf("%w: %s", err, resp.Status)
		}
		return nil, err
	}
	w := &WS{t: t, conn: conn, done: make(chan struct{}), arrived: make(chan struct{})}
	go w.read()
	t.Cleanup(func() { w.Close() })
	return w, nil
}

func (w *WS) read() {
	defer close(w.done)
	for {
		_, raw, err := w.conn.ReadMessage()
		w.mu.Lock()
		if err != nil {
			w.err = err
			close(w.arrived)
			w.mu.Unlock()
			return
		}
		f := Frame{Raw: raw, At: time.Now()}
		if jsonErr := json.Unmarshal(raw, &f); jsonErr != nil {
			w.t.Errorf("a frame is not valid: %v: %s", jsonErr, raw)
		}
		w.frames = append(w.frames, f)
		close(w.arrived)
		w.arrived = make(chan struct{})
		w.mu.Unlock()
	}
}

// Send writes one frame.
func (w *WS) Send(frame map[string]any) error {
	w.writeMu.Lock()
	defer w.writeMu.Unlock()
	_ = w.conn.SetWriteDeadline(time.Now().Add(stepLimit))
	return w.conn.WriteJSON(frame)
}

// SendRaw writes bytes as one text frame.
func (w *WS) SendRaw(text []byte) error {
	w.writeMu.Lock()
	defer w.writeMu.Unlock()
	_ = w.conn.SetWriteDeadline(time.Now().Add(stepLimit))
	return w.conn.WriteMessage(websocket.TextMessage, text)
}

// SendPrivate writes a chat frame to another user.
func (w *WS) SendPrivate(to, clientID int64, text string) error {
	return w.Send(map[string]any{
		"msg_code": 200, "msg_client_id": clientID, "to_id": to, "msg_type": 1, "channel_type": 1, "message": text,
	})
}

// SendGroup writes a chat frame to a group.
func (w *WS) SendGroup(group, clientID int64, text string) error {
	return w.Send(map[string]any{
		"msg_code": 200, "msg_client_id": clientID, "to_id": group, "msg_type": 1, "channel_type": 2, "message": text,
	})
}

// Await returns the first frame that wanted accepts among those no Await has
// returned or passed over yet, waiting up to limit. Frames passed over stay in
// Frames.
func (w *WS) Await(limit time.Duration, wanted func(Frame) bool) (Frame, error) {
	timeout := time.After(limit)
	for {
		w.mu.Lock()
		for w.cursor < len(w.frames) {
			f := w.frames[w.cursor]
			w.cursor++
			if wanted(f) {
				w.mu.Unlock()
				return f, nil
			}
		}
		arrived, err := w.arrived, w.err
		w.mu.Unlock()
		if err != nil {
			return Frame{}, fmt.Errorf("the connection has ended: %w", err)
		}
		select {
		case <-arrived:
		case <-timeout:
			return Frame{}, fmt.Errorf("no such frame within %s", limit)
		}
	}
}

// MustAwait is Await that fails the test, with everything that did arrive.
func (w *WS) MustAwait(what string, wanted func(Frame) bool) Frame {
	w.t.Helper()
	f, err := w.Await(stepLimit, wanted)
	if err != nil {
		var all []string
		for _, f := range w.Frames() {
			all = append(all, string(f.Raw))
		}
		w.t.Fatalf("%s: %v; arrived so far:\n%s", what, err, strings.Join(all, "\n"))
	}
	return f
}

// Acked waits for the ack of a client id and returns the message id. A refusal
// fails the test.
func (w *WS) Acked(clientID int64) int64 {
	w.t.Helper()
	f := w.MustAwait(fmt.Sprintf("the ack of %d", clientID), func(f Frame) bool {
		return f.ClientID == clientID && f.Code != 200
	})
	if f.Code != 1005 {
		w.t.Fatalf("message %d is refused: %s", clientID, f.Raw)
	}
	return f.ID
}

// Frames returns everything that has arrived, in order.
func (w *WS) Frames() []Frame {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]Frame(nil), w.frames...)
}

// Chats returns the chat frames that have arrived, in order.
func (w *WS) Chats() []Frame {
	var chats []Frame
	for _, f := range w.Frames() {
		if f.Code == 200 {
			chats = append(chats, f)
		}
	}
	return chats
}

// CloseCode waits for the server to end the connection and returns its code,
// 1006 if it ended without one.
func (w *WS) CloseCode(limit time.Duration) (int, error) {
	select {
	case <-w.done:
	case <-time.After(limit):
		return 0, fmt.Errorf("the connection is still open after %s", limit)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if ce, ok := errors.AsType[*websocket.CloseError](w.err); ok {
		return ce.Code, nil
	}
	return websocket.CloseAbnormalClosure, nil
}

// Close ends the connection in order and waits for its reader.
func (w *WS) Close() {
	w.writeMu.Lock()
	_ = w.conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Now().Add(time.Second))
	w.writeMu.Unlock()
	_ = w.conn.Close()
	<-w.done
}

// Abort resets the connection without a word (RST) and waits for its reader.
func (w *WS) Abort() {
	type lingerer interface{ SetLinger(int) error }
	if tcp, ok := w.conn.NetConn().(lingerer); ok {
		_ = tcp.SetLinger(0)
	}
	_ = w.conn.NetConn().Close()
	<-w.done
}
