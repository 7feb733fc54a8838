package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"im-services/internal/cluster/infra"
)

// programs is the folder of a state that holds the binaries its cluster runs.
const programs = "programs"

// Build builds the service binaries into the state folder, from where they are run,
// and returns their folder. They are built elsewhere first, where every build with
// the same flags finds the last one's; builds of several programs wait for one
// another. A test's build must not change what a crashed service comes back as.
func (s State) Build(ctx context.Context, root string, flags []string) (string, error) {
	dir := filepath.Join(root, ".local", "bin"+flagSuffix(flags))
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return "", err
	}
	args := []string{"build", "-C", root}
	if !gitAnswers(ctx, root) {
		args = append(args, "-buildvcs=false")
	}
	args = append(args, flags...)
	args = append(args, "-o", dir+string(filepath.Separator))
	for _, svc := range services {
		if _, err := os.Stat(filepath.Join(root, "cmd", svc.name, "main.go")); err != nil {
			return "", fmt.Errorf("cmd/%s is missing: %w", svc.name, err)
		}
		args = append(args, "./cmd/"+svc.name)
	}
	unlock, err := infra.Lock(ctx, dir+".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	out, err := exec.CommandContext(ctx, "go", args...).CombinedOutput() //nolint:gosec // our own arguments
	if err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			err = errors.New("no go command on PATH: install Go from https://go.dev/dl/")
		}
		return "", fmt.Errorf("build the services: %w\n%s", err, out)
	}
	return s.path(programs), s.takePrograms(dir)
}

// takePrograms replaces the binaries of the state folder with those of dir. A
// process that runs keeps the one it was started from.
func (s State) takePrograms(dir string) error {
	if err := os.MkdirAll(s.path(programs), 0o700); err != nil {
		return err
	}
	for _, svc := range services {
		from, to := filepath.Join(dir, svc.name), s.path(programs, svc.name)
		if sameFile(from, to) { // nothing was built anew
			continue
		}
		if err := os.Remove(to + ".new"); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		// The compiler puts a new file in the place of the old one, so a link will do.
		if err := os.Link(from, to+".new"); err != nil {
			if err := copyProgram(from, to+".new"); err != nil {
				return err
			}
		}
		if err := os.Rename(to+".new", to); err != nil {
			return err
		}
	}
	return nil
}

func sameFile(a, b string) bool {
	x, errX := os.Stat(a)
	y, errY := os.Stat(b)
	return errX == nil && errY == nil && os.SameFile(x, y)
}

// copyProgram does for two file systems what a link does for one.
func copyProgram(from, to string) error {
	src, err := os.Open(from) //nolint:gosec // our own binary
	if err != nil {
		return err
	}
	defer func() { _ = src.Close() }()
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o700) //nolint:gosec // it is executed
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	return errors.Join(err, dst.Close())
}

// gitAnswers reports whether git tells root about its repository. It does not in
// one that another user cloned, and there go build would fail for want of a
// commit to write into the binaries.
func gitAnswers(ctx context.Context, root string) bool {
	return exec.CommandContext(ctx, "git", "-C", root, "status", "--porcelain").Run() == nil //nolint:gosec // our own arguments
}

var notInNames = regexp.MustCompile(`[^a-zA-Z0-9]+`)

func flagSuffix(flags []string) string {
	if len(flags) == 0 {
		return ""
	}
	return "-" + strings.Trim(notInNames.ReplaceAllString(strings.Join(flags, "-"), "-"), "-")
}
