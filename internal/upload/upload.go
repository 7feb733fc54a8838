// Package upload stores the files people send each other and serves them.
//
// A file is kept under a random name nobody can guess; the name its sender gave
// it is metadata and the last segment of its URL, never a path. What a file is
// gets decided by its bytes, not by what the sender says. Only pictures, sound
// and video are shown inline by browsers; everything else is a download.
package upload

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"

	"gocloud.dev/blob"
	"gocloud.dev/blob/fileblob"
	_ "gocloud.dev/blob/s3blob" // s3:// URLs
)

// Config says where files are kept.
type Config struct {
	// Bucket is a directory, or s3://bucket?region=...&endpoint=...&use_path_style=true
	// for anything that speaks S3 (credentials from the AWS_* environment).
	Bucket string `yaml:"bucket"`
	// Spool is where a file lies until it has come whole, if Bucket is no directory. It
	// needs room for rest.upload_concurrency files of rest.upload_limit. Default: the
	// system's directory for temporary files.
	Spool string `yaml:"spool"`
}

// Validate reports a bucket that cannot be opened.
func (c Config) Validate() error {
	if c.Bucket == "" {
		return errors.New("upload: bucket is empty: give a directory or an s3:// URL")
	}
	if u, err := url.Parse(c.Bucket); err == nil && u.Scheme == "file" && u.Host != "" {
		return fmt.Errorf("upload: bucket %q names a host: give the directory alone, %s, or file:///absolute/path", c.Bucket, u.Host+u.Path)
	}
	return nil
}

// Store keeps files. Its methods may be called concurrently.
type Store struct {
	bucket *blob.Bucket
	dir    string // of a bucket that is a directory, else ""
	spool  string
	sends  chan struct{} // those under way to a bucket that is elsewhere
}

// New makes a Store of a bucket that is open, and closes it when it is closed.
func New(b *blob.Bucket) *Store { return newStore(b, "", "") }

func newStore(b *blob.Bucket, dir, spool string) *Store {
	return &Store{bucket: b, dir: dir, spool: spool, sends: make(chan struct{}, sendsAtOnce)}
}

// Open opens the bucket; a directory is made if it is missing, and freed of what
// uploads left there whose process died. Close it.
func Open(ctx context.Context, cfg Config, log *slog.Logger) (*Store, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	b, dir, err := openBucket(ctx, cfg.Bucket, log)
	if err != nil {
		return nil, fmt.Errorf("upload: open bucket: %w", err)
	}
	s := newStore(b, dir, cfg.Spool)
	if dir == "" {
		f, err := s.openSpool()
		if err != nil {
			return nil, errors.Join(err, s.Close())
		}
		_ = f.Close()
	}
	return s, nil
}

// openBucket also returns the directory, if it is one.
func openBucket(ctx context.Context, where string, log *slog.Logger) (b *blob.Bucket, dir string, err error) {
	if strings.Contains(where, "://") && !strings.HasPrefix(where, "file://") {
		b, err = blob.OpenBucket(ctx, where)
		return b, "", err
	}
	dir = where
	if u, err := url.Parse(where); err == nil && u.Scheme == "file" {
		dir = u.Path
	}
	// Temporary files beside the final ones: a rename across file systems
	// would be a copy that a crash can cut in two.
	b, err = fileblob.OpenBucket(dir, &fileblob.Options{CreateDir: true, NoTempDir: true})
	if err != nil {
		return nil, "", err
	}
	removeParts(dir, log)
	return b, dir, nil
}

// Close releases the bucket.
func (s *Store) Close() error { return s.bucket.Close() }
