package check

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/redis/go-redis/v9"

	"im-services/internal/cluster"
	"im-services/internal/nsqchaos"
	"im-services/internal/tcpproxy"
)

// system is what is checked: a cluster of our own, or something that runs.
type system struct {
	addresses []string // of gateways, as clients reach them
	dsn       string   // of the database im_logic of what runs at Base; empty if not to be had
	cluster   *cluster.Cluster
	stateDir  string
	replica   bool   // the database has one
	promoted  func() // called in a change of the database's roles, if set

	seed  uint64
	disks []disk // that can be filled
	clock bool   // the services' clocks can be turned

	mu    sync.Mutex
	links map[string]*tcpproxy.Proxy // guarded by mu; by name, "logic-1>mysql"
	buses map[string]*nsqchaos.Proxy // guarded by mu; before the link of that name
}

// startSystem starts a cluster with a proxy on every link that can have one, or
// takes what runs at Base.
func startSystem(ctx context.Context, o *Options, dir, root string, want func(kind, target string) bool) (*system, error) {
	s := &system{seed: o.Seed, replica: o.Replica, links: map[string]*tcpproxy.Proxy{}, buses: map[string]*nsqchaos.Proxy{}}
	if o.Base != "" {
		s.addresses = strings.Split(o.Base, ",")
		if o.DSN != "" {
			cfg, err := mysql.ParseDSN(o.DSN)
			if err != nil {
				return nil, fmt.Errorf("check: the DSN: %w", err)
			}
			cfg.DBName = "im_logic"
			s.dsn = cfg.FormatDSN()
		}
		return s, nil
	}
	s.stateDir = filepath.Join(dir, "cluster")
	s.unmountDisks() // of a run of the same seed that was killed
	if err := os.RemoveAll(s.stateDir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(s.stateDir, 0o750); err != nil {
		return nil, err
	}
	opts := cluster.Options{
		StateDir: s.stateDir, Progress: o.Progress, MySQLReplica: o.Replica, Rerouted: s.rerouted, Replicated: s.replicated,
		Env: func(_ *cluster.Cluster, name string, env map[string]string) {
			if strings.HasPrefix(name, "friend-") { // friendships end and begin hundreds of times here
				env["IM_FRIEND_REQUESTS_PER_DAY"] = "1000000"
			}
			for k, v := range o.Env {
				env[k] = v
			}
			if o.Faults != "none" {
				s.route(name, env)
			}
		},
	}
	if len(o.Tags) > 0 {
		opts.BuildFlags = []string{"-tags=" + strings.Join(o.Tags, ",")}
	}
	s.prepare(ctx, o, root, want, &opts)
	c, err := cluster.Start(ctx, opts)
	if err != nil {
		s.close()
		return nil, err
	}
	s.cluster = c
	for n := 1; n <= 2; n++ {
		addr, err := s.link(fmt.Sprintf("clients>gateway-%d", n), strings.TrimPrefix(c.GatewayURL(n), "http://"))
		if err != nil {
			s.close()
			return nil, err
		}
		s.addresses = append(s.addresses, "http://"+addr)
	}
	return s, nil
}

// prepare makes possible what must be built in before a cluster starts. What
// this machine does not allow is left out, and said.
func (s *system) prepare(ctx context.Context, o *Options, root string, want func(kind, target string) bool, opts *cluster.Options) {
	wanted := func(kinds []string, targets ...string) bool {
		for _, kind := range kinds {
			for _, target := range targets {
				if want != nil && want(kind, target) {
					return true
				}
			}
		}
		return false
	}
	if wanted([]string{DiskFull}, "mysql", "uploads", "nsqd") && !o.Replica { // either server may be the primary
		if err := s.mountDisks(ctx); err != nil {
			_, _ = fmt.Fprintf(o.Progress, "no disk will be full: %v\n", err)
		}
	}
	if wanted(clockKinds, serviceNames...) {
		flag, err := clockOverlay(ctx, root)
		if err != nil {
			_, _ = fmt.Fprintf(o.Progress, "no clock will be wrong: %v\n", err)
			return
		}
		opts.BuildFlags = append(opts.BuildFlags, flag)
		s.clock = true
	}
}

// serviceNames are the processes of ours in a cluster of the checker.
var serviceNames = []string{"gateway-1", "gateway-2", "logic-1", "logic-2", "auth-1", "auth-2", "friend-1", "friend-2"}

// extras are the faults that only some targets can suffer, with those.
func (s *system) extras() []extra {
	if s.cluster == nil {
		return nil
	}
	out := []extra{{Down, s.mended()}}
	if _, err := s.snapshot(); err == nil { // a work-alike has none
		out = append(out, extra{Rewind, []string{"redis"}})
	}
	s.mu.Lock()
	out = append(out, extra{Chaos, sortedKeys(s.buses)})
	s.mu.Unlock()
	if len(s.disks) > 0 {
		full := extra{kind: DiskFull}
		for _, d := range s.disks {
			full.targets = append(full.targets, d.name)
		}
		out = append(out, full)
	}
	if s.clock {
		for _, kind := range clockKinds {
			out = append(out, extra{kind, serviceNames})
		}
	}
	out = append(out, s.roleFaults()...)
	if canLimitFiles() {
		out = append(out, extra{Files, serviceNames})
	}
	if canLimitMemory() {
		out = append(out, extra{Memory, serviceNames})
	}
	return out
}

// route puts a proxy on every link of a process: to the servers it uses, and
// from those who call it.
func (s *system) route(name string, env map[string]string) {
	if strings.HasSuffix(name, "-migrate") {
		return
	}
	via := func(key, server string) {
		if env[key] == "" {
			return
		}
		if addr, err := s.link(name+">"+server, env[key]); err == nil {
			env[key] = addr
		}
	}
	via("IM_DISCOVERY_ENDPOINTS", "etcd")
	via("IM_CACHE_ADDR", "redis")
	via("IM_BUS_NSQD", "nsqd")
	if strings.HasPrefix(name, "gateway-") { // who consumes
		if addr, err := s.bus(name+">nsqd", env["IM_BUS_NSQD"]); err == nil {
			env["IM_BUS_NSQD"] = addr
		}
	}
	if s.clock {
		if file, err := clockFile(s.clockDir(), name); err == nil {
			env[clockEnv] = file
		}
	}
	if cfg, err := mysql.ParseDSN(env["IM_DATABASE_DSN"]); err == nil && cfg.Net == "tcp" {
		if addr, err := s.link(name+">mysql", cfg.Addr); err == nil {
			cfg.Addr = addr
			env["IM_DATABASE_DSN"] = cfg.FormatDSN()
		}
	}
	if listen := env["IM_RPC_LISTEN"]; listen != "" {
		if addr, err := s.link("callers>"+name, listen); err == nil {
			env["IM_RPC_ADVERTISE"] = addr
		}
	}
}

// link returns the address of the proxy of that name, made if there is none: a
// process that starts again keeps its links.
func (s *system) link(name, target string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.links[name]; p != nil {
		return p.Addr, nil
	}
	p, err := tcpproxy.New(target)
	if err != nil {
		return "", err
	}
	s.links[name] = p
	return p.Addr, nil
}

// bus is link for what spoils the messages of NSQ.
func (s *system) bus(name, target string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.buses[name]; p != nil {
		return p.Addr, nil
	}
	p, err := nsqchaos.New(target, prng(s.seed, "bus "+name, 0).Uint64())
	if err != nil {
		return "", err
	}
	s.buses[name] = p
	return p.Addr, nil
}

// proxy returns the proxy of a link, nil if there is none.
func (s *system) proxy(link string) *tcpproxy.Proxy {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.links[link]
}

func (s *system) linkNames() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return sortedKeys(s.links)
}

func (s *system) processNames() []string {
	if s.cluster == nil {
		return nil
	}
	var out []string
	for _, p := range s.cluster.Processes() {
		out = append(out, p.Name())
	}
	return out
}

// mended are the processes that are started again when they end: the servers of a
// pair are not.
func (s *system) mended() []string {
	return slices.DeleteFunc(s.processNames(), func(name string) bool { return s.replica && strings.HasPrefix(name, "mysql") })
}

// close ends an own cluster and every proxy.
func (s *system) close() {
	if s.cluster != nil {
		s.cluster.Stop()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.buses {
		p.Close()
	}
	for _, p := range s.links {
		p.Close()
	}
	s.unmountDisks()
}

// recovery bounds the time until a process serves again.
const recovery = 60 * time.Second

// inject does f to the system and returns when it is over: what was killed
// serves again, what was slow is not.
func (s *system) inject(ctx context.Context, f *fault) error {
	ctx, cancel := context.WithTimeout(ctx, f.Length+recovery)
	defer cancel()
	switch f.Kind {
	case Kill:
		return s.kill(ctx, f.Target)
	case Pause:
		p := s.cluster.Process(f.Target)
		if err := p.Pause(); err != nil {
			return err
		}
		sleep(ctx, f.Length)
		if err := p.Resume(); err != nil {
			return err
		}
		return p.WaitReady(ctx)
	case Restart:
		return s.cluster.Process(f.Target).Restart(ctx)
	case Flush:
		return s.flush(ctx)
	case KillFlush:
		if f.Target != "redis" {
			if err := s.flush(ctx); err != nil {
				return err
			}
		}
		return s.kill(ctx, f.Target)
	case KillAll:
		var wg sync.WaitGroup
		errs := make([]error, 2)
		for n := range errs {
			wg.Go(func() { errs[n] = s.kill(ctx, fmt.Sprintf("%s-%d", f.Target, n+1)) })
		}
		wg.Wait()
		for _, err := range errs {
			if err != nil {
				return err
			}
		}
		return nil
	case Down:
		p := s.cluster.Process(f.Target)
		p.Halt()
		sleep(ctx, f.Length)
		return p.Start(ctx)
	case Rewind:
		return s.rewind(ctx, f)
	case Chaos:
		s.mu.Lock()
		p := s.buses[f.Target]
		s.mu.Unlock()
		if p == nil {
			return fmt.Errorf("check: no bus %q", f.Target)
		}
		p.Misbehave(nsqchaos.Tenth)
		sleep(ctx, f.Length)
		p.Heal()
		return nil
	case Drop:
		return s.dropAll(ctx, f)
	case Strand:
		return s.strand(ctx, f)
	case DiskFull:
		return s.fillDisk(ctx, f)
	case ClockAhead, ClockBehind, ClockStrobe:
		return s.turnClock(ctx, f)
	case Files:
		return s.exhaustFiles(ctx, f)
	case Memory:
		return s.exhaustMemory(ctx, f)
	default:
		return s.spoil(ctx, f)
	}
}

func (s *system) kill(ctx context.Context, name string) error {
	p := s.cluster.Process(name)
	p.Kill()
	return p.WaitReady(ctx)
}

// spoil makes a link misbehave for a while.
func (s *system) spoil(ctx context.Context, f *fault) error {
	p := s.proxy(f.Target)
	if p == nil {
		return fmt.Errorf("check: no link %q", f.Target)
	}
	switch f.Kind {
	case Partition:
		p.Partition()
	case LoseTo:
		p.LoseRequests()
	case LoseFrom:
		p.LoseAnswers()
	case Delay:
		p.Slow(200*time.Millisecond, 0)
	case Thin:
		p.Slow(0, 64<<10)
	case Reset:
		p.Reset()
		return nil
	case Refuse:
		p.Cut()
	case Stall:
		p.StallAnswers()
	default:
		return fmt.Errorf("check: no fault of kind %q", f.Kind)
	}
	sleep(ctx, f.Length)
	p.Heal()
	return nil
}

// redis connects to Redis; the connection must be closed.
func (s *system) redis() *redis.Client {
	return redis.NewClient(&redis.Options{Addr: s.cluster.Addr("redis"), Protocol: 2, DisableIdentity: true})
}

// flush makes Redis forget everything.
func (s *system) flush(ctx context.Context) error {
	rdb := s.redis()
	defer func() { _ = rdb.Close() }()
	return rdb.FlushAll(ctx).Err()
}

// snapshot returns the file that Redis loads when it starts, if there is one.
func (s *system) snapshot() (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), recovery)
	defer cancel()
	rdb := s.redis()
	defer func() { _ = rdb.Close() }()
	set, err := rdb.ConfigGet(ctx, "d*").Result()
	return filepath.Join(set["dir"], set["dbfilename"]), err
}

// rewind kills Redis and has it come back as it was when the fault began. The
// next time that it dies it comes back with nothing again.
func (s *system) rewind(ctx context.Context, f *fault) error {
	file, err := s.snapshot()
	if err != nil {
		return err
	}
	rdb := s.redis()
	defer func() { _ = rdb.Close() }()
	if err := rdb.Save(ctx).Err(); err != nil {
		return err
	}
	sleep(ctx, f.Length)
	err = s.kill(ctx, "redis")
	return errors.Join(err, os.Remove(file))
}

// heal ends every fault and returns when everything serves.
func (s *system) heal(ctx context.Context) error {
	s.mu.Lock()
	for _, p := range s.links {
		p.Heal()
	}
	for _, p := range s.buses {
		p.Heal()
	}
	s.mu.Unlock()
	if s.cluster == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, recovery)
	defer cancel()
	for _, p := range s.cluster.Processes() {
		if err := p.WaitReady(ctx); err != nil {
			return fmt.Errorf("check: %s does not come back: %w", p.Name(), err)
		}
	}
	return nil
}

// sleep waits, but not beyond the end of ctx.
func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// logFile is what a process of an own cluster writes.
func (s *system) logFile(name string) string { return cluster.State(s.stateDir).LogFile(name) }
