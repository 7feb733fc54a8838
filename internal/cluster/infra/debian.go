package infra

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
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

// fromDebian returns a program of the unpacked packages, which are fetched if they
// are not there, or once more if it does not run: a cache may have been cleaned by
// half, or be older than the system.
func fromDebian(ctx context.Context, say Say, pick func(debianRoot) (Program, error)) (Program, error) {
	var p Program
	err := fetchDebian(ctx, say, func(root debianRoot) error {
		var err error
		if p, err = pick(root); err != nil {
			return err
		}
		_, err = p.Version(ctx)
		return err
	})
	return p, err
}

// fetchDebian unpacks MariaDB and Redis from the distribution's own packages
// into the cache, as any user, without installing anything and without running
// any package's scripts. apt checks the signatures. It fetches only the
// libraries the machine lacks. works is asked whether what is there will do.
func fetchDebian(ctx context.Context, say Say, works func(debianRoot) error) error {
	for _, tool := range []string{"apt-get", "dpkg-deb"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("and no %s to fetch it with", tool)
		}
	}
	cache, err := CacheDir()
	if err != nil {
		return err
	}
	dir := filepath.Join(cache, systemName())
	root := debianRoot(filepath.Join(dir, "root"))
	stamp := filepath.Join(dir, "complete")
	there := func() error {
		if _, err := os.Stat(stamp); err != nil {
			return err
		}
		return works(root)
	}
	if there() == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, aptUpdateLimit+aptDownloadLimit+unpackLimit)
	defer cancel()
	unlock, err := Lock(ctx, dir+".lock")
	if err != nil {
		return err
	}
	defer unlock()
	if err = there(); err == nil || ctx.Err() != nil {
		return err
	}
	if !errors.Is(err, os.ErrNotExist) {
		say.say("what was fetched before does not run: %v", err)
	}
	if err := os.Remove(stamp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	say.say("fetching MariaDB and Redis with apt, without installing them (about 30 MB), into %s", dir)
	if err := unpackDebian(ctx, dir, root); err != nil {
		return err
	}
	if err := os.WriteFile(stamp, nil, 0o600); err != nil {
		return err
	}
	return works(root)
}

// unpackDebian fetches the packages and fills root with what is in them.
func unpackDebian(ctx context.Context, dir string, root debianRoot) error {
	for _, sub := range []string{"lists/partial", "archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return err
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
		return err
	}
	// Those that are installed as well: it is asked for them when they are of no use.
	if err := apt(aptDownloadLimit, "install", "-y", "--no-install-recommends", "--download-only", "--reinstall",
		"redis-server", "mariadb-server-core", "mariadb-server"); err != nil {
		return err
	}
	debs, err := filepath.Glob(filepath.Join(dir, "archives", "*.deb"))
	if err != nil || len(debs) == 0 {
		return errors.Join(err, errors.New("apt-get downloaded nothing"))
	}
	if err := os.RemoveAll(string(root)); err != nil {
		return err
	}
	for _, deb := range debs {
		if err := runLimited(ctx, unpackLimit, "dpkg-deb", "-x", deb, string(root)); err != nil {
			return err
		}
	}
	for _, deb := range debs { // 30 MB nobody needs again
		_ = os.Remove(deb)
	}
	return nil
}

// systemName tells the machines that can use the same packages from others that
// have the same home folder: "debian-12-amd64".
func systemName() string {
	release := map[string]string{}
	text, _ := os.ReadFile("/etc/os-release")
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		release[key] = notInPaths.ReplaceAllString(value, "")
	}
	return release["ID"] + "-" + release["VERSION_ID"] + "-" + runtime.GOARCH
}

var notInPaths = regexp.MustCompile(`[^a-zA-Z0-9.]+`)

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
	_, err := os.Stat(p.Init)
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
	return p, nil
}

func debianName() string {
	if _, err := os.Stat("/etc/lsb-release"); err == nil {
		return "Ubuntu"
	}
	return "Debian"
}
