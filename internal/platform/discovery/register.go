package discovery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// record is the value of an instance's key.
type record struct {
	Addr    string            `json:"addr"`
	Meta    map[string]string `json:"meta,omitempty"`
	Leaving bool              `json:"leaving,omitempty"` // said goodbye: believe its disappearance at once
}

// Registration keeps one instance registered.
type Registration struct {
	registry *Registry
	key      string
	rec      record

	cancel context.CancelFunc
	done   chan struct{}

	mu    sync.Mutex // guards the following field
	lease clientv3.LeaseID
}

// Register announces an instance and keeps it announced until Deregister or Close: a
// lost lease is replaced by a new one, with jitter. It waits for the first
// announcement no longer than ctx allows and returns without an error if etcd
// is away then; the attempts go on.
func (r *Registry) Register(ctx context.Context, service, id, addr string, meta map[string]string) (*Registration, error) {
	if service == "" || id == "" || strings.Contains(service+id, "/") {
		return nil, fmt.Errorf("discovery: service %q, id %q: want names without a slash", service, id)
	}
	if addr == "" {
		return nil, errors.New("discovery: no address to announce")
	}
	life, cancel := context.WithCancel(r.ctx)
	g := &Registration{
		registry: r,
		key:      r.folder(service) + id,
		rec:      record{Addr: addr, Meta: meta},
		cancel:   cancel,
		done:     make(chan struct{}),
	}
	first := make(chan struct{})
	r.wg.Go(func() { g.keep(life, first) })
	wait, stop := context.WithTimeout(ctx, opLimit)
	defer stop()
	select {
	case <-first:
	case <-wait.Done():
		r.log.Warn("etcd does not answer; registering goes on", "key", g.key)
	}
	return g, nil
}

// keep announces the instance again and again until ctx ends.
func (g *Registration) keep(ctx context.Context, first chan<- struct{}) {
	defer close(g.done)
	log := g.registry.log.With("key", g.key)
	failed := false
	for ctx.Err() == nil {
		lease, err := g.announce(ctx)
		if err != nil {
			if !failed && ctx.Err() == nil {
				log.Warn("registration failed", "err", err)
			}
			failed = true
			pause(ctx, retryEvery)
			continue
		}
		failed = false
		log.Info("registered")
		if first != nil {
			close(first)
			first = nil
		}
		why := g.hold(ctx, lease.alive)
		lease.stop()
		if ctx.Err() == nil {
			log.Warn(why)
			pause(ctx, retryEvery/2)
		}
	}
}

// hold returns why the instance has to be announced again, or when ctx ends.
func (g *Registration) hold(ctx context.Context, alive <-chan *clientv3.LeaseKeepAliveResponse) string {
	look := time.NewTicker(g.registry.cfg.LeaseTTL)
	defer look.Stop()
	for {
		select {
		case _, ok := <-alive:
			if !ok { // lost, or etcd was silent for longer than it lives
				return "lease lost"
			}
		case <-look.C:
			if g.missing(ctx) {
				return "key deleted by somebody"
			}
		}
	}
}

// missing reports that the key is gone although the lease is not. A key under
// another lease is that of a successor with the same id.
func (g *Registration) missing(ctx context.Context) bool {
	op, cancel := context.WithTimeout(ctx, opLimit)
	defer cancel()
	got, err := g.registry.client.Get(op, g.key, clientv3.WithCountOnly())
	return err == nil && got.Count == 0
}

// heldLease is a lease that is kept alive until stop.
type heldLease struct {
	alive <-chan *clientv3.LeaseKeepAliveResponse
	stop  func()
}

// announce takes a lease, puts the key under it and starts the keep-alive.
func (g *Registration) announce(ctx context.Context) (*heldLease, error) {
	op, cancel := context.WithTimeout(ctx, opLimit)
	defer cancel()
	client := g.registry.client
	grant, err := client.Grant(op, g.registry.ttlSeconds())
	if err != nil {
		return nil, fmt.Errorf("grant: %w", err)
	}
	g.mu.Lock()
	old := g.lease
	g.lease = grant.ID
	g.mu.Unlock()
	if _, err := client.Put(op, g.key, encode(g.rec), clientv3.WithLease(grant.ID)); err != nil {
		g.revoke(ctx, grant.ID)
		return nil, fmt.Errorf("put: %w", err)
	}
	if old != clientv3.NoLease {
		g.revoke(ctx, old) // it may still live when only our view of etcd was lost; the key is not under it any more
	}
	// A client keeps all its leases alive over one stream. Were it shared, the next
	// lease would be lost on a member of etcd that hangs, as this one will be.
	keeper := clientv3.NewLease(client)
	stop := func() { _ = keeper.Close() } // of its streams; the lease is revoked or expires
	alive, err := keeper.KeepAlive(ctx, grant.ID)
	if err != nil {
		stop()
		return nil, fmt.Errorf("keep alive: %w", err)
	}
	return &heldLease{alive, stop}, nil
}

// revoke gives a lease up as well as it can; otherwise it expires.
func (g *Registration) revoke(ctx context.Context, id clientv3.LeaseID) {
	op, cancel := context.WithTimeout(context.WithoutCancel(ctx), opLimit/2)
	defer cancel()
	_, _ = g.registry.client.Revoke(op, id)
}

// Deregister says goodbye, so that watchers drop the instance at once, and
// revokes the lease. Without etcd it returns an error within ctx and the lease
// expires by itself; the instance is not announced again either way.
func (g *Registration) Deregister(ctx context.Context) error {
	g.cancel()
	<-g.done
	g.mu.Lock()
	lease := g.lease
	g.lease = clientv3.NoLease
	g.mu.Unlock()
	if lease == clientv3.NoLease {
		return nil
	}
	op, cancel := context.WithTimeout(ctx, opLimit)
	defer cancel()
	leaving := g.rec
	leaving.Leaving = true
	client := g.registry.client
	// Only if the key is still ours: a successor may have taken the same id.
	_, err := client.Txn(op).
		If(clientv3.Compare(clientv3.LeaseValue(g.key), "=", lease)).
		Then(clientv3.OpPut(g.key, encode(leaving), clientv3.WithLease(lease))).
		Commit()
	if err != nil {
		return fmt.Errorf("discovery: deregister: %w", err)
	}
	if _, err := client.Revoke(op, lease); err != nil {
		return fmt.Errorf("discovery: deregister: %w", err)
	}
	return nil
}

func encode(rec record) string {
	b, err := json.Marshal(rec)
	if err != nil {
		panic(err) // strings only
	}
	return string(b)
}
