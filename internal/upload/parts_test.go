package upload

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A process that dies leaves the part of a file that it was writing; the next one
// to open the directory removes it, but no part that may still grow.
func TestOpen_RemovesPartsOfTheDead(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(context.Background(), Config{Bucket: dir}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	whole, err := s.Save(context.Background(), "x.tmp", strings.NewReader("whole"), 100)
	require.NoError(t, err)

	// Two uploads that never end by themselves; what they wrote is where the bucket put it.
	pr, pw := io.Pipe()
	done := make(chan error, 2)
	for range 2 {
		go func() {
			_, err := s.Save(context.Background(), "x.bin", io.MultiReader(bytes.NewReader(make([]byte, 1<<20)), pr), 1<<30)
			done <- err
		}()
	}
	parts := func() []string {
		found, err := filepath.Glob(filepath.Join(dir, "*.tmp"))
		require.NoError(t, err)
		return found
	}
	require.Eventually(t, func() bool { // both wait for more
		waiting := 0
		for _, p := range parts() {
			if info, err := os.Stat(p); err == nil && info.Size() == 1<<20 {
				waiting++
			}
		}
		return waiting == 2
	}, 10*time.Second, time.Millisecond)
	old, young := parts()[0], parts()[1]
	foreign := filepath.Join(dir, "notes.tmp")
	require.NoError(t, os.WriteFile(foreign, nil, 0o600))
	long := time.Now().Add(-partAge - time.Minute)
	for _, f := range []string{old, foreign, filepath.Join(dir, whole.Key)} {
		require.NoError(t, os.Chtimes(f, long, long))
	}

	var log bytes.Buffer
	next, err := Open(context.Background(), Config{Bucket: "file://" + dir}, slog.New(slog.NewTextHandler(&log, nil)))
	require.NoError(t, err)
	require.NoError(t, next.Close())
	require.ElementsMatch(t, []string{young, foreign}, parts())
	require.FileExists(t, filepath.Join(dir, whole.Key))
	require.Contains(t, log.String(), "parts=1")

	require.NoError(t, pw.CloseWithError(io.ErrUnexpectedEOF))
	for range 2 {
		require.ErrorIs(t, <-done, ErrCut)
	}
	require.NoError(t, s.Close())
}

// What cannot be read is said, and no reason not to start.
func TestRemoveParts_SaysWhatFails(t *testing.T) {
	var log bytes.Buffer
	removeParts(filepath.Join(t.TempDir(), "missing"), slog.New(slog.NewTextHandler(&log, nil)))
	require.Contains(t, log.String(), "level=WARN")
}
