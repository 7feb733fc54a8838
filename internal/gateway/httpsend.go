package gateway

import (
	"context"

	logicv1 "im-services/api/proto/logic/v1"
	"im-services/internal/im"
)

// httpSend is a request over HTTP that waits for the outcome of its send.
type httpSend struct{ settled chan httpOutcome }

type httpOutcome struct {
	result *logicv1.SendResult
	err    error
}

// settle never blocks: there is one outcome, and room for it.
func (h httpSend) settle(_ *pendingSend, r *logicv1.SendResult, err error) {
	h.settled <- httpOutcome{r, err}
}

// Send stores a message for the HTTP API, on the way that all messages go. Its outcome
// is known after Config.SendTimeout at the latest: what is stored, or why nothing is
// and will not be later. After an error of im.KindUnknown, which the end of ctx is
// as well, it may be. Safe for concurrent use; of calls at the same time any may be
// stored first.
func (s *Server) Send(ctx context.Context, send *logicv1.Send) (*logicv1.SendResult, error) {
	h := httpSend{make(chan httpOutcome, 1)}
	size := len(send.GetText()) + len(send.GetDataJson())
	if err := s.lanes.submit(&pendingSend{send: send, size: size, from: h, at: s.now()}); err != nil {
		return nil, err
	}
	select {
	case out := <-h.settled:
		return out.result, out.err
	case <-ctx.Done():
		return nil, im.E(im.KindUnknown, "outcome_unknown", ctx.Err())
	}
}
