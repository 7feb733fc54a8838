package logic

import (
	"sync"
	"sync/atomic"
	"testing"

	logicv1 "im-services/api/proto/logic/v1"
	"im-services/internal/im"
)

// One replica over real MySQL and Redis: 100 pairs, each sending one message
// at a time until it is stored; recipients are connected, so each is pushed.
func BenchmarkStore_PrivatePairs(b *testing.B) {
	h := newHarness(b)
	const pairs = 100
	for p := range pairs {
		h.befriendLongAgo(im.UserID(1000+2*p), im.UserID(1001+2*p))
		h.connect(im.UserID(1000+2*p), int64(2*p+1), im.PlatformWeb)
		h.connect(im.UserID(1001+2*p), int64(2*p+2), im.PlatformWeb)
	}
	text := string(make([]byte, 100))
	var client atomic.Int64
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	for p := range pairs {
		wg.Go(func() {
			done := make(chan *logicv1.SendResult, 1)
			for {
				n := client.Add(1)
				if n > int64(b.N) {
					return
				}
				h.post(privateSend(im.UserID(1000+2*p), im.UserID(1001+2*p), n, text), nil, func(r *logicv1.SendResult) { done <- r })
				if r := <-done; r.GetError() != nil {
					b.Errorf("send: %v", r.GetError())
					return
				}
			}
		})
	}
	wg.Wait()
}
