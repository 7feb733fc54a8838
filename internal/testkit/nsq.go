package testkit

import (
	"path/filepath"
	"testing"

	"im-services/internal/cluster/infra"
)

// NSQAddrs are the addresses of one nsqd, host:port.
type NSQAddrs struct {
	TCP  string // for producers and consumers
	HTTP string // for its HTTP API
}

// NSQ returns the addresses of an nsqd of this test's own; it is gone when the
// test ends.
func NSQ(t testing.TB) NSQAddrs {
	t.Helper()
	return StartNSQ(t).NSQAddrs
}

// NSQServer is an nsqd of one test's own.
type NSQServer struct {
	*Server
	NSQAddrs
}

// StartNSQ starts an nsqd of the test's own, for tests that hurt it.
func StartNSQ(t testing.TB) *NSQServer {
	t.Helper()
	bin := mustHelper(t)
	s, ports := start(t, "nsqd", 2, func(dir string, ports []int) (infra.Unit, error) {
		return infra.NSQD(bin, "nsqd", filepath.Join(dir, "data"), filepath.Join(dir, "log"), ports[0], ports[1]), nil
	})
	return &NSQServer{Server: s, NSQAddrs: NSQAddrs{TCP: infra.Loopback(ports[0]), HTTP: infra.Loopback(ports[1])}}
}
