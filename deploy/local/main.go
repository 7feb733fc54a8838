// Command imlocal runs one real infrastructure server in the foreground, for
// machines where nothing is installed: etcd, nsqd and nsqlookupd as libraries,
// and, where no redis-server can be had, a small Redis work-alike.
//
//	imlocal etcd       -data DIR [-client HOST:PORT] [-peer HOST:PORT]
//	imlocal nsqd       -data DIR [-tcp HOST:PORT] [-http HOST:PORT] [-lookupd HOST:PORT,...]
//	imlocal nsqlookupd [-tcp HOST:PORT] [-http HOST:PORT]
//	imlocal redis      [-listen HOST:PORT]
//
// Every server is a process of its own, so that each can be killed alone. Port
// 0 picks a free port. Once the server serves, one line goes to standard output:
//
//	READY <name>=<address> [<name>=<address>]
//
// SIGTERM and SIGINT stop it in order. It lives in a module of its own, because
// in the application's module etcd's server would raise the versions of
// production dependencies.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// stopTimeout bounds an orderly stop; whoever started this process kills it later anyway.
const stopTimeout = 5 * time.Second

// A server is something that runs until it is told to stop.
type server interface {
	// Addrs returns the addresses that clients use, by name.
	Addrs() []string
	// Failed delivers an error if the server dies by itself.
	Failed() <-chan error
	// Stop ends it and waits for it.
	Stop() error
}

type starter func(args []string) (server, error)

var starters = map[string]starter{
	"etcd":       startEtcd,
	"nsqd":       startNSQD,
	"nsqlookupd": startNSQLookupd,
	"redis":      startRedis,
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "imlocal:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 || starters[args[0]] == nil {
		return errors.New("usage: imlocal etcd|nsqd|nsqlookupd|redis [flags]")
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()

	s, err := starters[args[0]](args[1:])
	if err != nil {
		return fmt.Errorf("%s: %w", args[0], err)
	}
	fmt.Println("READY " + strings.Join(s.Addrs(), " "))

	select {
	case err := <-s.Failed():
		return errors.Join(fmt.Errorf("%s died: %w", args[0], err), s.Stop())
	case <-ctx.Done():
	}
	stop() // a second signal ends the process at once
	time.AfterFunc(stopTimeout, func() {
		fmt.Fprintln(os.Stderr, "imlocal: stopping took too long")
		os.Exit(1)
	})
	return s.Stop()
}

// parse runs fs over args and refuses anything left over.
func parse(fs *flag.FlagSet, args []string) error {
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	return nil
}
