package archtest

import (
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"im-services/internal/auth"
	"im-services/internal/friend"
	"im-services/internal/gateway"
	"im-services/internal/platform/config"
	"im-services/internal/rest"
)

// compose is what the rules look at. depends_on is a list or a map.
type compose struct {
	Top      map[string]yaml.Node `yaml:",inline"`
	Services map[string]struct {
		Image       string
		Ports       []string
		Healthcheck yaml.Node
		DependsOn   yaml.Node `yaml:"depends_on"`
		Environment yaml.Node
	}
	Networks map[string]struct {
		IPAM struct {
			Config []struct{ Subnet string }
		}
	}
}

// TestCompose holds both files to what docker-compose 1.29 and compose v2 have in
// common, and to names that people were told.
func TestCompose(t *testing.T) {
	for file, names := range map[string][]string{
		"docker/docker-compose.yml":  {"nsqlookupd", "nsqd", "nsqadmin", "redis", "mysql", "etcd"},
		"deploy/docker-compose.yaml": {"auth-1", "auth-2", "friend-1", "friend-2", "logic-1", "logic-2", "gateway-1", "gateway-2", "balancer"},
	} {
		text := read(t, file)
		var c compose
		if err := yaml.Unmarshal([]byte(text), &c); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for key := range c.Top {
			if key != "volumes" && key != "networks" && !strings.HasPrefix(key, "x-") {
				t.Errorf("%s: %q is not known to every version", file, key)
			}
		}
		for _, name := range names {
			if _, ok := c.Services[name]; !ok {
				t.Errorf("%s: no service %s", file, name)
			}
		}
		for name, s := range c.Services {
			if !regexp.MustCompile(`:[^/]+$`).MatchString(s.Image) || strings.HasSuffix(s.Image, ":latest") {
				t.Errorf("%s: %s: image %q has no version", file, name, s.Image)
			}
			for _, port := range s.Ports {
				if !strings.HasPrefix(port, "127.0.0.1:") {
					t.Errorf("%s: %s: port %s is open to everybody", file, name, port)
				}
			}
			if s.DependsOn.Kind != yaml.MappingNode {
				continue
			}
			var on map[string]struct{ Condition string }
			if err := s.DependsOn.Decode(&on); err != nil {
				t.Fatalf("%s: %s: %v", file, name, err)
			}
			for other, how := range on {
				target, ok := c.Services[other]
				if !ok {
					t.Errorf("%s: %s waits for %s, which is not there", file, name, other)
				}
				if how.Condition == "service_healthy" && target.Healthcheck.IsZero() {
					t.Errorf("%s: %s waits for the health of %s, which has no check", file, name, other)
				}
			}
		}
	}
}

// TestCompose_Guards: in containers, settings made for one machine do not hold, as
// the services read them.
func TestCompose_Guards(t *testing.T) {
	var c compose
	if err := yaml.Unmarshal([]byte(read(t, "deploy/docker-compose.yaml")), &c); err != nil {
		t.Fatal(err)
	}
	load := func(service, file string) settings {
		node, env := c.Services[service].Environment, map[string]string{}
		if err := node.Decode(&env); err != nil {
			t.Fatal(err)
		}
		for name, value := range env {
			t.Setenv(name, interpolated(value))
		}
		var s settings
		if err := config.Load(filepath.Join(root(t), "deploy", "config", file), &s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	if a := load("auth-1", "auth.yaml"); len(a.Auth.Limits.Exempt) != 0 {
		t.Errorf("%v are not limited", a.Auth.Limits.Exempt)
	}
	g := load("gateway-1", "gateway.yaml")
	if g.Gateway.FrameRate > 20 || g.Gateway.FrameBurst > 40 || g.Gateway.ConnectRate > 50 || g.Gateway.ConnectRate == 0 {
		t.Errorf("%d frames per second, %d at once, %d connections per minute", g.Gateway.FrameRate, g.Gateway.FrameBurst, g.Gateway.ConnectRate)
	}
	if f := load("friend-1", "friend.yaml"); f.Friend.RequestsPerDay > 20 {
		t.Errorf("%d friend requests a day", f.Friend.RequestsPerDay)
	}
	for _, trusted := range [][]netip.Prefix{g.Gateway.TrustedProxies, g.REST.TrustedProxies} {
		if len(trusted) != 1 || trusted[0].String() != interpolated(c.Networks["default"].IPAM.Config[0].Subnet) {
			t.Errorf("%v are believed, not the network of the containers alone", trusted)
		}
	}
	balancer := read(t, "deploy/docker/haproxy.cfg")
	if !strings.Contains(balancer, "\thttp-request set-header X-Forwarded-For %[src]\n") || strings.Contains(balancer, "forwardfor") {
		t.Error("the balancer passes on what clients say of their addresses")
	}
}

// settings are those of the services that are looked at.
type settings struct {
	Auth    auth.Config    `yaml:"auth"`
	Friend  friend.Config  `yaml:"friend"`
	Gateway gateway.Config `yaml:"gateway"`
	REST    rest.Config    `yaml:"rest"`
	More    map[string]any `yaml:",inline"`
}

// interpolated is a value as it is if nobody sets the variables in it.
func interpolated(value string) string {
	return regexp.MustCompile(`\$\{\w+:[-?]([^}]*)}`).ReplaceAllString(value, "$1")
}

// TestDockerfile: the classic builder has no mounts and no here-documents, and
// base images must be replaceable where they cannot be pulled.
func TestDockerfile(t *testing.T) {
	for line := range strings.Lines(read(t, "deploy/Dockerfile")) {
		if strings.Contains(line, "--mount") || strings.Contains(line, "<<") {
			t.Errorf("not for every builder: %s", line)
		}
		if from, ok := strings.CutPrefix(line, "FROM "); ok && !strings.HasPrefix(from, "${") {
			t.Errorf("a fixed base image: %s", line)
		}
	}
}

// TestDocs_NameTargetsThatExist: what people are told to type, make knows.
func TestDocs_NameTargetsThatExist(t *testing.T) {
	targets := regexp.MustCompile(`(?m)^([a-z0-9][a-z0-9-]*):`).FindAllStringSubmatch(read(t, "Makefile"), -1)
	known := make([]string, 0, len(targets))
	for _, m := range targets {
		known = append(known, m[1])
	}
	docs, err := filepath.Glob(filepath.Join(root(t), "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	told := regexp.MustCompile("(?m)(?:`|&& |^\\$ |^)make ([a-z][a-z0-9-]*)")
	seen := 0
	for _, path := range append(docs, filepath.Join(root(t), "README.md")) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range told.FindAllStringSubmatch(string(text), -1) {
			seen++
			if !slices.Contains(known, m[1]) {
				t.Errorf("%s: there is no make %s", filepath.Base(path), m[1])
			}
		}
	}
	if seen < 10 {
		t.Errorf("only %d commands found: the search is broken", seen)
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root(t), name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
