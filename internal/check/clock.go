package check

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Nobody may turn the machine's own clock, and programs written in Go ask no
// library for the time. So the services of a checked cluster are built with a
// standard library whose time.Now adds what stands in a file, eight bytes that
// are mapped into memory. As with a real clock that is set, only the wall clock
// jumps: timers and durations go on as they were.

const clockEnv = "IM_CLOCK_FILE"

// clockCall is the line of time.Now behind which the offset is added.
const clockCall = "\tsec, nsec, mono := runtimeNow()\n"

const clockSource = `package time

import (
	"sync/atomic"
	"syscall"
	"unsafe"
)

var wallOffset = mapWallOffset()

func mapWallOffset() *atomic.Int64 {
	name, ok := syscall.Getenv("` + clockEnv + `")
	if !ok {
		return nil
	}
	fd, err := syscall.Open(name, syscall.O_RDONLY, 0)
	if err != nil {
		panic("time: " + name + ": " + err.Error())
	}
	defer syscall.Close(fd)
	mem, err := syscall.Mmap(fd, 0, 8, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		panic("time: " + name + ": " + err.Error())
	}
	return (*atomic.Int64)(unsafe.Pointer(&mem[0]))
}

func wallNow(sec int64, nsec int32) (int64, int32) {
	if wallOffset == nil {
		return sec, nsec
	}
	d := wallOffset.Load()
	n := int64(nsec) + d%1e9
	sec += d / 1e9
	switch {
	case n < 0:
		n, sec = n+1e9, sec-1
	case n >= 1e9:
		n, sec = n-1e9, sec+1
	}
	return sec, int32(n)
}
`

// clockOverlay writes the changed files of the standard library below root and
// returns the build flag that uses them.
func clockOverlay(ctx context.Context, root string) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("check: go env GOROOT: %w", err)
	}
	std := filepath.Join(strings.TrimSpace(string(out)), "src", "time")
	text, err := os.ReadFile(filepath.Join(std, "time.go")) //nolint:gosec // of the Go distribution
	if err != nil {
		return "", err
	}
	if strings.Count(string(text), clockCall) == 0 {
		return "", errors.New("check: this Go release reads the clock in another way")
	}
	changed := strings.ReplaceAll(string(text), clockCall, clockCall+"\tsec, nsec = wallNow(sec, nsec)\n")
	dir := filepath.Join(root, ".local", "clock")
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return "", err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return "", err
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{
		filepath.Join(std, "time.go"):       filepath.Join(dir, "time.go"),
		filepath.Join(std, "walloffset.go"): filepath.Join(dir, "walloffset.go"),
	}})
	if err != nil {
		return "", err
	}
	name := filepath.Join(dir, "overlay.json")
	return "-overlay=" + name, errors.Join(
		os.WriteFile(filepath.Join(dir, "time.go"), []byte(changed), 0o600), //nolint:gosec // a folder of this check's own
		os.WriteFile(filepath.Join(dir, "walloffset.go"), []byte(clockSource), 0o600),
		os.WriteFile(name, overlay, 0o600),
	)
}

// clockFile makes the file with a process's offset, with the right time in it.
func clockFile(dir, process string) (string, error) {
	name := filepath.Join(dir, process+".clock")
	if _, err := os.Stat(name); err == nil {
		return name, nil // the process starts again, and its clock stays as it is
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return "", err
	}
	return name, os.WriteFile(name, make([]byte, 8), 0o600)
}

// setClock moves a process's clock away from the right time by offset.
func setClock(file string, offset time.Duration) error {
	f, err := os.OpenFile(file, os.O_WRONLY, 0) //nolint:gosec // of our own cluster
	if err != nil {
		return err
	}
	var b [8]byte
	binary.NativeEndian.PutUint64(b[:], uint64(offset)) //nolint:gosec // negative ones as they are
	_, err = f.WriteAt(b[:], 0)
	return errors.Join(err, f.Close())
}

// turnClock spoils a process's clock for a while.
func (s *system) turnClock(ctx context.Context, f *fault) error {
	file, err := clockFile(s.clockDir(), f.Target)
	if err != nil {
		return err
	}
	switch f.Kind {
	case ClockAhead:
		err = setClock(file, time.Hour)
	case ClockBehind:
		err = setClock(file, -time.Hour)
	case ClockStrobe:
		const swing, every = 500 * time.Millisecond, 150 * time.Millisecond
		sign := time.Duration(1)
		for end := time.Now().Add(f.Length); err == nil && time.Now().Before(end) && ctx.Err() == nil; sign = -sign {
			err = setClock(file, sign*swing)
			sleep(ctx, every)
		}
		return errors.Join(err, setClock(file, 0))
	}
	sleep(ctx, f.Length)
	return errors.Join(err, setClock(file, 0))
}

func (s *system) clockDir() string { return filepath.Join(s.stateDir, "clocks") }
