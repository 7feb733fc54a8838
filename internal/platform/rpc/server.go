package rpc

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"

	"im-services/internal/im"
)

const (
	// Windows large enough that a stream of messages never waits for an
	// update, and fixed: measuring the bandwidth costs a ping per round trip.
	streamWindow = 1 << 20
	connWindow   = 8 << 20

	maxHeader = 16 << 10

	defaultStopBudget = 10 * time.Second
	defaultMaxStreams = 1024
	defaultMaxRequest = 4 << 20

	// noticeTime lets clients hear of NOT_SERVING before they are turned away.
	noticeTime = 50 * time.Millisecond
)

// Server is a gRPC server that listens.
type Server struct {
	cfg       ServerConfig
	log       *slog.Logger
	ln        net.Listener
	advertise string
	grpc      *grpc.Server
	health    *healthServer
	metrics   *metrics
	errors    *rate.Limiter // lines about failed calls
}

// NewServer listens at once, so that Addr is known and a taken port is an early
// error, and serves from Run on. Health says NOT_SERVING until then.
func NewServer(tel Telemetry, cfg ServerConfig) (*Server, error) {
	if cfg.StopBudget <= 0 {
		cfg.StopBudget = defaultStopBudget
	}
	if cfg.MaxStreams == 0 {
		cfg.MaxStreams = defaultMaxStreams
	}
	if cfg.MaxRequest <= 0 {
		cfg.MaxRequest = defaultMaxRequest
	}
	s := &Server{
		cfg:     cfg,
		log:     logger(tel),
		health:  newHealth(),
		metrics: newMetrics(registerer(tel), "server"),
		errors:  rate.NewLimiter(20, 50),
	}
	opts := []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(s.unary),
		grpc.ChainStreamInterceptor(s.stream),
		grpc.MaxRecvMsgSize(cfg.MaxRequest),
		grpc.MaxConcurrentStreams(cfg.MaxStreams),
		grpc.MaxHeaderListSize(maxHeader),
		grpc.StaticStreamWindowSize(streamWindow),
		grpc.StaticConnWindowSize(connWindow),
		grpc.ConnectionTimeout(5 * time.Second),
		// Pings find a frozen or vanished client; it pings us far less often.
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 2 * time.Second, Timeout: 2 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	}
	if cfg.TLS.enabled() {
		conf, err := cfg.TLS.server()
		if err != nil {
			return nil, err
		}
		opts = append(opts, grpc.Creds(credentials.NewTLS(conf)))
	}
	ln, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("rpc: %w", err)
	}
	s.ln = ln
	if s.advertise, err = advertised(cfg.Advertise, ln.Addr().(*net.TCPAddr)); err != nil {
		_ = ln.Close()
		return nil, err
	}
	s.grpc = grpc.NewServer(opts...)
	healthpb.RegisterHealthServer(s.grpc, s.health)
	return s, nil
}

// GRPC is where services are registered, before Run.
func (s *Server) GRPC() *grpc.Server { return s.grpc }

// Addr is the address it listens on.
func (s *Server) Addr() string { return s.ln.Addr().String() }

// Advertise is the address to tell others.
func (s *Server) Advertise() string { return s.advertise }

// SetServing tells whether the server can do its work; it can, unless it is told
// otherwise. With false health says NOT_SERVING, which sends clients elsewhere;
// with true it says SERVING, but only while Run takes calls.
func (s *Server) SetServing(serving bool) { s.health.able(serving) }

// Run serves until ctx ends, then stops: health says NOT_SERVING, no new calls
// are taken, calls in progress get StopBudget, and what is left is cut off.
// Streams end only when their handlers return: end them before, or they use up
// the budget.
func (s *Server) Run(ctx context.Context) error {
	served := make(chan error, 1)
	go func() { served <- s.grpc.Serve(s.ln) }()
	s.health.run(true)
	select {
	case err := <-served:
		s.Close()
		return fmt.Errorf("rpc: %w", err)
	case <-ctx.Done():
	}
	s.health.run(false)
	time.Sleep(noticeTime)
	s.health.close()

	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		s.grpc.GracefulStop()
	}()
	budget := time.NewTimer(s.cfg.StopBudget)
	defer budget.Stop()
	select {
	case <-stopped:
	case <-budget.C:
		s.log.Warn("calls cut off at the end of the stop budget", "budget", s.cfg.StopBudget)
		s.grpc.Stop()
		<-stopped
	}
	if err := <-served; err != nil {
		return fmt.Errorf("rpc: %w", err)
	}
	return nil
}

// Close stops at once; for servers that Run was never called on.
func (s *Server) Close() {
	s.health.run(false)
	s.health.close()
	s.grpc.Stop()
	_ = s.ln.Close()
}

// unary is the one interceptor of unary calls.
func (s *Server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (res any, err error) {
	begin := time.Now()
	defer func() {
		if p := recover(); p != nil {
			err = s.panicked(ctx, info.FullMethod, p)
		}
		s.metrics.observe(info.FullMethod, begin, err)
		s.report(ctx, info.FullMethod, err)
		err = toStatus(err)
	}()
	if err := s.authorise(ctx, info.FullMethod); err != nil {
		return nil, err
	}
	guarded, cancel, err := guardDeadline(ctx)
	if err != nil {
		return nil, err
	}
	defer cancel()
	return handler(guarded, req)
}

// stream is the one interceptor of streams; it does nothing per message.
func (s *Server) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	open := s.metrics.method(info.FullMethod).streams
	open.Inc()
	defer func() {
		if p := recover(); p != nil {
			err = s.panicked(ss.Context(), info.FullMethod, p)
		}
		open.Dec()
		s.metrics.ended(info.FullMethod, err)
		s.report(ss.Context(), info.FullMethod, err)
		err = toStatus(err)
	}()
	if err := s.authorise(ss.Context(), info.FullMethod); err != nil {
		return err
	}
	return handler(srv, ss)
}

func (s *Server) panicked(ctx context.Context, method string, p any) error {
	s.log.ErrorContext(ctx, "handler panicked", "method", method, "panic", p, "stack", string(debug.Stack()))
	return im.E(im.KindInternal, reasonInternal, fmt.Errorf("panic: %v", p))
}

// report logs what only this side knows the cause of.
func (s *Server) report(ctx context.Context, method string, err error) {
	if err == nil || ctx.Err() != nil || !s.errors.Allow() {
		return
	}
	switch im.KindOf(err) {
	case im.KindInternal:
		if strings.HasPrefix(method, "/grpc.health.") {
			return
		}
		s.log.ErrorContext(ctx, "call failed", "method", method, "err", err)
	case im.KindUnavailable, im.KindUnknown:
		s.log.WarnContext(ctx, "call failed", "method", method, "err", err)
	case im.KindInvalid, im.KindUnauthorized, im.KindForbidden, im.KindNotFound, im.KindConflict, im.KindExhausted:
		// the caller's affair
	}
}

// advertised completes the configured address from what the listener got.
func advertised(configured string, got *net.TCPAddr) (string, error) {
	port := fmt.Sprint(got.Port)
	if configured != "" {
		if _, _, err := net.SplitHostPort(configured); err == nil {
			return configured, nil
		}
		return net.JoinHostPort(strings.Trim(configured, "[]"), port), nil
	}
	if !got.IP.IsUnspecified() {
		return net.JoinHostPort(got.IP.String(), port), nil
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return "", fmt.Errorf("rpc: advertise: %w", err)
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && n.IP.IsGlobalUnicast() {
			return net.JoinHostPort(n.IP.String(), port), nil
		}
	}
	return net.JoinHostPort("127.0.0.1", port), nil
}
