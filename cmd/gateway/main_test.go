package main

import (
	"net/http"
	"net/http/httptest"
	"os/exec"
	"reflect"
	"strings"
	"testing"

	"im-services/internal/catalog"
	"im-services/internal/gateway"
	"im-services/internal/platform/config"
	"im-services/internal/platform/discovery"
)

func load(t *testing.T) (Config, error) {
	t.Helper()
	cfg := defaults()
	err := config.Load("../../deploy/config/gateway.yaml", &cfg)
	return cfg, err
}

func TestShippedConfig(t *testing.T) {
	t.Setenv("IM_PUSH_KEY", strings.Repeat("k", 32))
	cfg, err := load(t)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Gateway.Listen != ":8000" || cfg.StopTimeout <= cfg.Gateway.DrainWindow {
		t.Fatalf("unexpected: listen %q, stop %v, drain %v", cfg.Gateway.Listen, cfg.StopTimeout, cfg.Gateway.DrainWindow)
	}
}

// Zero takes the bound away, which is not what happens by itself.
func TestUploadQuota(t *testing.T) {
	t.Setenv("IM_PUSH_KEY", strings.Repeat("k", 32))
	if cfg, err := load(t); err != nil || cfg.REST.UploadQuota != 10<<30 {
		t.Fatalf("by default %d, %v", cfg.REST.UploadQuota, err)
	}
	t.Setenv("IM_REST_UPLOAD_QUOTA", "0")
	if cfg, err := load(t); err != nil || cfg.REST.UploadQuota != 0 {
		t.Fatalf("%d, %v", cfg.REST.UploadQuota, err)
	}
}

func TestConfigRefusesWhatCannotWork(t *testing.T) {
	tests := map[string][2]string{
		"short key":       {"IM_PUSH_KEY", "short"},
		"sample key":      {"IM_PUSH_KEY", "change-me" + strings.Repeat("x", 32)},
		"no etcd":         {"IM_DISCOVERY_ENDPOINTS", ""},
		"unknown zone":    {"IM_GATEWAY_TIME_ZONE", "Mars/Olympus"},
		"bad origin":      {"IM_GATEWAY_ALLOWED_ORIGINS", "example.com"},
		"negative outbox": {"IM_GATEWAY_OUTBOX_BYTES", "-1"},
		"bad policy":      {"IM_GATEWAY_MULTI_DEVICE", "perhaps"},
		"endless drain":   {"IM_GATEWAY_DRAIN_WINDOW", "60s"},
		"bucket's host":   {"IM_UPLOAD_BUCKET", "file://data/uploads"},
	}
	for name, kv := range tests {
		t.Run(name, func(t *testing.T) {
			t.Setenv("IM_PUSH_KEY", strings.Repeat("k", 32))
			t.Setenv(kv[0], kv[1])
			if _, err := load(t); err == nil {
				t.Fatalf("%s=%q was accepted", kv[0], kv[1])
			}
		})
	}
}

// Every path gets its answer at once, and the socket only what may be a
// handshake.
func TestHandler(t *testing.T) {
	says := func(name string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(name)) })
	}
	h := handler(says("socket"), says("api"))
	for request, want := range map[string]string{
		"GET /im/connect": "socket", "POST /im/connect": "socket", "OPTIONS /im/connect": "api", "GET /im/connect/": "api",
		"GET /api//sessions": "api", "GET /api/../x": "api", "OPTIONS //": "api", "GET /": "api",
	} {
		method, path, _ := strings.Cut(request, " ")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(method, "http://im.example"+path, nil))
		if w.Code != http.StatusOK || w.Body.String() != want {
			t.Errorf("%s: %d %q", request, w.Code, w.Body)
		}
	}
}

// TestG17_NoReplicasAreNotBelieved: lanes go to the last replicas that were known
// until there are others.
func TestG17_NoReplicasAreNotBelieved(t *testing.T) {
	var told [][]gateway.Replica
	changed := followLogic(func(r []gateway.Replica) { told = append(told, r) })
	one, two := discovery.Instance{ID: "l1", Addr: "a1"}, discovery.Instance{ID: "l2", Addr: "a2"}
	for _, list := range [][]discovery.Instance{nil, {one, two}, {}, {two}} {
		changed(list)
	}
	want := [][]gateway.Replica{{{ID: "l1", Addr: "a1"}, {ID: "l2", Addr: "a2"}}, {{ID: "l2", Addr: "a2"}}}
	if !reflect.DeepEqual(told, want) {
		t.Fatalf("told %v, want %v", told, want)
	}
}

// The gateway is the least trusted process: it must not be able to reach the
// stores, nor drag in another service.
func TestDeps(t *testing.T) {
	banned := map[string]string{
		"im-services/internal/platform/database": "no MySQL in a gateway",
		"im-services/internal/platform/cache":    "no Redis in a gateway",
		"im-services/internal/logic":             "services meet over gRPC",
		"im-services/internal/auth":              "services meet over gRPC",
		"im-services/internal/friend":            "services meet over gRPC",
		"im-services/internal/cluster":           "the launcher is no part of a service",
		"im-services/internal/testkit":           "test code",
		"github.com/go-sql-driver/mysql":         "no MySQL in a gateway",
		"github.com/redis/go-redis/v9":           "no Redis in a gateway",
		"github.com/coder/websocket":             "one WebSocket library is enough",
	}
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for dep := range strings.FieldsSeq(string(out)) {
		if why, bad := banned[dep]; bad {
			t.Errorf("cmd/gateway depends on %s: %s", dep, why)
		}
	}
}

func TestDescribe(t *testing.T) {
	if code, text := describe("not_friends"); code != 1003 || text == "" {
		t.Fatalf("not_friends: %d %q", code, text)
	}
	if code, text := describe("no_such_reason"); code != 500 || text != catalog.Text(catalog.Internal, catalog.Chinese) {
		t.Fatalf("unknown reason: %d %q", code, text)
	}
}

func TestHandlerRoutes(t *testing.T) {
	api := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	h := handler(new(gateway.Server), api)
	for _, path := range []string{"/", "/api/sessions", "/im/connectx", "/swagger/index.html"} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if w.Code != http.StatusTeapot {
			t.Errorf("%s: %d, want the API", path, w.Code)
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodOptions, "/im/connect", nil))
	if w.Code != http.StatusTeapot {
		t.Errorf("preflight: %d, want the API", w.Code)
	}
}

func TestIncarnationsDiffer(t *testing.T) {
	if a, b := incarnation(), incarnation(); a == b || len(a) > 40 {
		t.Fatalf("%q %q", a, b)
	}
}
