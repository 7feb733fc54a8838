package upload

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"

	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"
)

// Serve sends the file to a GET or HEAD, ranges and conditions included. On
// error nothing was written. The caller sets headers of his own before.
func (s *Store) Serve(w http.ResponseWriter, r *http.Request, key string) error {
	if !validKey(key) {
		return ErrNotFound
	}
	// A reader must be able to outlive the time that looking it up may take.
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	attrs, err := s.bucket.Attributes(ctx, key)
	if err != nil {
		return notFound(err)
	}
	file := &content{ctx: ctx, store: s, key: key, size: attrs.Size}
	defer file.close()

	name, _ := url.PathUnescape(attrs.Metadata[nameKey]) // "" sends no name
	h := w.Header()
	h.Set("Content-Type", attrs.ContentType)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; sandbox")
	h.Set("Cache-Control", "public, max-age=31536000, immutable") // a key is never used again
	h.Set("ETag", `"`+key+`"`)
	if !inline(attrs.ContentType) {
		h.Set("Content-Disposition", disposition(name))
	}
	if strings.Contains(r.Header.Get("Range"), ",") {
		// Each of several ranges would be a request to the bucket. Who asks for them must
		// be ready for all of the file.
		r = r.Clone(ctx)
		r.Header.Del("Range")
	}
	http.ServeContent(w, r, "", attrs.ModTime, file)
	return nil
}

func notFound(err error) error {
	if gcerrors.Code(err) == gcerrors.NotFound {
		return ErrNotFound
	}
	return fmt.Errorf("upload: open: %w", err)
}

// disposition makes browsers save a file instead of showing it (RFC 6266).
func disposition(name string) string {
	if d := mime.FormatMediaType("attachment", map[string]string{"filename": name}); d != "" {
		return d
	}
	return "attachment"
}

// content reads a file from wherever it is asked to. It opens the file at the
// first byte that is wanted, so that a range costs one request to the bucket and
// an unchanged file none. It is used by one goroutine, within its context.
type content struct {
	ctx   context.Context //nolint:containedctx // io.ReadSeeker has no room for one
	store *Store
	key   string
	size  int64
	at    int64
	open  *blob.Reader // reads from at on; nil until something is read
}

func (c *content) Read(p []byte) (int, error) {
	if c.at >= c.size {
		return 0, io.EOF
	}
	if c.open == nil {
		r, err := c.store.bucket.NewRangeReader(c.ctx, c.key, c.at, -1, nil)
		if err != nil {
			return 0, notFound(err)
		}
		c.open = r
	}
	n, err := c.open.Read(p)
	c.at += int64(n)
	return n, err
}

func (c *content) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += c.at
	case io.SeekEnd:
		offset += c.size
	}
	if offset < 0 {
		return 0, errors.New("upload: seek before the start")
	}
	if offset != c.at {
		c.close()
		c.at = offset
	}
	return offset, nil
}

func (c *content) close() {
	if c.open != nil {
		_ = c.open.Close()
		c.open = nil
	}
}
