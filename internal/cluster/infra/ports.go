package infra

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
)

// FreePort returns a loopback TCP port nobody listens on right now. It is taken
// from below the range in which systems pick ports for outgoing connections, so
// between asking and using it only another caller of FreePort could take it.
// Whole clusters take theirs from above it (package cluster).
func FreePort() (int, error) {
	const low, high = 12000, 21000
	var lc net.ListenConfig
	for range 200 {
		port := low + rand.IntN(high-low) //nolint:gosec // nothing secret in a port
		l, err := lc.Listen(context.Background(), "tcp", Loopback(port))
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			return 0, err
		}
		return port, nil
	}
	return 0, errors.New("no free loopback port between 12000 and 21000")
}

// Loopback returns "127.0.0.1:port".
func Loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
