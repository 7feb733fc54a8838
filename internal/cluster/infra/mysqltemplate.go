package infra

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// mysqlTemplate returns an initialised data directory of this program to copy
// from, which takes a tenth of the time of initialising one. It is made once per
// user and version of the program.
func mysqlTemplate(ctx context.Context, program Program) (string, error) {
	version, err := program.Version(ctx)
	if err != nil {
		return "", err
	}
	cache, err := CacheDir()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(program.Path + version))
	dir := filepath.Join(cache, "mysql-data", hex.EncodeToString(sum[:8]))
	unlock, err := Lock(ctx, dir+".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(filepath.Join(dir, "mysql")); err == nil {
		return dir, nil
	}
	// Under another name first: an initialisation that was cut short must not
	// look like a complete one.
	tmp := dir + ".new"
	if err := os.RemoveAll(tmp); err != nil {
		return "", err
	}
	if err := initialise(ctx, program, tmp); err != nil {
		return "", err
	}
	return dir, os.Rename(tmp, dir)
}

// initialise makes a data directory. Its redo log is small, for quick copies; a
// server resizes it at its start.
func initialise(ctx context.Context, program Program, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	args := []string{"--no-defaults", "--datadir=" + dir, "--loose-innodb-log-file-size=16M"}
	path := program.Path
	if program.Init == "" {
		args = append(args, "--initialize-insecure")
		args = append(args, program.Prefix...)
	} else {
		path = program.Init
		args = append(args, "--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve")
		if program.Root != "" {
			args = append(args, "--basedir="+filepath.Join(program.Root, "usr"))
		}
		for _, p := range program.Prefix {
			if !strings.HasPrefix(p, "--basedir") {
				args = append(args, p)
			}
		}
	}
	cmd := exec.CommandContext(ctx, path, append(args, asRoot()...)...) //nolint:gosec // a program we found ourselves
	cmd.Env = append(os.Environ(), program.Env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initialise a database with %s: %w\n%s", path, err, out)
	}
	return nil
}
