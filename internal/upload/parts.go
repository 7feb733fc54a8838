package upload

import (
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// partAge is how long nothing may have been written to a part before its upload is
// over. Gateways share the directory, so younger ones may be growing.
const partAge = time.Hour

// removeParts deletes from a bucket's directory what uploads left there that ended
// with their process. What cannot be deleted stays: files are served all the same.
func removeParts(dir string, log *slog.Logger) {
	removed, err := removeOldParts(dir)
	if err != nil {
		log.Warn("parts of files that were never whole stay behind", "dir", dir, "err", err)
	}
	if removed > 0 {
		log.Info("removed parts of files that were never whole", "dir", dir, "parts", removed)
	}
}

func removeOldParts(dir string) (removed int, err error) {
	d, err := os.Open(dir)
	if err != nil {
		return 0, err
	}
	defer func() { _ = d.Close() }()
	var failed error
	for {
		entries, err := d.ReadDir(1000) // there may be millions
		for _, e := range entries {
			if !isPart(e.Name()) {
				continue
			}
			info, err := e.Info()
			if err == nil && time.Since(info.ModTime()) < partAge {
				continue
			}
			if err == nil {
				err = os.Remove(filepath.Join(dir, e.Name()))
			}
			switch {
			case err == nil:
				removed++
			case !errors.Is(err, fs.ErrNotExist): // else it was finished, or another gateway was faster
				failed = err
			}
		}
		if errors.Is(err, io.EOF) {
			return removed, failed
		}
		if err != nil {
			return removed, err
		}
	}
}

// isPart reports whether the bucket gives such a name to a file that is not whole
// yet: its key, the time, and tmp.
func isPart(name string) bool {
	key, rest, _ := strings.Cut(name, ".")
	return validKey(key) && strings.HasSuffix(rest, ".tmp")
}
