package main

import (
	"strings"
	"testing"

	"im-services/internal/platform/config"
)

func TestShippedConfig_LoadsOnceTheSecretIsSet(t *testing.T) {
	t.Setenv("IM_PUSH_KEY", strings.Repeat("k", 32))
	var cfg Config
	if err := config.Load("../../deploy/config/logic.yaml", &cfg); err != nil {
		t.Fatal(err)
	}
}

func TestConfig_NamesTheSettingThatIsMissing(t *testing.T) {
	t.Setenv("IM_PUSH_KEY", strings.Repeat("k", 32))
	for key, want := range map[string]string{
		"IM_DATABASE_DSN":        "database.dsn",
		"IM_CACHE_ADDR":          "cache.addr",
		"IM_PUSH_KEY":            "push.key",
		"IM_DISCOVERY_ENDPOINTS": "discovery.endpoints",
	} {
		t.Run(want, func(t *testing.T) {
			t.Setenv(key, "")
			var cfg Config
			if err := config.Load("../../deploy/config/logic.yaml", &cfg); err == nil || !strings.Contains(err.Error(), want) {
				t.Fatalf("error %v does not name %s", err, want)
			}
		})
	}
}
