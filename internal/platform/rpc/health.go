package rpc

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// healthEvery is how often a watching client hears from us, changed or not.
const healthEvery = 500 * time.Millisecond

// healthServer answers for the service as a whole: every name has the same
// status. Watchers get it at once, at each change and every healthEvery, which
// is the client's sign that this process still runs.
type healthServer struct {
	healthpb.UnimplementedHealthServer

	mu      sync.Mutex    // guards the following fields
	running bool          // the server takes calls
	unable  bool          // and yet cannot do its work
	change  chan struct{} // closed and replaced at each change
	over    bool
	closed  chan struct{} // closed when watchers must leave
}

var _ healthpb.HealthServer = (*healthServer)(nil)

func newHealth() *healthServer {
	return &healthServer{change: make(chan struct{}), closed: make(chan struct{})}
}

// run and able change the two things that make a server serve: that it takes
// calls, and that it can do its work.
func (h *healthServer) run(running bool) { h.update(func() { h.running = running }) }

func (h *healthServer) able(able bool) { h.update(func() { h.unable = !able }) }

func (h *healthServer) update(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	was := h.servingLocked()
	f()
	if h.servingLocked() == was {
		return
	}
	close(h.change)
	h.change = make(chan struct{})
}

func (h *healthServer) servingLocked() bool { return h.running && !h.unable }

// close ends the watches: a graceful stop waits for every stream.
func (h *healthServer) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.over {
		h.over = true
		close(h.closed)
	}
}

func (h *healthServer) get() (*healthpb.HealthCheckResponse, <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := healthpb.HealthCheckResponse_NOT_SERVING
	if h.servingLocked() {
		s = healthpb.HealthCheckResponse_SERVING
	}
	return &healthpb.HealthCheckResponse{Status: s}, h.change
}

// Check answers once.
func (h *healthServer) Check(context.Context, *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	res, _ := h.get()
	return res, nil
}

// Watch answers until the caller or the server leaves.
func (h *healthServer) Watch(_ *healthpb.HealthCheckRequest, stream healthpb.Health_WatchServer) error {
	tick := time.NewTicker(healthEvery)
	defer tick.Stop()
	for {
		res, change := h.get()
		if err := stream.Send(res); err != nil {
			return err
		}
		select {
		case <-change:
		case <-tick.C:
		case <-h.closed:
			return status.Error(codes.Unavailable, "stopping")
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}
