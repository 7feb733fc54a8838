package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"im-services/internal/logic"
	"im-services/internal/platform/cache"
	"im-services/internal/platform/config"
	"im-services/internal/platform/database"
	"im-services/internal/platform/discovery"
	"im-services/internal/platform/rpc"
	"im-services/internal/platform/telemetry"
	"im-services/internal/push"
)

// Config is everything that can be set, by file or by IM_<SECTION>_<KEY>.
type Config struct {
	Telemetry telemetry.Config `yaml:"telemetry"`
	RPC       rpc.ServerConfig `yaml:"rpc"`
	Discovery discovery.Config `yaml:"discovery"`
	Database  database.Config  `yaml:"database"`
	Cache     cache.Config     `yaml:"cache"`
	Bus       BusConfig        `yaml:"bus"`
	Push      PushConfig       `yaml:"push"`
	Logic     logic.Config     `yaml:"logic"`
	// StopTimeout is how long a stop may take.
	StopTimeout time.Duration `yaml:"stop_timeout"`
}

// BusConfig says where pushes are published.
type BusConfig struct {
	NSQD           []string      `yaml:"nsqd"`      // host:port
	NSQDHTTP       []string      `yaml:"nsqd_http"` // host:port, to sweep dead gateways' topics; optional
	PublishTimeout time.Duration `yaml:"publish_timeout"`
	// AuthSecret is for an nsqd that asks an auth server who may publish.
	AuthSecret config.Secret `yaml:"auth_secret"`
}

// PushConfig holds the key that logic and the gateways share.
type PushConfig struct {
	Key config.Secret `yaml:"key"`
}

// Validate names the setting that cannot work, and how to set it.
func (c Config) Validate() error {
	switch {
	case c.Database.DSN == "":
		return errors.New("database.dsn is empty: set it in the file or as IM_DATABASE_DSN, user:password@tcp(host:3306)/im_logic")
	case len(c.Discovery.Endpoints) == 0:
		return errors.New("discovery.endpoints is empty: set it in the file or as IM_DISCOVERY_ENDPOINTS, host:2379,…")
	case len(c.Bus.NSQD) == 0:
		return errors.New("bus.nsqd is empty: set it in the file or as IM_BUS_NSQD, host:4150,…")
	case c.Cache.Addr == "":
		return errors.New("cache.addr is empty: set it in the file or as IM_CACHE_ADDR, host:6379")
	case len(c.Push.Key.Reveal()) < push.MinKeySize:
		return fmt.Errorf("push.key has fewer than %d characters: set one secret for logic and gateways, as IM_PUSH_KEY or file:/path", push.MinKeySize)
	case strings.Contains(c.Push.Key.Reveal(), "change-me"):
		return errors.New("push.key is the sample: set a secret of your own, as IM_PUSH_KEY or file:/path")
	}
	return c.Logic.Validate()
}
