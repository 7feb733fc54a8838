package rest

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"image/color"
	"image/png"
	"io"
	"io/fs"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/textproto"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"gocloud.dev/blob"
	"gocloud.dev/blob/driver"
	"gocloud.dev/gcerrors"
	"google.golang.org/protobuf/proto"

	logicv1 "im-services/api/proto/logic/v1"
	"im-services/internal/im"
	"im-services/internal/token"
	"im-services/internal/upload"
)

// filePart is a multipart body with one file, named as browsers name it.
func filePart(t testing.TB, field, name string, content []byte) (*bytes.Buffer, string) {
	t.Helper()
	var buf bytes.Buffer
	w := multipart.NewWriter(&buf)
	h := textproto.MIMEHeader{}
	h.Set("Content-Disposition", fmt.Sprintf(`form-data; name=%q; filename="%s"`, field, strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(name)))
	h.Set("Content-Type", "application/octet-stream")
	p, err := w.CreatePart(h)
	require.NoError(t, err)
	_, err = p.Write(content)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return &buf, w.FormDataContentType()
}

func (e *edge) upload(name string, content []byte) reply {
	e.t.Helper()
	body, ct := filePart(e.t, "file", name, content)
	return e.do(http.MethodPost, "/api/upload/file", body, "Content-Type", ct)
}

// uploaded uploads a file and returns the path it is served under.
func (e *edge) uploaded(name string, content []byte) string {
	e.t.Helper()
	r := e.ok(e.upload(name, content))
	raw := r.data[len(`{"file_url":"`):]
	raw = raw[:strings.IndexByte(raw, '"')]
	require.True(e.t, strings.HasPrefix(raw, public+"/files/"), "absolute: %s", raw)
	require.NotContains(e.t, raw, "?")
	return strings.TrimPrefix(raw, public)
}

func files(t *testing.T, dir string) (n int) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && !strings.HasSuffix(path, ".attrs") {
			n++
		}
		return err
	}))
	return n
}

var (
	wav = append([]byte("RIFF\x24\x00\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00"), make([]byte, 64)...)
	svg = []byte(`<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>`)
)

func TestUpload_ServedAsTheClientNeedsIt(t *testing.T) {
	e := newEdge(t)
	picture := drawAvatar(9)
	tests := []struct {
		name    string
		content []byte
		last    string // last segment of the URL
		ctype   string
		inline  bool
	}{
		{"1795390858378.png", picture, "1795390858378.png", "image/png", true},
		{"Photo.PNG", picture, "Photo.png", "image/png", true},
		{"voice.wav", wav, "voice.wav", "audio/wav", true},
		{"cut.wav", []byte("no header"), "cut.wav", "audio/wav", true},
		{"noextension", picture, "noextension.png", "image/png", true},
		{"notes", []byte("plain text"), "notes.txt", "text/plain; charset=utf-8", false},
		{"what", []byte{0, 1, 2, 3, 0xff}, "what.bin", "application/octet-stream", false},
		{"a.svg", svg, "a.svg", "image/svg+xml", false},
		{"a.html", []byte("<!DOCTYPE html><html><script>1</script>"), "a.html", "text/html; charset=utf-8", false},
		{"lie.png", []byte("<!DOCTYPE html><html><script>1</script>"), "lie.png", "text/html; charset=utf-8", false},
		{"../../etc/passwd.txt", []byte("x"), "passwd.txt", "text/plain; charset=utf-8", false},
		{`C:\dir\f.txt`, []byte("x"), "f.txt", "text/plain; charset=utf-8", false},
		{"图 片.png", picture, "%E5%9B%BE%20%E7%89%87.png", "image/png", true},
		{"a?b#c%2f.png", picture, "a_b_c_2f.png", "image/png", true},
		{".png", picture, "file.png", "image/png", true},
		{"evil\u202egnp.exe", []byte("MZ"), "evilgnp.exe", "", false},
		{strings.Repeat("x", 300) + ".txt", []byte("x"), strings.Repeat("x", 120) + ".txt", "", false},
		{"a.attrs", []byte("x"), "a.attrs", "", false},
		{"two.tar.gz", []byte("\x1f\x8b\x08"), "two.tar.gz", "application/gzip", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e.t = t
			path := e.uploaded(tt.name, tt.content)
			require.Equal(t, tt.last, path[strings.LastIndexByte(path, '/')+1:])
			r := e.send(httptest.NewRequest(http.MethodGet, path, nil)) // no token
			require.Equal(t, 200, r.status)
			require.Equal(t, tt.content, r.Body.Bytes(), "as it was sent")
			h := r.Header()
			if tt.ctype != "" {
				require.Equal(t, tt.ctype, h.Get("Content-Type"))
			}
			require.Equal(t, "*", h.Get("Access-Control-Allow-Origin"))
			require.Equal(t, "nosniff", h.Get("X-Content-Type-Options"))
			require.Contains(t, h.Get("Content-Security-Policy"), "sandbox")
			require.Equal(t, tt.inline, h.Get("Content-Disposition") == "", h.Get("Content-Disposition"))
		})
	}
	for _, c := range e.calls("ConversationService/RegisterUpload") {
		reg, _ := c.(*logicv1.RegisterUploadRequest)
		require.Equal(t, int64(34), reg.GetUserId())
		require.Len(t, reg.GetSha256(), 32)
		require.Len(t, reg.GetKey(), 32)
	}
}

func TestUpload_SameNameDoesNotOverwrite(t *testing.T) {
	e := newEdge(t)
	a, b := e.uploaded("x.txt", []byte("one")), e.uploaded("x.txt", []byte("two"))
	require.NotEqual(t, a, b)
	require.Equal(t, "one", e.get(a).Body.String())
	require.Equal(t, "two", e.get(b).Body.String())
}

func TestUpload_Ranges(t *testing.T) {
	e := newEdge(t)
	path := e.uploaded("v.wav", wav)
	r := e.do(http.MethodGet, path, nil, "Range", "bytes=8-11")
	require.Equal(t, 206, r.status)
	require.Equal(t, "WAVE", r.Body.String())
	require.Equal(t, fmt.Sprintf("bytes 8-11/%d", len(wav)), r.Header().Get("Content-Range"))
	require.Equal(t, 416, e.do(http.MethodGet, path, nil, "Range", "bytes=9999-").status)
	require.Equal(t, 304, e.do(http.MethodGet, path, nil, "If-None-Match", r.Header().Get("ETag")).status)
	head := e.do(http.MethodHead, path, nil)
	require.Equal(t, fmt.Sprint(len(wav)), head.Header().Get("Content-Length"))
	require.Empty(t, head.Body.String())
}

func TestUpload_Refusals(t *testing.T) {
	e := newEdge(t, func(d *Deps) { d.Config.UploadLimit = 1 << 20 })
	e.refused(e.do(http.MethodPost, "/api/upload/file", nil), 1000)
	e.refused(e.multipart(http.MethodPost, "/api/upload/file"), 1000)
	e.refused(e.multipart(http.MethodPost, "/api/upload/file", "file", "text, no file"), 1000)
	e.refused(e.json(http.MethodPost, "/api/upload/file", `{"file":"x"}`), 1000)
	e.refused(e.upload("empty.txt", nil), 1000)
	body, ct := filePart(t, "other", "x.txt", []byte("x"))
	e.refused(e.do(http.MethodPost, "/api/upload/file", body, "Content-Type", ct), 1000)
	e.refused(e.upload("big.bin", make([]byte, 1<<20+1)), 1000)
	e.refused(e.upload("bigger.bin", make([]byte, 3<<20)), 1000)
	body, ct = filePart(t, "file", "cut.bin", make([]byte, 100<<10))
	e.refused(e.do(http.MethodPost, "/api/upload/file", io.LimitReader(body, 50<<10), "Content-Type", ct), 1000)
	body, ct = filePart(t, "file", "cut.bin", make([]byte, 1<<10))
	e.refused(e.do(http.MethodPost, "/api/upload/file", io.LimitReader(body, 600), "Content-Type", ct), 1000)
	require.Equal(t, 401, e.do(http.MethodPost, "/api/upload/file", body, "Authorization", "").status)

	e.on("ConversationService/RegisterUpload", nil, im.E(im.KindUnavailable, "service_unavailable", nil))
	e.refused(e.upload("x.txt", []byte("x")), 500)
	require.Zero(t, files(t, e.dir), "nothing stays behind")

	e.on("ConversationService/RegisterUpload", &logicv1.RegisterUploadResponse{}, nil)
	e.ok(e.upload("limit.bin", make([]byte, 1<<20)))
	require.Equal(t, 1, files(t, e.dir))
}

// fullDisk has no room for a file.
type fullDisk struct{ driver.Bucket }

func (fullDisk) NewTypedWriter(context.Context, string, string, *driver.WriterOptions) (driver.Writer, error) {
	return nil, &fs.PathError{Op: "open", Err: syscall.ENOSPC}
}
func (fullDisk) Delete(context.Context, string, *driver.DeleteOptions) error { return nil }
func (fullDisk) ErrorCode(error) gcerrors.ErrorCode                          { return gcerrors.Unknown }
func (fullDisk) Close() error                                                { return nil }

// Where there is no space the refusal says so, to clients that are still sending
// as well.
func TestUpload_NoSpace(t *testing.T) {
	store := upload.New(blob.NewBucket(fullDisk{}))
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	e := newEdge(t, func(d *Deps) { d.Uploads = store })
	for _, size := range []int{1, 20 << 20} {
		r := e.upload("x.bin", make([]byte, size))
		require.Equal(t, 200, r.status, "refusals that people read")
		e.refused(r, 507)
	}
	require.Empty(t, e.calls("ConversationService/RegisterUpload"))
}

func TestUpload_Busy(t *testing.T) {
	e := newEdge(t, func(d *Deps) { d.Config.UploadConcurrency = 1 })
	pr, pw := io.Pipe()
	done := make(chan int)
	go func() {
		r := httptest.NewRequest(http.MethodPost, "/api/upload/file", pr)
		r.Header.Set("Authorization", "alice")
		r.Header.Set("Content-Type", "multipart/form-data; boundary=b")
		w := httptest.NewRecorder()
		e.handler.ServeHTTP(w, r)
		done <- w.Code
	}()
	_, err := io.WriteString(pw, "--b\r\n") // it is being read: the slot is taken
	require.NoError(t, err)
	r := e.upload("x.txt", []byte("x"))
	e.refused(r, 1000)
	require.Equal(t, "5", r.Header().Get("Retry-After"))
	require.NoError(t, pw.Close())
	require.Equal(t, 200, <-done)
	e.ok(e.upload("x.txt", []byte("x")))
}

// One account does not fill the disk: what does not fit into its quota is refused,
// before it is stored where the request says how much it is.
func TestUpload_Quota(t *testing.T) {
	e := newEdge(t, func(d *Deps) { d.Config.UploadQuota = 10 << 20 })
	used := int64(0)
	e.handle("ConversationService/UploadUsage", func(m proto.Message) (proto.Message, error) {
		require.Equal(t, int64(34), m.(*logicv1.UploadUsageRequest).GetUserId())
		return &logicv1.UploadUsageResponse{Bytes: used}, nil
	})
	const register = "ConversationService/RegisterUpload"
	full := func(r reply) {
		t.Helper()
		e.refused(r, 1000)
		require.Equal(t, "upload_quota_reached", r.reason)
	}
	e.ok(e.upload("x.bin", make([]byte, 1<<20)))
	require.Equal(t, int64(10<<20), last[*logicv1.RegisterUploadRequest](t, e.backend, register).GetQuota())
	used = 9 << 20
	full(e.upload("x.bin", make([]byte, 2<<20)))
	used = 10 << 20
	full(e.upload("x.bin", []byte("x")))
	body, ct := filePart(t, "file", "x.bin", []byte("x"))
	full(e.do(http.MethodPost, "/api/upload/file", io.MultiReader(body), "Content-Type", ct)) // of a length that is not said
	require.Len(t, e.calls(register), 1)

	// Logic has the last word, also when it could not be asked before.
	e.on("ConversationService/UploadUsage", nil, im.E(im.KindUnavailable, "service_unavailable", nil))
	e.ok(e.upload("x.bin", []byte("x")))
	e.on(register, nil, im.E(im.KindConflict, "upload_quota_reached", nil))
	full(e.upload("x.bin", []byte("x")))
	require.Equal(t, 2, files(t, e.dir), "what is refused does not stay")

	e = newEdge(t)
	e.ok(e.upload("x.bin", []byte("x")))
	require.Empty(t, e.calls("ConversationService/UploadUsage"), "without a quota nothing is asked")
}

// TestG14_SlowUploadsTakeNoOthersPlace: one user holds his share of the running
// uploads and no more, whatever others leave free.
func TestG14_SlowUploadsTakeNoOthersPlace(t *testing.T) {
	e := newEdge(t, func(d *Deps) {
		d.Config.UploadConcurrency, d.Config.UploadsPerUser = 4, 2
		d.Verify = func(raw string) (token.Claims, error) {
			if raw == "bob" {
				return token.Claims{UserID: 35}, nil
			}
			return verify(raw)
		}
	})
	var wg sync.WaitGroup
	var slow []*io.PipeWriter
	start := func() {
		pr, pw := io.Pipe()
		wg.Go(func() {
			e.do(http.MethodPost, "/api/upload/file", pr, "Content-Type", "multipart/form-data; boundary=b")
			_ = pr.Close()
		})
		_, err := io.WriteString(pw, "--b\r\n") // it is being read: the slot is taken
		require.NoError(t, err)
		slow = append(slow, pw)
	}
	start()
	start()
	e.refused(e.upload("x.txt", []byte("x")), 1000)
	body, ct := filePart(t, "file", "x.txt", []byte("x"))
	e.ok(e.do(http.MethodPost, "/api/upload/file", body, "Content-Type", ct, "Authorization", "Bearer bob"))
	require.NoError(t, slow[0].Close())
	require.Eventually(t, func() bool { return e.upload("x.txt", []byte("x")).code == 200 }, 5*time.Second, time.Millisecond)
	require.NoError(t, slow[1].Close())
	wg.Wait()
}

// TestG14_SlowDownloadsTakeNoOthersPlace: one host holds its share of the files that are
// being fetched and no more, and what is not sent is nobody's file.
func TestG14_SlowDownloadsTakeNoOthersPlace(t *testing.T) {
	e := newEdge(t, func(d *Deps) {
		d.Config.Downloads, d.Config.DownloadsPerHost = 3, 2
		d.Config.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
	})
	link := e.uploaded("x.bin", make([]byte, 24<<20)) // more than a socket takes unread
	srv := httptest.NewServer(e.handler)
	t.Cleanup(srv.Close)
	fetch := func(host string) *http.Response {
		req, err := http.NewRequest(http.MethodGet, srv.URL+link, nil)
		require.NoError(t, err)
		req.Header.Set("X-Forwarded-For", host)
		r, err := srv.Client().Do(req)
		require.NoError(t, err)
		t.Cleanup(func() { _ = r.Body.Close() })
		return r
	}
	busy := func(host string) {
		t.Helper()
		r := fetch(host)
		require.Equal(t, http.StatusServiceUnavailable, r.StatusCode)
		require.Equal(t, "5", r.Header.Get("Retry-After"))
		body, err := io.ReadAll(r.Body)
		require.NoError(t, err)
		require.Contains(t, string(body), "downloads_busy")
	}
	slow := []*http.Response{fetch("2001:db8::1"), fetch("2001:db8::2")}
	busy("2001:db8::3") // the same household
	slow = append(slow, fetch("192.0.2.1"))
	busy("192.0.2.2") // all are taken
	for _, r := range slow {
		require.Equal(t, 200, r.StatusCode)
		require.NoError(t, r.Body.Close())
	}
	require.Eventually(t, func() bool {
		r := fetch("192.0.2.2")
		n, err := io.Copy(io.Discard, r.Body)
		return r.StatusCode == 200 && n == 24<<20 && err == nil
	}, 5*time.Second, 10*time.Millisecond)
}

// A store that is away must not look like the file.
func TestFiles_StoreAway(t *testing.T) {
	var store *upload.Store
	e := newEdge(t, func(d *Deps) { store = d.Uploads })
	link := e.uploaded("x.txt", []byte("x"))
	require.NoError(t, store.Close())
	require.Equal(t, 503, e.send(httptest.NewRequest(http.MethodGet, link, nil)).status)
}

// deadlines counts the deadlines that a writer sets.
type deadlines struct {
	http.ResponseWriter
	set int
}

func (d *deadlines) SetWriteDeadline(time.Time) error {
	d.set++
	return nil
}

// A reader must take paceBytes in every window, however small his bites are.
func TestPacedWriter(t *testing.T) {
	d := &deadlines{ResponseWriter: httptest.NewRecorder()}
	w := &pacedWriter{ResponseWriter: d, ctl: http.NewResponseController(d)}
	for range 2 * paceBytes / (10 << 10) {
		_, err := w.Write(make([]byte, 10<<10))
		require.NoError(t, err)
	}
	require.Equal(t, 2, d.set)
	_, err := w.Write([]byte("x"))
	require.NoError(t, err)
	require.Equal(t, 3, d.set)
}

func TestFiles_UnknownAndForged(t *testing.T) {
	e := newEdge(t)
	e.uploaded("x.txt", []byte("x"))
	for _, path := range []string{
		"/files/00000000000000000000000000000000/x.txt", "/files/x/x.txt", "/files/..%2f..%2fetc/passwd", "/files/%2e%2e/passwd",
		"/files/" + strings.Repeat("0", 31) + "%00/x", "/files/" + strings.Repeat("A", 32) + "/x",
	} {
		r := e.send(httptest.NewRequest(http.MethodGet, path, nil))
		require.Equal(t, 404, r.status, path)
		require.Equal(t, "*", r.Header().Get("Access-Control-Allow-Origin"))
	}
}

// A client that is still sending when the answer is known gets to see it.
func TestUpload_TooLarge_IsAnsweredWithoutAReset(t *testing.T) {
	e := newEdge(t, func(d *Deps) { d.Config.UploadLimit = 1 << 20 })
	srv := httptest.NewServer(e.handler)
	t.Cleanup(srv.Close)
	body, ct := filePart(t, "file", "big.bin", make([]byte, 20<<20))
	req, err := http.NewRequest(http.MethodPost, srv.URL+"/api/upload/file", body)
	require.NoError(t, err)
	req.Header.Set("Authorization", "alice")
	req.Header.Set("Content-Type", ct)
	resp, err := srv.Client().Do(req)
	require.NoError(t, err)
	got, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, 200, resp.StatusCode)
	require.Contains(t, string(got), `"code":1000`)
}

// slowly uploads a file as a browser does on a slow line: it reads the answer
// when all is sent, for much longer than net/http waits for an unread body.
func slowly(t *testing.T, srv *httptest.Server, token string) string {
	t.Helper()
	body, ct := filePart(t, "file", "x.bin", make([]byte, 1536<<10))
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	_, err = fmt.Fprintf(conn, "POST /api/upload/file HTTP/1.1\r\nHost: x\r\nAuthorization: %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n", token, ct, body.Len())
	require.NoError(t, err)
	for chunk := body.Next(64 << 10); len(chunk) > 0; chunk = body.Next(64 << 10) {
		_, err := conn.Write(chunk)
		require.NoError(t, err, "the line is cut while %d bytes are to come", body.Len())
		time.Sleep(50 * time.Millisecond)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err)
	got, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return string(got)
}

// brokenDisk takes no file, for no reason of the file's.
type brokenDisk struct{ fullDisk }

func (brokenDisk) NewTypedWriter(context.Context, string, string, *driver.WriterOptions) (driver.Writer, error) {
	return nil, &fs.PathError{Op: "open", Err: syscall.EIO}
}

// Whatever an upload is refused for, who sends it over a slow line gets to see it.
func TestUpload_RefusalsOverASlowLine(t *testing.T) {
	store := upload.New(blob.NewBucket(brokenDisk{}))
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	for name, c := range map[string]struct {
		token  string
		change func(*Deps)
		code   int
	}{
		"busy":            {"alice", func(d *Deps) { d.Config.UploadsPerUser = 1 }, 1000},
		"the bucket away": {"alice", func(d *Deps) { d.Uploads = store }, 500},
		"the keys away":   {"keys-away", func(*Deps) {}, 500},
		"no login":        {"nobody", func(*Deps) {}, 401},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEdge(t, c.change)
			srv := httptest.NewServer(e.handler)
			t.Cleanup(srv.Close)
			if name == "busy" {
				pr, pw := io.Pipe()
				var first sync.WaitGroup
				first.Go(func() {
					e.do(http.MethodPost, "/api/upload/file", pr, "Content-Type", "multipart/form-data; boundary=b")
				})
				t.Cleanup(func() { _ = pw.Close(); first.Wait() })
				_, err := io.WriteString(pw, "--b\r\n") // it is being read: the slot is taken
				require.NoError(t, err)
			}
			require.Contains(t, slowly(t, srv, c.token), fmt.Sprintf(`"code":%d`, c.code))
		})
	}
}

func TestBody_SlowSenderIsCutOff(t *testing.T) {
	b := &body{src: slowReader{}, left: 10, ctl: http.NewResponseController(httptest.NewRecorder())}
	_, err := b.Read(make([]byte, 4))
	require.Equal(t, "body_too_slow", im.ReasonOf(err))
	_, err = b.Read(make([]byte, 4))
	require.Equal(t, "body_too_slow", im.ReasonOf(err), "and stays cut off")
}

type slowReader struct{}

func (slowReader) Read([]byte) (int, error) {
	a, b := net.Pipe()
	defer func() { _, _ = a.Close(), b.Close() }()
	_ = a.SetReadDeadline(time.Now())
	return a.Read(make([]byte, 1))
}

func TestAvatar(t *testing.T) {
	e := newEdge(t)
	r := e.send(httptest.NewRequest(http.MethodGet, "/avatars/34.png", nil))
	require.Equal(t, 200, r.status)
	require.Equal(t, "image/png", r.Header().Get("Content-Type"))
	require.Equal(t, "*", r.Header().Get("Access-Control-Allow-Origin"))
	img, err := png.Decode(bytes.NewReader(r.Body.Bytes()))
	require.NoError(t, err)
	require.Equal(t, avatarSide, img.Bounds().Dx())
	for y := range avatarSide { // mirrored
		for x := range avatarSide {
			require.Equal(t, img.At(x, y), img.At(avatarSide-1-x, y))
		}
	}
	require.Equal(t, drawAvatar(34), drawAvatar(34), "every gateway draws the same")
	require.Equal(t, 304, e.do(http.MethodGet, "/avatars/34.png", nil, "If-None-Match", r.Header().Get("ETag")).status)
	for _, bad := range []string{"0.png", "x.png", "34.jpg", "34", "-1.png", "034.png", "9007199254740992.png"} {
		require.Equal(t, 404, e.get("/avatars/"+url.PathEscape(bad)).status, bad)
	}
}

// People must be told apart, and nobody may get a blank square.
func TestAvatar_DifferAndShowSomething(t *testing.T) {
	seen := map[string]bool{}
	blank := 0
	for id := im.UserID(1); id <= 500; id++ {
		raw := drawAvatar(id)
		seen[string(raw)] = true
		img, err := png.Decode(bytes.NewReader(raw))
		require.NoError(t, err)
		ground := color.RGBAModel.Convert(img.At(0, 0))
		found := false
		for x := avatarMargin; x < avatarSide && !found; x += avatarCell {
			for y := avatarMargin; y < avatarSide && !found; y += avatarCell {
				found = color.RGBAModel.Convert(img.At(x, y)) != ground
			}
		}
		if !found {
			blank++
		}
	}
	require.Greater(t, len(seen), 490)
	require.Zero(t, blank)
}
