package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"im-services/internal/testkit"
)

// The binary as operators run it: it serves without the services behind it, says
// that it is not ready, exports the metrics of both edges and stops cleanly.
func TestBinary(t *testing.T) {
	dir := t.TempDir()
	bin := filepath.Join(dir, "gateway")
	if out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	listen, debug := freeAddr(t), freeAddr(t)
	env := append(os.Environ(),
		"IM_DISCOVERY_ENDPOINTS="+testkit.Etcd(t)[0], "IM_BUS_NSQD="+testkit.NSQ(t).TCP, "IM_PUSH_KEY="+strings.Repeat("k", 32),
		"IM_GATEWAY_LISTEN="+listen, "IM_TELEMETRY_DEBUG_LISTEN="+debug, "IM_UPLOAD_BUCKET="+filepath.Join(dir, "uploads"))
	command := func(args ...string) (*exec.Cmd, *bytes.Buffer) {
		cmd := exec.Command(bin, append([]string{"-config", "../../deploy/config/gateway.yaml"}, args...)...)
		var log bytes.Buffer
		cmd.Env, cmd.Stdout, cmd.Stderr = env, &log, &log
		return cmd, &log
	}
	cmd, log := command()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	defer func() { _ = cmd.Process.Kill() }()

	deadline := time.Now().Add(20 * time.Second)
	for {
		status, _, err := get(listen, "/api/nothing")
		if err == nil && status == http.StatusNotFound {
			break
		}
		select {
		case err := <-exited:
			t.Fatalf("ended: %v\n%s", err, log)
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("does not serve: %d, %v", status, err)
		}
	}
	if health, out := command("-health"); health.Run() == nil {
		t.Errorf("ready without auth: %s", out)
	}
	_, metrics, err := get(debug, "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`im_rest_request_seconds_count{code="404",method="GET",route="none"}`, "im_gateway_connections"} {
		if !strings.Contains(metrics, want) {
			t.Errorf("%s is not exported", want)
		}
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-exited; err != nil {
		t.Errorf("%v\n%s", err, log)
	}
}

func get(addr, path string) (int, string, error) {
	resp, err := http.Get(fmt.Sprintf("http://%s%s", addr, path))
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

func freeAddr(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	return ln.Addr().String()
}
