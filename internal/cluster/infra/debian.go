package infra

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"
)

// Time limits of the steps of a fetch.
const (
	aptUpdateLimit   = 2 * time.Minute
	aptDownloadLimit = 5 * time.Minute
	unpackLimit      = time.Minute
)

// debianRoot is a folder of unpacked Debian packages.
type debianRoot string

// fetchDebian unpacks MariaDB and Redis from the distribution's own packages
// into the cache, as any user, without installing anything and without running
// any package's scripts. apt checks the signatures. It fetches only the
// libraries the machine lacks.
func fetchDebian(ctx context.Context, say Say) (debianRoot, error) {
	for _, tool := range []string{"apt-get", "dpkg-deb"} {
		if _, err := exec.LookPath(tool); err != nil {
			return "", fmt.Errorf("and no %s to fetch them with", tool)
		}
	}
	cache, err := CacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "debian")
	root := debianRoot(filepath.Join(dir, "root"))
	stamp := filepath.Join(dir, "complete")
	if _, err := os.Stat(stamp); err == nil {
		return root, nil
	}
	ctx, cancel := context.WithTimeout(ctx, aptUpdateLimit+aptDownloadLimit+unpackLimit)
	defer cancel()
	unlock, err := Lock(ctx, dir+".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(stamp); err == nil {
		return root, nil
	}
	say.say("fetching MariaDB and Redis with apt, without installing them (about 30 MB), into %s", dir)
	for _, sub := range []string{"lists/partial", "archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return "", err
		}
	}
	apt := func(limit time.Duration, args ...string) error {
		options := []string{
			"-q",
			"-o", "Dir::State::Lists=" + filepath.Join(dir, "lists"),
			"-o", "Dir::Cache=" + dir,
			"-o", "Dir::Cache::archives=" + filepath.Join(dir, "archives"),
			"-o", "Debug::NoLocking=1",
			"-o", "APT::Sandbox::User=",
		}
		return runLimited(ctx, limit, "apt-get", append(options, args...)...)
	}
	if err := apt(aptUpdateLimit, "update"); err != nil {
		return "", err
	}
	if err := apt(aptDownloadLimit, "install", "-y", "--no-install-recommends", "--download-only",
		"redis-server", "mariadb-server-core", "mariadb-server"); err != nil {
		return "", err
	}
	debs, err := filepath.Glob(filepath.Join(dir, "archives", "*.deb"))
	if err != nil || len(debs) == 0 {
		return "", errors.Join(err, errors.New("apt-get downloaded nothing"))
	}
	if err := os.RemoveAll(string(root)); err != nil {
		return "", err
	}
	for _, deb := range debs {
		if err := runLimited(ctx, unpackLimit, "dpkg-deb", "-x", deb, string(root)); err != nil {
			return "", err
		}
	}
	if err := os.WriteFile(stamp, nil, 0o600); err != nil {
		return "", err
	}
	for _, deb := range debs { // 30 MB nobody needs again
		_ = os.Remove(deb)
	}
	return root, nil
}

// runLimited runs a program quietly under a time limit.
func runLimited(ctx context.Context, limit time.Duration, name string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...) //nolint:gosec // fixed programs
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		err = fmt.Errorf("not done within %s", limit)
	}
	return fmt.Errorf("%s %s: %w\n%s", name, args[len(args)-1], err, out[max(0, len(out)-2000):])
}

// env lets the dynamic linker find the unpacked libraries.
func (r debianRoot) env() []string {
	arch := map[string]string{"amd64": "x86_64", "arm64": "aarch64", "386": "i386", "ppc64le": "powerpc64le"}[runtime.GOARCH]
	if arch == "" {
		arch = runtime.GOARCH
	}
	triplet := arch + "-linux-gnu"
	path := ""
	for _, dir := range []string{"usr/lib/", "lib/"} {
		path += filepath.Join(string(r), dir+triplet) + ":"
	}
	return []string{"LD_LIBRARY_PATH=" + path + os.Getenv("LD_LIBRARY_PATH")}
}

func (r debianRoot) mariadb() (Program, error) {
	top := string(r)
	p := Program{
		Path:   filepath.Join(top, "usr/sbin/mariadbd"),
		Init:   filepath.Join(top, "usr/bin/mariadb-install-db"),
		Root:   top,
		Env:    r.env(),
		Origin: "unpacked from " + debianName() + " packages, not installed",
		Prefix: []string{
			"--basedir=" + filepath.Join(top, "usr"),
			"--lc-messages-dir=" + filepath.Join(top, "usr/share/mysql"),
			"--character-sets-dir=" + filepath.Join(top, "usr/share/mysql/charsets"),
			"--plugin-dir=" + filepath.Join(top, "usr/lib/mysql/plugin"),
		},
	}
	_, err := os.Stat(p.Path)
	return p, err
}

func (r debianRoot) redis() (Program, error) {
	p := Program{
		Path:   filepath.Join(string(r), "usr/bin/redis-server"),
		Root:   string(r),
		Env:    r.env(),
		Origin: "unpacked from " + debianName() + " packages, not installed",
	}
	// The file is a link to redis-check-rdb beside it, which is in another
	// package: a machine that has that one installed does not fetch it.
	target := filepath.Join(string(r), "usr/bin/redis-check-rdb")
	if _, err := os.Stat(target); errors.Is(err, os.ErrNotExist) {
		_ = os.Symlink("/usr/bin/redis-check-rdb", target)
	}
	_, err := os.Stat(p.Path)
	return p, err
}

func debianName() string {
	if _, err := os.Stat("/etc/lsb-release"); err == nil {
		return "Ubuntu"
	}
	return "Debian"
}
