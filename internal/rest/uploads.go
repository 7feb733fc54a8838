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
	"im-services/internal/peer"
	"im-services/internal/upload"
	"im-services/internal/wire"
)

// formOverhead is what a multipart body may hold besides the file.
const formOverhead = 64 << 10

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
	host := peer.Host(peer.IP(r, a.Config.TrustedProxies))
	if !a.files.take(host) {
		a.failAs(w, r, fileStatus, &im.Error{Kind: im.KindExhausted, Reason: "downloads_busy", RetryAfter: 5 * time.Second})
		return
	}
	defer a.files.release(host)
	err := a.Uploads.Serve(&pacedWriter{ResponseWriter: w, ctl: http.NewResponseController(w)}, r, key)
	switch {
	case errors.Is(err, upload.ErrNotFound):
		a.fail(w, r, im.E(im.KindNotFound, "file_not_found", nil))
	case err != nil: // buckets name the key in their errors
		a.failAs(w, r, fileStatus, im.E(im.KindUnavailable, "service_unavailable", errors.New(strings.ReplaceAll(err.Error(), key, keyMark(key)))))
	}
}

// fileStatus is the status instead of a file, which nobody must take for the file.
func fileStatus(int) int { return http.StatusServiceUnavailable }

// pacedWriter writes an answer of any length to a reader who keeps the pace that is
// demanded of bodies. Who does not is cut off: he may ask for the rest.
type pacedWriter struct {
	http.ResponseWriter
	ctl *http.ResponseController
	due int64 // bytes to be taken before the window closes; none: the next write opens one
}

func (w *pacedWriter) Write(p []byte) (int, error) {
	if w.due <= 0 {
		w.due = paceBytes
		_ = w.ctl.SetWriteDeadline(time.Now().Add(paceWindow))
	}
	n, err := w.ResponseWriter.Write(p)
	w.due -= int64(n)
	return n, err
}
