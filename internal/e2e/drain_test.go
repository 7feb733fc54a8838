package e2e

import (
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
