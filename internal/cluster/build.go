package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"im-services/internal/cluster/infra"
)

// Build builds the service binaries and returns their folder. Binaries built
// with other flags are elsewhere; builds of several programs wait for one another.
func Build(ctx context.Context, root string, flags []string) (string, error) {
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
	for _, s := range services {
		if _, err := os.Stat(filepath.Join(root, "cmd", s.name, "main.go")); err != nil {
			return "", fmt.Errorf("cmd/%s is missing: %w", s.name, err)
		}
		args = append(args, "./cmd/"+s.name)
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
	return dir, nil
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
