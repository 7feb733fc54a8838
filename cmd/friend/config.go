package main

import (
	"errors"
	"time"

	"im-services/internal/friend"
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
	Friend    friend.Config    `yaml:"friend"`
	// StopTimeout is how long a stop may take.
	StopTimeout time.Duration `yaml:"stop_timeout"`
}

// Validate names the setting that cannot work, and how to set it.
func (c Config) Validate() error {
	var errs []error
	if c.Database.DSN == "" {
		errs = append(errs, errors.New("database.dsn is empty: set it in the file or as IM_DATABASE_DSN, user:password@tcp(host:3306)/im_friend"))
	}
	if len(c.Discovery.Endpoints) == 0 {
		errs = append(errs, errors.New("discovery.endpoints is empty: set it in the file or as IM_DISCOVERY_ENDPOINTS, host:2379,…"))
	}
	if c.StopTimeout < 0 || c.StopTimeout > time.Hour {
		errs = append(errs, errors.New("stop_timeout must be between 0 (30s) and an hour"))
	}
	return errors.Join(append(errs, c.Friend.Validate())...)
}
