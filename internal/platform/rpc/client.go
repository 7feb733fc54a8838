package rpc

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	_ "google.golang.org/grpc/health" // the client side of health checking
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/peer"
)

const (
	// defaultDeadline is for unary calls whose context has none, and for one attempt
	// at what may be repeated.
	defaultDeadline = 2 * time.Second
	// maxAttempts is how often that is tried; the last has all the time that is left.
	maxAttempts = 3
	// maxResponse is what a client accepts in one message: a run of a backlog.
	maxResponse = 16 << 20
	// dialLimit bounds one attempt to connect.
	dialLimit = 2 * time.Second
)

// DialOption changes a client.
type DialOption func(*dialOptions)

type dialOptions struct {
	tls     TLSConfig
	retry   []string
	timeout time.Duration
}

// WithTLS connects with mutual TLS if cfg names files.
func WithTLS(cfg TLSConfig) DialOption { return func(o *dialOptions) { o.tls = cfg } }

// WithRetry lists the methods ("/logic.v1.MessageService/History") that are
// safe to repeat: they are tried up to three times when a server is unavailable
// or silent, and that their answer was lost changes nothing.
func WithRetry(methods ...string) DialOption {
	return func(o *dialOptions) { o.retry = append(o.retry, methods...) }
}

// WithTimeout sets the deadline of unary calls whose context has none, and how long
// a server may be silent before what is safe to repeat is asked of another; 2s.
func WithTimeout(d time.Duration) DialOption { return func(o *dialOptions) { o.timeout = d } }

// Dial returns a client of a service, such as "im:///logic", that spreads its
// calls over the healthy instances. It connects in the background. reg may be
// nil for targets of other schemes.
func Dial(target string, reg Discovery, tel Telemetry, opts ...DialOption) (*grpc.ClientConn, error) {
	var extra []grpc.DialOption
	if reg != nil {
		if b := reg.Resolver(); b != nil {
			extra = append(extra, grpc.WithResolvers(b))
		}
	}
	return dial(target, tel, opts, extra)
}

// DialAddr returns a client of the one instance at addr, host:port.
func DialAddr(addr string, tel Telemetry, opts ...DialOption) (*grpc.ClientConn, error) {
	return dial("passthrough:///"+addr, tel, opts, nil)
}

func dial(target string, tel Telemetry, opts []DialOption, extra []grpc.DialOption) (*grpc.ClientConn, error) {
	o := dialOptions{timeout: defaultDeadline}
	for _, f := range opts {
		f(&o)
	}
	creds := insecure.NewCredentials()
	if o.tls.enabled() {
		conf, err := o.tls.client()
		if err != nil {
			return nil, err
		}
		creds = credentials.NewTLS(conf)
	}
	conf, err := serviceConfig(o.retry)
	if err != nil {
		return nil, err
	}
	c := &caller{timeout: o.timeout, safe: o.retry, metrics: newMetrics(registerer(tel), "client")}
	cc, err := grpc.NewClient(target, append([]grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithContextDialer(dialListening),
		grpc.WithDefaultServiceConfig(conf),
		grpc.WithDisableServiceConfig(),
		grpc.WithChainUnaryInterceptor(c.unary),
		grpc.WithChainStreamInterceptor(c.stream),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxResponse)),
		grpc.WithMaxHeaderListSize(maxHeader),
		grpc.WithStaticStreamWindowSize(streamWindow),
		grpc.WithStaticConnWindowSize(connWindow),
		grpc.WithIdleTimeout(0), // a connection that must be made first is latency
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 3 * time.Second, PermitWithoutStream: true}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: dialLimit,
		}),
	}, extra...)...)
	if err != nil {
		return nil, fmt.Errorf("rpc: %s: %w", target, err)
	}
	cc.Connect()
	return cc, nil
}

// serviceConfig spreads calls over healthy instances and repeats safe ones.
// DialAddr uses it as well: only round_robin asks for health.
func serviceConfig(safe []string) (string, error) {
	type name struct {
		Service string `json:"service"`
		Method  string `json:"method"`
	}
	type retryPolicy struct {
		MaxAttempts    int      `json:"maxAttempts"`
		InitialBackoff string   `json:"initialBackoff"`
		MaxBackoff     string   `json:"maxBackoff"`
		Multiplier     float64  `json:"backoffMultiplier"`
		Codes          []string `json:"retryableStatusCodes"`
	}
	type methodConfig struct {
		Name  []name      `json:"name"`
		Retry retryPolicy `json:"retryPolicy"`
	}
	conf := map[string]any{
		"loadBalancingConfig": []any{map[string]any{"round_robin": struct{}{}}},
		"healthCheckConfig":   map[string]string{"serviceName": ""},
	}
	if len(safe) > 0 {
		mc := methodConfig{Retry: retryPolicy{3, "0.03s", "0.3s", 2, []string{"UNAVAILABLE"}}}
		for _, m := range safe {
			service, method, ok := strings.Cut(strings.TrimPrefix(m, "/"), "/")
			if !ok || method == "" {
				return "", fmt.Errorf("rpc: %q is not a full method name", m)
			}
			mc.Name = append(mc.Name, name{service, method})
		}
		conf["methodConfig"] = []methodConfig{mc}
	}
	b, err := json.Marshal(conf)
	if err != nil {
		return "", fmt.Errorf("rpc: service config: %w", err)
	}
	return string(b), nil
}

// caller holds what the interceptors of one client need.
type caller struct {
	timeout time.Duration
	safe    []string // methods that may be repeated
	metrics *metrics
}

func (c *caller) unary(ctx context.Context, method string, req, res any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.timeout)
		defer cancel()
	}
	begin := time.Now()
	var to peer.Peer // gRPC names one only if the call was given to a connection
	opts = append(opts, grpc.Peer(&to))
	safe := slices.Contains(c.safe, method)
	var err error
	for attempt := 1; ; attempt++ {
		silent := false
		if safe && attempt < maxAttempts {
			silent, err = c.attempt(ctx, func(ctx context.Context) error { return invoke(ctx, method, req, res, cc, opts...) })
		} else {
			err = invoke(ctx, method, req, res, cc, opts...)
		}
		if !silent {
			break
		}
	}
	err = fromStatus(ctx, err, to.Addr != nil && !safe)
	c.metrics.observe(method, begin, err)
	return err
}

// attempt makes a call with a share of the time. It reports whether that passed
// without an answer: the server may be frozen, and the next call goes to another.
func (c *caller) attempt(ctx context.Context, call func(context.Context) error) (silent bool, err error) {
	share, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	err = call(share)
	return err != nil && share.Err() != nil && ctx.Err() == nil, err
}

func (c *caller) stream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := open(ctx, desc, cc, method, opts...)
	if err != nil {
		err = fromStatus(ctx, err, false)
		c.metrics.ended(method, err)
		return nil, err
	}
	return &clientStream{ClientStream: s, caller: ctx}, nil
}

// clientStream turns the errors of a stream into ours; a message that passes
// costs one comparison.
type clientStream struct {
	grpc.ClientStream
	// The stream's own context is over whenever the stream is; only the
	// caller's tells whether the caller ended it.
	caller context.Context
}

func (s *clientStream) SendMsg(m any) error {
	return s.convert(s.ClientStream.SendMsg(m))
}

func (s *clientStream) RecvMsg(m any) error {
	return s.convert(s.ClientStream.RecvMsg(m))
}

func (s *clientStream) convert(err error) error {
	if err == nil {
		return nil
	}
	return fromStatus(s.caller, err, false)
}
