package upload

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/gabriel-vasile/mimetype"
	"github.com/stretchr/testify/require"
	"gocloud.dev/blob"
	"gocloud.dev/blob/driver"
	"gocloud.dev/gcerrors"
)

var serverStart = time.Now().Truncate(time.Second)

func TestStore_InADirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "when missing")
	s, err := Open(context.Background(), Config{Bucket: dir}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	contract(t, s, func() (n int) {
		require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() && !strings.HasSuffix(path, ".attrs") {
				n++
			}
			return err
		}))
		return n
	})
}

func TestOpen_FileURL(t *testing.T) {
	s, err := Open(context.Background(), Config{Bucket: "file://" + t.TempDir()}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	require.NoError(t, s.Close())
	_, err = Open(context.Background(), Config{}, slog.New(slog.DiscardHandler))
	require.Error(t, err)
	_, err = Open(context.Background(), Config{Bucket: "nothing://x"}, slog.New(slog.DiscardHandler))
	require.Error(t, err)
}

// failing is a source that breaks after n bytes.
type failing struct{ n int }

func (f *failing) Read(p []byte) (int, error) {
	if f.n == 0 {
		return 0, errors.New("the line broke")
	}
	n := min(len(p), f.n)
	f.n -= n
	return n, nil
}

// contract is what every kind of bucket must do; kept counts its files.
func contract(t *testing.T, s *Store, kept func() int) {
	t.Helper()
	ctx := context.Background()
	big := bytes.Repeat([]byte("0123456789"), 1<<20)
	huge := bytes.Repeat([]byte("0123456789abcdef"), 5<<18) // S3 takes it in parts
	for _, content := range [][]byte{[]byte("x"), bytes.Repeat([]byte("y"), sniffLen), bytes.Repeat([]byte("z"), sniffLen+1), big, huge} {
		f, err := s.Save(ctx, "图 1.txt", bytes.NewReader(content), int64(len(content)))
		require.NoError(t, err)
		require.Equal(t, int64(len(content)), f.Size)
		require.Equal(t, sha256.Sum256(content), f.Sum)
		require.Equal(t, "图 1.txt", f.Name)
		require.Equal(t, "/files/"+f.Key+"/%E5%9B%BE%201.txt", Path(f))

		w := httptest.NewRecorder()
		require.NoError(t, s.Serve(w, httptest.NewRequest(http.MethodGet, "/", nil), f.Key))
		require.Equal(t, 200, w.Code)
		require.True(t, bytes.Equal(content, w.Body.Bytes()))
		require.Equal(t, "text/plain; charset=utf-8", w.Header().Get("Content-Type"))
		require.Equal(t, `attachment; filename*=utf-8''%E5%9B%BE%201.txt`, w.Header().Get("Content-Disposition"))

		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Range", "bytes=-1")
		w = httptest.NewRecorder()
		require.NoError(t, s.Serve(w, r, f.Key))
		require.Equal(t, 206, w.Code)
		require.Equal(t, content[len(content)-1:], w.Body.Bytes())

		r.Header.Set("Range", "bytes=0-0,0-0")
		w = httptest.NewRecorder()
		require.NoError(t, s.Serve(w, r, f.Key))
		require.Equal(t, 200, w.Code, "several ranges are not asked of a bucket one by one")
		require.True(t, bytes.Equal(content, w.Body.Bytes()))

		before := kept()
		require.NoError(t, s.Delete(ctx, f.Key))
		require.Equal(t, before-1, kept())
		require.NoError(t, s.Delete(ctx, f.Key), "twice is no error")
		require.ErrorIs(t, s.Serve(httptest.NewRecorder(), r, f.Key), ErrNotFound)
	}

	require.Zero(t, kept())
	for name, c := range map[string]struct {
		src  io.Reader
		want error
	}{
		"empty":           {strings.NewReader(""), ErrEmpty},
		"large, at once":  {bytes.NewReader(make([]byte, 101)), ErrTooLarge},
		"cut early":       {&failing{10}, ErrCut},
		"cut at the head": {&failing{sniffLen}, ErrTooLarge},
	} {
		_, err := s.Save(ctx, "x", c.src, 100)
		require.ErrorIs(t, err, c.want, name)
	}
	for _, body := range [][]byte{big, huge} {
		_, err := s.Save(ctx, "x", bytes.NewReader(body), int64(len(body))-1)
		require.ErrorIs(t, err, ErrTooLarge)
		_, err = s.Save(ctx, "x", &failing{len(body) - 1}, 1<<30)
		require.ErrorIs(t, err, ErrCut)
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	_, err := s.Save(gone, "x", bytes.NewReader(big), 1<<30)
	require.Error(t, err)
	require.Zero(t, kept(), "nothing is left behind")

	for _, key := range []string{"", "x", "../../etc/passwd", strings.Repeat("g", 32), strings.Repeat("0", 32)} {
		require.ErrorIs(t, s.Serve(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil), key), ErrNotFound)
	}
}

// full is a disk that takes some bytes and then no more.
type full struct {
	driver.Bucket

	room int
	left int // files that were not forgotten
}

func (f *full) NewTypedWriter(ctx context.Context, _, _ string, _ *driver.WriterOptions) (driver.Writer, error) {
	if f.room < 0 {
		return nil, &fs.PathError{Op: "open", Err: syscall.ENOSPC}
	}
	f.left++
	return &fullWriter{f: f, ctx: ctx, room: f.room}, nil
}

func (f *full) ErrorCode(error) gcerrors.ErrorCode { return gcerrors.Unknown }
func (f *full) Close() error                       { return nil }

type fullWriter struct {
	f    *full
	ctx  context.Context
	room int
}

func (w *fullWriter) Write(p []byte) (int, error) {
	if len(p) > w.room {
		return w.room, &fs.PathError{Op: "write", Err: syscall.EDQUOT}
	}
	w.room -= len(p)
	return len(p), nil
}

// Close forgets the file if the context ended, and else has to write what
// describes it.
func (w *fullWriter) Close() error {
	w.f.left--
	if w.ctx.Err() != nil {
		return w.ctx.Err()
	}
	return &fs.PathError{Op: "write", Err: syscall.ENOSPC}
}

func TestStore_NoSpace(t *testing.T) {
	for name, room := range map[string]int{"at the beginning": -1, "in the middle": 100 << 10, "at the end": 2 << 20} {
		disk := &full{room: room}
		s := newStore(blob.NewBucket(disk), t.TempDir(), "")
		_, err := s.Save(context.Background(), "x.bin", bytes.NewReader(make([]byte, 1<<20)), 1<<20)
		require.ErrorIs(t, err, ErrFull, name)
		require.NotErrorIs(t, err, ErrCut, name)
		require.Zero(t, disk.left, name)
		require.NoError(t, s.Close())
	}
}

func TestMediaType(t *testing.T) {
	for name, c := range map[string]struct {
		head, want string
		inline     bool
	}{
		"a.png":  {"\x89PNG\r\n\x1a\n", "image/png", true},
		"a.jpg":  {"\xff\xd8\xff", "image/jpeg", true},
		"a.gif":  {"GIF89a", "image/gif", true},
		"a.webp": {"RIFF\x00\x00\x00\x00WEBPVP8 ", "image/webp", true},
		"a.mp3":  {"ID3\x03\x00\x00\x00", "audio/mpeg", true},
		"a.svg":  {`<svg xmlns="http://www.w3.org/2000/svg"/>`, "image/svg+xml", false},
		"b.svg":  {"<!-- c -->\n<svg xmlns=\"http://www.w3.org/2000/svg\"/>", "image/svg+xml", false},
		"c.svg":  {`<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "svg11.dtd"><svg xmlns="http://www.w3.org/2000/svg"/>`, "image/svg+xml", false},
		"d.svg":  {"\ufeff<?xml version=\"1.0\"?><svg xmlns=\"http://www.w3.org/2000/svg\"/>", "image/svg+xml", false},
		"e.svg":  {"<html><script>alert(1)</script>", "image/svg+xml", false},
		"f.svg":  {"%PDF-1.4", "application/pdf", false},
		"b.png":  {`<svg xmlns="http://www.w3.org/2000/svg"/>`, "image/svg+xml", false},
		"c.png":  {"GIF89a=1;alert(1)//", "image/gif", true}, // a picture to browsers: sniffing is off
		"d.png":  {"%PDF-1.4", "application/pdf", false},
		"e.zip":  {"PK\x03\x04", "application/zip", false},
		"f.wav":  {"garbage", "audio/wav", true},
		"h.ogg":  {"OggS\x00", "audio/ogg", true},
		"i.ogv":  {"OggS\x00", "video/ogg", true},
		"k.flv":  {"FLV\x01", "video/x-flv", true},
		"l.tiff": {"II*\x00", "image/tiff", true},
		"m.pdf":  {"garbage", "application/pdf", false},
		"n.html": {"garbage", "text/plain; charset=utf-8", false},
		"j.txt":  {"OggS\x00", "application/ogg", false},
		"g.xml":  {"<?xml version=\"1.0\"?><a/>", "text/xml; charset=utf-8", false},
	} {
		got := mediaType(mimetype.Detect([]byte(c.head)), name)
		require.Equal(t, c.want, got, name)
		require.Equal(t, c.inline, inline(got), name)
	}
}

func FuzzSafeName(f *testing.F) {
	for _, s := range []string{"a.png", "../x", "", "...", ".", "a\x00.b", "\xff.png", "x.PNG.", "a/b\\c", strings.Repeat("語", 200) + ".txt", "a.b c"} {
		f.Add(s)
	}
	kind := mimetype.Detect([]byte("plain"))
	f.Fuzz(func(t *testing.T, name string) {
		got := safeName(name, kind)
		require.NotEmpty(t, got)
		require.True(t, utf8.ValidString(got))
		require.LessOrEqual(t, len(got), maxStem+maxExtension)
		require.NotContains(t, got, "/")
		require.NotContains(t, got, `\`)
		require.NotContains(t, got, "\x00")
		require.NotEqual(t, ".", got)
		require.NotEqual(t, "..", got)
		ext := filepath.Ext(got)
		require.Greater(t, len(ext), 1, "%q", got)
		require.Equal(t, strings.ToLower(ext), ext)
		require.Equal(t, got, safeName(got, kind), "stable")
	})
}
