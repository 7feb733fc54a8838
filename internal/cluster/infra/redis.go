package infra

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"

	"im-services/internal/cluster/process"
)

// Redis describes a Redis server that keeps everything in memory. Persistence is
// off on purpose: what the system keeps in Redis are hints, and counters that
// come back from an old snapshot would be worse than none.
func Redis(program Program, name, dir, logFile string, port int) Unit {
	if program.Path == "" {
		return Unit{}
	}
	u := Unit{
		Spec: process.Spec{
			Name: name, Path: program.Path, Dir: dir, LogFile: logFile, Env: program.Env,
			Args: []string{
				"--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--daemonize", "no",
				"--save", "", "--appendonly", "no", "--dir", dir,
				"--maxmemory", "512mb", "--maxmemory-policy", "noeviction",
			},
		},
		Ready: redisReady(port),
	}
	if program.Prefix != nil { // the work-alike of the helper
		u.Spec.Args = append(append([]string{}, program.Prefix...), "-listen", Loopback(port))
	}
	return u
}

// redisReady sends PING.
func redisReady(port int) func(context.Context) error {
	return func(ctx context.Context) error {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp", Loopback(port))
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		if deadline, ok := ctx.Deadline(); ok {
			_ = conn.SetDeadline(deadline)
		}
		if _, err := conn.Write([]byte("PING\r\n")); err != nil {
			return err
		}
		line, err := bufio.NewReader(conn).ReadString('\n')
		if err != nil {
			return err
		}
		if !strings.HasPrefix(line, "+PONG") {
			return fmt.Errorf("answered %q to PING", strings.TrimSpace(line))
		}
		return nil
	}
}

// installedRedis looks for a server on PATH and where distributions put servers.
func installedRedis() (Program, error) {
	path, ok := lookServer("redis-server", "valkey-server")
	if !ok {
		return Program{}, errNotInstalled
	}
	return Program{Path: path, Origin: path}, nil
}
