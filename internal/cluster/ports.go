package cluster

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"

	"im-services/internal/cluster/infra"
)

// busyPorts returns those of ports that somebody listens on, in order.
func busyPorts(ports map[int]string) []int {
	var busy []int
	var lc net.ListenConfig
	for _, port := range slices.Sorted(maps.Keys(ports)) {
		l, err := lc.Listen(context.Background(), "tcp", infra.Loopback(port))
		if err != nil {
			busy = append(busy, port)
			continue
		}
		_ = l.Close()
	}
	return busy
}

// checkPorts returns an error that names the holder of every port that is taken.
func checkPorts(ports map[int]string) error {
	busy := busyPorts(ports)
	if len(busy) == 0 {
		return nil
	}
	var b strings.Builder
	for _, port := range busy {
		holder := holderOf(port)
		if holder == "" {
			holder = "a process of another user or outside this container"
		}
		fmt.Fprintf(&b, "\n  port %d, needed by %s, is held by %s", port, ports[port], holder)
	}
	return fmt.Errorf("ports are taken:%s\nWay out: end that process, or choose other ports: make up PORT=9000, or port in config.yaml (a cluster uses %d from there on)", b.String(), blockSize)
}
