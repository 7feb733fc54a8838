package gateway

import (
	"context"
	"sync"
	"time"

	logicv1 "im-services/api/proto/logic/v1"
	"im-services/internal/im"
)

// httpSend is a request over HTTP that waits for the outcome of its send.
type httpSend struct {
	ctx     context.Context //nolint:containedctx // of the request, to see whether it is over
	settled chan httpOutcome
}

type httpOutcome struct {
	result *logicv1.SendResult
	err    error
}

// settle never blocks: there is one outcome, and room for it.
func (h *httpSend) settle(_ *pendingSend, r *logicv1.SendResult, err error) {
	h.settled <- httpOutcome{r, err}
}

func (h *httpSend) gone() bool { return h.ctx.Err() != nil }

// Send stores a message for the HTTP API, on the way that all messages go. It returns
// after Config.SendTimeout at the latest, also when ctx has ended before: what is
// stored, or why nothing is and will not be later; after an error of im.KindUnknown
// it may be. Safe for concurrent use; of calls at the same time any may be stored
// first.
func (s *Server) Send(ctx context.Context, send *logicv1.Send) (*logicv1.SendResult, error) {
	h := &httpSend{ctx: ctx, settled: make(chan httpOutcome, 1)}
	user, size := im.UserID(send.GetSenderId()), len(send.GetText())+len(send.GetDataJson())
	if !s.httpWindows.take(user, size, &s.cfg) {
		e := im.E(im.KindExhausted, "rate_limited", nil)
		e.RetryAfter = time.Second
		return nil, e
	}
	defer s.httpWindows.release(user, size)
	send.Origin = s.idPrefix + "http"
	if err := s.lanes.submit(&pendingSend{send: send, size: size, from: h, at: s.now()}); err != nil {
		return nil, err
	}
	select {
	case out := <-h.settled:
		return out.result, out.err
	case <-s.ctx.Done():
		return nil, im.E(im.KindUnknown, "outcome_unknown", s.ctx.Err())
	}
}

// httpWindows bounds what a user has under way over HTTP as a connection's window
// bounds what that has, for all share what lanes can hold.
type httpWindows struct {
	mu    sync.Mutex
	users map[im.UserID]httpWindow // those who have anything
}

type httpWindow struct{ sends, bytes int }

// take reports whether there is room for a send; then release must follow.
func (w *httpWindows) take(u im.UserID, size int, cfg *Config) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.users[u]
	if now.sends > 0 && (now.sends >= cfg.Window || now.bytes+size > cfg.WindowBytes) {
		return false
	}
	if w.users == nil {
		w.users = map[im.UserID]httpWindow{}
	}
	w.users[u] = httpWindow{now.sends + 1, now.bytes + size}
	return true
}

func (w *httpWindows) release(u im.UserID, size int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.users[u]
	if now.sends--; now.sends == 0 {
		delete(w.users, u)
		return
	}
	now.bytes -= size
	w.users[u] = now
}
