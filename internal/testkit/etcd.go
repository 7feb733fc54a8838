package testkit

import (
	"path/filepath"
	"testing"

	"im-services/internal/cluster/infra"
)

// Etcd returns the endpoints of an empty etcd of this test's own; it is gone
// when the test ends.
func Etcd(t testing.TB) []string {
	t.Helper()
	return StartEtcd(t).Endpoints
}

// EtcdServer is an etcd of one test's own.
type EtcdServer struct {
	*Server
	Endpoints []string // host:port
}

// StartEtcd starts an etcd of the test's own, for tests that hurt it. It grants
// leases down to one second.
func StartEtcd(t testing.TB) *EtcdServer {
	t.Helper()
	bin := mustHelper(t)
	s, ports := start(t, "etcd", 2, func(dir string, ports []int) (infra.Unit, error) {
		return infra.Etcd(bin, "etcd", filepath.Join(dir, "data"), filepath.Join(dir, "log"), ports[0], ports[1]), nil
	})
	return &EtcdServer{Server: s, Endpoints: []string{infra.Loopback(ports[0])}}
}
