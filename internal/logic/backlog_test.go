package logic

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	logicv1 "im-services/api/proto/logic/v1"
	"im-services/internal/im"
)

// stuckStream is the stream of a reader who takes what is sent once released.
type stuckStream struct {
	backlogStream

	stuck   chan<- struct{} // told when there is something to take
	release <-chan struct{}
}

func (s *stuckStream) Send(r *logicv1.BacklogResponse) error {
	if len(r.GetConversations()) > 0 && len(s.resp) == 1 {
		s.stuck <- struct{}{}
		<-s.release
	}
	return s.backlogStream.Send(r)
}

// TestG13_SlowReadersOfLargeBacklogs make logic hold what one answer to each of
// them takes, not all that they miss; and they get that whole and in order.
func TestG13_SlowReadersOfLargeBacklogs(t *testing.T) {
	h := newHarness(t)
	conv := h.befriend(2, 3)
	const n, readers, large = 300, 8, 56 << 10
	for i := range n {
		text := fmt.Sprint(i)
		if i >= 100 { // the first pages say nothing of the next
			text += strings.Repeat("x", large)
		}
		h.mustSend(privateSend(2, 3, int64(i+1), text))
	}
	heap := func() int {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc) //nolint:gosec // far below the limit
	}
	before := heap()
	stuck, release := make(chan struct{}), make(chan struct{})
	var streams [readers]*stuckStream
	var wg sync.WaitGroup
	for i := range streams {
		streams[i] = &stuckStream{backlogStream: backlogStream{ctx: t.Context()}, stuck: stuck, release: release}
		wg.Go(func() {
			err := h.Backlog(&logicv1.BacklogRequest{
				GatewayId: testGateway, Conn: &logicv1.Conn{UserId: 3, ConnId: int64(i + 1), Platform: int32(im.PlatformWeb)},
			}, streams[i])
			if err != nil {
				t.Error(err)
			}
		})
	}
	for range readers {
		select {
		case <-stuck:
		case <-time.After(10 * time.Second):
			t.Fatal("not every reader is sent something")
		}
	}
	// An answer and the page behind it are at most backlogBytes each, and a message more.
	if each, most := (heap()-before)/readers, 2*(backlogBytes+large); each > most {
		t.Errorf("a reader costs %d bytes, more than %d", each, most)
	}
	close(release)
	wg.Wait()
	for _, s := range streams {
		got := s.messages()
		if len(got) != n {
			t.Fatalf("%d messages of conversation %d, want %d", len(got), conv, n)
		}
		for i, m := range got {
			if m.GetSeq() != int64(i+1) || !strings.HasPrefix(m.GetText(), fmt.Sprint(i)) {
				t.Fatalf("place %d: seq %d", i, m.GetSeq())
			}
		}
	}
}

// What somebody gets who was away for long: short messages, as most are, and
// large ones.
func BenchmarkBacklog(b *testing.B) {
	for name, c := range map[string]struct{ n, size int }{"10000 short": {10_000, 100}, "500 large": {500, 56 << 10}} {
		b.Run(name, func(b *testing.B) {
			h := newHarness(b)
			h.befriend(2, 3)
			text := strings.Repeat("x", c.size)
			var wg sync.WaitGroup
			for i := range c.n {
				wg.Add(1)
				h.post(privateSend(2, 3, int64(i+1), text), nil, func(r *logicv1.SendResult) {
					if r.GetError() != nil {
						b.Errorf("send: %v", r.GetError())
					}
					wg.Done()
				})
				if i%100 == 99 {
					wg.Wait()
				}
			}
			wg.Wait()
			b.ReportAllocs()
			conn := int64(0)
			for b.Loop() {
				conn++
				if got := len(h.connect(3, conn, im.PlatformWeb).messages()); got != c.n {
					b.Fatalf("%d messages", got)
				}
			}
		})
	}
}
