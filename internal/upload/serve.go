package upload

import (
	"context"
	"fmt"
	"mime"
	"net/http"
	"net/url"

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
	file, err := s.bucket.NewReader(ctx, key, nil)
	if err != nil {
		return notFound(err)
	}
	defer func() { _ = file.Close() }()

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
