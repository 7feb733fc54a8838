package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"im-services/internal/platform/config"
)

const shipped = "../../deploy/config/friend.yaml"

func TestConfig_ShippedFileLoads(t *testing.T) {
	var cfg Config
	require.NoError(t, config.Load(shipped, &cfg))
	require.Equal(t, 3000, cfg.Friend.RequestsPerDay)
}

func TestConfig_Refuses(t *testing.T) {
	for name, c := range map[string]struct{ key, value, want string }{
		"no database":                   {"IM_DATABASE_DSN", "", "database.dsn"},
		"no discovery":                  {"IM_DISCOVERY_ENDPOINTS", "", "discovery.endpoints"},
		"negative limit":                {"IM_FRIEND_REQUESTS_PER_DAY", "-1", "requests_per_day"},
		"claims shorter than the calls": {"IM_FRIEND_CLAIM_FOR", "1s", "claim_for"},
		"useless id blocks":             {"IM_FRIEND_ID_BLOCK", "1", "id_block"},
		"endless stop":                  {"IM_STOP_TIMEOUT", "100h", "stop_timeout"},
		"not a duration":                {"IM_FRIEND_LOGIC_TIMEOUT", "soon", "LOGIC_TIMEOUT"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(c.key, c.value)
			var cfg Config
			require.ErrorContains(t, config.Load(shipped, &cfg), c.want)
		})
	}
}

func TestConfig_UnknownKeyIsRefused(t *testing.T) {
	src, err := os.ReadFile(shipped)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "friend.yaml")
	require.NoError(t, os.WriteFile(path, append(src, "cache:\n  addr: x\n"...), 0o600))
	var cfg Config
	require.Error(t, config.Load(path, &cfg))
}

// The service must not grow into its neighbours or link what is for tests.
func TestDeps(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", ".").Output()
	require.NoError(t, err)
	for _, bad := range []string{
		"im-services/internal/logic", "im-services/internal/auth", "im-services/internal/gateway", "im-services/internal/rest",
		"im-services/internal/wire", "im-services/internal/cluster", "im-services/internal/testkit",
		"im-services/internal/platform/bus", "im-services/internal/platform/cache",
	} {
		for dep := range strings.FieldsSeq(string(out)) {
			require.False(t, dep == bad || strings.HasPrefix(dep, bad+"/"), "friend must not link %s", dep)
		}
	}
}
