package friend

import (
	"context"
	"sync"

	"google.golang.org/grpc"

	logicv1 "im-services/api/proto/logic/v1"
	pushv1 "im-services/api/proto/push/v1"
	"im-services/internal/im"
)

// fakeLogic keeps what logic was told, with logic's rule: a version that is not
// newer changes nothing. fail decides, per call, to lose the request or only
// the response.
type fakeLogic struct {
	mu     sync.Mutex
	pairs  map[[2]im.UserID]told
	calls  int // SetPrivate calls that arrived
	events []*pushv1.Event
	nextID int64
	fail   func() outcome // guarded by mu; nil: all goes well
	before func(in *logicv1.SetPrivateRequest)
}

type told struct {
	version   int64
	open      bool
	userA     im.UserID
	sessionID int64
	sessions  bool
}

type outcome int

const (
	fine outcome = iota
	lostRequest
	lostResponse
)

func newFakeLogic() *fakeLogic {
	return &fakeLogic{pairs: map[[2]im.UserID]told{}, nextID: 1000}
}

func (f *fakeLogic) outcomeLocked() outcome {
	if f.fail == nil {
		return fine
	}
	return f.fail()
}

func (f *fakeLogic) setFail(fail func() outcome) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = fail
}

func (f *fakeLogic) SetPrivate(_ context.Context, in *logicv1.SetPrivateRequest, _ ...grpc.CallOption) (*logicv1.SetPrivateResponse, error) {
	f.mu.Lock()
	before := f.before
	f.mu.Unlock()
	if before != nil {
		before(in)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	out := f.outcomeLocked()
	if out == lostRequest {
		return nil, im.E(im.KindUnavailable, "service_unavailable", nil)
	}
	lo, hi := pair(im.UserID(in.GetUserA()), im.UserID(in.GetUserB()))
	key := [2]im.UserID{lo, hi}
	if in.GetVersion() > f.pairs[key].version {
		f.pairs[key] = told{
			version: in.GetVersion(), open: in.GetOpen(), userA: im.UserID(in.GetUserA()),
			sessionID: in.GetSessionIdA(), sessions: in.GetWithSessions(),
		}
	}
	if out == lostResponse {
		return nil, im.E(im.KindUnavailable, "service_unavailable", nil)
	}
	return &logicv1.SetPrivateResponse{}, nil
}

func (f *fakeLogic) AllocateIDs(_ context.Context, in *logicv1.AllocateIDsRequest, _ ...grpc.CallOption) (*logicv1.AllocateIDsResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.outcomeLocked() != fine {
		return nil, im.E(im.KindUnavailable, "service_unavailable", nil)
	}
	first := f.nextID
	f.nextID += int64(in.GetCount())
	return &logicv1.AllocateIDsResponse{First: first, Count: in.GetCount()}, nil
}

func (f *fakeLogic) Notify(_ context.Context, in *logicv1.NotifyRequest, _ ...grpc.CallOption) (*logicv1.NotifyResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.outcomeLocked() != fine {
		return nil, im.E(im.KindUnavailable, "service_unavailable", nil)
	}
	f.events = append(f.events, in.GetEvent())
	return &logicv1.NotifyResponse{}, nil
}

func (f *fakeLogic) told(a, b im.UserID) told {
	lo, hi := pair(a, b)
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.pairs[[2]im.UserID{lo, hi}]
}

func (f *fakeLogic) eventsFor(user im.UserID) []*pushv1.FriendEvent {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []*pushv1.FriendEvent
	for _, e := range f.events {
		if len(e.GetUserIds()) == 1 && e.GetUserIds()[0] == int64(user) {
			out = append(out, e.GetFriend())
		}
	}
	return out
}
