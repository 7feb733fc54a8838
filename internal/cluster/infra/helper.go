package infra

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"im-services/internal/cluster/process"
)

// buildTimeout covers a cold build with downloads on two busy cores. It begins
// with the build: what building waits for has limits of its own.
const buildTimeout = 15 * time.Minute

// Helper returns the path of the binary that embeds etcd and NSQ, building it
// from deploy/local if this version of it is not in the cache. Builds of several
// processes wait for one another. building, unless nil, is told that a build
// begins.
func Helper(ctx context.Context, root string, building func()) (string, error) {
	src := filepath.Join(root, "deploy", "local")
	sum, err := sourceHash(src)
	if err != nil {
		return "", err
	}
	cache, err := CacheDir()
	if err != nil {
		return "", err
	}
	bin := filepath.Join(cache, "bin", "imlocal-"+sum)
	if _, err := os.Stat(bin); err == nil {
		return bin, nil
	}
	unlock, err := Lock(ctx, bin+".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(bin); err == nil {
		return bin, nil
	}
	if building != nil {
		building()
	}
	ctx, cancel := context.WithTimeoutCause(ctx, buildTimeout, fmt.Errorf("not done within %s", buildTimeout))
	defer cancel()
	// The same flags as for everything else, so that the compiler's cache is shared.
	cmd := exec.CommandContext(ctx, "go", "build", "-C", src, "-buildvcs=false", "-o", bin+".tmp", ".") //nolint:gosec // fixed program
	if out, err := cmd.CombinedOutput(); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return "", fmt.Errorf("go build -C deploy/local: %w\n%s\nWay out: run that command by hand; it needs the Go module proxy once", err, out)
	}
	return bin, os.Rename(bin+".tmp", bin)
}

// sourceHash names a version of the helper: its sources, its dependencies and the compiler.
func sourceHash(dir string) (string, error) {
	h := sha256.New()
	_, _ = fmt.Fprintln(h, runtime.Version(), runtime.GOARCH)
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if ext := filepath.Ext(name); ext != ".go" && ext != ".mod" && ext != ".sum" {
			return nil
		}
		text, err := os.ReadFile(filepath.Join(dir, name)) //nolint:gosec // our own sources
		if err == nil {
			_, _ = fmt.Fprintln(h, name, len(text))
			_, err = h.Write(text)
		}
		return err
	})
	return hex.EncodeToString(h.Sum(nil))[:16], err
}

// Etcd describes an etcd cluster of one.
func Etcd(helper, name, dataDir, logFile string, clientPort, peerPort int) Unit {
	return Unit{
		Spec: process.Spec{Name: name, Path: helper, LogFile: logFile, Env: Share(), Args: []string{
			"etcd", "-data", dataDir, "-client", Loopback(clientPort), "-peer", Loopback(peerPort),
		}},
		Ready: httpOK("http://" + Loopback(clientPort) + "/health"),
	}
}

// NSQD describes one nsqd; lookupd lists the TCP addresses of nsqlookupd, if any.
func NSQD(helper, name, dataDir, logFile string, tcpPort, httpPort int, lookupd ...string) Unit {
	args := []string{"nsqd", "-data", dataDir, "-tcp", Loopback(tcpPort), "-http", Loopback(httpPort)}
	if len(lookupd) > 0 {
		args = append(args, "-lookupd", strings.Join(lookupd, ","))
	}
	return Unit{
		Spec:  process.Spec{Name: name, Path: helper, LogFile: logFile, Env: Share(), Args: args},
		Ready: httpOK("http://" + Loopback(httpPort) + "/ping"),
	}
}

// NSQLookupd describes one nsqlookupd.
func NSQLookupd(helper, name, logFile string, tcpPort, httpPort int) Unit {
	return Unit{
		Spec: process.Spec{Name: name, Path: helper, LogFile: logFile, Env: Share(), Args: []string{
			"nsqlookupd", "-tcp", Loopback(tcpPort), "-http", Loopback(httpPort),
		}},
		Ready: httpOK("http://" + Loopback(httpPort) + "/ping"),
	}
}

// Asker keeps no connections, so that nothing of it lives on between questions: a
// test that looks for leaked goroutines would find them.
var Asker = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

func httpOK(url string) func(context.Context) error {
	return func(ctx context.Context) error { return GetOK(ctx, url) }
}

// GetOK asks url for status 200.
func GetOK(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := Asker.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", strings.TrimPrefix(url, "http://"), resp.Status)
	}
	return nil
}
