package conformance

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"im-services/internal/cluster"
)

// base is the public URL of the system under test, without a trailing slash.
var base string

// edges are the URLs of single gateways; just base when they are not known.
var edges []string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if base = strings.TrimSuffix(os.Getenv("CONFORMANCE_BASE"), "/"); base != "" {
		edges = []string{base}
		if list := os.Getenv("CONFORMANCE_GATEWAYS"); list != "" {
			edges = strings.Split(list, ",")
		}
		if addr := os.Getenv("CONFORMANCE_PROVIDER"); addr != "" {
			stop, err := serveProvider(addr)
			if err != nil {
				return fail(err)
			}
			defer stop()
		}
		return m.Run()
	}
	if os.Getenv("IM_E2E") != "1" {
		_, _ = fmt.Fprintln(os.Stderr, "conformance: not run; set IM_E2E=1, or CONFORMANCE_BASE to the URL of a system in debug mode")
		return 0
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, err := os.MkdirTemp("", "im-conformance-")
	if err != nil {
		return fail(err)
	}
	startCtx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	stopProvider, err := serveProvider("127.0.0.1:0")
	if err != nil {
		return fail(err)
	}
	defer stopProvider()
	c, err := cluster.Start(startCtx, cluster.Options{
		StateDir: dir, Progress: os.Stderr,
		Env: func(_ *cluster.Cluster, name string, env map[string]string) {
			if strings.HasPrefix(name, "auth-") {
				maps.Copy(env, providerEnv())
			}
		},
	})
	if err != nil {
		return fail(err)
	}
	defer c.Stop()
	// The children must not outlive an interrupted run.
	disarm := context.AfterFunc(ctx, func() { c.Stop(); os.Exit(130) })
	defer disarm() // before stop, which ends ctx
	base, edges = c.PublicURL(), []string{c.GatewayURL(1), c.GatewayURL(2)}
	code := m.Run()
	if code != 0 {
		_, _ = fmt.Fprintln(os.Stderr, "conformance: logs and data are kept in", dir)
		return code
	}
	c.Stop()
	_ = os.RemoveAll(dir)
	return 0
}

func fail(err error) int {
	_, _ = fmt.Fprintln(os.Stderr, "conformance:", err)
	return 1
}
