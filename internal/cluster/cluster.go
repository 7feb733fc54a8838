package cluster

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"im-services/internal/cluster/infra"
	"im-services/internal/cluster/process"
)

// Cluster is a running system. Its methods may be called from any goroutine.
type Cluster struct {
	opts     Options
	state    State
	addrs    addrs
	roles    roles
	bin      string
	balanced bool
	log      *slog.Logger
	started  time.Time

	processes []*Process // in the order of their start
	byName    map[string]*Process

	wg       sync.WaitGroup
	closing  chan struct{}
	stopOnce sync.Once
	releases []func() // locks, newest last
	balancer *balancer
	logFile  *os.File

	progressMu sync.Mutex // guards writing to opts.Progress, and the following fields
	lastSaid   time.Time
	busy       []string // steps of the start that are under way
}

// Start starts the whole system and returns once every process serves. On an
// error everything that was started is stopped again. ctx bounds the start only.
func Start(ctx context.Context, opts Options) (_ *Cluster, err error) {
	opts, err = opts.withDefaults()
	if err != nil {
		return nil, err
	}
	c := &Cluster{
		opts: opts, state: State(opts.StateDir), byName: map[string]*Process{},
		closing: make(chan struct{}), started: time.Now(), lastSaid: time.Now(), balanced: opts.Balancer || !hasReusePort,
	}
	release, err := c.state.lock(10 * time.Millisecond)
	if err != nil {
		return nil, err
	}
	c.releases = append(c.releases, release)
	defer func() {
		if err != nil {
			c.Stop()
		}
	}()
	if c.logFile, err = os.OpenFile(c.state.LogFile(SupervisorName), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
		return nil, err
	}
	c.log = slog.New(slog.NewTextHandler(c.logFile, nil))
	swept, err := c.state.sweep(serviceStop)
	if err != nil {
		return nil, err
	}
	if len(swept) > 0 {
		c.say("ended %d processes that an earlier run left behind: %v", len(swept), swept)
	}
	self, _ := process.StartTime(os.Getpid())
	if err := process.WritePidFile(c.state.PidFile(SupervisorName), os.Getpid(), self); err != nil {
		return nil, err
	}
	if err := c.choosePorts(); err != nil {
		return nil, err
	}
	starting, started := context.WithCancel(ctx)
	c.wg.Go(func() { c.signsOfLife(starting) })
	err = c.bringUp(ctx)
	started()
	if err != nil {
		return nil, err
	}
	c.wg.Go(c.trimLogs)
	c.log.Info("cluster is ready", "took", time.Since(c.started).Round(time.Millisecond))
	return c, c.writeInfo(true)
}

// choosePorts computes every address and makes sure nobody holds one.
func (c *Cluster) choosePorts() error {
	base := c.opts.BasePort
	if base == 0 {
		found, release, err := freeBlock(c.opts)
		if err != nil {
			return err
		}
		c.releases = append(c.releases, release)
		base = found
	}
	var ports map[int]string
	c.addrs, ports = layout(c.opts, base)
	return checkPorts(ports)
}

// bringUp builds and starts everything, side by side where it can be.
func (c *Cluster) bringUp(ctx context.Context) error {
	if err := c.checkExternal(ctx); err != nil {
		return err
	}
	built := make(chan struct{})
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(built)
		return c.buildServices(gctx)
	})
	g.Go(func() error { return c.startInfra(gctx, built) })
	if err := g.Wait(); err != nil {
		return err
	}

	if err := c.migrateAll(ctx); err != nil {
		return err
	}
	return c.startServices(ctx)
}

// migrateAll brings all schemas up to date, each on its own: the failure of one is
// no reason to leave another half done.
func (c *Cluster) migrateAll(ctx context.Context) error {
	c.say("bringing the schemas up to date")
	defer c.busyWith("bringing the schemas up to date")()
	defer context.AfterFunc(ctx, func() { c.say("stopping as soon as the schemas are up to date: half a migration is worse") })()
	var g errgroup.Group
	for _, s := range services {
		if s.database != "" {
			g.Go(func() error { return c.migrate(ctx, s) })
		}
	}
	return errors.Join(g.Wait(), ctx.Err())
}

func (c *Cluster) buildServices(ctx context.Context) error {
	if c.bin = c.opts.BinDir; c.bin != "" {
		return nil
	}
	c.say("building the services (the first time takes a minute or two)")
	defer c.busyWith("building the services")()
	begin := time.Now()
	var err error
	if c.bin, err = c.state.Build(ctx, c.opts.Root, c.opts.BuildFlags); err != nil {
		return err
	}
	c.say("services built in %s", since(begin))
	return nil
}

// startInfra starts the servers that are not given from outside. built is closed
// when the services are built. Each step has a limit of its own; a build of the
// services has none, for a person sees it going on.
func (c *Cluster) startInfra(ctx context.Context, built <-chan struct{}) error {
	g, gctx := errgroup.WithContext(ctx)
	helper := sync.OnceValues(func() (string, error) {
		done := func() {}
		defer func() { done() }()
		return infra.Helper(gctx, c.opts.Root, func() {
			// Not side by side: what both need would be compiled twice.
			select {
			case <-built:
			case <-gctx.Done():
			}
			c.say("building etcd and nsqd from their sources (once)")
			done = c.busyWith("building etcd and nsqd")
		})
	})
	if c.opts.External.MySQLDSN != "" {
		c.say("mysql: IM_MYSQL_DSN is given, using that server")
		g.Go(func() error { return c.prepareExternal(gctx) })
	} else {
		servers := []*Process{c.add("mysql", nil)}
		if c.opts.MySQLReplica {
			servers = append(servers, c.add("mysql-2", nil))
		}
		g.Go(func() error { return c.startMySQL(gctx, servers...) })
	}
	if c.opts.External.RedisAddr != "" {
		c.say("redis: IM_REDIS_ADDR is given, using that server")
	} else {
		p := c.add("redis", nil)
		g.Go(func() error { return c.startRedis(gctx, p, helper) })
	}
	if len(c.opts.External.Etcd) > 0 {
		c.say("etcd: IM_ETCD is given, using those servers")
	} else {
		p := c.add("etcd", nil)
		g.Go(func() error {
			return c.startHelper(gctx, p, helper, func(bin string) infra.Unit {
				return infra.Etcd(bin, p.name, c.state.data("etcd"), c.state.LogFile(p.name), c.port("etcd"), c.port("etcd/peer"))
			})
		})
	}
	if c.opts.External.NSQD != "" {
		c.say("nsqd: IM_NSQD is given, using that server")
	} else {
		lookupd, nsqd := c.add("nsqlookupd", nil), c.add("nsqd", nil)
		g.Go(func() error {
			err := c.startHelper(gctx, lookupd, helper, func(bin string) infra.Unit {
				return infra.NSQLookupd(bin, lookupd.name, c.state.LogFile(lookupd.name), c.port("nsqlookupd"), c.port("nsqlookupd/http"))
			})
			if err != nil {
				return err
			}
			return c.startHelper(gctx, nsqd, helper, func(bin string) infra.Unit {
				return infra.NSQD(bin, nsqd.name, c.state.data("nsqd"), c.state.LogFile(nsqd.name), c.port("nsqd"), c.port("nsqd/http"), c.addrs["nsqlookupd"])
			})
		})
	}
	return g.Wait()
}

func (c *Cluster) startRedis(ctx context.Context, p *Process, helper func() (string, error)) error {
	defer c.busyWith("getting Redis ready")()
	program, err := infra.FindRedis(ctx, c.say)
	if ctx.Err() != nil {
		return err
	}
	if err != nil {
		bin, helperErr := helper()
		if helperErr != nil {
			return errors.Join(err, helperErr)
		}
		c.log.Warn("no Redis", "err", err)
		c.say("WARNING: no Redis to be had, make logs NAME=supervisor says why; a work-alike stands in: slower, and not to be measured")
		program = infra.Program{Path: bin, Prefix: []string{"redis"}, Origin: "work-alike built in"}
	}
	dir := c.state.data("redis")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	p.unit = func() (infra.Unit, error) {
		return infra.Redis(program, p.name, dir, c.state.LogFile(p.name), c.port("redis")), nil
	}
	return c.startInfraProcess(ctx, p, program.Origin)
}

func (c *Cluster) startHelper(ctx context.Context, p *Process, helper func() (string, error), unit func(bin string) infra.Unit) error {
	bin, err := helper()
	if err != nil {
		return err
	}
	p.unit = func() (infra.Unit, error) { return unit(bin), nil }
	return c.startInfraProcess(ctx, p, "built from source")
}

func (c *Cluster) startInfraProcess(ctx context.Context, p *Process, origin string) error {
	ctx, cancel := context.WithTimeout(ctx, infraLimit)
	defer cancel()
	begin := time.Now()
	if err := p.firstStart(ctx); err != nil {
		return err
	}
	c.say("%-11s ready in %s (%s)", p.name, since(begin), origin)
	return nil
}

// startServices starts every replica of every service at once: each must cope
// with the others not being there yet, as on any other day.
func (c *Cluster) startServices(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, serviceLimit)
	defer cancel()
	if err := os.MkdirAll(c.state.data("uploads"), 0o700); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, s := range services {
		for n := 1; n <= c.opts.replicas(s.name); n++ {
			name := s.name + "-" + strconv.Itoa(n)
			p := c.add(name, func() (infra.Unit, error) { return c.serviceUnit(s, name) })
			g.Go(func() error {
				begin := time.Now()
				if err := p.firstStart(ctx); err != nil {
					return err
				}
				c.say("%-11s ready in %s", name, since(begin))
				return nil
			})
		}
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if c.balanced {
		var backends []string
		for n := 1; n <= c.opts.Gateways; n++ {
			backends = append(backends, c.addrs["gateway-"+strconv.Itoa(n)])
		}
		var err error
		if c.balancer, err = startBalancer(c.addrs["public"], backends, c.log); err != nil {
			return err
		}
	}
	return nil
}

// add makes a process known. It is called before anything of the cluster is shared.
func (c *Cluster) add(name string, unit func() (infra.Unit, error)) *Process {
	p := &Process{
		name: name, unit: unit, state: c.state, log: c.log, wg: &c.wg, closing: c.closing,
		noRestart: c.opts.NoRestart, turn: make(chan struct{}, 1),
	}
	c.processes = append(c.processes, p)
	c.byName[name] = p
	if err := c.writeInfo(false); err != nil {
		c.log.Error("the state cannot be recorded", "err", err)
	}
	return p
}

func (c *Cluster) writeInfo(complete bool) error {
	i := c.Info()
	i.Ready = complete
	return c.state.writeInfo(i)
}

// Info describes the cluster.
func (c *Cluster) Info() Info {
	i := Info{PublicURL: c.PublicURL(), Addrs: c.addrs, Ready: true}
	for _, p := range c.processes {
		i.Processes = append(i.Processes, p.name)
	}
	return i
}

// Stop ends every process, gateways first, then services, then servers, within
// five seconds. It is idempotent and returns when all are gone.
func (c *Cluster) Stop() {
	c.stopOnce.Do(func() {
		close(c.closing)
		if c.balancer != nil {
			c.balancer.close()
		}
		kinds := map[string]int{"auth": 1, "logic": 1, "friend": 1, "gateway": 0}
		for stage, limit := range []time.Duration{gatewayStop, serviceStop, infraStop} {
			var wg sync.WaitGroup
			for _, p := range c.processes {
				kind, isService := kinds[kindOf(p.name)]
				if !isService {
					kind = 2
				}
				if kind != stage {
					continue
				}
				wg.Go(func() {
					ctx, cancel := context.WithTimeout(context.Background(), limit)
					defer cancel()
					if err := p.Stop(ctx); err != nil {
						c.log.Warn("stop", "err", err)
					}
				})
			}
			wg.Wait()
		}
		c.wg.Wait()
		_ = os.Remove(c.state.PidFile(SupervisorName))
		_ = os.Remove(c.state.infoFile())
		if c.log != nil {
			c.log.Info("cluster has stopped")
			_ = c.logFile.Close()
		}
		for i := len(c.releases) - 1; i >= 0; i-- {
			c.releases[i]()
		}
	})
}

// kindOf returns "gateway" for "gateway-1".
func kindOf(name string) string {
	for _, s := range services {
		if len(name) > len(s.name) && name[:len(s.name)+1] == s.name+"-" {
			return s.name
		}
	}
	return name
}

// Process returns the process of that name: "mysql", "mysql-2", "redis", "etcd", "nsqd",
// "nsqlookupd", or a service and its number from 1, "gateway-1". It panics if
// there is none, which is a mistake of the caller's.
func (c *Cluster) Process(name string) *Process {
	p := c.byName[name]
	if p == nil {
		panic("cluster: no process " + name)
	}
	return p
}

// Processes returns all processes in the order of their start.
func (c *Cluster) Processes() []*Process { return append([]*Process(nil), c.processes...) }

// PublicURL is the address that clients use; connections to it are spread over
// the gateways.
func (c *Cluster) PublicURL() string { return "http://" + c.addrs["public"] }

// GatewayURL is the address of one gateway alone, counted from 1.
func (c *Cluster) GatewayURL(n int) string { return "http://" + c.Addr("gateway-"+strconv.Itoa(n)) }

// Addr returns host:port of a process's clients, of its debug listener
// ("logic-1/debug"), or of "nsqd/http". It panics if there is none.
func (c *Cluster) Addr(name string) string {
	addr, ok := c.addrs[name]
	if !ok {
		panic("cluster: no address " + name)
	}
	return addr
}

func (c *Cluster) port(name string) int {
	return portOf(c.addrs[name])
}
