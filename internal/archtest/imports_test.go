package archtest

import (
	"strings"
	"testing"
)

// rule says what packages may import, besides the standard library.
type rule struct {
	of     string   // the package, or with a trailing slash the packages below
	ours   []string // of this module; a trailing slash allows all below
	theirs []string // of other modules, as prefixes
	why    string
}

// rules hold for the packages that services consist of. The first that matches
// counts. Packages that no rule matches are tools and test equipment: what they
// import is not limited, who imports them is (see equipment).
var rules = []rule{
	{
		of:  "internal/im",
		why: "the vocabulary depends on nothing",
	},
	{
		of:  "internal/seeded",
		why: "a fault on purpose is known by its name alone",
	},
	{
		of:  "internal/failpoint",
		why: "a step that can fail on purpose depends on nothing",
	},
	{
		of: "internal/names", theirs: []string{"golang.org/x/text/unicode/norm"},
		why: "what a name is depends on nothing",
	},
	{
		of: "internal/wire", ours: []string{"internal/im"},
		why: "the client protocol knows no database, no pb and no HTTP framework",
	},
	{
		of: "internal/token", ours: []string{"internal/im"},
		theirs: []string{"github.com/golang-jwt/jwt/v5"},
		why:    "a token is checked wherever it is met, without anything else",
	},
	{
		of: "internal/push", ours: []string{"internal/im", "api/proto/push/v1"},
		theirs: []string{"google.golang.org/protobuf/"},
		why:    "envelopes do not know what carries them",
	},
	{
		of: "internal/catalog", ours: []string{"internal/im"}, theirs: []string{"golang.org/x/text/language", "gopkg.in/yaml.v3"},
		why: "texts of errors are data",
	},
	{
		of:     "internal/upload",
		ours:   []string{"internal/im"},
		theirs: []string{"gocloud.dev/", "github.com/gabriel-vasile/mimetype", "github.com/disintegration/imaging", prometheus},
		why:    "files are stored without knowing who serves them",
	},
	{
		of:     "internal/gateway",
		ours:   []string{"internal/im", "internal/wire", "internal/push", "internal/token", "internal/catalog", "internal/peer", "internal/failpoint", "internal/seeded", "api/proto/"},
		theirs: []string{prometheus, grpc, protobuf, "github.com/gorilla/websocket", "github.com/coder/websocket", "golang.org/x/", "github.com/hashicorp/golang-lru/v2"},
		why:    "the edge has sockets and clients, no database, cache, bus or other service",
	},
	{
		of:     "internal/rest",
		ours:   []string{"internal/im", "internal/wire", "internal/push", "internal/token", "internal/catalog", "internal/peer", "internal/names", "internal/upload", "api/proto/"},
		theirs: []string{prometheus, grpc, protobuf, "github.com/go-chi/chi/v5", "golang.org/x/", "github.com/hashicorp/golang-lru/v2", "gopkg.in/yaml.v3"},
		why:    "the edge has clients, no database, cache, bus or other service",
	},
	{
		of:     "internal/logic",
		ours:   []string{"internal/im", "internal/push", "internal/failpoint", "internal/seeded", "internal/platform/database", "internal/logic/", "api/proto/logic/v1", "api/proto/push/v1"},
		theirs: stores,
		why:    "services meet over gRPC; they know neither the client protocol nor what carries their messages",
	},
	{of: "internal/logic/", why: "embedded files"},
	{
		of:     "internal/auth",
		ours:   []string{"internal/im", "internal/names", "internal/token", "internal/platform/database", "internal/auth/", "api/proto/auth/v1"},
		theirs: append([]string{"github.com/go-redis/redis_rate/v10", "github.com/wneessen/go-mail"}, stores...),
		why:    "services meet over gRPC; they know neither the client protocol nor the plumbing of a process",
	},
	{of: "internal/auth/", why: "embedded files"},
	{
		of:     "internal/friend",
		ours:   []string{"internal/im", "internal/failpoint", "internal/seeded", "internal/platform/database", "internal/friend/", "api/proto/friend/v1", "api/proto/logic/v1", "api/proto/push/v1"},
		theirs: stores,
		why:    "services meet over gRPC; they know neither the client protocol nor the plumbing of a process",
	},
	{of: "internal/friend/", why: "embedded files"},
	{
		of: "internal/platform/rpc", ours: []string{"internal/im"},
		theirs: []string{prometheus, grpc, "google.golang.org/genproto/googleapis/rpc/", "golang.org/x/time/rate"},
		why:    "errors of the vocabulary cross processes here; the plumbing meets in cmd",
	},
	{
		of: "internal/platform/bus", ours: []string{"internal/platform/config"},
		theirs: []string{"github.com/nsqio/go-nsq", prometheus},
		why:    "the plumbing meets in cmd",
	},
	{
		of: "internal/platform/discovery", ours: []string{"internal/platform/config"},
		theirs: []string{"go.etcd.io/etcd/", "go.uber.org/zap", grpc, prometheus},
		why:    "the plumbing meets in cmd",
	},
	{
		of: "internal/platform/database", ours: []string{"internal/platform/config"},
		theirs: []string{"github.com/go-sql-driver/mysql", "github.com/jmoiron/sqlx", "github.com/pressly/goose/v3", prometheus},
		why:    "the plumbing meets in cmd",
	},
	{
		of: "internal/platform/cache", ours: []string{"internal/platform/config"},
		theirs: []string{"github.com/redis/go-redis/v9", prometheus},
		why:    "the plumbing meets in cmd",
	},
	{of: "internal/platform/config", theirs: []string{"gopkg.in/yaml.v3"}, why: "everything may use config.Secret"},
	{of: "internal/platform/telemetry", theirs: []string{prometheus}, why: "the plumbing meets in cmd"},
	{of: "internal/platform/boot", why: "the plumbing meets in cmd"},
	process("gateway", "internal/rest", "internal/upload"),
	process("logic"),
	process("auth"),
	process("friend"),
}

const (
	prometheus = "github.com/prometheus/client_golang/prometheus"
	grpc       = "google.golang.org/grpc"
	protobuf   = "google.golang.org/protobuf/"
)

// stores is what a service with a database may use of other modules.
var stores = []string{
	prometheus, grpc, protobuf, "golang.org/x/",
	"github.com/jmoiron/sqlx", "github.com/redis/go-redis/v9", "github.com/hashicorp/golang-lru/v2", "github.com/google/uuid",
}

// process is the rule of a service's command: it wires its service and the
// plumbing, and nothing of the other services.
func process(service string, more ...string) rule {
	ours := []string{
		"internal/" + service, "internal/" + service + "/",
		"internal/platform/", "internal/im", "internal/push", "internal/token", "internal/catalog", "internal/seeded", "api/proto/",
	}
	return rule{
		of: "cmd/" + service, ours: append(ours, more...),
		theirs: []string{grpc, prometheus, "golang.org/x/", "github.com/redis/go-redis/v9", "github.com/jmoiron/sqlx"},
		why:    "a command wires one service",
	}
}

// equipment is never part of a service's binary, not even indirectly.
var equipment = []string{
	"internal/cluster", "internal/testkit", "internal/e2e", "internal/conformance",
	"internal/bench", "internal/imclient", "internal/archtest", "internal/check", "internal/tcpproxy",
}

// homes are the only packages that may name a driver.
var homes = []struct {
	driver string
	homes  []string
}{
	{"github.com/nsqio/go-nsq", []string{"internal/platform/bus"}},
	{"go.etcd.io/etcd/", []string{"internal/platform/discovery"}},
	{"github.com/golang-jwt/jwt/v5", []string{"internal/token"}},
	{"github.com/go-chi/chi/v5", []string{"internal/rest"}},
	{"github.com/pressly/goose/v3", []string{"internal/platform/database"}},
	{"gocloud.dev/", []string{"internal/upload"}},
}

// matches reports whether name is pattern or, if that ends in a slash, below it.
func matches(name, pattern string) bool {
	if strings.HasSuffix(pattern, "/") {
		return strings.HasPrefix(name, pattern)
	}
	return name == pattern
}

// theirsMatch reports whether an import path is that of a module or below it.
func theirsMatch(path, prefix string) bool {
	return path == prefix || strings.HasPrefix(path, strings.TrimSuffix(prefix, "/")+"/")
}

func anyMatch(patterns []string, name string, match func(name, pattern string) bool) bool {
	for _, p := range patterns {
		if match(name, p) {
			return true
		}
	}
	return false
}

// standard reports whether path belongs to the standard library.
func standard(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return !strings.Contains(first, ".") && first+"/" != module
}

// broken returns the imports of p that r does not allow.
func (r *rule) broken(p *pkg) []string {
	var bad []string
	for _, path := range p.Imports {
		switch {
		case standard(path):
		case strings.HasPrefix(path, module):
			if !anyMatch(r.ours, strings.TrimPrefix(path, module), matches) {
				bad = append(bad, path)
			}
		case !anyMatch(r.theirs, path, theirsMatch):
			bad = append(bad, path)
		}
	}
	return bad
}

func TestImports(t *testing.T) {
	used := make(map[string]bool)
	for _, p := range packages(t) {
		for i := range rules {
			r := &rules[i]
			if !matches(p.name(), r.of) {
				continue
			}
			used[r.of] = true
			for _, path := range r.broken(p) {
				t.Errorf("%s imports %s: %s", p.name(), path, r.why)
			}
			break
		}
	}
	for _, r := range rules {
		if !used[r.of] && !strings.HasSuffix(r.of, "/") {
			t.Errorf("the rule of %s matches no package", r.of)
		}
	}
}

func TestServices_DoNotContainTestEquipment(t *testing.T) {
	for _, p := range packages(t) {
		switch p.name() {
		case "cmd/gateway", "cmd/logic", "cmd/auth", "cmd/friend":
		default:
			continue
		}
		for _, dep := range p.Deps {
			name, ours := strings.CutPrefix(dep, module)
			if !ours {
				continue
			}
			for _, e := range equipment {
				if matches(name, e) || matches(name, e+"/") {
					t.Errorf("%s contains %s: equipment stays out of services", p.name(), name)
				}
			}
			service := strings.TrimPrefix(p.name(), "cmd/")
			for _, other := range []string{"gateway", "logic", "auth", "friend"} {
				if other != service && matches(name, "internal/"+other) {
					t.Errorf("%s contains %s: services meet over gRPC, never by import", p.name(), name)
				}
			}
		}
	}
}

func TestDrivers_LiveInOnePlace(t *testing.T) {
	for _, p := range packages(t) {
		for _, path := range p.Imports {
			for _, h := range homes {
				if theirsMatch(path, h.driver) && !anyMatch(h.homes, p.name(), matches) {
					t.Errorf("%s imports %s, which lives in %s", p.name(), path, strings.Join(h.homes, ", "))
				}
			}
		}
	}
}

// The checks find what they are for.
func TestRules_CanFail(t *testing.T) {
	logic := func() *rule {
		for i := range rules {
			if rules[i].of == "internal/logic" {
				return &rules[i]
			}
		}
		t.Fatal("no rule for logic")
		return nil
	}()
	for _, path := range []string{module + "internal/wire", module + "internal/auth", module + "internal/platform/bus", "github.com/nsqio/go-nsq", "github.com/jmoiron/sqlxx"} {
		if len(logic.broken(&pkg{Imports: []string{path}})) == 0 {
			t.Errorf("logic may import %s", path)
		}
	}
	for _, path := range []string{"context", "net/http", module + "internal/im", "github.com/jmoiron/sqlx", "google.golang.org/grpc/codes"} {
		if len(logic.broken(&pkg{Imports: []string{path}})) != 0 {
			t.Errorf("logic may not import %s", path)
		}
	}
}
