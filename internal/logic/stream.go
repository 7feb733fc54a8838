package logic

import (
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	logicv1 "im-services/api/proto/logic/v1"
)

// SendStream implements logicv1.MessageServiceServer. Sends enter their lanes in
// the order of the stream; results leave as they settle, gathered into as few
// responses as the stream's pace allows. When the server drains, the stream
// ends once what it took in is answered; what it did not take in, the gateway
// sends to another replica.
func (s *Server) SendStream(stream logicv1.MessageService_SendStreamServer) error {
	out := newResultWriter(stream.Send)
	defer out.close()
	if err := out.hello(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	s.streams.Go(func() { ended <- s.receive(stream, out) }) // Recv ends when this handler returns
	tell := time.NewTicker(clockTold)
	defer tell.Stop()
	for {
		select {
		case err := <-ended:
			return err
		case <-s.draining:
			out.settle(s.cfg.SendTimeout)
			return nil
		case <-tell.C:
			out.tell()
		}
	}
}

// clockTold is how often a stream without results tells its clock, which a gateway's
// drifts away from.
const clockTold = 30 * time.Second

// errLate ends a stream that carries sends which are too old. Its gateway knows
// which of them it may send again.
var errLate = status.Error(codes.Aborted, "these sends come too late to be taken")

// receive hands in what the stream carries until it ends.
func (s *Server) receive(stream logicv1.MessageService_SendStreamServer, out *resultWriter) error {
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		deadline := time.Now().Add(s.cfg.SendTimeout)
		if us := req.GetNotAfterUs(); us != 0 {
			end := out.opened.Add(time.Duration(us) * time.Microsecond)
			if time.Now().After(end) {
				s.store.metrics.late.Add(float64(len(req.GetSends())))
				return errLate
			}
			if end.Before(deadline) {
				deadline = end
			}
		}
		for _, m := range req.GetSends() {
			ref := m.GetRef()
			out.expect()
			s.submit(m.GetSend(), m.GetLater(), deadline, func(res *logicv1.SendResult) { out.add(ref, res) })
		}
	}
}

// submit validates a send and queues it. later is as in StreamSend; after deadline
// its storing is not begun. done is called exactly once, possibly before submit
// returns; it must not block.
func (s *Server) submit(m *logicv1.Send, later []int64, deadline time.Time, done func(*logicv1.SendResult)) {
	r, err := newSendReq(m)
	if err != nil {
		done(refused(err))
		return
	}
	r.later = later
	r.deadline = deadline
	r.done = done
	s.batcher.submit(r)
}

// resultWriter sends results from one goroutine, because a stream allows one
// sender at a time and lanes must never wait for a slow gateway. The goroutine is as
// old as the stream: a new one would have to grow its stack each time.
type resultWriter struct {
	send   func(*logicv1.SendStreamResponse) error
	opened time.Time // where the stream's clock starts, see SendStreamResponse
	wake   chan struct{}
	wg     sync.WaitGroup

	mu      sync.Mutex // guards the following fields, and wake against being closed
	queue   []*logicv1.StreamResult
	pending int  // sends taken in and not answered
	due     bool // the clock is to be told, with results or without
	busy    bool // the goroutine has something to write, and knows it
	closed  bool
}

// resultChunk bounds the results of one response.
const resultChunk = 512

func newResultWriter(send func(*logicv1.SendStreamResponse) error) *resultWriter {
	w := &resultWriter{send: send, opened: time.Now(), wake: make(chan struct{}, 1)}
	w.wg.Go(func() {
		for range w.wake {
			w.drain()
		}
	})
	return w
}

// hello tells the stream's clock before there are results. To be called once, first.
func (w *resultWriter) hello() error { return w.write(nil) }

func (w *resultWriter) write(results []*logicv1.StreamResult) error {
	// Never 0, which would be no clock at all.
	clock := max(time.Since(w.opened).Microseconds(), 1)
	return w.send(&logicv1.SendStreamResponse{Results: results, ClockUs: clock})
}

// expect notes that a send was taken in, whose result will be added.
func (w *resultWriter) expect() {
	w.mu.Lock()
	w.pending++
	w.mu.Unlock()
}

// settle waits until every expected result is written, at most for limit.
func (w *resultWriter) settle(limit time.Duration) {
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		w.mu.Lock()
		done := w.closed || w.pending == 0 && !w.busy
		w.mu.Unlock()
		if done {
			return
		}
	}
}

// add queues a result. The queue is bounded by what the gateway has in flight.
func (w *resultWriter) add(ref uint64, res *logicv1.SendResult) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pending--
	if w.closed {
		return // the gateway is gone; it asks again with the same keys
	}
	w.queue = append(w.queue, &logicv1.StreamResult{Ref: ref, Result: res})
	w.startLocked()
}

// tell writes the clock, though there may be no result.
func (w *resultWriter) tell() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.due = true
	w.startLocked()
}

func (w *resultWriter) startLocked() {
	if !w.busy && !w.closed {
		w.busy = true
		w.wake <- struct{}{} // has room: the goroutine took the one before
	}
}

// drain writes until the queue is empty.
func (w *resultWriter) drain() {
	for {
		w.mu.Lock()
		if len(w.queue) == 0 && !w.due || w.closed {
			w.busy = false
			w.mu.Unlock()
			return
		}
		batch := w.queue
		w.queue, w.due = nil, false
		w.mu.Unlock()
		for first := true; first || len(batch) > 0; first = false {
			n := min(len(batch), resultChunk)
			if w.write(batch[:n]) != nil {
				w.mu.Lock()
				w.closed, w.busy = true, false
				w.mu.Unlock()
				return
			}
			batch = batch[n:]
		}
	}
}

// close drops what is still queued and waits for the writer.
func (w *resultWriter) close() {
	w.mu.Lock()
	w.closed = true
	close(w.wake)
	w.mu.Unlock()
	w.wg.Wait()
}
