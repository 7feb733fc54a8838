package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/go-sql-driver/mysql"

	"im-services/internal/cluster/infra"
	"im-services/internal/cluster/process"
)

// serviceEnv returns what process name of service s gets in its environment: the
// shipped configuration of deploy/config, pointed at this cluster. Every
// replica's file is the same, as in production.
func (c *Cluster) serviceEnv(s service, name string) (map[string]string, error) {
	env := map[string]string{
		"IM_TELEMETRY_DEBUG_LISTEN": c.addrs[name+"/debug"],
		"IM_DISCOVERY_ENDPOINTS":    c.addrs["etcd"],
		"IM_CACHE_ADDR":             c.addrs["redis"],
		"IM_BUS_NSQD":               c.addrs["nsqd"],
		"IM_BUS_NSQD_HTTP":          c.addrs["nsqd/http"],
	}
	if s.name == "logic" || s.name == "gateway" { // nobody else may make pushes
		key, err := c.state.secret("push.key")
		if err != nil {
			return nil, err
		}
		env["IM_PUSH_KEY"] = key
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
		if c.opts.CheapHashes {
			env["IM_AUTH_HASH_MEMORY_KIB"], env["IM_AUTH_HASH_PASSES"] = "64", "1"
		}
	case "gateway":
		env["IM_GATEWAY_LISTEN"] = c.addrs["public"]
		env["IM_GATEWAY_REUSE_PORT"] = "true"
		env["IM_GATEWAY_OWN_LISTEN"] = c.addrs[name]
		if c.balanced {
			env["IM_GATEWAY_LISTEN"] = c.addrs[name]
			env["IM_GATEWAY_REUSE_PORT"] = "false"
			env["IM_GATEWAY_OWN_LISTEN"] = ""
		}
		// A stop shall take seconds here; nobody's balancer has to notice it.
		env["IM_GATEWAY_DRAIN_WINDOW"] = "1s"
		env["IM_REST_PUBLIC_URL"] = c.PublicURL()
		env["IM_UPLOAD_BUCKET"] = c.state.data("uploads")
	}
	if slices.Contains(c.opts.BuildFlags, "-race") {
		env["GORACE"] = "atexit_sleep_ms=0" // otherwise every stop takes a second
	}
	if c.opts.Env != nil {
		c.opts.Env(c, name, env)
	}
	return env, nil
}

// serviceDSN is what a service reaches its own database with.
func (c *Cluster) serviceDSN(database string) (string, error) {
	if c.opts.External.MySQLDSN == "" {
		return c.Primary().OwnDSN(database), nil
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
			Args: []string{"-config", c.configFile(s.name)}, Env: append(infra.Share(), list(env)...), LogFile: c.state.LogFile(name),
		},
		Ready: ready(c.addrs[name+"/debug"]),
	}, nil
}

func (c *Cluster) configFile(service string) string {
	return filepath.Join(c.opts.Root, "deploy", "config", service+".yaml")
}

// migrate brings the schema of one service up to date.
func (c *Cluster) migrate(ctx context.Context, s service) error {
	name := s.name + "-migrate"
	env, err := c.serviceEnv(s, name)
	if err != nil {
		return err
	}
	// It listens nowhere; a free port harms nobody if it does.
	env["IM_TELEMETRY_DEBUG_LISTEN"] = infra.Loopback(0)
	env["IM_RPC_LISTEN"] = infra.Loopback(0)
	m := migration{
		Service: s.name, Path: filepath.Join(c.bin, s.name),
		Args: []string{"-config", c.configFile(s.name), "-migrate"}, Dir: c.opts.Root, Env: list(env),
	}
	if err := c.state.writeMigration(m); err != nil {
		return err
	}
	return c.state.migrate(ctx, m)
}

// migration is how a service's schema is brought up to date. It is recorded, so
// that a restart, which is another program, can do it as well.
type migration struct {
	Service string   `json:"service"`
	Path    string   `json:"path"`
	Args    []string `json:"args"`
	Dir     string   `json:"dir"`
	Env     []string `json:"env"`
}

func (s State) migrationFile(service string) string { return s.path("run", service+"-migrate.json") }

func (s State) writeMigration(m migration) error {
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return os.WriteFile(s.migrationFile(m.Service), text, 0o600) // it holds the database password
}

// migrate runs a migration to its end: it is not cut short when ctx ends, nor by a
// Ctrl-C, which goes to the whole process group of the terminal. What a killed one
// has altered by half, no later one can tell.
func (s State) migrate(ctx context.Context, m migration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), MigrateLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, m.Path, m.Args...) //nolint:gosec // our own binary
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Dir = m.Dir
	cmd.Env = append(os.Environ(), m.Env...)
	out, err := cmd.CombinedOutput()
	logErr := os.WriteFile(s.LogFile(m.Service+"-migrate"), out, 0o600)
	if err != nil {
		return fmt.Errorf("%s -migrate: %w\n%s", m.Service, err, out)
	}
	return logErr
}

// Migrate brings the schemas of a running cluster up to date with the binaries,
// before its services are restarted.
func (s State) Migrate(ctx context.Context) error {
	for _, svc := range services {
		if svc.database == "" {
			continue
		}
		var m migration
		text, err := os.ReadFile(s.migrationFile(svc.name))
		if err != nil {
			return err
		}
		if err := json.Unmarshal(text, &m); err != nil {
			return err
		}
		if err := s.migrate(ctx, m); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// list turns an environment into NAME=value lines, in order.
func list(env map[string]string) []string {
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(env)) {
		lines = append(lines, name+"="+env[name])
	}
	return lines
}

// ready asks a service's debug listener whether it is ready.
func ready(addr string) func(context.Context) error {
	return func(ctx context.Context) error { return infra.GetOK(ctx, "http://"+addr+"/readyz") }
}

// DSN returns the data source name of one of the cluster's databases ("im_auth",
// "im_friend", "im_logic", "" for none) with an account that may do everything.
func (c *Cluster) DSN(database string) (string, error) {
	if c.opts.External.MySQLDSN == "" {
		return c.Primary().DSN(database), nil
	}
	cfg, err := mysql.ParseDSN(strings.TrimSpace(c.opts.External.MySQLDSN))
	if err != nil {
		return "", fmt.Errorf("IM_MYSQL_DSN: %w", err)
	}
	cfg.DBName = database
	return cfg.FormatDSN(), nil
}
