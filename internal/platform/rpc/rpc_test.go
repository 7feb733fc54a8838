package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"

	"im-services/internal/im"
	"im-services/internal/platform/rpc"
	"im-services/internal/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// telemetry collects metrics and log lines.
type telemetry struct {
	reg *prometheus.Registry
	log *slog.Logger
}

func (t telemetry) Logger() *slog.Logger              { return t.log }
func (t telemetry) Registerer() prometheus.Registerer { return t.reg }

func newTelemetry(w io.Writer) telemetry {
	return telemetry{prometheus.NewRegistry(), slog.New(slog.NewTextHandler(w, nil))}
}

// service is a service whose behaviour a test sets.
type service struct {
	testgrpc.UnimplementedTestServiceServer
	unary  func(ctx context.Context) error
	stream func(s testgrpc.TestService_FullDuplexCallServer) error
	calls  atomic.Int32
}

func (s *service) UnaryCall(ctx context.Context, req *testgrpc.SimpleRequest) (*testgrpc.SimpleResponse, error) {
	s.calls.Add(1)
	if s.unary != nil {
		if err := s.unary(ctx); err != nil {
			return nil, err
		}
	}
	return &testgrpc.SimpleResponse{Payload: req.GetPayload()}, nil
}

func (s *service) FullDuplexCall(stream testgrpc.TestService_FullDuplexCallServer) error {
	if s.stream != nil {
		return s.stream(stream)
	}
	for {
		req, err := stream.Recv()
		if err == io.EOF { //nolint:errorlint // the server side gets exactly io.EOF
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.Send(&testgrpc.StreamingOutputCallResponse{Payload: req.GetPayload()}); err != nil {
			return err
		}
	}
}

// running is a server and how to stop it.
type running struct {
	*rpc.Server
	stop func()
}

func serve(t *testing.T, svc *service, change ...func(*rpc.ServerConfig)) running {
	t.Helper()
	return serveWith(t, nil, svc, change...)
}

func serveWith(t *testing.T, tel rpc.Telemetry, svc *service, change ...func(*rpc.ServerConfig)) running {
	t.Helper()
	cfg := rpc.ServerConfig{Listen: "127.0.0.1:0", StopBudget: time.Second}
	for _, f := range change {
		f(&cfg)
	}
	s, err := rpc.NewServer(tel, cfg)
	require.NoError(t, err)
	testgrpc.RegisterTestServiceServer(s.GRPC(), svc)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	var stopped atomic.Bool
	stop := func() {
		cancel()
		if stopped.CompareAndSwap(false, true) {
			require.NoError(t, <-done)
		}
	}
	t.Cleanup(stop)
	return running{s, stop}
}

func dial(t *testing.T, addr string, opts ...rpc.DialOption) testgrpc.TestServiceClient {
	t.Helper()
	cc, err := rpc.DialAddr(addr, nil, opts...)
	require.NoError(t, err)
	t.Cleanup(func() { _ = cc.Close() })
	return testgrpc.NewTestServiceClient(cc)
}

func call(ctx context.Context, c testgrpc.TestServiceClient) error {
	_, err := c.UnaryCall(ctx, &testgrpc.SimpleRequest{})
	return err
}

func TestErrors_SurviveTheWay(t *testing.T) {
	errNotFriend := im.E(im.KindForbidden, "not_friend", nil)
	limited := im.E(im.KindExhausted, "too_fast", errors.New("secret detail"))
	limited.RetryAfter = 1500 * time.Microsecond
	for kind := im.KindInternal; kind <= im.KindUnknown; kind++ {
		t.Run(kind.String(), func(t *testing.T) {
			sent := im.E(kind, "some_reason", errors.New("secret detail"))
			sent.RetryAfter = 3 * time.Second
			svc := &service{
				unary:  func(context.Context) error { return fmt.Errorf("wrapped: %w", sent) },
				stream: func(testgrpc.TestService_FullDuplexCallServer) error { return sent },
			}
			c := dial(t, serve(t, svc).Addr())
			stream, err := c.FullDuplexCall(t.Context())
			require.NoError(t, err)
			_, streamErr := stream.Recv()
			for _, err := range []error{call(t.Context(), c), streamErr} {
				require.Error(t, err)
				require.Equal(t, kind, im.KindOf(err))
				require.Equal(t, "some_reason", im.ReasonOf(err))
				require.ErrorIs(t, err, im.E(im.KindInternal, "some_reason", nil), "same reason")
				require.NotErrorIs(t, err, errNotFriend)
				e, ok := errors.AsType[*im.Error](err)
				require.True(t, ok)
				require.Equal(t, 3*time.Second, e.RetryAfter)
				require.NotContains(t, err.Error(), "secret detail", "causes stay with the server")
			}
		})
	}
	c := dial(t, serve(t, &service{unary: func(context.Context) error { return limited }}).Addr())
	e, _ := errors.AsType[*im.Error](call(t.Context(), c))
	require.Equal(t, 2*time.Millisecond, e.RetryAfter, "rounded up, never to nothing")
}

func TestErrors_OfOthers(t *testing.T) {
	for name, c := range map[string]struct {
		err    error
		kind   im.Kind
		reason string
	}{
		"plain":       {errors.New("secret detail"), im.KindInternal, "internal"},
		"deadline":    {context.DeadlineExceeded, im.KindUnknown, "answer_lost"},
		"canceled":    {context.Canceled, im.KindUnknown, "answer_lost"},
		"unavailable": {status.Error(codes.Unavailable, "x"), im.KindUnknown, "answer_lost"},
		"unknown rpc": {status.Error(codes.Unimplemented, "x"), im.KindInternal, "internal"},
		"too large":   {status.Error(codes.ResourceExhausted, "x"), im.KindInternal, "internal"},
	} {
		t.Run(name, func(t *testing.T) {
			client := dial(t, serve(t, &service{unary: func(context.Context) error { return c.err }}).Addr())
			err := call(t.Context(), client)
			require.Equal(t, c.kind, im.KindOf(err))
			require.Equal(t, c.reason, im.ReasonOf(err))
			require.NotContains(t, err.Error(), "secret detail")
		})
	}
}

func TestErrors_NobodyThere(t *testing.T) {
	c := dial(t, "127.0.0.1:1")
	begin := time.Now()
	err := call(t.Context(), c)
	require.Equal(t, im.KindUnavailable, im.KindOf(err))
	require.Equal(t, codes.Unavailable, status.Code(err), "the cause is still there")
	require.Less(t, time.Since(begin), 3*time.Second)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, call(ctx, c), context.Canceled)
}

// TestG2_ALostAnswerIsNoRefusal: what a server may have done is unknown when its
// answer does not come, and only what reached nobody, or changes nothing, is not.
func TestG2_ALostAnswerIsNoRefusal(t *testing.T) {
	begun := make(chan struct{}, 10)
	s := serve(t, &service{unary: func(ctx context.Context) error {
		begun <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}})
	for name, c := range map[string]struct {
		opts   []rpc.DialOption
		end    func(p *testkit.TCPProxy)
		kind   im.Kind
		reason string
	}{
		"connection lost": {nil, (*testkit.TCPProxy).Reset, im.KindUnknown, "answer_lost"},
		"deadline":        {nil, (*testkit.TCPProxy).Partition, im.KindUnknown, "answer_lost"},
		"of what may be repeated": {
			[]rpc.DialOption{rpc.WithRetry(testgrpc.TestService_UnaryCall_FullMethodName)},
			(*testkit.TCPProxy).Partition, im.KindUnavailable, "service_unavailable",
		},
	} {
		t.Run(name, func(t *testing.T) {
			proxy := testkit.Proxy(t, s.Addr())
			client := dial(t, proxy.Addr, append(c.opts, rpc.WithTimeout(time.Second))...)
			go func() {
				<-begun
				c.end(proxy)
			}()
			err := call(t.Context(), client)
			require.Equal(t, c.kind, im.KindOf(err), "%v", err)
			require.Equal(t, c.reason, im.ReasonOf(err))
		})
	}
	t.Run("nobody there", func(t *testing.T) {
		err := call(t.Context(), dial(t, "127.0.0.1:1"))
		require.Equal(t, im.KindUnavailable, im.KindOf(err), "%v", err)
	})
}

func TestPanic_IsAnInternalErrorAndLogged(t *testing.T) {
	var log strings.Builder
	tel := newTelemetry(&log)
	s := serveWith(t, tel, &service{
		unary:  func(context.Context) error { panic("boom") },
		stream: func(testgrpc.TestService_FullDuplexCallServer) error { panic("boom") },
	})
	c := dial(t, s.Addr())
	require.Equal(t, im.KindInternal, im.KindOf(call(t.Context(), c)))
	stream, err := c.FullDuplexCall(t.Context())
	require.NoError(t, err)
	_, err = stream.Recv()
	require.Equal(t, im.KindInternal, im.KindOf(err))
	require.NotContains(t, err.Error(), "boom")
	s.stop()
	require.Contains(t, log.String(), "boom")
}

func TestDeadlines(t *testing.T) {
	var left atomic.Int64
	svc := &service{unary: func(ctx context.Context) error {
		d, ok := ctx.Deadline()
		if !ok {
			return errors.New("no deadline")
		}
		left.Store(int64(time.Until(d)))
		return nil
	}}
	c := dial(t, serve(t, svc).Addr())
	require.NoError(t, call(t.Context(), c))
	require.Greater(t, time.Duration(left.Load()), time.Second, "a call without a deadline gets one")
	require.LessOrEqual(t, time.Duration(left.Load()), 2*time.Second)

	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	require.NoError(t, call(ctx, c))
	require.LessOrEqual(t, time.Duration(left.Load()), 980*time.Millisecond, "the server keeps a little")

	short := dial(t, serve(t, &service{unary: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}).Addr(),
		rpc.WithTimeout(200*time.Millisecond))
	begin := time.Now()
	err := call(t.Context(), short)
	require.Equal(t, im.KindUnknown, im.KindOf(err))
	require.Less(t, time.Since(begin), 1900*time.Millisecond, "without the setting it would be two seconds")
}

func TestStream_CarriesMessagesBothWaysAndEndsWithEOF(t *testing.T) {
	c := dial(t, serve(t, &service{}).Addr())
	s, err := c.FullDuplexCall(t.Context())
	require.NoError(t, err)
	for i := range 2000 {
		require.NoError(t, s.Send(&testgrpc.StreamingOutputCallRequest{Payload: &testgrpc.Payload{Body: fmt.Append(nil, i)}}))
	}
	require.NoError(t, s.CloseSend())
	for i := range 2000 {
		res, err := s.Recv()
		require.NoError(t, err)
		require.Equal(t, fmt.Sprint(i), string(res.GetPayload().GetBody()))
	}
	_, err = s.Recv()
	require.Equal(t, io.EOF, err, "exactly io.EOF")
}

func TestLimits(t *testing.T) {
	big := func(n int) *testgrpc.SimpleRequest {
		return &testgrpc.SimpleRequest{Payload: &testgrpc.Payload{Body: make([]byte, n)}}
	}
	c := dial(t, serve(t, &service{}).Addr())
	_, err := c.UnaryCall(t.Context(), big(3<<20))
	require.NoError(t, err)
	_, err = c.UnaryCall(t.Context(), big(5<<20))
	require.Error(t, err, "a request beyond 4 MiB")

	large := serve(t, &service{stream: func(s testgrpc.TestService_FullDuplexCallServer) error {
		return s.Send(&testgrpc.StreamingOutputCallResponse{Payload: &testgrpc.Payload{Body: make([]byte, 15<<20)}})
	}})
	s, err := dial(t, large.Addr()).FullDuplexCall(t.Context())
	require.NoError(t, err)
	res, err := s.Recv()
	require.NoError(t, err, "a run of a backlog may be large")
	require.Len(t, res.GetPayload().GetBody(), 15<<20)
}

// static is a Discovery of the addresses a test names.
type static struct{ builder resolver.Builder }

func newStatic(addrs ...string) static {
	r := manual.NewBuilderWithScheme("im")
	var eps []resolver.Endpoint
	for _, a := range addrs {
		eps = append(eps, resolver.Endpoint{Addresses: []resolver.Address{{Addr: a}}})
	}
	r.InitialState(resolver.State{Endpoints: eps})
	return static{r}
}

func (s static) Resolver() resolver.Builder { return s.builder }

func dialAll(t *testing.T, opts []rpc.DialOption, addrs ...string) testgrpc.TestServiceClient {
	t.Helper()
	cc, err := rpc.Dial("im:///logic", newStatic(addrs...), nil, opts...)
	require.NoError(t, err)
	t.Cleanup(func() { _ = cc.Close() })
	return testgrpc.NewTestServiceClient(cc)
}

// answers tells how often each of the services answers 60 calls.
func answers(t *testing.T, c testgrpc.TestServiceClient, services ...*service) []int {
	t.Helper()
	for _, s := range services {
		s.calls.Store(0)
	}
	for range 60 {
		require.NoError(t, call(t.Context(), c))
	}
	out := make([]int, len(services))
	for i, s := range services {
		out[i] = int(s.calls.Load())
	}
	return out
}

func TestDial_SpreadsCallsOverHealthyInstances(t *testing.T) {
	a, b := &service{}, &service{}
	sa, sb := serve(t, a), serve(t, b)
	c := dialAll(t, nil, sa.Addr(), sb.Addr())
	require.Eventually(t, func() bool {
		n := answers(t, c, a, b)
		return n[0] == 30 && n[1] == 30
	}, 5*time.Second, 10*time.Millisecond)

	sa.SetServing(false)
	require.Eventually(t, func() bool { return answers(t, c, a, b)[0] == 0 }, 5*time.Second, 5*time.Millisecond)
	sa.SetServing(true)
	require.Eventually(t, func() bool { return answers(t, c, a, b)[0] == 30 }, 5*time.Second, 5*time.Millisecond)
}

func TestStop_LosesNoCall(t *testing.T) {
	slow := func(context.Context) error { time.Sleep(5 * time.Millisecond); return nil }
	a, b := &service{unary: slow}, &service{unary: slow}
	sa, sb := serve(t, a), serve(t, b)
	c := dialAll(t, nil, sa.Addr(), sb.Addr())
	require.NoError(t, call(t.Context(), c))
	ended := make(chan error, 1)
	over := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-over:
				return
			default:
			}
			if err := call(t.Context(), c); err != nil {
				ended <- err
				return
			}
		}
	}()
	time.Sleep(100 * time.Millisecond)
	sa.stop() // no retries are configured: none are needed
	time.Sleep(100 * time.Millisecond)
	close(over)
	require.NoError(t, <-ended)
}

func TestStop_StreamsGetTheBudgetAndNoMore(t *testing.T) {
	s := serve(t, &service{}, func(c *rpc.ServerConfig) { c.StopBudget = 300 * time.Millisecond })
	stream, err := dial(t, s.Addr()).FullDuplexCall(t.Context())
	require.NoError(t, err)
	require.NoError(t, stream.Send(&testgrpc.StreamingOutputCallRequest{}))
	_, err = stream.Recv()
	require.NoError(t, err)
	begin := time.Now()
	s.stop()
	require.Less(t, time.Since(begin), 5*time.Second)
	_, err = stream.Recv()
	require.Equal(t, im.KindUnavailable, im.KindOf(err))
}

func TestRetry_OnlyWhereListed(t *testing.T) {
	var n atomic.Int32
	flaky := &service{unary: func(context.Context) error {
		if n.Add(1)%3 != 0 {
			return im.E(im.KindUnavailable, "service_unavailable", nil)
		}
		return nil
	}}
	addr := serve(t, flaky).Addr()
	require.Error(t, call(t.Context(), dial(t, addr)))
	require.EqualValues(t, 1, n.Load())
	n.Store(0)
	require.NoError(t, call(t.Context(), dial(t, addr, rpc.WithRetry(testgrpc.TestService_UnaryCall_FullMethodName))))
	require.EqualValues(t, 3, n.Load())
	_, err := rpc.DialAddr(addr, nil, rpc.WithRetry("nonsense"))
	require.Error(t, err)
}

// Of two servers one is stopped: what may be repeated is answered by the other
// before the connection is given up, although the call has more time; the rest is
// unknown when it is.
func TestRetry_AFrozenServerIsPassedOver(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		opts  []rpc.DialOption
		limit time.Duration
		lost  bool
	}{
		"may be repeated": {
			opts:  []rpc.DialOption{rpc.WithRetry(testgrpc.TestService_UnaryCall_FullMethodName), rpc.WithTimeout(time.Second)},
			limit: 2 * time.Second,
		},
		"may not be repeated": {limit: 3500 * time.Millisecond, lost: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b := &service{}, &service{}
			proxy := testkit.Proxy(t, serve(t, a).Addr())
			client := dialAll(t, c.opts, proxy.Addr, serve(t, b).Addr())
			require.Eventually(t, func() bool {
				n := answers(t, client, a, b)
				return n[0] > 0 && n[1] > 0
			}, 5*time.Second, 10*time.Millisecond)
			proxy.Partition()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			lost := false
			for range 2 { // one of them goes to the frozen one
				begin := time.Now()
				err := call(ctx, client)
				require.Less(t, time.Since(begin), c.limit)
				if err != nil {
					lost = true
					require.Equal(t, im.KindUnknown, im.KindOf(err), "%v", err)
				}
			}
			require.Equal(t, c.lost, lost)
		})
	}
}

func TestLiveness_ASilentPeerIsFoundInThreeSeconds(t *testing.T) {
	t.Parallel() // with the others that only wait
	s := serve(t, &service{})
	proxy := testkit.Proxy(t, s.Addr())
	stream, err := dial(t, proxy.Addr).FullDuplexCall(t.Context())
	require.NoError(t, err)
	require.NoError(t, stream.Send(&testgrpc.StreamingOutputCallRequest{}))
	_, err = stream.Recv()
	require.NoError(t, err)

	proxy.Partition() // as good as a frozen process: the connection is there and says nothing
	begin := time.Now()
	_, err = stream.Recv()
	t.Logf("found after %s: %v", time.Since(begin), err)
	require.Equal(t, im.KindUnavailable, im.KindOf(err))
	require.NotErrorIs(t, err, context.Canceled, "nobody canceled it")
	require.Less(t, time.Since(begin), 3*time.Second+2*time.Second, "the promise, and what a busy machine may add")
}

func TestLiveness_AQuietStreamStaysOpen(t *testing.T) {
	t.Parallel()
	stream, err := dial(t, serve(t, &service{}).Addr()).FullDuplexCall(t.Context())
	require.NoError(t, err)
	for range 2 {
		require.NoError(t, stream.Send(&testgrpc.StreamingOutputCallRequest{}))
		_, err = stream.Recv()
		require.NoError(t, err)
		time.Sleep(5500 * time.Millisecond) // nobody says anything for longer than the limit
	}
}

func TestLiveness_AStreamInOneDirectionStaysOpen(t *testing.T) {
	t.Parallel()
	stream, err := dial(t, serve(t, &service{stream: func(s testgrpc.TestService_FullDuplexCallServer) error {
		for { // takes and never answers
			if _, err := s.Recv(); err != nil {
				return nil //nolint:nilerr // the client has left
			}
		}
	}}).Addr()).FullDuplexCall(t.Context())
	require.NoError(t, err)
	for begin := time.Now(); time.Since(begin) < 5500*time.Millisecond; time.Sleep(20 * time.Millisecond) {
		require.NoError(t, stream.Send(&testgrpc.StreamingOutputCallRequest{}))
	}
	require.NoError(t, stream.CloseSend())
	_, err = stream.Recv()
	require.Equal(t, io.EOF, err)
}

func TestNewServer_AddressesAndTakenPort(t *testing.T) {
	s, err := rpc.NewServer(nil, rpc.ServerConfig{Listen: "127.0.0.1:0"})
	require.NoError(t, err)
	defer s.Close()
	require.Equal(t, s.Addr(), s.Advertise())
	_, err = rpc.NewServer(nil, rpc.ServerConfig{Listen: s.Addr()})
	require.Error(t, err, "the port is taken")

	for configured, want := range map[string]string{"logic-1:7000": "logic-1:7000", "logic-1": "logic-1:PORT", "::1": "[::1]:PORT"} {
		s, err := rpc.NewServer(nil, rpc.ServerConfig{Listen: "0.0.0.0:0", Advertise: configured})
		require.NoError(t, err)
		_, port, err := net.SplitHostPort(s.Addr())
		require.NoError(t, err)
		require.Equal(t, strings.Replace(want, "PORT", port, 1), s.Advertise())
		s.Close()
	}
	wild, err := rpc.NewServer(nil, rpc.ServerConfig{Listen: "0.0.0.0:0"})
	require.NoError(t, err)
	defer wild.Close()
	host, _, err := net.SplitHostPort(wild.Advertise())
	require.NoError(t, err)
	require.False(t, net.ParseIP(host).IsUnspecified(), "others cannot dial 0.0.0.0")
}

func TestMetrics_CountByMethodAndKind(t *testing.T) {
	tel := newTelemetry(io.Discard)
	var fail atomic.Bool
	s := serveWith(t, tel, &service{unary: func(context.Context) error {
		if fail.Load() {
			return im.E(im.KindForbidden, "not_friend", nil)
		}
		return nil
	}})
	for range 2 { // two clients share one registry
		cc, err := rpc.DialAddr(s.Addr(), tel)
		require.NoError(t, err)
		defer cc.Close()
		c := testgrpc.NewTestServiceClient(cc)
		fail.Store(false)
		require.NoError(t, call(t.Context(), c))
		fail.Store(true)
		require.Error(t, call(t.Context(), c))
	}
	families, err := tel.reg.Gather()
	require.NoError(t, err)
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetValue())
			}
			if strings.HasSuffix(f.GetName(), "_handled_total") && !strings.Contains(labels[1], "grpc.health") {
				got[f.GetName()+" "+labels[0]] += m.GetCounter().GetValue()
			}
		}
	}
	require.Equal(t, map[string]float64{
		"im_rpc_server_handled_total forbidden": 2, "im_rpc_server_handled_total ok": 2,
		"im_rpc_client_handled_total forbidden": 2, "im_rpc_client_handled_total ok": 2,
	}, got)
}

// issue returns what a process of that name, with a certificate of ca, is set to.
func issue(t *testing.T, ca *testkit.CA, name string, until time.Duration) rpc.TLSConfig {
	t.Helper()
	cert, key := ca.Issue(t, name, until)
	return rpc.TLSConfig{Cert: cert, Key: key, CA: ca.File}
}

func TestTLS_OnlyTheRightCertificates(t *testing.T) {
	ca, otherCA := testkit.NewCA(t), testkit.NewCA(t)
	serverTLS := issue(t, ca, "logic", time.Hour)
	serverTLS.AllowedNames = []string{"gateway"}
	addr := serve(t, &service{}, func(c *rpc.ServerConfig) { c.TLS = serverTLS }).Addr()
	named := func(c rpc.TLSConfig, name string) rpc.TLSConfig { c.ServerName = name; return c }
	for name, c := range map[string]struct {
		tls rpc.TLSConfig
		ok  bool
	}{
		"gateway":           {named(issue(t, ca, "gateway", time.Hour), "logic"), true},
		"none":              {rpc.TLSConfig{}, false},
		"wrong name":        {named(issue(t, ca, "mallory", time.Hour), "logic"), false},
		"expired":           {named(issue(t, ca, "gateway", -time.Hour), "logic"), false},
		"another authority": {named(issue(t, otherCA, "gateway", time.Hour), "logic"), false},
		"wrong server":      {named(issue(t, ca, "gateway", time.Hour), "auth"), false},
	} {
		t.Run(name, func(t *testing.T) {
			err := call(t.Context(), dial(t, addr, rpc.WithTLS(c.tls)))
			if c.ok {
				require.NoError(t, err)
				return
			}
			require.Equal(t, im.KindUnavailable, im.KindOf(err))
		})
	}
	// The name of an im:/// target is the name the server must have.
	require.NoError(t, call(t.Context(), dialAll(t, []rpc.DialOption{rpc.WithTLS(issue(t, ca, "gateway", time.Hour))}, addr)))

	_, err := rpc.NewServer(nil, rpc.ServerConfig{Listen: "127.0.0.1:0", TLS: rpc.TLSConfig{Cert: "only"}})
	require.Error(t, err)
	_, err = rpc.DialAddr(addr, nil, rpc.WithTLS(rpc.TLSConfig{Cert: "absent", Key: "absent", CA: "absent"}))
	require.Error(t, err)
}

func TestCallers_MayCallWhatTheTableSaysAndNoMore(t *testing.T) {
	const unary, stream = "/grpc.testing.TestService/UnaryCall", "/grpc.testing.TestService/FullDuplexCall"
	ca := testkit.NewCA(t)
	callers := rpc.Callers{"friend": {unary}, "gateway": {"/grpc.testing.TestService/"}, "logic": {stream}}
	addr := serve(t, &service{}, func(c *rpc.ServerConfig) { c.TLS, c.Callers = issue(t, ca, "logic", time.Hour), callers }).Addr()
	for name, may := range map[string]struct{ unary, stream bool }{
		"gateway": {true, true},
		"friend":  {true, false},
		"logic":   {false, true},
		"mallory": {false, false},
	} {
		t.Run(name, func(t *testing.T) {
			conf := issue(t, ca, name, time.Hour)
			conf.ServerName = "logic"
			cc := dial(t, addr, rpc.WithTLS(conf))
			err := call(t.Context(), cc)
			require.Equal(t, may.unary, err == nil, "%v", err)
			s, err := cc.FullDuplexCall(t.Context())
			require.NoError(t, err)
			require.NoError(t, s.CloseSend())
			_, err = s.Recv()
			require.Equal(t, may.stream, errors.Is(err, io.EOF), "%v", err)
		})
	}
	plain := serve(t, &service{}, func(c *rpc.ServerConfig) { c.Callers = callers }).Addr()
	require.NoError(t, call(t.Context(), dial(t, plain)), "without TLS callers have no names")
}

func BenchmarkStream(b *testing.B) {
	s, err := rpc.NewServer(nil, rpc.ServerConfig{Listen: "127.0.0.1:0"})
	require.NoError(b, err)
	testgrpc.RegisterTestServiceServer(s.GRPC(), &service{})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	defer func() { cancel(); <-done }()
	cc, err := rpc.DialAddr(s.Addr(), nil)
	require.NoError(b, err)
	defer cc.Close()
	stream, err := testgrpc.NewTestServiceClient(cc).FullDuplexCall(ctx)
	require.NoError(b, err)
	req := &testgrpc.StreamingOutputCallRequest{Payload: &testgrpc.Payload{Body: make([]byte, 300)}}
	window := make(chan struct{}, 256) // pipelined, as the gateway does
	b.ReportAllocs()
	b.ResetTimer()
	go func() {
		for range b.N {
			window <- struct{}{}
			if stream.Send(req) != nil {
				return
			}
		}
	}()
	for range b.N {
		if _, err := stream.Recv(); err != nil {
			b.Fatal(err)
		}
		<-window
	}
	b.StopTimer()
	_ = stream.CloseSend()
}
