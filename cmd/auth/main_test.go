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
	for name, env := range map[string]map[string]string{
		"codes in the log outside debug mode": {"IM_AUTH_MODE": "release"},
		"unknown mode":                        {"IM_AUTH_MODE": "test"},
		"provider without its secret":         {"IM_AUTH_OAUTH_GITHUB_CLIENT_ID": "id"},
		"no database":                         {"IM_DATABASE_DSN": ""},
		"many guesses at a code":              {"IM_AUTH_CODES_TRIES": "1000"},
		"plain http to a provider": {
			"IM_AUTH_OAUTH_GITHUB_CLIENT_ID": "id", "IM_SECRETS_GITHUB": "s", "IM_AUTH_OAUTH_GITHUB_USER_URL": "http://example.com/user",
		},
		"mail password in the clear": {
			"IM_AUTH_MAIL_DRIVER": "smtp", "IM_AUTH_MAIL_SMTP_HOST": "mail.example.com", "IM_AUTH_MAIL_SMTP_FROM": "a@example.com",
			"IM_AUTH_MAIL_SMTP_SECURITY": "none", "IM_AUTH_MAIL_SMTP_USERNAME": "u",
		},
		"sample secret in release": {
			"IM_AUTH_MODE": "release", "IM_AUTH_MAIL_DRIVER": "smtp", "IM_AUTH_MAIL_SMTP_HOST": "mail.example.com",
			"IM_AUTH_MAIL_SMTP_FROM": "a@example.com", "IM_SECRETS_SMTP_PASSWORD": "change-me",
		},
	} {
		t.Run(name, func(t *testing.T) {
			for k, v := range env {
				t.Setenv(k, v)
			}
			var cfg Config
			require.Error(t, config.Load(shipped, &cfg))
		})
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
