package e2e

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"im-services/internal/imclient"
)

// A gateway dies that holds a thousand connections, and all of them come back at
// once. They are back soon, who talks through the other gateway is hardly held up,
// and what was written to those who were away is there for them, once and in order.
func TestG18_AReconnectStormPassesAndNothingIsLost(t *testing.T) {
	const (
		connections = 1000
		members     = 10 // of a group that is written to while they are away
		mostBack    = 5 * time.Second
		allBack     = 10 * time.Second
		answered    = 500 * time.Millisecond
	)
	t.Cleanup(func() { healthy(t) })
	healthy(t)
	l := newLoad(t, loadOptions{pairs: 3, gateway: 2, rate: 200})
	talkers := slices.Clone(l.people)
	writer := talkers[0]
	users := newUsers(t, 1, (connections+len(platforms)-1)/len(platforms))
	var ids []int64
	for _, u := range users[:members] {
		befriend(t, writer.someone, u)
		ids = append(ids, u.ID)
	}
	group, err := writer.api.CreateGroup(soon(t), "storm", ids...)
	require.NoError(t, err)
	crowd := l.crowd(users, 1, connections)
	people := []*person{writer}
	for _, c := range crowd[:members*len(platforms)] {
		people = append(people, c.person)
	}
	l.thread(imclient.Group, group, people...)

	ctx, stop := contextWithStop(t)
	var wg sync.WaitGroup
	wg.Go(func() { l.runUntil(ctx) })
	begin := imclient.Now()
	time.Sleep(time.Second)
	late := lateness(t)
	killed := imclient.Now()
	kill(t, "gateway-1")
	var took []time.Duration
	for len(took) < connections {
		require.Less(t, imclient.Now()-killed, allBack+busySlack, "%d of %d are back", len(took), connections)
		time.Sleep(50 * time.Millisecond)
		took = back(crowd, killed)
	}
	slack := late()
	stop()
	wg.Wait()
	l.settle()
	l.check()

	last, most := slices.Max(took).Round(time.Millisecond), percentile(took, 99)
	calm, rough := l.answers(begin, killed), l.answers(killed, killed+last)
	missed := 0
	for _, c := range crowd[:members*len(platforms)] {
		stood, _ := c.last()
		missed += writer.wrote(l.threads[len(l.threads)-1], killed, stood)
	}
	t.Logf("%d back within %s, 99%% within %s; 99%% of %d sends answered within %s, of %d before within %s; %d messages came while their readers were away; timers were %s late",
		connections, last, most, len(rough), percentile(rough, 99), len(calm), percentile(calm, 99), missed, slack)
	require.Less(t, last, allBack+busySlack)
	require.Less(t, most, mostBack+busySlack)
	require.Greater(t, len(rough), 100)
	require.Less(t, percentile(rough, 99), answered+4*slack, "talkers were held up")
	require.Positive(t, missed, "nobody who was away was written to")
	for _, p := range talkers {
		require.Equal(t, 1, p.client.Stats().Connects, "a talker lost his connection")
	}
}

// platforms are the classes of devices: a user has one connection of each.
var platforms = []string{"web", "pc", "app"}

// comer is one of a crowd: a connection that comes back.
type comer struct {
	*person

	connMu sync.Mutex
	stood  time.Duration // guarded by connMu; when the last connection was made
	served time.Duration // guarded by connMu; when it had its first answer; 0: not yet
}

// crowd joins n connections of the users at a gateway and waits until all are there.
// They write nothing. They come one after another, so that their heartbeats do; who
// loses his connection waits for half a second to one and a half before he connects
// again, as a client does that may be one of many.
func (l *load) crowd(users []*someone, gateway, n int) []*comer {
	l.t.Helper()
	all := make([]*comer, n)
	for i := range all {
		c := &comer{}
		c.person = l.join(users[i/len(platforms)], gateway, func(cfg *imclient.Config) {
			cfg.Dial.Platform = platforms[i%len(platforms)]
			cfg.BackoffMin = time.Second
			cfg.OnConnect = func(int) {
				c.connMu.Lock()
				defer c.connMu.Unlock()
				c.stood, c.served = imclient.Now(), 0
			}
			cfg.OnFrame = func(f *imclient.Frame) {
				c.connMu.Lock()
				defer c.connMu.Unlock()
				if f.Code == imclient.CodeHeartbeat && c.served == 0 {
					c.served = imclient.Now()
				}
			}
		})
		c.silent = true
		all[i] = c
		time.Sleep(time.Millisecond)
	}
	l.connected()
	return all
}

// last is when its last connection was made, and when that had its first answer.
func (c *comer) last() (stood, served time.Duration) {
	c.connMu.Lock()
	defer c.connMu.Unlock()
	return c.stood, c.served
}

// back is how long after a moment each of a crowd was served on a connection made
// since; who has none yet is left out.
func back(crowd []*comer, moment time.Duration) (took []time.Duration) {
	for _, c := range crowd {
		if stood, served := c.last(); stood > moment && served > 0 {
			took = append(took, served-moment)
		}
	}
	return took
}

// answers are the times from posting to the answer of what was posted from begin
// to end.
func (l *load) answers(begin, end time.Duration) (took []time.Duration) {
	for _, p := range l.people {
		p.mu.Lock()
		for _, a := range p.acked {
			if a.Posted >= begin && a.Posted < end {
				took = append(took, a.At-a.Posted)
			}
		}
		p.mu.Unlock()
	}
	return took
}

// wrote counts what p wrote to a thread from begin on and knew to be stored by end.
func (p *person) wrote(th *thread, begin, end time.Duration) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range p.acked {
		if a.post.thread == th && a.Posted >= begin && a.At < end {
			n++
		}
	}
	return n
}
