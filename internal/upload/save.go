package upload

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/gabriel-vasile/mimetype"
	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"
)

// What Save and Serve refuse.
var (
	ErrTooLarge = errors.New("upload: file too large")
	ErrEmpty    = errors.New("upload: empty file")
	ErrNotFound = errors.New("upload: no such file")
	ErrCut      = errors.New("upload: the file was not received whole")
	ErrFull     = errors.New("upload: no space is left")
)

// sniffLen is how much of a file decides what it is.
const sniffLen = 3072

// nameKey is the metadata entry with the file's name, escaped: stores allow
// ASCII only.
const nameKey = "name"

// File is a stored file.
type File struct {
	Key  string // random, 128 bits, hexadecimal
	Name string // the sender's name for it, made safe
	Type string // media type
	Size int64  // bytes
	Sum  [sha256.Size]byte
}

// Path is where a file is served, from the root of the public URL. It ends in
// the file's name, percent-encoded, with its extension in lower case.
func Path(f File) string { return "/files/" + f.Key + "/" + url.PathEscape(f.Name) }

// Save stores what src holds, at most limit bytes, under a new key. When it
// fails, or ctx ends before it returns, nothing is left behind. An error of src
// is an ErrCut; a store without space for the file an ErrFull.
func (s *Store) Save(ctx context.Context, name string, src io.Reader, limit int64) (File, error) {
	in := &source{Reader: src}
	head, err := io.ReadAll(io.LimitReader(in, sniffLen))
	switch {
	case err != nil:
		return File{}, fmt.Errorf("%w: %w", ErrCut, err)
	case len(head) == 0:
		return File{}, ErrEmpty
	case int64(len(head)) > limit:
		return File{}, ErrTooLarge
	}
	kind := mimetype.Detect(head)
	f := File{Key: newKey(), Name: safeName(name, kind)}
	f.Type = mediaType(kind, f.Name)
	in.Reader = io.MultiReader(bytes.NewReader(head), src)
	if s.dir != "" {
		err = s.saveHere(ctx, &f, in, limit)
	} else {
		err = s.saveThere(ctx, &f, in, limit)
	}
	if err != nil {
		return File{}, err
	}
	return f, nil
}

// saveHere writes a file to the directory while it comes.
func (s *Store) saveHere(ctx context.Context, f *File, in *source, limit int64) error {
	// Cancelling its context is how a blob writer is told to forget the file.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w, err := s.bucket.NewWriter(ctx, f.Key, f.options())
	if err != nil {
		return fmt.Errorf("upload: write: %w", noSpace(err))
	}
	if err := f.copy(w, in, limit); err != nil {
		cancel()
		_ = w.Close() // reports the cancellation
		return err
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("upload: finish: %w", noSpace(err))
	}
	if err := s.persist(f.Key); err != nil {
		_ = s.Delete(context.WithoutCancel(ctx), f.Key)
		return fmt.Errorf("upload: persist: %w", noSpace(err))
	}
	return nil
}

func (f *File) options() *blob.WriterOptions {
	return &blob.WriterOptions{
		ContentType:                 f.Type,
		DisableContentTypeDetection: true,
		Metadata:                    map[string]string{nameKey: url.PathEscape(f.Name)},
	}
}

// copy writes what in holds to w, and notes its size and sum.
func (f *File) copy(w io.Writer, in *source, limit int64) error {
	sum := sha256.New()
	var err error
	f.Size, err = io.Copy(io.MultiWriter(w, sum), io.LimitReader(in, limit+1))
	switch {
	case in.err != nil:
		return fmt.Errorf("upload: copy: %w: %w", ErrCut, in.err)
	case err != nil:
		return fmt.Errorf("upload: copy: %w", noSpace(err))
	case f.Size > limit:
		return ErrTooLarge
	}
	sum.Sum(f.Sum[:0])
	return nil
}

// persist makes a file in a directory survive a power cut, as the message that
// links to it does: the bucket has renamed it, which says nothing of its bytes.
func (s *Store) persist(key string) error {
	path := filepath.Join(s.dir, key)
	for _, name := range []string{path, path + ".attrs", s.dir} {
		f, err := os.Open(name) //nolint:gosec // of a key that we made
		if err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// noSpace makes an ErrFull of an error that says so: the disk is full, or the
// share of it that is ours.
func noSpace(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}

// source remembers how reading failed, to tell that from failing to write.
type source struct {
	io.Reader

	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

// Delete removes a file; one that is not there is a success.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := s.bucket.Delete(ctx, key); err != nil && gcerrors.Code(err) != gcerrors.NotFound {
		return fmt.Errorf("upload: delete: %w", err)
	}
	return nil
}

func newKey() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// validKey reports whether newKey could have made key; no other reaches the
// bucket.
func validKey(key string) bool {
	if len(key) != 32 {
		return false
	}
	return strings.Trim(key, "0123456789abcdef") == ""
}
