package upload

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// objects is the smallest part of S3 that a store needs: put (in one go and in
// parts), get, head and delete of one bucket, with metadata and ranges.
type objects struct {
	mu      sync.Mutex
	kept    map[string]object
	pending map[string]map[int]object // uploads in parts, by key
	asked   int                       // requests in all
	worst   int                       // of what is put, the part from which on it is refused; 0: none
}

type object struct {
	body   []byte
	header http.Header
}

func (o *objects) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asked++
	key := r.URL.Path
	obj, ok := o.kept[key]
	q := r.URL.Query()
	switch r.Method {
	case http.MethodPost:
		w.Header().Set("Content-Type", "application/xml")
		if q.Has("uploads") {
			o.pending[key] = map[int]object{0: {header: r.Header.Clone()}}
			_, _ = io.WriteString(w, `<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>`)
			return
		}
		whole := object{header: o.pending[key][0].header}
		for n := 1; n < len(o.pending[key]); n++ {
			whole.body = append(whole.body, o.pending[key][n].body...)
		}
		o.kept[key] = whole
		delete(o.pending, key)
		_, _ = io.WriteString(w, `<CompleteMultipartUploadResult><ETag>"x"</ETag></CompleteMultipartUploadResult>`)
	case http.MethodPut:
		body, err := io.ReadAll(r.Body)
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		if strings.Contains(r.Header.Get("Content-Encoding"), "aws-chunked") {
			body = dechunk(body)
		}
		part, err := strconv.Atoi(q.Get("partNumber"))
		if o.worst > 0 && part >= o.worst {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		if err == nil {
			o.pending[key][part] = object{body: body}
		} else {
			o.kept[key] = object{body: body, header: r.Header.Clone()}
		}
		w.Header().Set("ETag", `"x"`)
	case http.MethodGet, http.MethodHead:
		if !ok {
			w.Header().Set("Content-Type", "application/xml")
			w.WriteHeader(http.StatusNotFound)
			if r.Method == http.MethodGet {
				_, _ = io.WriteString(w, `<?xml version="1.0"?><Error><Code>NoSuchKey</Code></Error>`)
			}
			return
		}
		for name, v := range obj.header {
			if strings.HasPrefix(name, "X-Amz-Meta-") || name == "Content-Type" {
				w.Header()[name] = v
			}
		}
		w.Header().Set("ETag", `"x"`)
		o.mu.Unlock() // a reader may ask for more before he has read it all
		defer o.mu.Lock()
		http.ServeContent(w, r, "", serverStart, bytes.NewReader(obj.body))
	case http.MethodDelete:
		if q.Has("uploadId") {
			delete(o.pending, key)
		} else {
			delete(o.kept, key)
		}
		w.WriteHeader(http.StatusNoContent)
	default:
		w.WriteHeader(http.StatusNotImplemented)
	}
}

// dechunk undoes the encoding of signed uploads: "<hex length>;...\r\n<bytes>\r\n".
func dechunk(b []byte) []byte {
	var out []byte
	for {
		line, rest, _ := bytes.Cut(b, []byte("\r\n"))
		size, _, _ := bytes.Cut(line, []byte(";"))
		n, err := strconv.ParseInt(string(size), 16, 64)
		if err != nil || n <= 0 || n > int64(len(rest)) {
			return out
		}
		out = append(out, rest[:n]...)
		b = bytes.TrimPrefix(rest[n:], []byte("\r\n"))
	}
}

// openS3 opens a store in a bucket of its own.
func openS3(t *testing.T) (*Store, *objects) {
	t.Helper()
	fake := &objects{kept: map[string]object{}, pending: map[string]map[int]object{}}
	srv := httptest.NewServer(fake)
	t.Cleanup(srv.Close)
	t.Setenv("AWS_ACCESS_KEY_ID", "key")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	s, err := Open(context.Background(), s3Config(srv.URL, t.TempDir()), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s, fake
}

func s3Config(endpoint, spool string) Config {
	return Config{Bucket: "s3://bucket?region=here&use_path_style=true&endpoint=" + url.QueryEscape(endpoint), Spool: spool}
}

func (o *objects) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.kept) + len(o.pending)
}

func TestStore_OnS3(t *testing.T) {
	s, fake := openS3(t)
	contract(t, s, fake.count)
}

// What does not come whole never gets to a bucket elsewhere, which would keep the
// parts that it has; and what it refuses in the middle is given up there.
func TestStore_LeavesNothingOnS3(t *testing.T) {
	s, fake := openS3(t)
	for _, src := range []io.Reader{&failing{30 << 20}, bytes.NewReader(make([]byte, 30<<20+1))} {
		_, err := s.Save(context.Background(), "x.bin", src, 30<<20)
		require.Error(t, err)
	}
	require.Zero(t, fake.asked)

	fake.worst = 3
	_, err := s.Save(context.Background(), "x.bin", bytes.NewReader(make([]byte, 30<<20)), 30<<20)
	require.Error(t, err)
	require.Greater(t, fake.asked, 3)
	require.Zero(t, fake.count())
	left, err := os.ReadDir(s.spool)
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestOpen_SpoolMissing(t *testing.T) {
	_, err := Open(context.Background(), s3Config("http://127.0.0.1:1", filepath.Join(t.TempDir(), "none")), slog.New(slog.DiscardHandler))
	require.ErrorContains(t, err, "upload.spool")
}
