package gateway

import (
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	pushv1 "im-services/api/proto/push/v1"
	"im-services/internal/im"
	"im-services/internal/token"
)

// sinkConn swallows what is written, by the writers as on a socket; reading waits for
// the end.
type sinkConn struct {
	net.Conn
	raw    rawFile
	closed chan struct{}
	once   sync.Once
}

// rawFile is the raw connection of a file.
type rawFile struct{ *os.File }

func (f rawFile) Control(func(uintptr)) error          { return net.ErrClosed }
func (f rawFile) Read(func(uintptr) bool) error        { return net.ErrClosed }
func (f rawFile) Write(write func(uintptr) bool) error { write(f.Fd()); return nil }

func (s *sinkConn) SyscallConn() (syscall.RawConn, error) { return s.raw, nil }

func (s *sinkConn) Read([]byte) (int, error)    { <-s.closed; return 0, net.ErrClosed }
func (s *sinkConn) Write(p []byte) (int, error) { return len(p), nil }

func (s *sinkConn) Close() error                     { s.once.Do(func() { close(s.closed) }); return nil }
func (s *sinkConn) SetReadDeadline(time.Time) error  { return nil }
func (s *sinkConn) SetWriteDeadline(time.Time) error { return nil }

// BenchmarkPush is one envelope with one group message for all members: the
// cost from the bus to the sockets (which cost little here), drained.
func BenchmarkPush(b *testing.B) {
	for _, members := range []int{1, 50, 500} {
		b.Run(fmt.Sprintf("members=%d", members), func(b *testing.B) {
			w := newWorld(b, Config{WatermarkInterval: time.Hour})
			null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = null.Close() }()
			d := &pushv1.Delivery{Messages: []int32{0}}
			for i := range members {
				u := int64(i + 10)
				w.srv.accept(&sinkConn{raw: rawFile{null}, closed: make(chan struct{})}, &token.Claims{
					UserID: im.UserID(u), IssuedAt: time.Now(), ExpiresAt: time.Now().Add(time.Hour),
				}, im.PlatformWeb, "", time.Now().UnixMilli())
				d.UserIds = append(d.UserIds, u)
				d.Pvs = append(d.Pvs, 0)
			}
			w.eventually("live", func() bool { return w.liveCount() == members })
			m := &pushv1.Message{ConversationId: 24, Kind: 2, SenderId: 5, ToId: 24, Type: 1, Text: "hello, how are you today?", DataJson: `"{}"`, Contiguous: true}
			env := &pushv1.Envelope{GatewayId: testGateway, Epoch: "e1", Messages: []*pushv1.Message{m}, Deliveries: []*pushv1.Delivery{d}}
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				m.Seq, m.Id = int64(i+1), int64(i+1)
				for j := range d.Pvs {
					d.Pvs[j]++
				}
				body, err := w.codec.Marshal(env)
				if err != nil {
					b.Fatal(err)
				}
				w.srv.HandlePush(body)
			}
			for _, c := range w.srv.hub.all() { // drain before the clock stops
				for {
					c.out.mu.Lock()
					idle := !c.out.writing
					c.out.mu.Unlock()
					if idle {
						break
					}
					time.Sleep(50 * time.Microsecond)
				}
			}
			b.StopTimer()
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*members), "ns/receiver")
		})
	}
}

// BenchmarkSend is a chat frame from a real socket through a lane to the
// in-memory logic and its ack back, many in flight.
func BenchmarkSend(b *testing.B) {
	for _, conns := range []int{1, 50} {
		b.Run(fmt.Sprintf("connections=%d", conns), func(b *testing.B) {
			w := newWorld(b, Config{WatermarkInterval: time.Hour, FrameRate: -1})
			raws := make([]*rawConn, conns)
			for i := range raws {
				raws[i] = w.raw(int64(i + 10))
			}
			w.eventually("live", func() bool { return w.liveCount() == conns })
			b.ReportAllocs()
			b.ResetTimer()
			var wg sync.WaitGroup
			for i, r := range raws {
				n := b.N / conns
				if i == 0 {
					n += b.N % conns
				}
				wg.Go(func() {
					for k := range n {
						msg := fmt.Sprintf(`{"msg_client_id":%d,"msg_code":200,"to_id":%d,"msg_type":1,"channel_type":1,"message":"hello, how are you today?"}`, k+1, 100_000+i)
						if _, err := r.Write(clientFrame(finBit|opText, msg)); err != nil {
							b.Error(err)
							return
						}
					}
				})
				wg.Go(func() {
					for got := 0; got < n; {
						op, _, err := r.next()
						if err != nil {
							b.Error(err)
							return
						}
						if op == opText {
							got++
						}
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "sends/s")
		})
	}
}

func BenchmarkHubEach(b *testing.B) {
	h := newHub()
	for i := range 10_000 {
		h.add(&conn{user: im.UserID(i)})
	}
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		h.each(im.UserID(n%10_000), func(*conn) { n++ })
	}
}
