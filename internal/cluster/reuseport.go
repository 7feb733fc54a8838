package cluster

import (
	"net"
	"runtime"
	"strconv"
)

// hasReusePort reports whether the kernel spreads the connections of one port
// over the processes that listen on it. Others than Linux have the option too,
// but give all connections to one of them.
const hasReusePort = runtime.GOOS == "linux"

// portOf returns the port of host:port, 0 if there is none.
func portOf(addr string) int {
	_, text, err := net.SplitHostPort(addr)
	if err != nil {
		return 0
	}
	port, _ := strconv.Atoi(text)
	return port
}
