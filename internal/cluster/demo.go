package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/gorilla/websocket"

	"im-services/internal/cluster/infra"
)

// DemoUser is an account that Demo makes, for people to log in with.
type DemoUser struct {
	Name, Email, Password string
}

// The accounts of Demo. Clusters like this one answer on loopback only.
var (
	DemoSender   = DemoUser{"alice", "alice@example.com", "alice123"}
	DemoReceiver = DemoUser{"bob", "bob@example.com", "bob12345"}
)

// DemoResult is what Demo saw, in times since the message was sent.
type DemoResult struct {
	MessageID int64
	Acked     time.Duration // the server said that the message is stored
	Received  time.Duration // the other user had it
}

// Demo proves that a cluster works: two users register, log in, become friends
// and connect, each to a gateway of its own, and one message crosses. It may be
// repeated. senderURL and receiverURL are gateways.
func Demo(ctx context.Context, senderURL, receiverURL string) (DemoResult, error) {
	alice, err := demoLogin(ctx, senderURL, DemoSender)
	if err != nil {
		return DemoResult{}, err
	}
	bob, err := demoLogin(ctx, receiverURL, DemoReceiver)
	if err != nil {
		return DemoResult{}, err
	}
	if err := befriend(ctx, alice, bob); err != nil {
		return DemoResult{}, err
	}
	from, err := alice.connect(ctx)
	if err != nil {
		return DemoResult{}, err
	}
	defer func() { _ = from.Close() }()
	to, err := bob.connect(ctx)
	if err != nil {
		return DemoResult{}, err
	}
	defer func() { _ = to.Close() }()
	return exchange(from, to, bob.id)
}

// exchange sends one message and waits for its ack on one side and for itself on
// the other.
func exchange(from, to *websocket.Conn, toID int64) (DemoResult, error) {
	clientID := time.Now().UnixMilli()
	text := "hello across two gateways, " + strconv.FormatInt(clientID, 10)
	begin := time.Now()
	err := from.WriteJSON(map[string]any{
		"msg_code": 200, "msg_client_id": clientID, "to_id": toID,
		"msg_type": 1, "channel_type": 1, "message": text,
	})
	if err != nil {
		return DemoResult{}, fmt.Errorf("send: %w", err)
	}
	var result DemoResult
	ack, err := await(from, func(f frame) bool { return f.ClientID == clientID })
	if err != nil {
		return DemoResult{}, fmt.Errorf("the message is not acknowledged: %w", err)
	}
	if ack.Code != 1005 {
		return DemoResult{}, fmt.Errorf("the message is refused: frame %d, %s", ack.Code, ack.Message)
	}
	result.MessageID, result.Acked = ack.ID, time.Since(begin)
	got, err := await(to, func(f frame) bool { return f.Code == 200 && f.Message == text })
	if err != nil {
		return DemoResult{}, fmt.Errorf("the message is stored but does not arrive: %w", err)
	}
	result.Received = time.Since(begin)
	if got.ID != ack.ID {
		return DemoResult{}, fmt.Errorf("message %d was acknowledged and %d arrived", ack.ID, got.ID)
	}
	// A receipt, so that the next connection does not get it again.
	if err := to.WriteJSON(map[string]any{"msg_code": 1005, "msg_id": got.ID}); err != nil {
		return DemoResult{}, err
	}
	return result, nil
}

// frame is what Demo reads of a frame.
type frame struct {
	Code     int    `json:"msg_code"`
	ID       int64  `json:"msg_id"`
	ClientID int64  `json:"msg_client_id"`
	Message  string `json:"message"`
}

// await reads until a frame is wanted. The connection's deadline ends it.
func await(conn *websocket.Conn, wanted func(frame) bool) (frame, error) {
	for {
		_, text, err := conn.ReadMessage()
		if err != nil {
			return frame{}, err
		}
		var f frame
		if json.Unmarshal(text, &f) == nil && wanted(f) {
			return f, nil
		}
	}
}

// demoClient is a user who is logged in.
type demoClient struct {
	base  string
	token string
	id    int64
}

// demoLogin logs in, registering first if the account does not exist.
func demoLogin(ctx context.Context, base string, u DemoUser) (*demoClient, error) {
	c := &demoClient{base: base}
	register := map[string]any{
		"email": u.Email, "name": u.Name, "password": u.Password, "password_repeat": u.Password, "code": "0000",
	}
	// It fails if the account exists; whether that is the reason, the login tells.
	registerErr := c.call(ctx, http.MethodPost, "/api/auth/registered", register, nil)
	var answer struct {
		ID    int64  `json:"id"`
		Token string `json:"token"`
	}
	if err := c.call(ctx, http.MethodPost, "/api/auth/login", map[string]any{"email": u.Email, "password": u.Password}, &answer); err != nil {
		return nil, errors.Join(fmt.Errorf("%s cannot log in: %w", u.Name, err), registerErr)
	}
	c.id, c.token = answer.ID, answer.Token
	return c, nil
}

// befriend makes a and b friends unless they are.
func befriend(ctx context.Context, a, b *demoClient) error {
	var friends []struct {
		To int64 `json:"to_id"`
	}
	if err := a.call(ctx, http.MethodGet, "/api/friends", nil, &friends); err != nil {
		return err
	}
	for _, f := range friends {
		if f.To == b.id {
			return nil
		}
	}
	var record struct {
		ID int64 `json:"id"`
	}
	request := map[string]any{"to_id": b.id, "information": "demo"}
	if err := a.call(ctx, http.MethodPost, "/api/friends/record", request, &record); err != nil {
		// An earlier demo was cut short between request and answer.
		var records []struct {
			ID     int64 `json:"id"`
			To     int64 `json:"to_id"`
			Status int   `json:"status"`
		}
		if listErr := b.call(ctx, http.MethodGet, "/api/friends/record", nil, &records); listErr != nil {
			return errors.Join(err, listErr)
		}
		for _, r := range records {
			if r.To == b.id && r.Status == 0 {
				record.ID = r.ID
			}
		}
		if record.ID == 0 {
			return err
		}
	}
	return b.call(ctx, http.MethodPut, "/api/friends/record", map[string]any{"id": record.ID, "status": 1}, nil)
}

// call makes one REST call; an answer that is not a success is an error.
func (c *demoClient) call(ctx context.Context, method, path string, body, into any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	if body == nil {
		req.Body = http.NoBody
	} else {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	resp, err := infra.Asker.Do(req)
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
		return fmt.Errorf("%s %s: %s: %w", method, path, resp.Status, err)
	}
	if envelope.Code != http.StatusOK {
		return fmt.Errorf("%s %s: %d %s", method, path, envelope.Code, envelope.Message)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(envelope.Data, into)
}

// connect opens a socket that ends with ctx's deadline.
func (c *demoClient) connect(ctx context.Context) (*websocket.Conn, error) {
	url := "ws" + strings.TrimPrefix(c.base, "http") + "/im/connect"
	header := http.Header{"Authorization": {"Bearer " + c.token}}
	conn, resp, err := websocket.DefaultDialer.DialContext(ctx, url, header)
	if err != nil {
		if resp != nil {
			_ = resp.Body.Close()
			err = fmt.Errorf("%w (%s)", err, resp.Status)
		}
		return nil, fmt.Errorf("connect to %s: %w", url, err)
	}
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetReadDeadline(deadline)
		_ = conn.SetWriteDeadline(deadline)
	}
	return conn, nil
}
