// Package discovery finds the instances of services through etcd. It is the
// only package that knows etcd.
//
// An instance is a key under a lease. Watchers distrust bad news: an instance
// that vanishes without having said goodbye is kept for a moment, what vanished
// while etcd was away is kept longer, and the resolver for gRPC never ends up
// with nothing. So etcd may be down, frozen or wiped and calls go on between
// the instances known before.
package discovery

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"im-services/internal/platform/config"
)

const (
	// opLimit bounds one request to etcd.
	opLimit = 2 * time.Second
	// retryEvery is the pause after a failure, plus up to as much again.
	retryEvery = 250 * time.Millisecond
)

// Config is the yaml section "discovery". Zero fields take the defaults named.
type Config struct {
	Endpoints []string      `yaml:"endpoints"` // etcd host:port
	Prefix    string        `yaml:"prefix"`    // "/im/"
	LeaseTTL  time.Duration `yaml:"lease_ttl"` // 5s, whole seconds; a dead instance is gone after this and about a second
	Username  string        `yaml:"username"`
	Password  config.Secret `yaml:"password"`
	TLS       TLSConfig     `yaml:"tls"`
}

// TLSConfig names PEM files. With a CA, etcd must show a certificate of it; cert
// and key are what we show, if etcd wants that.
type TLSConfig struct {
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
	CA   string `yaml:"ca"`
}

// client returns nil for connections in the clear.
func (c TLSConfig) client() (*tls.Config, error) {
	if c == (TLSConfig{}) {
		return nil, nil // how etcd says that there is none
	}
	if c.CA == "" {
		return nil, errors.New("discovery: tls needs a ca")
	}
	info := transport.TLSInfo{CertFile: c.Cert, KeyFile: c.Key, TrustedCAFile: c.CA}
	conf, err := info.ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("discovery: tls: %w", err)
	}
	return conf, nil
}

// Instance is one running copy of a service.
type Instance struct {
	ID   string
	Addr string // host:port
	Meta map[string]string
}

// Registry is a connection to etcd. Safe for concurrent use.
type Registry struct {
	cfg    Config
	log    *slog.Logger
	client *clientv3.Client

	ctx    context.Context // the life of the watchers, which outlive any call
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu       sync.Mutex // guards the following fields
	watchers map[string]*Watcher
}

// Open makes the client and returns at once; etcd may be away.
func Open(cfg Config, log *slog.Logger) (*Registry, error) {
	if len(cfg.Endpoints) == 0 {
		return nil, errors.New("discovery: no etcd endpoint")
	}
	if cfg.Prefix == "" {
		cfg.Prefix = "/im/"
	}
	if !strings.HasPrefix(cfg.Prefix, "/") || !strings.HasSuffix(cfg.Prefix, "/") {
		return nil, fmt.Errorf("discovery: prefix %q must begin and end with a slash", cfg.Prefix)
	}
	if cfg.LeaseTTL <= 0 {
		cfg.LeaseTTL = 5 * time.Second
	}
	conf, err := cfg.TLS.client()
	if err != nil {
		return nil, err
	}
	client, err := clientv3.New(clientv3.Config{
		TLS:                  conf,
		Endpoints:            cfg.Endpoints,
		Username:             cfg.Username,
		Password:             cfg.Password.Reveal(),
		DialTimeout:          opLimit,
		DialKeepAliveTime:    10 * time.Second,
		DialKeepAliveTimeout: 3 * time.Second,
		Logger:               zap.NewNop(), // it repeats what our own lines say
		DialOptions: []grpc.DialOption{
			grpc.WithConnectParams(grpc.ConnectParams{
				Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
				MinConnectTimeout: opLimit,
			}),
			grpc.WithNoProxy(), // a proxy of the environment is for the world outside
		},
	})
	if err != nil {
		return nil, fmt.Errorf("discovery: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Registry{
		cfg: cfg, log: log, client: client,
		ctx: ctx, cancel: cancel,
		watchers: make(map[string]*Watcher),
	}, nil
}

// Close ends the watchers and the client. Registrations that were not
// deregistered expire by themselves.
func (r *Registry) Close() error {
	r.cancel()
	r.wg.Wait()
	return r.client.Close()
}

// folder is the key prefix of a service's instances.
func (r *Registry) folder(service string) string { return r.cfg.Prefix + service + "/" }

// ttlSeconds is the lease's time to live as etcd takes it.
func (r *Registry) ttlSeconds() int64 {
	return max(1, int64(r.cfg.LeaseTTL/time.Second))
}

// pause waits for d and up to as much again, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d + rand.N(d)): //nolint:gosec // jitter
	case <-ctx.Done():
	}
}
