// Command bench measures a running system over its public protocol, beside the
// floors it is compared with, and checks it while it measures.
//
//	bench list                the scenarios
//	bench run SCENARIO…       run scenarios against the system
//	bench compare SCENARIO…   the same in turn with a bare relay: relay, system, relay…
//	bench knee                an open loop at rising rates
//	bench floors              what storing and the bus cost alone
//	bench stages              where the processor time of a message goes
//	bench scale               the same load on one, two and four gateways
//	bench micro               allocations and instructions of the hot paths, against the kept ones
//	bench all                 everything that `make bench` publishes
//	bench report FILE.json    the page of plots again, from kept figures
//	bench docs FILE.json      kept figures into docs/performance.md
//	bench relay               the bare relay, in the foreground
//
// Without -urls it measures the cluster of `make up`. -h lists the flags.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"
)

// command is one subcommand.
type command func(ctx context.Context, s *settings) error

var commands = map[string]command{
	"list": list, "run": runScenarios, "compare": compare, "knee": knee, "floors": floors,
	"stages": stagesTable, "scale": scale, "micro": runMicro, "all": all, "report": report, "docs": docs, "relay": relay,
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	// The pacer's sleeping thread must not take a processor from the readers.
	runtime.GOMAXPROCS(runtime.NumCPU() + 1)
	err := dispatch(ctx, os.Args[1:])
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

func dispatch(ctx context.Context, args []string) error {
	if len(args) == 0 || commands[args[0]] == nil {
		return errors.New("usage: bench list|run|compare|knee|floors|stages|scale|micro|all|report|docs|relay [flags] [names]")
	}
	s, err := parse(args[0], args[1:])
	if err != nil {
		return err
	}
	defer s.close()
	return commands[args[0]](ctx, s)
}
