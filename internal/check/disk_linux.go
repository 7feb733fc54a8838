package check

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// disk is a small disk of its own under a folder of the cluster, to be filled.
type disk struct {
	name string // of the folder, and of what the fault befalls
	dir  string
}

// disks are who gets one, and its size: what is not full on purpose must hold all
// of a long run.
var disks = []struct {
	name string
	size int64
}{{"mysql", 6 << 30}, {"uploads", 1 << 30}, {"nsqd", 24 << 20}}

// mountLimit bounds making a file system.
const mountLimit = 30 * time.Second

// mountDisks puts a file system in a file under every folder that can have one.
// That takes root and a kernel that lets it: the error says why there is none.
func (s *system) mountDisks(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, mountLimit)
	defer cancel()
	images := filepath.Join(s.stateDir, "disks")
	if err := os.MkdirAll(images, 0o750); err != nil {
		return err
	}
	for _, d := range disks {
		image, dir := filepath.Join(images, d.name), filepath.Join(s.stateDir, "data", d.name)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(image, nil, 0o600); err != nil {
			return err
		}
		if err := os.Truncate(image, d.size); err != nil { // it takes up what is written only
			return err
		}
		for _, line := range [][]string{
			{"mkfs.ext4", "-q", "-F", "-m", "0", image},
			{"mount", "-o", "loop", image, dir},
		} {
			if out, err := exec.CommandContext(ctx, line[0], line[1:]...).CombinedOutput(); err != nil { //nolint:gosec // our own arguments
				s.unmountDisks()
				return fmt.Errorf("%s: %w: %s", line[0], err, strings.TrimSpace(string(out)))
			}
		}
		s.disks = append(s.disks, disk{d.name, dir})
		_ = os.Remove(filepath.Join(dir, "lost+found"))
	}
	return nil
}

// unmountDisks gives the folders back; also those that a killed checker left.
func (s *system) unmountDisks() {
	ctx, cancel := context.WithTimeout(context.Background(), mountLimit)
	defer cancel()
	for _, d := range disks {
		dir := filepath.Join(s.stateDir, "data", d.name)
		if own, err := device(dir); err == nil {
			if above, err := device(filepath.Dir(dir)); err == nil && own != above {
				_ = exec.CommandContext(ctx, "umount", "-l", dir).Run() //nolint:gosec // our own folder
			}
		}
	}
	s.disks = nil
}

func device(path string) (uint64, error) {
	var st syscall.Stat_t
	err := syscall.Stat(path, &st)
	return uint64(st.Dev), err //nolint:unconvert // another type elsewhere
}

// fillDisk leaves no room on a disk for a while.
func (s *system) fillDisk(ctx context.Context, f *fault) error {
	for _, d := range s.disks {
		if d.name != f.Target {
			continue
		}
		filler := filepath.Join(d.dir, "filler")
		err := fill(filler)
		for end := time.Now().Add(f.Length); err == nil && time.Now().Before(end) && ctx.Err() == nil; {
			sleep(ctx, 200*time.Millisecond)
			err = fill(filler) // what was freed meanwhile, too
		}
		return errors.Join(err, os.RemoveAll(filler))
	}
	return fmt.Errorf("check: no disk %q", f.Target)
}

// fill takes up all the space that is left, in files of a folder.
func fill(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil && !errors.Is(err, syscall.ENOSPC) {
		return err
	}
	for size := int64(1 << 30); size >= 4096; {
		name := filepath.Join(dir, uintText(uint64(time.Now().UnixNano()))) //nolint:gosec // positive
		out, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
		if errors.Is(err, syscall.ENOSPC) {
			return nil
		}
		if err != nil {
			return err
		}
		err = syscall.Fallocate(int(out.Fd()), 0, 0, size) //nolint:gosec // a small number
		_ = out.Close()
		switch {
		case errors.Is(err, syscall.ENOSPC):
			_ = os.Remove(name)
			size /= 2
		case err != nil:
			return err
		}
	}
	return nil
}
