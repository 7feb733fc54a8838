package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
)

type etcdServer struct{ etcd *embed.Etcd }

// startEtcd runs a cluster of one. The short ticks make it ready in an eighth
// of a second and let it grant leases of one second; a cluster of one has no
// elections that a short timeout could upset.
func startEtcd(args []string) (server, error) {
	fs := flag.NewFlagSet("etcd", flag.ContinueOnError)
	data := fs.String("data", "", "data directory (required)")
	client := fs.String("client", "127.0.0.1:0", "address for clients")
	peer := fs.String("peer", "127.0.0.1:0", "address for peers; a cluster of one never uses it")
	if err := parse(fs, args); err != nil {
		return nil, err
	}
	if *data == "" {
		return nil, errors.New("-data is required")
	}
	clientURL := url.URL{Scheme: "http", Host: *client}
	peerURL := url.URL{Scheme: "http", Host: *peer}

	cfg := embed.NewConfig()
	cfg.Dir = *data
	cfg.Name = "local"
	cfg.TickMs = 50
	cfg.ElectionMs = 250
	cfg.ListenClientUrls = []url.URL{clientURL}
	cfg.AdvertiseClientUrls = []url.URL{clientURL}
	cfg.ListenPeerUrls = []url.URL{peerURL}
	cfg.AdvertisePeerUrls = []url.URL{peerURL}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	// Keep an hour of history: a local cluster must not grow without end.
	cfg.AutoCompactionMode = embed.CompactorModePeriodic
	cfg.AutoCompactionRetention = "1h"
	// Its own Close reports four harmless errors, which only frighten readers of the log.
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())

	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	select {
	case <-e.Server.ReadyNotify():
		return &etcdServer{e}, nil
	case err := <-e.Err():
		e.Close()
		return nil, err
	case <-ctx.Done():
		e.Close()
		return nil, fmt.Errorf("not ready: %w", ctx.Err())
	}
}

func (s *etcdServer) Addrs() []string {
	return []string{"client=" + s.etcd.Clients[0].Addr().String()}
}

func (s *etcdServer) Failed() <-chan error { return s.etcd.Err() }

func (s *etcdServer) Stop() error {
	s.etcd.Close()
	return nil
}
