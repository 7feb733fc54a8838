package main

import (
	"errors"
	"strings"
	"time"

	"im-services/internal/auth"
	"im-services/internal/platform/cache"
	"im-services/internal/platform/config"
	"im-services/internal/platform/database"
	"im-services/internal/platform/discovery"
	"im-services/internal/platform/rpc"
	"im-services/internal/platform/telemetry"
)

// Config is everything that can be set, by file or by IM_<SECTION>_<KEY>.
type Config struct {
	Telemetry telemetry.Config `yaml:"telemetry"`
	RPC       rpc.ServerConfig `yaml:"rpc"`
	Discovery discovery.Config `yaml:"discovery"`
	Database  database.Config  `yaml:"database"`
	Cache     cache.Config     `yaml:"cache"`
	Auth      auth.Config      `yaml:"auth"`
	Secrets   Secrets          `yaml:"secrets"`
	// StopTimeout is how long a stop may take.
	StopTimeout time.Duration `yaml:"stop_timeout"`
}

// Secrets are what auth shares with other people's servers. They have a section
// of their own so that they can come from files or variables and never print.
type Secrets struct {
	SMTPPassword config.Secret `yaml:"smtp_password"`
	GitHub       config.Secret `yaml:"github"` // OAuth client secret
	Gitee        config.Secret `yaml:"gitee"`  // OAuth client secret
}

// service returns the service's own configuration with the secrets put in.
func (c Config) service() auth.Config {
	a := c.Auth
	a.Mail.SMTP.Password = c.Secrets.SMTPPassword.Reveal()
	a.OAuth.GitHub.ClientSecret = c.Secrets.GitHub.Reveal()
	a.OAuth.Gitee.ClientSecret = c.Secrets.Gitee.Reveal()
	return a
}

// Validate names the setting that cannot work, and how to set it.
func (c Config) Validate() error {
	switch {
	case c.Database.DSN == "":
		return errors.New("database.dsn is empty: set it in the file or as IM_DATABASE_DSN, user:password@tcp(host:3306)/im_auth")
	case len(c.Discovery.Endpoints) == 0:
		return errors.New("discovery.endpoints is empty: set it in the file or as IM_DISCOVERY_ENDPOINTS, host:2379,…")
	case c.Cache.Addr == "":
		return errors.New("cache.addr is empty: set it in the file or as IM_CACHE_ADDR, host:6379")
	case c.Auth.OAuth.GitHub.ClientID != "" && c.Secrets.GitHub == "":
		return errors.New("auth.oauth.github has a client_id but secrets.github is empty: set it as file:/path or IM_SECRETS_GITHUB")
	case c.Auth.OAuth.Gitee.ClientID != "" && c.Secrets.Gitee == "":
		return errors.New("auth.oauth.gitee has a client_id but secrets.gitee is empty: set it as file:/path or IM_SECRETS_GITEE")
	}
	for _, s := range []config.Secret{c.Secrets.SMTPPassword, c.Secrets.GitHub, c.Secrets.Gitee, c.Database.DSN} {
		if c.Auth.Mode != auth.ModeDebug && strings.Contains(s.Reveal(), "change-me") {
			return errors.New("a secret is still the sample: set your own, as file:/path or by environment")
		}
	}
	if err := c.Auth.Validate(); err != nil {
		return err
	}
	if c.Auth.Mode != auth.ModeDebug && c.Database.Passwordless() {
		return errors.New("database.dsn has no password: outside debug mode give the account one, in IM_DATABASE_DSN or file:/path")
	}
	return nil
}
