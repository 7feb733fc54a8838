package main

import (
	"errors"
	"flag"
	"os"
	"strings"

	"github.com/nsqio/nsq/nsqd"
	"github.com/nsqio/nsq/nsqlookupd"
)

// nsqMain is what nsqd and nsqlookupd have in common.
type nsqMain interface {
	Main() error
	Exit()
}

type nsqServer struct {
	main   nsqMain
	addrs  []string
	failed chan error    // an error of Main before Stop
	done   chan struct{} // closed when Main has returned
}

// serve runs m until Stop; its listeners are open already.
func serve(m nsqMain, addrs ...string) *nsqServer {
	s := &nsqServer{main: m, addrs: addrs, failed: make(chan error, 1), done: make(chan struct{})}
	go func() {
		defer close(s.done)
		if err := m.Main(); err != nil {
			s.failed <- err
		}
	}()
	return s
}

func (s *nsqServer) Addrs() []string      { return s.addrs }
func (s *nsqServer) Failed() <-chan error { return s.failed }

func (s *nsqServer) Stop() error {
	s.main.Exit()
	<-s.done
	return nil
}

func startNSQD(args []string) (server, error) {
	fs := flag.NewFlagSet("nsqd", flag.ContinueOnError)
	data := fs.String("data", "", "data directory (required)")
	tcp := fs.String("tcp", "127.0.0.1:0", "address for clients")
	http := fs.String("http", "127.0.0.1:0", "address for the HTTP API")
	lookupd := fs.String("lookupd", "", "nsqlookupd TCP addresses, comma separated")
	if err := parse(fs, args); err != nil {
		return nil, err
	}
	if *data == "" {
		return nil, errors.New("-data is required")
	}
	if err := os.MkdirAll(*data, 0o700); err != nil {
		return nil, err
	}
	opts := nsqd.NewOptions()
	opts.DataPath = *data
	opts.TCPAddress = *tcp
	opts.HTTPAddress = *http
	opts.HTTPSAddress = ""
	opts.BroadcastAddress = "127.0.0.1"
	if *lookupd != "" {
		opts.NSQLookupdTCPAddresses = strings.Split(*lookupd, ",")
	}
	d, err := nsqd.New(opts)
	if err != nil {
		return nil, err
	}
	if err := d.LoadMetadata(); err != nil {
		return nil, err
	}
	if err := d.PersistMetadata(); err != nil {
		return nil, err
	}
	return serve(d, "tcp="+d.RealTCPAddr().String(), "http="+d.RealHTTPAddr().String()), nil
}

func startNSQLookupd(args []string) (server, error) {
	fs := flag.NewFlagSet("nsqlookupd", flag.ContinueOnError)
	tcp := fs.String("tcp", "127.0.0.1:0", "address for nsqd")
	http := fs.String("http", "127.0.0.1:0", "address for consumers")
	if err := parse(fs, args); err != nil {
		return nil, err
	}
	opts := nsqlookupd.NewOptions()
	opts.TCPAddress = *tcp
	opts.HTTPAddress = *http
	opts.BroadcastAddress = "127.0.0.1"
	l, err := nsqlookupd.New(opts)
	if err != nil {
		return nil, err
	}
	return serve(l, "tcp="+l.RealTCPAddr().String(), "http="+l.RealHTTPAddr().String()), nil
}
