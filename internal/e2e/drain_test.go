package e2e

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"im-services/internal/imclient"
)

// Every process of ours is restarted, one after another, while people talk:
// nothing is lost, repeated or out of order.
func TestG18_RollingRestart(t *testing.T) {
	t.Cleanup(func() { healthy(t) })
	l := newLoad(t, loadOptions{pairs: 3, group: 4, rate: 200})
	ctx, stop := contextWithStop(t)
	var wg sync.WaitGroup
	wg.Go(func() { l.runUntil(ctx) })
	time.Sleep(500 * time.Millisecond)
	for _, name := range []string{"friend-1", "auth-1", "logic-1", "gateway-1", "logic-2", "gateway-2", "auth-2", "friend-2"} {
		begin := time.Now()
		if err := system.Process(name).Restart(slowly(t)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		t.Logf("%s restarted in %s", name, time.Since(begin).Round(time.Millisecond))
		time.Sleep(300 * time.Millisecond)
	}
	stop()
	wg.Wait()
	l.settle()
	l.check()
	t.Log(l.figures())
}

// A gateway that stops says so to every connection, with the code for "come back".
func TestDrain_ClientsAreToldToComeBack(t *testing.T) {
	t.Cleanup(func() { healthy(t) })
	a := newUser(t, 2)
	s := dial(t, a, 1, "")
	quiet(t, s)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := system.Process("gateway-1").Restart(slowly(t)); err != nil {
			t.Error(err)
		}
	})
	_, err := s.Read(15 * time.Second)
	var closed *imclient.CloseError
	require.ErrorAs(t, err, &closed)
	require.Equal(t, 1012, closed.Code)
	wg.Wait()
	quiet(t, dial(t, a, 1, ""))
}

// Until its connection is closed a stopping gateway gets pushes as ever, and its
// people are online: who is told to leave last has missed nothing meanwhile.
func TestG8_ADrainingGatewayGetsPushes(t *testing.T) {
	t.Cleanup(func() { healthy(t) })
	a := newUser(t, 2)
	others := newUsers(t, 1, 40)
	ids := make([]int64, len(others))
	for i, u := range others {
		ids[i] = u.ID
		befriend(t, a, u)
	}
	group, err := a.api.CreateGroup(soon(t), "draining", ids...)
	require.NoError(t, err)
	type seen struct {
		seq int64     // the last one that was pushed
		end time.Time // of the connection
	}
	got := make([]seen, len(others))
	var wg sync.WaitGroup
	for i, u := range others {
		s := dial(t, u, 1, "")
		wg.Go(func() {
			for {
				f, err := s.Read(30 * time.Second)
				if err != nil {
					got[i].end = time.Now()
					return
				}
				if f.Code == imclient.CodeChat && f.To == group {
					got[i].seq = f.Seq
				}
			}
		})
	}
	sa := dial(t, a, 2, "")
	type notice struct {
		user int64
		at   time.Time
	}
	var offline []notice
	wg.Go(func() {
		for {
			f, err := sa.Read(30 * time.Second)
			if err != nil {
				return
			}
			if f.Code == imclient.CodeOffline {
				offline = append(offline, notice{f.ID, time.Now()})
			}
		}
	})
	time.Sleep(11 * time.Second) // logic takes every route on trust for ten seconds

	stopped := make(chan error, 1)
	go func() { stopped <- system.Process("gateway-1").Restart(slowly(t)) }()
	type sent struct {
		seq int64
		at  time.Time // of the answer
	}
	var all []sent
	for done := false; !done; time.Sleep(20 * time.Millisecond) {
		r, err := a.api.Send(soon(t), &imclient.Outgoing{ClientID: int64(len(all) + 1), Channel: imclient.Group, To: group, Text: "x"})
		require.NoError(t, err)
		all = append(all, sent{r.Seq, time.Now()})
		select {
		case err := <-stopped:
			require.NoError(t, err)
			done = true
		default:
		}
	}
	sa.Cut()
	wg.Wait()
	for _, n := range offline {
		require.True(t, n.at.After(got[slices.Index(ids, n.user)].end), "told to be offline while connected")
	}
	judged, missed := 0, 0
	for _, g := range got {
		for _, m := range all {
			if g.end.Sub(m.at) < 300*time.Millisecond {
				continue
			}
			if judged++; g.seq < m.seq {
				missed++
			}
		}
	}
	t.Logf("%d of %d pushes did not come within 300 ms", missed, judged)
	require.Less(t, missed, judged/10, "but for a slow machine all come")
}
