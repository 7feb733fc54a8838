package gateway

import (
	"context"
	"testing"
	"time"

	logicv1 "im-services/api/proto/logic/v1"
	"im-services/internal/im"
)

// Sends over HTTP go the way that all go: stored once, tried on another replica when
// one is silent, refused in logic's words.
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
	w.addReplica("r2")
	w.setReplicas("r1", "r2")
	if r, err := w.srv.Send(t.Context(), sendOf(1, 35, 34, 2, "y")); err != nil || r.GetSeq() != 2 {
		t.Errorf("with a silent replica: %v, %v", r, err)
	}
}

// What has left for a replica that does not answer is unknown once its request is
// over, or this process has slept: it is neither given to another replica, which
// could store what is refused elsewhere by then, nor called refused.
func TestG2_WhatIsGivenUpIsNotMoved(t *testing.T) {
	for name, giveUp := range map[string]func(*world, context.CancelFunc){
		"the request is over": func(_ *world, cancel context.CancelFunc) { cancel() },
		"this process slept":  func(w *world, _ context.CancelFunc) { w.sleep(); w.srv.checkStall(w.srv.now()) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, testConfig())
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			settled := w.underWay(ctx, sendOf(1, 35, 34, 1, "stale"))
			giveUp(w, cancel)
			time.Sleep(goneFor)
			w.addReplica("r2")
			w.setReplicas("r2")
			if err := <-settled; im.KindOf(err) != im.KindUnknown {
				t.Errorf("%v", err)
			}
			if got := w.stored("p:34:35"); len(got) != 0 {
				t.Errorf("stored: %q", got)
			}
		})
	}
}

// underWay starts a send over HTTP to a replica that does not answer, and returns when
// it has left.
func (w *world) underWay(ctx context.Context, m *logicv1.Send) <-chan error {
	w.t.Helper()
	w.replicas["r1"].stall()
	settled := make(chan error, 1)
	go func() {
		_, err := w.srv.Send(ctx, m)
		settled <- err
	}()
	w.eventually("it has left", func() bool {
		w.srv.lanes.mu.Lock()
		defer w.srv.lanes.mu.Unlock()
		n := w.srv.lanes.all["r1"]
		return n != nil && len(n.pending) == 1
	})
	return settled
}

// What one user has under way over HTTP is bounded, so that he takes no others' room.
func TestG14_SendsOverHTTPHaveAWindow(t *testing.T) {
	cfg := testConfig()
	cfg.Window = 1
	w := newWorld(t, cfg)
	ctx, cancel := context.WithCancel(t.Context())
	first := w.underWay(ctx, sendOf(1, 35, 34, 1, "x"))
	_, err := w.srv.Send(t.Context(), sendOf(1, 36, 34, 2, "y"))
	if im.KindOf(err) != im.KindExhausted || im.ReasonOf(err) != "rate_limited" {
		t.Errorf("a second one: %v", err)
	}
	w.addReplica("r2")
	w.setReplicas("r2")
	if _, err := w.srv.Send(t.Context(), sendOf(1, 36, 35, 1, "z")); err != nil {
		t.Errorf("another user: %v", err)
	}
	<-first
	cancel()
	if _, err := w.srv.Send(t.Context(), sendOf(1, 36, 34, 2, "y")); err != nil {
		t.Errorf("the second one, after the first: %v", err)
	}
}
