package infra

import (
	"context"
	"errors"
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
			if err := ownFolder(base); err != nil {
				return "", err
			}
		}
		dir = filepath.Join(base, "im-services")
	}
	return dir, os.MkdirAll(dir, 0o700) //nolint:gosec // the user names the folder
}

// ownFolder makes a folder where everybody may, and refuses one into which anybody
// else can have put the programs that are run from it.
func ownFolder(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() || int(stat.Uid) != os.Getuid() || info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("others can write to %s (%s): set HOME, or IM_CACHE_DIR to a folder of your own", dir, info.Mode())
	}
	return nil
}

// Lock takes the machine-wide lock named by path, waiting for it until ctx ends.
// The kernel releases it with the process, so there are no stale locks.
func Lock(ctx context.Context, path string) (unlock func(), err error) {
	for {
		f, err := tryLock(path)
		if err != nil {
			return nil, err
		}
		if f != nil {
			return func() { _ = f.Close() }, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for the lock %s: %w", path, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// tryLock returns nil if somebody else has the lock, or deleted its file meanwhile:
// the next one to come would make, and lock, a new one.
func tryLock(path string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o600) //nolint:gosec // the caller's own folder
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil // the folder was deleted meanwhile
	}
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) //nolint:gosec // a descriptor fits an int
	locked, statErr := f.Stat()
	now, nowErr := os.Stat(path)
	if err == nil && statErr == nil && nowErr == nil && os.SameFile(locked, now) {
		return f, nil
	}
	_ = f.Close()
	return nil, nil
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
