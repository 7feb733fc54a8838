package rpc

import (
	"testing"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// A server serves while it runs and is able to: being able does not make one
// serve that has not begun, or is stopping.
func TestHealth_ServesWhileItRunsAndIsAble(t *testing.T) {
	h := newHealth()
	for _, step := range []struct {
		what  string
		do    func()
		wants bool
	}{
		{"before Run", func() { h.able(true) }, false},
		{"Run begins", func() { h.run(true) }, true},
		{"it is no longer able", func() { h.able(false) }, false},
		{"it is able again", func() { h.able(true) }, true},
		{"Run ends", func() { h.run(false) }, false},
		{"able while it stops", func() { h.able(false); h.able(true) }, false},
	} {
		_, change := h.get()
		was, _ := h.get()
		step.do()
		now, _ := h.get()
		if got := now.GetStatus() == healthpb.HealthCheckResponse_SERVING; got != step.wants {
			t.Errorf("%s: serves is %v", step.what, got)
		}
		select {
		case <-change:
		default:
			if was.GetStatus() != now.GetStatus() {
				t.Errorf("%s: watchers were not told", step.what)
			}
		}
	}
}
