package crowd

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"
)

// callTimeout bounds one REST call; hashing queues when hundreds register at once.
const callTimeout = 20 * time.Second

// API calls a deployment's REST interface.
type API struct {
	Base   string // http://host:port
	client *http.Client
}

// NewAPI returns a client of base.
func NewAPI(base string) *API {
	return &API{Base: base, client: &http.Client{
		Timeout:   callTimeout,
		Transport: &http.Transport{MaxIdleConns: 256, MaxIdleConnsPerHost: 256, IdleConnTimeout: time.Minute},
	}}
}

// Close lets go of idle connections.
func (a *API) Close() { a.client.CloseIdleConnections() }

// Error is an answer that is not a success.
type Error struct {
	Call    string
	Code    int // of the body; the HTTP status if there was none
	Message string
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %d %s", e.Call, e.Code, e.Message) }

// Call makes one call and decodes the answer's data into into, unless nil.
func (a *API) Call(ctx context.Context, token, method, path string, body, into any) error {
	var reader io.Reader = http.NoBody
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return err
		}
		reader = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, a.Base+path, reader)
	if err != nil {
		return err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := a.client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	var envelope struct {
		Code    int             `json:"code"`
		Message string          `json:"message"`
		Data    json.RawMessage `json:"data"`
	}
	call := method + " " + path
	if err := json.Unmarshal(text, &envelope); err != nil || envelope.Code == 0 {
		return &Error{call, resp.StatusCode, resp.Status}
	}
	if envelope.Code != http.StatusOK {
		return &Error{call, envelope.Code, envelope.Message}
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(envelope.Data, into)
}
