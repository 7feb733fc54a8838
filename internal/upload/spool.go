package upload

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"gocloud.dev/blob"
)

const (
	// sendTime is how long a bucket elsewhere may take for a file that is here whole.
	sendTime = 5 * time.Minute
	// sendsAtOnce bounds the files on their way there: each takes up to 40 MB.
	sendsAtOnce = 4
	// partSize is what such a bucket is given at a time.
	partSize = 5 << 20
)

// saveThere gives a bucket that is elsewhere a file once it is here whole. What a
// client cuts short, or what is too large, never gets there: S3 keeps, and charges
// for, the parts of uploads that are given up. And a client that is slow holds a file
// meanwhile, instead of the memory that sending takes.
func (s *Store) saveThere(ctx context.Context, f *File, in *source, limit int64) error {
	whole, err := s.openSpool()
	if err != nil {
		return err
	}
	defer func() { _ = whole.Close() }()
	if err := f.copy(whole, in, limit); err != nil {
		return err
	}
	if _, err := whole.Seek(0, 0); err != nil {
		return fmt.Errorf("upload: spool: %w", err)
	}
	select {
	case s.sends <- struct{}{}:
		defer func() { <-s.sends }()
	case <-ctx.Done():
		return fmt.Errorf("upload: send: %w", ctx.Err())
	}
	// A client that leaves now does not stop it: it would stay there in part.
	sendCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), sendTime)
	defer cancel()
	opts := f.options()
	opts.BufferSize, opts.MaxConcurrency = partSize, 1
	if err = s.send(sendCtx, f.Key, whole, opts); err == nil {
		err = ctx.Err()
	}
	if err != nil {
		// It may be there though its bucket did not say so.
		_ = s.Delete(sendCtx, f.Key)
		return fmt.Errorf("upload: send: %w", noSpace(err))
	}
	return nil
}

func (s *Store) send(ctx context.Context, key string, whole *os.File, opts *blob.WriterOptions) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.bucket.Upload(ctx, key, whole, opts)
}

// openSpool makes a file that nobody else sees and that is gone when it is closed,
// or when this process dies.
func (s *Store) openSpool() (*os.File, error) {
	f, err := os.CreateTemp(s.spool, "im-upload-*")
	if err == nil {
		if err = os.Remove(f.Name()); err == nil {
			return f, nil
		}
		err = errors.Join(err, f.Close())
	}
	return nil, fmt.Errorf("upload: no file for what arrives could be made; upload.spool names the directory for it: %w", noSpace(err))
}
