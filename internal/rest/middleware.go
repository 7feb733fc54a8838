package rest

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"

	"im-services/internal/im"
	"im-services/internal/peer"
)

// record is what the access log says about a request; handlers fill it in.
type record struct {
	id     string
	user   im.UserID
	code   int
	reason string
}

type recordKey struct{}

func recordOf(r *http.Request) *record {
	rec, _ := r.Context().Value(recordKey{}).(*record)
	return rec
}

func requestID(r *http.Request) string {
	if rec := recordOf(r); rec != nil {
		return rec.id
	}
	return ""
}

// access logs and measures every request and names it by an id, which the
// answer carries too. The query is left out: it may hold a token. So are
// headers, bodies and the keys of files.
func (a *api) access(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		rec := &record{id: newRequestID()}
		w.Header().Set("X-Request-Id", rec.id)
		ww := middleware.NewWrapResponseWriter(w, r.ProtoMajor)
		r = r.WithContext(context.WithValue(r.Context(), recordKey{}, rec))
		defer func() {
			took := time.Since(start)
			route := chi.RouteContext(r.Context()).RoutePattern()
			if route == "" {
				route = "none"
			}
			a.metrics.observe(r.Method, route, rec.code, took)
			a.Log.LogAttrs(r.Context(), slog.LevelInfo, "request",
				slog.String("method", method(r.Method)), slog.String("path", loggedPath(r)), slog.String("route", route),
				slog.Int("status", ww.Status()), slog.Int("code", rec.code), slog.String("reason", rec.reason),
				slog.Int("bytes", ww.BytesWritten()), slog.Duration("took", took),
				slog.Int64("user", int64(rec.user)), slog.String("ip", peer.IP(r, a.Config.TrustedProxies)),
				slog.String("request_id", rec.id))
		}()
		next.ServeHTTP(ww, r)
	})
}

// loggedPath is the path of a request as logs may show it. Who knows the key of a
// file may read the file, so a mark stands for it, and its name is left out.
func loggedPath(r *http.Request) string {
	before, rest, found := strings.Cut(r.URL.Path, "/files/")
	if !found {
		return r.URL.Path
	}
	key, _, _ := strings.Cut(rest, "/")
	return before + "/files/" + keyMark(key)
}

// keyMark stands for a file's key: equal keys have equal marks, and nobody finds
// the key by it.
func keyMark(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:4])
}

// method bounds what a client can write into logs and metrics.
func method(m string) string {
	switch m {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return m
	}
	return "OTHER"
}

func newRequestID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// crossOrigin lets pages of any origin use the API: they hold a token, never a
// cookie, so an origin is no authority. Every preflight is answered here.
func crossOrigin(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Access-Control-Allow-Origin", "*")
		h.Set("Access-Control-Allow-Methods", "POST, GET, OPTIONS, DELETE, PATCH, PUT")
		h.Set("Access-Control-Allow-Headers", "Content-Type, AccessToken, X-CSRF-Token, Authorization, Token, x-token")
		h.Set("Access-Control-Expose-Headers", "Content-Length, Content-Type")
		h.Set("Access-Control-Max-Age", "600")
		if r.Method == http.MethodOptions {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// harden sets the headers that keep browsers from guessing and leaking.
func harden(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		next.ServeHTTP(w, r)
	})
}

// bothSpellings serves /api paths with and without a trailing slash alike: a
// redirect would fail the browser's preflight. Percent-encoding makes no other
// path of one either.
func bothSpellings(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/api/") {
			chi.RouteContext(r.Context()).RoutePath = strings.TrimSuffix(r.URL.Path, "/")
		}
		next.ServeHTTP(w, r)
	})
}

// patience is how long a client may take to read an answer. Transfers of files
// extend it as they go.
func patience(work time.Duration) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ctl, now := http.NewResponseController(w), time.Now()
			_ = ctl.SetWriteDeadline(now.Add(work + writePause)) // a test's recorder has none
			if r.ContentLength != 0 {
				// For a body that nobody asks for. Without a body net/http reads on
				// for the next request, and would take a deadline for the client's end.
				_ = ctl.SetReadDeadline(now.Add(paceWindow))
			}
			next.ServeHTTP(w, r)
		})
	}
}
