package e2e

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"im-services/internal/imclient"
)

// People send as fast as they may, which is more than can be stored: what is not
// taken is refused with a time to come back, nothing dies, in the end everything
// is stored, once and in order, and then a message is as quick as before.
func TestG15_AFloodPassesAndNothingIsLost(t *testing.T) {
	before := restarts()
	l := newLoad(t, loadOptions{pairs: 6, rate: 1_000_000, pending: 256})
	begin := time.Now()
	l.run(4 * time.Second)
	took := time.Since(begin)
	l.settle()
	over := time.Since(begin) - took
	l.check()
	t.Logf("%s; settled %s after the flood", l.figures(), over.Round(time.Millisecond))

	begin = time.Now()
	a, b := friends(t)
	sb := dial(t, b, 2, "")
	_, err := a.api.Send(soon(t), &imclient.Outgoing{ClientID: 1, To: b.ID, Text: "after"})
	require.NoError(t, err)
	require.Equal(t, "after", next(t, sb, imclient.CodeChat).Text())
	require.Less(t, time.Since(begin), 10*time.Second, "back to normal")
	require.Equal(t, before, restarts(), "a process died")
}

// At each gateway somebody sends a thousand frames a second that cannot be served,
// and a member of a busy group does not read what he is sent and comes back again
// and again: others who talk there do not notice.
func TestG14_HostileClientsDelayNobody(t *testing.T) {
	const raise = 100 * time.Millisecond // what is promised
	l := newLoad(t, loadOptions{pairs: 2, rate: 50})
	owner, stuck := friends(t)
	group, err := owner.api.CreateGroup(soon(t), "busy", stuck.ID)
	require.NoError(t, err)

	l.run(4 * time.Second)
	l.settle()
	before := l.arrivals()

	late := lateness(t)
	stop := make(chan struct{})
	var writers, readers sync.WaitGroup
	t.Cleanup(readers.Wait) // once their sockets are cut, which is done before
	var closed, badFrames atomic.Int64
	during := func(pause time.Duration, f func(i int64)) {
		writers.Go(func() {
			for i := int64(1); ; i++ {
				select {
				case <-stop:
					return
				case <-time.After(pause):
					f(i)
				}
			}
		})
	}
	loud := dial(t, owner, 1, "")
	text := fmt.Sprintf("%04000d", 0)
	during(5*time.Millisecond, func(i int64) {
		m := imclient.Outgoing{ClientID: i, Channel: imclient.Group, To: group, Text: text}
		if err := loud.Write(imclient.AppendChat(nil, owner.ID, &m)); err != nil {
			t.Errorf("the busy member: %v", err)
		}
	})
	reads := func(s *imclient.Socket) {
		readers.Go(func() {
			for {
				if _, err := s.Read(10 * time.Second); err != nil {
					return
				}
			}
		})
	}
	reads(loud) // he is not the hostile one
	for n := 1; n <= 2; n++ {
		s := dial(t, stuck, n, []string{"", "web", "app"}[n])
		during(2*time.Second, func(int64) { // never reads
			s.Cut()
			closed.Add(1)
			again, err := imclient.Dial(soon(t), system.GatewayURL(n), stuck.Token, imclient.DialOptions{Platform: []string{"", "web", "app"}[n]})
			if err == nil {
				s = again
			}
		})
		hostile := dial(t, newUser(t, n), n, "")
		during(time.Millisecond, func(int64) {
			if hostile.Write([]byte(`{"msg_code":200,"msg_client_id":1,"to_id":"nobody"`)) == nil {
				badFrames.Add(1)
			}
		})
		reads(hostile)
		t.Cleanup(func() { s.Cut() })
	}
	l.run(6 * time.Second)
	close(stop)
	writers.Wait()
	loud.Cut()
	slack := late()
	l.settle()
	l.check()
	after := l.arrivals()[len(before):]

	calm, rough := percentile(before, 99), percentile(after, 99)
	t.Logf("99%% arrived within %s, and within %s beside %d bad frames and %d who came back; timers were %s late", calm, rough, badFrames.Load(), closed.Load(), slack)
	require.Positive(t, badFrames.Load())
	require.Positive(t, closed.Load())
	require.Greater(t, len(after), 100)
	require.Less(t, rough, calm+raise+4*slack, "others were held up")
}

// arrivals are the times from the answer to the last recipient of everything
// sent so far, in the order of the answers.
func (l *load) arrivals() []time.Duration {
	type arrival struct{ acked, took time.Duration }
	var all []arrival
	for _, th := range l.threads {
		for _, from := range th.people {
			from.mu.Lock()
			for _, a := range from.acked {
				if a.post.thread != th {
					continue
				}
				for _, to := range th.people {
					if to == from {
						continue
					}
					to.mu.Lock()
					if at, ok := to.at[a.ID]; ok {
						all = append(all, arrival{a.At, max(0, at-a.At)})
					}
					to.mu.Unlock()
				}
			}
			from.mu.Unlock()
		}
	}
	slices.SortFunc(all, func(a, b arrival) int { return int(a.acked - b.acked) })
	took := make([]time.Duration, len(all))
	for i, a := range all {
		took[i] = a.took
	}
	return took
}

func percentile(of []time.Duration, p int) time.Duration {
	sorted := slices.Sorted(slices.Values(of))
	return sorted[(len(sorted)-1)*p/100].Round(time.Microsecond)
}

// lateness measures until it is called how late this machine's timers are: the
// 99th percentile, which a test that looks at the clock must allow for.
func lateness(t testing.TB) func() time.Duration {
	t.Helper()
	stop, result := make(chan struct{}), make(chan time.Duration)
	go func() {
		var late []time.Duration
		for {
			begin := time.Now()
			select {
			case <-time.After(5 * time.Millisecond):
				late = append(late, time.Since(begin)-5*time.Millisecond)
			case <-stop:
				result <- percentile(append(late, 0), 99)
				return
			}
		}
	}()
	return func() time.Duration { close(stop); return <-result }
}
