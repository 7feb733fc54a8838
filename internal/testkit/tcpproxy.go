package testkit

import (
	"testing"

	"im-services/internal/tcpproxy"
)

// TCPProxy stands between a client and a server and misbehaves on demand.
type TCPProxy = tcpproxy.Proxy

// Proxy starts a proxy to target (host:port) on a loopback port of its own. It
// is gone when the test ends.
func Proxy(t testing.TB, target string) *TCPProxy {
	t.Helper()
	p, err := tcpproxy.New(target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}
