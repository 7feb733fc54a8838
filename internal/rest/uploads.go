package rest

import (
	"context"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	logicv1 "im-services/api/proto/logic/v1"
	"im-services/internal/im"
	"im-services/internal/upload"
	"im-services/internal/wire"
)

// formOverhead is what a multipart body may hold besides the file.
const formOverhead = 64 << 10

// writePause is how long a client may leave a chunk of a file unread.
const writePause = 30 * time.Second

// uploadFile stores the part named file while it arrives; it is never whole in
// memory.
func uploadFile(c *call) (any, error) {
	if !c.uploads.take(c.me) {
		sink(c.w, c.r)
		return nil, &im.Error{Kind: im.KindExhausted, Reason: "uploads_busy", RetryAfter: 5 * time.Second}
	}
	defer c.uploads.release(c.me)
	if !c.mayFit() {
		sink(c.w, c.r)
		return nil, im.E(im.KindConflict, "upload_quota_reached", nil)
	}
	b := newBody(c.w, c.r, c.Config.UploadLimit+formOverhead)
	file, err := c.storeFile(b)
	if b.err != nil && !errors.Is(b.err, io.EOF) {
		err = b.err // the cause of whatever the decoder made of it
	}
	if im.ReasonOf(err) == "body_too_large" {
		err = refuse("file_too_large")
	}
	if err != nil {
		if im.ReasonOf(err) != "body_too_slow" {
			b.drain()
		}
		return nil, err
	}
	return wire.FileBody{URL: c.absolute(upload.Path(file)), Name: file.Name, Size: file.Size, Type: file.Type}, nil
}

// mayFit reports whether the caller's quota has room for the file that his request
// announces. What cannot be told now is decided when the file is registered.
func (c *call) mayFit() bool {
	if c.Config.UploadQuota == 0 {
		return true
	}
	ctx, cancel := context.WithTimeout(c.r.Context(), c.Config.RequestTimeout)
	defer cancel()
	used, err := c.Conversations.UploadUsage(ctx, &logicv1.UploadUsageRequest{UserId: int64(c.me)})
	if err != nil {
		c.Log.Debug("the quota is not known", "err", err)
		return true
	}
	return used.GetBytes()+max(c.r.ContentLength-formOverhead, 0) < c.Config.UploadQuota
}

func (c *call) storeFile(b *body) (upload.File, error) {
	kind, params, err := mime.ParseMediaType(c.r.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/form-data" || params["boundary"] == "" {
		return upload.File{}, refuse("file_missing")
	}
	src, empty, err := peek(b)
	if err != nil || empty {
		return upload.File{}, refuse("file_missing")
	}
	parts := multipart.NewReader(src, params["boundary"])
	for {
		part, err := parts.NextRawPart()
		if err == io.EOF { //nolint:errorlint // wrapped, it means that the closing boundary is missing
			return upload.File{}, refuse("file_missing")
		}
		if err != nil {
			return upload.File{}, malformed(err)
		}
		if part.FormName() == "file" && isFile(part) {
			return c.store(part)
		}
	}
}

// isFile tells a file from a text field of the same name.
func isFile(part *multipart.Part) bool {
	_, params, err := mime.ParseMediaType(part.Header.Get("Content-Disposition"))
	if err != nil {
		return false
	}
	_, named := params["filename"]
	return named
}

// store keeps a file and records whose it is. A file that nobody answers for is
// not kept.
func (c *call) store(part *multipart.Part) (upload.File, error) {
	file, err := c.Uploads.Save(c.r.Context(), part.FileName(), part, c.Config.UploadLimit)
	switch {
	case errors.Is(err, upload.ErrTooLarge):
		return upload.File{}, refuse("file_too_large")
	case errors.Is(err, upload.ErrEmpty):
		return upload.File{}, refuse("file_empty")
	case errors.Is(err, upload.ErrCut):
		return upload.File{}, malformed(err)
	case errors.Is(err, upload.ErrFull):
		return upload.File{}, im.E(im.KindUnavailable, "storage_full", err)
	case err != nil:
		return upload.File{}, im.E(im.KindUnavailable, "service_unavailable", err)
	}
	if err = c.stillMe(); err == nil {
		_, err = c.Conversations.RegisterUpload(c.ctx(), &logicv1.RegisterUploadRequest{
			UserId: int64(c.me), Key: file.Key, Name: file.Name, ContentType: file.Type, Size: file.Size, Sha256: file.Sum[:],
			Quota: c.Config.UploadQuota,
		})
	}
	if err != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(c.r.Context()), c.Config.RequestTimeout)
		defer cancel()
		if e := c.Uploads.Delete(ctx, file.Key); e != nil {
			c.Log.Warn("a file without an owner stays behind", "key", keyMark(file.Key), "err", strings.ReplaceAll(e.Error(), file.Key, keyMark(file.Key)))
		}
		return upload.File{}, err
	}
	return file, nil
}

// serveFile sends a stored file to whoever knows its URL.
func (a *api) serveFile(w http.ResponseWriter, r *http.Request) {
	key := chi.URLParam(r, "key")
	w.Header().Set("Cross-Origin-Resource-Policy", "cross-origin")
	err := a.Uploads.Serve(&patientWriter{ResponseWriter: w, ctl: http.NewResponseController(w)}, r, key)
	switch {
	case errors.Is(err, upload.ErrNotFound):
		a.fail(w, r, im.E(im.KindNotFound, "file_not_found", nil))
	case err != nil: // buckets name the key in their errors
		a.fail(w, r, im.E(im.KindUnavailable, "service_unavailable", errors.New(strings.ReplaceAll(err.Error(), key, keyMark(key)))))
	}
}

// patientWriter gives each chunk of a long answer its own deadline, so that a
// slow reader may take long but a dead one does not.
type patientWriter struct {
	http.ResponseWriter
	ctl *http.ResponseController
}

func (w *patientWriter) Write(p []byte) (int, error) {
	_ = w.ctl.SetWriteDeadline(time.Now().Add(writePause))
	return w.ResponseWriter.Write(p)
}
