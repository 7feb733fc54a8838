package infra

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// CacheDir is where built and fetched programs are kept between runs, per user:
// IM_CACHE_DIR, or the user's cache folder.
func CacheDir() (string, error) {
	dir := os.Getenv("IM_CACHE_DIR")
	if dir == "" {
		base, err := os.UserCacheDir()
		if err != nil { // no HOME, as in some service managers
			base = filepath.Join(os.TempDir(), "cache-"+strconv.Itoa(os.Getuid()))
		}
		dir = filepath.Join(base, "im-services")
	}
	return dir, os.MkdirAll(dir, 0o700) //nolint:gosec // the user names the folder
}

// Lock takes the machine-wide lock named by path, waiting for it until ctx ends.
// The kernel releases it with the process, so there are no stale locks.
func Lock(ctx context.Context, path string) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o600) //nolint:gosec // the caller's own folder
	if err != nil {
		return nil, err
	}
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) //nolint:gosec // a descriptor fits an int
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, fmt.Errorf("waiting for the lock %s: %w", path, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Root returns the repository's top folder: the nearest one upwards from the
// working directory that holds the application's go.mod.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "deploy", "local", "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", fmt.Errorf("not inside the repository: no deploy/local/go.mod above the working directory")
		}
		dir = up
	}
}
