package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"im-services/internal/cluster"
	"im-services/internal/imclient"
)

// system is the cluster under test.
var system *cluster.Cluster

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if os.Getenv("IM_E2E") != "1" {
		_, _ = fmt.Fprintln(os.Stderr, "e2e: not run; set IM_E2E=1, or use make e2e")
		return 0
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, err := os.MkdirTemp("", "im-e2e-")
	if err != nil {
		return fail(err)
	}
	opts := cluster.Options{StateDir: dir, Progress: os.Stderr, CheapHashes: true}
	if flags := os.Getenv("IM_E2E_BUILDFLAGS"); flags != "" {
		opts.BuildFlags = strings.Fields(flags) // for example -race
	}
	startCtx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	if system, err = cluster.Start(startCtx, opts); err != nil {
		return fail(err)
	}
	defer system.Stop()
	// The children must not outlive an interrupted run.
	disarm := context.AfterFunc(ctx, func() { system.Stop(); os.Exit(130) })
	defer disarm() // before stop, which ends ctx

	code := m.Run()
	if code == 0 && len(racesFound()) > 0 {
		code = 1
	}
	for _, r := range racesFound() {
		_, _ = fmt.Fprintln(os.Stderr, "e2e: "+r)
	}
	if code != 0 {
		_, _ = fmt.Fprintln(os.Stderr, "e2e: logs and data are kept in", dir)
		return code
	}
	system.Stop()
	_ = os.RemoveAll(dir)
	return 0
}

func fail(err error) int {
	_, _ = fmt.Fprintln(os.Stderr, "e2e:", err)
	return 1
}

// racesFound names the processes whose logs tell of a panic or a data race.
func racesFound() []string {
	var out []string
	for _, p := range system.Processes() {
		logs := p.Logs()
		for _, sign := range []string{"WARNING: DATA RACE", "panic:", "fatal error:", "msg=panic", `"msg":"panic`} {
			if strings.Contains(logs, sign) {
				out = append(out, fmt.Sprintf("the log of %s has %q", p.Name(), sign))
			}
		}
	}
	return out
}

// web is shared by all HTTP calls of the tests.
var web = &http.Client{
	Timeout:   20 * time.Second,
	Transport: &http.Transport{MaxIdleConnsPerHost: 64, IdleConnTimeout: 10 * time.Second},
}

// api returns the HTTP side of gateway n as nobody.
func api(n int) *imclient.API { return imclient.NewAPI(system.GatewayURL(n), web) }

// gateways are the addresses of both gateways, n's first.
func gateways(n int) []string {
	return []string{system.GatewayURL(n), system.GatewayURL(3 - n)}
}

const password = "secret123"

var accounts atomic.Int64

// someone is a registered, logged-in user.
type someone struct {
	imclient.User
	api *imclient.API // as the user, at the gateway it logged in at
}

// newUser registers and logs in a user at gateway n.
func newUser(t testing.TB, n int) *someone {
	t.Helper()
	return newUsers(t, n, 1)[0]
}

// newUsers registers and logs in many users at gateway n, a few at a time: more
// would only wait for each other.
func newUsers(t testing.TB, n, count int) []*someone {
	t.Helper()
	users := make([]*someone, count)
	g, ctx := errgroup.WithContext(slowly(t))
	g.SetLimit(8)
	for i := range users {
		g.Go(func() error {
			name := "u" + strconv.FormatInt(time.Now().UnixMilli()%1e9, 10) + "x" + strconv.FormatInt(accounts.Add(1), 10)
			email := name + "@example.com"
			if err := api(n).Register(ctx, email, name, password); err != nil {
				return err
			}
			user, err := api(n).Login(ctx, email, password)
			users[i] = &someone{User: user, api: api(n).As(user.Token)}
			return err
		})
	}
	require.NoError(t, g.Wait())
	for _, u := range users {
		require.Positive(t, u.ID)
		require.NotEmpty(t, u.Token)
	}
	return users
}

// befriend makes two users friends.
func befriend(t testing.TB, a, b *someone) {
	t.Helper()
	ctx := soon(t)
	record, err := a.api.AskFriend(ctx, b.ID)
	require.NoError(t, err)
	require.NoError(t, b.api.AnswerFriend(ctx, record, true))
}

// friends are two new users who are friends, one at each gateway.
func friends(t testing.TB) (a, b *someone) {
	t.Helper()
	a, b = newUser(t, 1), newUser(t, 2)
	befriend(t, a, b)
	return a, b
}

// soon bounds the steps of a test; also in cleanups, where t.Context has ended.
func soon(t testing.TB) context.Context { return bounded(t, 20*time.Second) }

// slowly bounds what may take a drain and a start.
func slowly(t testing.TB) context.Context { return bounded(t, 60*time.Second) }

func bounded(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// healthy returns once every process serves.
func healthy(t testing.TB) {
	t.Helper()
	ctx := slowly(t)
	for _, p := range system.Processes() {
		require.NoError(t, p.WaitReady(ctx), p.Name())
	}
}

// dial opens a bare socket of a user at gateway n.
func dial(t testing.TB, u *someone, n int, platform string) *imclient.Socket {
	t.Helper()
	s, err := imclient.Dial(soon(t), system.GatewayURL(n), u.Token, imclient.DialOptions{Platform: platform})
	require.NoError(t, err)
	t.Cleanup(s.Cut)
	return s
}

// next reads frames until one has the code; it fails after a while, or at a
// frame with a code in not. The while is longer than any promise: after ten seconds
// a push is found to be missing.
func next(t testing.TB, s *imclient.Socket, code int, not ...int) *imclient.Frame {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for time.Now().Before(deadline) {
		f, err := s.Read(time.Until(deadline))
		require.NoError(t, err, "waiting for frame %d", code)
		if f.Code == code {
			return f
		}
		require.NotContains(t, not, f.Code, "waiting for frame %d: %s", code, f.Raw)
	}
	t.Fatalf("no frame %d came", code)
	return nil
}

// quiet asserts that the server answers a heartbeat next, having nothing else to say.
func quiet(t testing.TB, s *imclient.Socket) {
	t.Helper()
	require.NoError(t, s.Write([]byte(`{"msg_code":1004,"message":"ping"}`)))
	for {
		f, err := s.Read(10 * time.Second)
		require.NoError(t, err)
		if f.Code == imclient.CodeOnline || f.Code == imclient.CodeOffline {
			continue
		}
		require.Equal(t, imclient.CodeHeartbeat, f.Code, "%s", f.Raw)
		require.Equal(t, "pong", f.Text())
		return
	}
}

// linger keeps reading for a while, as a live client does: pings are answered
// only by somebody who reads.
func linger(t testing.TB, s *imclient.Socket, d time.Duration) {
	t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		quiet(t, s)
	}
}
