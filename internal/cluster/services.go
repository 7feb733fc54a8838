package cluster

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-sql-driver/mysql"

	"im-services/internal/cluster/infra"
	"im-services/internal/cluster/process"
)

// serviceEnv returns what process name of service s gets in its environment: the
// shipped configuration of deploy/config, pointed at this cluster. Every
// replica's file is the same, as in production.
func (c *Cluster) serviceEnv(s service, name string) (map[string]string, error) {
	pushKey, err := c.state.secret("push.key")
	if err != nil {
		return nil, err
	}
	env := map[string]string{
		"IM_TELEMETRY_DEBUG_LISTEN": c.addrs[name+"/debug"],
		"IM_DISCOVERY_ENDPOINTS":    c.addrs["etcd"],
		"IM_CACHE_ADDR":             c.addrs["redis"],
		"IM_BUS_NSQD":               c.addrs["nsqd"],
		"IM_BUS_NSQD_HTTP":          c.addrs["nsqd/http"],
		"IM_PUSH_KEY":               pushKey,
	}
	if s.database != "" {
		dsn, err := c.serviceDSN(s.database)
		if err != nil {
			return nil, err
		}
		env["IM_DATABASE_DSN"] = dsn
	}
	if s.rpc != 0 {
		env["IM_RPC_LISTEN"] = c.addrs[name]
	}
	switch s.name {
	case "auth":
		env["IM_AUTH_MODE"] = "debug"
		env["IM_AUTH_MAIL_DRIVER"] = "log"
		// Everybody is 127.0.0.1 here, tests with thousands of users too.
		env["IM_AUTH_LIMITS_EXEMPT"] = "127.0.0.0/8"
	case "gateway":
		env["IM_GATEWAY_LISTEN"] = c.addrs["public"]
		env["IM_GATEWAY_REUSE_PORT"] = "true"
		env["IM_GATEWAY_OWN_LISTEN"] = c.addrs[name]
		if c.balanced {
			env["IM_GATEWAY_LISTEN"] = c.addrs[name]
			env["IM_GATEWAY_REUSE_PORT"] = "false"
			env["IM_GATEWAY_OWN_LISTEN"] = ""
		}
		env["IM_GATEWAY_PUBLIC_URL"] = c.PublicURL()
		env["IM_GATEWAY_UPLOAD_DIR"] = c.state.data("uploads")
	}
	if c.opts.Env != nil {
		c.opts.Env(c, name, env)
	}
	return env, nil
}

// serviceDSN is what a service reaches its own database with.
func (c *Cluster) serviceDSN(database string) (string, error) {
	if c.opts.External.MySQLDSN == "" {
		return c.mysql.OwnDSN(database), nil
	}
	return c.DSN(database)
}

// serviceUnit describes one replica, or its migration.
func (c *Cluster) serviceUnit(s service, name string) (infra.Unit, error) {
	env, err := c.serviceEnv(s, name)
	if err != nil {
		return infra.Unit{}, err
	}
	return infra.Unit{
		Spec: process.Spec{
			Name: name, Path: filepath.Join(c.bin, s.name), Dir: c.opts.Root,
			Args: []string{"-config", c.configFile(s.name)}, Env: list(env), LogFile: c.state.LogFile(name),
		},
		Ready: ready(c.addrs[name+"/debug"]),
	}, nil
}

func (c *Cluster) configFile(service string) string {
	return filepath.Join(c.opts.Root, "deploy", "config", service+".yaml")
}

// migrate brings the schema of one service up to date.
func (c *Cluster) migrate(ctx context.Context, s service) error {
	env, err := c.serviceEnv(s, s.name+"-migrate")
	if err != nil {
		return err
	}
	// Its debug listener would collide with nobody: it picks a free port.
	env["IM_TELEMETRY_DEBUG_LISTEN"] = infra.Loopback(0)
	env["IM_RPC_LISTEN"] = infra.Loopback(0)
	ctx, cancel := context.WithTimeout(ctx, migrateLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(c.bin, s.name), "-config", c.configFile(s.name), "-migrate") //nolint:gosec // our own binary
	cmd.Dir = c.opts.Root
	cmd.Env = append(os.Environ(), list(env)...)
	out, err := cmd.CombinedOutput()
	logErr := os.WriteFile(c.state.LogFile(s.name+"-migrate"), out, 0o600)
	if err != nil {
		return fmt.Errorf("%s -migrate: %w\n%s", s.name, err, out)
	}
	return logErr
}

// list turns an environment into NAME=value lines, in order.
func list(env map[string]string) []string {
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(env)) {
		lines = append(lines, name+"="+env[name])
	}
	return lines
}

// asker keeps no connections, so that nothing of it lives on between questions.
var asker = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

// ready asks a service's debug listener whether it is ready.
func ready(addr string) func(context.Context) error {
	return func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/readyz", nil)
		if err != nil {
			return err
		}
		resp, err := asker.Do(req)
		if err != nil {
			return err
		}
		defer func() { _ = resp.Body.Close() }()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s/readyz answers %s", addr, resp.Status)
		}
		return nil
	}
}

// DSN returns the data source name of one of the cluster's databases ("im_auth",
// "im_friend", "im_logic", "" for none) with an account that may do everything.
func (c *Cluster) DSN(database string) (string, error) {
	if c.opts.External.MySQLDSN == "" {
		return c.mysql.DSN(database), nil
	}
	cfg, err := mysql.ParseDSN(strings.TrimSpace(c.opts.External.MySQLDSN))
	if err != nil {
		return "", fmt.Errorf("IM_MYSQL_DSN: %w", err)
	}
	cfg.DBName = database
	return cfg.FormatDSN(), nil
}
