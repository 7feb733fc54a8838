// Command cluster runs the whole system on one machine, with nothing installed
// but Go. It is what `make up`, `make down` and the like call.
//
//	cluster up        start everything in the background, prove it with one message
//	cluster down      stop everything; data stays
//	cluster ps        what runs, and whether it is ready
//	cluster logs      the ends of the logs; -f follows them; names select
//	cluster restart   build, then restart the services one after another; names select
//	cluster demo      send one message across two gateways
//	cluster kill|pause|resume NAME…   hurt processes; what is killed comes back
//	cluster run       start everything in the foreground, until Ctrl-C
//	cluster clean     delete data, logs, secrets and programs; the cluster must be down
//
// A name is that of a process, "logic-1", or of all of a kind, "logic".
// Everything it keeps is in one folder, -state.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"im-services/internal/cluster"
	"im-services/internal/cluster/infra"
)

// command is one subcommand; args are its flags and names.
type command func(ctx context.Context, s settings) error

var commands = map[string]command{
	"up": up, "daemon": daemon, "run": run, "down": down, "ps": ps, "logs": logs, "demo": demo,
	"restart": restart, "kill": kill, "pause": pause, "resume": resume, "clean": clean,
}

// settings are the flags that every subcommand understands.
type settings struct {
	opts   cluster.Options
	state  cluster.State
	names  []string // processes
	follow bool
	lines  int
	noDemo bool
	url    string
	flags  []string // as given, to hand on
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := dispatch(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		stop()
		os.Exit(1)
	}
}

func dispatch(ctx context.Context, args []string) error {
	if len(args) == 0 || commands[args[0]] == nil {
		return errors.New("usage: cluster up|down|ps|logs|restart|demo|kill|pause|resume|run|clean [flags] [names]")
	}
	s, err := parse(args[0], args[1:])
	if err != nil {
		return err
	}
	return commands[args[0]](ctx, s)
}

func parse(name string, args []string) (settings, error) {
	var s settings
	root, err := infra.Root()
	if err != nil {
		return s, err
	}
	s.opts = cluster.Options{Root: root, External: cluster.ExternalFromEnv(), Progress: os.Stdout}
	var build string
	fs := flag.NewFlagSet("cluster "+name, flag.ContinueOnError)
	fs.StringVar(&s.opts.StateDir, "state", filepath.Join(root, ".local"), "folder for data, logs and pid files")
	fs.IntVar(&s.opts.BasePort, "port", 8000, "public port; the hundred ports from it on are used")
	fs.IntVar(&s.opts.Gateways, "gateways", 2, "number of gateways")
	fs.IntVar(&s.opts.Auths, "auths", 2, "number of auth replicas")
	fs.IntVar(&s.opts.Friends, "friends", 2, "number of friend replicas")
	fs.IntVar(&s.opts.Logics, "logics", 2, "number of logic replicas")
	fs.StringVar(&build, "build", "", "flags for go build, such as '-race'")
	fs.BoolVar(&s.follow, "f", false, "logs: follow them")
	fs.IntVar(&s.lines, "n", 20, "logs: how many lines of each")
	fs.BoolVar(&s.noDemo, "no-demo", false, "up: send no message")
	fs.StringVar(&s.url, "url", "", "demo: where a system answers, instead of this cluster's gateways")
	if err := fs.Parse(args); err != nil {
		return s, err
	}
	if s.opts.StateDir, err = filepath.Abs(s.opts.StateDir); err != nil {
		return s, err
	}
	s.opts.BuildFlags = strings.Fields(build)
	s.state = cluster.State(s.opts.StateDir)
	s.names = fs.Args()
	s.flags = slices.Clone(args[:len(args)-len(s.names)])
	return s, nil
}

// say prints a line for the person in front.
func say(format string, args ...any) {
	_, _ = fmt.Fprintf(os.Stdout, format+"\n", args...)
}
