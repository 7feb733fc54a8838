package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"im-services/internal/bench"
	"im-services/internal/bench/crowd"
	"im-services/internal/bench/floor"
	"im-services/internal/bench/procs"
	"im-services/internal/cluster"
	"im-services/internal/cluster/infra"
)

// settings are the flags of all subcommands and what they lead to.
type settings struct {
	names []string
	opts  bench.Options

	state, urls, rest, pids, dsn, nsqd, accounts, out string
	debug, rates, listen                              string
	rounds, gateways                                  int
	own, noRelay, quick, update                       bool
	count                                             int
	benchTime                                         string
	clusterEnv                                        string

	local   *bench.Local
	cluster *cluster.Cluster // with -own
	target  *bench.Target
	closers []func()
	unclean bool // a result so far is
}

func parse(name string, args []string) (*settings, error) {
	s := &settings{}
	root, err := infra.Root()
	if err != nil {
		root = "."
	}
	local := filepath.Join(root, ".local")
	fs := flag.NewFlagSet("bench "+name, flag.ContinueOnError)
	fs.StringVar(&s.state, "state", local, "state folder of the launcher whose cluster is measured")
	fs.BoolVar(&s.own, "own", false, "start a cluster for this measurement alone, and stop it after")
	fs.IntVar(&s.gateways, "gateways", 2, "gateways of that cluster")
	fs.StringVar(&s.clusterEnv, "own-env", "", "with -own: settings of that cluster's services, such as IM_LOGIC_GROUP_MAX=10000, by comma")
	fs.StringVar(&s.urls, "urls", "", "base URLs of the gateways by comma, to measure any other deployment")
	fs.StringVar(&s.rest, "rest", "", "base URL of the REST API; default the first gateway")
	fs.StringVar(&s.pids, "pids", "", "its processes, as name=pid by comma")
	fs.StringVar(&s.debug, "debug", "", "its debug listeners, as name=host:port by comma")
	fs.StringVar(&s.dsn, "dsn", "", "its MySQL server, to ask for durability settings and to probe")
	fs.StringVar(&s.nsqd, "nsqd", "", "its nsqd, host:port, to probe")
	fs.StringVar(&s.accounts, "accounts", filepath.Join(local, "bench", "accounts.json"), "where accounts are kept for the next run")
	fs.StringVar(&s.out, "out", filepath.Join(local, "bench"), "folder for bench.json and bench.html")
	fs.StringVar(&s.rates, "rates", "500,1000,2000,3000,4000,5000,6000,8000,10000", "rates of the knee curve")
	fs.StringVar(&s.listen, "listen", "127.0.0.1:0", "relay: where to listen")
	fs.IntVar(&s.rounds, "rounds", 3, "rounds of a comparison")
	fs.BoolVar(&s.noRelay, "no-relay", false, "compare: the system alone")
	fs.BoolVar(&s.update, "update", false, "micro: accept what is measured")
	fs.IntVar(&s.count, "repeat", 6, "micro: repetitions, for benchstat")
	fs.StringVar(&s.benchTime, "benchtime", "100ms", "micro: per benchmark")
	fs.BoolVar(&s.quick, "quick", false, "all: short windows and small crowds, to see that it works")

	o := &s.opts
	fs.DurationVar(&o.Warm, "warm", 3*time.Second, "before the measured window")
	fs.DurationVar(&o.Measure, "measure", 15*time.Second, "the measured window")
	fs.IntVar(&o.Users, "users", 0, "connected users; 0: the scenario's own default")
	fs.IntVar(&o.Body, "body", 100, "bytes of text in a message")
	fs.IntVar(&o.Pending, "pending", 0, "messages of one sender under way at once")
	fs.Float64Var(&o.Rate, "rate", 0, "messages per second of an open loop")
	fs.IntVar(&o.Groups, "groups", 0, "groups")
	fs.IntVar(&o.Members, "members", 0, "members of each group")
	fs.IntVar(&o.Online, "online", 0, "per cent of the members that are connected")
	fs.IntVar(&o.Senders, "senders", 0, "senders in each group")
	fs.IntVar(&o.Count, "count", 0, "backlog: messages; idle, storm: connections; churn, mixed: visitors per second")
	fs.IntVar(&o.Skip, "skip", 0, "connect: users passed over")
	fs.DurationVar(&o.Settle, "settle", 0, "idle: pause before memory is looked at")
	fs.Uint64Var(&o.Seed, "seed", 1, "of the times between sends")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	// scale starts clusters of its own without being told.
	if s.clusterEnv != "" && (s.urls != "" || !s.own && name != "scale") {
		return nil, errors.New("-own-env sets up a cluster that is started for the measurement: give -own with it, and not -urls")
	}
	s.names = fs.Args()
	o.Progress = say
	return s, nil
}

func (s *settings) close() {
	for i := len(s.closers) - 1; i >= 0; i-- {
		s.closers[i]()
	}
}

// say prints a line for the person in front.
func say(format string, args ...any) { _, _ = fmt.Fprintf(os.Stdout, format+"\n", args...) }

// open finds the system to measure.
func (s *settings) open(ctx context.Context) error {
	if s.urls != "" {
		return s.openURLs(ctx)
	}
	if s.own {
		if err := s.startOwn(ctx); err != nil {
			return err
		}
	}
	var err error
	if s.local, err = bench.OpenLocal(s.state); err != nil {
		return err
	}
	if s.dsn == "" {
		s.dsn = s.local.DSN()
	}
	if s.nsqd == "" {
		s.nsqd = s.local.Info.Addrs["nsqd"]
	}
	var people *crowd.Crowd
	s.target, people, err = s.local.Target(ctx, s.accounts, say)
	if err != nil {
		return err
	}
	s.closers = append(s.closers, people.Close)
	s.rest = people.API().Base
	if s.cluster != nil {
		s.target.Fresh = s.restartServices
	}
	return nil
}

// startOwn starts a cluster beside whatever else runs.
func (s *settings) startOwn(ctx context.Context) error {
	s.state = filepath.Join(s.out, "cluster")
	env, err := pairs(s.clusterEnv)
	if err != nil {
		return err
	}
	c, err := cluster.Start(ctx, cluster.Options{
		StateDir: s.state, Progress: os.Stdout, Gateways: s.gateways,
		CheapHashes: true, // thousands of accounts are made
		Env:         func(_ *cluster.Cluster, _ string, e map[string]string) { maps.Copy(e, env) },
	})
	if err != nil {
		return err
	}
	s.cluster = c
	s.closers = append(s.closers, c.Stop)
	return nil
}

// restartServices starts the services of the own cluster again, gateways last; the
// servers that they use go on.
func (s *settings) restartServices(ctx context.Context) error {
	for _, kind := range []string{"auth", "friend", "logic", "gateway"} {
		for _, p := range s.cluster.Processes() {
			if (procs.Process{Name: p.Name()}).Kind() != kind {
				continue
			}
			if err := p.Restart(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// strangers is the system with users who are new and are not kept: nobody has
// written to them.
func (s *settings) strangers(ctx context.Context) (*bench.Target, error) {
	people, err := crowd.Open(ctx, s.rest, "", nil)
	if err != nil {
		return nil, err
	}
	s.closers = append(s.closers, people.Close)
	t := *s.target
	t.People = people
	return &t, nil
}

func (s *settings) openURLs(ctx context.Context) error {
	list, err := procs.ParsePids(s.pids)
	if err != nil {
		return err
	}
	debug, err := pairs(s.debug)
	if err != nil {
		return err
	}
	urls := strings.Split(s.urls, ",")
	if s.rest == "" {
		s.rest = urls[0]
	}
	people, err := crowd.Open(ctx, s.rest, s.accounts, say)
	if err != nil {
		return err
	}
	s.closers = append(s.closers, people.Close)
	s.target = &bench.Target{
		Name: "system", Gateways: urls, People: people, Debug: debug,
		Processes: func() []procs.Process { return list },
	}
	return nil
}

// process finds one of the measured processes.
func (s *settings) process(name string) []procs.Process {
	for _, p := range s.target.Processes() {
		if p.Name == name {
			return []procs.Process{p}
		}
	}
	return nil
}

func pairs(list string) (map[string]string, error) {
	out := map[string]string{}
	for item := range strings.SplitSeq(list, ",") {
		if item == "" {
			continue
		}
		name, value, ok := strings.Cut(item, "=")
		if !ok {
			return nil, fmt.Errorf("%q is not name=value", item)
		}
		out[name] = value
	}
	return out, nil
}

func (s *settings) rateList() ([]float64, error) {
	var out []float64
	for item := range strings.SplitSeq(s.rates, ",") {
		r, err := strconv.ParseFloat(strings.TrimSpace(item), 64)
		if err != nil || r <= 0 {
			return nil, fmt.Errorf("rate %q", item)
		}
		out = append(out, r)
	}
	return out, nil
}

// startRelay starts this program again as the bare relay.
func (s *settings) startRelay(ctx context.Context) (*bench.Target, error) {
	if s.noRelay {
		return nil, nil
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	child, err := bench.StartRelay(ctx, self, "relay")
	if err != nil {
		return nil, err
	}
	s.closers = append(s.closers, child.Close)
	return child.Target, nil
}

// machine describes where the figures are taken.
func (s *settings) machine(ctx context.Context) bench.Machine {
	m := bench.ThisMachine()
	if s.dsn == "" {
		return m
	}
	d, err := floor.Durability(ctx, s.dsn)
	if err != nil {
		say("the database does not tell its settings: %v", err)
		return m
	}
	m.Durability = d
	return m
}

// show prints a result and keeps in mind whether it was clean.
func (s *settings) show(r *bench.Result) {
	say("%s", r)
	s.unclean = s.unclean || !r.OK()
}

// verdict is the error of a command one of whose results was not clean.
func (s *settings) verdict() error {
	if s.unclean {
		return errors.New("messages were lost, repeated, reordered, altered or left without an answer")
	}
	return nil
}
