package gateway

import (
	"context"
	"testing"
	"time"

	logicv1 "im-services/api/proto/logic/v1"
	"im-services/internal/im"
)

// Sends over HTTP go the way that all go: stored once, tried on another replica when
// one is silent, refused in logic's words, and unknown when nobody can say.
func TestG2_SendsOverHTTP(t *testing.T) {
	w := newWorld(t, testConfig())
	r, err := w.srv.Send(t.Context(), sendOf(1, 35, 34, 1, "x"))
	if err != nil || r.GetSeq() != 1 || r.GetDuplicate() {
		t.Fatalf("%v, %v", r, err)
	}
	if again, err := w.srv.Send(t.Context(), sendOf(1, 35, 34, 1, "x")); err != nil || !again.GetDuplicate() || again.GetMessageId() != r.GetMessageId() {
		t.Fatalf("again: %v, %v", again, err)
	}
	if _, err := w.srv.Send(t.Context(), sendOf(2, 35, 34, 1, "x")); im.KindOf(err) != im.KindForbidden || im.ReasonOf(err) != "not_a_member" {
		t.Errorf("to a group of others: %v", err)
	}
	w.replicas["r1"].stall()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := w.srv.Send(ctx, sendOf(1, 35, 34, 2, "y")); im.KindOf(err) != im.KindUnknown {
		t.Errorf("given up: %v", err)
	}
	w.addReplica("r2")
	w.setReplicas("r1", "r2")
	if r, err := w.srv.Send(t.Context(), sendOf(1, 35, 34, 3, "z")); err != nil || r.GetSeq() < 2 {
		t.Errorf("with one silent replica: %v, %v", r, err)
	}
}

// A send over HTTP that was under way through a sleep is neither stored nor called
// refused.
func TestG2_SendsOverHTTPThroughASleep(t *testing.T) {
	w := newWorld(t, testConfig())
	w.replicas["r1"].stall()
	settled := make(chan error, 1)
	go func() {
		_, err := w.srv.Send(context.Background(), &logicv1.Send{SenderId: 34, ClientMsgId: 1, Kind: 1, ToId: 35, Type: 1, Text: "stale"})
		settled <- err
	}()
	w.eventually("it is under way", func() bool { return w.srv.lanes.outstanding() == 1 && w.underWay() == 1 })
	w.sleep()
	w.srv.checkStall(w.srv.now())
	w.setReplicas()
	w.addReplica("r2")
	w.setReplicas("r2")
	if err := <-settled; im.KindOf(err) != im.KindUnknown {
		t.Errorf("%v", err)
	}
	if got := w.stored("p:34:35"); len(got) != 0 {
		t.Errorf("stored: %q", got)
	}
}

// underWay is how many sends have left for a replica.
func (w *world) underWay() (n int) {
	w.srv.lanes.mu.Lock()
	defer w.srv.lanes.mu.Unlock()
	for _, lane := range w.srv.lanes.all {
		n += len(lane.pending)
	}
	return n
}
