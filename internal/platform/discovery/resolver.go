package discovery

import (
	"errors"
	"sync"
	"time"

	"google.golang.org/grpc/resolver"
)

// Scheme is the scheme of gRPC targets that are resolved here: "im:///logic".
const Scheme = "im"

// noInstanceAfter is how long calls wait for a first instance before they fail.
const noInstanceAfter = 2 * time.Second

var errNoInstance = errors.New("discovery: no instance is known")

// Resolver resolves targets like im:///logic to the instances of a service.
// It never takes the last known instances away.
func (r *Registry) Resolver() resolver.Builder {
	if r == nil {
		return nil
	}
	return builder{r}
}

type builder struct{ registry *Registry }

func (builder) Scheme() string { return Scheme }

func (b builder) Build(target resolver.Target, cc resolver.ClientConn, _ resolver.BuildOptions) (resolver.Resolver, error) {
	service := target.Endpoint()
	if service == "" {
		return nil, errors.New("discovery: target names no service: want im:///service")
	}
	res := &grpcResolver{watcher: b.registry.Watch(service), cc: cc, stop: make(chan struct{})}
	res.wg.Go(res.run)
	return res, nil
}

// grpcResolver passes a watcher's list to one gRPC connection.
type grpcResolver struct {
	watcher *Watcher
	cc      resolver.ClientConn
	stop    chan struct{}
	once    sync.Once
	wg      sync.WaitGroup
}

func (g *grpcResolver) run() {
	impatient := time.NewTimer(noInstanceAfter)
	defer impatient.Stop()
	known := false
	for {
		change := g.watcher.Changed()
		if list := g.watcher.Instances(); len(list) > 0 {
			known = true
			_ = g.cc.UpdateState(resolver.State{Endpoints: endpoints(list)})
		}
		select {
		case <-g.stop:
			return
		case <-change:
		case <-impatient.C:
			if !known {
				g.cc.ReportError(errNoInstance)
			}
		}
	}
}

func endpoints(list []Instance) []resolver.Endpoint {
	out := make([]resolver.Endpoint, len(list))
	for i, inst := range list {
		out[i] = resolver.Endpoint{Addresses: []resolver.Address{{Addr: inst.Addr}}}
	}
	return out
}

// ResolveNow does nothing: changes come by themselves.
func (*grpcResolver) ResolveNow(resolver.ResolveNowOptions) {}

// Close ends the updates.
func (g *grpcResolver) Close() {
	g.once.Do(func() { close(g.stop) })
	g.wg.Wait()
}
