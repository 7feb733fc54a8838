package main

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"

	"im-services/internal/gateway"
	"im-services/internal/platform/boot"
	"im-services/internal/platform/config"
	"im-services/internal/platform/discovery"
	"im-services/internal/platform/rpc"
	"im-services/internal/platform/telemetry"
	"im-services/internal/push"
	"im-services/internal/rest"
	"im-services/internal/upload"
)

// Config is everything that can be set, by file or by IM_<SECTION>_<KEY>.
type Config struct {
	Telemetry telemetry.Config `yaml:"telemetry"`
	RPC       RPCConfig        `yaml:"rpc"`
	Discovery discovery.Config `yaml:"discovery"`
	Bus       BusConfig        `yaml:"bus"`
	Push      PushConfig       `yaml:"push"`
	Gateway   gateway.Config   `yaml:"gateway"`
	REST      rest.Config      `yaml:"rest"`
	Upload    upload.Config    `yaml:"upload"`
	// StopTimeout is how long a stop may take; the drain window is part of it.
	StopTimeout time.Duration `yaml:"stop_timeout"`
}

// defaults holds what is set unless it is set otherwise, zero included.
func defaults() Config {
	return Config{REST: rest.Config{UploadQuota: rest.DefaultUploadQuota}}
}

// RPCConfig says how the services are called. A gateway serves no RPC itself.
type RPCConfig struct {
	TLS rpc.TLSConfig `yaml:"tls"`
}

// BusConfig says where pushes come from.
type BusConfig struct {
	NSQD        []string `yaml:"nsqd"`    // host:port
	Lookupd     []string `yaml:"lookupd"` // host:port of the HTTP side; optional
	MaxInFlight int      `yaml:"max_in_flight"`
	// AuthSecret is for an nsqd that asks an auth server who may subscribe.
	AuthSecret config.Secret `yaml:"auth_secret"`
}

// PushConfig holds the key that logic and the gateways share.
type PushConfig struct {
	Key config.Secret `yaml:"key"`
}

// Validate names the setting that cannot work, and how to set it.
func (c Config) Validate() error {
	switch {
	case len(c.Discovery.Endpoints) == 0:
		return errors.New("discovery.endpoints is empty: set it in the file or as IM_DISCOVERY_ENDPOINTS, host:2379,…")
	case len(c.Bus.NSQD) == 0 && len(c.Bus.Lookupd) == 0:
		return errors.New("bus.nsqd is empty: set it in the file or as IM_BUS_NSQD, host:4150,…")
	case len(c.Push.Key.Reveal()) < push.MinKeySize:
		return fmt.Errorf("push.key has fewer than %d characters: set one secret for logic and gateways, as IM_PUSH_KEY or file:/path", push.MinKeySize)
	case strings.Contains(c.Push.Key.Reveal(), "change-me"):
		return errors.New("push.key is the sample: set a secret of your own, as IM_PUSH_KEY or file:/path")
	case cmp.Or(c.StopTimeout, boot.DefaultStopTimeout) <= cmp.Or(c.Gateway.DrainWindow, gateway.DefaultDrainWindow):
		return fmt.Errorf("stop_timeout (%v) is no longer than gateway.drain_window (%v): a stop would cut off who has not been told to leave",
			cmp.Or(c.StopTimeout, boot.DefaultStopTimeout), cmp.Or(c.Gateway.DrainWindow, gateway.DefaultDrainWindow))
	}
	return errors.Join(c.Gateway.Validate(), c.REST.Validate(), c.Upload.Validate())
}
