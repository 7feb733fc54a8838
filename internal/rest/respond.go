package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"time"

	"im-services/internal/catalog"
	"im-services/internal/im"
	"im-services/internal/wire"
)

// answer runs a handler and writes what it returns. A panic is answered like
// any other fault of ours; its text stays in the log.
func (a *api) answer(c *call, h handler) {
	w, r := c.w, c.r
	defer c.end()
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		if p == http.ErrAbortHandler { //nolint:errorlint // net/http compares like this
			panic(p)
		}
		a.Log.Error("a handler panicked", "panic", fmt.Sprint(p), "path", loggedPath(r),
			"request_id", requestID(r), "stack", string(debug.Stack()))
		a.fail(w, r, im.E(im.KindInternal, catalog.Internal, nil))
	}()
	data, err := h(c)
	c.forget()
	if err != nil {
		a.fail(w, r, err)
		return
	}
	var then func(context.Context)
	if f, ok := data.(followed); ok {
		data, then = f.data, f.then
	}
	if data == nil {
		data = wire.Nothing{}
	}
	body, code := a.encode(r, wire.Envelope{Code: wire.CodeSuccess, Message: "Success", Data: data})
	if err := c.made(body.Len()); err != nil {
		a.fail(w, r, err)
		return
	}
	if code != wire.CodeSuccess {
		then = nil
	}
	a.write(w, r, http.StatusOK, code, body, then)
}

// followed is an answer that something follows from once the client has it.
type followed struct {
	data any
	then func(context.Context) // nil: nothing
}

// null is a data member that is null, which is not the same as no data.
var null = json.RawMessage("null")

// encode makes the body of an answer, and says under which code it goes. It is
// complete before the first byte goes out, so that a value that cannot be encoded is
// still an error to the client.
func (a *api) encode(r *http.Request, env wire.Envelope) (*bytes.Buffer, int) {
	buf := new(bytes.Buffer)
	enc := json.NewEncoder(buf)
	enc.SetEscapeHTML(false) // the bodies are JSON, never part of a page
	if err := enc.Encode(env); err != nil {
		a.Log.Error("an answer cannot be encoded", "err", err, "path", loggedPath(r), "request_id", requestID(r))
		buf.Reset()
		buf.WriteString(`{"code":500,"message":"Internal server error","data":{},"reason":"internal"}`)
		return buf, http.StatusInternalServerError
	}
	return buf, env.Code
}

// write sends the body of an answer.
//
// What follows from the answer is done when all of it but its last byte has left
// and the client is still there: before, it would count what he may never get;
// after, he could act on the answer as if it had not been done yet.
func (a *api) write(w http.ResponseWriter, r *http.Request, status, code int, buf *bytes.Buffer, then func(context.Context)) {
	if rec := recordOf(r); rec != nil {
		rec.code = code
	}
	h := w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(buf.Len()))
	h.Set("Cache-Control", "no-store")
	ctl := http.NewResponseController(w)
	_ = ctl.SetWriteDeadline(time.Now().Add(writePause)) // a test's recorder has none
	w.WriteHeader(status)
	if then != nil && r.Method != http.MethodHead {
		_, _ = w.Write(buf.Next(buf.Len() - 1))
		_ = ctl.Flush()
		if r.Context().Err() == nil { // net/http ends the request's context when a write fails
			ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), followTimeout)
			then(ctx)
			cancel()
		}
	}
	_, _ = w.Write(buf.Bytes()) // the client is gone: there is nobody to tell
}

// followTimeout bounds what follows from an answer; its end waits for it.
const followTimeout = 2 * time.Second

// coded is an error that travels under another code than the catalogue's.
type coded struct {
	code int
	err  error
}

func (e *coded) Error() string { return e.err.Error() }
func (e *coded) Unwrap() error { return e.err }

// withCode gives the refusals among errors a code of their own. Limits keep
// theirs, so that clients show the text.
func withCode(code int, err error) error {
	if err == nil || im.KindOf(err) == im.KindExhausted {
		return err
	}
	return &coded{code: code, err: err}
}

// writePause is how long a client may leave an answer unread.
const writePause = 30 * time.Second

// httpStatus is the HTTP status that goes with an envelope code: application
// errors travel as 200, because the web client shows the text of those only.
func httpStatus(code int) int {
	switch code {
	case http.StatusUnauthorized, http.StatusNotFound, http.StatusMethodNotAllowed:
		return code
	}
	return http.StatusOK
}

// fail answers an error.
func (a *api) fail(w http.ResponseWriter, r *http.Request, err error) {
	a.failAs(w, r, httpStatus, err)
}

// failAs is fail with another status for a code.
func (a *api) failAs(w http.ResponseWriter, r *http.Request, status func(code int) int, err error) {
	reason := reasonOf(err)
	entry, ok := catalog.Lookup(reason)
	if !ok {
		a.Log.Error("an error is not in the catalogue", "reason", reason, "request_id", requestID(r))
		reason = fallback(err)
		entry, _ = catalog.Lookup(reason)
	}
	code := entry.REST
	if c, ok := errors.AsType[*coded](err); ok {
		code = c.code
	}
	if rec := recordOf(r); rec != nil {
		rec.reason = reason
	}
	a.logFailure(r, reason, err)
	if code == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	env := wire.Envelope{
		Code:    code,
		Message: catalog.Text(reason, catalog.Language(r.Header.Get("Accept-Language"))),
		Data:    wire.Nothing{},
		Reason:  reason,
	}
	if e, ok := errors.AsType[*im.Error](err); ok && e.RetryAfter > 0 {
		env.RetryAfter = int64((e.RetryAfter + time.Second - 1) / time.Second)
		w.Header().Set("Retry-After", strconv.FormatInt(env.RetryAfter, 10))
	}
	body, _ := a.encode(r, env)
	a.write(w, r, status(code), code, body, nil)
}

// reasonOf is the catalogue key of an error, whoever made it.
func reasonOf(err error) string {
	if _, ok := errors.AsType[*im.Error](err); !ok && (errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)) {
		return "service_unavailable"
	}
	return im.ReasonOf(err)
}

// fallback is the reason told for one that the catalogue does not know.
func fallback(err error) string {
	switch im.KindOf(err) {
	case im.KindUnauthorized:
		return "unauthorized"
	case im.KindUnavailable:
		return "service_unavailable"
	case im.KindUnknown:
		return "outcome_unknown"
	default:
		return catalog.Internal
	}
}

// logFailure records what the client is not told. Refusals are in the access
// log already.
func (a *api) logFailure(r *http.Request, reason string, err error) {
	level := slog.LevelDebug
	switch im.KindOf(err) {
	case im.KindInternal:
		level = slog.LevelError
	case im.KindUnavailable, im.KindUnknown:
		level = slog.LevelWarn
	}
	if r.Context().Err() != nil {
		level = slog.LevelDebug // the client left; his cancelled calls are no faults
	}
	a.Log.Log(r.Context(), level, "request failed", "reason", reason, "err", err, "path", loggedPath(r), "request_id", requestID(r))
}
