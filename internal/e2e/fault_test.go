package e2e

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"im-services/internal/imclient"
)

// contextWithStop is a context that ends with the test or when stop is called.
func contextWithStop(t testing.TB) (context.Context, context.CancelFunc) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	t.Cleanup(stop)
	return ctx, stop
}

// busySlack is what a machine that also runs the clients and the stores may add to
// a bound.
const busySlack = 3 * time.Second

// underFault makes people talk at 500 messages per second while fault happens,
// lets the system heal and judges what everybody was told. No message may be
// longer on its way than bound, from the answer to its sender to its last
// recipient; all recipients are people who reconnect.
func underFault(t *testing.T, bound time.Duration, fault func(t *testing.T)) {
	t.Cleanup(func() { healthy(t) })
	healthy(t)
	l := newLoad(t, loadOptions{pairs: 4, group: 4, rate: 500})
	ctx, stop := contextWithStop(t)
	var wg sync.WaitGroup
	wg.Go(func() { l.runUntil(ctx) })
	time.Sleep(time.Second)
	fault(t)
	time.Sleep(time.Second)
	stop()
	wg.Wait()
	healthy(t)
	l.settle()
	l.check()
	f := l.figures()
	t.Log(f)
	require.Less(t, f.slowestPush, bound+busySlack)
}

// kill ends a process with SIGKILL and returns when the supervisor has it back.
func kill(t testing.TB, name string) {
	t.Helper()
	p := system.Process(name)
	pid := p.Pid()
	p.Kill()
	require.NoError(t, p.WaitReady(slowly(t)))
	require.NotEqual(t, pid, p.Pid(), "%s was not killed", name)
}

// Any one process dies under load: nothing acknowledged is lost, nothing is
// shown twice, the order holds.
func TestG1_Fault_Kill(t *testing.T) {
	for _, name := range []string{
		"gateway-1", "gateway-2", "logic-1", "logic-2", "nsqd", "redis", "mysql", "etcd", "auth-1", "friend-1", "nsqlookupd",
	} {
		t.Run(name, func(t *testing.T) {
			underFault(t, 5*time.Second, func(t *testing.T) {
				for range 2 {
					kill(t, name)
					time.Sleep(500 * time.Millisecond)
				}
			})
		})
	}
}

// Both replicas of a service die at once.
func TestG1_Fault_KillAllOf(t *testing.T) {
	for _, kind := range []string{"gateway", "logic"} {
		t.Run(kind, func(t *testing.T) {
			underFault(t, 5*time.Second, func(t *testing.T) {
				var wg sync.WaitGroup
				for _, n := range []string{"-1", "-2"} {
					wg.Go(func() { kill(t, kind+n) })
				}
				wg.Wait()
			})
		})
	}
}

// Any one process stops answering for a while without dying, then goes on where
// it was.
func TestG1_Fault_Pause(t *testing.T) {
	const pause = 6 * time.Second
	for _, name := range []string{"gateway-1", "logic-1", "nsqd", "redis", "mysql", "etcd"} {
		t.Run(name, func(t *testing.T) {
			// Who is connected to a paused gateway finds out by its silence.
			underFault(t, pause+5*time.Second, func(t *testing.T) {
				require.NoError(t, system.Process(name).Pause())
				time.Sleep(pause)
				require.NoError(t, system.Process(name).Resume())
				time.Sleep(time.Second)
			})
		})
	}
}

// A paused gateway has a send in its socket buffer that was refused elsewhere
// meanwhile: when it goes on, it does not store what is allowed again.
func TestG2_WhatAPausedGatewayReadsLateIsNotStored(t *testing.T) {
	t.Cleanup(func() { healthy(t) })
	a, b := friends(t)
	elsewhere := a.api.At(system.GatewayURL(2))
	gateway := system.Process("gateway-1")
	require.NoError(t, gateway.Pause())
	t.Cleanup(func() { _ = gateway.Resume() })
	ctx, answer := slowly(t), make(chan error, 1)
	go func() {
		_, err := a.api.Send(ctx, &imclient.Outgoing{ClientID: 1, To: b.ID, Text: "late"})
		answer <- err
	}()
	time.Sleep(3 * time.Second) // his patience
	require.NoError(t, b.api.Unfriend(ctx, a.ID))
	_, err := elsewhere.Send(ctx, &imclient.Outgoing{ClientID: 1, To: b.ID, Text: "late"})
	require.Equal(t, 1003, imclient.CodeOf(err), "%v", err)
	record, err := elsewhere.AskFriend(ctx, b.ID)
	require.NoError(t, err)
	require.NoError(t, b.api.AnswerFriend(ctx, record, true))

	require.NoError(t, gateway.Resume())
	require.Error(t, <-answer)
	time.Sleep(time.Second)
	rows, err := b.api.History(ctx, imclient.Private, a.ID)
	require.NoError(t, err)
	for _, r := range rows {
		require.NotEqual(t, "late", r.Text, "what was refused is stored")
	}
}

// One replica of auth is paused: a login that meets it fails soon, others go to the
// one that is left, and gateways hear from it of logins that have ended.
func TestG16_OnePausedAuthHoldsNothingUp(t *testing.T) {
	t.Cleanup(func() { healthy(t) })
	u := newUser(t, 1)
	paused := system.Process("auth-1")
	require.NoError(t, paused.Pause())
	t.Cleanup(func() { _ = paused.Resume() })
	in := 0
	for range 4 {
		begin := time.Now()
		if user, err := api(1).Login(soon(t), u.Email, password); err == nil {
			in++
			u.User, u.api = user, api(1).As(user.Token)
		}
		require.Less(t, time.Since(begin), 3*time.Second+busySlack)
	}
	require.GreaterOrEqual(t, in, 2)
	require.NoError(t, u.api.Call(soon(t), http.MethodPost, "/api/auth/logout", nil, nil))
	begin := time.Now()
	for n := 1; n <= 2; n++ {
		require.Eventually(t, func() bool {
			_, err := u.api.At(system.GatewayURL(n)).FriendRequests(soon(t))
			return imclient.CodeOf(err) == http.StatusUnauthorized
		}, 10*time.Second, 10*time.Millisecond)
	}
	took := time.Since(begin)
	t.Logf("the end of a login was known everywhere after %v", took)
	require.Less(t, took, time.Second+busySlack)
}

// Redis loses everything it knows, without dying.
func TestG1_Fault_RedisForgets(t *testing.T) {
	underFault(t, 5*time.Second, func(t *testing.T) {
		for range 3 {
			tellRedis(t, "FLUSHALL")
			time.Sleep(700 * time.Millisecond)
		}
	})
}

// Redis dies and comes back as it was some messages ago: what is sent then has
// numbers that the receivers have had, and reaches them all the same.
func TestG8_RedisFromASnapshotHidesNoMessage(t *testing.T) {
	redis := system.Process("redis")
	t.Cleanup(func() {
		require.NoError(t, redis.Start(slowly(t)))
		tellRedis(t, "FLUSHALL")
		tellRedis(t, "SAVE") // the next one that dies comes back with nothing again
		healthy(t)
	})
	a, b := friends(t)
	sb := dial(t, b, 2, "")
	quiet(t, sb)
	sent := int64(0)
	send := func() {
		sent++
		_, err := a.api.Send(soon(t), &imclient.Outgoing{ClientID: sent, To: b.ID, Text: "x"})
		require.NoError(t, err)
		begin := time.Now()
		require.Equal(t, sent, next(t, sb, imclient.CodeChat).Seq)
		require.Less(t, time.Since(begin), 5*time.Second+busySlack)
	}
	send()
	time.Sleep(time.Second) // the server is known
	tellRedis(t, "SAVE")
	for range 5 {
		send()
	}
	redis.Halt()
	require.NoError(t, redis.Start(slowly(t)))
	for range 8 {
		send()
	}
}

// tellRedis has Redis do something that is answered with OK.
func tellRedis(t testing.TB, command string) {
	t.Helper()
	conn, err := net.DialTimeout("tcp", system.Addr("redis"), time.Second)
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	_, err = conn.Write([]byte(command + "\r\n"))
	require.NoError(t, err)
	line, err := bufio.NewReader(conn).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "+OK\r\n", line)
}

// With the bus away messages still arrive, by the gateways' own asking.
func TestG8_WithoutTheBus_MessagesArriveWithinFiveSeconds(t *testing.T) {
	t.Cleanup(func() {
		require.NoError(t, system.Process("nsqd").Start(slowly(t)))
		healthy(t)
	})
	a, b := friends(t)
	sb := dial(t, b, 2, "")
	quiet(t, sb)
	system.Process("nsqd").Halt()
	for i := range int64(3) {
		begin := time.Now()
		_, err := a.api.Send(soon(t), &imclient.Outgoing{ClientID: i + 1, To: b.ID, Text: "x"})
		require.NoError(t, err)
		require.Less(t, time.Since(begin), 2*time.Second+busySlack, "an answer does not wait for the bus")
		require.Equal(t, i+1, next(t, sb, imclient.CodeChat).Seq)
		took := time.Since(begin)
		t.Logf("arrived after %s", took.Round(time.Millisecond))
		require.Less(t, took, 5*time.Second+busySlack)
	}
}

// With etcd away, who is connected stays so and messages cross as before.
func TestG17_WithoutEtcd_NobodyNotices(t *testing.T) {
	t.Cleanup(func() {
		require.NoError(t, system.Process("etcd").Start(slowly(t)))
		healthy(t)
	})
	healthy(t)
	l := newLoad(t, loadOptions{pairs: 2, group: 3, rate: 200})
	ctx, stop := contextWithStop(t)
	var wg sync.WaitGroup
	wg.Go(func() { l.runUntil(ctx) })
	time.Sleep(500 * time.Millisecond)
	system.Process("etcd").Halt()
	time.Sleep(9 * time.Second) // longer than any lease
	stop()
	wg.Wait()
	l.settle()
	l.check()
	for _, p := range l.people {
		require.Equal(t, 1, p.client.Stats().Connects, "a connection was lost")
	}
	late := newUser(t, 2)
	quiet(t, dial(t, late, 1, ""))
}
