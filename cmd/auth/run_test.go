package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	authv1 "im-services/api/proto/auth/v1"
	"im-services/internal/platform/rpc"
	"im-services/internal/testkit"
)

// The binary as operators run it: refuse an old schema, migrate, serve, report
// health, take a new key, stop cleanly.
func TestBinary(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "auth")
	out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput()
	require.NoError(t, err, "%s", out)

	etcd := testkit.Etcd(t)
	listen, debug := freeAddr(t), freeAddr(t)
	env := append(os.Environ(),
		"IM_DATABASE_DSN="+testkit.MySQL(t), "IM_CACHE_ADDR="+testkit.Redis(t), "IM_DISCOVERY_ENDPOINTS="+etcd[0],
		"IM_RPC_LISTEN="+listen, "IM_TELEMETRY_DEBUG_LISTEN="+debug)
	command := func(args ...string) (*exec.Cmd, *bytes.Buffer) {
		cmd := exec.Command(bin, append([]string{"-config", shipped}, args...)...)
		var log bytes.Buffer
		cmd.Env, cmd.Stdout, cmd.Stderr = env, &log, &log
		return cmd, &log
	}
	run := func(args ...string) error {
		cmd, log := command(args...)
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%w\n%s", err, log)
		}
		return nil
	}
	err = run()
	require.ErrorContains(t, err, "-migrate", "an empty database is refused with the way out")
	err = run("-migrate")
	require.NoError(t, err)
	err = run("-health")
	require.Error(t, err, "nobody is running")

	cmd, log := command()
	require.NoError(t, cmd.Start())
	stopped := false
	defer func() {
		if !stopped {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}()
	require.Eventually(t, func() bool { return run("-health") == nil }, 15*time.Second, 100*time.Millisecond)

	conn, err := rpc.DialAddr(listen, nil)
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	client := authv1.NewAuthServiceClient(conn)
	_, err = client.Register(t.Context(), &authv1.RegisterRequest{Email: "a@example.com", Name: "a", Password: "a password", Code: "0000"})
	require.NoError(t, err)
	_, err = client.Login(t.Context(), &authv1.LoginRequest{Email: "a@example.com", Password: "a password"})
	require.NoError(t, err)
	err = run("-rotate-key")
	require.NoError(t, err)
	err = run("-rotate-key")
	require.Error(t, err, "the first key is still needed")
	require.Eventually(t, func() bool {
		res, err := client.Keys(t.Context(), &authv1.KeysRequest{})
		return err == nil && len(res.GetKeys()) == 2
	}, 15*time.Second, 100*time.Millisecond)

	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	err = cmd.Wait()
	stopped = true
	require.NoError(t, err, log.String())
	require.NotContains(t, log.String(), "a password")
}

func freeAddr(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = ln.Close() }()
	return ln.Addr().String()
}
