package imclient

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"im-services/internal/wire"
)

// API speaks the HTTP part of the protocol to one base address, as one user or
// as nobody. Safe for concurrent use.
type API struct {
	base  string
	token string
	http  *http.Client
}

// NewAPI makes an API for base, http(s)://host:port, that has no user yet. hc
// may be nil; share one between many APIs.
func NewAPI(base string, hc *http.Client) *API {
	if hc == nil {
		hc = &http.Client{
			Timeout:   20 * time.Second,
			Transport: &http.Transport{MaxIdleConnsPerHost: 64, IdleConnTimeout: 30 * time.Second},
		}
	}
	return &API{base: strings.TrimRight(base, "/"), http: hc}
}

// As returns the same API with a user's token.
func (a *API) As(token string) *API {
	b := *a
	b.token = token
	return &b
}

// At returns the same API at another address.
func (a *API) At(base string) *API {
	b := *a
	b.base = strings.TrimRight(base, "/")
	return &b
}

// Error is a refusal by the server.
type Error struct {
	Status  int // HTTP
	Code    int // of the envelope
	Reason  string
	Message string
}

func (e *Error) Error() string {
	return fmt.Sprintf("imclient: code %d (HTTP %d), %s: %s", e.Code, e.Status, e.Reason, e.Message)
}

// CodeOf returns the envelope's code of an error, 0 if the server said none.
func CodeOf(err error) int {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return 0
}

type envelope struct {
	Code    int             `json:"code"`
	Message string          `json:"message"`
	Data    json.RawMessage `json:"data"`
	Reason  string          `json:"reason"`
}

// Call sends form (nil: no body; GET and DELETE: the query) and decodes data
// into out unless that is nil. A refusal is an *Error; any other error means
// that it is not known whether the call took effect.
func (a *API) Call(ctx context.Context, method, path string, form url.Values, out any) error {
	target, body, kind := a.base+path, io.Reader(nil), ""
	switch {
	case len(form) == 0:
	case method == http.MethodGet || method == http.MethodDelete:
		target += "?" + form.Encode()
	default:
		body, kind = strings.NewReader(form.Encode()), "application/x-www-form-urlencoded"
	}
	return a.do(ctx, method, target, kind, body, out)
}

// CallJSON is Call with a JSON body.
func (a *API) CallJSON(ctx context.Context, method, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	return a.do(ctx, method, a.base+path, "application/json", bytes.NewReader(body), out)
}

func (a *API) do(ctx context.Context, method, target, kind string, body io.Reader, out any) error {
	req, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return err
	}
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	if a.token != "" {
		req.Header.Set("Authorization", "Bearer "+a.token)
	}
	resp, err := a.http.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return err
	}
	var env envelope
	if err := json.Unmarshal(raw, &env); err != nil {
		return fmt.Errorf("imclient: %s %s: HTTP %d with a body that is no envelope: %.200q", method, req.URL.Path, resp.StatusCode, raw)
	}
	if resp.StatusCode != http.StatusOK || env.Code != http.StatusOK {
		return &Error{Status: resp.StatusCode, Code: env.Code, Reason: env.Reason, Message: env.Message}
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(env.Data, out)
}

// User is a logged-in user.
type User struct {
	ID           int64  `json:"id"`
	UID          string `json:"uid"`
	Name         string `json:"name"`
	Email        string `json:"email"`
	Avatar       string `json:"avatar"`
	Token        string `json:"token"`
	ExpireTime   int64  `json:"expire_time"` // Unix seconds
	RefreshToken string `json:"refresh_token"`
}

// Register makes an account. The e-mail code is one that only servers in debug
// mode accept.
func (a *API) Register(ctx context.Context, email, name, password string) error {
	return a.Call(ctx, http.MethodPost, "/api/auth/registered", url.Values{
		"email": {email}, "name": {name}, "password": {password}, "password_repeat": {password}, "code": {"0000"},
	}, nil)
}

// Login returns the user with a token.
func (a *API) Login(ctx context.Context, email, password string) (User, error) {
	var u User
	err := a.Call(ctx, http.MethodPost, "/api/auth/login", url.Values{"email": {email}, "password": {password}}, &u)
	return u, err
}

// AskFriend sends a friend request and returns its record's id.
func (a *API) AskFriend(ctx context.Context, user int64) (int64, error) {
	var rec struct {
		ID int64 `json:"id"`
	}
	err := a.Call(ctx, http.MethodPost, "/api/friends/record", url.Values{"to_id": {itoa(user)}, "information": {"hello"}}, &rec)
	return rec.ID, err
}

// FriendRequest is a friend request the caller made or was made to.
type FriendRequest struct {
	ID, From, To int64
	Status       int // 0 waits, 1 accepted, 2 refused
}

// FriendRequests lists the requests of both directions, newest first.
func (a *API) FriendRequests(ctx context.Context) ([]FriendRequest, error) {
	var rows []map[string]json.RawMessage
	if err := a.Call(ctx, http.MethodGet, "/api/friends/record", nil, &rows); err != nil {
		return nil, err
	}
	list := make([]FriendRequest, len(rows))
	for i, r := range rows {
		list[i] = FriendRequest{ID: integer(r[`id`]), From: integer(r[wire.SenderField]), To: integer(r[`to_id`]), Status: int(integer(r[`status`]))}
	}
	return list, nil
}

// AnswerFriend accepts or refuses a friend request.
func (a *API) AnswerFriend(ctx context.Context, record int64, accept bool) error {
	status := "2"
	if accept {
		status = "1"
	}
	return a.Call(ctx, http.MethodPut, "/api/friends/record", url.Values{"id": {itoa(record)}, "status": {status}}, nil)
}

// Unfriend ends a friendship.
func (a *API) Unfriend(ctx context.Context, user int64) error {
	return a.Call(ctx, http.MethodDelete, "/api/friends/"+itoa(user), nil, nil)
}

// CreateGroup makes a group of the caller and the members, and returns its id.
func (a *API) CreateGroup(ctx context.Context, name string, members ...int64) (int64, error) {
	form := url.Values{"name": {name}, "info": {"a group"}, "avatar": {"http://example.com/a.png"}, "theme": {"test"}, "is_pwd": {"0"}}
	for _, m := range members {
		form.Add("select_user[]", itoa(m))
	}
	var g struct {
		ID int64 `json:"id"`
	}
	err := a.Call(ctx, http.MethodPost, "/api/groups/store", form, &g)
	return g.ID, err
}

// Sent is the answer to a message sent over HTTP.
type Sent struct {
	ID           int64 `json:"msg_id"`
	ClientID     int64 `json:"msg_client_id"`
	Conversation int64 `json:"conversation_id"`
	Seq          int64 `json:"seq"`
}

// Send sends a message over HTTP.
func (a *API) Send(ctx context.Context, m *Outgoing) (Sent, error) {
	form := url.Values{
		"msg_client_id": {itoa(m.ClientID)}, "to_id": {itoa(m.To)}, "message": {m.Text},
		"msg_type": {strconv.Itoa(max(m.Type, 1))}, "channel_type": {strconv.Itoa(max(m.Channel, Private))},
	}
	if m.Data != "" {
		form.Set("data", m.Data)
	}
	var s Sent
	err := a.Call(ctx, http.MethodPost, "/api/messages/private", form, &s)
	return s, err
}

// Row is a row of history, private or group.
type Row struct {
	ID, Seq, ClientID, From int64
	Type                    int
	Text                    string
}

// Page reads one page of history, ascending, of messages with ids below before
// (0: the newest page), and the count of the whole conversation.
func (a *API) Page(ctx context.Context, channel int, to, before int64, size int) (rows []Row, total int, err error) {
	form := url.Values{"to_id": {itoa(to)}, "pageSize": {strconv.Itoa(size)}, "page": {""}}
	if before > 0 {
		form.Set("page", itoa(before))
	}
	var mate struct {
		Total int `json:"total"`
	}
	path, names := "/api/messages", privateRow
	if channel == Group {
		path, names = "/api/messages/groups", groupRow
	}
	var page struct {
		List []map[string]json.RawMessage `json:"list"`
		Mate any                          `json:"mate"`
	}
	page.Mate = &mate
	if err := a.Call(ctx, http.MethodGet, path, form, &page); err != nil {
		return nil, 0, err
	}
	for _, r := range page.List {
		row := Row{ID: integer(r[names.id]), Seq: integer(r[names.seq]), ClientID: integer(r[names.clientID]), From: integer(r[names.from]), Type: int(integer(r[names.kind]))}
		if err := json.Unmarshal(r[names.text], &row.Text); err != nil {
			return nil, 0, fmt.Errorf("imclient: history row: %w", err)
		}
		rows = append(rows, row)
	}
	return rows, mate.Total, nil
}

// rowNames are the members of a row of history.
type rowNames struct{ id, seq, clientID, from, kind, text string }

var (
	privateRow = rowNames{"id", "seq", "msg_client_id", wire.SenderField, "msg_type", "msg"}
	groupRow   = rowNames{"Id", "Seq", "ClientMessageId", wire.GroupRowSender, "MsgType", "Message"}
)

// History reads the whole of a conversation, oldest first.
func (a *API) History(ctx context.Context, channel int, to int64) ([]Row, error) {
	var pages [][]Row
	n, before := 0, int64(0)
	for {
		rows, _, err := a.Page(ctx, channel, to, before, 200)
		if err != nil {
			return nil, err
		}
		if len(rows) == 0 {
			break
		}
		pages = append(pages, rows)
		n += len(rows)
		before = rows[0].ID
	}
	all := make([]Row, 0, n)
	for i := len(pages) - 1; i >= 0; i-- {
		all = append(all, pages[i]...)
	}
	return all, nil
}

// Cursor is what a client holds of a conversation.
type Cursor struct {
	Conversation int64 `json:"conversation_id"`
	Seq          int64 `json:"seq"`
}

// SyncAnswer is what changed after a client's cursors.
type SyncAnswer struct {
	Epoch         string             `json:"epoch"`
	FullResync    bool               `json:"full_resync"`
	Complete      bool               `json:"complete"`
	Conversations []SyncConversation `json:"conversations"`
}

// SyncConversation is what is new in one conversation; messages are chat frames.
type SyncConversation struct {
	Conversation int64             `json:"conversation_id"`
	Channel      int               `json:"channel_type"`
	To           int64             `json:"to_id"`
	Messages     []json.RawMessage `json:"messages"`
	Seq          int64             `json:"seq"`
	LastSeq      int64             `json:"last_seq"`
	FirstSeq     int64             `json:"first_seq"`
	Complete     bool              `json:"complete"`
}

// Sync asks for what is new after the cursors.
func (a *API) Sync(ctx context.Context, epoch string, cursors []Cursor) (SyncAnswer, error) {
	if cursors == nil {
		cursors = []Cursor{}
	}
	var out SyncAnswer
	err := a.CallJSON(ctx, http.MethodPost, "/api/sync", map[string]any{"epoch": epoch, "cursors": cursors}, &out)
	return out, err
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }
