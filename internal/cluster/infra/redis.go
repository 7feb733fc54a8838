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
		Ready: func(ctx context.Context) error { return AskRedis(ctx, Loopback(port)) },
	}
	if program.Prefix != nil { // the work-alike of the helper
		u.Spec.Args = append(append([]string{}, program.Prefix...), "-listen", Loopback(port))
	}
	return u
}

// AskRedis sends PING.
func AskRedis(ctx context.Context, addr string) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
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

// installedRedis looks for a server on PATH and where distributions put servers.
func installedRedis(ctx context.Context) (Program, error) {
	path, ok := lookServer("redis-server", "valkey-server")
	if !ok {
		return Program{}, errNotInstalled
	}
	p := Program{Path: path, Origin: path}
	_, err := p.Version(ctx)
	return p, err
}
