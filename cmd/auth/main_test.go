package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"im-services/internal/auth"
	"im-services/internal/platform/config"
)

const shipped = "../../deploy/config/auth.yaml"

func TestConfig_ShippedFileLoads(t *testing.T) {
	var cfg Config
	require.NoError(t, config.Load(shipped, &cfg))
	require.Equal(t, auth.ModeDebug, cfg.Auth.Mode, "the shipped file is for one machine; see its comments")
}

func TestConfig_SecretsReachTheService(t *testing.T) {
	t.Setenv("IM_SECRETS_SMTP_PASSWORD", "s1")
	t.Setenv("IM_SECRETS_GITHUB", "s2")
	t.Setenv("IM_SECRETS_GITEE", "s3")
	var cfg Config
	require.NoError(t, config.Load(shipped, &cfg))
	a := cfg.service()
	require.Equal(t, []string{"s1", "s2", "s3"}, []string{a.Mail.SMTP.Password, a.OAuth.GitHub.ClientSecret, a.OAuth.Gitee.ClientSecret})
}

func TestConfig_Refuses(t *testing.T) {
	release := map[string]string{
		"IM_AUTH_MODE": "release", "IM_AUTH_MAIL_DRIVER": "smtp", "IM_AUTH_MAIL_SMTP_HOST": "mail.example.com",
		"IM_AUTH_MAIL_SMTP_FROM": "im@example.com", "IM_SECRETS_SMTP_PASSWORD": "a secret", "IM_DATABASE_DSN": "im_auth:a password@tcp(127.0.0.1:3306)/im_auth",
	}
	load := func(t *testing.T, sets ...map[string]string) error {
		for _, env := range sets {
			for k, v := range env {
				t.Setenv(k, v)
			}
		}
		var cfg Config
		return config.Load(shipped, &cfg)
	}
	t.Run("nothing in a good release", func(t *testing.T) { require.NoError(t, load(t, release)) })
	for name, c := range map[string]struct {
		want string
		base map[string]string
		env  map[string]string
	}{
		"codes in the log outside debug mode": {"driver log", nil, map[string]string{"IM_AUTH_MODE": "release"}},
		"unknown mode":                        {"mode must be", nil, map[string]string{"IM_AUTH_MODE": "test"}},
		"no database":                         {"database.dsn", nil, map[string]string{"IM_DATABASE_DSN": ""}},
		"many guesses at a code":              {"codes.tries", nil, map[string]string{"IM_AUTH_CODES_TRIES": "1000"}},
		"many guesses at an address's codes":  {"codes.tries_per_day", nil, map[string]string{"IM_AUTH_CODES_TRIES_PER_DAY": "1000"}},
		"provider without its secret":         {"secrets.github", nil, map[string]string{"IM_AUTH_OAUTH_GITHUB_CLIENT_ID": "id"}},
		"plain http to a provider": {"must be https", nil, map[string]string{
			"IM_AUTH_OAUTH_GITHUB_CLIENT_ID": "id", "IM_SECRETS_GITHUB": "s", "IM_AUTH_OAUTH_GITHUB_USER_URL": "http://example.com/user",
		}},
		"mail password in the clear": {"in the clear", release, map[string]string{
			"IM_AUTH_MAIL_SMTP_SECURITY": "none", "IM_AUTH_MAIL_SMTP_USERNAME": "u",
		}},
		"cheap hashes in release":  {"hash.memory_kib", release, map[string]string{"IM_AUTH_HASH_MEMORY_KIB": "64"}},
		"no password in release":   {"no password", release, map[string]string{"IM_DATABASE_DSN": "root@tcp(127.0.0.1:3306)/im_auth"}},
		"sample secret in release": {"sample", release, map[string]string{"IM_SECRETS_SMTP_PASSWORD": "change-me"}},
	} {
		t.Run(name, func(t *testing.T) { require.ErrorContains(t, load(t, c.base, c.env), c.want) })
	}
}

func TestConfig_UnknownKeyIsRefused(t *testing.T) {
	src, err := os.ReadFile(shipped)
	require.NoError(t, err)
	for _, extra := range []string{"mail_driver: log\n", "secrets:\n  smtp: x\n"} {
		path := filepath.Join(t.TempDir(), "auth.yaml")
		require.NoError(t, os.WriteFile(path, append(src, extra...), 0o600))
		var cfg Config
		require.Error(t, config.Load(path, &cfg), extra)
	}
}

// The service must not grow into its neighbours or link what is for tests.
func TestDeps(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	require.NoError(t, err)
	for _, bad := range []string{
		"im-services/internal/logic", "im-services/internal/friend", "im-services/internal/gateway", "im-services/internal/rest",
		"im-services/internal/wire", "im-services/internal/cluster", "im-services/internal/testkit", "im-services/internal/platform/bus",
	} {
		for dep := range strings.FieldsSeq(string(out)) {
			require.False(t, dep == bad || strings.HasPrefix(dep, bad+"/"), "auth must not link %s", dep)
		}
	}
}
