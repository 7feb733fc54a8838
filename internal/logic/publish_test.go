package logic

import (
	"context"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	pushv1 "im-services/api/proto/push/v1"
	"im-services/internal/im"
	"im-services/internal/push"
)

func privateMsg(conv, seq int64, from, to im.UserID) committedMessage {
	return committedMessage{
		push:       &pushv1.Message{ConversationId: conv, Seq: seq, Kind: 1, SenderId: int64(from), ToId: int64(to), Text: "x"},
		recipients: []im.UserID{to}, sender: from,
	}
}

func TestSplitRuns_KeepsConversationOrderAndAudience(t *testing.T) {
	group := []im.UserID{1, 2, 3}
	g := func(seq int64) committedMessage {
		return committedMessage{push: &pushv1.Message{ConversationId: 9, Seq: seq, Kind: 2}, recipients: group}
	}
	runs := splitRuns([]committedMessage{
		privateMsg(7, 1, 2, 3), g(4), privateMsg(7, 2, 2, 3), privateMsg(7, 3, 3, 2), g(5),
	})
	if len(runs) != 3 {
		t.Fatalf("%d runs, want 3: two private directions and one group", len(runs))
	}
	if runs[0].to.n != 2 || runs[0].self.users[0] != 2 || runs[1].to.n != 2 || runs[1].self != nil || runs[2].to.users[0] != 2 {
		t.Fatalf("wrong runs: %+v %+v %+v", runs[0], runs[1], runs[2])
	}
}

// A run too large for one envelope is split; every part carries the counter
// after its own last message.
func TestEnvelopes_SplitRunsCountRight(t *testing.T) {
	big := string(make([]byte, 200<<10))
	r := &run{to: &audience{users: []im.UserID{5}, n: 6, pvs: []int64{106}, routes: [][]route{{{gateway: "g", conn: 1}, {gateway: "g", conn: 2}}}}}
	for seq := int64(1); seq <= 6; seq++ {
		r.msgs = append(r.msgs, &pushv1.Message{ConversationId: 1, Seq: seq, Text: big})
	}
	out := newEnvelopes("e")
	out.add(r, r.to, func(route) bool { return true })
	pv, seq := int64(100), int64(0)
	if len(out.byGateway["g"]) < 2 {
		t.Fatal("nothing was split")
	}
	for _, e := range out.byGateway["g"] {
		for _, d := range e.env.GetDeliveries() {
			if len(d.GetUserIds()) != 1 {
				t.Fatalf("user addressed %d times at one gateway", len(d.GetUserIds()))
			}
			for _, i := range d.GetMessages() {
				seq++
				pv++
				if got := e.env.GetMessages()[i].GetSeq(); got != seq {
					t.Fatalf("message %d, want %d", got, seq)
				}
			}
			if d.GetPvs()[0] != pv {
				t.Fatalf("pv %d after %d messages, want %d", d.GetPvs()[0], seq, pv)
			}
		}
	}
	if seq != 6 {
		t.Fatalf("%d of 6 messages addressed", seq)
	}
}

func TestParseRoute_RoundTrip(t *testing.T) {
	r := route{gateway: "ab/c", conn: 12, platform: 2, sinceMS: 1_700_000_000_000}
	got, ok := parseRoute(r.field(), r.value())
	if !ok || got != r {
		t.Fatalf("got %+v", got)
	}
	if list := appendRoutes(nil, r.entry()+" x "+r.entry()); len(list) != 2 || list[1] != r {
		t.Errorf("got %+v", list)
	}
	if !r.hasField(r.field()) {
		t.Error("not its own field")
	}
	for _, other := range []string{"", "ab/c", "ab/c/", "ab/c/1", "ab/c/123", "ab/d/12", "ab/c-12"} {
		if r.hasField(other) {
			t.Errorf("takes %q for its field", other)
		}
	}
	for _, bad := range [][2]string{{"", ""}, {"g/1", "1"}, {"g/x", "1:2"}, {"/1", "1:2"}, {"g/1", "x:2"}} {
		if _, ok := parseRoute(bad[0], bad[1]); ok {
			t.Errorf("accepted %q %q", bad[0], bad[1])
		}
	}
}

// TestG13_PublisherHoldsSoManyBytes: what is committed faster than it can be
// published is left to the outbox before it fills the memory.
func TestG13_PublisherHoldsSoManyBytes(t *testing.T) {
	p := &publisher{metrics: newMetrics(prometheus.NewRegistry()), lanes: []chan *committed{make(chan *committed, publishQueue)}}
	big := strings.Repeat("x", 1<<20)
	batch := func() *committed {
		return &committed{messages: []committedMessage{{push: &pushv1.Message{Text: big[:1<<19], DataJson: big[:1<<19]}}}}
	}
	for range 3 * publishBytes >> 20 {
		p.enqueue(0, batch())
	}
	if n := len(p.lanes[0]); n != publishBytes>>20 {
		t.Fatalf("%d MiB wait, want %d", n, publishBytes>>20)
	}
}

// countingBus notes how many publishes are under way at once.
type countingBus struct{ now, most atomic.Int64 }

func (b *countingBus) Publish(context.Context, string, ...[]byte) error {
	n := b.now.Add(1)
	for most := b.most.Load(); n > most && !b.most.CompareAndSwap(most, n); most = b.most.Load() {
	}
	time.Sleep(20 * time.Millisecond)
	b.now.Add(-1)
	return nil
}

// What goes to several gateways goes to all at once, unless it is so much that it would
// take more than the time of one publish.
func TestPublisher_MuchGoesToOneGatewayAfterAnother(t *testing.T) {
	codec, err := push.NewCodec([]byte(strings.Repeat("k", push.MinKeySize)))
	if err != nil {
		t.Fatal(err)
	}
	for size, want := range map[int]int64{100: 8, publishAtOnceBytes / 8: 1} {
		bus := &countingBus{}
		p := &publisher{metrics: newMetrics(prometheus.NewRegistry()), bus: bus, codec: codec}
		out := newEnvelopes("e")
		for g := range 8 {
			r := &run{msgs: []*pushv1.Message{{ConversationId: 1, Seq: 1, Text: strings.Repeat("x", size)}}}
			out.addTo(im.GatewayID(strconv.Itoa(g)), r, []im.UserID{5}, []int64{1})
		}
		if err := p.send(t.Context(), out); err != nil {
			t.Fatal(err)
		}
		if got := bus.most.Load(); got != want {
			t.Errorf("%d bytes each: to %d at once, want %d", size, got, want)
		}
	}
}

// What was published makes room, whatever became of it.
func TestG13_PublishedBytesMakeRoom(t *testing.T) {
	h := newHarness(t)
	h.befriend(2, 3)
	h.bus.failWith(ErrNotPublished)
	for i := range int64(4) {
		h.mustSend(privateSend(2, 3, i+1, strings.Repeat("x", 1000)))
	}
	h.bus.failWith(nil)
	h.mustSend(privateSend(2, 3, 5, "x"))
	eventually(t, 2*time.Second, "nothing waits", func() bool { return h.pub.queued.Load() == 0 })
}
