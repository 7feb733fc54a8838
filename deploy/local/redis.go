package main

import (
	"flag"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"
)

// minClockStep is how often keys may expire.
const minClockStep = 100 * time.Millisecond

type redisServer struct {
	mini *miniredis.Miniredis
	stop chan struct{}
	wg   sync.WaitGroup
}

// startRedis runs a Redis work-alike: one process, memory only, seven times
// slower in scripts. It is the last resort and says so.
func startRedis(args []string) (server, error) {
	fs := flag.NewFlagSet("redis", flag.ContinueOnError)
	listen := fs.String("listen", "127.0.0.1:0", "address for clients")
	if err := parse(fs, args); err != nil {
		return nil, err
	}
	fmt.Fprintln(os.Stderr, "imlocal: this is a Redis work-alike, not Redis: do not measure anything on it")
	s := &redisServer{mini: miniredis.NewMiniRedis(), stop: make(chan struct{})}
	if err := s.mini.StartAddr(*listen); err != nil {
		return nil, err
	}
	s.wg.Go(s.clock)
	return s, nil
}

// clock lets keys expire: the work-alike's time stands still until it is
// pushed. A push visits every key under the one lock, so the pause grows with
// what the last one cost, which caps the share of time spent on it at 5 %.
func (s *redisServer) clock() {
	last := time.Now()
	pause := minClockStep
	for {
		select {
		case <-s.stop:
			return
		case <-time.After(pause):
		}
		begin := time.Now()
		s.mini.FastForward(begin.Sub(last))
		s.mini.SetTime(begin)
		last = begin
		pause = max(minClockStep, 20*time.Since(begin))
	}
}

func (s *redisServer) Addrs() []string      { return []string{"tcp=" + s.mini.Addr()} }
func (s *redisServer) Failed() <-chan error { return nil }

func (s *redisServer) Stop() error {
	close(s.stop)
	s.wg.Wait()
	s.mini.Close()
	return nil
}
