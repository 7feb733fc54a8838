package infra

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// script writes an executable.
func script(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("#!/bin/sh\n"+text+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
}

// fakeApt puts an apt-get and a dpkg-deb in front of PATH that unpack servers that
// do no more than to tell their version. It returns the folder of both, and the
// cache's folder; the former's file "fetched" has a line for each fetch.
func fakeApt(t *testing.T) (bin, cache string) {
	t.Helper()
	bin, cache = t.TempDir(), t.TempDir()
	t.Setenv("IM_CACHE_DIR", cache)
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	script(t, filepath.Join(bin, "apt-get"), fmt.Sprintf(`case "$*" in
*--download-only*)
	[ -e %[1]s/away ] && { echo no network >&2; exit 100; }
	echo once >> %[1]s/fetched
	: > %[2]s/archives/x.deb ;;
esac`, bin, filepath.Join(cache, systemName())))
	script(t, filepath.Join(bin, "dpkg-deb"), `mkdir -p $3/usr/sbin $3/usr/bin
for f in $3/usr/sbin/mariadbd $3/usr/bin/mariadb-install-db $3/usr/bin/redis-server; do
	printf '#!/bin/sh\necho fetched 10.11-MariaDB\n' > $f && chmod 700 $f
done`)
	return bin, cache
}

func fetches(t *testing.T, bin string) int {
	t.Helper()
	text, _ := os.ReadFile(filepath.Join(bin, "fetched"))
	return strings.Count(string(text), "once")
}

func TestFromDebian_FetchesAgainWhatDoesNotRun(t *testing.T) {
	bin, cache := fakeApt(t)
	root := filepath.Join(cache, systemName(), "root")
	get := func(want int) {
		t.Helper()
		for _, pick := range []func(debianRoot) (Program, error){debianRoot.mariadb, debianRoot.redis} {
			p, err := fromDebian(t.Context(), t.Logf, pick)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := p.Version(t.Context()); err != nil {
				t.Error(err)
			}
		}
		if got := fetches(t, bin); got != want {
			t.Errorf("fetched %d times, want %d", got, want)
		}
	}
	get(1)
	get(1)
	for i, damage := range []func() error{
		func() error { return os.Remove(filepath.Join(root, "usr/sbin/mariadbd")) },
		func() error { return os.Remove(filepath.Join(root, "usr/bin/mariadb-install-db")) },
		func() error {
			return os.WriteFile(filepath.Join(root, "usr/bin/redis-server"), []byte("#!/bin/sh\nexit 127\n"), 0o600)
		},
		func() error { return os.RemoveAll(root) },
	} {
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		get(i + 2)
	}
	// What cannot be mended is said, and tried anew at the next start.
	if err := os.RemoveAll(root); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bin, "away"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := fromDebian(t.Context(), t.Logf, debianRoot.redis); err == nil || !strings.Contains(err.Error(), "no network") {
		t.Errorf("without a network: %v", err)
	}
	if err := os.Remove(filepath.Join(bin, "away")); err != nil {
		t.Fatal(err)
	}
	get(6)
}

// An installed server that is of no use must not be in the way of one that can be
// had.
func TestFind_AnInstalledServerThatCannotBeUsed(t *testing.T) {
	for name, text := range map[string]string{
		"it does not run":     "echo 'permission denied' >&2; exit 1",
		"it cannot make data": "[ \"$1\" = --version ] && { echo mysqld 8.4; exit; }; echo 'permission denied' >&2; exit 1",
	} {
		t.Run(name, func(t *testing.T) {
			bin, _ := fakeApt(t)
			script(t, filepath.Join(bin, "mariadbd"), text)
			script(t, filepath.Join(bin, "redis-server"), "echo 'permission denied' >&2; exit 1")
			var said strings.Builder
			say := func(format string, args ...any) { fmt.Fprintf(&said, format+"\n", args...) }
			for what, find := range map[string]func() (Program, error){
				"mysql": func() (Program, error) { return FindMySQL(t.Context(), say) },
				"redis": func() (Program, error) { return FindRedis(t.Context(), say) },
			} {
				said.Reset()
				p, err := find()
				if err != nil || !strings.Contains(p.Origin, "unpacked") {
					t.Errorf("%s: found %+v, %v", what, p, err)
				}
				if !strings.Contains(said.String(), "permission denied") {
					t.Errorf("%s: nobody is told why: %s", what, said.String())
				}
			}

			t.Setenv("IM_CACHE_DIR", t.TempDir())
			if err := os.WriteFile(filepath.Join(bin, "away"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := FindMySQL(t.Context(), say)
			for _, want := range []string{"permission denied", "no network", "Way out"} {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("the error does not say %q: %v", want, err)
				}
			}
		})
	}
}

// Where everybody may make folders, one that somebody else can write to is refused:
// programs are run from it.
func TestCacheDir_WithoutAHomeIsOursAlone(t *testing.T) {
	tmp := t.TempDir()
	for _, name := range []string{"IM_CACHE_DIR", "XDG_CACHE_HOME", "HOME"} {
		t.Setenv(name, "")
	}
	t.Setenv("TMPDIR", tmp)
	base := filepath.Join(tmp, fmt.Sprintf("cache-%d", os.Getuid()))
	dir, err := CacheDir()
	if err != nil || !strings.HasPrefix(dir, base) {
		t.Fatalf("got %s, %v", dir, err)
	}
	refused := func(what string) {
		t.Helper()
		if dir, err := CacheDir(); err == nil || !strings.Contains(err.Error(), base) {
			t.Errorf("%s: got %s, %v", what, dir, err)
		}
	}
	if err := os.Chmod(base, 0o777); err != nil { //nolint:gosec // that is the point
		t.Fatal(err)
	}
	refused("everybody can write to it")
	if err := os.Rename(base, base+".elsewhere"); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(base+".elsewhere", 0o700); err != nil { //nolint:gosec // a folder
		t.Fatal(err)
	}
	if err := os.Symlink(base+".elsewhere", base); err != nil {
		t.Fatal(err)
	}
	refused("it leads elsewhere")
	if os.Getuid() == 0 {
		if err := os.Remove(base); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(base, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(base, 1234, 1234); err != nil {
			t.Fatal(err)
		}
		refused("it is another user's")
	}
}
