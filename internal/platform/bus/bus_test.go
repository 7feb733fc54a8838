package bus_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"im-services/internal/platform/bus"
	"im-services/internal/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, testkit.LeakOptions()...) }

var quiet = slog.New(slog.DiscardHandler)

// inbox collects what a consumer hands over, and what its hooks say.
type inbox struct {
	bodies      chan string
	connects    atomic.Int32
	disconnects atomic.Int32
}

// producer is one that a busy machine may keep waiting.
func producer(t *testing.T, addrs ...string) *bus.Producer {
	t.Helper()
	return producerWithin(t, 10*time.Second, addrs...)
}

// impatient is a producer with the limit it has in service.
func impatient(t *testing.T, addrs ...string) *bus.Producer {
	t.Helper()
	return producerWithin(t, 0, addrs...)
}

// slack is what a busy machine may add to a limit that is kept.
const slack = 2 * time.Second

func producerWithin(t *testing.T, limit time.Duration, addrs ...string) *bus.Producer {
	t.Helper()
	p, err := bus.NewProducer(bus.ProducerConfig{Addrs: addrs, PublishTimeout: limit}, quiet)
	require.NoError(t, err)
	t.Cleanup(func() { _ = p.Close() })
	return p
}

func consume(t *testing.T, cfg bus.ConsumerConfig) (*bus.Consumer, *inbox) {
	t.Helper()
	in := &inbox{bodies: make(chan string, 100_000)}
	cfg.Channel = "gw#ephemeral"
	cfg.OnConnect = func() { in.connects.Add(1) }
	cfg.OnDisconnect = func() { in.disconnects.Add(1) }
	c, err := bus.NewConsumer(cfg, func(b []byte) { in.bodies <- string(b) }, quiet)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c, in
}

func connected(t *testing.T, c *bus.Consumer, within time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	require.NoError(t, c.WaitConnected(ctx))
}

func (in *inbox) next(t *testing.T) string {
	t.Helper()
	select {
	case b := <-in.bodies:
		return b
	case <-time.After(10 * time.Second):
		require.Fail(t, "no message")
		return ""
	}
}

// freeze stops nsqd; its threads need a moment to stand still.
func freeze(s *testkit.NSQServer) {
	s.Pause()
	time.Sleep(50 * time.Millisecond)
}

const topic = "push.g1#ephemeral"

func TestPublishConsume_KeepsOrder(t *testing.T) {
	nsqd := testkit.NSQ(t)
	c, in := consume(t, bus.ConsumerConfig{Addrs: []string{nsqd.TCP}, Topic: topic})
	connected(t, c, 10*time.Second)
	p := producer(t, nsqd.TCP)

	const n = 3000
	for i := 0; i < n; {
		if i%3 == 0 { // batches and single messages in turn
			var batch [][]byte
			for ; len(batch) < 17 && i < n; i++ {
				batch = append(batch, fmt.Append(nil, i))
			}
			require.NoError(t, p.Publish(t.Context(), topic, batch...))
			continue
		}
		require.NoError(t, p.Publish(t.Context(), topic, fmt.Append(nil, i)))
		i++
	}
	for i := range n {
		require.Equal(t, fmt.Sprint(i), in.next(t))
	}
	require.True(t, c.Connected())
	require.EqualValues(t, 1, in.connects.Load())
	require.Zero(t, in.disconnects.Load())
}

func TestPublishConsume_IsQuick(t *testing.T) {
	nsqd := testkit.NSQ(t)
	c, in := consume(t, bus.ConsumerConfig{Addrs: []string{nsqd.TCP}, Topic: topic})
	connected(t, c, 10*time.Second)
	p := producer(t, nsqd.TCP)
	// With nsqd's default output buffer each of these would take up to 250 ms.
	begin := time.Now()
	for i := range 40 {
		require.NoError(t, p.Publish(t.Context(), topic, fmt.Append(nil, i)))
		in.next(t)
	}
	require.Less(t, time.Since(begin), 2*time.Second)
}

func TestPublish_Refuses(t *testing.T) {
	nsqd := testkit.NSQ(t)
	p := producer(t, nsqd.TCP)
	for name, c := range map[string]struct {
		topic  string
		bodies [][]byte
	}{
		"empty body":             {topic, [][]byte{{}}},
		"nil body":               {topic, [][]byte{nil}},
		"empty body among other": {topic, [][]byte{[]byte("a"), {}}},
		"body too large":         {topic, [][]byte{make([]byte, bus.MaxBody+1)}},
		"no topic":               {"", [][]byte{[]byte("a")}},
		"bad topic":              {"a b", [][]byte{[]byte("a")}},
	} {
		t.Run(name, func(t *testing.T) {
			require.ErrorIs(t, p.Publish(t.Context(), c.topic, c.bodies...), bus.ErrRejected)
		})
	}
	require.NoError(t, p.Publish(t.Context(), topic), "nothing to publish")
	require.NoError(t, p.Publish(t.Context(), topic, []byte("still alive")))
}

func TestPublish_LargeBatchesAreSplit(t *testing.T) {
	nsqd := testkit.NSQ(t)
	c, in := consume(t, bus.ConsumerConfig{Addrs: []string{nsqd.TCP}, Topic: topic})
	connected(t, c, 10*time.Second)
	p, err := bus.NewProducer(bus.ProducerConfig{Addrs: []string{nsqd.TCP}, PublishTimeout: 10 * time.Second}, quiet)
	require.NoError(t, err)
	defer p.Close()
	var batch [][]byte
	for i := range 9 {
		b := make([]byte, bus.MaxBody)
		b[0] = byte('0' + i)
		batch = append(batch, b)
	}
	for i := range 3000 {
		batch = append(batch, fmt.Append(nil, i))
	}
	require.NoError(t, p.Publish(t.Context(), topic, batch...))
	for _, want := range batch {
		require.Equal(t, string(want[0]), in.next(t)[:1])
	}
}

func TestPublish_ConcurrentCallers(t *testing.T) {
	nsqd := testkit.NSQ(t)
	c, in := consume(t, bus.ConsumerConfig{Addrs: []string{nsqd.TCP}, Topic: topic})
	connected(t, c, 10*time.Second)
	p, err := bus.NewProducer(bus.ProducerConfig{Addrs: []string{nsqd.TCP}, PublishTimeout: 10 * time.Second}, quiet)
	require.NoError(t, err)
	defer p.Close()
	const callers, each = 32, 100
	var wg sync.WaitGroup
	for w := range callers {
		wg.Go(func() {
			for i := range each {
				if err := p.Publish(t.Context(), topic, fmt.Appendf(nil, "%d %d", w, i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	next := make([]int, callers)
	for range callers * each {
		var w, i int
		_, err := fmt.Sscan(in.next(t), &w, &i)
		require.NoError(t, err)
		require.Equal(t, next[w], i, "order of one caller")
		next[w]++
	}
}

func TestPublish_FrozenNSQDNeverBlocks(t *testing.T) {
	nsqd := testkit.StartNSQ(t)
	p := impatient(t, nsqd.TCP)
	published(t, p, "a")

	freeze(nsqd)
	body := make([]byte, 512<<10) // fills the socket's buffers soon
	var unknown, unavailable int
	for range 20 {
		begin := time.Now()
		err := p.Publish(t.Context(), topic, body)
		require.Less(t, time.Since(begin), slack)
		require.Error(t, err)
		if unavailableErr(err) {
			unavailable++
		} else {
			require.ErrorIs(t, err, bus.ErrUnknown)
			unknown++
		}
	}
	require.Equal(t, 1, unknown, "one publish finds out, the others are told at once")
	require.Equal(t, 19, unavailable)
	require.False(t, p.Healthy())

	nsqd.Resume()
	require.Eventually(t, func() bool { return p.Publish(t.Context(), topic, []byte("b")) == nil },
		10*time.Second, 20*time.Millisecond)
}

// published publishes to topic, again if a busy machine took too long.
func published(t *testing.T, p *bus.Producer, body string) {
	t.Helper()
	require.Eventually(t, func() bool { return p.Publish(t.Context(), topic, []byte(body)) == nil },
		10*time.Second, 20*time.Millisecond)
}

func unavailableErr(err error) bool {
	return err != nil && fmt.Sprint(err) == bus.ErrUnavailable.Error()
}

func TestPublish_FrozenNSQDGivesWayToAHealthyOne(t *testing.T) {
	first, second := testkit.StartNSQ(t), testkit.NSQ(t)
	p := producerWithin(t, time.Second, first.TCP, second.TCP)
	published(t, p, "a")
	freeze(first)
	require.ErrorIs(t, p.Publish(t.Context(), topic, []byte("b")), bus.ErrUnknown)
	begin := time.Now()
	for range 50 {
		require.NoError(t, p.Publish(t.Context(), topic, []byte("c")))
	}
	require.Less(t, time.Since(begin), 10*time.Second, "each would cost a second if it were asked again")
	first.Resume()
}

func TestPublish_DeadNSQD(t *testing.T) {
	nsqd := testkit.StartNSQ(t)
	p := producer(t, nsqd.TCP)
	require.NoError(t, p.Publish(t.Context(), topic, []byte("a")))
	nsqd.Kill()
	require.Eventually(t, func() bool { return !p.Healthy() }, 10*time.Second, 10*time.Millisecond)
	begin := time.Now()
	require.ErrorIs(t, p.Publish(t.Context(), topic, []byte("b")), bus.ErrUnavailable)
	require.Less(t, time.Since(begin), slack, "it is known to be away")
	nsqd.Restart()
	require.Eventually(t, func() bool { return p.Publish(t.Context(), topic, []byte("c")) == nil },
		time.Second+slack, 20*time.Millisecond)
}

func TestNewProducer_StartsWithoutNSQD(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0") // accepts and says nothing
	require.NoError(t, err)
	defer ln.Close()
	p := impatient(t, ln.Addr().String())
	begin := time.Now()
	require.ErrorIs(t, p.Publish(t.Context(), topic, []byte("a")), bus.ErrUnavailable)
	require.Less(t, time.Since(begin), slack)
}

func TestPublish_HonoursTheContext(t *testing.T) {
	nsqd := testkit.StartNSQ(t)
	p := producer(t, nsqd.TCP)
	require.NoError(t, p.Publish(t.Context(), topic, []byte("a")))
	freeze(nsqd)
	defer nsqd.Resume()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	begin := time.Now()
	require.Error(t, p.Publish(ctx, topic, []byte("b")))
	require.Less(t, time.Since(begin), slack, "the producer itself would wait for ten seconds")
}

func TestConsumer_NoticesAKilledNSQDAndComesBack(t *testing.T) {
	nsqd := testkit.StartNSQ(t)
	c, in := consume(t, bus.ConsumerConfig{Addrs: []string{nsqd.TCP}, Topic: topic})
	connected(t, c, 10*time.Second)
	nsqd.Kill()
	require.Eventually(t, func() bool { return !c.Connected() }, slack, 5*time.Millisecond)
	require.EqualValues(t, 1, in.disconnects.Load())
	nsqd.Restart()
	connected(t, c, time.Second+slack)
	require.Eventually(t, func() bool { return in.connects.Load() == 2 }, slack, 5*time.Millisecond)

	p := producer(t, nsqd.TCP)
	require.NoError(t, p.Publish(t.Context(), topic, []byte("again")))
	require.Equal(t, "again", in.next(t))
}

func TestConsumer_NoticesAFrozenNSQD(t *testing.T) {
	t.Parallel() // with the other that mostly waits
	nsqd := testkit.StartNSQ(t)
	c, in := consume(t, bus.ConsumerConfig{Addrs: []string{nsqd.TCP}, Topic: topic})
	connected(t, c, 10*time.Second)
	freeze(nsqd)
	begin := time.Now()
	require.Eventually(t, func() bool { return !c.Connected() }, 10*time.Second, 20*time.Millisecond)
	t.Logf("noticed after %s", time.Since(begin))
	require.EqualValues(t, 1, in.disconnects.Load())
	nsqd.Resume()
	connected(t, c, 5*time.Second)
}

func TestConsumer_ASlowHandlerKeepsItsConnection(t *testing.T) {
	t.Parallel()
	nsqd := testkit.NSQ(t)
	var once sync.Once
	var lost atomic.Int32
	got := make(chan string, 10)
	c, err := bus.NewConsumer(bus.ConsumerConfig{
		Addrs: []string{nsqd.TCP}, Topic: topic, Channel: "gw#ephemeral", MaxInFlight: 2,
		OnDisconnect: func() { lost.Add(1) },
	}, func(b []byte) {
		once.Do(func() { time.Sleep(7 * time.Second) }) // nsqd drops a client that is silent for 4 s
		got <- string(b)
	}, quiet)
	require.NoError(t, err)
	defer c.Close()
	connected(t, c, 10*time.Second)
	p := producer(t, nsqd.TCP)
	for i := range 6 {
		require.NoError(t, p.Publish(t.Context(), topic, fmt.Append(nil, i)))
	}
	for i := range 6 {
		select {
		case b := <-got:
			require.Equal(t, fmt.Sprint(i), b)
		case <-time.After(15 * time.Second):
			require.Fail(t, "no message")
		}
	}
	require.Zero(t, lost.Load())
}

func TestConsumer_APanicIsAnEndOfThatMessageOnly(t *testing.T) {
	nsqd := testkit.NSQ(t)
	got := make(chan string, 10)
	c, err := bus.NewConsumer(bus.ConsumerConfig{Addrs: []string{nsqd.TCP}, Topic: topic, Channel: "gw"}, func(b []byte) {
		if string(b) == "bad" {
			panic("bad")
		}
		got <- string(b)
	}, quiet)
	require.NoError(t, err)
	defer c.Close()
	connected(t, c, 10*time.Second)
	p := producer(t, nsqd.TCP)
	require.NoError(t, p.Publish(t.Context(), topic, []byte("bad"), []byte("good")))
	require.Equal(t, "good", <-got)
}

func TestConsumer_CloseFinishesWhatWasReceived(t *testing.T) {
	nsqd := testkit.NSQ(t)
	const durable = "plain" // keeps its messages for the next consumer
	p := producer(t, nsqd.TCP)
	first := make(chan struct{})
	var once sync.Once
	var handled atomic.Int32
	cfg := bus.ConsumerConfig{Addrs: []string{nsqd.TCP}, Topic: durable, Channel: "c", MaxInFlight: 8}
	c, err := bus.NewConsumer(cfg, func([]byte) {
		once.Do(func() { close(first) })
		time.Sleep(10 * time.Millisecond)
		handled.Add(1)
	}, quiet)
	require.NoError(t, err)
	connected(t, c, 10*time.Second)
	const n = 40
	for i := range n {
		require.NoError(t, p.Publish(t.Context(), durable, fmt.Append(nil, i)))
	}
	<-first
	require.NoError(t, c.Close())
	done := int(handled.Load())
	require.Less(t, done, n, "the test wants to close in the middle")

	rest := make(chan string, n)
	c, err = bus.NewConsumer(cfg, func(b []byte) { rest <- string(b) }, quiet)
	require.NoError(t, err)
	defer c.Close()
	for i := done; i < n; i++ {
		select {
		case b := <-rest:
			require.Equal(t, fmt.Sprint(i), b, "nothing is repeated or lost")
		case <-time.After(10 * time.Second):
			require.Fail(t, "no message")
		}
	}
}

func TestConsumer_TwoNSQDs(t *testing.T) {
	a, b := testkit.StartNSQ(t), testkit.NSQ(t)
	c, in := consume(t, bus.ConsumerConfig{Addrs: []string{a.TCP, b.TCP}, Topic: topic})
	connected(t, c, 10*time.Second)
	require.NoError(t, producer(t, a.TCP).Publish(t.Context(), topic, []byte("a")))
	require.Equal(t, "a", in.next(t))
	require.NoError(t, producer(t, b.TCP).Publish(t.Context(), topic, []byte("b")))
	require.Equal(t, "b", in.next(t))
	a.Kill()
	require.Eventually(t, func() bool { return !c.Connected() }, slack, 5*time.Millisecond,
		"a message could have come through either")
	require.NoError(t, producer(t, b.TCP).Publish(t.Context(), topic, []byte("c")))
	require.Equal(t, "c", in.next(t))
}

func TestNewConsumer_Refuses(t *testing.T) {
	for name, cfg := range map[string]bus.ConsumerConfig{
		"no address":  {Topic: "t", Channel: "c"},
		"bad topic":   {Addrs: []string{"x"}, Topic: "a b", Channel: "c"},
		"bad channel": {Addrs: []string{"x"}, Topic: "t", Channel: ""},
	} {
		_, err := bus.NewConsumer(cfg, func([]byte) {}, quiet)
		require.Error(t, err, name)
	}
	_, err := bus.NewProducer(bus.ProducerConfig{}, quiet)
	require.Error(t, err)
}

func TestTopics_ListAndDelete(t *testing.T) {
	nsqd := testkit.NSQ(t)
	p := producer(t, nsqd.TCP)
	require.NoError(t, p.Publish(t.Context(), "push.dead#ephemeral", []byte("x"), []byte("y")))
	c, _ := consume(t, bus.ConsumerConfig{Addrs: []string{nsqd.TCP}, Topic: "push.live#ephemeral"})
	connected(t, c, 10*time.Second)

	byName := func() map[string]bus.Topic {
		list, err := bus.ListTopics(t.Context(), nsqd.HTTP)
		require.NoError(t, err)
		m := make(map[string]bus.Topic)
		for _, tp := range list {
			m[tp.Name] = tp
		}
		return m
	}
	all := byName()
	require.Equal(t, bus.Topic{Name: "push.dead#ephemeral", Depth: 2}, all["push.dead#ephemeral"])
	require.Equal(t, bus.Topic{Name: "push.live#ephemeral", Channels: 1, Clients: 1}, all["push.live#ephemeral"])
	require.NoError(t, bus.DeleteTopic(t.Context(), nsqd.HTTP, "push.dead#ephemeral"))
	require.NotContains(t, byName(), "push.dead#ephemeral")
	require.NoError(t, bus.DeleteTopic(t.Context(), nsqd.HTTP, "push.dead#ephemeral"), "gone already")
	_, err := bus.ListTopics(t.Context(), "127.0.0.1:1")
	require.Error(t, err)
}

// lookupd is the part of nsqlookupd that the consumer asks.
func lookupd(t *testing.T, nodes func() []string) string {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/nodes" {
			http.NotFound(w, r)
			return
		}
		type node struct {
			Host string `json:"broadcast_address"`
			Port int    `json:"tcp_port"`
		}
		var list []node
		for _, n := range nodes() {
			host, port, _ := net.SplitHostPort(n)
			p, _ := strconv.Atoi(port)
			list = append(list, node{host, p})
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"producers": list})
	}))
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().String()
}

func TestConsumer_FollowsLookup(t *testing.T) {
	a, b := testkit.StartNSQ(t), testkit.NSQ(t)
	var mu sync.Mutex
	nodes := []string{a.TCP}
	addr := lookupd(t, func() []string { mu.Lock(); defer mu.Unlock(); return nodes })
	c, in := consume(t, bus.ConsumerConfig{LookupAddrs: []string{addr}, Topic: topic})
	connected(t, c, 10*time.Second)
	require.NoError(t, producer(t, a.TCP).Publish(t.Context(), topic, []byte("a")))
	require.Equal(t, "a", in.next(t))

	mu.Lock()
	nodes = []string{a.TCP, b.TCP}
	mu.Unlock()
	pb := producer(t, b.TCP)
	require.Eventually(t, func() bool {
		topics, err := bus.ListTopics(t.Context(), b.HTTP)
		return err == nil && len(topics) == 1 && topics[0].Clients == 1
	}, 10*time.Second, 20*time.Millisecond)
	require.NoError(t, pb.Publish(t.Context(), topic, []byte("b")))
	require.Equal(t, "b", in.next(t))

	// One that is dead and not listed any more does not count against the rest.
	a.Kill()
	require.Eventually(t, func() bool { return !c.Connected() }, slack, 5*time.Millisecond)
	mu.Lock()
	nodes = []string{b.TCP}
	mu.Unlock()
	connected(t, c, 10*time.Second)
}

func BenchmarkPublish(b *testing.B) {
	nsqd := testkit.NSQ(b)
	p, err := bus.NewProducer(bus.ProducerConfig{Addrs: []string{nsqd.TCP}, PublishTimeout: time.Minute}, quiet)
	require.NoError(b, err)
	defer p.Close()
	var got atomic.Int64
	c, err := bus.NewConsumer(bus.ConsumerConfig{Addrs: []string{nsqd.TCP}, Topic: topic, Channel: "gw#ephemeral"},
		func([]byte) { got.Add(1) }, quiet)
	require.NoError(b, err)
	defer c.Close()
	require.NoError(b, c.WaitConnected(b.Context()))
	body := make([]byte, 300)
	for _, callers := range []int{1, 64} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			b.SetParallelism(callers)
			b.ReportAllocs()
			got.Store(0)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := p.Publish(b.Context(), topic, body); err != nil {
						b.Error(err)
					}
				}
			})
			for got.Load() < int64(b.N) { // drain before the clock stops
				time.Sleep(100 * time.Microsecond)
			}
		})
	}
}
